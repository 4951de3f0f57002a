//! Owns one quota's deliveries inside the process that owns it, and whether the next may go now.
//!
//! It never sends and never sleeps: it answers "what now?" with a delivery, a time, or nothing. The
//! surprise: what has come due is served before what is fresh (rule 7).

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::limiter::{Limiter, Rate};
use crate::work::Delivery;

/// Attempts that take this long on average are slow.
const SLOW: Duration = Duration::from_secs(1);
/// A lane in which no attempt has ended for this long does not move.
const STALLED: Duration = Duration::from_secs(1);

/// The longest wait for a turn that is reserved at a measured rate.
const GUESSED_WAIT_MAX: Duration = Duration::from_hours(6);

/// What a lane can do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This delivery may be attempted now; it counts as in flight.
    Attempt(Box<Delivery>),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until a delivery arrives or an attempt ends.
    Idle,
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
    waiting: BinaryHeap<Waiting>,
    queued_bytes: usize,
    in_flight: u32,
    concurrency: u32,
    limiter: Option<Limiter>,
    hold_until: Option<Instant>,
    /// When the lane could serve one more delivery, were all that was deferred served before.
    next_free: Instant,
    /// Smoothed time of an attempt.
    latency: Duration,
    last_used: Instant,
    /// When an attempt last ended, or the lane was last empty.
    moved_at: Instant,
    /// Whether the lane stands in the ring of those with something to do.
    pub(crate) in_ring: bool,
}

impl Lane {
    pub(crate) fn new(now: Instant, concurrency: u32) -> Self {
        Self {
            due: VecDeque::new(),
            fresh: VecDeque::new(),
            waiting: BinaryHeap::new(),
            queued_bytes: 0,
            in_flight: 0,
            concurrency,
            limiter: None,
            hold_until: None,
            next_free: now,
            latency: Duration::ZERO,
            last_used: now,
            moved_at: now,
            in_ring: false,
        }
    }

    /// Takes over what the endpoint says now. A new or changed window starts as used: its
    /// predecessor may have spent it (rule 5).
    pub(crate) fn configure(&mut self, rate: Option<Rate>, concurrency: u32, now: Instant) {
        self.concurrency = concurrency;
        if self.limiter.as_ref().map(Limiter::rate) == rate {
            return;
        }
        self.limiter = rate.map(|rate| Limiter::starting_used(rate, now));
    }

    /// Queues a delivery that may be attempted as soon as it is its turn.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.queued_bytes += delivery.bytes();
        if self.in_flight == 0 && self.due.is_empty() && self.fresh.is_empty() {
            self.moved_at = delivery.queued_at;
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
        if self.in_flight >= self.concurrency {
            return Turn::Idle;
        }
        if let Some(limiter) = &self.limiter
            && let Err(earliest) = limiter.try_take(now)
        {
            return Turn::Wait(earliest);
        }
        let Some(delivery) = self.due.pop_front().or_else(|| self.fresh.pop_front()) else {
            return Turn::Idle;
        };
        self.queued_bytes -= delivery.bytes().min(self.queued_bytes);
        self.in_flight += 1;
        self.last_used = now;
        Turn::Attempt(Box::new(delivery))
    }

    /// An attempt has ended after `took`.
    pub(crate) fn finished(&mut self, took: Duration, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        self.moved_at = now;
        let was_slow = self.is_slow();
        self.latency = if self.latency.is_zero() {
            took
        } else {
            (self.latency * 7 + took) / 8
        };
        if was_slow && !self.is_slow() && self.limiter.is_none() {
            // What was reserved while attempts were slow says nothing any more.
            self.next_free = now;
        }
    }

    /// Attempts under way.
    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight).unwrap_or(usize::MAX)
    }

    /// Whether attempts take so long that many of them at once would crowd out others.
    pub(crate) fn is_slow(&self) -> bool {
        self.latency >= SLOW
    }

    /// An attempt that was not made after all.
    pub(crate) fn not_started(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Reserves the lane's next free moment for a delivery that is deferred at `now`: it is due
    /// then, and not before `earliest`.
    pub(crate) fn reserve(&mut self, now: Instant, earliest: Instant) -> Instant {
        let start = self.next_free.max(now).max(self.hold_until.unwrap_or(now));
        self.next_free = start + self.cost();
        // A measured rate is a guess: an endpoint that hung is looked at again in time.
        let latest = match self.limiter {
            Some(_) => start,
            None => now.max(self.hold_until.unwrap_or(now)) + GUESSED_WAIT_MAX,
        };
        start.min(latest).max(earliest)
    }

    /// What one delivery costs of the lane's time.
    fn cost(&self) -> Duration {
        match &self.limiter {
            Some(limiter) => limiter.rate().interval(),
            None => self.latency / self.concurrency.max(1),
        }
    }

    /// Whether a delivery that arrived now would wait longer than `horizon`, or the lane does not
    /// move and holds its share of memory already.
    pub(crate) fn is_full(&self, now: Instant, horizon: Duration, bytes_max: usize) -> bool {
        let held = self.hold_until.is_some_and(|until| until > now + horizon);
        let ahead = u32::try_from(self.due.len() + self.fresh.len()).unwrap_or(u32::MAX);
        let too_long = self.cost().saturating_mul(ahead) > horizon;
        let stalled = self.queued_bytes >= bytes_max && !self.moves(now);
        held || too_long || stalled || self.queued_bytes >= bytes_max.saturating_mul(2)
    }

    /// Whether the lane holds its share of memory and moves: what follows is better read later than
    /// written to a delay topic.
    pub(crate) fn is_busy(&self, now: Instant, bytes_max: usize) -> bool {
        self.queued_bytes >= bytes_max && self.moves(now)
    }

    fn moves(&self, now: Instant) -> bool {
        now < self.moved_at + STALLED
    }

    /// Takes out what has been queued since before `now - horizon`, or everything queued while the
    /// lane is held for longer than the horizon.
    pub(crate) fn overdue(&mut self, now: Instant, horizon: Duration) -> Vec<Delivery> {
        self.promote(now);
        let held = self.hold_until.is_some_and(|until| until > now + horizon);
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
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        let windows_passed = self
            .limiter
            .as_ref()
            .is_none_or(|limiter| now - self.last_used > limiter.rate().window());
        self.in_flight == 0
            && self.due.is_empty()
            && self.fresh.is_empty()
            && self.waiting.is_empty()
            && self.hold_until.is_none_or(|until| until <= now)
            && self.next_free <= now
            && windows_passed
    }

    /// How many deliveries are queued or waiting.
    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.fresh.len() + self.waiting.len()
    }

    /// When the oldest event queued here was accepted, unix milliseconds.
    pub(crate) fn oldest_accepted(&self) -> Option<i64> {
        let first = [self.due.front(), self.fresh.front()];
        first
            .into_iter()
            .flatten()
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
