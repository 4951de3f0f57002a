//! Owns how the records of a source partition become events, one or several each.
//!
//! It must never complete a record before its last item, nor decode one in two ways: what was begun
//! goes on as it was begun, whatever becomes of its source meanwhile. The surprise: a poison item is
//! a dead letter of its own, with its own bytes, and the others of its record go on (rule 16).

use bytes::Bytes;
use runtime::log::{Headers, StoredRecord};
use schemas::ids::{SourceId, TenantId};
use schemas::records::DeadReason;
use schemas::source::{Decoded, Decoder, Item, Items, RecordParts};

use super::super::metrics::EventResult;
use super::{Shipment, Source, Tag, World};
use crate::matching::{self, Arrived, Matched, Unreadable};

/// The most targets that the items of one record are written for, the item excepted that reaches
/// it: none of them may be forgotten before the record is whole (rules 3 and 8).
pub(crate) const RECORD_TARGETS_MAX: usize = 250_000;
/// The most bytes of a split record's headers that each dead letter of an item carries.
const ITEM_HEADERS_MAX: usize = 4 << 10;
/// Why an item beyond the most targets is a dead letter.
const TOO_MANY: &str = "the items before this one in its record have 250000 targets or more";

/// How records are read.
#[derive(Debug, Clone)]
pub(in crate::routing) enum Reading {
    /// As events of whatever tenant they say: the installation's own topics.
    Events,
    /// As their source says.
    Source(Decoder),
    /// Not at all: there is no source any more, or not yet.
    Stopped,
}

impl Reading {
    /// The source, where there is one.
    pub(in crate::routing) fn source(&self) -> Option<SourceId> {
        match self {
            Self::Source(decoder) => Some(decoder.source().id),
            Self::Events | Self::Stopped => None,
        }
    }

    /// Whether records are begun.
    pub(in crate::routing) fn goes_on(&self) -> bool {
        match self {
            Self::Events | Self::Source(_) => true,
            Self::Stopped => false,
        }
    }

    /// What says whose a committed position is: a source's, so that another one of the same topic
    /// starts where it says itself.
    pub(in crate::routing) fn label(&self) -> String {
        self.source().map(|id| id.to_string()).unwrap_or_default()
    }
}

/// A record of which items are left.
#[derive(Debug)]
pub(super) struct UnderWay {
    items: Items,
    tenant: TenantId,
    offset: i64,
    accepted_at: i64,
    /// Of the record, for dead letters.
    headers: Headers,
    /// Of the items before.
    targets: usize,
}

/// When a record of a source counts as accepted.
fn accepted_at(written_at: i64, made_at: i64, wall: i64) -> i64 {
    written_at.min(wall).max(made_at)
}

/// What dead letters of items carry of their record's headers: where there may be thousands of them,
/// nothing that is large. The record itself is where their origin says.
fn item_headers(headers: &Headers, is_split: bool) -> Headers {
    if is_split && headers.len_bytes() > ITEM_HEADERS_MAX {
        return Headers::default();
    }
    headers.clone()
}

impl Source {
    /// What positions of this partition are committed with.
    pub(in crate::routing) fn label(&self) -> &str {
        &self.label
    }

    /// Whether a record was begun and is not whole.
    pub(super) fn is_under_way(&self) -> bool {
        self.fanout.is_some() || self.under_way.is_some()
    }

    /// Drops what was read and not begun, and reads no more.
    pub(in crate::routing) fn drop_backlog(&mut self) {
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.assignment = None;
        self.paused = false;
    }

    /// Begins a record that was read.
    pub(super) fn begin(
        &mut self,
        record: &StoredRecord,
        shipment: &mut Shipment,
        world: &mut World<'_>,
    ) {
        self.backlog_bytes -= record.len_bytes();
        shipment.begun += 1;
        shipment.begun_bytes += record.len_bytes();
        self.next = record.offset + 1;
        match &self.reading {
            // Nothing is begun then.
            Reading::Stopped => {}
            Reading::Events => self.begin_event(record, shipment, world),
            Reading::Source(decoder) => {
                let decoder = decoder.clone();
                self.begin_items(&decoder, record, shipment, world);
            }
        }
    }

    fn begin_event(
        &mut self,
        record: &StoredRecord,
        shipment: &mut Shipment,
        world: &mut World<'_>,
    ) {
        match matching::route(&self.places, record, world.index, &self.refused) {
            Matched::Undecodable(words) => {
                let unreadable = Unreadable {
                    offset: record.offset,
                    index: 0,
                    tenant: None,
                    words: &words,
                };
                let bytes = (&record.headers, record.value.clone());
                self.push_unreadable(&unreadable, bytes, shipment, world);
                self.complete(shipment);
            }
            matched @ (Matched::Wanted(_) | Matched::Unwanted) => {
                self.take(matched, shipment, world);
            }
        }
    }

