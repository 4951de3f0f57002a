//! Owns what goes wrong in a simulation: on demand, or by chance with the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Class, Error, Partition, Position, Record, TopicName};
use super::world::{Life, Shared, World};
use crate::clock::Entropy;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A batch of a producer.
    Produce,
    /// A member's commit, or one for an empty group.
    Commit,
    /// The end of a transaction.
    Transaction,
    /// Opening a transactional producer.
    OpenTransactions,
    /// A question about committed positions.
    Committed,
    /// Any question about topics, and making them.
    Lookup,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It never reaches the log; the outcome is unknown.
    LostRequest,
    /// It happens; the outcome is unknown.
    LostReply,
    /// The log says no, for now.
    Refused,
}

impl Fault {
    /// Every way to fail.
    pub const ALL: [Self; 3] = [Self::LostRequest, Self::LostReply, Self::Refused];

    /// Whether it happened all the same.
    pub(super) fn happened(self) -> bool {
        match self {
            Self::LostReply => true,
            Self::LostRequest | Self::Refused => false,
        }
    }

    /// The error that the caller gets for a change.
    pub(super) fn error(self, subject: &str) -> Error {
        match self {
            Self::LostRequest | Self::LostReply => Error::new(
                Class::Unknown,
                subject,
                "connection was lost before the answer",
            ),
            Self::Refused => Error::new(Class::Retry, subject, "log is busy"),
        }
    }
}

/// Faults that are switched on, and the chances.
#[derive(Debug)]
pub(super) struct FaultState {
    next: Vec<(Option<String>, Operation, Fault)>,
    unwritable: BTreeSet<Partition>,
    pub(super) unreadable: BTreeSet<Partition>,
    slow: BTreeMap<Partition, Duration>,
    refused: Vec<(TopicName, Bytes)>,
    forbidden: BTreeSet<TopicName>,
    chance: Entropy,
}

impl FaultState {
    pub(super) fn new(entropy: &Entropy) -> Self {
        Self {
            next: Vec::new(),
            unwritable: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            slow: BTreeMap::new(),
            refused: Vec::new(),
            forbidden: BTreeSet::new(),
            chance: entropy.fork("faults"),
        }
    }

    /// Whether nothing can be written to `partition` now.
    pub(super) fn is_unwritable(&self, partition: &Partition) -> bool {
        self.unwritable.contains(partition)
    }

    /// How much longer an append to `partition` takes.
    pub(super) fn slowness(&self, partition: &Partition) -> Duration {
        self.slow.get(partition).copied().unwrap_or_default()
    }

    /// Why a member may not commit `positions`.
    pub(super) fn forbids(&self, positions: &[Position]) -> Option<Error> {
        let mut topics = positions.iter().map(|position| &position.partition.topic);
        let topic = topics.find(|topic| self.forbidden.contains(*topic))?;
        Some(Error::new(Class::Never, topic, "topic may not be read"))
    }

    /// Whether the log refuses this record for its form.
    pub(super) fn refuses(&self, record: &Record) -> bool {
        let holds = |needle: &Bytes| {
            let value = record.value.as_deref().unwrap_or_default();
            value
                .windows(needle.len().max(1))
                .any(|window| window == needle)
        };
        self.refused
            .iter()
            .any(|(topic, needle)| *topic == record.topic && holds(needle))
    }
}

impl World {
    /// How this operation of `life` fails, if it does.
    pub(super) fn fault(&mut self, operation: Operation, life: Life) -> Option<Fault> {
        let name = self.name_of(life).to_owned();
        let asked = self.faults.next.iter().position(|(of, next, _)| {
            *next == operation && of.as_ref().is_none_or(|of| *of == name)
        });
        let fault = match asked {
            Some(place) => Some(self.faults.next.remove(place).2),
            None => self
                .options
                .probabilities
                .iter()
                .filter(|(of, _, _)| *of == operation)
                .find(|(_, _, chance)| self.faults.chance.unit() < *chance)
                .map(|(_, fault, _)| *fault),
        };
        if let Some(fault) = fault {
            self.note(format!("fault for {name}: {operation:?} {fault:?}"));
        }
        fault
    }

    fn set_writable(&mut self, partition: &Partition) {
        if self.faults.unwritable.remove(partition) {
            self.note(format!("{partition} is writable again"));
            self.unblock(partition);
        }
    }

