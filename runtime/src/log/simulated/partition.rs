//! Owns one partition's entries: records, transaction markers, and the gaps between them.
//!
//! It must never hand out what is aborted, open or not yet visible. The surprise: markers and
//! aborted records take offsets, and compaction removes entries but never moves an offset.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::super::{Bounds, StoredRecord};

/// What an offset of a partition holds, for auditors.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place.
    pub offset: i64,
    /// What is there.
    pub content: Content,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A record.
    Record {
        /// The record.
        record: StoredRecord,
        /// The transaction that wrote it.
        transaction: Option<u64>,
    },
    /// The end of a transaction.
    Marker {
        /// Which.
        transaction: u64,
        /// Whether it committed.
        committed: bool,
    },
}

/// A partition. Offsets only grow.
#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    start: i64,
    end: i64,
    visible: i64,
    entries: VecDeque<Entry>,
    // Where the first record of each open transaction is.
    open: BTreeMap<u64, i64>,
    aborted: BTreeSet<u64>,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The offset to read next.
    pub(super) next: i64,
    /// Whether that is the stable end.
    pub(super) at_end: bool,
}

impl PartitionLog {
    /// Appends a record; its own offset is ignored.
    pub(super) fn append(&mut self, mut record: StoredRecord, transaction: Option<u64>) -> i64 {
        let offset = self.end;
        record.offset = offset;
        if let Some(number) = transaction {
            self.open.entry(number).or_insert(offset);
        }
        self.push(Content::Record {
            record,
            transaction,
        })
    }

    /// Ends a transaction that wrote here.
    pub(super) fn mark(&mut self, transaction: u64, committed: bool) {
        self.open.remove(&transaction);
        if !committed {
            self.aborted.insert(transaction);
        }
        self.push(Content::Marker {
            transaction,
            committed,
        });
    }

    fn push(&mut self, content: Content) -> i64 {
        let offset = self.end;
        self.entries.push_back(Entry { offset, content });
        self.end += 1;
        offset
    }

