//! Owns the making of attempts: lanes in turn, the lease, the request, and what its answer means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use runtime::log::{Headers, Record};
use schemas::ids::DeliveryId;
use schemas::records::{AttemptRecord, AttemptVerdict, DeadReason, ResultVerdict};
use schemas::resources::{DisabledReason, Quota};
use tokio::time::Instant;

use super::Engine;
use super::health::{Counted, has_room};
use super::moves::{Move, What};
use super::tokens::{Composed, compose, meant, send, settle};
use crate::batch::{self, Said};
use crate::chunk::ChunkSaid;
use crate::dead_letter;
use crate::delivery::classify::{Reason, Verdict, classify};
use crate::delivery::{Answer, Transport};
use crate::endpoints::Target;
use crate::lane::{Pace, Turn};
use crate::metrics::{Deferred, Outcome};
use crate::owned::Tenure;
use crate::planted::{self, Bug};
use crate::schedule::{self, Attempted, next_delay, tier_for};
use crate::uncommitted::WAIT_MAX;
use crate::work::Delivery;

/// Room for an attempt's record without errors.
const RECORD_BYTES: usize = 512;
/// So many lanes that found no room are looked at again in each round.
const PARKED_AT_ONCE: usize = 8;

/// Until when attempts may be started (rule 5): half a session after the last commit that the group
/// acknowledged was sent. Shared with attempts, which look once more just before they send.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    base: Instant,
    session: Duration,
    until_micros: Arc<AtomicU64>,
}

impl Lease {
    pub(crate) fn new(session: Duration, now: Instant) -> Self {
        Self {
            base: now,
            session,
            until_micros: Arc::default(),
        }
    }

    /// A commit sent at `sent` was acknowledged.
    pub(crate) fn extend(&self, sent: Instant) {
        let until = sent + self.session / 2 - self.base;
        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.until_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Whether more than half of it is left, so that there is no need to extend it.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.lasts(now + self.session / 4)
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.lasts(now) || planted::is(Bug::LeaseUnchecked)
    }

    fn lasts(&self, now: Instant) -> bool {
        let elapsed = u64::try_from((now - self.base).as_micros()).unwrap_or(u64::MAX);
        elapsed < self.until_micros.load(Ordering::Relaxed)
    }
}

/// An attempt that has ended, or was not made after all.
pub(super) struct Finished {
    tenure: Tenure,
    delivery: Box<Delivery>,
    target: Arc<Target>,
    exchange: Option<Exchange>,
    counted: Counted,
}

pub(super) struct Exchange {
    /// Computed once an attempt.
    id: DeliveryId,
    /// Whether it was of several deliveries.
    is_batch: bool,
    pub(super) started_at: i64,
    took: Duration,
    request_bytes: usize,
    pub(super) answer: Answer,
    /// Whether a token's fetch brought one; `None` for the delivery's own request.
    token: Option<bool>,
    /// What the answer says of a chunk, where the request was one.
    pub(super) chunk: Option<ChunkSaid>,
}

