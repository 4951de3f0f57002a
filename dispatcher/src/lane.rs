//! Owns one quota's deliveries inside the process that owns it, and whether the next may go now.
//!
//! It never sends and never sleeps: it answers "what now?" with a delivery, a time, or nothing. The
//! surprise: what has come due is served before what is fresh (rule 7).

mod gathering;
mod guess;
mod pacing;
mod saving;
mod transit;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use schemas::ids::EndpointId;
use schemas::records::{DisabledProgress, EnabledProgress, ProbationProgress};
use schemas::resources::RateWindow;
use tokio::time::Instant;

use crate::breaker::{self, Breaker, Health, Pass};
use crate::concurrency::{Concurrency, Ended};
use crate::limiter::{Anchor, Limiter, Refusal};
use crate::served::Served;
use crate::work::Delivery;

use guess::Guess;
use pacing::Pacing;
use transit::Transit;

/// Attempts that take this long on average are slow.
const SLOW: Duration = Duration::from_secs(1);
/// A lane in which no attempt has ended for this long does not move.
const STALLED: Duration = Duration::from_secs(1);

/// What a lane did in a shorter time than this says nothing of its rate: connections were opened,
/// and few attempts allowed at once.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// What is deferred while its endpoint is down comes back after half a minute first, and then after
/// this.
const DOWN_WAIT_MAX: Duration = Duration::from_mins(2);

/// The bytes that a lane may send more in each round (deficit round robin, Shreedhar and Varghese,
/// 1995): a large body waits as many rounds as it has of these, a small one goes in each.
const QUANTUM: usize = 16 << 10;

/// What a lane can do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This delivery may be attempted now; it counts as in flight.
    Attempt(Box<Delivery>),
    /// The next delivery is larger than what the lane may send in this round.
    Later,
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until its state is saved: what it would spend is not reserved yet (rule 5).
    Save,
    /// Nothing until a delivery arrives or an attempt ends.
    Idle,
}

/// What the process must know of a lane before it gives it room for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Attempts end soon.
    Quick,
    /// No attempt has ended yet.
    Unknown,
    /// Attempts take so long that many of them at once would crowd out others.
    Slow,
}

/// An attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempted {
    /// When it was started.
    pub(crate) started: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// How many deliveries it carried.
    pub(crate) items: NonZeroU32,
    /// What it says of the endpoint; `None` where it says nothing, or our own network was down.
    pub(crate) health: Option<Health>,
    /// Now, unix milliseconds.
    pub(crate) wall: i64,
    /// A random number, 0 ≤ jitter < 1.
    pub(crate) jitter: f64,
}

/// The time that a deferred delivery was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Due then.
    pub(crate) due: Instant,
    /// The endpoint is down, and this delivery is not the probe: its own schedule counts too.
    pub(crate) down: bool,
}

/// A delivery that waits in memory for its due time.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    delivery: Delivery,
}

/// All deliveries of one quota.
#[derive(Debug)]
pub(crate) struct Lane {
    due: VecDeque<Delivery>,
    fresh: VecDeque<Delivery>,
    /// Requests of several that wait to become full.
    open: BTreeMap<EndpointId, Delivery>,
    waiting: BinaryHeap<Waiting>,
    queued_bytes: usize,
    in_flight: u32,
    concurrency: Concurrency,
    breaker: Breaker,
    /// Endpoints that were given up, as they were then.
    disabled: Vec<DisabledProgress>,
    /// Disabled endpoints that came back by themselves.
    enabled: Vec<EnabledProgress>,
    /// Disabled endpoints that were probed in vain.
    probation: Vec<ProbationProgress>,
    /// Bytes that the lane may send in this round.
    credit: usize,
    anchor: Anchor,
    limiter: Limiter,
    transit: Transit,
    pacing: Pacing,
    /// Where windows that are stated first go on.
    inherited: saving::Inherited,
    hold_until: Option<Instant>,
    /// When the lane could serve one more delivery, were all that was deferred served before.
    next_free: Instant,
    /// What `next_free` rests on where there is no limit.
    guess: Guess,
    /// Smoothed time of an attempt.
    latency: Duration,
    last_used: Instant,
    /// When an attempt last ended, or the lane was last empty.
    moved_at: Instant,
    /// When the lane was last empty.
    busy_since: Instant,
    /// What ended of late.
    served: Served,
    /// Whether the lane stands in the ring of those with something to do.
    pub(crate) in_ring: bool,
}

