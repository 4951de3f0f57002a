//! Owns the connections that are open and may be used again, by origin.
//!
//! It never opens one and never waits. A connection in it was vetted when it was made (SS-4); it is
//! put back only after a response was read to its end. The surprise: an idle HTTP/1.1 connection
//! has nobody who drives it, so a sweep finds those that the endpoint has closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::destination::Origin;
use super::http1::Http1;
use super::http2::Http2;

/// So many connections to one origin are opened at once: more than a listening socket holds are
/// dropped, and tried again a second later. As many as one endpoint has attempts by default, so that
/// what its limit lets go at once is not stretched.
const OPENING_MAX: usize = 64;

/// A connection that a request can be sent over.
pub(super) enum Line {
    /// Of one exchange at a time.
    Http1(Box<Http1>),
    /// Of many.
    Http2(Http2),
}

/// The connections of one transport.
pub(super) struct Pool {
    origins: Mutex<HashMap<Arc<Origin>, Kept>>,
    idle_timeout: Duration,
    idle_per_origin_max: usize,
}

struct Kept {
    /// The last used last.
    idle: Vec<Idle>,
    shared: Option<Shared>,
    opening: Arc<Semaphore>,
}

struct Idle {
    line: Box<Http1>,
    since: Instant,
}

struct Shared {
    sender: Http2,
    used_at: Instant,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, idle_per_origin_max: usize) -> Self {
        Self {
            origins: Mutex::default(),
            idle_timeout,
            idle_per_origin_max,
        }
    }

    /// A connection to `origin` that was open when last looked at.
    pub(super) fn take(&self, origin: &Arc<Origin>, now: Instant) -> Option<Line> {
        let mut origins = self.lock();
        let kept = origins.get_mut(origin)?;
        if let Some(shared) = &mut kept.shared {
            if shared.sender.is_ready() {
                shared.used_at = now;
                return Some(Line::Http2(shared.sender.clone()));
            }
            kept.shared = None;
        }
        // The last used is the likeliest to be open, and the others can grow old.
        let idle = kept.idle.pop()?;
        if now >= idle.since + self.idle_timeout {
            // What is left is older still.
            kept.idle.clear();
            return None;
        }
        Some(Line::Http1(idle.line))
    }

    /// What gives leave to open a connection to `origin`. Who had to wait for it looks for one that
    /// has come back meanwhile.
    pub(super) fn opening(&self, origin: &Arc<Origin>) -> Arc<Semaphore> {
        let mut origins = self.lock();
        let kept = origins.entry(Arc::clone(origin)).or_default();
        Arc::clone(&kept.opening)
    }

    /// Takes a connection back, if it can be used again and there is room.
    pub(super) fn put(&self, origin: &Arc<Origin>, mut line: Box<Http1>) {
        if !line.is_idle() {
            return;
        }
        let since = Instant::now();
        let mut origins = self.lock();
        let kept = match origins.get_mut(origin) {
            Some(kept) => kept,
            None => origins.entry(Arc::clone(origin)).or_default(),
        };
        if kept.idle.len() < self.idle_per_origin_max {
            kept.idle.push(Idle { line, since });
        }
    }

    /// Shares a new connection; of several that were made at once the first is kept.
    pub(super) fn share(&self, origin: &Arc<Origin>, sender: Http2) -> Http2 {
        let mut origins = self.lock();
        let kept = origins.entry(Arc::clone(origin)).or_default();
        let used_at = Instant::now();
        let shared = kept
            .shared
            .take()
            .filter(|shared| shared.sender.is_ready())
            .unwrap_or(Shared { sender, used_at });
        let sender = shared.sender.clone();
        kept.shared = Some(Shared { used_at, ..shared });
        sender
    }

    /// Closes what was idle for too long or what the endpoint has closed.
    pub(super) fn sweep(&self, now: Instant) {
        let origins: Vec<Arc<Origin>> = self.lock().keys().cloned().collect();
        // One at a time, so that nobody waits long for the lock.
        for origin in origins {
            let mut origins = self.lock();
            let Some(kept) = origins.get_mut(&origin) else {
                continue;
            };
            kept.sweep(now, self.idle_timeout);
            if kept.is_unused() {
                origins.remove(&origin);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Origin>, Kept>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            shared: None,
            opening: Arc::new(Semaphore::new(OPENING_MAX)),
        }
    }
}

impl Kept {
    fn is_unused(&self) -> bool {
        // Whoever waits for leave holds the semaphore too.
        let waits = Arc::strong_count(&self.opening) > 1;
        self.idle.is_empty() && self.shared.is_none() && !waits
    }

    fn sweep(&mut self, now: Instant, idle_timeout: Duration) {
        self.idle
            .retain_mut(|idle| now < idle.since + idle_timeout && idle.line.is_open());
        if self
            .shared
            .as_ref()
            .is_some_and(|shared| now >= shared.used_at + idle_timeout || !shared.sender.is_ready())
        {
            // Exchanges under way keep it until they end.
            self.shared = None;
        }
    }
}
