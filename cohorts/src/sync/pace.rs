//! Owns how often partners are asked after jobs: the windows that a profile has for that alone,
//! which all syncs with one quota share; they are all in one process (rule 5).
//!
//! Never asks more often than the partner counts. The surprise: when a request reaches the partner
//! is not known, only that it is after it was written and before it is reported: so it is counted
//! from the one until a window after the other; and of what another process has asked before
//! nothing is known, so that windows start as fully used.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;
use schemas::profile::Poll;
use schemas::resources::Quota;
use tokio::time::Instant;

/// What was written before a take-over is on its way for so long at most: a dispatcher defers what
/// it cannot send within its horizon.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// So many requests in so long.
#[derive(Debug, Clone, Copy)]
struct Span {
    count: usize,
    length: Duration,
}

/// What was asked of late, by quotas. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace(Arc<Mutex<HashMap<Quota, Asked>>>);

#[derive(Debug, Default)]
struct Asked {
    /// Written and not reported.
    flying: usize,
    /// When others were reported, the oldest first.
    ended: VecDeque<Instant>,
    /// The longest window that they are counted in.
    kept: Duration,
    /// All windows are full at that time, as another process may have filled them.
    full_at: Option<Instant>,
}

/// A request that is counted until it is dropped, and in its windows afterwards.
#[derive(Debug)]
pub(crate) struct Turn {
    pace: Pace,
    quota: Quota,
    clock: Clock,
}

impl Pace {
    fn all(&self) -> MutexGuard<'_, HashMap<Quota, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's turn now; or none, as the windows of `poll` are full.
    pub(crate) fn take(&self, quota: &Quota, poll: &Poll, clock: &Clock) -> Option<Turn> {
        let spans: Vec<Span> = spans(poll).collect();
        let now = clock.instant();
        let mut all = self.all();
        // Those of which nothing is left to count.
        all.retain(|_, asked| asked.is_of_use(now));
        let asked = all.entry(quota.clone()).or_default();
        asked.kept = asked.kept.max(longest(poll).unwrap_or_default());
        if !spans.iter().all(|span| asked.has_room(*span, now)) {
            return None;
        }
        asked.flying += 1;
        Some(Turn {
            pace: self.clone(),
            quota: quota.clone(),
            clock: clock.clone(),
        })
    }
}

impl Pace {
    /// Takes a sync over whose partner another process may have asked of late.
    pub(crate) fn take_over(&self, quota: &Quota, poll: &Poll, clock: &Clock) {
        let Some(longest) = longest(poll) else { return };
        let mut all = self.all();
        let asked = all.entry(quota.clone()).or_default();
        asked.kept = asked.kept.max(longest);
        asked.full_at = Some(clock.instant() + ON_ITS_WAY);
    }
}

/// The longest window for polls.
pub(crate) fn longest(poll: &Poll) -> Option<Duration> {
    spans(poll).map(|span| span.length).max()
}

impl Asked {
    fn has_room(&self, span: Span, now: Instant) -> bool {
        if self.full_at.is_some_and(|at| now < at + span.length) {
            return false;
        }
        let counts = |at: &&Instant| now < **at + span.length;
        self.flying + self.ended.iter().rev().take_while(counts).count() < span.count
    }

    fn is_of_use(&mut self, now: Instant) -> bool {
        while self.ended.front().is_some_and(|at| *at + self.kept <= now) {
            self.ended.pop_front();
        }
        let is_full = self.full_at.is_some_and(|at| now < at + self.kept);
        self.flying > 0 || !self.ended.is_empty() || is_full
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.clock.instant();
        if let Some(asked) = self.pace.all().get_mut(&self.quota) {
            asked.flying = asked.flying.saturating_sub(1);
            asked.ended.push_back(now);
        }
    }
}

/// The windows of `poll`, each as if it were counted in any span of its length.
fn spans(poll: &Poll) -> impl Iterator<Item = Span> + '_ {
    poll.windows.iter().filter_map(|window| {
        Some(Span {
            count: usize::try_from(window.requests?.get()).unwrap_or(usize::MAX),
            length: Duration::from_secs(window.seconds.get().into()),
        })
    })
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;
    use schemas::ids::EndpointId;
    use schemas::profile::{Profile, ready};

    use super::*;

    /// Klaviyo's: 10 a second and 150 a minute.
    fn poll() -> Poll {
        let profile = Profile::from_yaml(ready("klaviyo").unwrap()).unwrap();
        profile.operations.poll.unwrap()
    }

    fn quota(bits: u128) -> Quota {
        Quota::of_endpoint(EndpointId::from_bits(bits))
    }

    #[tokio::test(start_paused = true)]
    async fn each_window_holds_from_the_report_on() {
        let (pace, poll, clock) = (Pace::default(), poll(), Clock::simulated(0));
        let take = || pace.take(&quota(1), &poll, &clock);
        let flying: Vec<Turn> = std::iter::from_fn(take).collect();
        assert_eq!(flying.len(), 10);
        assert!(pace.take(&quota(2), &poll, &clock).is_some(), "its own");
        // As long as they are not reported they may reach the partner.
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(take().is_none());
        drop(flying);
        assert!(take().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut taken = 10;
        for _ in 0..200 {
            taken += std::iter::from_fn(take).map(drop).count();
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        assert_eq!(taken, 150, "within a minute");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(take().is_some());
        tokio::time::advance(Duration::from_secs(61)).await;
        drop(pace.take(&quota(3), &poll, &clock));
        assert_eq!(pace.all().len(), 1, "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn windows_start_as_fully_used_where_another_process_asked() {
        // rule 5
        let (pace, poll, clock) = (Pace::default(), poll(), Clock::simulated(0));
        pace.take_over(&quota(1), &poll, &clock);
        assert!(pace.take(&quota(1), &poll, &clock).is_none());
        assert!(pace.take(&quota(2), &poll, &clock).is_some(), "its own");
        // The minute, and what was on its way.
        tokio::time::advance(Duration::from_secs(69)).await;
        assert!(pace.take(&quota(1), &poll, &clock).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.take(&quota(1), &poll, &clock).is_some());
        tokio::time::advance(Duration::from_secs(61)).await;
        drop(pace.take(&quota(3), &poll, &clock));
        assert_eq!(pace.all().len(), 1, "a take-over is forgotten");
    }
}
