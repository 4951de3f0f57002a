//! Owns the way of several deliveries through one request: gathered at their lane's turn, judged
//! one by one, halved where the endpoint rejects them together.
//!
//! It must never send an item again that the endpoint has taken. The surprise: while a request
//! waits to become full, others of its lane go.

use std::sync::Arc;

use schemas::records::DeadReason;
use schemas::resources::Quota;
use tokio::time::Instant;

use super::Engine;
use super::attempt::Exchange;
use crate::batch::{self, Said};
use crate::dead_letter;
use crate::delivery::Transport;
use crate::delivery::classify::Verdict;
use crate::endpoints::Target;
use crate::owned::Tenure;
use crate::planted::{self, Bug};
use crate::work::Delivery;

impl<T: Transport> Engine<T> {
    /// Lets deliveries join the next one of a lane, where its endpoint takes several at once. Says
    /// until when it waits for more.
    pub(super) fn gather_unit(
        &mut self,
        tenure: Tenure,
        quota: &Quota,
        now: Instant,
    ) -> Option<Instant> {
        let endpoints = &self.parts.endpoints;
        let owned = self.owned.get_mut(&tenure.placement);
        let owned = owned.filter(|owned| owned.tenure == tenure)?;
        let lane = owned.lanes.get_mut(quota)?;
        lane.gather(|endpoint| endpoints.get(endpoint)?.batch, now)
    }

    /// Ends what is too old to be attempted in a request of several, unless all of it is.
    pub(super) fn without_old(
        &mut self,
        tenure: Tenure,
        unit: Delivery,
        target: &Target,
    ) -> Delivery {
        let max_age = runtime::clock::millis(target.schedule.max_age);
        let is_old = |item: &Delivery| self.age(item) > max_age;
        if unit.company.is_empty() || !unit.items().any(is_old) || unit.items().all(is_old) {
            return unit;
        }
        let is_piece = unit.is_piece;
        let (old, young): (Vec<_>, Vec<_>) = unit.into_items().into_iter().partition(is_old);
        let mut young = young.into_iter();
        let first = young.next();
        for item in old {
            self.refuse(tenure, item);
        }
        let mut unit = first.expect("invariant: not all of them are too old");
        unit.company.extend(young);
        unit.is_piece = is_piece;
        unit
    }

    /// What an answer says of each delivery of a request.
    pub(super) fn judge_all(
        &mut self,
        tenure: Tenure,
        unit: Delivery,
        target: &Arc<Target>,
        (exchange, said): (&Exchange, Said),
    ) {
        match said {
            Said::Whole(Verdict::Rejected { reason })
                if !unit.company.is_empty() && !planted::is(Bug::HalvesNothing) =>
            {
                let Some(halves) = batch::halves(unit) else {
                    return;
                };
                tracing::debug!(endpoint = %target.id, reason = reason.as_str(), "batch is halved");
                let now = self.now();
                self.parts.metrics.batches_halved.inc();
                for half in halves {
                    self.queue(tenure, half, target, now);
                }
            }
            Said::Whole(verdict @ Verdict::Retry { .. }) if !unit.company.is_empty() => {
                self.retry_together(tenure, unit, target, (exchange, verdict));
            }
            Said::Whole(verdict) => {
                for item in unit.into_items() {
                    self.judge(tenure, item, target, (exchange, verdict));
                }
            }
            Said::Items(verdicts) => {
                for (item, verdict) in unit.into_items().into_iter().zip(verdicts) {
                    self.judge(tenure, item, target, (exchange, verdict));
                }
            }
        }
    }

    /// What failed together is due together, so that it is the same request again.
    fn retry_together(
        &mut self,
        tenure: Tenure,
        unit: Delivery,
        target: &Arc<Target>,
        (exchange, verdict): (&Exchange, Verdict),
    ) {
        let Verdict::Retry {
            reason,
            retry_after,
            costs_attempt,
        } = verdict
        else {
            return;
        };
        if let Some(wait) = retry_after {
            self.hold(tenure, target, wait);
        }
        let mut together: Option<i64> = None;
        for mut item in unit.into_items() {
            item.state.attempts += u32::from(costs_attempt);
            item.state.last_status = exchange.status();
            match self.retry_due(&item, target, retry_after) {
                Ok(due_at) => {
                    let due_at = *together.get_or_insert(due_at);
                    self.retry(tenure, item, target, due_at);
                }
                Err(dead) => self.bury_after(tenure, item, dead, (exchange, reason.as_str())),
            }
        }
    }

    pub(super) fn bury_after(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        dead: DeadReason,
        (exchange, reason): (&Exchange, &str),
    ) {
        let last = dead_letter::last_attempt(&exchange.answer, reason, exchange.started_at);
        self.bury(tenure, delivery, dead, Some(last));
    }
}
