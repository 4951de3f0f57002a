//! Owns what an attempt says beyond its own delivery: the endpoint's health, and whether our own
//! network is down.
//!
//! It must never charge an endpoint, or a delivery, for an outage of ours. The surprise: while the
//! network is down nothing is taken in, so that nothing is rewritten or ages for it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Engine;
use crate::breaker::{self, Health};
use crate::delivery::classify::Verdict;
use crate::delivery::{Answer, Transport};
use crate::endpoints::Target;
use crate::lane::{Attempted, Pace, Reserved};
use crate::metrics::{BreakerChange, Deferred};
use crate::outage::{Change, Reach};
use crate::owned::Tenure;
use crate::schedule::{attempts_by_age, next_delay};
use crate::work::Delivery;

/// How an attempt is counted while it is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// When its turn came.
    pub(super) at: Instant,
    /// Among those that may take long.
    pub(super) is_slow: bool,
    /// As the probe of our own network.
    pub(super) is_probe: bool,
    /// What was charged to a limit is not sent after this: it would count at another time than it is
    /// charged at.
    pub(super) leaves_by: Option<Instant>,
}

/// Whether an attempt of this pace finds room, where `slow` of at most `max` attempts may take long
/// and the lane has `in_flight` of its own. However many hang, others find some: slow ones have half
/// of the room, and the first attempts of lanes of which nothing is known three quarters (rule 7).
pub(super) fn has_room(pace: Pace, in_flight: usize, slow: usize, max: usize) -> bool {
    match pace {
        Pace::Quick => true,
        Pace::Unknown if in_flight == 0 => slow < (max - max / 4).max(1),
        Pace::Unknown | Pace::Slow => slow < (max / 2).max(1),
    }
}

impl<T: Transport> Engine<T> {
    /// Whether any attempt may start now: the lease holds, and our own network is up; while it is
    /// down, one probe at a time.
    pub(super) fn may_start_any(&mut self, now: Instant) -> bool {
        if !self.lease.holds(now) {
            self.parts.metrics.commits.lease_waits.inc();
            self.timers.commit_now(now);
            return false;
        }
        self.outage.pass(now).is_ok()
    }

    /// Learns from an answer about our own network, and says whether the attempt counts for nothing
    /// because that is down.
    pub(super) fn learn(&mut self, target: &Target, answer: &Answer, is_probe: bool) -> bool {
        let Some(reach) = Reach::of(answer) else {
            self.outage.not_started(is_probe);
            return false;
        };
        let mut hasher = DefaultHasher::new();
        target.destination.url().host_str().hash(&mut hasher);
        let at = (self.now(), self.wall());
        match self.outage.ended((hasher.finish(), reach), is_probe, at) {
            Some(Change::Began) => {
                self.parts.metrics.incidents.inc();
                self.parts.metrics.state.outage.set(1);
                error!("no endpoint can be reached: attempts are held until one can");
            }
            Some(Change::Ended(down)) => {
                info!(?down, "endpoints can be reached again");
                self.parts.metrics.state.outage.set(0);
                self.excuse(down);
            }
            None => {}
        }
        self.outage.is_down() && reach == Reach::Unreached
    }

    /// Takes the time of an outage of ours out of every endpoint's time of failing.
    fn excuse(&mut self, down: Duration) {
        let lanes = self
            .owned
            .values_mut()
            .flat_map(|owned| owned.lanes.values_mut());
        lanes.for_each(|lane| lane.breaker_mut().excuse(down));
    }

