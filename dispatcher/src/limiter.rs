//! Owns "may this lane make an attempt now?": one rate window (GCRA, by governor).
//!
//! Never sleeps and reads no clock: the caller passes the time, so paused time and simulations
//! work. The surprise: a window of up to [`STARTS_USED_MAX`] starts as fully used when a lane is
//! taken over, because the predecessor may have spent it a moment ago (rule 5).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// The longest window that starts as used; a longer one is handed over through `progress`.
pub const STARTS_USED_MAX: Duration = Duration::from_secs(10);

/// The longest window there is: a leap year.
pub const WINDOW_MAX: Duration = Duration::from_hours(366 * 24);

/// So many attempts per so much time, of which `burst` may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

/// Why a rate cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The count or the burst is 0.
    #[error("rate: count and burst must be at least 1")]
    Zero,
    /// Less than a nanosecond for each attempt, or a burst that takes longer than
    /// [`WINDOW_MAX`] to be whole again.
    #[error("rate: one attempt per {interval:?} and {burst} at once cannot be kept")]
    Interval {
        /// The time of one attempt.
        interval: Duration,
        /// How many may come at once.
        burst: NonZeroU32,
    },
}

/// Counts one lane's attempts against its [`Rate`].
#[derive(Debug)]
pub struct Limiter {
    gcra: RateLimiter<NotKeyed, InMemoryState, GivenClock, NoOpMiddleware<Ticks>>,
    clock: GivenClock,
    rate: Rate,
}

/// Shows the time that the caller gave last, as nanoseconds since the limiter was made.
#[derive(Clone, Debug)]
struct GivenClock {
    base: Instant,
    now_nanos: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticks(u64);

// === impl Rate ===

impl Rate {
    /// `count` attempts per `per`, at most `burst` at once.
    ///
    /// # Errors
    /// [`RateError`]
    pub fn try_new(count: u32, per: Duration, burst: u32) -> Result<Self, RateError> {
        let count = NonZeroU32::new(count).ok_or(RateError::Zero)?;
        let burst = NonZeroU32::new(burst).ok_or(RateError::Zero)?;
        let interval = per / count.get();
        let rate = Self { count, per, burst };
        if interval.is_zero() || rate.window() > WINDOW_MAX {
            return Err(RateError::Interval { interval, burst });
        }
        Ok(rate)
    }

    /// The time that one attempt costs at this rate.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.per / self.count.get()
    }

    /// The time after which a used-up window is whole again.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.per
            .max(self.interval().saturating_mul(self.burst.get()))
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter with its whole burst to spend.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        let clock = GivenClock {
            base: now,
            now_nanos: Arc::default(),
        };
        let quota = Quota::with_period(rate.interval())
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(rate.burst);
        let gcra = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { gcra, clock, rate }
    }

    /// A limiter for a lane that was just taken over: a window of up to [`STARTS_USED_MAX`] starts
    /// as fully used (rule 5).
    #[must_use]
    pub fn starting_used(rate: Rate, now: Instant) -> Self {
        let limiter = Self::new(rate, now);
        if rate.window() <= STARTS_USED_MAX {
            // A whole burst is what a new limiter always grants.
            let spent = limiter.gcra.check_n(rate.burst);
            debug_assert!(
                matches!(spent, Ok(Ok(()))),
                "a new limiter grants its burst"
            );
        }
        limiter
    }

    /// Takes one attempt's turn.
    ///
    /// # Errors
    /// The earliest time at which a turn is free.
    pub fn try_take(&self, now: Instant) -> Result<(), Instant> {
        self.clock.advance_to(now);
        self.gcra.check().map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            self.clock.shown() + wait
        })
    }

    /// The rate that is kept.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }
}

// === impl GivenClock ===

impl GivenClock {
    fn advance_to(&self, now: Instant) {
        let nanos = u64::try_from(now.saturating_duration_since(self.base).as_nanos());
        // Time never goes back, whatever order callers come in.
        self.now_nanos
            .fetch_max(nanos.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn shown(&self) -> Instant {
        self.base + Duration::from_nanos(self.now_nanos.load(Ordering::Relaxed))
    }
}

impl Clock for GivenClock {
    type Instant = Ticks;

    fn now(&self) -> Ticks {
        Ticks(self.now_nanos.load(Ordering::Relaxed))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(count: u32, per: Duration, burst: u32) -> Rate {
        Rate::try_new(count, per, burst).unwrap()
    }

    /// How many turns are taken in `span` by a caller that comes back exactly when told.
    fn turns(limiter: &Limiter, from: Instant, span: Duration) -> u32 {
        let (mut now, mut taken) = (from, 0);
        while now < from + span {
            match limiter.try_take(now) {
                Ok(()) => taken += 1,
                Err(earliest) => {
                    assert!(earliest > now, "a refusal names a later time");
                    now = earliest;
                }
            }
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn the_burst_comes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let limiter = Limiter::new(rate(10, Duration::from_secs(1), 5), start);
        for _ in 0..5 {
            assert_eq!(limiter.try_take(start), Ok(()));
        }
        let interval = Duration::from_millis(100);
        assert_eq!(limiter.try_take(start), Err(start + interval));
        assert_eq!(
            limiter.try_take(start + interval / 2),
            Err(start + interval)
        );
        assert_eq!(limiter.try_take(start + interval), Ok(()));
        assert_eq!(
            turns(&limiter, start + interval, Duration::from_secs(10)),
            100 - 1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_window_starts_used_at_take_over() {
        // rule 5
        let start = Instant::now();
        let limiter = Limiter::starting_used(rate(2, Duration::from_secs(1), 2), start);
        assert_eq!(
            limiter.try_take(start),
            Err(start + Duration::from_millis(500))
        );
        assert_eq!(limiter.try_take(start + Duration::from_millis(500)), Ok(()));
        let hourly = Limiter::starting_used(rate(1000, Duration::from_hours(1), 10), start);
        assert_eq!(hourly.try_take(start), Ok(()));
    }

    #[test]
    fn impossible_rates_are_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Rate::try_new(0, second, 1), Err(RateError::Zero));
        assert_eq!(Rate::try_new(1, second, 0), Err(RateError::Zero));
        assert!(matches!(
            Rate::try_new(1, Duration::ZERO, 1),
            Err(RateError::Interval { .. })
        ));
        assert!(Rate::try_new(1, Duration::from_hours(24), 366).is_ok());
        assert!(Rate::try_new(1, Duration::from_hours(24), 367).is_err());
        assert!(Rate::try_new(1, Duration::MAX, 2).is_err());
        assert_eq!(rate(10, second, 20).window(), 2 * second);
        assert_eq!(rate(10, second, 5).window(), second);
    }

    proptest! {
        #[test]
        fn no_window_is_ever_exceeded(
            count in 1_u32..50,
            per_ms in 100_u64..5_000,
            burst in 1_u32..60,
            steps in proptest::collection::vec(0_u64..400, 1..300),
        ) {
            let per = Duration::from_millis(per_ms);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let limiter = Limiter::new(rate(count, per, burst), start);
            let (mut now, mut taken) = (start, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                if limiter.try_take(now).is_ok() {
                    taken.push(now);
                }
            }
            // In any span there are at most a burst and what the rate refilled meanwhile.
            let interval = per / count;
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let refilled = (*to - *from).as_nanos() / interval.as_nanos();
                    prop_assert!((last - first) as u128 <= u128::from(burst) + refilled);
                }
            }
        }
    }
}
