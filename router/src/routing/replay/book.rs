//! Owns what is on record of one source partition's activations.
//!
//! It must never believe a record that the owner of its time did not write: a router that was
//! stopped may write one late. The surprise: which those are is not in the records, but in the
//! [`OwnerMark`] that came with the committed position; they are void, and named, so that they can
//! be taken back by an owner that has committed its own.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use runtime::log::{Partition, StoredRecord};
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, ActivationKey, OwnerMark, Writer};

use crate::matching::Gates;

/// What is on record of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// It is live from there on; `None` while an ordered one's replay has not met the live
    /// position.
    pub(super) offset: Option<i64>,
    /// Everything below is on `deliveries`.
    pub(super) replayed_to: i64,
    /// Nothing is to be replayed any more.
    pub(super) done: bool,
    /// Where the log began, if events of the range may have been gone.
    pub(super) log_start: Option<i64>,
}

/// An entry, and whose records say it.
#[derive(Debug)]
struct Entry {
    known: Known,
    writers: Vec<Writer>,
}

/// The activations of one source partition.
#[derive(Debug)]
pub(super) struct Book {
    topic: Arc<str>,
    partition: u32,
    entries: BTreeMap<SubscriptionId, Entry>,
}

// === impl Known ===

impl Known {
    /// Replayed so far, and no more than that.
    pub(super) fn replayed(replayed_to: i64) -> Self {
        Self {
            offset: None,
            replayed_to,
            done: false,
            log_start: None,
        }
    }

    fn of(activation: &Activation) -> Self {
        Self {
            offset: activation.offset,
            replayed_to: activation.replayed_to,
            done: activation.done,
            log_start: activation.log_start,
        }
    }

    /// Two owners agree on the offset, and each says what is replayed for certain.
    fn merge(&mut self, other: Self) {
        if other.offset > self.offset {
            self.offset = other.offset;
            self.done = other.done;
        } else if other.offset == self.offset {
            self.done |= other.done;
        }
        self.replayed_to = self.replayed_to.max(other.replayed_to);
        self.log_start = self.log_start.or(other.log_start);
    }
}

// === impl Book ===

impl Book {
    /// The book of `source` with nothing in it.
    pub(super) fn new(source: &Partition) -> Self {
        Self {
            topic: source.topic.as_str().into(),
            partition: source.number,
            entries: BTreeMap::new(),
        }
    }

