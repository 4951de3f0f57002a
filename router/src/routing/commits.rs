//! Owns when positions are committed, and what a commit's answer means.
//!
//! It must never have two commits under way, so that no later position is overtaken by an earlier
//! one. The surprise: a commit that was refused in a rebalance is made again for what is still
//! owned, with the watermarks of then.

use std::time::Duration;

use runtime::log::{Class, Error as LogError, Partition, Position};
use tokio::time::Instant;

use super::{Done, Router};
use crate::Error;

const RETRY: Duration = Duration::from_millis(50);

/// The commit under way and the time of the next.
#[derive(Debug)]
pub(super) struct Commits {
    interval: Duration,
    /// Partition, tenure, position and metadata of each.
    under_way: Option<Vec<(Partition, u64, i64, String)>>,
    /// What is not urgent waits until then.
    next_at: Instant,
    /// Everything waits until then after a refusal.
    retry_at: Instant,
}

impl Commits {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            under_way: None,
            next_at: now,
            retry_at: now,
        }
    }

    /// Whether an answer is awaited.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the commit under way may commit for `partition`.
    pub(super) fn covers(&self, partition: &Partition) -> bool {
        self.under_way
            .iter()
            .flatten()
            .any(|(covered, ..)| covered == partition)
    }
}

impl Router {
    /// When the next commit is due; `None` while one is under way or there is nothing to commit.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        if self.commits.is_under_way() {
            return None;
        }
        let mut wanting = self
            .sources
            .values()
            .filter(|source| source.to_commit().is_some());
        let first = wanting.next()?;
        let urgent = std::iter::once(first)
            .chain(wanting)
            .any(|source| source.is_urgent(&self.options.window));
        let at = if urgent {
            self.commits.retry_at
        } else {
            self.commits.next_at
        };
        Some(at.max(self.commits.retry_at))
    }

    /// Sends a commit of every position that has moved, when it is due.
    pub(super) fn start_commit(&mut self) {
        let now = self.clock.instant();
        if self.commit_due().is_none_or(|due| due > now) {
            return;
        }
        let moved: Vec<(Partition, u64, i64, String)> = self
            .sources
            .iter()
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
        self.commits.under_way = Some(moved);
        self.commits.next_at = now + self.commits.interval;
        let member = self.member.clone();
        self.work.push(Box::pin(async move {
            Done::Committed(member.commit(positions).await)
        }));
    }

    pub(super) fn on_committed(&mut self, answer: Result<(), LogError>) -> Result<(), Error> {
        let committed = self.commits.under_way.take().unwrap_or_default();
        let Err(error) = answer else {
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
        self.metrics.commit_failures.inc();
        self.commits.retry_at = self.clock.instant() + RETRY;
        match error.class() {
            Class::Never => Err(Error::Log(error)),
            // Whether this member is out for good is for its membership to say.
            Class::Retry | Class::Unknown | Class::Fenced => {
                tracing::debug!(%error, "commit is made again");
                Ok(())
            }
        }
    }
}
