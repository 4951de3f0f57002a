//! Owns a window that is spent evenly: GCRA, by governor, over a state that can be read and set.
//!
//! It reads no clock. The surprise: the state is one moment, at which everything spent is whole
//! again; so it is saved and restored as a number.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::WINDOW_MAX_NS;

/// Counts against "one each interval, so many at once". Times are unix nanoseconds.
#[derive(Debug)]
pub(super) struct Spread {
    gcra: RateLimiter<NotKeyed, WholeAt, Shown, NoOpMiddleware<Ticks>>,
    whole_at: WholeAt,
    shown: Shown,
    interval: u64,
    burst: NonZeroU32,
}

/// When everything that was spent is whole again.
#[derive(Clone, Debug, Default)]
struct WholeAt(Arc<AtomicU64>);

/// Shows the time that the caller gave last.
#[derive(Clone, Debug, Default)]
struct Shown(Arc<AtomicU64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticks(u64);

impl Spread {
    /// `count` in `per` nanoseconds, of which `burst` may come at once: what no window can hold is
    /// cut to what it can.
    pub(super) fn new(count: NonZeroU32, per: u64, burst: NonZeroU32) -> Self {
        let interval = (per / u64::from(count.get())).max(1);
        let most = u32::try_from(WINDOW_MAX_NS / interval).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(most).map_or(NonZeroU32::MIN, |most| most.min(burst));
        let (whole_at, shown) = (WholeAt::default(), Shown::default());
        let quota = Quota::with_period(std::time::Duration::from_nanos(interval))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        // Made while the clock shows 0, so that its state is a time since the epoch.
        let gcra = RateLimiter::new(quota, whole_at.clone(), shown.clone());
        Self {
            gcra,
            whole_at,
            shown,
            interval,
            burst,
        }
    }

    /// Takes `n`, or says when they are free.
    pub(super) fn take(&self, now: u64, n: NonZeroU32) -> Result<(), u64> {
        self.shown.0.store(now, Ordering::Relaxed);
        match self.gcra.check_n(n) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(refused.earliest_possible().0.max(now + 1)),
            Err(_too_many_at_once) => Err(now.saturating_add(WINDOW_MAX_NS)),
        }
    }

    /// Whether `n` are free, and from when on.
    pub(super) fn check(&self, now: u64, n: NonZeroU32) -> Result<(), u64> {
        let before = self.whole_at();
        let outcome = self.take(now, n);
        self.set_whole_at(before);
        outcome
    }

    /// Counts `n` as spent, free or not.
    pub(super) fn charge(&self, now: u64, n: u64) {
        let cost = self.interval.saturating_mul(n).min(WINDOW_MAX_NS);
        self.set_whole_at(self.whole_at().max(now).saturating_add(cost));
    }

    /// How many are free now.
    pub(super) fn room(&self, now: u64) -> u64 {
        let most = self.interval.saturating_mul(u64::from(self.burst.get()));
        most.saturating_sub(self.whole_at().saturating_sub(now)) / self.interval
    }

    pub(super) fn whole_at(&self) -> u64 {
        self.whole_at.0.load(Ordering::Relaxed)
    }

    pub(super) fn set_whole_at(&self, at: u64) {
        self.whole_at.0.store(at, Ordering::Relaxed);
    }

    pub(super) const fn burst(&self) -> NonZeroU32 {
        self.burst
    }
}

impl StateStore for WholeAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let before = Nanos::from(self.0.load(Ordering::Relaxed));
        let (outcome, after) = measure(Some(before))?;
        self.0.store(after.as_u64(), Ordering::Relaxed);
        Ok(outcome)
    }
}

impl Clock for Shown {
    type Instant = Ticks;

    fn now(&self) -> Ticks {
        Ticks(self.0.load(Ordering::Relaxed))
    }
}

impl std::ops::Add<Nanos> for Ticks {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for Ticks {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.as_u64()).unwrap_or(self.0))
    }
}
