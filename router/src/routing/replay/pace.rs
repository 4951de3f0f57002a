//! Owns how fast past events go: so many deliveries a second of one source partition.
//!
//! It must never save up what was not used, beyond a moment's worth. It reads no clock. The
//! surprise: an event has its targets together, so a large one goes whole and is paid for after.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// What may go at once after a rest.
const MOMENT: Duration = Duration::from_millis(50);

/// The pace of one source partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: NonZeroU32,
    paid_until: Instant,
}

impl Pace {
    /// So many a second, from `now` on.
    pub(super) fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self {
            rate,
            paid_until: now,
        }
    }

    /// When the next may go.
    pub(super) fn due(&self) -> Instant {
        self.paid_until
            .checked_sub(MOMENT)
            .unwrap_or(self.paid_until)
    }

    /// How many may go now: at least one when it is due.
    pub(super) fn room(&self, now: Instant) -> usize {
        let Some(spare) = now.checked_duration_since(self.due()) else {
            return 0;
        };
        let nanos = spare.min(MOMENT).as_nanos() * u128::from(self.rate.get());
        usize::try_from(nanos / 1_000_000_000)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Notes that so many went.
    pub(super) fn spend(&mut self, count: usize, now: Instant) {
        let nanos = (count as u128) * 1_000_000_000 / u128::from(self.rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.paid_until.max(now);
        self.paid_until = from.checked_add(cost).unwrap_or(from);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_one_is_paid_for_after_it_went() {
        let start = Instant::now();
        let mut pace = Pace::new(rate(1_000), start);
        assert_eq!(pace.room(start), 50, "a moment's worth");
        pace.spend(1_000, start);
        assert_eq!(pace.room(start), 0);
        let due = pace.due();
        assert_eq!(due, start + Duration::from_millis(950));
        assert_eq!(pace.room(due), 1);
        assert_eq!(
            pace.room(due + Duration::from_secs(100)),
            50,
            "nothing is saved up"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pace_still_goes() {
        let start = Instant::now();
        let mut pace = Pace::new(rate(1), start);
        assert_eq!(pace.room(start), 1);
        pace.spend(1, start);
        assert_eq!(pace.room(start + Duration::from_millis(900)), 0);
        assert_eq!(pace.room(start + Duration::from_millis(950)), 1);
    }

    proptest! {
        /// Over any span no more goes than the rate allows, a moment's worth and one event aside.
        #[test]
        fn the_rate_is_kept(
            per_second in 1_u32..100_000,
            steps in prop::collection::vec((0_u64..200, 1_usize..20), 1..100),
        ) {
            let start = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
                .block_on(async { Instant::now() });
            let mut pace = Pace::new(rate(per_second), start);
            let (mut now, mut sent, mut largest) = (start, 0_usize, 0_usize);
            for (wait, wanted) in steps {
                now += Duration::from_millis(wait);
                let room = pace.room(now);
                if room > 0 {
                    let count = wanted.max(room.min(wanted));
                    pace.spend(count, now);
                    sent += count;
                    largest = largest.max(count);
                }
                let elapsed = (now - start + MOMENT).as_secs_f64();
                let allowed = elapsed * f64::from(per_second) + 1.0;
                let allowed = allowed + f64::from(u32::try_from(largest).unwrap());
                prop_assert!(f64::from(u32::try_from(sent).unwrap()) <= allowed);
            }
        }
    }
}
