//! Owns the bytes of bodies that are being read or written, in the whole process.
//!
//! Room is taken before the bytes are read and given back when the request is answered, whatever
//! becomes of it. The surprise: who waits for room is served in order, so a large body is never
//! overtaken for ever by small ones.

use std::sync::Arc;
use std::time::Duration;

use runtime::problem::{Problem, ProblemType};
use runtime::telemetry::{IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::Telemetry;

/// What the smallest body takes: its request and its answer cost this much too.
const ROOM_MIN: usize = 1 << 10;

/// The bytes that may be in flight.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    timeout: Duration,
    in_flight: IntGauge,
    waits: IntCounter,
}

/// Bytes taken of the budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new(bytes: usize, timeout: Duration, telemetry: &Telemetry) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        telemetry
            .in_flight_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            timeout,
            in_flight: telemetry.in_flight_bytes.clone(),
            waits: telemetry.room_waits.clone(),
        }
    }

    /// Waits for room for `bytes`, in order.
    ///
    /// # Errors
    /// 503 where there is none in time.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Room, Problem> {
        let permit = self.acquire(bytes.max(ROOM_MIN)).await?;
        Ok(Room {
            budget: self.clone(),
            permit,
        })
    }

    async fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => {
                self.waits.inc();
                let room = Arc::clone(&self.free).acquire_many_owned(permits);
                let waited = tokio::time::timeout(self.timeout, room).await;
                waited.ok().and_then(Result::ok).ok_or_else(no_room)?
            }
        };
        self.in_flight.add(i64::from(permits));
        Ok(permit)
    }
}

fn no_room() -> Problem {
    Problem::new(ProblemType::Unavailable)
        .detail("too many bytes are in flight; nothing of this request was accepted")
        .retry_after(Duration::from_secs(1))
}

impl Room {
    /// Waits until the room is at least `bytes`.
    ///
    /// # Errors
    /// 503 where there is no more in time.
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.permit.num_permits());
        if more > 0 {
            self.permit.merge(self.budget.acquire(more).await?);
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let bytes = i64::try_from(self.permit.num_permits()).unwrap_or(i64::MAX);
        self.budget.in_flight.sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use runtime::telemetry::Metrics;

    use super::*;

    const KIB: usize = 1 << 10;

    fn budget(bytes: usize) -> (Budget, Telemetry) {
        let telemetry = Telemetry::new(&Metrics::new());
        (
            Budget::new(bytes, Duration::from_secs(2), &telemetry),
            telemetry,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_given_back_and_counted() {
        let (budget, telemetry) = budget(8 * KIB);
        let mut first = budget.take(4 * KIB).await.unwrap();
        first.grow_to(6 * KIB).await.unwrap();
        first.grow_to(KIB).await.unwrap();
        let small = budget.take(10).await.unwrap();
        assert_eq!(telemetry.in_flight_bytes.get(), 7 * 1024);
        let refused = budget.take(2 * KIB).await.unwrap_err();
        assert_eq!(refused.kind(), ProblemType::Unavailable);
        drop(first);
        let second = budget.take(7 * KIB).await.unwrap();
        drop((small, second));
        assert_eq!(telemetry.in_flight_bytes.get(), 0);
        assert_eq!(telemetry.room_waits.get(), 1);
        assert_eq!(telemetry.in_flight_limit.get(), 8 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_room_that_becomes_free() {
        let (budget, _telemetry) = budget(4 * KIB);
        let first = budget.take(4 * KIB).await.unwrap();
        let (second, ()) = tokio::join!(budget.take(4 * KIB), async move { drop(first) });
        assert!(second.is_ok());
    }
}