impl Lane {
    pub(crate) fn new(now: Instant, concurrency: u32) -> Self {
        Self {
            due: VecDeque::new(),
            fresh: VecDeque::new(),
            open: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            queued_bytes: 0,
            in_flight: 0,
            concurrency: Concurrency::new(concurrency, now),
            breaker: Breaker::new(now),
            disabled: Vec::new(),
            enabled: Vec::new(),
            probation: Vec::new(),
            credit: 0,
            anchor: Anchor::new(now, 0),
            limiter: Limiter::new(Anchor::new(now, 0)),
            transit: Transit::new(now),
            pacing: Pacing::new(now),
            inherited: saving::Inherited::nothing(now),
            hold_until: None,
            next_free: now,
            guess: Guess::default(),
            latency: Duration::ZERO,
            last_used: now,
            moved_at: now,
            busy_since: now,
            served: Served::new(now),
            in_ring: false,
        }
    }

    /// Takes over what the endpoint says now. A new or changed window starts as used: its
    /// predecessor may have spent it (rule 5).
    pub(crate) fn configure(&mut self, limits: &[RateWindow], concurrency: u32, now: Instant) {
        self.concurrency.set_cap(concurrency);
        if !self.limiter.keeps(limits) {
            self.state_limits(limits, now);
        }
    }

