//! Owns the plan of a lane without limits: when what is deferred is due, at the rate that was
//! measured.
//!
//! It must never hold a delivery for long on a guess: half a minute, or the tier behind the one that
//! it has just waited for. The surprise: the plan shrinks as soon as attempts turn out to take less
//! than was assumed, and what lies beyond its reach is due together.

use std::time::Duration;

use tokio::time::Instant;

use crate::schedule::Tier;

/// How far ahead a delivery may be planned, by the source it was read from: `deliveries`, then the
/// delay tiers. Whole tiers, so that each is one hop, and a backlog is rewritten five times before it
/// waits for a quarter of a day.
const REACHES: [Tier; 6] = [
    Tier::Seconds30,
    Tier::Seconds30,
    Tier::Minutes2,
    Tier::Minutes10,
    Tier::Hours1,
    Tier::Hours6,
];

/// What is planned at a measured rate.
#[derive(Debug, Default)]
pub(super) struct Guess {
    /// What one delivery was assumed to cost, on average of those that are planned.
    cost: Duration,
}

/// How far ahead a delivery may be planned that was read from this source.
pub(super) fn reach(source: usize) -> Duration {
    let tier = REACHES.get(source).or(REACHES.last());
    tier.map_or(Duration::ZERO, |tier| tier.delay())
}

impl Guess {
    /// Plans one delivery that costs this much at `start`, not beyond `latest`, and says when the
    /// next is free.
    pub(super) fn plan(
        &mut self,
        (start, latest): (Instant, Instant),
        cost: Duration,
        now: Instant,
    ) -> Instant {
        if start >= latest {
            return start;
        }
        let ahead = start.saturating_duration_since(now);
        self.cost = (ahead + cost).div_f64(self.turns(ahead) + 1.0);
        start + cost
    }

    /// When the next is free, where one costs this much now: sooner than was planned if that is
    /// less.
    pub(super) fn revised(&mut self, next_free: Instant, cost: Duration, now: Instant) -> Instant {
        if cost >= self.cost || next_free <= now {
            return next_free;
        }
        let turns = self.turns(next_free.saturating_duration_since(now));
        self.cost = cost;
        now + cost.mul_f64(turns)
    }

    /// How many were planned in this time.
    fn turns(&self, ahead: Duration) -> f64 {
        if self.cost.is_zero() {
            0.0
        } else {
            ahead.div_duration_f64(self.cost)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_reach_is_the_tier_behind_the_last_and_has_an_end() {
        let check = |source, expected| assert_eq!(reach(source), expected, "source {source}");
        check(0, ms(30_000));
        for (at, tier) in Tier::ALL.iter().enumerate() {
            let next = Tier::ALL.get(at + 1).unwrap_or(tier);
            check(at + 1, next.delay().min(Duration::from_hours(6)));
        }
    }

    #[test]
    fn a_plan_shrinks_with_what_its_deliveries_turn_out_to_cost() {
        let now = Instant::now();
        let latest = now + reach(0);
        let mut guess = Guess::default();
        let mut next_free = now;
        // A thousand at 1 ms, and while time stood still ten at 100 ms.
        for cost in std::iter::repeat_n(ms(1), 1_000).chain(std::iter::repeat_n(ms(100), 10)) {
            next_free = guess.plan((next_free, latest), cost, now);
        }
        let near = |found: Instant, expected: Duration| {
            let found = found - now;
            assert!(found.abs_diff(expected) < ms(1), "{found:?}");
        };
        near(next_free, ms(2_000));
        assert_eq!(guess.revised(next_free, ms(100), now), next_free);
        next_free = guess.revised(next_free, ms(1), now);
        near(next_free, ms(1_010));
        // What is over cannot shrink.
        let later = now + ms(5_000);
        assert_eq!(guess.revised(next_free, Duration::ZERO, later), next_free);
    }

    #[test]
    fn nothing_is_planned_beyond_the_reach() {
        let now = Instant::now();
        let latest = now + reach(0);
        let mut guess = Guess::default();
        let mut next_free = now;
        for _ in 0..50_000 {
            next_free = guess.plan((next_free, latest), ms(7), now);
        }
        assert!(next_free >= latest && next_free < latest + ms(7));
    }
}