    /// Tells the lane of an attempt's end; says whether its tenure goes on.
    pub(super) fn tell_lane(
        &mut self,
        tenure: Tenure,
        target: &Target,
        counted: Counted,
        (took, health, items): (Duration, Option<Health>, NonZeroU32),
    ) -> bool {
        let now = self.now();
        let attempted = Attempted {
            started: counted.at,
            took,
            items,
            health,
            wall: self.wall(),
            jitter: self.parts.entropy.unit(),
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return false;
        };
        owned.in_flight -= 1;
        let Some(lane) = owned.lanes.get_mut(&target.quota) else {
            return true;
        };
        let change = lane.finished(&attempted, now);
        if change.is_some() {
            // A successor must know (rule 5).
            owned.handover.mark(&target.quota, true);
        }
        let change = match change {
            Some(breaker::Change::Opened) => BreakerChange::Opened,
            Some(breaker::Change::StillOpen) => BreakerChange::StillOpen,
            Some(breaker::Change::Closed) => BreakerChange::Closed,
            None => return true,
        };
        self.parts.metrics.health.breaker_changes.get(change).inc();
        if change == BreakerChange::Opened {
            warn!(endpoint = %target.id, "endpoint fails and is only probed");
        }
        true
    }

    /// Tells the lane what the endpoint says is left of its limit (HT-9, HT-10).
    pub(super) fn observe(&mut self, tenure: Tenure, target: &Target, answer: &Answer) {
        let (now, wall) = (self.now(), self.wall());
        let Some(left) = answer.as_ref().ok().and_then(|response| response.left) else {
            return;
        };
        let owned = self.tenant_of(tenure);
        if let Some(lane) = owned.and_then(|owned| owned.lanes.get_mut(&target.quota)) {
            lane.observe(now, left.requests, left.wait(wall));
        }
    }

    /// What a verdict says of its endpoint's health.
    pub(super) fn health(verdict: &Verdict, excused: bool) -> Option<Health> {
        Health::of(verdict).filter(|_| !excused)
    }

    /// How old a delivery is, in milliseconds, without the time in which our network was down.
    pub(super) fn age(&self, delivery: &Delivery) -> i64 {
        let accepted_at = delivery.loaded.record.accepted_at;
        let wall = self.wall();
        wall.saturating_sub(accepted_at)
            .saturating_sub(self.outage.within(accepted_at, wall))
    }

    /// Sends a delivery to a delay topic until the time that its lane has given it. While its
    /// endpoint is down its schedule advances by its age: it comes back when it would have been
    /// attempted again (design: retries).
    pub(super) fn postpone(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        reserved: Reserved,
        reason: Deferred,
    ) {
        let mut due_at = self.parts.clock.wall_at(reserved.due);
        let target = self.parts.endpoints.get(delivery.target.endpoint).cloned();
        if let Some(target) = target.filter(|_| reserved.down) {
            let age = Duration::from_millis(u64::try_from(self.age(&delivery)).unwrap_or(0));
            let delays = &target.schedule.delays;
            let attempts = attempts_by_age(delays, delivery.state.attempts, age);
            delivery.state.attempts = attempts;
            let jitter = self.parts.entropy.unit();
            if let Some(wait) = next_delay(&target.schedule, attempts, jitter) {
                let scheduled = self.wall().saturating_add(runtime::clock::millis(wait));
                due_at = due_at.max(scheduled);
            }
            // At its maximum age it is looked at once more, and ends.
            let rest = runtime::clock::millis(target.schedule.max_age.saturating_sub(age));
            due_at = due_at.min(self.wall().saturating_add(rest).saturating_add(1));
        }
        self.defer(tenure, delivery, due_at, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_room_is_kept_from_what_may_hang() {
        // rule 7
        let check = |pace, in_flight, slow, expected| {
            let found = has_room(pace, in_flight, slow, 100);
            assert_eq!(found, expected, "{pace:?} {in_flight} {slow}");
        };
        check(Pace::Quick, 60, 100, true);
        check(Pace::Slow, 0, 49, true);
        check(Pace::Slow, 0, 50, false);
        check(Pace::Unknown, 0, 74, true);
        check(Pace::Unknown, 0, 75, false);
        check(Pace::Unknown, 1, 49, true);
        check(Pace::Unknown, 1, 50, false);
        assert!(has_room(Pace::Unknown, 0, 0, 1));
        assert!(!has_room(Pace::Unknown, 0, 1, 1));
    }
}
