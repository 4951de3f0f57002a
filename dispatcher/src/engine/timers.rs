//! Owns when the engine must look again though nothing arrives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use schemas::resources::Quota;
use tokio::time::Instant;

use crate::owned::Tenure;

/// How often lanes are looked through for what waits too long.
const SWEEP: Duration = Duration::from_millis(250);
/// How often every position is committed anew.
const RECOMMIT: Duration = Duration::from_secs(24 * 3600);

/// A lane that can go on at a time.
type LaneWake = Reverse<(Instant, Tenure, Quota)>;

#[derive(Debug)]
pub(crate) struct Timers {
    lanes: BinaryHeap<LaneWake>,
    /// The earliest time at which a source's head is ready.
    head: Option<Instant>,
    sweep_at: Instant,
    report_at: Instant,
    report_every: Duration,
    recommit_at: Instant,
    pub(crate) commit_at: Instant,
    commit_every: Duration,
    pub(crate) transaction_at: Option<Instant>,
    pub(crate) flush_at: Option<Instant>,
}

impl Timers {
    pub(crate) fn new(now: Instant, commit_every: Duration, report_every: Duration) -> Self {
        Self {
            lanes: BinaryHeap::new(),
            head: None,
            sweep_at: now,
            report_at: now,
            report_every,
            recommit_at: now + RECOMMIT,
            commit_at: now,
            commit_every,
            transaction_at: None,
            flush_at: None,
        }
    }

    /// When to look again; `committing` leaves the next commit out, which waits for the one on its
    /// way and not for a time.
    pub(crate) fn next(&self, now: Instant, committing: bool) -> Instant {
        let lane = self.lanes.peek().map(|Reverse((at, ..))| *at);
        let commit = (!committing).then_some(self.commit_at);
        let soonest = [lane, self.head, self.transaction_at, self.flush_at, commit]
            .into_iter()
            .flatten()
            .fold(self.sweep_at.min(self.report_at), Instant::min);
        soonest.max(now)
    }

    pub(crate) fn wake_lane(&mut self, at: Instant, tenure: Tenure, quota: Quota) {
        self.lanes.push(Reverse((at, tenure, quota)));
    }

    pub(crate) fn pop_lane(&mut self, now: Instant) -> Option<(Tenure, Quota)> {
        if self.lanes.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return None;
        }
        self.lanes
            .pop()
            .map(|Reverse((_, tenure, quota))| (tenure, quota))
    }

    pub(crate) fn clear_head(&mut self) {
        self.head = None;
    }

    pub(crate) fn wake_head(&mut self, at: Instant) {
        self.head = Some(self.head.map_or(at, |head| head.min(at)));
    }

    pub(crate) fn sweep_due(&mut self, now: Instant) -> bool {
        let due = now >= self.sweep_at;
        if due {
            self.sweep_at = now + SWEEP;
        }
        due
    }

    /// Looked at with each sweep.
    pub(crate) fn recommit_due(&mut self, now: Instant) -> bool {
        let due = now >= self.recommit_at;
        if due {
            self.recommit_at = now + RECOMMIT;
        }
        due
    }

    pub(crate) fn report_due(&mut self, now: Instant) -> bool {
        let due = now >= self.report_at;
        if due {
            self.report_at = now + self.report_every;
        }
        due
    }

    pub(crate) fn commit_sent(&mut self, now: Instant) {
        self.commit_at = now + self.commit_every;
    }

    /// Looks at what a transaction has to do at `at`, or sooner.
    pub(crate) fn wake_transaction(&mut self, at: Instant) {
        self.transaction_at = Some(self.transaction_at.map_or(at, |sooner| sooner.min(at)));
    }

    pub(crate) fn commit_now(&mut self, now: Instant) {
        self.commit_at = self.commit_at.min(now);
    }
}