    fn begin_items(
        &mut self,
        decoder: &Decoder,
        record: &StoredRecord,
        shipment: &mut Shipment,
        world: &mut World<'_>,
    ) {
        let source = decoder.source();
        let parts = RecordParts {
            partition: self.places.source.number,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_ref(),
            value: record.value.as_ref(),
            headers: record.headers.iter(),
        };
        match decoder.decode(&parts) {
            Decoded::Items(items) if !items.is_empty() => {
                self.under_way = Some(Box::new(UnderWay {
                    items,
                    tenant: source.tenant.clone(),
                    offset: record.offset,
                    // What lay there before its source was made is as old as that: a delivery's age
                    // is counted from here. A time to come would keep it from ever ending.
                    accepted_at: accepted_at(record.timestamp, source.created_at, world.wall),
                    headers: item_headers(&record.headers, source.split.is_some()),
                    targets: 0,
                }));
            }
            Decoded::Items(_) | Decoded::Tombstone => {
                world.metrics.events.get(EventResult::Empty).inc();
                self.complete(shipment);
            }
            Decoded::Poison(words) => {
                let unreadable = Unreadable {
                    offset: record.offset,
                    index: 0,
                    tenant: Some(&source.tenant),
                    words: &words,
                };
                let bytes = (&record.headers, record.value.clone());
                self.push_unreadable(&unreadable, bytes, shipment, world);
                self.complete(shipment);
            }
        }
    }

    /// Begins the next item of the record under way.
    pub(super) fn begin_item(&mut self, shipment: &mut Shipment, world: &mut World<'_>) {
        let Some(mut record) = self.under_way.take() else {
            return;
        };
        let Some(Item { index, data, event }) = record.items.next() else {
            self.complete(shipment);
            return;
        };
        shipment.begun += 1;
        let offset = record.offset;
        // What is read a second time has a bound of its own, and leaves no dead letters.
        let is_full = !self.is_replay && record.targets >= RECORD_TARGETS_MAX;
        let event = event.and_then(|event| {
            if is_full {
                Err(TOO_MANY.to_owned())
            } else {
                Ok(event)
            }
        });
        match event {
            Ok(event) => {
                let arrived = Arrived {
                    event,
                    accepted_at: record.accepted_at,
                    offset,
                    index,
                };
                let (places, refused) = (&self.places, &self.refused);
                let matched = matching::route_event(arrived, places, world.index, refused);
                record.targets += matched.targets();
                self.under_way = Some(record);
                self.take(matched, shipment, world);
            }
            Err(words) => {
                let unreadable = Unreadable {
                    offset,
                    index,
                    tenant: Some(&record.tenant),
                    words: &words,
                };
                self.push_unreadable(&unreadable, (&record.headers, data), shipment, world);
                self.under_way = Some(record);
                self.end_item(shipment);
            }
        }
    }

    fn take(&mut self, matched: Matched, shipment: &mut Shipment, world: &World<'_>) {
        match matched {
            Matched::Wanted(mut fanout) => {
                if self.is_replay {
                    // Its maximum age counts from now.
                    fanout.accept_at(world.wall);
                }
                self.fanout = Some(fanout);
            }
            Matched::Unwanted | Matched::Undecodable(_) if self.is_replay => {
                self.end_item(shipment);
            }
            // Only a record that was not read is unreadable: an event is one.
            Matched::Unwanted | Matched::Undecodable(_) => {
                world.metrics.events.get(EventResult::Unmatched).inc();
                self.end_item(shipment);
            }
        }
    }

    /// The item begun last is written whole once `shipment` is; so is its record where it was the
    /// last one.
    pub(super) fn end_item(&mut self, shipment: &mut Shipment) {
        let rest = self.under_way.take();
        self.under_way = rest.filter(|record| !record.items.is_empty());
        if self.under_way.is_none() {
            self.complete(shipment);
        }
    }

    fn push_unreadable(
        &self,
        unreadable: &Unreadable<'_>,
        (headers, value): (&Headers, Option<Bytes>),
        shipment: &mut Shipment,
        world: &World<'_>,
    ) {
        if self.is_replay {
            // It was a dead letter when it was read first.
            return;
        }
        let (offset, index) = (unreadable.offset, unreadable.index);
        let (dead, tag) = if self.refused_bytes.contains(&(offset, index)) {
            (
                unreadable.reference(&self.places, world.wall),
                Tag::Reference,
            )
        } else {
            let dead = unreadable.record(&self.places, headers, value, world.wall);
            (dead, Tag::Bytes(offset, index))
        };
        self.push_dead(shipment, dead, DeadReason::Undecodable, tag);
        shipment.load.undecodable += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_old_as_its_source_at_most_and_never_of_the_future() {
        assert_eq!(accepted_at(50, 10, 100), 50);
        assert_eq!(accepted_at(5, 10, 100), 10, "before its source was made");
        assert_eq!(accepted_at(50_000, 10, 100), 100, "microseconds");
        assert_eq!(accepted_at(i64::MAX, 101, 100), 101, "clocks differ");
    }

    #[test]
    fn large_headers_are_not_repeated_for_each_item() {
        let small: Headers = [("a", "b")].into_iter().collect();
        let text = "x".repeat(ITEM_HEADERS_MAX);
        let large: Headers = [("a", text.as_str())].into_iter().collect();
        let check = |headers: &Headers, is_split, count| {
            assert_eq!(item_headers(headers, is_split).iter().count(), count);
        };
        check(&small, true, 1);
        check(&large, true, 0);
        check(&large, false, 1);
    }
}
