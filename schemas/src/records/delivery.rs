//! Owns the record of `deliveries` and of the delay topics: one event and its targets.
//!
//! The event's attributes are the record's headers (CloudEvents Kafka binding, binary mode); the
//! value is an envelope, the targets and the payload, so that fan-out costs about 33 bytes a
//! target. The surprise: the payload is at the end and has no length, so that decoding shares the
//! record's buffer.

use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use super::wire::{Cursor, put_bytes, put_signed, put_varint};
use crate::codec;
use crate::event::{Event, Limits};
use crate::ids::{DeliveryId, EndpointId, Mark, SubscriptionId};

/// The most targets in one record (rule 2).
pub const MAX_TARGETS: usize = 1_000;

const VERSION: u8 = 1;

/// What came through ingest or a source has been measured there; the log bounds the record.
const UNLIMITED: Limits = Limits {
    max_attributes: usize::MAX,
    max_attribute_bytes: usize::MAX,
    max_data_bytes: usize::MAX,
};

const HAS_DATA: u64 = 1;
const HAS_POSITION: u64 = 1 << 1;
const KNOWN_FLAGS: u64 = HAS_DATA | HAS_POSITION;

const TARGET_REPORT: u64 = 1;
const TARGET_STATE: u64 = 1 << 1;
const TARGET_BULK: u64 = 1 << 2;
const TARGET_ORDER: u64 = 1 << 3;
const KNOWN_TARGET_FLAGS: u64 = TARGET_REPORT | TARGET_STATE | TARGET_BULK | TARGET_ORDER;

/// Where an event entered: its record, and its place in it when the record held several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The source topic's full name.
    pub topic: Arc<str>,
    /// The source partition.
    pub partition: u32,
    /// The record's offset there.
    pub offset: i64,
    /// The item of an array that was split, else 0.
    pub index: u32,
}

/// One event for up to [`MAX_TARGETS`] targets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Where the event entered.
    pub origin: Origin,
    /// The router's committed position in the origin's partition when it wrote this (rule 3);
    /// `None` on records that no router wrote.
    pub router_position: Option<i64>,
    /// When the event was accepted, unix milliseconds.
    pub accepted_at: i64,
    /// How much of `control` the writer had applied: the offset behind the last record applied.
    pub control_offset: i64,
    /// The event, with the reserved attributes that name its tenant and loop count.
    pub event: Event,
    /// Whom it is for.
    pub targets: Vec<Target>,
}

/// A delivery's place in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The subscription that matched.
    pub subscription: SubscriptionId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Whether the outcome is written to `results`.
    pub report: bool,
    /// The redrive or chunk that this belongs to.
    pub bulk: Option<u128>,
    /// The order key's hash and the delivery's sequence behind it, where order is promised.
    pub order: Option<(u64, u64)>,
    /// What attempts and hops have left behind; `None` before the first.
    pub state: Option<AttemptState>,
}

/// What a delivery carries from attempt to attempt through the delay topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttemptState {
    /// Attempts that count against the schedule.
    pub attempts: u32,
    /// Stays in delay topics.
    pub hops: u32,
    /// Not to be attempted before this, unix milliseconds.
    pub due_at: i64,
    /// The last attempt's HTTP status, 0 where there was none.
    pub last_status: u16,
}

