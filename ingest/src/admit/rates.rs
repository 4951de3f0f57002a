//! Owns one tenant's rates: events and bytes a second (GCRA, by governor), in this process.
//!
//! Never waits. The surprise: what may come at once is one second's worth, so a request beyond
//! that can never pass and is too large rather than too early.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use runtime::problem::{Problem, ProblemType};
use tokio::time::Instant;

/// Bytes are counted in units of this many, so that a high rate keeps its precision in governor's
/// whole nanoseconds.
const UNIT_BYTES: u64 = 64;
/// 10 ns each: beyond it a rate is no limit to this machine.
const PER_SECOND_MAX: u64 = 100_000_000;

/// The rates of one tenant.
#[derive(Debug)]
pub(crate) struct Rates {
    events: Rate,
    bytes: Rate,
}

/// So many a second.
struct Rate {
    policy: &'static str,
    per_second: u64,
    unit: u64,
    gcra: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Ticks>>,
    clock: TokioClock,
}

/// tokio's time, so that paused time counts.
#[derive(Debug, Clone)]
struct TokioClock {
    base: Instant,
}

/// Nanoseconds since a clock was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticks(u64);

impl Rates {
    /// At least one event and [`UNIT_BYTES`] a second.
    pub(crate) fn new(events_per_second: u64, bytes_per_second: u64) -> Self {
        Self {
            events: Rate::new("tenant-events", events_per_second, 1),
            bytes: Rate::new("tenant-bytes", bytes_per_second, UNIT_BYTES),
        }
    }

    /// Counts events that are about to be written.
    ///
    /// # Errors
    /// 429, or 413 where they are more than the rate takes in a second.
    pub(crate) fn take_events(&self, count: usize) -> Result<(), Problem> {
        self.events.take(count)
    }

    /// Counts bytes of bodies; those of refused requests count, since they are read too.
    ///
    /// # Errors
    /// As [`Rates::take_events`].
    pub(crate) fn take_bytes(&self, count: usize) -> Result<(), Problem> {
        self.bytes.take(count)
    }
}

impl Rate {
    fn new(policy: &'static str, per_second: u64, unit: u64) -> Self {
        let units = per_second.div_ceil(unit).clamp(1, PER_SECOND_MAX);
        let units = u32::try_from(units).ok().and_then(NonZeroU32::new);
        let clock = TokioClock {
            base: Instant::now(),
        };
        let quota = Quota::per_second(units.unwrap_or(NonZeroU32::MIN));
        let gcra = RateLimiter::direct_with_clock(quota, clock.clone());
        Self {
            policy,
            per_second,
            unit,
            gcra,
            clock,
        }
    }

    fn take(&self, count: usize) -> Result<(), Problem> {
        let units = u64::try_from(count).unwrap_or(u64::MAX).div_ceil(self.unit);
        let Some(units) = NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)) else {
            return Ok(());
        };
        match self.gcra.check_n(units) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(self.too_early(refused.wait_time_from(self.clock.now()))),
            Err(_) => Err(self.too_much(count)),
        }
    }

    /// HT-11.
    fn too_early(&self, wait: Duration) -> Problem {
        Problem::new(ProblemType::RateLimited)
            .detail(format!("the tenant may send {} a second", self.per_second))
            .violated(self.policy)
            .retry_after(wait)
    }

    fn too_much(&self, count: usize) -> Problem {
        let limit = self.per_second;
        Problem::new(ProblemType::TooLarge)
            .detail(format!(
                "the request counts {count}, the tenant may send {limit} a second"
            ))
            .violated(self.policy)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate")
            .field("policy", &self.policy)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl Clock for TokioClock {
    type Instant = Ticks;

    fn now(&self) -> Ticks {
        let nanos = self.base.elapsed().as_nanos();
        Ticks(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Add<Nanos> for Ticks {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for Ticks {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, nanos: Nanos) -> Self {
        Self(self.0.saturating_sub(nanos.as_u64()))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn status(taken: Result<(), Problem>) -> Option<StatusCode> {
        taken.err().map(|problem| problem.status())
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_holds_a_seconds_worth_and_no_more() {
        let rates = Rates::new(100, 1_024);
        assert_eq!(status(rates.take_events(60)), None);
        assert_eq!(status(rates.take_events(40)), None);
        assert_eq!(
            status(rates.take_events(1)),
            Some(StatusCode::TOO_MANY_REQUESTS)
        );
        assert_eq!(status(rates.take_events(0)), None);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(status(rates.take_events(50)), None);
        assert_eq!(
            status(rates.take_events(10)),
            Some(StatusCode::TOO_MANY_REQUESTS)
        );
        assert_eq!(
            status(rates.take_bytes(1_024)),
            None,
            "bytes are counted apart"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_never_pass_is_too_large() {
        let rates = Rates::new(10, 1_024);
        assert_eq!(
            status(rates.take_events(11)),
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        );
        assert_eq!(
            status(rates.take_bytes(1_025)),
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        );
        assert_eq!(status(rates.take_events(10)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_high_rate_keeps_its_precision() {
        let rates = Rates::new(u64::MAX, 64 << 20);
        assert_eq!(status(rates.take_events(1_000_000)), None);
        for _ in 0..64 {
            assert_eq!(status(rates.take_bytes(1 << 20)), None);
        }
        assert!(rates.take_bytes(1 << 20).is_err());
        let mut taken = 0;
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            while rates.take_bytes(1 << 16).is_ok() {
                taken += 1_usize << 16;
            }
        }
        let expected = 10 * (64_usize << 20);
        assert!(taken.abs_diff(expected) < expected / 500, "{taken}");
    }
}
