//! Owns how many attempts ended of late, in a lane or in the whole process.
//!
//! It must never stand for longer than two seconds: what is not counted anew is forgotten.

use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A count of this second and of the one before.
#[derive(Debug)]
pub(crate) struct Served {
    since: Instant,
    count: u64,
    before: u64,
}

impl Served {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            before: 0,
        }
    }

    /// One more has ended.
    pub(crate) fn add(&mut self, now: Instant) {
        self.advance(now);
        self.count += 1;
    }

    /// How many ended in a second, of this one and the one before the better.
    pub(crate) fn per_second(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.count.max(self.before)
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= SECOND {
            self.before = if passed < 2 * SECOND { self.count } else { 0 };
            self.count = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_counts_for_two_seconds_at_most() {
        let start = Instant::now();
        let mut served = Served::new(start);
        for _ in 0..5 {
            served.add(start);
        }
        let check = |served: &mut Served, after_ms, expected| {
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(served.per_second(now), expected, "{after_ms} ms");
        };
        check(&mut served, 999, 5);
        check(&mut served, 1_500, 5);
        check(&mut served, 2_600, 0);
        check(&mut served, 9_000, 0);
    }
}
