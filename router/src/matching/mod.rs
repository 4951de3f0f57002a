//! Owns what becomes of one source record: the event in it, its targets grouped by partition, and
//! the records that carry them (rule 2).
//!
//! It must never write anything, and never hold all records of a large fan-out: they are made one
//! by one. The surprise: the router's committed position is asked for with each record, not with
//! each event, since commits go on while a large fan-out is written (rule 3).

mod dead;
mod fanout;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use runtime::log::topics::MAX_RECORD_BYTES;
use runtime::log::{Headers, HeadersBuilder, Partition, StoredRecord, TopicName};
use schemas::codec;
use schemas::event::{ACCEPTED, Event, Limits};
use schemas::ids::{SubscriptionId, TenantId};
use schemas::records::{DeadReason, Origin};

use crate::index::{Index, Matches, Place};

pub use dead::{Lost, Unreadable};
pub use fanout::{Fanout, Outgoing, Refused};

/// The most bytes of a record that the router writes; the rest is room for what the log adds.
pub const RECORD_BYTES_MAX: usize = MAX_RECORD_BYTES - (4 << 10);

/// The log's own bound is the only one here: ingest has enforced its own, and a direct writer's
/// event that fits the log is routed.
const LIMITS: Limits = Limits {
    max_attributes: 1_024,
    max_attribute_bytes: 1 << 20,
    max_data_bytes: MAX_RECORD_BYTES,
};

/// Where the records of one source go.
#[derive(Debug, Clone)]
pub struct Places {
    /// The source partition.
    pub source: Partition,
    /// The source topic's name as origins carry it.
    pub source_topic: Arc<str>,
    /// The topic of deliveries.
    pub deliveries: TopicName,
    /// The topic of dead letters.
    pub dead: TopicName,
    /// Which offsets are for subscriptions with a start.
    pub gates: Gates,
}

/// Which offsets of one source partition are for each subscription with a start; none are for one
/// that is not named.
pub type Gates = HashMap<SubscriptionId, Range<i64>, foldhash::fast::RandomState>;

impl Places {
    /// The origin of the record at `offset`.
    #[must_use]
    pub fn origin(&self, offset: i64) -> Origin {
        Origin {
            topic: self.source_topic.clone(),
            partition: self.source.number,
            offset,
            index: 0,
        }
    }
}

/// What becomes of a source record.
#[derive(Debug)]
pub enum Matched {
    /// Somebody wants it.
    Wanted(Box<Fanout>),
    /// Nobody does: its offset completes at once.
    Unwanted,
    /// It is no event of a tenant, in these words; it is a dead letter (rule 16).
    Undecodable(String),
}

impl Matched {
    /// How many targets it has.
    #[must_use]
    pub fn targets(&self) -> usize {
        match self {
            Self::Wanted(fanout) => fanout.targets(),
            Self::Unwanted | Self::Undecodable(_) => 0,
        }
    }
}

/// An event of a source partition, on its own or as an item of a record.
#[derive(Debug)]
pub struct Arrived {
    /// The event, with its tenant.
    pub event: Event,
    /// When it was accepted, unix milliseconds.
    pub accepted_at: i64,
    /// The record's offset.
    pub offset: i64,
    /// The item's place in the record, else 0.
    pub index: u32,
}

/// Reads the event in `record` and finds who wants it.
#[must_use]
pub fn route(
    places: &Places,
    record: &StoredRecord,
    index: &mut Index,
    refused: &Refused,
) -> Matched {
    let event = match read(record) {
        Ok(event) => event,
        Err(words) => return Matched::Undecodable(words),
    };
    // An event that came in binary mode keeps the headers it came with: their buffer is shared, not
    // written again.
    let headers = |event: &Event| {
        if is_binary_mode(record, event) {
            record.headers.clone()
        } else {
            headers_of(event)
        }
    };
    let arrived = Arrived {
        accepted_at: accepted_at(&event).unwrap_or(record.timestamp),
        event,
        offset: record.offset,
        index: 0,
    };
    fan_out(arrived, headers, places, index, refused)
}

