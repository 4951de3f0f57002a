//! Owns a delivery in memory: the record it is from, shared by all its targets, and the count of
//! the bytes that records take.
//!
//! It must never outlive its count: bytes are given back when the last target lets go (rule 8).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use schemas::event::Event;
use schemas::records::{AttemptState, DeliveryRecord, Target};
use schemas::resources::BodyMode;
use tokio::time::Instant;

use crate::delivery::request::{EncodedBody, encode_body};
use crate::delivery::transform::Sent;
use crate::ledger::Place;
use crate::order::Key;
use crate::planted::{self, Bug};

/// What a record takes beside its bytes: decoded attributes, its places in queues.
const RECORD_OVERHEAD_BYTES: usize = 512;
/// What a target takes while it waits.
const TARGET_BYTES: usize = 256;

/// Bytes in use of a budget; clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that were made of a record for an attempt, counted for as long as they are held (rule 8).
#[derive(Debug)]
pub(crate) struct Lent {
    bytes: usize,
    meters: [Meter; 2],
}

impl Drop for Lent {
    fn drop(&mut self) {
        for meter in &self.meters {
            meter.give_back(self.bytes);
        }
    }
}

/// A record that is in memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) record: DeliveryRecord,
    bodies: [OnceLock<EncodedBody>; 5],
    /// The same compressed, for endpoints that want it; `None` inside where that is no use.
    compressed: [OnceLock<Option<EncodedBody>>; 5],
    compressed_bytes: AtomicUsize,
    bytes: usize,
    meters: [Meter; 2],
}

impl Loaded {
    /// Counts `record`, which took `bytes` in the log, against both meters.
    pub(crate) fn new(record: DeliveryRecord, bytes: usize, meters: [Meter; 2]) -> Arc<Self> {
        // Twice, because the body made from it is kept beside it.
        let bytes = 2 * bytes + RECORD_OVERHEAD_BYTES + TARGET_BYTES * record.targets.len();
        for meter in &meters {
            meter.add(bytes);
        }
        Arc::new(Self {
            record,
            bodies: Default::default(),
            compressed: Default::default(),
            compressed_bytes: AtomicUsize::new(0),
            bytes,
            meters,
        })
    }

    /// Counts bytes that were made of it against the same budgets.
    pub(crate) fn lend(&self, bytes: usize) -> Lent {
        let meters = self.meters.clone();
        for meter in &meters {
            meter.add(bytes);
        }
        Lent { bytes, meters }
    }

    /// About the bytes that the record takes in the log, whatever the number of its targets.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes / 2
    }

    /// The event as a body in `mode`, made once for all targets and attempts (rule 9).
    pub(crate) fn body(&self, mode: BodyMode) -> &EncodedBody {
        slot(&self.bodies, mode)
            .get_or_init(|| encode_body(&self.record.event, mode, self.record.accepted_at))
    }

    /// The same compressed, where that makes it smaller.
    pub(crate) fn compressed_body(&self, mode: BodyMode) -> &EncodedBody {
        let plain = self.body(mode);
        let compressed = slot(&self.compressed, mode).get_or_init(|| {
            let made = plain.compressed()?;
            self.compressed_bytes
                .fetch_add(made.bytes.len(), Ordering::Relaxed);
            for meter in &self.meters {
                meter.add(made.bytes.len());
            }
            Some(made)
        });
        compressed.as_ref().unwrap_or(plain)
    }
}

fn slot<T>(slots: &[T; 5], mode: BodyMode) -> &T {
    let [structured, binary, standard, data, form] = slots;
    match mode {
        BodyMode::Structured => structured,
        BodyMode::Binary => binary,
        BodyMode::StandardWebhooks => standard,
        BodyMode::Data => data,
        BodyMode::Form => form,
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if planted::is(Bug::MemoryKept) {
            return;
        }
        for meter in &self.meters {
            meter.give_back(self.bytes + self.compressed_bytes.load(Ordering::Relaxed));
        }
    }
}

/// One target of a loaded record, on its way to an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) loaded: Arc<Loaded>,
    /// Which of the owner's sources it was read from: 0 is `deliveries`, then the delay tiers.
    pub(crate) source: usize,
    pub(crate) place: Place,
    pub(crate) target: Target,
    pub(crate) state: AttemptState,
    /// Since when it waits for its turn.
    pub(crate) queued_at: Instant,
    /// The line in which it is ordered, if it is.
    pub(crate) line: Option<Arc<Key>>,
    /// Others that go in the same request.
    pub(crate) company: Vec<Delivery>,
    /// Part of a request that was rejected as a whole, or one that shares none: nothing joins it.
    pub(crate) is_piece: bool,
    /// What its transform made of it, for the attempt that is under way.
    pub(crate) sent: Option<Arc<Sent>>,
}

impl Delivery {
    /// The event as it is sent.
    pub(crate) fn event(&self) -> &Event {
        let own = &self.loaded.record.event;
        self.sent.as_ref().map_or(own, |sent| &sent.event)
    }

    /// The same before it was transformed.
    pub(crate) fn untransformed(mut self) -> Self {
        for item in &mut self.company {
            item.sent = None;
        }
        self.sent = None;
        self
    }

    /// The share of the record's memory that this delivery stands for.
    pub(crate) fn bytes(&self) -> usize {
        let own = self.loaded.bytes / self.loaded.record.targets.len().max(1);
        own + self.company.iter().map(Self::bytes).sum::<usize>()
    }

    /// The deliveries that go in one request: this one, then its company.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.company)
    }

    /// Whether it is a chunk of bulk work, which nobody waits for by itself.
    pub(crate) fn is_bulk(&self) -> bool {
        self.target.bulk.is_some()
    }

    /// How many go in one request.
    pub(crate) fn count(&self) -> NonZeroU32 {
        let count = u32::try_from(self.company.len() + 1).unwrap_or(u32::MAX);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// Each for itself again.
    pub(crate) fn into_items(mut self) -> Vec<Self> {
        let company = std::mem::take(&mut self.company);
        self.is_piece = false;
        std::iter::once(self).chain(company).collect()
    }

    /// Several in one request; `None` of none.
    pub(crate) fn together(items: Vec<Self>) -> Option<Self> {
        let mut items = items.into_iter();
        let mut first = items.next()?;
        first.company.extend(items);
        Some(first)
    }
}
