//! Owns the stored form of neighbouring records of one partition: a block, which is one value of
//! the store.
//!
//! It must never hold records of two partitions, or leave a gap between two of its offsets. The
//! surprise: what describes the block stands behind its records, so that it is written in one pass.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::log::{Headers, Record, StoredRecord};

/// A block takes no more records once it is this large: what a reader decodes at a time.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// `count: u32, before: u64, last_timestamp: i64, version: u8`
const FOOTER_BYTES: usize = 21;
const VERSION: u8 = 1;
const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;

/// What is stored cannot be what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored block is damaged")]
pub(super) struct Damaged;

/// Records `base..base + count` of one partition. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The offset of its first record.
    pub(super) base: i64,
    /// How many records it holds, at least one.
    pub(super) count: u32,
    /// The bytes of all blocks that the partition ever had before this one.
    pub(super) before: u64,
    /// The timestamp of its last record, which none of the others exceeds.
    pub(super) last_timestamp: i64,
    bytes: Bytes,
}

impl Block {
    /// The block that was stored under `base`.
    pub(super) fn parse(base: i64, bytes: Bytes) -> Result<Self, Damaged> {
        let at = bytes.len().checked_sub(FOOTER_BYTES).ok_or(Damaged)?;
        let mut footer = bytes.get(at..).ok_or(Damaged)?;
        let count = footer.get_u32();
        let before = footer.get_u64();
        let last_timestamp = footer.get_i64();
        if footer.get_u8() != VERSION || count == 0 {
            return Err(Damaged);
        }
        Ok(Self {
            base,
            count,
            before,
            last_timestamp,
            bytes,
        })
    }

    /// The stored form.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The offset behind its last record.
    pub(super) fn end(&self) -> i64 {
        self.base.saturating_add(i64::from(self.count))
    }

    /// The bytes that the partition has ever had up to the end of this block.
    pub(super) fn after(&self) -> u64 {
        self.before.saturating_add(self.bytes.len() as u64)
    }

    /// Appends to `into` the records in `from..end` until `room` bytes are taken, the first in any
    /// case if `into` is empty. Says whether it came to its end.
    ///
    /// Every record is copied out: one that is kept long must not keep its neighbours' bytes.
    pub(super) fn read(
        &self,
        from: i64,
        end: i64,
        room: &mut usize,
        into: &mut Vec<StoredRecord>,
    ) -> Result<bool, Damaged> {
        let mut rest: &[u8] = &self.bytes;
        for offset in self.base..self.end().min(end) {
            let stored = Stored::take(&mut rest)?;
            if offset < from {
                continue;
            }
            if stored.body.len() > *room && !into.is_empty() {
                return Ok(false);
            }
            *room = room.saturating_sub(stored.body.len());
            into.push(stored.copy(offset)?);
        }
        Ok(true)
    }

    /// The offset of the first record stamped at or after `at`.
    pub(super) fn first_at(&self, at: i64) -> Result<Option<i64>, Damaged> {
        let mut rest: &[u8] = &self.bytes;
        for offset in self.base..self.end() {
            if Stored::take(&mut rest)?.timestamp >= at {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }
}

/// One record inside a block, not yet copied.
struct Stored<'a> {
    flags: u8,
    timestamp: i64,
    key: usize,
    value: usize,
    /// Key, value and headers, one behind the other.
    body: &'a [u8],
}

impl<'a> Stored<'a> {
    fn take(rest: &mut &'a [u8]) -> Result<Self, Damaged> {
        let flags = rest.try_get_u8().map_err(|_| Damaged)?;
        let timestamp = rest.try_get_i64().map_err(|_| Damaged)?;
        let mut length = || {
            rest.try_get_u32()
                .map_err(|_| Damaged)
                .map(|length| length as usize)
        };
        let (key, value, headers) = (length()?, length()?, length()?);
        let total = key
            .checked_add(value)
            .and_then(|sum| sum.checked_add(headers));
        let (body, tail) = rest
            .split_at_checked(total.ok_or(Damaged)?)
            .ok_or(Damaged)?;
        *rest = tail;
        Ok(Self {
            flags,
            timestamp,
            key,
            value,
            body,
        })
    }

