//! Owns the starting and the ending of attempts: lanes in turn, and whom an answer is told.
//!
//! It must never start one without a lease (rule 5). The surprise: what is looked up of an endpoint
//! is looked up at the attempt, so that a rotation or a deletion counts at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::resources::Quota;
use tokio::time::Instant;

use super::Engine;
use super::attempt::{Attempt, Finished};
use super::health::{Counted, has_room};
use super::tokens::meant;
use crate::batch::{self, Said};
use crate::delivery::Transport;
use crate::delivery::classify::{Reason, classify};
use crate::endpoints::Target;
use crate::lane::{Pace, Turn};
use crate::owned::Tenure;
use crate::uncommitted::WAIT_MAX;
use crate::work::Delivery;

/// So many lanes that found no room are looked at again in each round.
const PARKED_AT_ONCE: usize = 8;

/// What is charged to a limit leaves within this, or goes back to its lane: less than what a window
/// of a second is kept longer.
const LEAVES_WITHIN: Duration = Duration::from_millis(8);

impl<T: Transport> Engine<T> {
    /// Puts lanes whose time has come back into the ring.
    pub(super) fn wake_lanes(&mut self, now: Instant) {
        while let Some((tenure, quota)) = self.timers.pop_lane(now) {
            self.enlist(tenure, quota);
        }
    }

    /// Puts a lane into the ring, once.
    pub(super) fn enlist(&mut self, tenure: Tenure, quota: Quota) {
        let lane = self
            .tenant_of(tenure)
            .and_then(|owned| owned.lanes.get_mut(&quota));
        if let Some(lane) = lane
            && !lane.in_ring
        {
            lane.in_ring = true;
            self.ring.push_back((tenure, quota));
        }
    }

    /// Starts attempts, one a lane and round, while there is room and the lease holds.
    pub(super) fn start_attempts(&mut self) {
        // Those that are parked, as long as some of them find room.
        loop {
            let parked = self.parked.len();
            let again = parked.min(PARKED_AT_ONCE);
            self.ring.extend(self.parked.drain(..again));
            self.choose_attempts();
            if !self.may_send() || self.parked.is_empty() || self.parked.len() >= parked {
                break;
            }
        }
    }

    /// Whether another attempt may be handed over, and would be started at once.
    fn may_send(&self) -> bool {
        self.sending.in_flight() < self.parts.options.max_in_flight && self.sending.has_room()
    }

    fn choose_attempts(&mut self) {
        while self.may_send() {
            let Some((tenure, quota)) = self.ring.pop_front() else {
                return;
            };
            // The clock is read for each attempt: this process may have been stopped in between.
            let now = self.now();
            if !self.may_start_any(now) {
                return self.ring.push_front((tenure, quota));
            }
            self.take_turn(tenure, quota, now);
        }
    }

    /// Does what a lane says in its turn, where it may have one.
    fn take_turn(&mut self, tenure: Tenure, quota: Quota, now: Instant) {
        let max = self.parts.options.max_in_flight;
        let free = max - self.sending.in_flight();
        let slow = self.slow_in_flight;
        let Some(owned) = self.tenant_of(tenure).filter(|owned| owned.is_serving()) else {
            return;
        };
        if owned
            .uncommitted_since()
            .is_some_and(|since| now > since + WAIT_MAX)
        {
            // What is in flight goes on; the next acknowledged commit brings the lane back.
            owned.awaits_commit = true;
            self.awaiting_commit.push((tenure, quota));
            self.parts.metrics.commits.waits.inc();
            return;
        }
        let gathers = self.gather_unit(tenure, &quota, now);
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let Some(lane) = owned.lanes.get_mut(&quota) else {
            return;
        };
        // No lane has more attempts under way than there is room left.
        let (pace, in_flight) = (lane.pace(now), lane.in_flight());
        if in_flight >= free || !has_room(pace, in_flight, slow, max) {
            self.parked.push_back((tenure, quota));
            return;
        }
        let is_limited = lane.is_limited();
        let turn = gathers.map_or_else(|| lane.turn(now), Turn::Wait);
        match turn {
            Turn::Attempt(delivery) => {
                owned.in_flight += 1;
                if lane.wants_saving() {
                    owned.handover.mark(&quota, true);
                }
                self.ring.push_back((tenure, quota));
                let counted = Counted {
                    at: now,
                    is_slow: pace != Pace::Quick,
                    is_probe: self.outage.started(),
                    leaves_by: is_limited.then(|| now + LEAVES_WITHIN),
                };
                self.start_attempt(tenure, delivery, counted);
            }
            Turn::Later => self.ring.push_back((tenure, quota)),
            Turn::Wait(at) => {
                lane.in_ring = false;
                // A millisecond is what timers can tell apart.
                let at = at.max(now + Duration::from_millis(1));
                self.timers.wake_lane(at, tenure, quota);
            }
            Turn::Save => {
                lane.in_ring = false;
                owned.handover.mark(&quota, true);
            }
            Turn::Idle => lane.in_ring = false,
        }
    }

