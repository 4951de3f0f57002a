//! Owns when positions are committed, and what a commit's answer means.
//!
//! It must never have two commits of a partition under way, so that no later position is overtaken
//! by an earlier one, nor let a topic of the user's own that refuses hold up any other: each has
//! commits of its own. The surprise: a commit that was refused in a rebalance is made again for what
//! is still owned, with the watermarks of then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime::log::{Class, Error as LogError, Partition, Position, TopicName};
use tokio::time::Instant;

use super::metrics;
use super::source::Source;
use super::{Done, Router};
use crate::Error;

const RETRY: Duration = Duration::from_millis(50);
/// A topic of the user's own that goes on refusing is asked less often.
const RETRY_MAX: Duration = Duration::from_millis(400);

/// A topic of the user's own; none for the installation's, which are committed together.
pub(super) type Lane = Option<TopicName>;

/// The lane of `partition`.
fn lane_of<'a>(partition: &'a Partition, source: &Source) -> Option<&'a TopicName> {
    match source.class {
        metrics::Class::Live | metrics::Class::Bulk => None,
        metrics::Class::Source => Some(&partition.topic),
    }
}

/// The commits of every lane.
#[derive(Debug)]
pub(super) struct Commits {
    interval: Duration,
    own: Turn,
    topics: BTreeMap<TopicName, Turn>,
    begun_at: Instant,
}

/// The commit of one lane that is under way and the time of the next.
#[derive(Debug)]
struct Turn {
    /// Partition, tenure, position and metadata of each.
    under_way: Option<Vec<(Partition, u64, i64, String)>>,
    /// What is not urgent waits until then.
    next_at: Instant,
    /// Everything waits until then after a refusal.
    retry_at: Instant,
    /// Refusals one after the other.
    refusals: u32,
}

impl Turn {
    fn new(now: Instant) -> Self {
        Self {
            under_way: None,
            next_at: now,
            retry_at: now,
            refusals: 0,
        }
    }

    /// When something may be committed; `None` while an answer is awaited.
    fn due(&self, is_urgent: bool) -> Option<Instant> {
        let next_at = self.next_at.max(self.retry_at);
        let at = if is_urgent { self.retry_at } else { next_at };
        self.under_way.is_none().then_some(at)
    }
}

impl Commits {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            own: Turn::new(now),
            topics: BTreeMap::new(),
            begun_at: now,
        }
    }

    fn turns(&self) -> impl Iterator<Item = &Turn> {
        std::iter::once(&self.own).chain(self.topics.values())
    }

    fn turn(&mut self, lane: &Lane) -> &mut Turn {
        let Some(topic) = lane else {
            return &mut self.own;
        };
        let turn = self.topics.entry(topic.clone());
        turn.or_insert_with(|| Turn::new(self.begun_at))
    }

    fn due(&self, lane: Option<&TopicName>, is_urgent: bool) -> Option<Instant> {
        let turn = lane.map_or(Some(&self.own), |topic| self.topics.get(topic));
        turn.map_or(Some(self.begun_at), |turn| turn.due(is_urgent))
    }

    /// Whether an answer is awaited.
    pub(super) fn is_under_way(&self) -> bool {
        self.turns().any(|turn| turn.under_way.is_some())
    }

    /// Whether a commit under way may commit for `partition`.
    pub(super) fn covers(&self, partition: &Partition) -> bool {
        self.turns()
            .flat_map(|turn| turn.under_way.iter().flatten())
            .any(|(covered, ..)| covered == partition)
    }

    /// Forgets `topic`, of which nothing is owned any more.
    pub(super) fn forget(&mut self, topic: &TopicName) {
        self.topics
            .retain(|other, turn| other != topic || turn.under_way.is_some());
    }
}

impl Router {
    /// When the next commit is due; `None` while there is nothing to commit whose lane is free.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        let due = self.sources.iter();
        due.filter_map(|(partition, source)| self.due_of(partition, source))
            .min()
    }

    fn due_of(&self, partition: &Partition, source: &Source) -> Option<Instant> {
        source.to_commit()?;
        let is_urgent = source.is_urgent(&self.options.window);
        self.commits.due(lane_of(partition, source), is_urgent)
    }

    /// Sends a commit of every position that has moved, of each lane where it is due.
    pub(super) fn start_commit(&mut self) {
        let now = self.clock.instant();
        let due = self.sources.iter().filter(|(partition, source)| {
            self.due_of(partition, source).is_some_and(|due| due <= now)
        });
        let lanes: BTreeSet<Lane> = due
            .map(|(partition, source)| lane_of(partition, source).cloned())
            .collect();
        for lane in lanes {
            self.send_commit(lane, now);
        }
    }

    fn send_commit(&mut self, lane: Lane, now: Instant) {
        let moved: Vec<(Partition, u64, i64, String)> = self
            .sources
            .iter()
            .filter(|(partition, source)| lane_of(partition, source) == lane.as_ref())
            .filter_map(|(partition, source)| {
                let (offset, metadata) = (source.to_commit()?, source.metadata());
                Some((partition.clone(), source.tenure, offset, metadata))
            })
            .collect();
        let positions = moved
            .iter()
            .map(|(partition, _, offset, metadata)| Position {
                partition: partition.clone(),
                offset: *offset,
                metadata: metadata.clone(),
            })
            .collect();
        let next_at = now + self.commits.interval;
        let turn = self.commits.turn(&lane);
        turn.under_way = Some(moved);
        turn.next_at = next_at;
        let member = self.member.clone();
        self.work.push(Box::pin(async move {
            Done::Committed(lane, member.commit(positions).await)
        }));
    }

    pub(super) fn on_committed(
        &mut self,
        lane: &Lane,
        answer: Result<(), LogError>,
    ) -> Result<(), Error> {
        let now = self.clock.instant();
        let turn = self.commits.turn(lane);
        let committed = turn.under_way.take().unwrap_or_default();
        let Err(error) = answer else {
            turn.refusals = 0;
            for (partition, tenure, offset, metadata) in committed {
                let source = self.sources.get_mut(&partition);
                if let Some(source) = source.filter(|source| source.tenure == tenure) {
                    source.committed(offset);
                    let is_marked = source.committed_with(&metadata);
                    self.regulate(&partition);
                    if is_marked {
                        self.tend(&partition);
                    }
                }
            }
            return Ok(());
        };
        let wait = match lane {
            Some(_) => RETRY_MAX.min(RETRY.saturating_mul(1 << turn.refusals.min(8))),
            None => RETRY,
        };
        turn.retry_at = now + wait;
        turn.refusals = turn.refusals.saturating_add(1);
        self.metrics.commit_failures.inc();
        match (error.class(), lane) {
            (Class::Never, Some(topic)) => self.set_aside(topic, &error),
            (Class::Never, None) => return Err(Error::Log(error)),
            // Whether this member is out for good is for its membership to say.
            (Class::Retry | Class::Unknown | Class::Fenced, _) => {
                tracing::debug!(%error, "commit is made again");
            }
        }
        Ok(())
    }
}