impl Exchange {
    /// The answer's status, 0 where there is none.
    pub(super) fn status(&self) -> u16 {
        let answer = self.answer.as_ref();
        answer.map_or(0, |response| response.status)
    }
}

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
        let max = self.parts.options.max_in_flight;
        while self.may_send() {
            let Some((tenure, quota)) = self.ring.pop_front() else {
                return;
            };
            let free = max - self.sending.in_flight();
            let slow = self.slow_in_flight;
            // The clock is read for each attempt: this process may have been stopped in between.
            let now = self.now();
            if !self.may_start_any(now) {
                return self.ring.push_front((tenure, quota));
            }
            let Some(owned) = self.tenant_of(tenure).filter(|owned| owned.is_serving()) else {
                continue;
            };
            if owned
                .uncommitted_since()
                .is_some_and(|since| now > since + WAIT_MAX)
            {
                // What is in flight goes on; the next acknowledged commit brings the lane back.
                owned.awaits_commit = true;
                self.awaiting_commit.push((tenure, quota));
                self.parts.metrics.commit_waits.inc();
                continue;
            }
            let gathers = self.gather_unit(tenure, &quota, now);
            let Some(owned) = self.tenant_of(tenure) else {
                continue;
            };
            let Some(lane) = owned.lanes.get_mut(&quota) else {
                continue;
            };
            // No lane has more attempts under way than there is room left.
            let (pace, in_flight) = (lane.pace(now), lane.in_flight());
            if in_flight >= free || !has_room(pace, in_flight, slow, max) {
                self.parked.push_back((tenure, quota));
                continue;
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
        let timeout = target.timeout.unwrap_or(self.parts.options.attempt_timeout);
        let entropy = (self.parts.entropy.u64(), self.parts.entropy.u64());
        let requests = self.parts.endpoints.requests(&delivery.target);
        let transport = Arc::clone(&self.parts.transport);
        let clock = self.parts.clock.clone();
        let lease = self.lease.clone();
        let Some(tenant) = self.tenant_of(tenure) else {
            return;
        };
        let ended = Arc::clone(&tenant.ended);
        let key = target.id.bits();
        self.parts.metrics.state.in_flight.inc();
        self.slow_in_flight += usize::from(counted.is_slow);
        let late_starts = self.parts.metrics.late_starts.clone();
        let attempt = async move {
            let id = batch::id(&delivery);
            if counted.leaves_by.is_some_and(|by| clock.instant() > by) {
                late_starts.inc();
                return Finished {
                    tenure,
                    delivery,
                    target,
                    exchange: None,
                    counted,
                };
            }
            let made = (clock.now(), entropy);
            let own = (&*delivery, id, requests.as_ref());
            let composed = compose(own, &target, made, timeout).await;
            let started = clock.instant();
            // Last look before the request leaves: preparing may have taken long, and the placement
            // may have been lost since.
            let may_leave = lease.holds(started) && !ended.load(Ordering::Relaxed);
            let Some(composed) = composed.filter(|_| may_leave) else {
                return Finished {
                    tenure,
                    delivery,
                    target,
                    exchange: None,
                    counted,
                };
            };
            let started_at = clock.now();
            let Composed {
                request,
                fetching,
                asked,
            } = composed;
            let request_bytes = request.as_ref().map_or(0, |request| request.body.len());
            let answer = send(&*transport, request).await;
            let took = clock.instant() - started;
            let chunk = asked.map(|asked| ChunkSaid::of(&asked, &answer));
            let (answer, token) = settle(fetching, answer, clock.now());
            let exchange = Some(Exchange {
                id,
                is_batch: !delivery.company.is_empty(),
                started_at,
                took,
                request_bytes,
                answer,
                token,
                chunk,
            });
            Finished {
                tenure,
                delivery,
                target,
                exchange,
                counted,
            }
        };
        self.sending.push(key, attempt.boxed());
    }

    /// Takes back a delivery whose turn came and that may not be attempted.
    fn do_not_start(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        target: Option<&Arc<Target>>,
        counted: Counted,
    ) {
        let now = self.now();
        self.outage.not_started(counted.is_probe);
        if let Some(owned) = self.tenant_of(tenure) {
            owned.in_flight -= 1;
            if let Some(lane) = target.and_then(|target| owned.lanes.get_mut(&target.quota)) {
                lane.not_started(counted.at, now);
            }
        }
        self.refuse(tenure, delivery);
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
            target,
            exchange,
            counted,
        } = finished;
        self.slow_in_flight -= usize::from(counted.is_slow);
        self.parts.metrics.state.in_flight.dec();
        let Some(exchange) = exchange else {
            return self.not_made(tenure, *delivery, &target, counted);
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
        let is_owned = self.tell_lane(tenure, &target, counted, (exchange.took, health));
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
        if excused || exchange.token == Some(true) {
            // Not the endpoint's fault, nor the delivery's: it stands where it stood.
            self.queue(tenure, *delivery, &target, self.now());
        } else {
            self.judge_all(tenure, *delivery, &target, (&exchange, said));
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
        let now = self.now();
        self.outage.not_started(counted.is_probe);
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        owned.in_flight -= 1;
        if let Some(lane) = owned.lanes.get_mut(&target.quota) {
            lane.not_started(counted.at, now);
        }
        self.queue(tenure, delivery, target, now);
        self.enlist(tenure, target.quota.clone());
    }

    pub(super) fn judge(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        target: &Arc<Target>,
        (exchange, verdict): (&Exchange, Verdict),
    ) {
        let status = exchange
            .answer
            .as_ref()
            .map_or(0, |response| response.status);
        delivery.state.last_status = status;
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

    /// Records what an attempt meant for each of its deliveries.
    fn record_attempts(
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

fn seconds(millis: i64) -> f64 {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}

fn encoded(record: &AttemptRecord) -> Option<Bytes> {
    let mut value = Vec::with_capacity(RECORD_BYTES);
    serde_json::to_writer(&mut value, record).ok()?;
    Some(value.into())
}
