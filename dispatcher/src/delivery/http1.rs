//! Owns one HTTP/1.1 connection and the exchanges over it.
//!
//! The connection has no task of its own: whoever uses it drives it, so that an exchange wakes
//! nobody else. It must never be used again after an exchange that did not end: its state is then
//! unknown. The surprise: what hyper reports back through its channels can only have changed while
//! the connection was driven, hence the wakers that do nothing.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;

use super::Response;
use super::client::{Failure, response_of};
use super::connect::Stream;
use super::destination::Parts;
use super::failure::exchange_failed;
use super::read_capped::{Caps, Reading};

/// What a response's head may take, and what is read of a socket at once.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The head of a response, or why there is none.
type Answered = Result<http::Response<Incoming>, TrySendError<Request<Full<Bytes>>>>;

/// One connection.
pub(super) struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Connection<TokioIo<Stream>, Full<Bytes>>>,
}

impl Http1 {
    /// A connection over a fresh `stream`, headers' names in title case where the endpoint wants them.
    pub(super) async fn new(stream: Stream, title_case: bool) -> hyper::Result<Self> {
        let mut builder = Builder::new();
        builder.title_case_headers(title_case);
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            connection: Some(connection),
        })
    }

    /// Whether the connection waits for a request, as far as is known by now.
    pub(super) fn is_idle(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Whether the endpoint has not closed the connection, which nobody uses now.
    pub(super) fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_idle()
    }

    /// Sends one request and reads the answer to its end or to the caps.
    ///
    /// cancel-safe: the connection must be dropped with the future.
    // Not an `async fn`, whose future would keep room for the request while it waits.
    pub(super) fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        caps: Caps,
    ) -> impl Future<Output = Result<Response, Failure>> {
        // Nothing but the connection decides when the answer is there, no budget either.
        let answer = unconstrained(self.sender.try_send_request(request));
        self.answered(answer, caps)
    }

    async fn answered(
        &mut self,
        answer: impl Future<Output = Answered>,
        caps: Caps,
    ) -> Result<Response, Failure> {
        let mut answer = pin!(answer);
        let (connection, noop) = (&mut self.connection, Waker::noop());
        // A connection that has ended by now is noticed before anything is written to it.
        let answered = poll_fn(|cx| {
            drive(connection, cx);
            answer.as_mut().poll(&mut Context::from_waker(noop))
        });
        let (head, body) = match answered.await {
            Ok(response) => response.into_parts(),
            Err(mut error) => {
                let unsent = error.take_message().map(|request| request.into_parts().0);
                return Err(Failure {
                    unsent: unsent.map(|head| head.headers),
                    error: exchange_failed(&error.into_error()),
                });
            }
        };
        let reading = self.read(body, caps).await;
        let read = reading.map_err(|error| Failure::of(&error))?;
        Ok(response_of(&head, read.finish()))
    }

    async fn read(&mut self, mut body: Incoming, caps: Caps) -> hyper::Result<Reading> {
        let mut reading = Reading::new(caps, body.size_hint().exact());
        if body.is_end_stream() {
            return Ok(reading);
        }
        while let Some(frame) = poll_fn(|cx| self.poll_frame(&mut body, cx)).await {
            if frame?.data_ref().is_some_and(|chunk| reading.take(chunk)) {
                // What is left unread is the end of this connection.
                self.connection = None;
                break;
            }
        }
        Ok(reading)
    }

    fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut noop = Context::from_waker(Waker::noop());
        // Asking first tells the connection that there is somebody to read for.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut noop) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        Pin::new(body).poll_frame(&mut noop)
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, cx);
    }
}

/// Reads and writes as far as it goes. Dropping a connection that has ended lets its channels say
/// why.
fn drive(connection: &mut Option<Connection<TokioIo<Stream>, Full<Bytes>>>, cx: &mut Context<'_>) {
    if let Some(open) = connection
        && Pin::new(open).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// The request as HTTP/1.1 has it: a path, and the host as a header (RFC 9112 §3.2).
pub(super) fn request(
    parts: &Parts,
    (method, mut headers): (Method, HeaderMap),
    body: Bytes,
) -> Request<Full<Bytes>> {
    headers.insert(HOST, parts.host.clone());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = parts.path.clone();
    *request.headers_mut() = headers;
    request
}
