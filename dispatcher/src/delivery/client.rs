//! Owns the connections to endpoints: the only opener of sockets to them (rules 10 and 18).
//!
//! Never follows a redirect, uses a proxy, repeats a request by itself, decompresses, or connects
//! to an address that the policy did not vet. The surprise: a pooled connection was vetted when it
//! was made and each new one is vetted again, so a name that changes its addresses gains nothing.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method};
use runtime::task::{TaskKind, Tasks};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::address::{LOOKUP_TIMEOUT, Policy, Resolve, VettedResolver};
use super::connect::Connector;
use super::destination::{Origin, Parts};
use super::ending::Ending;
use super::failure::{exchange_failed, refused};
use super::http1::{self, Http1};
use super::http2;
use super::pool::{Line, Pool};
use super::rate_limit;
use super::read_capped::{Caps, Read};
use super::tls::tls_config;
use super::{Answer, OutgoingRequest, Response, Transport, TransportError, TransportErrorKind};
use super::{BODY_KEPT_BYTES_MAX, BODY_READ_BYTES_MAX};

/// A header of a response that is longer than this is not kept.
const HEADER_KEPT_CHARS_MAX: usize = 256;
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// A connection that has been open for so long is taken to be accepted.
const ACCEPTED_AFTER: Duration = Duration::from_millis(100);

type Leave = OwnedSemaphorePermit;

/// How connections to endpoints are made and kept.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where connections may go.
    pub policy: Policy,
    /// The longest a connection may take, TLS included (SS-8).
    pub connect_timeout: Duration,
    /// The longest a name lookup may take (SS-8).
    pub lookup_timeout: Duration,
    /// Bytes of a response body that are kept (SS-8).
    pub body_kept_bytes: usize,
    /// Bytes of a response body that are read before the connection is dropped (SS-8).
    pub body_read_bytes: u64,
    /// An unused connection is closed after this; short enough to be ahead of most servers.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept for one host: as many as it may have in flight.
    pub pool_idle_per_host_max: usize,
    /// Certificate authorities trusted beside the system's, as PEM: a private PKI, or a test's.
    pub extra_roots_pem: Vec<u8>,
}

/// The transport of production: HTTP/1.1, or HTTP/2 where the endpoint offers it. Clones share
/// their connections.
#[derive(Clone)]
pub struct HttpTransport {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    pool: Arc<Pool>,
    caps: Caps,
    /// What runs beside the attempts: HTTP/2 connections and the pool's keeper.
    tasks: Tasks,
    is_kept: AtomicBool,
}

/// Why there can be no transport.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The extra certificate authorities cannot be read.
    #[error("extra root certificates: {0}")]
    Roots(#[source] Box<dyn StdError + Send + Sync>),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// An exchange that brought no response.
pub(super) struct Failure {
    pub(super) error: TransportError,
    /// The headers of a request of which not one byte was written.
    pub(super) unsent: Option<HeaderMap>,
}

// === impl ClientSettings ===

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(10),
            lookup_timeout: LOOKUP_TIMEOUT,
            body_kept_bytes: BODY_KEPT_BYTES_MAX,
            body_read_bytes: BODY_READ_BYTES_MAX,
            pool_idle_timeout: Duration::from_secs(30),
            pool_idle_per_host_max: 64,
            extra_roots_pem: Vec::new(),
        }
    }
}

// === impl HttpTransport ===