    /// Queues a delivery that may be attempted as soon as it is its turn.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.queued_bytes += delivery.bytes();
        if self.in_flight == 0 && self.due.is_empty() && self.fresh.is_empty() {
            self.moved_at = delivery.queued_at;
            self.busy_since = delivery.queued_at;
        }
        if delivery.state.hops > 0 || delivery.state.attempts > 0 {
            self.due.push_back(delivery);
        } else {
            self.fresh.push_back(delivery);
        }
    }

    /// Keeps a delivery until `due`, a few seconds at most.
    pub(crate) fn push_waiting(&mut self, due: Instant, delivery: Delivery) {
        self.queued_bytes += delivery.bytes();
        self.waiting.push(Waiting { due, delivery });
    }

    /// No attempt before `until` (rule 11).
    pub(crate) fn hold(&mut self, until: Instant) {
        self.hold_until = Some(self.hold_until.map_or(until, |held| held.max(until)));
    }

    fn front(&self) -> Option<&Delivery> {
        self.due.front().or_else(|| self.fresh.front())
    }

    /// What the lane can do at `now`.
    pub(crate) fn turn(&mut self, now: Instant) -> Turn {
        self.promote(now);
        if self.due.is_empty() && self.fresh.is_empty() {
            return self
                .waiting
                .peek()
                .map_or(Turn::Idle, |first| Turn::Wait(first.due));
        }
        if let Some(until) = self.hold_until {
            if now < until {
                return Turn::Wait(until);
            }
            self.hold_until = None;
        }
        match self.breaker.pass(now) {
            Pass::Free | Pass::Probe => {}
            Pass::NotBefore(at) => return Turn::Wait(at),
            Pass::Probing => return Turn::Idle,
        }
        if self.in_flight >= self.concurrency.limit() {
            return Turn::Idle;
        }
        if !self.affords_next() {
            return Turn::Later;
        }
        let items = self.front().map_or(NonZeroU32::MIN, Delivery::count);
        let is_paced = self.front().is_some_and(|front| {
            let has_waited = now.saturating_duration_since(front.queued_at);
            front.is_bulk() || has_waited >= pacing::BEHIND
        });
        let every = is_paced.then(|| self.limiter.every(items)).flatten();
        if every.is_some()
            && let Some(at) = self.pacing.waits(now)
        {
            return Turn::Wait(at);
        }
        match self.limiter.try_take(now, items) {
            Ok(()) => {}
            Err(Refusal::Until(earliest)) => return Turn::Wait(earliest),
            Err(Refusal::Unreserved) => return Turn::Save,
        }
        let Some(delivery) = self.due.pop_front().or_else(|| self.fresh.pop_front()) else {
            return Turn::Idle;
        };
        self.queued_bytes -= delivery.bytes().min(self.queued_bytes);
        self.credit = self.credit.saturating_sub(delivery.loaded.record_bytes());
        if let Some(every) = every {
            self.pacing.left(now, every);
        }
        self.in_flight += 1;
        self.concurrency.started(self.in_flight);
        self.breaker.started(now);
        self.last_used = now;
        Turn::Attempt(Box::new(delivery))
    }

    /// Gives the lane its bytes of this round, and says whether they suffice for the next delivery.
    /// What is not used is no use later: a lane that was idle may not flood the others.
    fn affords_next(&mut self) -> bool {
        let next = self.due.front().or_else(|| self.fresh.front());
        let costs = next.map_or(0, |delivery| delivery.loaded.record_bytes());
        self.credit = (self.credit + QUANTUM).min(QUANTUM.max(costs));
        self.credit >= costs
    }

    /// An attempt has ended; says whether that opened or closed the breaker.
    pub(crate) fn finished(
        &mut self,
        attempted: &Attempted,
        now: Instant,
    ) -> Option<breaker::Change> {
        let Attempted { started, took, .. } = *attempted;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        self.moved_at = now;
        self.served.add(now);
        if self.is_limited() {
            let took = now.saturating_duration_since(started);
            let late = self.transit.ended(took, now);
            self.limiter.put_off(started, late, now, attempted.items);
        }
        let Some(health) = attempted.health else {
            self.breaker.not_started(started, now);
            return None;
        };
        // What a predecessor reserved is as good as what it measured.
        let was_slow = self.is_slow() || self.latency.is_zero();
        self.latency = if self.latency.is_zero() {
            took.max(Duration::from_nanos(1))
        } else {
            (self.latency * 7 + took) / 8
        };
        if self.limiter.is_unlimited() {
            self.revise_plan(was_slow && !self.is_slow(), now);
        }
        let failed = match health {
            Health::Served | Health::Answered => false,
            Health::Busy | Health::Failed | Health::Silent => true,
        };
        let ended = Ended {
            started,
            took,
            failed,
        };
        self.concurrency.ended(ended, now);
        self.breaker.ended(breaker::End {
            health,
            started,
            now,
            wall: attempted.wall,
            jitter: attempted.jitter,
        })
    }

    /// Smoothed time of an attempt.
    pub(crate) fn latency(&self) -> Duration {
        self.latency
    }

    /// Attempts under way.
    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight).unwrap_or(usize::MAX)
    }

    /// How soon attempts end.
    pub(crate) fn pace(&self, now: Instant) -> Pace {
        let stands = self.in_flight > 0 && !self.moves(now);
        if self.is_slow() || (stands && !self.latency.is_zero()) {
            Pace::Slow
        } else if self.latency.is_zero() {
            Pace::Unknown
        } else {
            Pace::Quick
        }
    }

    fn is_slow(&self) -> bool {
        self.latency >= SLOW
    }

    /// The endpoint's health.
    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// The endpoint's health, to take it over or to excuse it.
    pub(crate) fn breaker_mut(&mut self) -> &mut Breaker {
        &mut self.breaker
    }

    /// An answer said that `remaining` requests are left until `reset` from now (HT-9, HT-10).
    pub(crate) fn observe(&mut self, now: Instant, remaining: u64, reset: Duration) {
        self.limiter.observe(now, remaining, reset);
    }

    /// Whether a rate is stated.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limiter.is_unlimited()
    }

    /// An attempt that was not made after all.
    pub(crate) fn not_started(&mut self, started: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.breaker.not_started(started, now);
    }

    /// No attempt before this time, be it for a hold or for the breaker.
    fn held_until(&self) -> Option<Instant> {
        self.hold_until.max(self.breaker.probe_at())
    }

    /// Reserves the lane's next free moment for a delivery of `source` that is deferred at `now`: it
    /// is due then, and not before `earliest`. While the breaker is open one is due as the probe.
    pub(crate) fn reserve(&mut self, now: Instant, earliest: Instant, source: usize) -> Reserved {
        let held = self.held_until().unwrap_or(now);
        if let Some(probe_at) = self.breaker.promise_probe() {
            let due = probe_at.max(self.hold_until.unwrap_or(now)).max(now);
            return Reserved { due, down: false };
        }
        let start = self.next_free.max(now).max(held);
        // What was planned before has come: what is free now may be planned at once.
        let anew = (self.next_free <= now).then(|| self.queued());
        let latest = if self.limiter.is_unlimited() {
            // A measured rate is a guess: it is looked at again in time.
            let latest = now.max(held) + guess::reach(source);
            // While the endpoint is down nothing is served: its schedule spaces what comes back.
            if self.breaker.is_closed() {
                let cost = self.cost(now);
                self.next_free = self.guess.plan((start, latest), cost, now);
            }
            latest
        } else {
            self.next_free = self.limiter.plan(start, anew);
            start
        };
        let down = !self.breaker.is_closed();
        // A schedule of seconds is no reason to rewrite everything each few seconds meanwhile.
        let earliest = if down {
            earliest.max(now + guess::reach(source).min(DOWN_WAIT_MAX))
        } else {
            earliest
        };
        let due = start.min(latest).max(earliest);
        Reserved { due, down }
    }

    /// Brings the plan back where attempts turn out to take less than was assumed; all of it where
    /// it was made while they were `slow` and they are no more.
    fn revise_plan(&mut self, slow: bool, now: Instant) {
        let cost = self.cost(now);
        let revised = self.guess.revised(self.next_free, cost, now);
        self.next_free = if slow { now } else { revised };
    }

    /// What one delivery costs of the lane's time: as measured, and no more than what ended of late
    /// says. Attempts that were all delayed together make a fast endpoint look slow.
    fn cost(&mut self, now: Instant) -> Duration {
        let measured = self.latency / self.concurrency.limit();
        let a_second = u32::try_from(self.served.per_second(now)).unwrap_or(u32::MAX);
        match a_second {
            0 => measured,
            served => measured.min(Duration::from_secs(1) / served),
        }
    }

    /// How many deliveries are queued for a turn.
    pub(crate) fn queued(&self) -> u64 {
        (self.due.len() + self.fresh.len() + self.open.len()) as u64
    }

    /// Whether a delivery that arrived now would wait longer than `horizon`, or the lane does not
    /// move and holds its share of memory already.
    pub(crate) fn is_full(&mut self, now: Instant, horizon: Duration, bytes_max: usize) -> bool {
        let held = self.held_until().is_some_and(|until| until > now + horizon);
        let ahead = self.queued();
        let known = !self.limiter.is_unlimited() || now >= self.busy_since + KNOWN_AFTER;
        let too_long = known && self.forecast(now, ahead) > horizon;
        let stalled = self.queued_bytes >= bytes_max && !self.moves(now);
        held || too_long || stalled || self.queued_bytes >= bytes_max.saturating_mul(2)
    }

    /// How long a delivery with so many `ahead` waits for its turn, as far as is known.
    fn forecast(&mut self, now: Instant, ahead: u64) -> Duration {
        if self.limiter.is_unlimited() {
            let count = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.cost(now).saturating_mul(count)
        } else {
            let free = self.limiter.forecast(now, ahead);
            free.saturating_duration_since(now)
        }
    }

    /// Whether it moves and has had a turn for all that is queued within this time, as far as is
    /// known. Where the process needs as long for all lanes together, this one's endpoint is not what
    /// its deliveries wait for.
    pub(crate) fn is_through_within(&mut self, now: Instant, time: Duration) -> bool {
        let ahead = self.queued();
        self.moves(now)
            && self.breaker.is_closed()
            && self.held_until().is_none_or(|until| until <= now)
            && self.forecast(now, ahead) <= time
    }

    /// Whether the lane holds its share of memory and moves: what follows is better read later than
    /// written to a delay topic.
    pub(crate) fn is_busy(&self, now: Instant, bytes_max: usize) -> bool {
        self.queued_bytes >= bytes_max && self.moves(now)
    }

    /// Its attempts waited for something else than its endpoint.
    pub(crate) fn waited(&mut self, now: Instant) {
        self.moved_at = now;
    }

    fn moves(&self, now: Instant) -> bool {
        now < self.moved_at + STALLED
    }

    /// Takes out what has been queued since before `now - horizon`, or everything queued while the
    /// lane is held for longer than the horizon.
    pub(crate) fn overdue(&mut self, now: Instant, horizon: Duration) -> Vec<Delivery> {
        self.promote(now);
        let held = self.held_until().is_some_and(|until| until > now + horizon);
        self.close(|_, unit| held || now - unit.queued_at >= horizon);
        let mut taken = Vec::new();
        for queue in [&mut self.due, &mut self.fresh] {
            while queue
                .front()
                .is_some_and(|first| held || now - first.queued_at >= horizon)
            {
                taken.extend(queue.pop_front());
            }
        }
        for delivery in &taken {
            self.queued_bytes -= delivery.bytes().min(self.queued_bytes);
        }
        taken
    }

    /// Takes out everything that is not in flight, with the due time of what waited for one.
    pub(crate) fn drain(&mut self) -> Vec<(Delivery, Option<Instant>)> {
        self.queued_bytes = 0;
        self.close(|_, _| true);
        let queued = self
            .due
            .drain(..)
            .chain(self.fresh.drain(..))
            .map(|delivery| (delivery, None));
        let waiting = self
            .waiting
            .drain()
            .map(|waiting| (waiting.delivery, Some(waiting.due)));
        queued.chain(waiting).collect()
    }

    /// Whether the lane's state equals a new lane's: nothing queued, in flight, held or spent.
    pub(crate) fn is_spent(&mut self, now: Instant) -> bool {
        self.is_at_rest()
            && self.hold_until.is_none_or(|until| until <= now)
            && self.next_free <= now
            && self.breaker.is_new()
            && self.disabled.is_empty()
            && self.enabled.is_empty()
            && self.probation.is_empty()
            && self.limiter.is_whole(now)
    }

    /// Whether nothing is queued, waiting or in flight, whatever else is known of it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.in_flight == 0 && self.len() == 0
    }

    /// How many deliveries are queued or waiting.
    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.fresh.len() + self.open.len() + self.waiting.len()
    }

    /// When the oldest event queued here was accepted, unix milliseconds.
    pub(crate) fn oldest_accepted(&self) -> Option<i64> {
        let first = [self.due.front(), self.fresh.front()];
        let first = first.into_iter().flatten();
        first
            .chain(self.open.values())
            .map(|delivery| delivery.loaded.record.accepted_at)
            .min()
    }

    fn promote(&mut self, now: Instant) {
        while self.waiting.peek().is_some_and(|first| first.due <= now) {
            if let Some(mut waiting) = self.waiting.pop() {
                waiting.delivery.queued_at = now;
                self.due.push_back(waiting.delivery);
            }
        }
    }
}

// A max-heap that yields the earliest due time first.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests;