impl Target {
    /// A target without options or history.
    pub fn new(subscription: SubscriptionId, endpoint: EndpointId) -> Self {
        Self {
            subscription,
            endpoint,
            report: false,
            bulk: None,
            order: None,
            state: None,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.subscription.bits().to_be_bytes());
        out.extend_from_slice(&self.endpoint.bits().to_be_bytes());
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        put_varint(
            out,
            flag(self.report, TARGET_REPORT)
                | flag(self.state.is_some(), TARGET_STATE)
                | flag(self.bulk.is_some(), TARGET_BULK)
                | flag(self.order.is_some(), TARGET_ORDER),
        );
        if let Some(state) = self.state {
            put_varint(out, u64::from(state.attempts));
            put_varint(out, u64::from(state.hops));
            put_signed(out, state.due_at);
            put_varint(out, u64::from(state.last_status));
        }
        if let Some(bulk) = self.bulk {
            out.extend_from_slice(&bulk.to_be_bytes());
        }
        if let Some((key, sequence)) = self.order {
            out.extend_from_slice(&key.to_be_bytes());
            put_varint(out, sequence);
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Error> {
        let subscription = u128::from_be_bytes(cursor.array("subscription")?);
        let endpoint = u128::from_be_bytes(cursor.array("endpoint")?);
        let flags = cursor.varint("target flags")?;
        if flags & !KNOWN_TARGET_FLAGS != 0 {
            return Err(Error::Invalid("target flags"));
        }
        let mut target = Self::new(
            SubscriptionId::from_bits(subscription),
            EndpointId::from_bits(endpoint),
        );
        target.report = flags & TARGET_REPORT != 0;
        if flags & TARGET_STATE != 0 {
            target.state = Some(AttemptState {
                attempts: cursor.number("attempts")?,
                hops: cursor.number("hops")?,
                due_at: cursor.signed("due time")?,
                last_status: cursor.number("last status")?,
            });
        }
        if flags & TARGET_BULK != 0 {
            target.bulk = Some(u128::from_be_bytes(cursor.array("bulk id")?));
        }
        if flags & TARGET_ORDER != 0 {
            let key = u64::from_be_bytes(cursor.array("order key")?);
            target.order = Some((key, cursor.varint("order sequence")?));
        }
        Ok(target)
    }
}

impl DeliveryRecord {
    /// The delivery id of `target` (rule 4).
    pub fn delivery_id(&self, target: &Target) -> DeliveryId {
        DeliveryId::of(self.event.source(), self.event.id(), target.subscription)
    }

    /// The marks of the targets, in their order (rule 3).
    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        let seed = Mark::seed(&self.origin, self.event.source(), self.event.id());
        self.targets
            .iter()
            .map(move |target| seed.mark(target.subscription, target.bulk))
    }

    /// The record's headers: the event's attributes (CE-16).
    pub fn headers(&self) -> codec::kafka::Headers<'_> {
        codec::kafka::encode_binary(&self.event).0
    }

    /// The record's value, with `targets` in place of this record's own.
    pub fn value_for(&self, targets: &[Target]) -> Bytes {
        let data = self.event.data();
        let mut out =
            Vec::with_capacity(64 + 40 * targets.len() + data.map_or(0, |data| data.len()));
        out.push(VERSION);
        let position = self.router_position;
        put_varint(
            &mut out,
            u64::from(data.is_some()) * HAS_DATA + u64::from(position.is_some()) * HAS_POSITION,
        );
        put_bytes(&mut out, self.origin.topic.as_bytes());
        put_varint(&mut out, u64::from(self.origin.partition));
        put_signed(&mut out, self.origin.offset);
        put_varint(&mut out, u64::from(self.origin.index));
        if let Some(position) = position {
            // Close to the offset, hence short as a difference.
            put_signed(&mut out, self.origin.offset.wrapping_sub(position));
        }
        put_signed(&mut out, self.accepted_at);
        put_signed(&mut out, self.control_offset);
        put_varint(&mut out, targets.len() as u64);
        for target in targets {
            target.encode(&mut out);
        }
        if let Some(data) = data {
            out.extend_from_slice(data);
        }
        Bytes::from(out)
    }

    /// Reads a record back. The payload shares `value`'s buffer.
    ///
    /// # Errors
    /// What is missing or malformed; the bytes are then a poison record.
    pub fn decode<'h>(
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        value: &Bytes,
    ) -> Result<Self, Error> {
        let mut cursor = Cursor::new(value);
        let [version] = cursor.array("version")?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let flags = cursor.varint("flags")?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Error::Invalid("flags"));
        }
        let origin = decode_origin(&mut cursor)?;
        let router_position = if flags & HAS_POSITION == 0 {
            None
        } else {
            Some(
                origin
                    .offset
                    .wrapping_sub(cursor.signed("router position")?),
            )
        };
        let accepted_at = cursor.signed("accepted-at")?;
        let control_offset = cursor.signed("control offset")?;
        let count: usize = cursor.number("target count")?;
        if count > MAX_TARGETS {
            return Err(Error::Invalid("target count"));
        }
        let targets = (0..count)
            .map(|_| Target::decode(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let has_data = flags & HAS_DATA != 0;
        if !has_data && cursor.remaining() > 0 {
            return Err(Error::Invalid("length"));
        }
        let data = has_data.then(|| value.slice(value.len() - cursor.remaining()..));
        let event = codec::kafka::decode_binary(headers, data, &UNLIMITED)
            .map_err(|error| Error::Event(error.to_string()))?;
        Ok(Self {
            origin,
            router_position,
            accepted_at,
            control_offset,
            event,
            targets,
        })
    }
}

fn decode_origin(cursor: &mut Cursor<'_>) -> Result<Origin, Error> {
    Ok(Origin {
        topic: cursor.text("origin topic")?.into(),
        partition: cursor.number("origin partition")?,
        offset: cursor.signed("origin offset")?,
        index: cursor.number("origin index")?,
    })
}

#[cfg(test)]
mod tests;
