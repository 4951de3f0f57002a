//! Owns readers: what each is assigned, and what it is handed next.
//!
//! It must never hand over what is not committed. The surprise: what a reader is told comes
//! through a bounded channel, so a reader that is not drained stops fetching, and only then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use tokio::sync::{Notify, mpsc};

use super::super::{Assignment, Batch, Class, Error, Fetched, Partition, Reader, ReaderOptions};
use super::storage::unknown_partition;
use super::world::{Lane, Life, Shared, World};

/// All readers of a simulation.
#[derive(Debug, Default)]
pub(super) struct Readers(BTreeMap<u64, ReaderState>);

#[derive(Debug)]
struct ReaderState {
    life: Life,
    batch_bytes: usize,
    assigned: BTreeMap<Partition, Assigned>,
    assignments: u64,
    // Partitions whose fetch has come back.
    ready: BTreeSet<Partition>,
    // The partition served last: the others come first.
    last: Option<Partition>,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct Assigned {
    number: Assignment,
    next: i64,
    paused: bool,
    fetching: bool,
    // The offset at which the end was announced.
    announced: Option<i64>,
    // It was told that it cannot be read.
    complained: bool,
    // Out of range: nothing until it is assigned anew.
    halted: bool,
}

/// A reader of one process.
#[derive(Debug)]
pub(super) struct SimulatedReader {
    shared: Arc<Shared>,
    id: u64,
}

impl SimulatedReader {
    pub(super) fn open(
        shared: Arc<Shared>,
        life: Life,
        options: &ReaderOptions,
    ) -> (Self, mpsc::Receiver<Fetched>) {
        // Every batch in the channel counts as a full one.
        let batch_bytes = options.batch_bytes.max(1);
        let slots = (options.queue_bytes / batch_bytes).clamp(1, 1_024);
        let (sender, receiver) = mpsc::channel(slots);
        let wake = Arc::new(Notify::new());
        let id = shared.with(|world| {
            let id = world.next_id();
            let state = ReaderState {
                life,
                batch_bytes,
                assigned: BTreeMap::new(),
                assignments: 0,
                ready: BTreeSet::new(),
                last: None,
                wake: Arc::clone(&wake),
            };
            world.readers.0.insert(id, state);
            world.spawn(hand_over(Arc::downgrade(&shared), id, sender, wake));
            id
        });
        (Self { shared, id }, receiver)
    }
}

/// Hands over what a reader is to get, one message for each free slot, until either end is gone.
async fn hand_over(
    shared: Weak<Shared>,
    id: u64,
    sender: mpsc::Sender<Fetched>,
    wake: Arc<Notify>,
) {
    while let Ok(slot) = sender.reserve().await {
        let next = loop {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            match shared.with(|world| world.next_message(id)) {
                Next::Message(message) => break message,
                Next::Nothing => {}
                Next::Closed => return,
            }
            drop(shared);
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = sender.closed() => return,
            }
        };
        slot.send(next);
    }
}

impl Reader for SimulatedReader {
    fn assign(&self, partition: Partition, offset: i64) -> Assignment {
        self.shared
            .with(|world| world.assign(self.id, &partition, offset))
    }

    fn unassign(&self, partition: Partition) {
        self.shared.with(|world| {
            if let Some(reader) = world.readers.0.get_mut(&self.id) {
                reader.assigned.remove(&partition);
                reader.ready.remove(&partition);
            }
        });
    }

    fn pause(&self, partition: Partition) {
        self.set_paused(&partition, true);
    }

    fn resume(&self, partition: Partition) {
        self.set_paused(&partition, false);
    }
}

impl SimulatedReader {
    fn set_paused(&self, partition: &Partition, paused: bool) {
        self.shared.with(|world| {
            if let Some(assigned) = world.assigned_mut(self.id, partition) {
                assigned.paused = paused;
                world.poke(self.id, partition);
            }
        });
    }
}

impl Drop for SimulatedReader {
    fn drop(&mut self) {
        let reader = self.shared.with(|world| world.readers.0.remove(&self.id));
        if let Some(reader) = reader {
            reader.wake.notify_one();
        }
    }
}

enum Next {
    Message(Fetched),
    Nothing,
    Closed,
}

impl World {
    fn assigned_mut(&mut self, reader: u64, partition: &Partition) -> Option<&mut Assigned> {
        self.readers.0.get_mut(&reader)?.assigned.get_mut(partition)
    }

    fn assign(&mut self, id: u64, partition: &Partition, offset: i64) -> Assignment {
        let Some(reader) = self.readers.0.get_mut(&id) else {
            return Assignment(0);
        };
        reader.assignments += 1;
        let number = Assignment(reader.assignments);
        let assigned = Assigned {
            number,
            next: offset,
            paused: false,
            fetching: false,
            announced: None,
            complained: false,
            halted: false,
        };
        reader.assigned.insert(partition.clone(), assigned);
        reader.ready.remove(partition);
        self.poke(id, partition);
        number
    }

