//! Owns by how much a request may have reached its endpoint later than its turn.
//!
//! It must never be sure that a request arrived before it was answered. The surprise: only the
//! fastest answer of late says how long the way is. An endpoint that seems slow may be one whose
//! requests waited on the way there, and it counts them when they arrive.

use std::time::Duration;

use tokio::time::Instant;

use crate::limiter::Late;

/// The fastest of this time, and up to twice as long, is looked at.
const LATELY: Duration = Duration::from_secs(30);

/// How long requests of a lane take from their turn to their answer.
#[derive(Debug)]
pub(super) struct Transit {
    /// Smoothed mean and deviation, as TCP keeps them (RFC 6298 §2).
    mean: Duration,
    deviation: Duration,
    /// The fastest, of this while and of the one before.
    fastest: [Option<Duration>; 2],
    since: Instant,
}

impl Transit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            mean: Duration::ZERO,
            deviation: Duration::ZERO,
            fastest: [None; 2],
            since: now,
        }
    }

    /// A request was answered `now`, so long after its turn: says how late it may have been.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) -> Late {
        if now >= self.since + LATELY {
            let [last, _] = self.fastest;
            let is_of_late = now < self.since + 2 * LATELY;
            self.fastest = [None, last.filter(|_| is_of_late)];
            self.since = now;
        }
        if self.fastest == [None; 2] {
            (self.mean, self.deviation) = (took, took / 2);
        }
        let is_unusual = took > self.mean + 4 * self.deviation;
        let off = took.abs_diff(self.mean);
        self.deviation = (3 * self.deviation + off) / 4;
        self.mean = (7 * self.mean + took) / 8;
        let [current, before] = &mut self.fastest;
        *current = Some(current.map_or(took, |fastest| fastest.min(took)));
        let fastest = before.iter().chain(current.iter()).min();
        Late {
            by: took.saturating_sub(fastest.copied().unwrap_or(took)),
            is_unusual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_than_the_fastest_may_have_been_late() {
        let ms = Duration::from_millis;
        let mut now = Instant::now();
        let mut transit = Transit::new(now);
        let mut check = |wait: Duration, took: u64, by: u64, is_unusual: bool| {
            now += wait;
            let by = ms(by);
            let expected = Late { by, is_unusual };
            assert_eq!(transit.ended(ms(took), now), expected, "{took} ms");
        };
        // The first of all says nothing.
        check(ms(0), 22, 0, false);
        for _ in 0..100 {
            check(ms(1), 18, 0, false);
            check(ms(1), 22, 4, false);
        }
        check(ms(1), 100, 82, true);
        check(ms(1), 10, 0, false);
        check(LATELY, 18, 8, false);
        // The fastest is too long ago.
        check(LATELY, 20, 2, false);
        check(3 * LATELY, 200, 0, false);
    }
}