/// Finds who wants an event.
#[must_use]
pub fn route_event(
    arrived: Arrived,
    places: &Places,
    index: &mut Index,
    refused: &Refused,
) -> Matched {
    fan_out(arrived, headers_of, places, index, refused)
}

fn fan_out(
    arrived: Arrived,
    headers: impl FnOnce(&Event) -> Headers,
    places: &Places,
    index: &mut Index,
    refused: &Refused,
) -> Matched {
    let Arrived {
        event,
        accepted_at,
        offset,
        index: item,
    } = arrived;
    let control_offset = index.control_offset();
    let has_gated = index.has_gated();
    let matches = index.matches(&event);
    let open: Vec<Place>;
    let matches = match matches {
        Some(matches) if has_gated => {
            open = admitted(matches, &places.gates, offset);
            let places = open.as_slice();
            Some(Matches { places, ..matches })
        }
        Some(_) | None => matches,
    };
    let Some(matches) = matches.filter(|matches| !matches.places.is_empty()) else {
        return Matched::Unwanted;
    };
    let headers = headers(&event);
    let origin = Origin {
        index: item,
        ..places.origin(offset)
    };
    let fanout = Fanout::new(
        fanout::Arrival {
            event,
            headers,
            accepted_at,
            origin,
        },
        matches,
        control_offset,
        refused,
    );
    fanout.map_or(Matched::Unwanted, |fanout| {
        Matched::Wanted(Box::new(fanout))
    })
}

/// Those that the record at `offset` is for, as far as their starts say.
fn admitted(matches: Matches<'_>, gates: &Gates, offset: i64) -> Vec<Place> {
    let is_admitted = |place: &Place| {
        let entry = matches.entries.get(*place);
        entry.is_some_and(|entry| {
            let gate = || gates.get(&entry.subscription);
            !entry.gated || gate().is_some_and(|offsets| offsets.contains(&offset))
        })
    };
    matches.places.iter().copied().filter(is_admitted).collect()
}

fn read(record: &StoredRecord) -> Result<Event, String> {
    let event = codec::kafka::decode(record.headers.iter(), record.value.clone(), &LIMITS)
        .map_err(|error| error.to_string())?;
    match event.tenant().map(str::parse::<TenantId>) {
        Some(Ok(_)) => Ok(event),
        Some(Err(error)) => Err(format!("attribute `anabranchtenant`: {error}")),
        None => Err("attribute `anabranchtenant`: is missing".to_owned()),
    }
}

fn accepted_at(event: &Event) -> Option<i64> {
    event.attribute(ACCEPTED)?.parse().ok()
}

/// The event's attributes as headers.
fn headers_of(event: &Event) -> Headers {
    let mut headers = Headers::builder();
    for (name, text) in codec::kafka::encode_binary(event).0 {
        headers.push(name.as_ref(), text.as_ref());
    }
    headers.build()
}

/// Whether the record's headers are exactly what binary mode writes, in whatever order: nothing
/// foreign that every copy would drag along.
fn is_binary_mode(record: &StoredRecord, event: &Event) -> bool {
    let content_type = event.datacontenttype().map(str::as_bytes);
    record.headers.iter().all(|(name, value)| match name {
        "content-type" => Some(value) == content_type,
        _ => name.starts_with("ce_") || name == "anabranch-types",
    })
}

/// The records' own names for the parts of a log record.
fn log_record(
    topic: &TopicName,
    key: Option<Bytes>,
    headers: HeadersBuilder,
) -> runtime::log::Record {
    runtime::log::Record {
        topic: topic.clone(),
        partition: None,
        key,
        value: None,
        headers: headers.build(),
    }
}

/// Why a record that the log refused is dead.
#[must_use]
pub fn dead_reason(refusal: runtime::log::NotWritten) -> DeadReason {
    match refusal {
        runtime::log::NotWritten::TooLarge => DeadReason::TooLarge,
        runtime::log::NotWritten::Invalid
        | runtime::log::NotWritten::TimedOut
        | runtime::log::NotWritten::Unknown => DeadReason::Unencodable,
    }
}

#[cfg(test)]
mod tests;
