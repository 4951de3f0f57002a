//! Owns what a verdict does to a delivery: done, kept until it is due, or dead.
//!
//! It must never complete a place before its work is delivered or handed to what writes it
//! elsewhere (rule 6).

use std::sync::Arc;
use std::time::Duration;

use schemas::records::{DeadLetter, DeadReason, ResultVerdict};
use schemas::resources::DisabledReason;

use super::Engine;
use super::attempt::Exchange;
use super::moves::{Move, What};
use crate::dead_letter;
use crate::delivery::Transport;
use crate::delivery::classify::Verdict;
use crate::endpoints::Target;
use crate::metrics::Deferred;
use crate::owned::Tenure;
use crate::planted::{self, Bug};
use crate::schedule::{self, Attempted, next_delay, tier_for};
use crate::work::Delivery;

impl<T: Transport> Engine<T> {
    pub(super) fn judge(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        target: &Arc<Target>,
        (exchange, verdict): (&Exchange, Verdict),
    ) {
        delivery.state.last_status = exchange.status();
        let reason = verdict.reason().map_or("", |reason| reason.as_str());
        let last = || dead_letter::last_attempt(&exchange.answer, reason, exchange.started_at);
        match verdict {
            Verdict::Delivered => {
                let accepted_at = delivery.loaded.record.accepted_at;
                let age = self.wall().saturating_sub(accepted_at);
                self.parts.metrics.event_age_seconds.observe(seconds(age));
                if delivery.target.report {
                    let chunk = exchange.chunk.as_ref();
                    self.report(tenure, &delivery, (ResultVerdict::Delivered, None), chunk);
                } else {
                    self.complete_in_order(tenure, &delivery);
                }
            }
            Verdict::Retry {
                retry_after,
                costs_attempt,
                ..
            } => {
                let retry_after = retry_after.filter(|_| !planted::is(Bug::RetryAfterIgnored));
                delivery.state.attempts += u32::from(costs_attempt);
                if self.stays_disabled(target) {
                    let reason = DeadReason::EndpointDisabled;
                    return self.bury(tenure, delivery, reason, Some(last()));
                }
                if self.has_failed_too_long(tenure, target) {
                    self.give_up(tenure, &delivery, target, DisabledReason::Failing);
                    let reason = DeadReason::EndpointDisabled;
                    return self.bury(tenure, delivery, reason, Some(last()));
                }
                if let Some(wait) = retry_after {
                    self.hold(tenure, target, wait);
                }
                match self.retry_due(&delivery, target, retry_after) {
                    Ok(due_at) => self.retry(tenure, delivery, target, due_at),
                    Err(dead) => self.bury(tenure, delivery, dead, Some(last())),
                }
            }
            Verdict::Rejected { reason } => {
                self.refused_for_good(tenure, delivery, (exchange, reason));
            }
            Verdict::EndpointGone => {
                self.give_up(tenure, &delivery, target, DisabledReason::Gone);
                self.bury(tenure, delivery, DeadReason::EndpointGone, Some(last()));
            }
        }
    }

    pub(super) fn complete(&mut self, tenure: Tenure, delivery: &Delivery) {
        let now = self.now();
        if let Some(owned) = self.tenant_of(tenure)
            && let Some(source) = owned.sources.get_mut(delivery.source)
        {
            source.ledger.complete(delivery.place);
            source.uncommitted.completed(now);
            source.dirty = true;
        }
    }

    pub(super) fn hold(&mut self, tenure: Tenure, target: &Target, wait: Duration) {
        let now = self.now();
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        if let Some(lane) = owned.lanes.get_mut(&target.quota) {
            lane.hold(now + wait);
            // A successor must hold it too (rule 5).
            if lane.is_held_long(now) {
                owned.handover.mark(&target.quota, true);
            }
        }
    }

    pub(super) fn retry_due(
        &self,
        delivery: &Delivery,
        target: &Target,
        retry_after: Option<Duration>,
    ) -> Result<i64, DeadReason> {
        let attempted = Attempted {
            now_ms: self.wall(),
            // Its age does not count while our network is down.
            accepted_at_ms: self.wall().saturating_sub(self.age(delivery)),
            attempts_made: delivery.state.attempts,
            retry_after,
            jitter: self.parts.entropy.unit(),
        };
        let has_next = next_delay(&target.schedule, delivery.state.attempts, 0.0).is_some();
        let why = if has_next {
            DeadReason::MaxAge
        } else {
            DeadReason::AttemptsExhausted
        };
        schedule::due_at(&target.schedule, &attempted).ok_or(why)
    }

    /// Keeps a delivery until its due time: a few seconds in memory, longer in a delay topic.
    pub(super) fn retry(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        target: &Arc<Target>,
        due_at: i64,
    ) {
        delivery.state.due_at = due_at;
        let now = self.now();
        let remaining = self
            .parts
            .clock
            .instant_at(due_at)
            .saturating_duration_since(now);
        let serving = self
            .tenant_of(tenure)
            .is_some_and(|owned| owned.is_serving());
        if tier_for(remaining, remaining).is_some() || !serving {
            return self.defer(tenure, delivery, due_at, Deferred::Retry);
        }
        let concurrency = self.concurrency(target);
        let (horizon, lane_bytes) = (
            self.parts.options.horizon,
            self.parts.options.lane_memory_bytes,
        );
        if let Some(owned) = self.tenant_of(tenure) {
            let lane = owned.lane(&target.quota, now, concurrency);
            lane.configure(&target.limits, concurrency, now);
            // What waits takes the lane's memory too: one that fails fast fills no other's (rule 8).
            if lane.is_full(now, horizon, lane_bytes) {
                let reserved = lane.reserve(now, now + remaining, delivery.source);
                return self.postpone(tenure, delivery, reserved, Deferred::Full);
            }
            if planted::is(Bug::RetriedTwice) {
                lane.push_waiting(now + remaining, delivery.clone());
            }
            lane.push_waiting(now + remaining, delivery);
        }
        self.enlist(tenure, target.quota.clone());
    }

    /// Ends a delivery as a dead letter.
    pub(super) fn bury(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        reason: DeadReason,
        last: Option<schemas::records::LastAttempt>,
    ) {
        for other in std::mem::take(&mut delivery.company) {
            self.bury(tenure, other, reason, last.clone());
        }
        let letter = dead_letter::of_delivery(&delivery, reason, self.wall(), last);
        self.bury_as(tenure, delivery, letter);
    }

    /// The same of one that was never sent, with words on why.
    pub(super) fn bury_saying(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        reason: DeadReason,
        words: String,
    ) {
        let mut letter = dead_letter::of_delivery(&delivery, reason, self.wall(), None);
        letter.detail = Some(words);
        self.bury_as(tenure, delivery, letter);
    }

    fn bury_as(&mut self, tenure: Tenure, delivery: Delivery, letter: DeadLetter) {
        let (source, place) = (delivery.source, delivery.place);
        let order = self.step_dead(tenure, &delivery);
        self.push_move(Move {
            tenure,
            source,
            place,
            order,
            what: What::Dead {
                letter: Box::new(letter),
                delivery: Some(delivery),
                poison: None,
            },
        });
    }

    pub(super) fn concurrency(&self, target: &Target) -> u32 {
        target
            .concurrency
            .unwrap_or(self.parts.options.endpoint_concurrency)
    }
}

fn seconds(millis: i64) -> f64 {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}
