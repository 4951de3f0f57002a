//! Owns the reading of a request's body: room first, then bytes, under one deadline.
//!
//! Never holds more than it has room for. The surprise: a body that arrives in one piece is not
//! copied; the events in it share its memory up to the log.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use runtime::problem::{Problem, ProblemType};
use tokio::time::Instant;

use super::Refusal;
use crate::admit::{Budget, Room};
use crate::options::Options;

/// Room is taken this far ahead of a body of unknown length; no frame is larger.
const STEP_BYTES: usize = 64 << 10;
/// A refused request's body is thrown away up to this size and time.
const DISCARD_BYTES: usize = 256 << 10;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A body and the room it takes.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
}

/// Reads a body of at most `options.max_body_bytes`.
///
/// # Errors
/// 503 without room, 413 beyond the limit, 408 beyond the deadline.
pub(super) async fn read(
    mut body: Body,
    declared: Option<u64>,
    budget: &Budget,
    options: &Options,
) -> Result<Held, Refusal> {
    let limit = options.max_body_bytes;
    let declared = declared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX).min(limit));
    let mut room = budget
        .take(declared.unwrap_or(STEP_BYTES.min(limit)))
        .await?;
    let mut gathered = Gathered::new(declared);
    let mut left = options.body_timeout;
    loop {
        if declared.is_none() {
            room.grow_to(gathered.len().saturating_add(STEP_BYTES).min(limit))
                .await?;
        }
        // What is waited for room is not the client's time.
        let started = Instant::now();
        let Ok(frame) = tokio::time::timeout(left, body.frame()).await else {
            let problem = Problem::new(ProblemType::Timeout);
            let seconds = options.body_timeout.as_secs_f64();
            return Err(problem
                .detail(format!("the body took longer than {seconds} s"))
                .into());
        };
        left = left.saturating_sub(started.elapsed());
        match frame {
            None => {
                return Ok(Held {
                    bytes: gathered.finish(),
                    room,
                });
            }
            Some(Err(_)) => return Err(Refusal::Disconnected),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if gathered.len().saturating_add(data.len()) > limit {
                    return Err(too_large(limit).into());
                }
                gathered.push(data);
            }
        }
    }
}

/// 413 for a body beyond `limit`.
pub(super) fn too_large(limit: usize) -> Problem {
    let problem = Problem::new(ProblemType::TooLarge);
    problem.detail(format!("the body is larger than {limit} bytes"))
}

/// Reads what a refused client is still sending, up to a bound, so that it sees the answer.
pub(super) async fn discard(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(EXPECT) {
        // It waits for our word before it sends.
        return;
    }
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES {
                return;
            }
        }
    };
    // Whether it came to its end does not matter: the connection is closed where it did not.
    drop(tokio::time::timeout(DISCARD_TIME, read).await);
}

/// The pieces of a body, joined only where there are several.
#[derive(Debug)]
struct Gathered {
    only: Bytes,
    joined: BytesMut,
    expected: usize,
}

impl Gathered {
    fn new(declared: Option<usize>) -> Self {
        let expected = declared.unwrap_or(0);
        Self {
            only: Bytes::new(),
            joined: BytesMut::new(),
            expected,
        }
    }

    fn len(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.only = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined
                .reserve(self.expected.max(self.only.len() + data.len()));
            self.joined
                .extend_from_slice(&std::mem::take(&mut self.only));
        }
        self.joined.extend_from_slice(&data);
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() {
            self.only
        } else {
            self.joined.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_order_and_one_piece_is_not_copied() {
        let one = Bytes::from_static(b"abc");
        let mut gathered = Gathered::new(Some(3));
        gathered.push(one.clone());
        assert_eq!(gathered.finish().as_ptr(), one.as_ptr());
        let mut gathered = Gathered::new(None);
        for piece in ["", "ab", "", "c", "def"] {
            gathered.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(
            (gathered.len(), gathered.finish()),
            (6, Bytes::from_static(b"abcdef"))
        );
    }
}
