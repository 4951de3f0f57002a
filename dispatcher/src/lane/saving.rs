//! Owns what of a lane outlives its owner: the hold, `next_free`, what the long windows have spent
//! and reserved, and which of its endpoints were given up, wait for a probe or came back.
//!
//! It never writes: the engine's transactions do. The surprise: a hold shorter than a second is not
//! worth a write of its own, but goes with every other, the last of its owner among them.

use std::time::Duration;

use schemas::records::{
    DisabledProgress, EnabledProgress, LaneProgress, ProbationProgress, WindowProgress,
};
use schemas::resources::{Quota, RateWindow};
use tokio::time::Instant;

use super::Lane;
use crate::breaker::Breaker;
use crate::limiter::{Anchor, Limiter};
use crate::planted::{self, Bug};
use crate::probation::Version;

/// For a hold that ends sooner nothing is written.
const WORTH_SAVING: Duration = Duration::from_secs(1);

/// Where a lane begins: when its placement was taken over, and what was left of its windows.
#[derive(Debug)]
pub(super) struct Inherited {
    at: Instant,
    windows: Vec<WindowProgress>,
}

impl Inherited {
    pub(super) fn nothing(at: Instant) -> Self {
        let windows = Vec::new();
        Self { at, windows }
    }
}

impl Lane {
    /// Goes on where a predecessor stopped when the placement was taken over at `at`.
    pub(crate) fn inherit(&mut self, anchor: Anchor, at: Instant, left: Option<LaneProgress>) {
        self.anchor = anchor;
        self.limiter = Limiter::new(anchor);
        self.inherited = Inherited::nothing(at);
        let Some(left) = left else {
            return;
        };
        self.inherited.windows = left.windows;
        let held = left.hold_until.filter(|_| !planted::is(Bug::LostHold));
        if let Some(until) = held {
            self.hold(anchor.instant(until));
        }
        if let Some(next_free) = left.next_free_at {
            self.next_free = self.next_free.max(anchor.instant(next_free));
        }
        self.disabled = left.disabled;
        self.enabled = left.enabled;
        self.probation = left.probation;
        if let Some(breaker) = left.breaker {
            self.breaker = Breaker::restore(breaker, at, |wall| anchor.instant(wall));
        }
    }

    /// Keeps the windows that the endpoint states now. Those stated first go on from the take-over.
    pub(super) fn state_limits(&mut self, limits: &[RateWindow], now: Instant) {
        let next = Inherited::nothing(now);
        let from = std::mem::replace(&mut self.inherited, next);
        self.limiter.set_windows(limits, from.at, &from.windows);
    }

    /// One of its endpoints is given up.
    pub(crate) fn disable(&mut self, mark: DisabledProgress) {
        self.disabled
            .retain(|other| other.endpoint != mark.endpoint);
        self.disabled.push(mark);
    }

    /// One of its endpoints that was disabled has come back.
    pub(crate) fn enable(&mut self, mark: EnabledProgress) {
        self.enabled.retain(|other| other.endpoint != mark.endpoint);
        self.probation
            .retain(|other| other.endpoint != mark.endpoint);
        self.enabled.push(mark);
    }

    /// One of its endpoints that are disabled waits for its next probe.
    pub(crate) fn put_off(&mut self, mark: ProbationProgress) {
        self.probation
            .retain(|other| other.endpoint != mark.endpoint);
        self.probation.push(mark);
    }

    /// Keeps the marks that are true still; says whether one was not. An endpoint that was given up
    /// and then changed begins anew.
    pub(crate) fn keep_marks(&mut self, is_current: impl Fn(Version) -> bool) -> bool {
        let others = self.enabled.len() + self.probation.len();
        let disabled = self.disabled.len();
        self.disabled
            .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
        self.enabled
            .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
        self.probation
            .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
        let is_new = self.disabled.len() < disabled;
        if is_new {
            self.breaker = Breaker::new(self.last_used);
        }
        is_new || self.enabled.len() + self.probation.len() < others
    }

    /// Whether what it has reserved is spent, or soon will be.
    pub(crate) fn wants_saving(&self) -> bool {
        self.limiter.wants_saving()
    }

    /// Whether it is held for so long that a successor must know.
    pub(crate) fn is_held_long(&self, now: Instant) -> bool {
        self.hold_until
            .is_some_and(|until| until > now + WORTH_SAVING)
    }

    /// What a successor must know; with `go_on` the next blocks of its windows are reserved.
    /// [`Lane::saved`] is called when it is known whether it was written, and not `save` before.
    pub(crate) fn save(&mut self, quota: &Quota, now: Instant, go_on: bool) -> LaneProgress {
        let mut record = LaneProgress::new(quota.clone(), self.anchor.unix_ms(now));
        record.windows = self.limiter.save(now, go_on);
        let held = self.hold_until.max(self.limiter.observed_hold(now));
        // However short: what it was saved with before must not be taken back (rule 11).
        record.hold_until = held
            .filter(|until| *until > now)
            .map(|until| self.anchor.unix_ms(until));
        record.next_free_at = Some(self.next_free)
            .filter(|next_free| *next_free > now)
            .map(|next_free| self.anchor.unix_ms(next_free));
        record.disabled.clone_from(&self.disabled);
        record.enabled.clone_from(&self.enabled);
        record.probation.clone_from(&self.probation);
        record.breaker =
            (!self.breaker.is_new()).then(|| self.breaker.save(|at| self.anchor.unix_ms(at)));
        record
    }

    /// What [`Lane::save`] returned last is in the log, or will never be.
    pub(crate) fn saved(&mut self, is_written: bool) {
        self.limiter.saved(is_written);
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::EndpointId;

    use super::*;

    /// Rule 11: an owner that leaves within the last second of a hold hands it over too.
    #[test]
    fn a_hold_is_handed_over_until_it_is_over() {
        let (now, wall) = (Instant::now(), 1_795_373_326_959);
        let quota = Quota::of_endpoint(EndpointId::from_bits(1));
        let mut lane = Lane::new(now, 1);
        lane.inherit(Anchor::new(now, wall), now, None);
        lane.hold(now + Duration::from_secs(2));
        assert!(lane.is_held_long(now));
        let mut check = |after_ms: u64, left: Option<i64>| {
            let at = now + Duration::from_millis(after_ms);
            let saved = lane.save(&quota, at, false);
            lane.saved(true);
            assert_eq!(saved.hold_until, left, "after {after_ms} ms");
        };
        check(0, Some(wall + 2_000));
        check(1_200, Some(wall + 2_000));
        check(1_999, Some(wall + 2_000));
        check(2_000, None);
    }
}
