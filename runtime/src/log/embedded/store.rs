//! Owns the folder on disk: its lock, the database in it, and how keys and rows are written.
//!
//! It must never decide what is written: the writer does. The surprise: a write is in the operating
//! system's hands when it returns (it survives the process) and on the disk only after
//! [`Store::sync`]; both follow one journal, so that a crash loses a suffix of it and nothing else.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::block::Block;
use super::mend::mend;
use crate::log::{Class, Committed, Error, Partition, TopicName, TopicSettings};

/// The store's own cache of blocks read from disk.
const CACHE_BYTES: u64 = 16 << 20;
/// What a keyspace holds in memory before it is written out.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// The journals on disk, all together.
const JOURNAL_BYTES: u64 = 256 << 20;

/// A partition inside this log: the topic's number and the partition's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SlotId {
    /// The topic's number.
    pub(super) topic: u32,
    /// The partition's number.
    pub(super) partition: u32,
}

impl SlotId {
    fn bytes(self) -> [u8; 8] {
        ((u64::from(self.topic) << 32) | u64::from(self.partition)).to_be_bytes()
    }

    fn key(self, rest: &[u8]) -> Vec<u8> {
        [&self.bytes(), rest].concat()
    }

    fn at(self, offset: i64) -> Vec<u8> {
        // Offsets are never negative, so that their bytes sort as they do.
        self.key(&offset.to_be_bytes())
    }
}

/// A topic as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TopicRow {
    /// The topic's number.
    pub(super) id: u32,
    /// How many partitions.
    pub(super) partitions: u32,
    /// Whether only the last record of each key is kept.
    pub(super) compact: bool,
    /// How long records are kept, in milliseconds.
    pub(super) retention_ms: u64,
    /// The largest record taken.
    pub(super) max_record_bytes: usize,
    /// Whether the log stamps records.
    pub(super) append_time: bool,
}

impl TopicRow {
    /// The row of a new topic.
    pub(super) fn new(id: u32, settings: &TopicSettings) -> Self {
        Self {
            id,
            partitions: settings.partitions,
            compact: settings.compact,
            retention_ms: u64::try_from(settings.retention.as_millis()).unwrap_or(u64::MAX),
            max_record_bytes: settings.max_record_bytes,
            append_time: settings.append_time,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct PositionRow {
    group: String,
    topic: String,
    partition: u32,
    offset: i64,
    metadata: String,
}

/// The open folder. The lock is let go when this is dropped.
pub(super) struct Store {
    database: Database,
    /// (partition, base offset) -> block
    records: Keyspace,
    /// topics by name, starts of partitions, committed positions
    state: Keyspace,
    /// (partition of a compacted topic, key) -> offset of its last record
    keys: Keyspace,
    /// (time, partition, offset) -> key of a tombstone that is to go one day
    tombstones: Keyspace,
    // Fields are dropped in order: the folder is free when the receiver's end sees this close.
    _lock: File,
    _released: oneshot::Sender<()>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("seqno", &self.database.visible_seqno())
            .finish()
    }
}

/// The store's own trouble as the log's: whether the write happened is not known.
pub(super) fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(
        Class::Unknown,
        "embedded log",
        format!("the store failed: {error}"),
    )
}

fn lock(dir: &Path) -> Result<File, Error> {
    let wrong = |error: std::io::Error| Error::new(Class::Never, dir.display(), error);
    std::fs::create_dir_all(dir).map_err(wrong)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(wrong)?;
            write!(file, "{}", std::process::id()).map_err(wrong)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(wrong)?;
            let message = format!("the log in this folder is in use by process {holder}");
            Err(Error::new(Class::Never, dir.display(), message))
        }
        Err(TryLockError::Error(error)) => Err(wrong(error)),
    }
}

fn database(path: &Path) -> Result<Database, fjall::Error> {
    let open = || {
        Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(2)
            .open()
    };
    match open() {
        Err(fjall::Error::JournalRecovery(error)) => match mend(path)? {
            Some(bytes) => {
                tracing::warn!(path = %path.display(), bytes, "torn end of the journal cut off");
                open()
            }
            None => Err(fjall::Error::JournalRecovery(error)),
        },
        opened => opened,
    }
}

