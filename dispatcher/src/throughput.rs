//! Owns how long this process needs for what is queued in it.
//!
//! It must never excuse an endpoint: whether a lane waits for its endpoint or for the process shows
//! where the lane needs longer than all of them together.

use std::time::Duration;

use tokio::time::Instant;

use crate::served::Served;

/// A lane that needs no more than so many times what the process needs is no slower than others:
/// turns are not dealt out more evenly than that.
const UNEVEN: u32 = 2;

/// Attempts that ended of late, and the time that all that is queued takes at that rate.
#[derive(Debug)]
pub(crate) struct Throughput {
    served: Served,
    drain: Duration,
}

impl Throughput {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            served: Served::new(now),
            drain: Duration::ZERO,
        }
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, now: Instant) {
        self.served.add(now);
    }

    /// Looks at how many deliveries are queued, in all lanes together.
    pub(crate) fn measure(&mut self, queued: u64, now: Instant) {
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        self.drain = match u32::try_from(self.served.per_second(now)) {
            Ok(served @ 1..) => Duration::from_secs(1) * queued / served,
            // Nothing ended, or more than can be: there is no saying that the process is slow.
            Ok(0) | Err(_) => Duration::ZERO,
        };
    }

    /// What is queued takes as long, as of the last look.
    pub(crate) fn drain(&self) -> Duration {
        self.drain
    }

    /// A lane that needs no longer than this for what it has queued waits for the process, and not
    /// for its endpoint.
    pub(crate) fn lane_drain_max(&self) -> Duration {
        self.drain.saturating_mul(UNEVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_takes_its_time_at_the_rate_of_late() {
        let now = Instant::now();
        let mut throughput = Throughput::new(now);
        throughput.measure(1_000, now);
        assert_eq!(throughput.drain(), Duration::ZERO, "nothing is known");
        for _ in 0..500 {
            throughput.ended(now);
        }
        throughput.measure(1_000, now);
        assert_eq!(throughput.drain(), Duration::from_secs(2));
        assert_eq!(throughput.lane_drain_max(), Duration::from_secs(4));
        throughput.measure(1_000, now + Duration::from_secs(5));
        assert_eq!(throughput.drain(), Duration::ZERO, "nothing ended of late");
    }
}