    /// Something about `partition` changed.
    pub(super) fn poke_readers(&mut self, partition: &Partition) {
        for reader in self.readers.0.keys().copied().collect::<Vec<_>>() {
            self.poke(reader, partition);
        }
    }

    /// The readers of a woken process go on.
    pub(super) fn wake_readers_of(&mut self, life: Life) {
        for reader in self.readers.0.values().filter(|reader| reader.life == life) {
            reader.wake.notify_one();
        }
    }

    /// Fetches if there is something to say.
    fn poke(&mut self, id: u64, partition: &Partition) {
        if !self.has_news(id, partition) {
            return;
        }
        let Some(life) = self.readers.0.get(&id).map(|reader| reader.life) else {
            return;
        };
        let Some(assigned) = self.assigned_mut(id, partition) else {
            return;
        };
        assigned.fetching = true;
        let number = assigned.number;
        let delay = self.draw(|latencies| latencies.fetch);
        let partition = partition.clone();
        self.reply(life, Lane::Alone, delay, move |world| {
            let Some(reader) = world.readers.0.get_mut(&id) else {
                return;
            };
            let Some(assigned) = reader.assigned.get_mut(&partition) else {
                return;
            };
            if assigned.number == number {
                assigned.fetching = false;
                reader.ready.insert(partition);
                reader.wake.notify_one();
            }
        });
    }

    fn has_news(&self, id: u64, partition: &Partition) -> bool {
        let Some(reader) = self.readers.0.get(&id) else {
            return false;
        };
        let Some(assigned) = reader.assigned.get(partition) else {
            return false;
        };
        let busy = assigned.fetching || reader.ready.contains(partition);
        if busy || assigned.paused || assigned.halted {
            return false;
        }
        match self.partition(partition) {
            Some(_) if self.faults.unreadable.contains(partition) => !assigned.complained,
            Some(log) => {
                let end = log.stable_end();
                !log.holds(assigned.next)
                    || assigned.next < end
                    || assigned.announced.is_none_or(|announced| announced < end)
            }
            None => !assigned.complained,
        }
    }

    /// What the reader is handed next, of the ready partitions in turn.
    fn next_message(&mut self, id: u64) -> Next {
        loop {
            let Some(reader) = self.readers.0.get_mut(&id) else {
                return Next::Closed;
            };
            let life = reader.life;
            let behind = |last: &Partition| reader.ready.range(last.clone()..).find(|p| *p > last);
            let turn = reader
                .last
                .as_ref()
                .and_then(behind)
                .or_else(|| reader.ready.first());
            let Some(partition) = turn.cloned() else {
                return Next::Nothing;
            };
            if !self.is_running(life) {
                return Next::Nothing;
            }
            if let Some(reader) = self.readers.0.get_mut(&id) {
                reader.ready.remove(&partition);
                reader.last = Some(partition.clone());
            }
            let message = self.message_of(id, &partition);
            self.poke(id, &partition);
            if let Some(message) = message {
                return Next::Message(message);
            }
        }
    }

    fn message_of(&mut self, id: u64, partition: &Partition) -> Option<Fetched> {
        let reader = self.readers.0.get(&id)?;
        let assigned = reader.assigned.get(partition)?;
        let number = assigned.number;
        if assigned.paused {
            return None;
        }
        let unreadable = self.faults.unreadable.contains(partition);
        let Some(log) = self.partition(partition).filter(|_| !unreadable) else {
            let error = if unreadable {
                Error::new(Class::Retry, partition, "partition has no leader")
            } else {
                unknown_partition(partition)
            };
            self.assigned_mut(id, partition)?.complained = true;
            return Some(Fetched::Failed(Some(partition.clone()), error));
        };
        if !log.holds(assigned.next) {
            self.assigned_mut(id, partition)?.halted = true;
            return Some(Fetched::OutOfRange(number, partition.clone()));
        }
        let mut records = Vec::new();
        let span = log.read(assigned.next, reader.batch_bytes, &mut records);
        let end = log.stable_end();
        let assigned = self.assigned_mut(id, partition)?;
        assigned.next = span.next;
        assigned.complained = false;
        if !records.is_empty() {
            // The end is reached anew: it is announced behind these.
            assigned.announced = None;
            return Some(Fetched::Records(
                number,
                Batch {
                    partition: partition.clone(),
                    records,
                },
            ));
        }
        assigned.announced = Some(end);
        Some(Fetched::End(number, partition.clone()))
    }
}
