//! Owns how much of an endpoint's response body is read and kept (rule 10, SS-8).
//!
//! Never reads by itself: it is given what was read, and says when that is enough; the total
//! deadline is the caller's. The surprise: a body within the read cap is read to its end even where
//! it is not kept, since only then the connection can be used again.

use bytes::{Bytes, BytesMut};

/// The caps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) kept: usize,
    pub(super) read: u64,
}

impl Caps {
    /// The same, with at least so many bytes kept.
    pub(super) fn at_least(self, kept: usize) -> Self {
        Self {
            kept: self.kept.max(kept),
            read: self.read.max(kept as u64),
        }
    }
}

/// What was read of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) kept: Bytes,
    pub(super) bytes_read: u64,
    pub(super) truncated: bool,
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    caps: Caps,
    kept: BytesMut,
    bytes_read: u64,
    /// Known to be too long: not read any further than it is kept.
    too_long: bool,
}

impl Reading {
    /// The start of a body of `length` bytes, if it says how many.
    pub(super) fn new(caps: Caps, length: Option<u64>) -> Self {
        Self {
            caps,
            kept: BytesMut::new(),
            bytes_read: 0,
            too_long: length.is_some_and(|length| length > caps.read),
        }
    }

    /// Takes the next bytes; whether that was enough.
    pub(super) fn take(&mut self, chunk: &[u8]) -> bool {
        self.bytes_read += chunk.len() as u64;
        // Copied, not shared: a kept slice would hold the connection's whole read buffer.
        let room = self.caps.kept - self.kept.len();
        self.kept
            .extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        self.bytes_read > self.caps.read || (self.too_long && self.kept.len() == self.caps.kept)
    }

    /// What was read.
    pub(super) fn finish(self) -> Read {
        let truncated = self.too_long || self.bytes_read > self.kept.len() as u64;
        Read {
            kept: self.kept.freeze(),
            bytes_read: self.bytes_read,
            truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { kept: 4, read: 8 };

    fn check(length: Option<u64>, chunks: &[&str], enough: bool, expected: (&str, u64, bool)) {
        let mut reading = Reading::new(CAPS, length);
        let mut was_enough = false;
        for chunk in chunks {
            was_enough = reading.take(chunk.as_bytes());
        }
        assert_eq!(was_enough, enough, "{chunks:?}");
        let (kept, bytes_read, truncated) = expected;
        let read = Read {
            kept: Bytes::copy_from_slice(kept.as_bytes()),
            bytes_read,
            truncated,
        };
        assert_eq!(reading.finish(), read, "{chunks:?}");
    }

    #[test]
    fn a_body_is_kept_and_read_to_the_caps_exactly() {
        // SS-8
        check(None, &[], false, ("", 0, false));
        check(None, &["abcd"], false, ("abcd", 4, false));
        check(Some(5), &["abc", "de"], false, ("abcd", 5, true));
        check(Some(8), &["abcdefgh"], false, ("abcd", 8, true));
        check(None, &["abcdefgh", "i"], true, ("abcd", 9, true));
    }

    #[test]
    fn a_body_that_says_it_is_too_long_is_read_as_far_as_it_is_kept() {
        check(Some(9), &["abc"], false, ("abc", 3, true));
        check(Some(9), &["abcd"], true, ("abcd", 4, true));
    }
}
