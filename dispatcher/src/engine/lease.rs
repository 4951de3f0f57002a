//! Owns until when attempts may be started.
//!
//! It must never be longer than half a session: the log gives the partitions to another then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::planted::{self, Bug};

/// Until when attempts may be started (rule 5): half a session after the last commit that the group
/// acknowledged was sent. Shared with attempts, which look once more just before they send.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    base: Instant,
    session: Duration,
    until_micros: Arc<AtomicU64>,
}

impl Lease {
    pub(crate) fn new(session: Duration, now: Instant) -> Self {
        Self {
            base: now,
            session,
            until_micros: Arc::default(),
        }
    }

    /// A commit sent at `sent` was acknowledged.
    pub(crate) fn extend(&self, sent: Instant) {
        let until = sent + self.session / 2 - self.base;
        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.until_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Whether more than half of it is left, so that there is no need to extend it.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.lasts(now + self.session / 4)
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.lasts(now) || planted::is(Bug::LeaseUnchecked)
    }

    fn lasts(&self, now: Instant) -> bool {
        let elapsed = u64::try_from((now - self.base).as_micros()).unwrap_or(u64::MAX);
        elapsed < self.until_micros.load(Ordering::Relaxed)
    }
}
