//! What can go wrong with members as data, in words for whoever uploaded them or runs the store.
//!
//! A caller decides by variant, never by text: [`Error::Input`], [`Error::TooManyRejects`] and
//! [`Error::Limit`] are the uploader's to mend, [`Error::Conflict`] says that somebody else owns
//! the thing now, and all others are the operator's.

use std::io;

use crate::read::Rejects;

/// Why members could not be read, sorted, kept or compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is not what it claims to be: truncated, of another format, without ids.
    #[error("input: {0}")]
    Input(String),
    /// More rows were refused than the upload allows.
    #[error(
        "input: {} of {rows} rows are bad, more than {allowed_percent} % (line {}: {})",
        rejects.total, rejects.first_line(), rejects.first_reason()
    )]
    TooManyRejects {
        /// Rows read, good and bad.
        rows: u64,
        /// The share that is allowed, in per cent.
        allowed_percent: f64,
        /// The first bad rows and their number.
        rejects: Box<Rejects>,
    },
    /// A limit of the configuration was reached.
    #[error("{what} is more than the limit of {limit}")]
    Limit {
        /// What is too much.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The caller's reader failed: the client is gone, the file cannot be read.
    #[error("reading the input")]
    Reading(#[source] io::Error),
    /// The scratch space on the local disk failed, most often because the disk is full.
    #[error("scratch space `{folder}`")]
    Scratch {
        /// The folder that scratch files are in.
        folder: String,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// The object store failed.
    #[error("object `{object}`")]
    Store {
        /// The object's path in the store.
        object: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// There is no such snapshot, generation or object.
    #[error("`{0}` does not exist")]
    Missing(String),
    /// Another process has written what this one was about to write: it owns the thing now.
    #[error("`{0}` was written by another process")]
    Conflict(String),
    /// What is stored is not what was written.
    #[error("`{object}` is damaged: {reason}")]
    Damaged {
        /// The object's path in the store, or the scratch file.
        object: String,
        /// Which check failed.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Stopped,
    /// A thread of this crate ended by a panic: a fault of ours.
    #[error("a worker ended unexpectedly: {0}")]
    Worker(String),
}

impl Error {
    /// Whether the uploader can mend this by uploading something else.
    #[must_use]
    pub fn is_inputs_fault(&self) -> bool {
        matches!(
            self,
            Self::Input(_) | Self::TooManyRejects { .. } | Self::Limit { .. }
        )
    }

    pub(crate) fn damaged(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged {
            object: object.into(),
            reason: reason.into(),
        }
    }
}
