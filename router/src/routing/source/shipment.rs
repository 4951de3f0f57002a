//! Owns what one turn makes: records to write, whom they are for, and when a turn has no room for
//! more.
//!
//! It must never grow beyond its bounds by more than the record that reaches them: they are how long
//! the other source partitions wait.

use std::time::Duration;

use runtime::log::Record;
use schemas::ids::SubscriptionId;
use schemas::records::DeadReason;

use super::super::metrics::{Class, EventResult, RouterMetrics, label_of};

/// The most that is made before other source partitions have their turn: a few milliseconds. Each
/// partition of `deliveries` has its part of it in one batch, and what a batch costs, here and in
/// the broker, is what a backlog pays for.
const SHIPMENT_EVENTS: usize = 2_048;
const SHIPMENT_TARGETS: usize = 8_000;
const SHIPMENT_BYTES: usize = 1 << 20;
/// The most that is read in a turn, whether anybody wants it or not.
const TURN_EVENTS: usize = 4_096;
/// The most targets of a large fan-out that are put in order in a turn.
const TURN_ORDERED: usize = 16_000;
/// What a record was for, so that its refusal names it.
#[derive(Debug)]
pub(super) enum Tag {
    /// Of an item of the record at this offset.
    Targets((i64, u32), Vec<SubscriptionId>),
    /// A dead letter with the bytes of an item of the record at this offset.
    Bytes(i64, u32),
    /// A dead letter that is a reference; there is nothing smaller.
    Reference,
}

/// What is handed to the producer in one call, and what its acknowledgement means.
#[derive(Debug, Default)]
pub(in crate::routing) struct Load {
    /// In careful mode one for each record, else none.
    pub(super) tags: Vec<Tag>,
    /// When each event that is whole with this load was accepted.
    pub(super) accepted_at: Vec<i64>,
    pub(super) dead: Vec<DeadReason>,
    /// Of past events alone: for whom the one at this offset is.
    pub(super) past: Vec<(i64, SubscriptionId)>,
    pub(super) undecodable: u64,
    pub(super) deliveries: u64,
    pub(super) targets: usize,
    pub(super) bytes: usize,
    pub(super) through: Option<i64>,
}

impl Load {
    /// Targets in the records.
    pub(in crate::routing) fn targets(&self) -> usize {
        self.targets
    }

    #[cfg(test)]
    pub(in crate::routing) fn of_past(past: &[(i64, SubscriptionId)]) -> Self {
        Self {
            past: past.to_vec(),
            ..Self::default()
        }
    }

    /// For whom past events are, with their offsets.
    pub(in crate::routing) fn past(&self) -> &[(i64, SubscriptionId)] {
        &self.past
    }

    /// Whether there are dead letters in the records.
    pub(in crate::routing) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Counts what was acknowledged of past events.
    pub(in crate::routing) fn count_past(&self, metrics: &RouterMetrics) {
        metrics.replay.targets.inc_by(self.targets as u64);
        metrics.records.inc_by(self.deliveries);
        for reason in &self.dead {
            let reason = label_of(*reason);
            metrics.dead_letters.get(reason).inc();
        }
    }

    /// Bytes of the records.
    pub(in crate::routing) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts what was acknowledged.
    pub(in crate::routing) fn count(&self, metrics: &RouterMetrics, class: Class, now: i64) {
        metrics
            .events
            .get(EventResult::Routed)
            .inc_by(self.accepted_at.len() as u64);
        metrics
            .events
            .get(EventResult::Undecodable)
            .inc_by(self.undecodable);
        metrics.records.inc_by(self.deliveries);
        metrics.targets.inc_by(self.targets as u64);
        for reason in &self.dead {
            metrics.dead_letters.get(label_of(*reason)).inc();
        }
        for accepted in &self.accepted_at {
            let age = u64::try_from(now.saturating_sub(*accepted)).unwrap_or(0);
            metrics
                .event_age
                .get(class)
                .observe(Duration::from_millis(age).as_secs_f64());
        }
    }
}

/// Records to write, with their [`Load`].
#[derive(Debug, Default)]
pub(in crate::routing) struct Shipment {
    pub(in crate::routing) records: Vec<Record>,
    pub(in crate::routing) load: Load,
    /// Source records begun for it, and bytes of them.
    pub(super) begun: usize,
    pub(super) begun_bytes: usize,
    /// Targets of large fan-outs put in order.
    pub(super) ordered: usize,
}

impl Shipment {
    /// What the producer had no room for.
    pub(in crate::routing) fn again(records: Vec<Record>, load: Load) -> Self {
        Self {
            records,
            load,
            ..Self::default()
        }
    }

    /// Whether a turn has no room for more: what bounds how long the others wait.
    pub(super) fn has_ended(&self) -> bool {
        self.load.accepted_at.len() >= SHIPMENT_EVENTS
            || self.load.targets >= SHIPMENT_TARGETS
            || self.load.bytes >= SHIPMENT_BYTES
            || self.begun >= TURN_EVENTS
            || self.begun_bytes >= SHIPMENT_BYTES
            || self.ordered >= TURN_ORDERED
    }
}
