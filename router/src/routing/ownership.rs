//! Owns which source partitions this router has: taking over, giving up, losing.
//!
//! It must never acknowledge a revoke while something is in flight or a commit is under way, until
//! the drain deadline; after it, nothing is committed for the partition. The surprise: partitions
//! that were *lost* are dropped at once, since somebody else has them already.

use std::collections::BTreeSet;

use runtime::log::{Error as LogError, Membership, Partition, Revocation};
use tokio::time::Instant;

use super::first::First;
use super::metrics::Class;
use super::source::{Phase, Reading, Source};
use super::start::{self, Novelty, Start};
use super::{Done, Router};
use crate::Error;
use crate::matching::{Gates, Places};

/// Partitions that are being given up.
#[derive(Debug)]
pub(super) struct Drain {
    /// Acknowledged when it is dropped; none where the router itself stops.
    revocation: Option<Revocation>,
    waiting: BTreeSet<Partition>,
    deadline: Instant,
}

impl Router {
    pub(super) fn on_membership(&mut self, message: Option<Membership>) -> Result<(), Error> {
        match message {
            Some(Membership::Assigned(partitions)) => {
                partitions
                    .iter()
                    .for_each(|partition| self.assign(partition));
                self.survey();
            }
            Some(Membership::Revoked(revocation)) => {
                let partitions = revocation.partitions().to_vec();
                self.drain(partitions, Some(revocation));
            }
            Some(Membership::Lost(partitions)) => {
                tracing::warn!(?partitions, "partitions are lost");
                partitions
                    .iter()
                    .for_each(|partition| self.give_up(partition));
            }
            Some(Membership::Fenced(error)) => {
                self.give_up_all();
                let instance = self.options.instance.clone();
                return Err(Error::Fenced { instance, error });
            }
            Some(Membership::Failed(error)) => {
                self.give_up_all();
                return Err(Error::Membership(error));
            }
            None => {
                self.give_up_all();
                return Err(Error::MembershipEnded);
            }
        }
        self.show_owned();
        Ok(())
    }

    fn assign(&mut self, partition: &Partition) {
        if self.stopping {
            return;
        }
        // Lost while it was being given up, it may come back before the answer of a commit that the
        // giving up waits for: what begins now is not to be given up at its deadline.
        for drain in &mut self.drains {
            drain.waiting.remove(partition);
        }
        let places = Places {
            source_topic: partition.topic.as_str().into(),
            source: partition.clone(),
            deliveries: self.topics.deliveries.clone(),
            dead: self.topics.dead.clone(),
            gates: Gates::default(),
        };
        let tenure = self.next_number();
        self.begin_aside(partition, tenure);
        let class = self.turns.class(&partition.topic);
        let reading = match class {
            Class::Live | Class::Bulk => Reading::Events,
            Class::Source => self.feeds.reading(&partition.topic),
        };
        let earlier = self.sources.insert(
            partition.clone(),
            Source::new(places, class, reading, tenure),
        );
        if let Some(mut earlier) = earlier {
            earlier.abandon();
        }
        self.look_up_start(partition);
    }

    /// Looks up where `partition` starts.
    pub(super) fn look_up_start(&mut self, partition: &Partition) {
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        source.phase = Phase::Starting;
        let (tenure, partition) = (source.tenure, partition.clone());
        if !source.reading.goes_on() {
            // Looked up once there is a source to say where.
            return;
        }
        let recorded = self.index.recorded_partitions();
        let topics = self.options.sources.iter();
        let others = topics.filter(|topic| **topic != partition.topic);
        let novelty = Novelty {
            // A partition beyond the recorded count was added later and has no position yet.
            is_new: recorded.is_some_and(|recorded| partition.number >= recorded),
            others: others
                .flat_map(|topic| (0..recorded.unwrap_or(1)).map(|number| topic.partition(number)))
                .collect(),
            first: First::of(&source.reading),
        };
        let (log, member) = (self.log.clone(), self.member.clone());
        self.work.push(Box::pin(async move {
            let start = start::take_over(log, &*member, &partition, &novelty).await;
            Done::Started {
                partition,
                tenure,
                start,
            }
        }));
    }

