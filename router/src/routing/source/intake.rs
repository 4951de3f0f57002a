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
                    // is counted from here.
                    accepted_at: record.timestamp.max(source.created_at),
                    headers: record.headers.clone(),
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
        match event {
            Ok(event) => {
                let arrived = Arrived {
                    event,
                    accepted_at: record.accepted_at,
                    offset,
                    index,
                };
                self.under_way = Some(record);
                let (places, refused) = (&self.places, &self.refused);
                let matched = matching::route_event(arrived, places, world.index, refused);
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