impl HttpTransport {
    /// A transport that finds names by `resolver` and vets what it answers.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn new(settings: ClientSettings, resolver: Arc<dyn Resolve>) -> Result<Self, BuildError> {
        let policy = Arc::new(settings.policy);
        let connector = Connector {
            policy: Arc::clone(&policy),
            resolver: VettedResolver::new(resolver, policy, settings.lookup_timeout),
            tls: Arc::new(tls_config(&settings.extra_roots_pem)?),
            timeout: settings.connect_timeout,
        };
        let pool = Pool::new(settings.pool_idle_timeout, settings.pool_idle_per_host_max);
        let caps = Caps {
            kept: settings.body_kept_bytes,
            read: settings.body_read_bytes,
        };
        let shared = Shared {
            connector,
            pool: Arc::new(pool),
            caps,
            tasks: Tasks::new("endpoints"),
            is_kept: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: OutgoingRequest) -> Answer {
        let destination = &request.destination;
        // A connection's address is vetted when it is made; what the URL itself says, each time
        // (SS-1, SS-2).
        let policy = &self.shared.connector.policy;
        policy.check_url(destination.url()).map_err(refused)?;
        let parts = destination.parts().ok_or_else(|| {
            let text = "no request can be made of this URL";
            TransportError::new(TransportErrorKind::Request, text)
        })?;
        let now = Instant::now();
        let message = (request.method, request.headers, request.body);
        let caps = self.shared.caps.at_least(request.kept_bytes);
        let exchange = self.shared.exchange(parts, message, caps, now);
        tokio::time::timeout_at(now + request.timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                let text = format!("no complete response within {:?}", request.timeout);
                Err(TransportError::new(TransportErrorKind::Timeout, text))
            })
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// A request that met a connection which had ended before a byte was written goes once over a
    /// new one; one that may have been sent is never sent again.
    async fn exchange(
        &self,
        parts: &Parts,
        (method, mut headers, body): (Method, HeaderMap, Bytes),
        caps: Caps,
        now: Instant,
    ) -> Answer {
        let mut pooled = self.pool.take(&parts.origin, now);
        loop {
            let (line, leave) = match pooled.take() {
                Some(line) => (line, None),
                None => Box::pin(self.open(&parts.origin)).await?,
            };
            let is_pooled = leave.is_none();
            let ended = match line {
                Line::Http1(mut line) => {
                    let request = http1::request(parts, (method.clone(), headers), body.clone());
                    let ended = keeping(leave, line.exchange(request, caps)).await;
                    if ended.is_ok() {
                        self.pool.put(&parts.origin, line);
                    }
                    ended
                }
                Line::Http2(sender) => {
                    let request = http2::request(parts, (method.clone(), headers), body.clone());
                    keeping(leave, Box::pin(http2::exchange(sender, request, caps))).await
                }
            };
            match ended {
                Ok(response) => return Ok(response),
                Err(Failure {
                    unsent: Some(unsent),
                    ..
                }) if is_pooled => headers = unsent,
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// A new connection with the leave to open it, or one that has come back while this waited for
    /// that.
    async fn open(&self, origin: &Arc<Origin>) -> Result<(Line, Option<Leave>), TransportError> {
        self.keep();
        let opening = self.pool.opening(origin);
        let leave = match Arc::clone(&opening).try_acquire_owned() {
            Ok(leave) => leave,
            Err(_) => {
                let leave = opening.acquire_owned().await.map_err(|_| closed())?;
                if let Some(line) = self.pool.take(origin, Instant::now()) {
                    return Ok((line, None));
                }
                leave
            }
        };
        Ok((self.connect(origin).await?, Some(leave)))
    }

    async fn connect(&self, origin: &Arc<Origin>) -> Result<Line, TransportError> {
        let stream = self.connector.connect(origin).await?;
        if stream.speaks_http2() {
            let opened = http2::open(stream, &self.tasks).await;
            let sender = opened.map_err(|error| exchange_failed(&error))?;
            return Ok(Line::Http2(self.pool.share(origin, sender)));
        }
        let opened = Http1::new(stream, origin.dress.title_case).await;
        let line = opened.map_err(|error| exchange_failed(&error))?;
        Ok(Line::Http1(Box::new(line)))
    }

    /// Has idle connections looked through for as long as there is a pool.
    fn keep(&self) {
        if self.is_kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let pool = Arc::downgrade(&self.pool);
        self.tasks.spawn(TaskKind::ConnectionKeeper, async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = Weak::upgrade(&pool) else {
                    return Ok::<(), io::Error>(());
                };
                pool.sweep(Instant::now());
            }
        });
    }
}

/// Keeps the leave to open a connection until its first exchange has ended, or for a moment: until
/// then the endpoint may not have accepted it.
async fn keeping<F: Future>(leave: Option<Leave>, exchange: F) -> F::Output {
    let Some(leave) = leave else {
        return exchange.await;
    };
    let mut exchange = pin!(exchange);
    match tokio::time::timeout(ACCEPTED_AFTER, &mut exchange).await {
        Ok(ended) => ended,
        Err(_) => {
            drop(leave);
            exchange.await
        }
    }
}

/// Nobody closes what gives leave to open connections while there is a transport.
fn closed() -> TransportError {
    TransportError::new(TransportErrorKind::Request, "the transport has ended")
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

// === impl Failure ===

impl Failure {
    /// Of a request that may have been sent.
    pub(super) fn of(error: &hyper::Error) -> Self {
        Self {
            error: exchange_failed(error),
            unsent: None,
        }
    }
}

/// What is kept of a response.
pub(super) fn response_of(head: &http::response::Parts, read: Read) -> Response {
    Response {
        status: head.status.as_u16(),
        retry_after: rate_limit::retry_after(&head.headers)
            .filter(|value| value.len() <= HEADER_KEPT_CHARS_MAX)
            .map(str::to_owned),
        left: rate_limit::left(&head.headers),
        content_type: kept_header(&head.headers, &CONTENT_TYPE),
        body: read.kept,
        body_bytes_read: read.bytes_read,
        truncated: read.truncated,
        ending: Ending::of(&head.headers),
    }
}

fn kept_header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= HEADER_KEPT_CHARS_MAX).then(|| value.to_owned())
}
