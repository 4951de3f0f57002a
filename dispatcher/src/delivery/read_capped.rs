//! Owns how much of an endpoint's response body is read and kept (rule 10, SS-8).
//!
//! Never reads without a cap; the total deadline is the caller's. The surprise: a body within the
//! read cap is read to its end even where it is not kept, since only then the connection can be
//! used again.

use bytes::{Bytes, BytesMut};

/// The caps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) kept: usize,
    pub(super) read: u64,
}

/// What was read of a body.
pub(super) struct Read {
    pub(super) kept: Bytes,
    pub(super) bytes_read: u64,
    pub(super) truncated: bool,
}

/// Reads the body to its end or to the cap; beyond it the response is dropped, which closes an
/// HTTP/1 connection and resets an HTTP/2 stream.
pub(super) async fn read_capped(
    mut response: reqwest::Response,
    caps: Caps,
) -> Result<Read, reqwest::Error> {
    // A body that is known to be too long is not read any further than it is kept.
    let too_long = response
        .content_length()
        .is_some_and(|length| length > caps.read);
    let mut kept = BytesMut::new();
    let mut bytes_read = 0_u64;
    while let Some(chunk) = response.chunk().await? {
        bytes_read += chunk.len() as u64;
        // Copied, not shared: a kept slice would hold the connection's whole read buffer.
        let room = caps.kept - kept.len();
        kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if bytes_read > caps.read || (too_long && kept.len() == caps.kept) {
            break;
        }
    }
    let truncated = too_long || bytes_read > kept.len() as u64;
    Ok(Read {
        kept: kept.freeze(),
        bytes_read,
        truncated,
    })
}
