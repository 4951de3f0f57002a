//! Owns one round of the writer: what is appended to the journal in one atomic write, and who is to
//! be answered when it is.
//!
//! It must never answer before the write. The surprise: everything that waits shares one write, so
//! transactions of several producers stand or fall together, which each of them allows.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::block::{Block, BlockBuilder};
use super::slots::{Slot, Topic};
use super::store::{SlotId, Store, Writes};
use crate::log::{Committed, Error, NotCommitted, NotWritten, Partition, Position, Record};

/// Committed positions by group.
pub(super) type Groups = HashMap<String, HashMap<Partition, Committed>>;

/// The blocks of a round by partition.
type Appended = Vec<(Arc<Slot>, Vec<Block>)>;

/// Who waits for the round, and what they are told when it is done.
#[derive(Debug)]
pub(super) enum Reply {
    /// A producer; the permit gives its room back.
    Acks {
        to: oneshot::Sender<Vec<Result<i64, NotWritten>>>,
        reports: Vec<Result<i64, NotWritten>>,
        room: OwnedSemaphorePermit,
    },
    /// A member.
    Commit(oneshot::Sender<Result<(), Error>>),
    /// A transactional producer.
    Transact(oneshot::Sender<Result<(), NotCommitted>>),
}

impl Reply {
    /// Answers; whoever went away does not mind.
    pub(super) fn done(self) {
        match self {
            Self::Acks { to, reports, room } => {
                drop(room);
                drop(to.send(reports));
            }
            Self::Commit(to) => drop(to.send(Ok(()))),
            Self::Transact(to) => drop(to.send(Ok(()))),
        }
    }

    /// Answers that the outcome is unknown.
    pub(super) fn unknown(self, error: &Error) {
        match self {
            Self::Acks { to, reports, .. } => {
                let unknown =
                    |report: Result<i64, NotWritten>| report.and(Err(NotWritten::Unknown));
                drop(to.send(reports.into_iter().map(unknown).collect()));
            }
            Self::Commit(to) => drop(to.send(Err(error.clone()))),
            Self::Transact(to) => drop(to.send(Err(NotCommitted::Unknown(error.clone())))),
        }
    }
}

/// What is to be written in one go.
pub(super) struct Round<'a> {
    store: &'a Store,
    now: i64,
    writes: Writes<'a>,
    slots: HashMap<SlotId, OpenSlot>,
    /// The last record of each key of a compacted partition, in this round.
    keys: HashMap<(SlotId, Bytes), i64>,
    /// Superseded before they were written.
    stillborn: HashSet<(SlotId, i64)>,
    positions: HashMap<(String, Partition), Committed>,
    /// Answered when the write is in the journal.
    pub(super) ordered: Vec<Reply>,
    /// Answered when the write is on the disk.
    pub(super) durable: Vec<Reply>,
    bytes: usize,
}

struct OpenSlot {
    slot: Arc<Slot>,
    next: i64,
    appended: u64,
    last_timestamp: i64,
    builder: Option<BlockBuilder>,
    blocks: Vec<Block>,
}

impl OpenSlot {
    fn new(slot: &Arc<Slot>) -> Self {
        let state = slot.state();
        Self {
            slot: Arc::clone(slot),
            next: state.end,
            appended: state.appended,
            last_timestamp: state.last_timestamp,
            builder: None,
            blocks: Vec::new(),
        }
    }

    fn push(&mut self, record: &Record, now: i64, alone: bool) -> i64 {
        let offset = self.next;
        self.last_timestamp = self.last_timestamp.max(now);
        let builder = self
            .builder
            .get_or_insert_with(|| BlockBuilder::new(offset, self.appended));
        builder.push(record, self.last_timestamp);
        self.next += 1;
        if alone || builder.is_full() {
            self.close();
        }
        offset
    }

    fn close(&mut self) {
        if let Some(block) = self.builder.take().and_then(BlockBuilder::build) {
            self.appended = block.after();
            self.blocks.push(block);
        }
    }
}

impl<'a> Round<'a> {
    /// A round stamped `now`.
    pub(super) fn new(store: &'a Store, now: i64) -> Self {
        Self {
            store,
            now,
            writes: store.batch(),
            slots: HashMap::new(),
            keys: HashMap::new(),
            stillborn: HashSet::new(),
            positions: HashMap::new(),
            ordered: Vec::new(),
            durable: Vec::new(),
            bytes: 0,
        }
    }

