//! Owns what becomes of one source record: the event in it, its targets grouped by partition, and
//! the records that carry them (rule 2).
//!
//! It must never write anything, and never hold all records of a large fan-out: they are made one
//! by one. The surprise: the router's committed position is asked for with each record, not with
//! each event, since commits go on while a large fan-out is written (rule 3).

mod dead;
mod fanout;

use std::sync::Arc;

use bytes::Bytes;
use runtime::log::topics::MAX_RECORD_BYTES;
use runtime::log::{Headers, HeadersBuilder, Partition, StoredRecord, TopicName};
use schemas::codec;
use schemas::event::{ACCEPTED, Event, Limits};
use schemas::ids::TenantId;
use schemas::records::{DeadReason, Origin};

use crate::index::Index;

pub use dead::{Lost, undecodable, undecodable_reference};
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
}

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
    let control_offset = index.control_offset();
    let matches = index.matches(&event);
    let Some(matches) = matches.filter(|matches| !matches.places.is_empty()) else {
        return Matched::Unwanted;
    };
    let accepted_at = accepted_at(&event).unwrap_or(record.timestamp);
    let headers = headers_of(record, &event);
    let origin = places.origin(record.offset);
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

/// The event's attributes as headers. An event that came in binary mode keeps the headers it came
/// with: their buffer is shared, not written again.
fn headers_of(record: &StoredRecord, event: &Event) -> Headers {
    if is_binary_mode(record, event) {
        return record.headers.clone();
    }
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