    /// Reads what is on `progress` about `source`, whose last committed position came with `mark`:
    /// the book, and the keys of records that are void.
    pub(super) fn read<'a>(
        source: &Partition,
        mark: Option<&OwnerMark>,
        records: impl Iterator<Item = &'a StoredRecord>,
    ) -> (Self, Vec<ActivationKey>) {
        let mut book = Self::new(source);
        let mut last: BTreeMap<ActivationKey, (i64, Activation)> = BTreeMap::new();
        for record in records {
            let Some(key) = book.own_key(record) else {
                continue;
            };
            match record.value.as_deref().map(Activation::decode) {
                None => drop(last.remove(&key)),
                Some(Ok(activation)) => drop(last.insert(key, (record.offset, activation))),
                Some(Err(error)) => {
                    tracing::error!(%source, offset = record.offset, %error, "activation left out");
                }
            }
        }
        let mut void = Vec::new();
        for (key, (offset, activation)) in last {
            if mark.is_some_and(|mark| mark.counts(offset, &key.writer)) {
                book.add(&activation);
            } else {
                void.push(key);
            }
        }
        (book, void)
    }

    fn own_key(&self, record: &StoredRecord) -> Option<ActivationKey> {
        let key = record
            .key
            .as_deref()
            .filter(|key| ActivationKey::is_one(key))?;
        let key = ActivationKey::from_str(std::str::from_utf8(key).ok()?).ok()?;
        (*key.topic == *self.topic && key.partition == self.partition).then_some(key)
    }

    fn add(&mut self, activation: &Activation) {
        let known = Known::of(activation);
        let entry = self.entries.entry(activation.subscription);
        let entry = entry.or_insert_with(|| Entry {
            known,
            writers: Vec::new(),
        });
        entry.known.merge(known);
        if !entry.writers.contains(&activation.writer) {
            entry.writers.push(activation.writer.clone());
        }
    }

    /// What is on record of a subscription.
    pub(super) fn get(&self, id: SubscriptionId) -> Option<&Known> {
        self.entries.get(&id).map(|entry| &entry.known)
    }

    /// Every subscription that is on record.
    pub(super) fn ids(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        self.entries.keys().copied()
    }

    /// The record by `writer` that says `known`.
    pub(super) fn record(
        &self,
        subscription: SubscriptionId,
        known: Known,
        writer: &Writer,
    ) -> Activation {
        Activation {
            version: 1,
            subscription,
            topic: self.topic.to_string(),
            partition: self.partition,
            offset: known.offset,
            replayed_to: known.replayed_to,
            done: known.done,
            log_start: known.log_start,
            writer: writer.clone(),
        }
    }

    /// Everything that is still to change, as `writer` writes it anew when it takes over: what its
    /// predecessors write late counts for nothing then.
    pub(super) fn taken_over_by(&self, writer: &Writer) -> Vec<Activation> {
        let open = self.entries.iter().filter(|(_, entry)| !entry.known.done);
        open.map(|(id, entry)| self.record(*id, entry.known, writer))
            .collect()
    }

    /// Notes a record that was written by the owner.
    pub(super) fn note(&mut self, activation: &Activation) {
        self.add(activation);
    }

    /// The records of other writers, where `writer` has its own.
    pub(super) fn replaced_by(&mut self, writer: &Writer) -> Vec<ActivationKey> {
        let mut replaced = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.writers.len() > 1 && entry.writers.contains(writer) {
                let others = entry.writers.extract_if(.., |other| other != writer);
                replaced.extend(others.map(|other| (*id, other)));
            }
        }
        replaced
            .into_iter()
            .map(|(id, writer)| self.key(id, writer))
            .collect()
    }

    /// Takes a subscription out; returns the keys of its records.
    pub(super) fn forget(&mut self, id: SubscriptionId) -> Vec<ActivationKey> {
        let writers = self.entries.remove(&id).map(|entry| entry.writers);
        let writers = writers.into_iter().flatten();
        writers.map(|writer| self.key(id, writer)).collect()
    }

    fn key(&self, subscription: SubscriptionId, writer: Writer) -> ActivationKey {
        ActivationKey {
            topic: self.topic.to_string(),
            partition: self.partition,
            subscription,
            writer,
        }
    }

    /// What is live, from which offset on.
    pub(super) fn gates(&self) -> Gates {
        let live = self.entries.iter().filter_map(|(id, entry)| {
            let offset = entry.known.offset?;
            Some((*id, offset..i64::MAX))
        });
        live.collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use runtime::log::{Headers, TopicName};
    use schemas::records::Incarnation;

    use super::*;

    fn source() -> Partition {
        TopicName::new("t.events").partition(3)
    }

    fn writer(number: u8) -> Writer {
        Writer::new(&Incarnation::from_uuid_v7([number; 16]), 1)
    }

    fn activation(id: u128, by: u8, offset: Option<i64>, replayed_to: i64) -> Activation {
        let known = Known {
            offset,
            done: offset == Some(replayed_to),
            ..Known::replayed(replayed_to)
        };
        Book::new(&source()).record(SubscriptionId::from_bits(id), known, &writer(by))
    }

    fn stored(offset: i64, key: &ActivationKey, value: Option<&Activation>) -> StoredRecord {
        StoredRecord {
            offset,
            timestamp: 0,
            key: Some(Bytes::from(key.to_string())),
            value: value.map(|value| Bytes::from(value.encode())),
            headers: Headers::default(),
        }
    }

    fn log(activations: &[Activation]) -> Vec<StoredRecord> {
        let offsets = 0_i64..;
        let all = offsets.zip(activations);
        all.map(|(offset, one)| stored(offset, &one.key(), Some(one)))
            .collect()
    }

    fn mark(by: u8, from: i64) -> OwnerMark {
        OwnerMark::new(writer(by), from)
    }

    #[test]
    fn what_was_written_beside_the_owner_is_void() {
        let id = SubscriptionId::from_bits(1);
        let records = log(&[
            activation(1, 1, Some(50), 20),
            // By the owner, behind its mark.
            activation(1, 2, Some(50), 30),
            // By its predecessor, late.
            activation(2, 1, Some(10), 5),
        ]);
        let owner = mark(2, 1);
        let (book, void) = Book::read(&source(), Some(&owner), records.iter());
        let known = book.get(id).unwrap();
        assert_eq!((known.offset, known.replayed_to), (Some(50), 30));
        assert_eq!(void, [activation(2, 1, None, 0).key()]);
        let (book, void) = Book::read(&source(), None, records.iter());
        assert_eq!(
            (book.ids().count(), void.len()),
            (0, 3),
            "nobody says whose they are"
        );
    }

    #[test]
    fn other_partitions_tombstones_and_what_is_no_activation_are_passed_over() {
        let other = Activation {
            partition: 4,
            ..activation(1, 1, Some(5), 5)
        };
        let gone = activation(2, 1, Some(5), 5);
        let mut records = log(&[other, gone.clone(), activation(3, 1, Some(5), 5)]);
        records.push(stored(3, &gone.key(), None));
        records.push(StoredRecord {
            key: Some(Bytes::from_static(b"lane/a")),
            ..records[0].clone()
        });
        let (book, void) = Book::read(&source(), Some(&mark(9, 100)), records.iter());
        assert_eq!(
            book.ids().collect::<Vec<_>>(),
            [SubscriptionId::from_bits(3)]
        );
        assert!(void.is_empty());
    }

    #[test]
    fn a_new_owner_writes_anew_what_is_not_done_and_takes_the_old_records_back_later() {
        let records = log(&[
            activation(1, 1, Some(50), 20),
            activation(2, 1, Some(50), 50),
            activation(3, 1, None, 20),
        ]);
        let (mut book, _) = Book::read(&source(), Some(&mark(1, 0)), records.iter());
        let copies = book.taken_over_by(&writer(2));
        let ids: Vec<_> = copies.iter().map(|copy| copy.subscription.bits()).collect();
        assert_eq!(ids, [1, 3]);
        assert!(
            book.replaced_by(&writer(2)).is_empty(),
            "not before its own are there"
        );
        copies.iter().for_each(|copy| book.note(copy));
        let replaced = book.replaced_by(&writer(2));
        assert_eq!(replaced.len(), 2);
        assert!(replaced.iter().all(|key| key.writer == writer(1)));
        assert!(book.replaced_by(&writer(2)).is_empty());
        let keys = book.forget(SubscriptionId::from_bits(1));
        assert_eq!(keys, [activation(1, 2, None, 0).key()]);
        assert_eq!(book.gates().len(), 1, "the third is not live yet");
    }

    proptest! {
        /// However records of valid owners are repeated and mixed, what is known is the most that
        /// any of them says.
        #[test]
        fn nothing_that_an_owner_said_is_taken_back(
            said in prop::collection::vec((1_u8..4, any::<bool>(), 0_i64..=50), 1..20),
        ) {
            let all: Vec<_> = said
                .iter()
                .map(|(by, met, to)| activation(1, *by, met.then_some(50), *to))
                .collect();
            let (mut book, _) = Book::read(&source(), Some(&mark(1, 100)), std::iter::empty());
            all.iter().for_each(|one| book.note(one));
            let known = book.get(SubscriptionId::from_bits(1)).unwrap();
            prop_assert_eq!(known.replayed_to, said.iter().map(|(_, _, to)| *to).max().unwrap());
            let met = said.iter().any(|(_, met, _)| *met);
            prop_assert_eq!(known.offset, met.then_some(50));
            prop_assert_eq!(known.done, said.iter().any(|(_, met, to)| *met && *to == 50));
        }
    }
}
