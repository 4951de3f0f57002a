//! Owns one tenant's fair share: events and bytes a second, in this process, beyond which its
//! events go to `events.bulk`.
//!
//! Never refuses and never waits: what beyond the share means is for the caller. The surprise: a
//! batch of more than one second's worth is within the share once all of a second is unused, and
//! the share is then overdrawn, so that the average holds whatever the batches' sizes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So much a second; none where it does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShareRates {
    pub(crate) events: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

impl ShareRates {
    /// With the others' where it has none of its own.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            events: self.events.or(others.events),
            bytes: self.bytes.or(others.bytes),
        }
    }
}

/// What a tenant may send before it makes way for others.
#[derive(Debug)]
pub(crate) struct Share {
    rates: ShareRates,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
    /// When they were filled last.
    at: Instant,
}

/// What is left, up to one second's worth.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_second: f64,
    left: f64,
}

impl Share {
    pub(crate) fn new(rates: ShareRates) -> Self {
        Self {
            rates,
            buckets: Mutex::new(Buckets {
                events: rates.events.map(Bucket::full),
                bytes: rates.bytes.map(Bucket::full),
                at: Instant::now(),
            }),
        }
    }

    pub(crate) fn rates(&self) -> ShareRates {
        self.rates
    }

    /// Takes events and their bytes from the share, both or neither.
    ///
    /// # Errors
    /// How long until they are within it, where they are beyond it now.
    pub(crate) fn take(&self, events: usize, bytes: usize) -> Result<(), Duration> {
        if self.rates == ShareRates::default() {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.fill(Instant::now());
        let (events, bytes) = (count(events), count(bytes));
        let wait = |bucket: &Option<Bucket>, cost| bucket.map_or(0.0, |bucket| bucket.wait(cost));
        let wait = wait(&buckets.events, events).max(wait(&buckets.bytes, bytes));
        if wait > 0.0 {
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        let Buckets {
            events: event_bucket,
            bytes: byte_bucket,
            ..
        } = &mut *buckets;
        for (bucket, cost) in [(event_bucket, events), (byte_bucket, bytes)] {
            if let Some(bucket) = bucket {
                bucket.left -= cost;
            }
        }
        Ok(())
    }
}

impl Buckets {
    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        for bucket in [&mut self.events, &mut self.bytes].into_iter().flatten() {
            let more = bucket.per_second * seconds;
            bucket.left = (bucket.left + more).min(bucket.per_second);
        }
    }
}

impl Bucket {
    fn full(per_second: u64) -> Self {
        let per_second = count(per_second);
        Self {
            per_second,
            left: per_second,
        }
    }

    /// Seconds until there is enough for `cost`: for all of it, or for a second's worth.
    fn wait(self, cost: f64) -> f64 {
        (cost.min(self.per_second) - self.left) / self.per_second
    }
}

/// A count as a number with a fraction: precise up to 2^53, which no body reaches.
fn count(number: impl TryInto<u64>) -> f64 {
    let number = number.try_into().unwrap_or(u64::MAX);
    let (high, low) = (number >> 32, number & u64::from(u32::MAX));
    let part = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(events: Option<u64>, bytes: Option<u64>) -> Share {
        Share::new(ShareRates { events, bytes })
    }

    #[tokio::test(start_paused = true)]
    async fn no_share_is_never_exceeded() {
        let share = share(None, None);
        for _ in 0..10_000 {
            assert_eq!(share.take(1_000, 1 << 30), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn both_are_taken_or_neither() {
        let share = share(Some(10), Some(1_000));
        assert_eq!(share.take(5, 900), Ok(()));
        assert_eq!(share.take(5, 200), Err(Duration::from_millis(100)));
        assert_eq!(
            share.take(5, 100),
            Ok(()),
            "what was refused took no events"
        );
        assert!(share.take(1, 0).is_err());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(share.take(1, 100), Ok(()));
        assert!(share.take(1, 1).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            share.take(10, 1_000),
            Ok(()),
            "no more than a second is saved up"
        );
        assert!(share.take(1, 1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_average_holds_for_batches_larger_than_a_second() {
        let share = share(Some(10), None);
        let mut taken = 0_usize;
        for _ in 0..100_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            if share.take(25, 1 << 20).is_ok() {
                taken += 25;
            }
        }
        // 100 s at 10 a second, and what may come at once.
        assert!((1_000..=1_025).contains(&taken), "{taken}");
    }
}