impl Store {
    /// Takes the lock of `dir` and opens what is there. `released` closes when the folder is free
    /// again.
    pub(super) fn open(dir: &Path, released: oneshot::Sender<()>) -> Result<Self, Error> {
        let lock = lock(dir)?;
        let wrong = |error: fjall::Error| Error::new(Class::Never, dir.display(), error);
        let database = database(&dir.join("store")).map_err(wrong)?;
        let keyspace = |name: &str| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(name, options).map_err(wrong)
        };
        Ok(Self {
            records: keyspace("records")?,
            state: keyspace("state")?,
            keys: keyspace("keys")?,
            tombstones: keyspace("tombstones")?,
            database,
            _lock: lock,
            _released: released,
        })
    }

    /// Everything written so far is on the disk when this returns.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.database.persist(PersistMode::SyncData).map_err(failed)
    }

    /// An atomic write of many things.
    pub(super) fn batch(&self) -> Writes<'_> {
        Writes {
            store: self,
            batch: self.database.batch(),
        }
    }

    /// The blocks of `slot` from the one that begins at or after `offset`.
    pub(super) fn blocks_from(
        &self,
        slot: SlotId,
        offset: i64,
    ) -> impl Iterator<Item = Result<Block, Error>> + use<> {
        self.records
            .range(slot.at(offset)..=slot.at(i64::MAX))
            .map(block)
    }

    /// The last block of `slot` that begins at or before `offset`.
    pub(super) fn block_at(&self, slot: SlotId, offset: i64) -> Result<Option<Block>, Error> {
        self.records
            .range(slot.at(0)..=slot.at(offset))
            .next_back()
            .map(block)
            .transpose()
    }

    /// The first offset kept as it was last written; 0 where it never moved.
    pub(super) fn start(&self, slot: SlotId) -> Result<i64, Error> {
        let row = self
            .state
            .get(tagged(b's', &slot.bytes()))
            .map_err(failed)?;
        Ok(row
            .and_then(|row| row.as_ref().try_get_i64().ok())
            .unwrap_or(0))
    }

    /// Every topic by name.
    pub(super) fn topics(&self) -> Result<Vec<(TopicName, TopicRow)>, Error> {
        let mut topics = Vec::new();
        for entry in self.state.prefix(b"t") {
            let (key, value) = entry.into_inner().map_err(failed)?;
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
            topics.push((
                TopicName::new(name),
                serde_json::from_slice(&value).map_err(failed)?,
            ));
        }
        Ok(topics)
    }

    /// Every committed position with its group.
    pub(super) fn positions(&self) -> Result<Vec<(String, Partition, Committed)>, Error> {
        let mut positions = Vec::new();
        for entry in self.state.prefix(b"p") {
            let value = entry.value().map_err(failed)?;
            let row: PositionRow = serde_json::from_slice(&value).map_err(failed)?;
            let partition = TopicName::new(row.topic).partition(row.partition);
            let committed = Committed {
                offset: row.offset,
                metadata: row.metadata,
            };
            positions.push((row.group, partition, committed));
        }
        Ok(positions)
    }

    /// The offset of the last record of `key` in a compacted partition.
    pub(super) fn last_of_key(&self, slot: SlotId, key: &[u8]) -> Result<Option<i64>, Error> {
        let row = self.keys.get(slot.key(key)).map_err(failed)?;
        Ok(row.and_then(|row| row.as_ref().try_get_i64().ok()))
    }

    /// Up to `limit` tombstones written before `time`, oldest first.
    pub(super) fn tombstones_before(
        &self,
        time: i64,
        limit: usize,
    ) -> Result<Vec<Tombstone>, Error> {
        let until = time.max(0).to_be_bytes();
        let mut found = Vec::new();
        for entry in self.tombstones.range(..until.as_slice()).take(limit) {
            let (row, key) = entry.into_inner().map_err(failed)?;
            let mut at = row.as_ref().get(8..).unwrap_or_default();
            let (Ok(topic), Ok(partition), Ok(offset)) =
                (at.try_get_u32(), at.try_get_u32(), at.try_get_i64())
            else {
                continue;
            };
            let slot = SlotId { topic, partition };
            found.push(Tombstone {
                row: row.to_vec(),
                slot,
                offset,
                key: key.to_vec(),
            });
        }
        Ok(found)
    }

    /// What the log takes on disk, journals included.
    pub(super) fn disk_bytes(&self) -> Result<u64, Error> {
        self.database.disk_space().map_err(failed)
    }
}