    pub(super) fn on_started(&mut self, partition: &Partition, tenure: u64, start: Start) {
        let source = self.sources.get_mut(partition);
        let Some(source) =
            source.filter(|source| source.tenure == tenure && source.phase == Phase::Starting)
        else {
            return;
        };
        if let Some(lost) = &start.lost {
            self.metrics.incidents.inc();
            tracing::error!(
                %partition, from = lost.from, through = lost.through, at = start.at,
                "{}", lost.detail
            );
        }
        source.start(start);
        self.open_producer(partition, std::time::Duration::ZERO);
        self.tend(partition);
    }

    /// The log will never say where `partition` starts.
    pub(super) fn on_no_start(
        &mut self,
        partition: &Partition,
        tenure: u64,
        error: LogError,
    ) -> Result<(), Error> {
        let source = self.sources.get(partition);
        match source.map(|source| (source.class, source.tenure == tenure)) {
            Some((Class::Live | Class::Bulk, _)) => Err(Error::Log(error)),
            Some((Class::Source, true)) => {
                self.set_aside(&partition.topic, &error);
                Ok(())
            }
            // Given up meanwhile.
            Some((Class::Source, false)) | None => Ok(()),
        }
    }

    fn drain(&mut self, partitions: Vec<Partition>, revocation: Option<Revocation>) {
        for partition in &partitions {
            if let Some(source) = self.sources.get_mut(partition) {
                self.reader.unassign(partition.clone());
                source.drain();
            }
            self.drain_aside(partition);
        }
        self.drains.push(Drain {
            revocation,
            waiting: partitions.into_iter().collect(),
            deadline: self.clock.instant() + self.options.drain_deadline,
        });
    }

    /// Begins to stop: every partition is drained.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        let partitions = self.sources.keys().cloned().collect();
        self.drain(partitions, None);
    }

    /// When the next drain has used up its time. One that only waits for a commit's answer wakes
    /// with that.
    pub(super) fn drain_due(&self) -> Option<Instant> {
        let open = self.drains.iter().filter(|drain| {
            !drain
                .waiting
                .iter()
                .any(|partition| self.commits.covers(partition))
        });
        open.map(|drain| drain.deadline).min()
    }

    /// Lets go of what is drained, and acknowledges revocations of which nothing is left.
    pub(super) fn settle_drains(&mut self) {
        if self.drains.is_empty() {
            return;
        }
        let now = self.clock.instant();
        let mut drains = std::mem::take(&mut self.drains);
        for drain in &mut drains {
            let late = now >= drain.deadline;
            drain
                .waiting
                .retain(|partition| self.must_wait(partition, late));
        }
        drains.retain_mut(|drain| {
            if !drain.waiting.is_empty() {
                return true;
            }
            if let Some(revocation) = drain.revocation.take() {
                revocation.acknowledge();
            }
            false
        });
        self.drains = drains;
        self.show_owned();
    }

    fn must_wait(&mut self, partition: &Partition, late: bool) -> bool {
        // A commit under way is awaited even beyond the deadline: it must not come after the next
        // owner's.
        if self.commits.covers(partition) {
            return true;
        }
        let Some(source) = self.sources.get(partition) else {
            return false;
        };
        let is_drained = source.is_drained() && self.replays.is_drained(partition);
        if !is_drained && !late {
            return true;
        }
        if !is_drained {
            tracing::warn!(%partition, "given up with records in flight");
        }
        self.give_up(partition);
        false
    }

    pub(super) fn give_up_all(&mut self) {
        let partitions: Vec<Partition> = self.sources.keys().cloned().collect();
        partitions
            .iter()
            .for_each(|partition| self.give_up(partition));
        self.drains.clear();
    }

    pub(super) fn give_up(&mut self, partition: &Partition) {
        self.end_aside(partition);
        if let Some(mut source) = self.sources.remove(partition) {
            self.reader.unassign(partition.clone());
            source.abandon();
            let labels = [partition.topic.as_str(), &partition.number.to_string()];
            // Not there when it was never set.
            drop(self.metrics.unacknowledged_age.remove_label_values(&labels));
            if !self
                .sources
                .keys()
                .any(|other| other.topic == partition.topic)
            {
                self.turns.forget(&partition.topic);
                self.commits.forget(&partition.topic);
            }
        }
    }

    fn show_owned(&self) {
        self.metrics
            .owned
            .set(i64::try_from(self.sources.len()).unwrap_or(i64::MAX));
    }
}
