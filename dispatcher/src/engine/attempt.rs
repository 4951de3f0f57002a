//! Owns one attempt, from its turn to its answer, where attempts run.
//!
//! It must never touch the engine's state: what it needs it has, and what it found it hands back.
//! The surprise: it looks at the lease once more before its request leaves, because preparing may
//! have taken long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use runtime::clock::Clock;
use schemas::ids::DeliveryId;

use super::health::Counted;
use super::lease::Lease;
use super::tokens::{Composed, compose, send, settle};
use super::transforming::{Left, Transforms, transformed};
use crate::batch;
use crate::chunk::ChunkSaid;
use crate::delivery::template::Requests;
use crate::delivery::{Answer, Transport};
use crate::endpoints::Target;
use crate::owned::Tenure;
use crate::work::Delivery;

/// An attempt that is to be made.
pub(super) struct Attempt<T> {
    pub(super) tenure: Tenure,
    /// Until it is transformed.
    pub(super) delivery: Option<Box<Delivery>>,
    /// What becomes of its events.
    pub(super) transforms: Transforms,
    pub(super) target: Arc<Target>,
    pub(super) counted: Counted,
    /// By whose templates its request is made; `None` for the body that the endpoint chose.
    pub(super) requests: Option<Arc<Requests>>,
    pub(super) timeout: Duration,
    pub(super) entropy: (u64, u64),
    pub(super) transport: Arc<T>,
    pub(super) clock: Clock,
    pub(super) lease: Lease,
    /// Whether its placement is lost.
    pub(super) ended: Arc<AtomicBool>,
    pub(super) late_starts: IntCounter,
}

/// An attempt that has ended, or was not made after all.
pub(super) struct Finished {
    pub(super) tenure: Tenure,
    /// `None` where transforms left nothing to send.
    pub(super) delivery: Option<Box<Delivery>>,
    /// What did not go in the request.
    pub(super) left: Vec<Left>,
    pub(super) target: Arc<Target>,
    /// `None` where no request left.
    pub(super) exchange: Option<Exchange>,
    pub(super) counted: Counted,
}

/// A request that left, and what came of it.
pub(super) struct Exchange {
    /// Computed once an attempt.
    pub(super) id: DeliveryId,
    /// Whether it was of several deliveries.
    pub(super) is_batch: bool,
    pub(super) started_at: i64,
    pub(super) took: Duration,
    pub(super) request_bytes: usize,
    pub(super) answer: Answer,
    /// Whether a token's fetch brought one; `None` for the delivery's own request.
    pub(super) token: Option<bool>,
    /// What the answer says of a chunk, where the request was one.
    pub(super) chunk: Option<ChunkSaid>,
}

impl Exchange {
    /// The answer's status, 0 where there is none.
    pub(super) fn status(&self) -> u16 {
        let answer = self.answer.as_ref();
        answer.map_or(0, |response| response.status)
    }
}

impl<T: Transport> Attempt<T> {
    /// Makes it, unless it may not be made any more.
    pub(super) async fn make(mut self) -> Finished {
        let mut delivery = self.delivery.take();
        let mut left = Vec::new();
        // Looked at before events are transformed, and not after: one that takes long would never
        // leave.
        let is_late = self.is_late();
        if let Some(unit) = delivery.take_if(|_| !is_late) {
            (delivery, left) = transformed(unit, &self.transforms, &self.target);
        }
        let exchange = match delivery.as_deref().filter(|_| !is_late) {
            Some(delivery) => self.exchange(delivery).await,
            None => None,
        };
        Finished {
            tenure: self.tenure,
            delivery,
            left,
            target: self.target,
            exchange,
            counted: self.counted,
        }
    }

    fn is_late(&self) -> bool {
        let leaves_by = self.counted.leaves_by;
        let is_late = leaves_by.is_some_and(|by| self.clock.instant() > by);
        if is_late {
            self.late_starts.inc();
        }
        is_late
    }

    async fn exchange(&self, delivery: &Delivery) -> Option<Exchange> {
        let id = batch::id(delivery);
        let made = (self.clock.now(), self.entropy);
        let own = (delivery, id, self.requests.as_ref());
        let composed = compose(own, &self.target, made, self.timeout).await;
        let started = self.clock.instant();
        // Last look before the request leaves: preparing may have taken long, and the placement may
        // have been lost since.
        let may_leave = self.lease.holds(started) && !self.ended.load(Ordering::Relaxed);
        let Composed {
            request,
            fetching,
            asked,
        } = composed.filter(|_| may_leave)?;
        let started_at = self.clock.now();
        let request_bytes = request.as_ref().map_or(0, |request| request.body.len());
        let answer = send(&*self.transport, request).await;
        let took = self.clock.instant() - started;
        let chunk = asked.map(|asked| ChunkSaid::of(&asked, &answer));
        let (answer, token) = settle(fetching, answer, self.clock.now());
        Some(Exchange {
            id,
            is_batch: !delivery.company.is_empty(),
            started_at,
            took,
            request_bytes,
            answer,
            token,
            chunk,
        })
    }
}
