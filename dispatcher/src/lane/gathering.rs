//! Owns how deliveries of a lane come together in one request, and the requests that wait to become
//! full: one of each endpoint, while others of the quota go.
//!
//! It must never let a delivery wait for longer than its endpoint says, nor go before an earlier one
//! of its endpoint. The surprise: what has come due waits for nobody, it takes along who is there.

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::ids::EndpointId;
use schemas::resources::Batch;
use tokio::time::Instant;

use super::Lane;
use crate::batch::Room;
use crate::work::Delivery;

impl Lane {
    /// Puts the next request together, as far as the batches of `batch_of` the endpoints allow it.
    /// Says until when there is nothing but requests that wait for more.
    pub(crate) fn gather(
        &mut self,
        batch_of: impl Fn(EndpointId) -> Option<Batch>,
        now: Instant,
    ) -> Option<Instant> {
        self.promote(now);
        let until = |id, unit: &Delivery| batch_of(id).map(|batch| waits_until(unit, &batch));
        self.close(|id, unit| until(id, unit).is_none_or(|until| until <= now));
        while let Some(front) = self.front() {
            let batch = batch_of(front.target.endpoint)?;
            if self.gather_front(&batch, now) {
                return None;
            }
        }
        let open = self.open.iter();
        let first = open.filter_map(|(id, unit)| until(*id, unit)).min()?;
        let due = self.waiting.peek().map(|waiting| waiting.due);
        Some(due.map_or(first, |due| due.min(first)))
    }

    /// Puts the next delivery together with others of its endpoint; says whether that may go now,
    /// or waits elsewhere.
    fn gather_front(&mut self, batch: &Batch, now: Instant) -> bool {
        let is_due = !self.due.is_empty();
        let Some(first) = self.pop_front() else {
            return true;
        };
        let endpoint = first.target.endpoint;
        let items_max = self.limiter.items_max().map_or(u32::MAX, NonZeroU32::get);
        let items_max = usize::try_from(items_max).unwrap_or(usize::MAX);
        let (mut unit, mut joins) = match self.open.remove(&endpoint) {
            Some(open) if !is_due => (open, Some(first)),
            open => {
                self.open.extend(open.map(|open| (endpoint, open)));
                (first, None)
            }
        };
        let mut room = Room::beside(&unit, batch, items_max);
        if let Some(next) = joins.take_if(|next| room.take(&unit, next)) {
            unit.company.push(next);
        }
        let mut is_ready = joins.is_some();
        if let Some(next) = joins {
            self.fresh.push_front(next);
        }
        while !is_ready && self.front().is_some_and(|next| room.take(&unit, next)) {
            let next = self.pop_front();
            unit.company.extend(next);
        }
        // One more of the endpoint that does not fit: it is as full as it can be.
        let same = |next: &Delivery| next.target.endpoint == endpoint;
        is_ready |= is_due || room.is_full() || self.front().is_some_and(same);
        if is_due {
            self.due.push_front(unit);
        } else if is_ready || waits_until(&unit, batch) <= now {
            self.fresh.push_front(unit);
            is_ready = true;
        } else {
            self.open.insert(endpoint, unit);
        }
        is_ready
    }

    /// Lets requests go that wait to become full.
    pub(super) fn close(&mut self, such: impl Fn(EndpointId, &Delivery) -> bool) {
        let closed = self.open.extract_if(.., |id, unit| such(*id, unit));
        for (_, unit) in closed {
            self.fresh.push_front(unit);
        }
    }

    fn pop_front(&mut self) -> Option<Delivery> {
        self.due.pop_front().or_else(|| self.fresh.pop_front())
    }
}

fn waits_until(unit: &Delivery, batch: &Batch) -> Instant {
    unit.queued_at + Duration::from_millis(u64::from(batch.max_wait_ms))
}
