//! Owns HTTP/2 connections and the exchanges over them.
//!
//! One connection carries many exchanges, so it has a task of its own, which ends when nobody holds
//! a sender any more. It must never outlive its transport: its task is of the transport's group.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::task::{TaskKind, Tasks};

use super::Response;
use super::client::{Failure, response_of};
use super::connect::Stream;
use super::destination::Parts;
use super::failure::exchange_failed;
use super::read_capped::{Caps, Reading};

/// What one stream may send ahead of being read; a body is read to this size anyway.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// A busy connection whose peer has vanished is noticed after this and closed after as much again;
/// otherwise every attempt would be put on it and time out.
const PING: Duration = Duration::from_secs(10);

/// A connection, shared by its clones.
pub(super) type Http2 = SendRequest<Full<Bytes>>;

/// Spawns what hyper wants to have spawned.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(TaskKind::EndpointConnection, async move {
            future.await;
            Ok::<(), io::Error>(())
        });
    }
}

/// A connection over a fresh `stream`, driven by a task of `tasks`.
pub(super) async fn open(stream: Stream, tasks: &Tasks) -> hyper::Result<Http2> {
    let spawner = Spawner(tasks.clone());
    let (sender, connection) = Builder::new(spawner)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .handshake(TokioIo::new(stream))
        .await?;
    tasks.spawn(TaskKind::EndpointConnection, async move {
        // Its exchanges report what went wrong.
        connection.await.ok();
        Ok::<(), io::Error>(())
    });
    Ok(sender)
}

/// Sends one request and reads the answer to its end or to the caps.
///
/// cancel-safe: dropping the future resets the stream.
pub(super) async fn exchange(
    mut sender: Http2,
    request: Request<Full<Bytes>>,
    caps: Caps,
) -> Result<Response, Failure> {
    let (head, body) = match sender.try_send_request(request).await {
        Ok(response) => response.into_parts(),
        Err(mut error) => {
            let unsent = error.take_message().map(|request| request.into_parts().0);
            return Err(Failure {
                unsent: unsent.map(|head| head.headers),
                error: exchange_failed(&error.into_error()),
            });
        }
    };
    let reading = read(body, caps).await;
    let read = reading.map_err(|error| Failure::of(&error))?;
    Ok(response_of(&head, read.finish()))
}

/// Dropping a body that is not at its end resets its stream.
async fn read(mut body: Incoming, caps: Caps) -> hyper::Result<Reading> {
    let mut reading = Reading::new(caps, body.size_hint().exact());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if frame?.data_ref().is_some_and(|chunk| reading.take(chunk)) {
            break;
        }
    }
    Ok(reading)
}

/// The request as HTTP/2 has it: scheme, authority and path are of the URI (RFC 9113 §8.3.1).
pub(super) fn request(
    parts: &Parts,
    (method, mut headers): (Method, HeaderMap),
    body: Bytes,
) -> Request<Full<Bytes>> {
    headers.remove(HOST);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = parts.absolute.clone();
    *request.headers_mut() = headers;
    request
}
