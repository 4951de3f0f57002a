//! Owns when a delivery is attempted next: the retry schedule (WH-15) and the delay tiers.
//!
//! Pure; never sleeps, callers do. A `Retry-After` lengthens a wait and never shortens it
//! (rule 11); jitter never costs an attempt that still fits before the delivery's maximum age.

use std::time::Duration;

use schemas::resources::RetryJitter;

/// Waits after the first, immediate attempt (WH-15).
pub const DEFAULT_SCHEDULE: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// How long after its acceptance a delivery ends, whatever its attempts.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_hours(76);

/// A wait up to this long is held in memory (rule 7).
pub const MEMORY_WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest that a delivery waits before it is seen that its endpoint is paused no more.
const PAUSED_WAIT_MAX: Duration = Duration::from_hours(1);

const JITTER: f64 = 0.2;

/// What a delivery's retries follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first attempt, after the second, and so on.
    pub delays: Vec<Duration>,
    /// How each wait is spread.
    pub jitter: RetryJitter,
    /// Counted from acceptance; no attempt is due later.
    pub max_age: Duration,
}

/// A delivery that was just attempted and not delivered.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// Now, unix milliseconds.
    pub now_ms: i64,
    /// When the event was accepted, unix milliseconds.
    pub accepted_at_ms: i64,
    /// Attempts that count on the schedule, the one just made included if it does.
    pub attempts_made: u32,
    /// What the endpoint asked for.
    pub retry_after: Option<Duration>,
    /// A random number, 0 ≤ jitter < 1.
    pub jitter: f64,
}

/// A delay topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// 5 seconds.
    Seconds5,
    /// 30 seconds.
    Seconds30,
    /// 2 minutes.
    Minutes2,
    /// 10 minutes.
    Minutes10,
    /// 1 hour.
    Hours1,
    /// 6 hours.
    Hours6,
    /// 24 hours.
    Hours24,
}

/// The jittered wait after `attempts_made` attempts; `None` when they are used up.
///
/// An attempt that cost nothing may leave `attempts_made` at 0; it waits like the first.
#[must_use]
pub fn next_delay(schedule: &Schedule, attempts_made: u32, jitter: f64) -> Option<Duration> {
    let delay = step(&schedule.delays, attempts_made)?;
    let jitter = jitter.clamp(0.0, 1.0);
    let factor = match schedule.jitter {
        RetryJitter::Small => 1.0 - JITTER + 2.0 * JITTER * jitter,
        RetryJitter::Full => jitter,
    };
    Some(Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX))
}

/// When the next attempt is due, unix milliseconds; `None` when there is none any more.
///
/// Never earlier than the endpoint asked for, never later than the delivery's maximum age.
#[must_use]
pub fn due_at(schedule: &Schedule, attempted: &Attempted) -> Option<i64> {
    let Attempted {
        now_ms,
        accepted_at_ms,
        attempts_made,
        retry_after,
        jitter,
    } = *attempted;
    let shortest = next_delay(schedule, attempts_made, 0.0)?;
    let jittered = next_delay(schedule, attempts_made, jitter)?;
    let asked = retry_after.unwrap_or_default();
    let after = |wait: Duration| now_ms.saturating_add(millis_rounded_up(wait));
    let ends_at = accepted_at_ms.saturating_add(millis_rounded_up(schedule.max_age));
    if after(shortest.max(asked)) > ends_at {
        return None;
    }
    Some(after(jittered.max(asked)).min(ends_at))
}

/// How many attempts a delivery of this age would have had, had each been made when it was due: so
/// much is lost of its schedule while nothing can be attempted. The last attempt is never lost.
#[must_use]
pub fn attempts_by_age(delays: &[Duration], attempts_made: u32, age: Duration) -> u32 {
    let mut due = Duration::ZERO;
    let passed = delays.iter().take_while(|delay| {
        let was_due = due <= age;
        due = due.saturating_add(**delay);
        was_due
    });
    let passed = u32::try_from(passed.count()).unwrap_or(u32::MAX);
    attempts_made.max(passed)
}

/// How long a delivery of this age waits whose endpoint is paused: a whole tier, no longer than
/// twice its age and a little. So what came in a short pause goes soon after it, and a long one
/// rewrites its backlog a few times.
#[must_use]
pub fn paused_wait(age: Duration) -> Duration {
    let longest = (age * 2).clamp(MEMORY_WAIT_MAX, PAUSED_WAIT_MAX);
    let fits = Tier::ALL.into_iter().rfind(|tier| tier.delay() <= longest);
    fits.unwrap_or(Tier::Seconds5).delay()
}

/// The delay topic for a delivery with `remaining` to wait out of `whole`; `None` means that it
/// waits in memory (at most [`MEMORY_WAIT_MAX`]).
///
/// The largest tier that fits, or the next one while that overshoots by at most a tenth of the
/// whole wait: so a hop is late by 10 % at most, never early.
#[must_use]
pub fn tier_for(remaining: Duration, whole: Duration) -> Option<Tier> {
    if remaining <= MEMORY_WAIT_MAX {
        return None;
    }
    let latest = remaining.saturating_add(whole.max(remaining) / 10);
    Tier::ALL
        .into_iter()
        .rfind(|tier| tier.delay() <= remaining)
        .max(
            Tier::ALL
                .into_iter()
                .find(|tier| tier.delay() > remaining && tier.delay() <= latest),
        )
}