    /// Lets readers see everything below `end`.
    pub(super) fn show(&mut self, end: i64) {
        self.visible = self.visible.max(end);
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start,
            stable_end: self.stable_end(),
        }
    }

    /// Whether a reader may ask for `offset`.
    pub(super) fn holds(&self, offset: i64) -> bool {
        (self.start..=self.end).contains(&offset)
    }

    /// The end of what readers of committed records may see: an open transaction holds it back.
    pub(super) fn stable_end(&self) -> i64 {
        self.open
            .values()
            .fold(self.visible, |end, first| end.min(*first))
            .max(self.start)
    }

    /// Committed records from `from` on into `into`, about `max_bytes` of them, at least one.
    pub(super) fn read(&self, from: i64, max_bytes: usize, into: &mut Vec<StoredRecord>) -> Span {
        let stable = self.stable_end();
        let first = self.entries.partition_point(|entry| entry.offset < from);
        let mut bytes = 0;
        for entry in self
            .entries
            .range(first..)
            .take_while(|entry| entry.offset < stable)
        {
            let Some(record) = self.committed(entry) else {
                continue;
            };
            bytes += record.len_bytes();
            if !into.is_empty() && bytes > max_bytes {
                return Span {
                    next: record.offset,
                    at_end: false,
                };
            }
            into.push(record.clone());
        }
        Span {
            next: from.max(stable),
            at_end: true,
        }
    }

    /// The first committed record at or after `at`.
    pub(super) fn offset_at(&self, at: i64) -> Option<i64> {
        let stable = self.stable_end();
        self.entries
            .iter()
            .take_while(|entry| entry.offset < stable)
            .filter_map(|entry| self.committed(entry))
            .find(|record| record.timestamp >= at)
            .map(|record| record.offset)
    }

    fn committed<'e>(&self, entry: &'e Entry) -> Option<&'e StoredRecord> {
        match &entry.content {
            Content::Record {
                record,
                transaction,
            } => {
                let aborted = transaction.is_some_and(|number| self.aborted.contains(&number));
                (!aborted).then_some(record)
            }
            Content::Marker { .. } => None,
        }
    }

    /// Deletes everything below `start`, as retention does.
    pub(super) fn delete_before(&mut self, start: i64) {
        self.start = start.clamp(self.start, self.end);
        let kept = self
            .entries
            .partition_point(|entry| entry.offset < self.start);
        self.entries.drain(..kept);
    }

    /// Keeps, below the stable end, the last committed record of each key, and tombstones only from
    /// `tombstones_from` (unix milliseconds) on. Returns how many entries went.
    pub(super) fn compact(&mut self, tombstones_from: i64) -> usize {
        let stable = self.stable_end();
        let mut last: BTreeMap<Bytes, i64> = BTreeMap::new();
        for entry in self
            .entries
            .iter()
            .take_while(|entry| entry.offset < stable)
        {
            if let Some((key, record)) = self
                .committed(entry)
                .and_then(|record| Some((record.key.clone()?, record)))
            {
                last.insert(key, record.offset);
            }
        }
        let before = self.entries.len();
        let entries = std::mem::take(&mut self.entries);
        let keep = |entry: &Entry| {
            entry.offset >= stable
                || self.committed(entry).is_some_and(|record| {
                    let newest = record.key.as_ref().and_then(|key| last.get(key));
                    let kept = record.value.is_some() || record.timestamp >= tombstones_from;
                    kept && newest.is_none_or(|offset| *offset == record.offset)
                })
        };
        let kept = entries.into_iter().filter(keep).collect();
        self.entries = kept;
        before - self.entries.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Headers;
    use proptest::prelude::*;

    fn record(key: &str, value: Option<&str>) -> StoredRecord {
        StoredRecord {
            offset: -1,
            timestamp: 5,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            headers: Headers::default(),
        }
    }

    fn offsets(log: &PartitionLog, from: i64) -> Vec<i64> {
        let mut found = Vec::new();
        log.read(from, usize::MAX, &mut found);
        found.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn markers_and_aborted_records_take_offsets_and_are_not_read() {
        let mut log = PartitionLog::default();
        log.append(record("a", Some("1")), None);
        log.append(record("b", Some("2")), Some(7));
        log.append(record("c", Some("3")), Some(8));
        log.append(record("d", Some("4")), None);
        log.show(log.end());
        assert_eq!((log.stable_end(), offsets(&log, 0)), (1, vec![0]));
        log.mark(7, false);
        log.show(log.end());
        assert_eq!((log.stable_end(), offsets(&log, 0)), (2, vec![0]));
        log.mark(8, true);
        log.show(log.end());
        assert_eq!((log.stable_end(), offsets(&log, 0)), (6, vec![0, 2, 3]));
    }

    #[test]
    fn compaction_keeps_the_last_of_each_key_and_every_offset() {
        let mut log = PartitionLog::default();
        for (key, value) in [
            ("a", Some("1")),
            ("b", Some("2")),
            ("a", Some("3")),
            ("b", None),
        ] {
            log.append(record(key, value), None);
        }
        log.show(log.end());
        assert_eq!(log.compact(0), 2);
        assert_eq!(offsets(&log, 0), [2, 3]);
        assert_eq!(log.compact(6), 1);
        assert_eq!(offsets(&log, 0), [2]);
        assert_eq!(log.append(record("c", None), None), 4);
    }

    proptest! {
        #[test]
        fn reading_in_pieces_is_reading_at_once(
            steps in prop::collection::vec((0_u8..5, 0_u64..3), 0..60),
            piece in 1_usize..20,
        ) {
            // The oracle knows the outcome of every transaction and filters by it.
            let mut log = PartitionLog::default();
            let (mut written, mut ended) = (Vec::new(), BTreeMap::new());
            let mut current = [10_u64, 20, 30];
            for (step, slot) in steps {
                let number = &mut current[usize::try_from(slot).unwrap()];
                let touched = log.open.contains_key(number);
                match step {
                    0 | 1 => written.push((log.append(record("k", Some("v")), None), None)),
                    2 => {
                        let offset = log.append(record("k", Some("v")), Some(*number));
                        written.push((offset, Some(*number)));
                    }
                    _ if touched => {
                        log.mark(*number, step == 3);
                        ended.insert(*number, step == 3);
                        *number += 100;
                    }
                    _ => {}
                }
            }
            log.show(log.end());
            let stable = written
                .iter()
                .find(|(_, by)| by.is_some_and(|by| !ended.contains_key(&by)))
                .map_or(log.end(), |(offset, _)| *offset);
            let expected: Vec<i64> = written
                .into_iter()
                .filter(|(offset, by)| *offset < stable && by.is_none_or(|by| ended[&by]))
                .map(|(offset, _)| offset)
                .collect();
            let (mut next, mut found) = (0, Vec::new());
            loop {
                let mut some = Vec::new();
                let span = log.read(next, piece, &mut some);
                found.extend(some.iter().map(|record| record.offset));
                next = span.next;
                if span.at_end { break; }
            }
            prop_assert_eq!(log.stable_end(), stable);
            prop_assert_eq!(next, stable);
            prop_assert_eq!(found, expected);
        }
    }
}
