//! Owns the partner's rate limits, and enforces them as its page says them.
//!
//! Pure: the time is told. It must never count a request that it refused. The surprise: what is to
//! come evenly may come a tenth of its window early, since networks deliver in bursts.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use schemas::profile::{Counted, Window};

const SECOND_US: u64 = 1_000_000;
/// The part of a window by which an even pace may be ahead.
const EARLY: u64 = 10;

/// Windows that all hold.
#[derive(Debug, Default)]
pub(super) struct Limiter(Vec<Meter>);

#[derive(Debug)]
struct Meter {
    most: u64,
    span_us: u64,
    counts_items: bool,
    used: Used,
}

#[derive(Debug)]
enum Used {
    /// What was taken when, in the last span.
    Sliding {
        taken: VecDeque<(u64, u64)>,
        sum: u64,
    },
    /// What was taken in the span with this number.
    Fixed { span: u64, sum: u64 },
    /// When the next is due.
    Spread { due_us: u64 },
}

impl Limiter {
    /// The limits that `windows` are.
    pub(super) fn of(windows: &[Window]) -> Self {
        let meters = windows.iter().filter_map(|window| {
            let most = window.requests.or(window.items)?;
            Some(Meter {
                most: u64::from(most.get()),
                span_us: u64::from(window.seconds.get()) * SECOND_US,
                counts_items: window.requests.is_none(),
                used: Used::of(window.counted),
            })
        });
        Self(meters.collect())
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a request with so many items, or says in how many microseconds there is room for it.
    pub(super) fn take(&mut self, now_us: u64, items: u64) -> Result<(), u64> {
        let waits = self.0.iter_mut().map(|meter| {
            let cost = meter.cost(items);
            meter.wait(now_us, cost)
        });
        let wait = waits.max().unwrap_or(0);
        if wait > 0 {
            return Err(wait);
        }
        for meter in &mut self.0 {
            let cost = meter.cost(items);
            meter.spend(now_us, cost);
        }
        Ok(())
    }

    /// Takes all that is left.
    pub(super) fn fill(&mut self, now_us: u64) {
        for meter in &mut self.0 {
            // What takes more than there is waits for what was taken before.
            while meter.wait(now_us, 1) == 0 {
                let cost = meter.left().max(1);
                meter.spend(now_us, cost);
            }
        }
    }
}

impl Used {
    fn of(counted: Counted) -> Self {
        match counted {
            Counted::Sliding => Self::Sliding {
                taken: VecDeque::new(),
                sum: 0,
            },
            Counted::Fixed => Self::Fixed { span: 0, sum: 0 },
            Counted::Spread => Self::Spread { due_us: 0 },
        }
    }
}

impl Meter {
    /// One that is larger than the window takes all of it.
    fn cost(&self, items: u64) -> u64 {
        let cost = if self.counts_items { items } else { 1 };
        cost.min(self.most)
    }

    fn wait(&mut self, now_us: u64, cost: u64) -> u64 {
        let (most, span_us) = (self.most, self.span_us);
        match &mut self.used {
            Used::Sliding { taken, sum } => {
                while let Some((_, gone)) = taken.pop_front_if(|(at, _)| *at + span_us <= now_us) {
                    *sum = sum.saturating_sub(gone);
                }
                let mut over = (*sum + cost).saturating_sub(most);
                let mut wait = 0;
                for (at, count) in taken.iter() {
                    if over == 0 {
                        break;
                    }
                    over = over.saturating_sub(*count);
                    wait = at + span_us - now_us;
                }
                wait
            }
            Used::Fixed { span, sum } => {
                let current = now_us / span_us;
                if *span != current {
                    (*span, *sum) = (current, 0);
                }
                if *sum + cost <= most {
                    return 0;
                }
                (current + 1) * span_us - now_us
            }
            Used::Spread { due_us } => due_us.saturating_sub(now_us + span_us / EARLY),
        }
    }

    fn spend(&mut self, now_us: u64, cost: u64) {
        match &mut self.used {
            Used::Sliding { taken, sum } => {
                taken.push_back((now_us, cost));
                *sum += cost;
            }
            Used::Fixed { sum, .. } => *sum += cost,
            Used::Spread { due_us } => {
                let step = self.span_us.saturating_mul(cost) / self.most.max(1);
                *due_us = (*due_us).max(now_us) + step.max(1);
            }
        }
    }

    fn left(&self) -> u64 {
        match &self.used {
            Used::Sliding { sum, .. } | Used::Fixed { sum, .. } => self.most.saturating_sub(*sum),
            Used::Spread { .. } => 1,
        }
    }
}

/// What `Retry-After` says of a wait.
pub(super) fn whole_seconds(wait_us: u64) -> NonZeroU32 {
    let seconds = u32::try_from(wait_us.div_ceil(SECOND_US)).unwrap_or(u32::MAX);
    NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(count: u32, seconds: u32, counted: Counted, items: bool) -> Limiter {
        let count = NonZeroU32::new(count);
        Limiter::of(&[Window {
            requests: count.filter(|_| !items),
            items: count.filter(|_| items),
            seconds: NonZeroU32::new(seconds).unwrap(),
            counted,
        }])
    }

    #[test]
    fn a_sliding_window_holds_in_any_span() {
        let mut limiter = limiter(3, 2, Counted::Sliding, false);
        for at in [0, 500_000, 900_000] {
            assert_eq!(limiter.take(at, 50), Ok(()));
        }
        assert_eq!(limiter.take(1_000_000, 50), Err(1_000_000));
        assert_eq!(limiter.take(1_999_999, 50), Err(1));
        assert_eq!(limiter.take(2_000_000, 50), Ok(()));
        assert_eq!(limiter.take(2_000_000, 50), Err(500_000));
    }

    #[test]
    fn a_fixed_window_begins_anew_and_counts_what_it_is_told_to() {
        let mut limiter = limiter(100, 10, Counted::Fixed, true);
        assert_eq!(limiter.take(9_000_000, 60), Ok(()));
        assert_eq!(limiter.take(9_000_000, 60), Err(1_000_000));
        assert_eq!(limiter.take(9_000_000, 40), Ok(()));
        assert_eq!(limiter.take(10_000_000, 60), Ok(()));
        // More than the window ever has: it takes a whole one.
        assert_eq!(limiter.take(20_000_000, 1_000), Ok(()));
        assert_eq!(limiter.take(20_000_000, 1), Err(10_000_000));
    }

    #[test]
    fn an_even_pace_is_kept_within_a_tenth() {
        let mut limiter = limiter(10, 1, Counted::Spread, false);
        assert_eq!(limiter.take(0, 1), Ok(()));
        assert_eq!(limiter.take(0, 1), Ok(()), "a tenth early");
        assert_eq!(limiter.take(0, 1), Err(100_000));
        for number in 1..50 {
            assert_eq!(limiter.take(number * 100_000, 1), Ok(()));
        }
    }

    #[test]
    fn a_full_window_has_no_room_until_it_ends() {
        for counted in [Counted::Sliding, Counted::Fixed, Counted::Spread] {
            let mut limiter = limiter(7, 3, counted, false);
            assert_eq!(limiter.take(100, 1), Ok(()));
            limiter.fill(100);
            let wait = limiter.take(100, 1).unwrap_err();
            assert_eq!(limiter.take(100 + wait, 1), Ok(()), "{counted:?}");
            assert!((1..=3).contains(&whole_seconds(wait).get()));
        }
        assert!(Limiter::of(&[]).is_empty());
        assert_eq!(whole_seconds(1_000_001).get(), 2);
    }
}