    fn set_readable(&mut self, partition: &Partition) {
        if self.faults.unreadable.remove(partition) {
            self.note(format!("{partition} is readable again"));
            self.poke_readers(partition);
        }
    }
}

/// Makes things go wrong.
#[derive(Debug, Clone)]
pub struct Faults {
    pub(super) shared: Arc<Shared>,
}

impl Faults {
    /// The next such operation of any process fails so; several queue up.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.shared
            .with(|world| world.faults.next.push((None, operation, fault)));
    }

    /// The next such operation of that process fails so.
    pub fn fail_next_of(&self, process: &str, operation: Operation, fault: Fault) {
        let of = Some(process.to_owned());
        self.shared
            .with(|world| world.faults.next.push((of, operation, fault)));
    }

    /// From now on such operations fail so with this probability.
    pub fn set_probability(&self, operation: Operation, fault: Fault, probability: f64) {
        self.shared.with(|world| {
            let all = &mut world.options.probabilities;
            all.retain(|(of, how, _)| (*of, *how) != (operation, fault));
            all.push((operation, fault, probability));
        });
    }

    /// Everything by chance and everything asked for ends; partitions can be used again.
    pub fn heal(&self) {
        self.shared.with(|world| {
            world.options.probabilities.clear();
            world.faults.next.clear();
            world.faults.slow.clear();
            world.faults.refused.clear();
            world.faults.forbidden.clear();
            for partition in world.faults.unwritable.clone() {
                world.set_writable(&partition);
            }
            for partition in world.faults.unreadable.clone() {
                world.set_readable(&partition);
            }
        });
    }

    /// Nothing can be written to `partition` for a time, `None` until [`Faults::writable`].
    pub fn unwritable(&self, partition: &Partition, time: Option<Duration>) {
        let partition = partition.clone();
        self.shared.with(|world| {
            world.faults.unwritable.insert(partition.clone());
            world.note(format!("{partition} is unwritable"));
            if let Some(time) = time {
                world.later(time, move |world| world.set_writable(&partition));
            }
        });
    }

    /// Ends [`Faults::unwritable`].
    pub fn writable(&self, partition: &Partition) {
        self.shared.with(|world| world.set_writable(partition));
    }

    /// Nothing can be read from `partition` for a time: its readers are told, and go on after.
    pub fn unreadable(&self, partition: &Partition, time: Duration) {
        let partition = partition.clone();
        self.shared.with(|world| {
            world.faults.unreadable.insert(partition.clone());
            world.note(format!("{partition} is unreadable"));
            world.poke_readers(&partition);
            world.later(time, move |world| world.set_readable(&partition));
        });
    }

    /// Every append to `partition` takes this much longer; zero ends it.
    pub fn slow(&self, partition: &Partition, by: Duration) {
        self.shared
            .with(|world| world.faults.slow.insert(partition.clone(), by));
    }

    /// The log refuses records of `topic` whose value contains `needle`: alone in its batch such a
    /// record is invalid, in company the outcome of the whole batch is unknown.
    pub fn refuse_values(&self, topic: &TopicName, needle: impl Into<Bytes>) {
        let refusal = (topic.clone(), needle.into());
        self.shared.with(|world| world.faults.refused.push(refusal));
    }

    /// No member may commit for `topic` until [`Faults::heal`], as where the right to read is missing:
    /// of a commit, nothing is stored then.
    pub fn forbid(&self, topic: &TopicName) {
        self.shared
            .with(|world| world.faults.forbidden.insert(topic.clone()));
    }

    /// The log forgets what `group` committed for `partition`.
    pub fn forget_position(&self, group: &str, partition: &Partition) {
        self.shared.with(|world| {
            world.forget_position(group, partition);
            world.note(format!("group {group} loses its position of {partition}"));
        });
    }

    /// The log deletes what is before `offset`.
    pub fn delete_before(&self, partition: &Partition, offset: i64) {
        self.shared.with(|world| {
            if let Some(log) = world.partition_mut(partition) {
                log.delete_before(offset);
            }
            world.note(format!("{partition} begins at {offset}"));
            world.poke_readers(partition);
        });
    }

    /// Compacts a topic now.
    pub fn compact(&self, topic: &TopicName) {
        self.shared.with(|world| world.compact(topic));
    }

    /// Throws the members of that process out of their groups, as an expired session does, though
    /// the process runs.
    pub fn expire_session(&self, process: &str) {
        self.shared.with(|world| {
            let life = world.process(process);
            world.expire_members_of(life);
        });
    }
}