    fn start_attempt(&mut self, tenure: Tenure, delivery: Box<Delivery>, counted: Counted) {
        // Looked up at the attempt, so that a rotation or a deletion counts at once.
        let Some(target) = self.parts.endpoints.get(delivery.target.endpoint).cloned() else {
            return self.do_not_start(tenure, *delivery, None, counted);
        };
        let delivery = Box::new(self.without_old(tenure, *delivery, &target));
        let too_old = self.age(&delivery) > runtime::clock::millis(target.schedule.max_age);
        if too_old || !self.may_attempt_this(tenure, &target, &delivery) {
            return self.do_not_start(tenure, *delivery, Some(&target), counted);
        }
        let requests = self.parts.endpoints.requests(&delivery.target);
        let timeout = target.timeout.unwrap_or(self.parts.options.attempt_timeout);
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let ended = Arc::clone(&owned.ended);
        self.parts.metrics.state.in_flight.inc();
        self.slow_in_flight += usize::from(counted.is_slow);
        let key = target.id.bits();
        let attempt = Attempt {
            tenure,
            transforms: self.transforms(&delivery),
            delivery: Some(delivery),
            target,
            counted,
            requests,
            timeout,
            entropy: (self.parts.entropy.u64(), self.parts.entropy.u64()),
            transport: Arc::clone(&self.parts.transport),
            clock: self.parts.clock.clone(),
            lease: self.lease.clone(),
            ended,
            late_starts: self.parts.metrics.late_starts.clone(),
        };
        self.sending.push(key, attempt.make().boxed());
    }

    /// Takes back a delivery whose turn came and that may not be attempted.
    fn do_not_start(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        target: Option<&Arc<Target>>,
        counted: Counted,
    ) {
        self.take_turn_back(tenure, target.map(|target| &target.quota), counted);
        self.refuse(tenure, delivery);
    }

    /// Takes back a turn in which nothing was sent; says whether its partition is still owned.
    pub(super) fn take_turn_back(
        &mut self,
        tenure: Tenure,
        quota: Option<&Quota>,
        counted: Counted,
    ) -> bool {
        let now = self.now();
        self.outage.not_started(counted.is_probe);
        let Some(owned) = self.tenant_of(tenure) else {
            return false;
        };
        owned.in_flight -= 1;
        if let Some(lane) = quota.and_then(|quota| owned.lanes.get_mut(quota)) {
            lane.not_started(counted.at, now);
        }
        true
    }

    pub(super) fn on_finished_all(&mut self, first: Vec<Finished>) {
        let mut batch = Some(first);
        // What else has ended already is taken in the same round.
        while let Some(finished) = batch {
            for finished in finished {
                self.on_finished(finished);
            }
            batch = self.sending.try_next();
        }
    }

    fn on_finished(&mut self, finished: Finished) {
        let Finished {
            tenure,
            delivery,
            left,
            target,
            exchange,
            counted,
        } = finished;
        self.slow_in_flight -= usize::from(counted.is_slow);
        self.parts.metrics.state.in_flight.dec();
        self.throughput.ended(self.now());
        self.on_left(tenure, &target, left);
        let Some(delivery) = delivery else {
            return self.nothing_left(tenure, &target, counted);
        };
        let Some(exchange) = exchange else {
            return self.not_made(tenure, delivery.untransformed(), &target, counted);
        };
        let verdict = meant(exchange.token, classify(&exchange.answer, self.wall()));
        if verdict.reason() == Some(Reason::Unauthorized) {
            target.sending.unauthorized(exchange.started_at);
        }
        let excused = self.learn(&target, &exchange.answer, counted.is_probe);
        if exchange.token.is_none() {
            self.observe(tenure, &target, &exchange.answer);
        }
        let health = Self::health(&verdict, excused);
        let ended = (exchange.took, health, delivery.count());
        let is_owned = self.tell_lane(tenure, &target, counted, ended);
        self.tell_ending(&target, &exchange.answer);
        self.probed(tenure, &target, &delivery, health);
        let said = match (exchange.token, &exchange.chunk) {
            (None, None) => batch::said(
                &delivery,
                target.grammar.as_deref(),
                &exchange.answer,
                verdict,
            ),
            (None, Some(chunk)) => Said::Whole(chunk.verdict(verdict)),
            (Some(_), _) => Said::Whole(verdict),
        };
        self.record_attempts(&delivery, &target, &exchange, &said);
        if !is_owned {
            return;
        }
        let delivery = delivery.untransformed();
        if excused || exchange.token == Some(true) {
            // Not the endpoint's fault, nor the delivery's: it stands where it stood.
            self.queue(tenure, delivery, &target, self.now());
        } else {
            self.judge_all(tenure, delivery, &target, (&exchange, said));
        }
        self.enlist(tenure, target.quota.clone());
    }

    /// Takes back a delivery whose attempt was not made after all.
    fn not_made(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        target: &Arc<Target>,
        counted: Counted,
    ) {
        if !self.take_turn_back(tenure, Some(&target.quota), counted) {
            return;
        }
        let now = self.now();
        self.queue(tenure, delivery, target, now);
        self.enlist(tenure, target.quota.clone());
    }
}
