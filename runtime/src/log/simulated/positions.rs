//! Owns what groups have committed, and what open transactions are about to commit.
//!
//! The surprise: of a plain commit and a transaction's, the one *written* later wins, though the
//! transaction may end after both.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::super::{Class, Committed, Error, Partition, Position};
use super::faults::Operation;
use super::storage::unknown_partition;
use super::world::{Life, World};

/// The longest metadata that is taken, in bytes (Kafka's `offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4_096;

type Answer = Result<Vec<(Partition, Option<Committed>)>, Error>;

/// The positions of one group.
#[derive(Debug, Default)]
pub(super) struct Positions {
    stored: BTreeMap<Partition, Stored>,
    held: BTreeMap<u64, Vec<(Partition, Stored)>>,
    asking: Vec<Question>,
}

#[derive(Debug, Clone)]
struct Stored {
    committed: Committed,
    written: u64,
}

#[derive(Debug)]
struct Question {
    life: Life,
    partitions: Vec<Partition>,
    sender: oneshot::Sender<Answer>,
}

impl Positions {
    fn store(&mut self, partition: Partition, stored: Stored) {
        let newer = |old: &Stored| old.written > stored.written;
        if !self.stored.get(&partition).is_some_and(newer) {
            self.stored.insert(partition, stored);
        }
    }

    fn is_held(&self, partitions: &[Partition]) -> bool {
        self.held
            .values()
            .flatten()
            .any(|(held, _)| partitions.contains(held))
    }

    fn look_up(&self, partitions: &[Partition]) -> Vec<(Partition, Option<Committed>)> {
        let find = |partition: &Partition| {
            let committed = self
                .stored
                .get(partition)
                .map(|stored| stored.committed.clone());
            (partition.clone(), committed)
        };
        partitions.iter().map(find).collect()
    }
}

impl World {
    /// Whether the log would ever take these.
    pub(super) fn check_positions(&self, positions: &[Position]) -> Result<(), Error> {
        for Position {
            partition,
            offset,
            metadata,
        } in positions
        {
            if self.partition(partition).is_none() {
                return Err(unknown_partition(partition));
            }
            if *offset < 0 {
                return Err(Error::new(Class::Never, partition, "offset is negative"));
            }
            if metadata.len() > METADATA_BYTES_MAX {
                let message = format!(
                    "metadata of {} bytes is larger than {METADATA_BYTES_MAX}",
                    metadata.len()
                );
                return Err(Error::new(Class::Never, partition, message));
            }
        }
        Ok(())
    }

    fn written(&mut self, positions: Vec<Position>) -> Vec<(Partition, Stored)> {
        let written = self.next_id();
        let stored = |Position {
                          partition,
                          offset,
                          metadata,
                      }| {
            (
                partition,
                Stored {
                    committed: Committed { offset, metadata },
                    written,
                },
            )
        };
        positions.into_iter().map(stored).collect()
    }

    pub(super) fn store_positions(&mut self, group: &str, positions: Vec<Position>) {
        for Position {
            partition, offset, ..
        } in &positions
        {
            self.note(format!("group {group} commits {partition} at {offset}"));
        }
        for (partition, stored) in self.written(positions) {
            self.group_mut(group).positions.store(partition, stored);
        }
    }

    /// A transaction's positions wait for its end.
    pub(super) fn hold_positions(
        &mut self,
        group: &str,
        transaction: u64,
        positions: Vec<Position>,
    ) {
        let held = self.written(positions);
        self.group_mut(group)
            .positions
            .held
            .insert(transaction, held);
    }

    /// A transaction has ended: its positions count or are forgotten, and questions are answered.
    pub(super) fn release_positions(&mut self, group: &str, transaction: u64, commit: bool) {
        let positions = &mut self.group_mut(group).positions;
        let held = positions.held.remove(&transaction).unwrap_or_default();
        if commit {
            for (partition, stored) in held {
                positions.store(partition, stored);
            }
        }
        let asking = std::mem::take(&mut positions.asking);
        for Question {
            life,
            partitions,
            sender,
        } in asking
        {
            self.answer_positions(life, group, partitions, sender);
        }
    }

    /// Answers what is committed, once no open transaction concerns it.
    pub(super) fn ask_positions(
        &mut self,
        life: Life,
        group: String,
        partitions: Vec<Partition>,
        sender: oneshot::Sender<Answer>,
    ) {
        if self.fault(Operation::Committed, life).is_some() {
            let delay = self.draw(|latencies| latencies.commit);
            let error = Error::new(Class::Retry, group, "coordinator is not available");
            return self.answer(life, delay, sender, Err(error));
        }
        self.answer_positions(life, &group, partitions, sender);
    }

    fn answer_positions(
        &mut self,
        life: Life,
        group: &str,
        partitions: Vec<Partition>,
        sender: oneshot::Sender<Answer>,
    ) {
        let positions = &mut self.group_mut(group).positions;
        if positions.is_held(&partitions) {
            positions.asking.push(Question {
                life,
                partitions,
                sender,
            });
            return;
        }
        let found = positions.look_up(&partitions);
        let delay = self.draw(|latencies| latencies.commit);
        self.answer(life, delay, sender, Ok(found));
    }

    pub(super) fn forget_position(&mut self, group: &str, partition: &Partition) {
        self.group_mut(group).positions.stored.remove(partition);
    }

    /// Everything that `group` has committed.
    pub(super) fn positions_of(&self, group: &str) -> BTreeMap<Partition, Committed> {
        let stored = self.group(group).map(|group| group.positions.stored.iter());
        stored
            .into_iter()
            .flatten()
            .map(|(partition, stored)| (partition.clone(), stored.committed.clone()))
            .collect()
    }
}
