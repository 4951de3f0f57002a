//! Owns how far long work on members has come, for whoever watches it, and the wish to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Error;

/// Shared by the work and its watchers: numbers only rise.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    rows: AtomicU64,
    rejected: AtomicU64,
    stopped: AtomicBool,
}

/// What [`Progress`] says at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Bytes read from the input, as they came (compressed).
    pub bytes: u64,
    /// Rows read, bad ones included.
    pub rows: u64,
    /// Bad rows.
    pub rejected: u64,
}

impl Progress {
    /// How far the work is.
    #[must_use]
    pub fn reached(&self) -> Reached {
        Reached {
            bytes: self.bytes.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// Asks the work to end soon, with [`Error::Stopped`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.stopped.load(Ordering::Relaxed) {
            Err(Error::Stopped)
        } else {
            Ok(())
        }
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_rows(&self, rows: u64, rejected: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        self.rejected.store(rejected, Ordering::Relaxed);
    }
}
