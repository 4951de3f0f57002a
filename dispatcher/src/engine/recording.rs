//! Owns the records of attempts: one for each delivery of a request.
//!
//! Best effort: it must never hold an offset back. An attempt's duration is counted once a request,
//! its outcome once a delivery.

use bytes::Bytes;
use runtime::log::{Headers, Record};
use schemas::records::{AttemptRecord, AttemptVerdict};

use super::Engine;
use super::attempt::Exchange;
use crate::batch::{self, Said};
use crate::delivery::Transport;
use crate::delivery::classify::Verdict;
use crate::endpoints::Target;
use crate::metrics::Outcome;
use crate::work::Delivery;

/// Room for an attempt's record without errors.
const RECORD_BYTES: usize = 512;

impl<T: Transport> Engine<T> {
    /// Records what an attempt meant for each of its deliveries.
    pub(super) fn record_attempts(
        &mut self,
        unit: &Delivery,
        target: &Target,
        exchange: &Exchange,
        said: &Said,
    ) {
        let took = exchange.took.as_secs_f64();
        self.parts.metrics.attempt_seconds.observe(took);
        for (at, item) in unit.items().enumerate() {
            let verdict = match said {
                Said::Whole(verdict) => Some(*verdict),
                Said::Items(verdicts) => verdicts.get(at).copied(),
            };
            if let Some(verdict) = verdict {
                self.record_attempt(item, target, exchange, verdict);
            }
        }
    }

    fn record_attempt(
        &mut self,
        delivery: &Delivery,
        target: &Target,
        exchange: &Exchange,
        verdict: Verdict,
    ) {
        let (outcome, word) = match verdict {
            Verdict::Delivered => (Outcome::Delivered, AttemptVerdict::Delivered),
            Verdict::Retry { .. } => (Outcome::Retry, AttemptVerdict::Retry),
            Verdict::Rejected { .. } => (Outcome::Rejected, AttemptVerdict::Rejected),
            Verdict::EndpointGone => (Outcome::Gone, AttemptVerdict::EndpointGone),
        };
        self.parts.metrics.attempts.get(outcome).inc();
        let event = &delivery.loaded.record.event;
        let response = exchange.answer.as_ref();
        let record = AttemptRecord {
            version: 1,
            delivery: if exchange.is_batch {
                batch::own_id(delivery)
            } else {
                exchange.id
            },
            tenant: target.tenant.clone(),
            endpoint: target.id,
            subscription: delivery.target.subscription,
            event_id: event.id().to_owned(),
            event_type: event.ty().to_owned(),
            instance: self.parts.options.instance.clone(),
            attempt: delivery.state.attempts + 1,
            started_at: exchange.started_at,
            duration_us: u64::try_from(exchange.took.as_micros()).unwrap_or(u64::MAX),
            verdict: word,
            reason: verdict.reason().map(|reason| reason.as_str().to_owned()),
            status: response.ok().map(|response| response.status),
            error: response.err().map(ToString::to_string),
            request_bytes: exchange.request_bytes as u64,
            response_bytes: response.map_or(0, |response| response.body_bytes_read),
        };
        self.records.push(Record {
            topic: self.parts.topics.attempts.clone(),
            partition: None,
            key: Some(Bytes::from(target.id.to_string())),
            value: encoded(&record),
            headers: Headers::default(),
        });
    }
}

fn encoded(record: &AttemptRecord) -> Option<Bytes> {
    let mut value = Vec::with_capacity(RECORD_BYTES);
    serde_json::to_writer(&mut value, record).ok()?;
    Some(value.into())
}