/// A record without a value on a compacted topic.
#[derive(Debug)]
pub(super) struct Tombstone {
    row: Vec<u8>,
    /// Its partition.
    pub(super) slot: SlotId,
    /// Its offset.
    pub(super) offset: i64,
    /// The key it deleted.
    pub(super) key: Vec<u8>,
}

fn block(entry: fjall::Guard) -> Result<Block, Error> {
    let (key, value) = entry.into_inner().map_err(failed)?;
    let mut base = key.as_ref().get(8..).unwrap_or_default();
    let base = base.try_get_i64().map_err(failed)?;
    Block::parse(base, Bytes::copy_from_slice(&value)).map_err(failed)
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

/// One atomic write under construction.
pub(super) struct Writes<'a> {
    store: &'a Store,
    batch: OwnedWriteBatch,
}

impl Writes<'_> {
    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Adds a topic.
    pub(super) fn topic(&mut self, name: &TopicName, row: &TopicRow) -> Result<(), Error> {
        let value = serde_json::to_vec(row).map_err(failed)?;
        self.batch.insert(
            &self.store.state,
            tagged(b't', name.as_str().as_bytes()),
            value,
        );
        Ok(())
    }

    /// Adds a block.
    pub(super) fn block(&mut self, slot: SlotId, block: &Block) {
        self.batch.insert(
            &self.store.records,
            slot.at(block.base),
            block.bytes().as_ref(),
        );
    }

    /// Removes the block that begins at `base`.
    pub(super) fn remove_block(&mut self, slot: SlotId, base: i64) {
        self.batch.remove(&self.store.records, slot.at(base));
    }

    /// Moves the first offset kept.
    pub(super) fn start(&mut self, slot: SlotId, start: i64) {
        let value = start.to_be_bytes();
        self.batch.insert(
            &self.store.state,
            tagged(b's', &slot.bytes()),
            value.as_slice(),
        );
    }

    /// Commits a position.
    pub(super) fn position(
        &mut self,
        group: &str,
        partition: &Partition,
        committed: &Committed,
    ) -> Result<(), Error> {
        let mut key = Vec::new();
        key.put_u32(u32::try_from(group.len()).unwrap_or(u32::MAX));
        key.put_slice(group.as_bytes());
        key.put_u32(partition.number);
        key.put_slice(partition.topic.as_str().as_bytes());
        let row = PositionRow {
            group: group.to_owned(),
            topic: partition.topic.as_str().to_owned(),
            partition: partition.number,
            offset: committed.offset,
            metadata: committed.metadata.clone(),
        };
        let value = serde_json::to_vec(&row).map_err(failed)?;
        self.batch
            .insert(&self.store.state, tagged(b'p', &key), value);
        Ok(())
    }

    /// Remembers the last record of a key of a compacted partition.
    pub(super) fn last_of_key(&mut self, slot: SlotId, key: &[u8], offset: i64) {
        self.batch.insert(
            &self.store.keys,
            slot.key(key),
            offset.to_be_bytes().as_slice(),
        );
    }

    /// Forgets a key of a compacted partition.
    pub(super) fn forget_key(&mut self, slot: SlotId, key: &[u8]) {
        self.batch.remove(&self.store.keys, slot.key(key));
    }

    /// Remembers a tombstone written at `time`.
    pub(super) fn tombstone(&mut self, time: i64, slot: SlotId, offset: i64, key: &[u8]) {
        let row = [&time.max(0).to_be_bytes(), slot.at(offset).as_slice()].concat();
        self.batch.insert(&self.store.tombstones, row, key);
    }

    /// Forgets a tombstone.
    pub(super) fn forget_tombstone(&mut self, tombstone: Tombstone) {
        self.batch.remove(&self.store.tombstones, tombstone.row);
    }

    /// Appends all of it to the journal.
    pub(super) fn commit(self) -> Result<(), Error> {
        self.batch.commit().map_err(failed)
    }
}
