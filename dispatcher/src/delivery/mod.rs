//! One attempt, from an event to a verdict: body, headers, signature, address policy, exchange,
//! classification.
//!
//! The only place in the project that opens sockets to endpoints and that names the types of an HTTP
//! client (rule 18). It never decides *when* an attempt is made, never retries by itself and never logs
//! a header value or a URL path: both may hold secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

pub mod address;
pub mod classify;
pub mod client;
mod connect;
mod destination;
pub mod ending;
mod failure;
mod http1;
mod http2;
pub mod identity;
mod pool;
pub mod rate_limit;
mod read_capped;
pub mod request;
pub mod sending;
pub mod sign;
pub mod template;
mod tls;
pub mod tokens;
mod trace;
pub mod transform;

#[cfg(test)]
mod tests;

pub use destination::{Destination, Dress};

/// Makes one attempt. The real one is [`client::HttpTransport`]; a simulation puts its own here.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and reads the answer, all within [`OutgoingRequest::timeout`].
    ///
    /// cancel-safe: dropping the future abandons the exchange and closes its connection.
    fn send(&self, request: OutgoingRequest) -> impl Future<Output = Answer> + Send;
}

/// What came of one attempt: an HTTP response, or why there is none.
pub type Answer = Result<Response, TransportError>;

/// One request, ready to send: these bytes are the ones that were signed (rule 9).
#[derive(Clone)]
pub struct OutgoingRequest {
    /// Where to; checked against the address policy before anything else happens.
    pub destination: Arc<Destination>,
    /// What it asks for; everything but a profile's own requests is a POST.
    pub method: Method,
    /// All headers except those that the connection itself needs (host, content-length).
    pub headers: HeaderMap,
    /// The body, shared with every other attempt that has the same one.
    pub body: Bytes,
    /// Total deadline: name lookup, connect, TLS, request, response and its body (rule 10).
    pub timeout: Duration,
    /// So many bytes of the answer's body are kept, where that is more than usual.
    pub kept_bytes: usize,
}

/// The kept part of an endpoint's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status code, 100 to 999.
    pub status: u16,
    /// The `Retry-After` header as it came, if it is short enough to be one.
    pub retry_after: Option<String>,
    /// What the endpoint says is left of its limit (HT-9, HT-10).
    pub left: Option<rate_limit::Left>,
    /// The `Content-Type` header, if it is text.
    pub content_type: Option<String>,
    /// The first bytes of the body, up to the cap on what is kept.
    pub body: Bytes,
    /// How many bytes of the body were read, kept or not.
    pub body_bytes_read: u64,
    /// The body was longer than what was kept.
    pub truncated: bool,
    /// What the endpoint says of the end of what it serves.
    pub ending: Option<ending::Ending>,
}

/// Bytes of a response body that are kept where nobody says otherwise (SS-8).
pub const BODY_KEPT_BYTES_MAX: usize = 16 * 1024;

/// The most that are kept of an answer about many items.
pub const ITEMS_KEPT_BYTES_MAX: usize = 1024 * 1024;
/// What an answer may say of one item.
const ITEM_KEPT_BYTES: usize = 512;

/// Bytes that are kept of an answer about so many items: whoever sent more may be told more.
#[must_use]
pub fn kept_bytes(items: usize) -> usize {
    items
        .saturating_mul(ITEM_KEPT_BYTES)
        .clamp(BODY_KEPT_BYTES_MAX, ITEMS_KEPT_BYTES_MAX)
}

/// Bytes of a response body that are read before the connection is dropped, where nobody says
/// otherwise (SS-8).
pub const BODY_READ_BYTES_MAX: u64 = 64 * 1024;

/// Why an attempt brought no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", .kind.as_str())]
pub struct TransportError {
    /// The class, on which the verdict rests.
    pub kind: TransportErrorKind,
    /// For people: names neither the URL nor an internal address (SS-7).
    pub text: String,
}

/// The classes of [`TransportError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportErrorKind {
    /// The address policy refuses the destination (SS-1..10).
    Address,
    /// The name has no address, or the lookup did not end in time.
    Dns,
    /// No connection: refused, unreachable, or not within the connect timeout.
    Connect,
    /// The TLS handshake ended badly, e.g. with an unknown certificate authority.
    Tls,
    /// The total deadline passed.
    Timeout,
    /// The connection ended before the answer was complete.
    Reset,
    /// What came back is not HTTP.
    Protocol,
    /// The request cannot be expressed in HTTP.
    Request,
    /// No request could be made by the templates.
    Template,
}

impl TransportErrorKind {
    /// The stable text, used in records and as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Request => "request",
            Self::Template => "template",
        }
    }
}

impl TransportError {
    /// An error of this class with a text for people.
    pub fn new(kind: TransportErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingRequest")
            .field("destination", &self.destination)
            .field("method", &self.method)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