    fn copy(&self, offset: i64) -> Result<StoredRecord, Damaged> {
        let mut body = Bytes::copy_from_slice(self.body);
        if self.key.saturating_add(self.value) > body.len() {
            return Err(Damaged);
        }
        let key = body.split_to(self.key);
        let value = body.split_to(self.value);
        Ok(StoredRecord {
            offset,
            timestamp: self.timestamp,
            key: (self.flags & HAS_KEY != 0).then_some(key),
            value: (self.flags & HAS_VALUE != 0).then_some(value),
            headers: Headers::from_packed(body),
        })
    }
}

/// Builds a [`Block`].
#[derive(Debug)]
pub(super) struct BlockBuilder {
    base: i64,
    before: u64,
    count: u32,
    last_timestamp: i64,
    bytes: BytesMut,
}

impl BlockBuilder {
    /// A block to begin at `base`, behind `before` bytes.
    pub(super) fn new(base: i64, before: u64) -> Self {
        Self {
            base,
            before,
            count: 0,
            last_timestamp: i64::MIN,
            bytes: BytesMut::new(),
        }
    }

    /// Whether another record belongs into a block of its own.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_BYTES
    }

    /// Appends `record`, whose parts are all far below 4 GiB (a record has a limit).
    pub(super) fn push(&mut self, record: &Record, timestamp: i64) {
        let key = record.key.as_deref();
        let value = record.value.as_deref();
        let headers = record.headers.as_packed();
        let flags =
            if key.is_some() { HAS_KEY } else { 0 } | if value.is_some() { HAS_VALUE } else { 0 };
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        self.bytes
            .reserve(FOOTER_BYTES + key.len() + value.len() + headers.len());
        self.bytes.put_u8(flags);
        self.bytes.put_i64(timestamp);
        self.bytes.put_u32(length(key));
        self.bytes.put_u32(length(value));
        self.bytes.put_u32(length(headers));
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
        self.bytes.put_slice(headers);
        self.count += 1;
        self.last_timestamp = timestamp;
    }

    /// The block, if it has a record.
    pub(super) fn build(mut self) -> Option<Block> {
        if self.count == 0 {
            return None;
        }
        self.bytes.put_u32(self.count);
        self.bytes.put_u64(self.before);
        self.bytes.put_i64(self.last_timestamp);
        self.bytes.put_u8(VERSION);
        Some(Block {
            base: self.base,
            count: self.count,
            before: self.before,
            last_timestamp: self.last_timestamp,
            bytes: self.bytes.freeze(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::TopicName;

    fn part() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn records_come_back_from_any_offset_with_any_room(
            parts in proptest::collection::vec(
                (proptest::option::of(part()), proptest::option::of(part()), part()), 1..12),
            skip in 0_usize..12,
            room in 0_usize..300,
        ) {
            let mut builder = BlockBuilder::new(100, 7);
            let mut expected = Vec::new();
            for (offset, (key, value, header)) in (100..).zip(parts) {
                let record = Record {
                    topic: TopicName::new("t"),
                    partition: None,
                    key: key.map(Bytes::from),
                    value: value.map(Bytes::from),
                    headers: [("h", header)].into_iter().collect(),
                };
                builder.push(&record, offset * 2);
                expected.push((offset, record));
            }
            let block = builder.build().unwrap();
            let block = Block::parse(100, block.bytes().clone()).unwrap();
            prop_assert_eq!(block.end(), 100 + i64::try_from(expected.len()).unwrap());
            prop_assert_eq!(block.before, 7);
            let from = 100 + i64::try_from(skip).unwrap();
            prop_assert_eq!(block.first_at(from * 2 - 1).unwrap(), (from < block.end()).then_some(from));
            let (mut left, mut found) = (room, Vec::new());
            let whole = block.read(from, i64::MAX, &mut left, &mut found).unwrap();
            let wanted: Vec<_> = expected.into_iter().skip(skip).collect();
            prop_assert_eq!(whole, found.len() == wanted.len());
            prop_assert!(!found.is_empty() || wanted.is_empty());
            prop_assert!(found.len() <= 1 || found.iter().map(StoredRecord::len_bytes).sum::<usize>() <= room);
            for (record, (offset, wanted)) in found.iter().zip(&wanted) {
                prop_assert_eq!((record.offset, record.timestamp), (*offset, offset * 2));
                prop_assert_eq!(&record.key, &wanted.key);
                prop_assert_eq!(&record.value, &wanted.value);
                prop_assert_eq!(&record.headers, &wanted.headers);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = bytes;
            bytes.push(VERSION);
            if let Ok(block) = Block::parse(0, Bytes::from(bytes)) {
                prop_assert!(block.count > 0);
                let read = block.first_at(3).and(block.read(0, 1_000, &mut 1_000, &mut Vec::new()));
                prop_assert!(read.is_ok() || read == Err(Damaged));
            }
        }
    }
}
