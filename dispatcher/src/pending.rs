//! Owns the records of one partition that are read and not yet taken in, and the count of their
//! bytes.
//!
//! It must never outlive its count: bytes are given back when records leave, and with the rest when
//! it is dropped (rule 8).

use std::collections::VecDeque;

use runtime::log::StoredRecord;

use crate::work::Meter;

/// Records in the order of their offsets.
#[derive(Debug)]
pub(crate) struct Pending {
    records: VecDeque<StoredRecord>,
    bytes: usize,
    meter: Meter,
}

impl Pending {
    /// None yet; what comes is counted by `meter`, which all partitions share.
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            meter,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn head(&self) -> Option<&StoredRecord> {
        self.records.front()
    }

    pub(crate) fn push(&mut self, records: Vec<StoredRecord>) {
        self.count(records.iter().map(StoredRecord::len_bytes).sum());
        self.records.extend(records);
    }

    /// Puts the head back: nothing of this partition overtakes it.
    pub(crate) fn push_back_head(&mut self, record: StoredRecord) {
        self.count(record.len_bytes());
        self.records.push_front(record);
    }

    pub(crate) fn pop(&mut self) -> Option<StoredRecord> {
        let record = self.records.pop_front()?;
        self.bytes -= record.len_bytes();
        self.meter.give_back(record.len_bytes());
        Some(record)
    }

    pub(crate) fn clear(&mut self) {
        self.records = VecDeque::new();
        self.meter.give_back(std::mem::take(&mut self.bytes));
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.meter.add(bytes);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.meter.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use runtime::log::Headers;

    use super::*;

    fn record(offset: i64, bytes: usize) -> StoredRecord {
        StoredRecord {
            offset,
            timestamp: 0,
            key: None,
            value: Some(vec![b'x'; bytes].into()),
            headers: Headers::default(),
        }
    }

    #[test]
    fn bytes_are_counted_for_as_long_as_records_are_held() {
        // rule 8
        let meter = Meter::default();
        let mut one = Pending::new(meter.clone());
        let mut two = Pending::new(meter.clone());
        let each = record(0, 100).len_bytes();
        assert!(each >= 100);
        one.push((0..3).map(|offset| record(offset, 100)).collect());
        two.push(vec![record(9, 100)]);
        assert_eq!((one.bytes(), meter.bytes()), (3 * each, 4 * each));
        let head = one.pop().unwrap();
        assert_eq!((head.offset, meter.bytes()), (0, 3 * each));
        one.push_back_head(head);
        assert_eq!(one.head().map(|head| head.offset), Some(0));
        assert_eq!(meter.bytes(), 4 * each);
        one.clear();
        assert!(one.is_empty() && one.pop().is_none());
        assert_eq!((one.bytes(), meter.bytes()), (0, each));
        drop(two);
        assert_eq!(meter.bytes(), 0);
    }
}
