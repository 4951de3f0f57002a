//! Owns how HTTP connections are taken, limited and ended, for every port of the project.
//!
//! It must never hold a connection without a limit of time: until its first request, while headers
//! arrive, and while a request is answered. The surprise: at the connection limit it stops
//! accepting, so further clients wait in the kernel's backlog instead of being refused.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::problem::{Problem, ProblemType};
use crate::task::{TaskKind, Tasks};
use crate::telemetry::{Family, IntCounter, IntGauge, Metrics};

/// hyper reads HTTP/1 heads into a buffer of at least this size.
const HTTP1_BUFFER_MIN: usize = 8_192;
/// hyper takes heads so many times larger than we do, so that we can say what is wrong with them;
/// to what is beyond its own limits it answers 431 with nothing in it.
const HEAD_SLACK: usize = 2;
/// Requests at once on one HTTP/2 connection: enough to fill it, too few to flood us through one.
const HTTP2_STREAMS_MAX: u32 = 128;
/// How often an idle HTTP/2 peer is asked whether it is there, and how long it may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

crate::label! {
    /// Which port.
    pub enum ServerName("server") {
        /// The admin port.
        Admin => "admin",
        /// Ingest.
        Ingest => "ingest",
        /// Control.
        Control => "control",
        /// Cohorts.
        Cohorts => "cohorts",
    }
}

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections at once; beyond it, clients wait to be accepted.
    pub max_connections: usize,
    /// From accepting to the first request's head, and for each head after it; idle keep-alive
    /// connections of HTTP/1 are closed after it too.
    pub header_timeout: Duration,
    /// From a request's head to its whole answer's head, the reading of its body included.
    pub request_timeout: Duration,
    /// Bytes of a request's head; at least 8 KiB for HTTP/1.
    pub max_header_bytes: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// For requests under way when the server stops.
    pub drain_deadline: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            // As nginx and hyper: a slow line passes, a slow attacker holds little.
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            max_header_bytes: 32 * 1_024,
            // hyper's own default.
            max_headers: 100,
            drain_deadline: Duration::from_secs(10),
        }
    }
}

impl ServerLimits {
    /// What is wrong with a request whose head is beyond the limits.
    fn beyond<B>(&self, request: &Request<B>) -> Option<Problem> {
        let refuse = |what: String| Problem::new(ProblemType::HeadTooLarge).detail(what);
        if request.headers().len() > self.max_headers {
            let limit = self.max_headers;
            return Some(refuse(format!("at most {limit} headers are taken")));
        }
        let limit = self.max_header_bytes.max(HTTP1_BUFFER_MIN);
        (head_bytes(request) > limit)
            .then(|| refuse(format!("a head of at most {limit} bytes is taken")))
    }
}

/// The bytes of a request's line and headers as HTTP/1 would carry them.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let path = request.uri().path_and_query();
    let line = request.method().as_str().len() + path.map_or(0, |path| path.as_str().len());
    let around_line = "  HTTP/1.1\r\n\r\n".len();
    let headers = request.headers().iter();
    let fields = headers.map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    line + around_line + fields.sum::<usize>()
}

/// What a server counts.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: IntGauge,
    waits: IntCounter,
    heads_refused: IntCounter,
}

impl ConnectionMetrics {
    /// The metrics of one port.
    #[must_use]
    pub fn new(metrics: &Metrics, server: ServerName) -> Self {
        let open: Family<ServerName, IntGauge> =
            metrics.gauges("anabranch_http_connections", "Open HTTP connections");
        let waits: Family<ServerName, IntCounter> = metrics.counters(
            "anabranch_http_accept_waits_total",
            "Times that accepting waited because the connection limit was reached",
        );
        let heads_refused: Family<ServerName, IntCounter> = metrics.counters(
            "anabranch_http_heads_refused_total",
            "Requests refused because their line and headers were beyond a limit",
        );
        Self {
            open: open.get(server).clone(),
            waits: waits.get(server).clone(),
            heads_refused: heads_refused.get(server).clone(),
        }
    }
}

/// Takes connections (HTTP/1.1 and HTTP/2 without TLS) and answers them with `app`, until `tasks`
/// is cancelled; then stops accepting, lets requests under way end within the drain deadline, and
/// returns. Handlers find the client's address as `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// None today; the type is that of a task.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ServerLimits,
    metrics: ConnectionMetrics,
    tasks: Tasks,
) -> Result<(), io::Error> {
    let connections = tasks.child("connections");
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let server = Arc::new(Server {
        app,
        builder: builder(&limits),
        drain: tasks.token().clone(),
        cut: CancellationToken::new(),
        limits,
        metrics,
    });
    while let Some((stream, peer, slot)) = server.next(&listener, &slots).await {
        let server = Arc::clone(&server);
        connections.spawn(TaskKind::Connection, async move {
            server.connection(stream, peer, slot).await;
            Ok::<(), Infallible>(())
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(server.limits.drain_deadline, connections.finished()).await;
    if drained.is_err() {
        let left = connections.running();
        tracing::warn!(
            connections = left,
            "connections left when the drain deadline passed"
        );
        server.cut.cancel();
        connections.finished().await;
    }
    Ok(())
}

struct Server {
    app: Router,
    builder: Builder<TokioExecutor>,
    /// No more requests: those under way may end.
    drain: CancellationToken,
    /// The drain deadline has passed.
    cut: CancellationToken,
    limits: ServerLimits,
    metrics: ConnectionMetrics,
}

impl Server {
    /// The next connection with its slot, which is taken first: what is accepted is served.
    async fn next(
        &self,
        listener: &TcpListener,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        if slots.available_permits() == 0 {
            self.metrics.waits.inc();
        }
        let accept = async {
            let slot = Arc::clone(slots).acquire_owned().await.ok()?;
            let (stream, peer) = accept(listener).await;
            Some((stream, peer, slot))
        };
        tokio::select! {
            biased;
            () = self.drain.cancelled() => None,
            accepted = accept => accepted,
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) {
        let _open = Open::new(&self.metrics.open);
        // Small answers must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let started = Arc::new(Notify::new());
        let (server, first_request) = (Arc::clone(&self), Arc::clone(&started));
        let service = service_fn(move |request: Request<Incoming>| {
            first_request.notify_one();
            Arc::clone(&server).answer(request, peer)
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let silent = tokio::time::sleep(self.limits.header_timeout);
        let mut silent = std::pin::pin!(silent);
        let (mut first, mut draining) = (true, false);
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = started.notified(), if first => first = false,
                // The protocol is guessed from the first bytes, for which hyper has no limit.
                () = silent.as_mut(), if first => break Ok(()),
                () = self.cut.cancelled() => break Ok(()),
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            // Clients that vanish or speak something else: nothing to repair here.
            tracing::debug!(%peer, error = %crate::task::chain(&*error), "connection ended");
        }
        drop(slot);
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response, Infallible> {
        if let Some(problem) = self.limits.beyond(&request) {
            self.metrics.heads_refused.inc();
            return Ok(problem.into_response());
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = self.app.clone().oneshot(request);
        match tokio::time::timeout(self.limits.request_timeout, answer).await {
            Ok(answered) => answered,
            Err(_) => Ok(Problem::new(ProblemType::Timeout).into_response()),
        }
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

fn builder(limits: &ServerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.max_headers * HEAD_SLACK)
        .max_buf_size(limits.max_header_bytes.max(HTTP1_BUFFER_MIN) * HEAD_SLACK);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(
            u32::try_from(limits.max_header_bytes * HEAD_SLACK).unwrap_or(u32::MAX),
        )
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    builder
}
