//! Owns what a dead letter is sent again as: its event, for its one target, as a new delivery with
//! the same id.
//!
//! It must never invent a delivery: where a letter only refers to its origin, what is found there
//! has to have the letter's delivery id. The surprise: the record is accepted now, so that neither
//! schedule nor maximum age end at once what waited for days to be sent again.

use std::time::Duration;

use runtime::log::SharedLog;
use runtime::log::ranges::RangeReader;
use schemas::codec;
use schemas::event::{Event, Limits};
use schemas::ids::{DeliveryId, EndpointId, SubscriptionId};
use schemas::records::{DeadLetter, DeliveryRecord, Origin, Span, Target};
use tracing::warn;

use crate::dead::Letter;

/// How long an origin is looked for.
const ORIGIN_WAIT: Duration = Duration::from_secs(10);

/// What it had been when it came in is not measured again.
const UNLIMITED: Limits = Limits {
    max_attributes: usize::MAX,
    max_attribute_bytes: usize::MAX,
    max_data_bytes: usize::MAX,
};

/// Whom a letter was for, where it says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addressee {
    pub(super) endpoint: EndpointId,
    pub(super) subscription: SubscriptionId,
    pub(super) delivery: DeliveryId,
}

/// Whom a letter was for; `None` for one that no redrive can send.
pub(super) fn addressee(letter: &DeadLetter) -> Option<Addressee> {
    Some(Addressee {
        endpoint: letter.endpoint?,
        subscription: letter.subscription?,
        delivery: letter.delivery?,
    })
}

/// The event of a letter, from the letter itself or from the origin that it refers to; `None` where
/// neither has it.
pub(super) async fn content(
    log: &SharedLog,
    letter: Letter,
    to: Addressee,
) -> Option<(Event, Origin)> {
    let (topic, partition, offset, index) = &letter.letter.origin;
    let origin = Origin {
        topic: topic.as_str().into(),
        partition: *partition,
        offset: *offset,
        index: *index,
    };
    if let Some(record) = letter.delivery {
        let target = record.targets.first()?;
        let is_own = record.delivery_id(target) == to.delivery;
        return is_own.then_some((record.event, record.origin));
    }
    let event = at_origin(log, &origin, to).await?;
    Some((event, origin))
}

async fn at_origin(log: &SharedLog, origin: &Origin, to: Addressee) -> Option<Event> {
    let topic = runtime::log::TopicName::new(origin.topic.as_ref());
    let span = Span {
        partition: origin.partition,
        next: origin.offset,
        end: origin.offset.saturating_add(1),
    };
    let reading = async {
        RangeReader::open(log, "control-origin", &topic, vec![span])
            .await?
            .next()
            .await
    };
    let found = match tokio::time::timeout(ORIGIN_WAIT, reading).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            warn!(%error, "origin of a dead letter cannot be read");
            None
        }
        Err(_) => {
            warn!(%topic, offset = origin.offset, "origin of a dead letter was not read in time");
            None
        }
    };
    let (_, record) = found?;
    let event = codec::kafka::decode(record.headers.iter(), record.value, &UNLIMITED).ok()?;
    let is_own = DeliveryId::of(event.source(), event.id(), to.subscription) == to.delivery;
    is_own.then_some(event)
}

/// What a letter is sent again as.
pub(super) struct Resent {
    pub(super) event: Event,
    pub(super) origin: Origin,
    pub(super) to: Addressee,
}

impl Resent {
    /// The record for `deliveries`, of the redrive `bulk`, accepted `now`, for dispatchers that
    /// have applied `control` up to `applied`.
    pub(super) fn record(self, bulk: u128, now: i64, applied: i64) -> DeliveryRecord {
        // Without an order: what it was to be before has long gone by.
        let target = Target {
            report: true,
            bulk: Some(bulk),
            ..Target::new(self.to.subscription, self.to.endpoint)
        };
        DeliveryRecord {
            origin: self.origin,
            router_position: None,
            accepted_at: now,
            control_offset: applied,
            event: self.event,
            targets: vec![target],
        }
    }
}
