//! Owns publishing as fast as ingest takes it: several connections, each with one request at a time.
//!
//! The surprise: an answer that asks to come again later is obeyed by sending the same body again,
//! as a client would; any other refusal ends the benchmark.

use std::cell::Cell;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use crate::client::Connection;
use crate::stack::{Stack, events_path};

const AGAIN: Duration = Duration::from_millis(20);

/// Bodies that are sent one after another, whichever connection is free.
#[derive(Debug)]
pub(super) struct Bodies<'a, F> {
    /// Makes body `number`; `None` ends it.
    pub(super) next: F,
    pub(super) content_type: &'static str,
    pub(super) connections: usize,
    pub(super) stack: &'a Stack,
}

impl<F: Fn(u64) -> Option<Bytes>> Bodies<'_, F> {
    /// Sends all; returns how many were taken.
    ///
    /// # Errors
    /// Where one is refused for good.
    pub(super) async fn send(self) -> anyhow::Result<u64> {
        let number = Cell::new(0);
        let senders = (0..self.connections).map(|_| self.one(&number));
        Ok(try_join_all(senders).await?.iter().sum())
    }

    async fn one(&self, number: &Cell<u64>) -> anyhow::Result<u64> {
        let mut connection = self.stack.publisher().await?;
        let mut taken = 0;
        while let Some(body) = (self.next)(number.replace(number.get() + 1)) {
            post(&mut connection, self.content_type, body).await?;
            taken += 1;
        }
        Ok(taken)
    }
}

/// Sends a body until it is taken.
///
/// # Errors
/// Where it is refused for good.
pub(crate) async fn post(
    connection: &mut Connection,
    content_type: &'static str,
    body: Bytes,
) -> anyhow::Result<()> {
    let path = events_path();
    loop {
        let request = (Method::POST, path.as_str());
        let answer = connection.send(request, content_type, body.clone()).await?;
        match answer.status() {
            StatusCode::ACCEPTED => return Ok(()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => sleep(AGAIN).await,
            status => bail!(
                "ingest: {status}: {}",
                String::from_utf8_lossy(answer.body())
            ),
        }
    }
}

/// Bodies of `pool`, again and again, for `span` from now on.
pub(super) fn cycle(pool: Vec<Bytes>, span: Duration) -> impl Fn(u64) -> Option<Bytes> {
    let end = Instant::now() + span;
    move |number| {
        let length = u64::try_from(pool.len()).ok()?;
        let index = usize::try_from(number.checked_rem(length)?).ok()?;
        (Instant::now() < end).then(|| pool.get(index).cloned())?
    }
}