    /// The bytes of the records in it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends `record` to the partition it was placed in; its offset.
    pub(super) fn append(
        &mut self,
        topic: &Topic,
        slot: &Arc<Slot>,
        record: &Record,
    ) -> Result<i64, Error> {
        self.bytes += record.len_bytes();
        let open = self
            .slots
            .entry(slot.id)
            .or_insert_with(|| OpenSlot::new(slot));
        // A compacted partition loses records one by one, so each is a block of its own.
        let offset = open.push(record, self.now, topic.row.compact);
        if let (true, Some(key)) = (topic.row.compact, &record.key) {
            self.supersede(slot.id, key, offset, record.value.is_none())?;
        }
        Ok(offset)
    }

    /// The record at `offset` is the last of `key` now: the one before it goes.
    fn supersede(
        &mut self,
        slot: SlotId,
        key: &Bytes,
        offset: i64,
        deleted: bool,
    ) -> Result<(), Error> {
        match self.keys.insert((slot, key.clone()), offset) {
            Some(before) => {
                self.stillborn.insert((slot, before));
            }
            None => {
                if let Some(before) = self.store.last_of_key(slot, key)? {
                    self.writes.remove_block(slot, before);
                }
            }
        }
        if deleted {
            self.writes.tombstone(self.now, slot, offset, key);
        }
        Ok(())
    }

    /// Commits `positions` for `group`.
    pub(super) fn commit(&mut self, group: &str, positions: Vec<Position>) {
        for Position {
            partition,
            offset,
            metadata,
        } in positions
        {
            // One write takes a key once: the last position counts.
            self.positions.insert(
                (group.to_owned(), partition),
                Committed { offset, metadata },
            );
        }
    }

    /// Writes it all to the journal. What becomes readable is published by [`Written::publish`].
    pub(super) fn write(mut self) -> Result<Written, (Error, Vec<Reply>)> {
        match self.fill().and_then(|blocks| {
            if self.writes.is_empty() {
                return Ok(blocks);
            }
            let empty = self.store.batch();
            std::mem::replace(&mut self.writes, empty)
                .commit()
                .map(|()| blocks)
        }) {
            Ok(blocks) => Ok(Written {
                blocks,
                positions: self.positions,
                ordered: self.ordered,
                durable: self.durable,
            }),
            Err(error) => {
                self.ordered.append(&mut self.durable);
                Err((error, self.ordered))
            }
        }
    }

    /// Moves everything into the write; the blocks by partition.
    fn fill(&mut self) -> Result<Appended, Error> {
        let mut all = Vec::new();
        for (id, mut open) in std::mem::take(&mut self.slots) {
            open.close();
            open.blocks
                .retain(|block| !self.stillborn.contains(&(id, block.base)));
            for block in &open.blocks {
                self.writes.block(id, block);
            }
            all.push((open.slot, open.blocks));
        }
        for ((slot, key), offset) in &self.keys {
            self.writes.last_of_key(*slot, key, *offset);
        }
        for ((group, partition), committed) in &self.positions {
            self.writes.position(group, partition, committed)?;
        }
        Ok(all)
    }
}

/// A round that is in the journal.
pub(super) struct Written {
    blocks: Appended,
    positions: HashMap<(String, Partition), Committed>,
    ordered: Vec<Reply>,
    /// Answered when the journal is on the disk.
    pub(super) durable: Vec<Reply>,
}

impl Written {
    /// Shows the records to readers and the positions to groups, then answers whoever wanted order.
    pub(super) fn publish(&mut self, groups: &mut Groups, tail: &mut Tail) {
        for ((group, partition), committed) in self.positions.drain() {
            groups
                .entry(group)
                .or_default()
                .insert(partition, committed);
        }
        for (slot, blocks) in self.blocks.drain(..) {
            tail.add(&slot, &blocks);
            slot.publish(blocks);
        }
        tail.trim();
        self.ordered.drain(..).for_each(Reply::done);
    }
}

/// Bounds the recent blocks that all partitions together keep in memory.
#[derive(Debug, Default)]
pub(super) struct Tail {
    order: VecDeque<(Arc<Slot>, usize)>,
    bytes: usize,
}

/// The bytes of recent blocks kept in memory: what readers at the end read.
const TAIL_BYTES: usize = 8 << 20;

impl Tail {
    fn add(&mut self, slot: &Arc<Slot>, blocks: &[Block]) {
        for block in blocks {
            self.bytes += block.bytes().len();
            self.order
                .push_back((Arc::clone(slot), block.bytes().len()));
        }
    }

    fn trim(&mut self) {
        while self.bytes > TAIL_BYTES {
            let Some((slot, bytes)) = self.order.pop_front() else {
                return;
            };
            self.bytes -= bytes;
            slot.forget_oldest();
        }
    }
}