fn step(delays: &[Duration], attempts_made: u32) -> Option<Duration> {
    let index = usize::try_from(attempts_made.max(1) - 1).ok()?;
    delays.get(index).copied()
}

/// Rounded up, so that no wait is cut short.
fn millis_rounded_up(wait: Duration) -> i64 {
    i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

// === impl Schedule ===

impl Default for Schedule {
    fn default() -> Self {
        Self {
            delays: DEFAULT_SCHEDULE.to_vec(),
            jitter: RetryJitter::default(),
            max_age: DEFAULT_MAX_AGE,
        }
    }
}

// === impl Tier ===

impl Tier {
    /// Every tier, shortest first.
    pub const ALL: [Self; 7] = [
        Self::Seconds5,
        Self::Seconds30,
        Self::Minutes2,
        Self::Minutes10,
        Self::Hours1,
        Self::Hours6,
        Self::Hours24,
    ];

    /// How long a record of this tier waits, from its append time.
    #[must_use]
    pub const fn delay(self) -> Duration {
        match self {
            Self::Seconds5 => Duration::from_secs(5),
            Self::Seconds30 => Duration::from_secs(30),
            Self::Minutes2 => Duration::from_mins(2),
            Self::Minutes10 => Duration::from_mins(10),
            Self::Hours1 => Duration::from_hours(1),
            Self::Hours6 => Duration::from_hours(6),
            Self::Hours24 => Duration::from_hours(24),
        }
    }

    /// The last part of its topic's name, after `delay.`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds5 => "5s",
            Self::Seconds30 => "30s",
            Self::Minutes2 => "2m",
            Self::Minutes10 => "10m",
            Self::Hours1 => "1h",
            Self::Hours6 => "6h",
            Self::Hours24 => "24h",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(delays: &[Duration]) -> Schedule {
        Schedule {
            delays: delays.to_vec(),
            ..Schedule::default()
        }
    }

    fn attempted(attempts_made: u32) -> Attempted {
        Attempted {
            now_ms: 1_000,
            accepted_at_ms: 0,
            attempts_made,
            retry_after: None,
            jitter: 0.5,
        }
    }

    #[test]
    fn the_default_schedule_is_the_specifications() {
        // WH-15
        let total: Duration = DEFAULT_SCHEDULE.iter().sum();
        assert_eq!(total, secs(75 * 3600 + 35 * 60 + 5));
        assert!(total < DEFAULT_MAX_AGE);
    }

    #[test]
    fn the_schedule_advances_by_age_and_the_last_attempt_is_kept() {
        let delays = [secs(5), secs(300), secs(1_800)];
        let check = |made: u32, age: u64, expected: u32| {
            let advanced = attempts_by_age(&delays, made, secs(age));
            assert_eq!(advanced, expected, "{made} made at {age} s");
            assert!(next_delay(&of(&delays), advanced, 0.5).is_some());
        };
        check(0, 0, 1);
        check(0, 4, 1);
        check(0, 5, 2);
        check(0, 304, 2);
        check(0, 305, 3);
        check(0, 1_000_000, 3);
        check(3, 0, 3);
        assert_eq!(attempts_by_age(&[], 0, secs(9)), 0);
    }

    #[test]
    fn a_pause_is_late_by_twice_its_length_and_rewrites_little() {
        let mut age = Duration::ZERO;
        let mut ends = Vec::new();
        while age < secs(86_400) {
            let wait = paused_wait(age);
            assert!(wait <= secs(5).max(age * 2), "{wait:?} at {age:?}");
            age += wait;
            ends.push(age);
        }
        let within = |pause: u64| ends.iter().filter(|end| **end < secs(pause)).count();
        assert!(within(30) <= 4, "{ends:?}");
        assert!(within(600) <= 10, "{ends:?}");
        assert!(within(6 * 3_600) <= 20, "{ends:?}");
    }

    #[test]
    fn jitter_spreads_each_wait_by_a_fifth() {
        let check = |delays: &[Duration], made, jitter, expected| {
            let found = next_delay(&of(delays), made, jitter);
            assert_eq!(found, expected, "{delays:?} after {made} at {jitter}");
        };
        let delays = [secs(10), secs(100)];
        check(&delays, 1, 0.0, Some(secs(8)));
        check(&delays, 1, 0.5, Some(secs(10)));
        check(&delays, 1, 1.0, Some(secs(12)));
        check(&delays, 2, 0.5, Some(secs(100)));
        check(&delays, 3, 0.5, None);
        check(&delays, 0, 0.5, Some(secs(10)));
        check(&[], 0, 0.5, None);
        check(&[Duration::MAX], 1, 1.0, Some(Duration::MAX));
    }

    #[test]
    fn full_jitter_takes_any_part_of_the_wait_and_obeys_retry_after() {
        let schedule = Schedule {
            jitter: RetryJitter::Full,
            ..of(&[secs(10), secs(100)])
        };
        let check = |made, jitter, expected| {
            let found = next_delay(&schedule, made, jitter);
            assert_eq!(found, Some(expected), "after {made} at {jitter}");
        };
        check(1, 0.0, secs(0));
        check(1, 0.5, secs(5));
        check(2, 1.0, secs(100));
        assert_eq!(next_delay(&schedule, 3, 0.0), None);
        let asked = Attempted {
            retry_after: Some(secs(7)),
            jitter: 0.1,
            ..attempted(1)
        };
        assert_eq!(due_at(&schedule, &asked), Some(8_000), "rule 11");
    }

    #[test]
    fn due_at_is_the_later_of_schedule_and_retry_after() {
        // rule 11
        let schedule = Schedule::default();
        let due = |retry_after: Option<u64>| {
            let retry_after = retry_after.map(secs);
            due_at(
                &schedule,
                &Attempted {
                    retry_after,
                    ..attempted(1)
                },
            )
        };
        assert_eq!(due(None), Some(6_000));
        assert_eq!(due(Some(3)), Some(6_000));
        assert_eq!(due(Some(60)), Some(61_000));
        assert_eq!(due(Some(76 * 3600 - 1)), Some(76 * 3_600_000));
        assert_eq!(due(Some(76 * 3600)), None);
        assert_eq!(due_at(&schedule, &attempted(10)), None);
    }

    #[test]
    fn jitter_never_costs_the_last_attempt() {
        let schedule = Schedule {
            delays: vec![secs(100)],
            max_age: secs(105),
            ..Schedule::default()
        };
        let due = |jitter, now_ms| {
            due_at(
                &schedule,
                &Attempted {
                    jitter,
                    now_ms,
                    ..attempted(1)
                },
            )
        };
        assert_eq!(due(0.5, 0), Some(100_000));
        assert_eq!(due(1.0, 0), Some(105_000));
        assert_eq!(due(0.0, 25_000), Some(105_000));
        assert_eq!(due(0.0, 25_001), None);
    }

    #[test]
    fn tiers_fit_or_overshoot_by_a_tenth() {
        let check = |remaining: u64, whole: u64, expected: Option<Tier>| {
            assert_eq!(
                tier_for(secs(remaining), secs(whole)),
                expected,
                "{remaining}/{whole}"
            );
        };
        check(0, 0, None);
        check(5, 300, None);
        check(6, 6, Some(Tier::Seconds5));
        check(27, 27, Some(Tier::Seconds5));
        check(28, 28, Some(Tier::Seconds30));
        check(30, 30, Some(Tier::Seconds30));
        check(10, 200, Some(Tier::Seconds30));
        check(10, 190, Some(Tier::Seconds5));
        check(300, 300, Some(Tier::Minutes2));
        check(109, 110, Some(Tier::Minutes2));
        check(108, 110, Some(Tier::Seconds30));
        check(3_600, 3_600, Some(Tier::Hours1));
        check(400_000, 400_000, Some(Tier::Hours24));
    }

    #[test]
    fn tiers_are_named_after_their_delay() {
        let names: Vec<_> = Tier::ALL.iter().map(|tier| tier.as_str()).collect();
        assert_eq!(names, ["5s", "30s", "2m", "10m", "1h", "6h", "24h"]);
        assert!(Tier::ALL.is_sorted_by_key(|tier| tier.delay()));
    }

    proptest! {
        #[test]
        fn a_retry_after_is_never_undershot(
            attempts in 0_u32..12,
            asked_ms in 0_u64..200_000_000,
            jitter in 0.0..1.0,
            now_ms in 0_i64..300_000_000,
        ) {
            let schedule = Schedule::default();
            let asked = Duration::from_millis(asked_ms);
            let attempted = Attempted { retry_after: Some(asked), jitter, now_ms, ..attempted(attempts) };
            if let Some(due) = due_at(&schedule, &attempted) {
                prop_assert!(due >= now_ms + i64::try_from(asked_ms).unwrap());
                prop_assert!(due <= 76 * 3_600_000);
                prop_assert!(due > now_ms);
            }
        }

        #[test]
        fn hops_end_neither_early_nor_a_tenth_late(whole_ms in 1_u64..280_000_000, lag_ms in 0_u64..500) {
            let whole = Duration::from_millis(whole_ms);
            let lag = Duration::from_millis(lag_ms);
            let (mut waited, mut hops) = (Duration::ZERO, 0);
            while let Some(tier) = tier_for(whole.saturating_sub(waited), whole) {
                waited += tier.delay() + lag;
                hops += 1;
            }
            let ends = waited.max(whole);
            prop_assert!(ends <= whole + whole / 10 + lag);
            prop_assert!(hops <= 16, "{} hops", hops);
        }
    }
}
