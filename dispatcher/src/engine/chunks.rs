//! Owns how chunks end: the report that names their members, and what partners say of their API's
//! end.
//!
//! It must never halve a chunk: whoever made one that was refused as a whole makes the halves. The
//! surprise: that one is no dead letter, and its place completes with its report all the same.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use schemas::ids::EndpointId;
use schemas::records::{DeadReason, ResultRecord, ResultVerdict};
use tokio::time::Instant;
use tracing::warn;

use super::Engine;
use super::attempt::Exchange;
use super::moves::{Move, What};
use crate::chunk::ChunkSaid;
use crate::dead_letter;
use crate::delivery::classify::Reason;
use crate::delivery::{Answer, Transport};
use crate::endpoints::Target;
use crate::owned::Tenure;
use crate::work::Delivery;

/// An endpoint's end is told of once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);
/// So many endpoints are remembered.
const TOLD_MAX: usize = 10_000;

/// Which endpoints were told of of late.
#[derive(Debug, Default)]
pub(super) struct Endings(HashMap<EndpointId, Instant>);

impl Endings {
    /// Whether it is time to tell of this endpoint.
    fn is_due(&mut self, endpoint: EndpointId, now: Instant) -> bool {
        if self
            .0
            .get(&endpoint)
            .is_some_and(|told| now < *told + TELL_AGAIN)
        {
            return false;
        }
        if self.0.len() >= TOLD_MAX {
            self.0.retain(|_, told| now < *told + TELL_AGAIN);
        }
        let has_room = self.0.len() < TOLD_MAX;
        if has_room {
            self.0.insert(endpoint, now);
        }
        has_room
    }
}

impl<T: Transport> Engine<T> {
    /// Completes a delivery that asked for a report: its place completes with the report on
    /// `results`, in one transaction (rule 6). Of a chunk it says what became of its members.
    pub(super) fn report(
        &mut self,
        tenure: Tenure,
        delivery: &Delivery,
        (verdict, words): (ResultVerdict, Option<String>),
        chunk: Option<&ChunkSaid>,
    ) {
        let report = self.result(delivery, (verdict, words), chunk);
        self.push_report(tenure, delivery, report);
    }

    pub(super) fn result(
        &self,
        delivery: &Delivery,
        (verdict, words): (ResultVerdict, Option<String>),
        chunk: Option<&ChunkSaid>,
    ) -> ResultRecord {
        let record = &delivery.loaded.record;
        ResultRecord {
            version: 1,
            bulk: delivery.target.bulk.unwrap_or(0),
            delivery: record.delivery_id(&delivery.target),
            endpoint: delivery.target.endpoint,
            subscription: delivery.target.subscription,
            verdict,
            reason: None,
            words,
            at: self.wall(),
            dropped: false,
            count: chunk.map(|chunk| chunk.count),
            items: chunk.map(|chunk| chunk.items.clone()).unwrap_or_default(),
            captured: chunk
                .map(|chunk| chunk.captured.clone())
                .unwrap_or_default(),
        }
    }

    pub(super) fn push_report(
        &mut self,
        tenure: Tenure,
        delivery: &Delivery,
        report: ResultRecord,
    ) {
        self.push_move(Move {
            tenure,
            source: delivery.source,
            place: delivery.place,
            order: None,
            what: What::Report(Box::new(report)),
        });
    }

    /// Ends a delivery that was refused for good: a chunk of several is given back to whoever made
    /// it, everything else is a dead letter.
    pub(super) fn refused_for_good(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        (exchange, reason): (&Exchange, Reason),
    ) {
        let chunk = exchange.chunk.as_ref();
        let can_be_halved = chunk.is_some_and(|chunk| chunk.count > 1);
        if can_be_halved && delivery.target.report {
            self.parts.metrics.batches_halved.inc();
            let (answer, at) = (&exchange.answer, exchange.started_at);
            let words = dead_letter::last_attempt(answer, reason.as_str(), at).words();
            return self.report(tenure, &delivery, (ResultVerdict::Rejected, words), chunk);
        }
        let dead = if reason == Reason::Template {
            DeadReason::Template
        } else {
            DeadReason::Rejected
        };
        self.bury_after(tenure, delivery, dead, (exchange, reason.as_str()));
    }

    /// Tells of an endpoint that says that what it serves is deprecated or will end.
    pub(super) fn tell_ending(&mut self, target: &Arc<Target>, answer: &Answer) {
        let Some(ending) = answer
            .as_ref()
            .ok()
            .and_then(|answer| answer.ending.as_ref())
        else {
            return;
        };
        self.parts.metrics.health.ending_answers.inc();
        let now = self.now();
        if self.endings.is_due(target.id, now) {
            let said = |text: &Option<Box<str>>| text.as_deref().unwrap_or("").to_owned();
            warn!(
                endpoint = %target.id,
                deprecation = said(&ending.deprecation),
                sunset = said(&ending.sunset),
                "endpoint says that what it serves will end"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_told_of_once_an_hour_and_memory_is_bounded() {
        let mut endings = Endings::default();
        let (one, other) = (EndpointId::from_bits(1), EndpointId::from_bits(2));
        let start = Instant::now();
        assert!(endings.is_due(one, start));
        assert!(!endings.is_due(one, start + TELL_AGAIN / 2));
        assert!(endings.is_due(other, start + TELL_AGAIN / 2));
        assert!(endings.is_due(one, start + TELL_AGAIN));
        for number in 0..2 * TOLD_MAX as u128 {
            endings.is_due(EndpointId::from_bits(number), start + TELL_AGAIN);
        }
        assert_eq!(endings.0.len(), TOLD_MAX);
        assert!(endings.is_due(one, start + TELL_AGAIN * 3));
    }
}
