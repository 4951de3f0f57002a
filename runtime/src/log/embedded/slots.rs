//! Owns what is in memory of topics and partitions: their ends, the recent blocks, and who is to be
//! woken.
//!
//! It must never be written to but by the writer. The surprise: the end that is published here is
//! the readable one; what the writer has appended beyond it is not the log's yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::block::Block;
use super::store::{SlotId, Store, TopicRow};
use crate::log::{Bounds, Error, NotWritten, Partition, Record, TopicName};

/// The largest key on a compacted topic: the store's own limit is 65,535 with a prefix.
const KEY_BYTES: usize = 60_000;

/// A topic and its partitions.
#[derive(Debug)]
pub(super) struct Topic {
    /// As it is stored.
    pub(super) row: TopicRow,
    /// By number.
    pub(super) slots: Vec<Arc<Slot>>,
}

impl Topic {
    /// Reads where every partition of the topic begins and ends.
    pub(super) fn recover(store: &Store, name: &TopicName, row: TopicRow) -> Result<Self, Error> {
        let mut slots = Vec::new();
        for partition in 0..row.partitions {
            let id = SlotId {
                topic: row.id,
                partition,
            };
            let start = store.start(id)?;
            let last = store.block_at(id, i64::MAX)?;
            let state = SlotState {
                start,
                end: last.as_ref().map_or(start, Block::end).max(start),
                appended: last.as_ref().map_or(0, Block::after),
                last_timestamp: last.as_ref().map_or(i64::MIN, |block| block.last_timestamp),
                tail: VecDeque::new(),
                readers: Vec::new(),
            };
            let partition = name.partition(partition);
            slots.push(Arc::new(Slot {
                id,
                partition,
                state: Mutex::new(state),
            }));
        }
        Ok(Self { row, slots })
    }

    /// The partition that `record` is for, `turn` choosing where it has neither number nor key.
    pub(super) fn place(&self, record: &Record, turn: u64) -> Result<&Arc<Slot>, NotWritten> {
        if record.len_bytes() > self.row.max_record_bytes {
            return Err(NotWritten::TooLarge);
        }
        if self.row.compact && record.key.as_ref().is_none_or(|key| key.len() > KEY_BYTES) {
            return Err(NotWritten::Invalid);
        }
        let spread = |hash: u64| {
            let count = self.slots.len() as u64;
            usize::try_from(hash.checked_rem(count).unwrap_or(0)).unwrap_or(0)
        };
        let number = match (record.partition, &record.key) {
            (Some(number), _) => usize::try_from(number).unwrap_or(usize::MAX),
            (None, Some(key)) => spread(hash(key)),
            (None, None) => spread(turn),
        };
        self.slots.get(number).ok_or(NotWritten::Invalid)
    }
}

/// FNV-1a with a final mix: a key's partition must be the same after every restart.
fn hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// A partition.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its number in the store.
    pub(super) id: SlotId,
    /// Its name.
    pub(super) partition: Partition,
    state: Mutex<SlotState>,
}

/// Where a partition stands.
#[derive(Debug)]
pub(super) struct SlotState {
    /// The first offset kept.
    pub(super) start: i64,
    /// The offset behind the last record that may be read.
    pub(super) end: i64,
    /// The bytes ever appended.
    pub(super) appended: u64,
    /// No later record has an earlier time.
    pub(super) last_timestamp: i64,
    tail: VecDeque<Block>,
    readers: Vec<Arc<Wake>>,
}

/// What memory can say about an offset.
#[derive(Debug)]
pub(super) enum Look {
    /// These blocks hold it and what follows.
    Blocks(Vec<Block>),
    /// It is in the store.
    Stored,
    /// It is the end.
    End,
    /// It is beyond the end or before the start.
    Outside,
}

impl Slot {
    /// Locks the state. Nothing inside waits.
    pub(super) fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The start and the readable end.
    pub(super) fn bounds(&self) -> Bounds {
        let state = self.state();
        Bounds {
            start: state.start,
            stable_end: state.end,
        }
    }

    /// Where `offset` is, with the blocks from it on that are in memory, of about `room` bytes.
    pub(super) fn look(&self, offset: i64, room: usize) -> (Look, i64) {
        let state = self.state();
        let end = state.end;
        if offset < state.start || offset > end {
            return (Look::Outside, end);
        }
        if offset == end {
            return (Look::End, end);
        }
        let first = state.tail.partition_point(|block| block.end() <= offset);
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for block in state.tail.range(first..) {
            // A hole: what lies between is in the store only.
            if blocks.is_empty() && block.base > offset || bytes >= room {
                break;
            }
            bytes += block.bytes().len();
            blocks.push(block.clone());
        }
        if blocks.is_empty() {
            (Look::Stored, end)
        } else {
            (Look::Blocks(blocks), end)
        }
    }

    /// Makes `blocks` readable, keeps them in memory and wakes the readers.
    pub(super) fn publish(&self, blocks: Vec<Block>) {
        let mut state = self.state();
        for block in blocks {
            state.end = block.end();
            state.appended = block.after();
            state.last_timestamp = block.last_timestamp;
            state.tail.push_back(block);
        }
        for reader in &state.readers {
            reader.mark(self.id);
        }
    }

    /// Lets the oldest block in memory go.
    pub(super) fn forget_oldest(&self) {
        self.state().tail.pop_front();
    }

    /// Says that what was kept before `start` is gone.
    pub(super) fn move_start(&self, start: i64) {
        let mut state = self.state();
        state.start = state.start.max(start);
    }

    /// Wakes `reader` when records come, from now on.
    pub(super) fn watch(&self, reader: &Arc<Wake>) {
        let mut state = self.state();
        if !state.readers.iter().any(|known| Arc::ptr_eq(known, reader)) {
            state.readers.push(Arc::clone(reader));
        }
    }

    /// No longer wakes `reader`.
    pub(super) fn unwatch(&self, reader: &Arc<Wake>) {
        self.state()
            .readers
            .retain(|known| !Arc::ptr_eq(known, reader));
    }
}

/// How a reader is woken, and for which partitions.
#[derive(Debug, Default)]
pub(super) struct Wake {
    marked: Mutex<Vec<SlotId>>,
    notify: Notify,
}

impl Wake {
    fn mark(&self, slot: SlotId) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        // One mark is enough until the reader has taken it.
        if !marked.contains(&slot) {
            marked.push(slot);
        }
        self.notify.notify_one();
    }

    /// What has been marked since the last call.
    pub(super) fn take(&self) -> Vec<SlotId> {
        std::mem::take(&mut self.marked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends when something was marked, or topics were made, since it last ended.
    /// cancel-safe: nothing is lost.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// All topics by name.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: RwLock<HashMap<TopicName, Arc<Topic>>>,
    readers: Mutex<Vec<Weak<Wake>>>,
}

impl Topics {
    /// The topic.
    pub(super) fn get(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// The partition.
    pub(super) fn slot(&self, partition: &Partition) -> Option<Arc<Slot>> {
        let topic = self.get(&partition.topic)?;
        topic
            .slots
            .get(usize::try_from(partition.number).ok()?)
            .cloned()
    }

    /// Every topic.
    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Adds a topic and wakes every reader: one may wait for it.
    pub(super) fn insert(&self, name: TopicName, topic: Topic) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name, Arc::new(topic));
        drop(by_name);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| match reader.upgrade() {
            Some(reader) => {
                reader.notify.notify_one();
                true
            }
            None => false,
        });
    }

    /// Wakes `reader` when a topic is made.
    pub(super) fn watch(&self, reader: &Arc<Wake>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(reader));
    }
}
