//! Owns the simulated partner's port: requests go to the partner, and `/_simulator` tells and
//! changes what it is about.
//!
//! It must never listen beyond loopback unless it is told to. The surprise: it is hyper without a
//! framework, since a connection that is to be dropped needs a service that fails.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use percent_encoding::percent_decode_str;
use runtime::task::{BoxError, TaskKind, Tasks};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::faults::Faults;
use super::partner::{Ask, Outcome, Partner, Reply};
use super::stats::Stats;

/// Under which the simulator itself is asked.
const OWN: &str = "/_simulator";
/// What a body may have beyond the partner's limit before it is not even looked at.
const BODY_SPARE: usize = 1 << 20;

/// A simulated partner that listens.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    partner: Mutex<Partner>,
    begin: Instant,
    body_max: usize,
    /// When the API's version ends, as the header says it.
    sunset: Option<String>,
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped")
    }
}

impl std::error::Error for Dropped {}

/// Counts a request until it is answered, or nobody waits for it any more.
struct Waiting<'s>(&'s Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.partner().leave();
    }
}

impl Server {
    /// Takes the address; nothing is answered before [`Server::serve`].
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr, partner: Partner) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let profile = partner.profile();
        let body_max = usize::try_from(profile.limits.bytes.get()).unwrap_or(usize::MAX);
        let sunset = profile.sunset.map(|date| {
            let date = date.strftime("%a, %d %b %Y 00:00:00 GMT");
            date.to_string()
        });
        Ok(Self {
            listener: listener.with_context(|| format!("listen on {address}"))?,
            shared: Arc::new(Shared {
                begin: Instant::now(),
                body_max: body_max.saturating_add(BODY_SPARE),
                sunset,
                partner: Mutex::new(partner),
            }),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers as tasks of `tasks`, until those are cancelled. What it gives tells the counts.
    pub(crate) fn serve(self, tasks: &Tasks) -> impl Fn() -> Stats + use<> {
        let shared = Arc::clone(&self.shared);
        let connections = tasks.clone();
        tasks.spawn(TaskKind::Command, async move {
            loop {
                let (stream, _) = match self.listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "connection not accepted");
                        // Out of descriptors: others must go first.
                        sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
                let serving = converse(stream, Arc::clone(&self.shared));
                connections.spawn(TaskKind::Command, serving);
            }
            #[expect(unreachable_code, reason = "says what the task's error is")]
            Ok::<(), BoxError>(())
        });
        move || shared.partner().stats.clone()
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) -> Result<(), BoxError> {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { shared.respond(request).await }
    });
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that goes away and a connection that is dropped on purpose are nobody's fault.
    served.ok();
    Ok(())
}

impl Shared {
    fn partner(&self) -> MutexGuard<'_, Partner> {
        self.partner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query();
        let target = target.map_or("/", axum::http::uri::PathAndQuery::as_str);
        let body = match Limited::new(body, self.body_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                let reply = json!({"message": "the body is too long, or was cut"});
                return Ok(answer(StatusCode::PAYLOAD_TOO_LARGE, &reply));
            }
        };
        if let Some(own) = target.strip_prefix(OWN) {
            return Ok(self.own(&head.method, own, &body));
        }
        let ask = Ask {
            method: head.method.as_str(),
            target,
            body: &body,
        };
        let (outcome, slow_ms) = {
            let mut partner = self.partner();
            (partner.take(self.now_us(), &ask), partner.faults.slow_ms)
        };
        let waiting = Waiting(self);
        if slow_ms > 0 {
            sleep(Duration::from_millis(slow_ms)).await;
        }
        drop(waiting);
        match outcome {
            Outcome::Reply(reply) => Ok(self.told(&reply)),
            Outcome::Drop => Err(Dropped),
        }
    }

    fn told(&self, reply: &Reply) -> Response<Full<Bytes>> {
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
        let mut response = answer(status, &reply.body);
        let headers = response.headers_mut();
        if let Some(seconds) = reply.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(Ok(sunset)) = self.sunset.as_ref().map(|date| date.parse()) {
            headers.insert("sunset", sunset);
        }
        response
    }

    // === /_simulator ===

    fn own(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let mut partner = self.partner();
        partner.look(self.now_us());
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let answered = match (method.as_str(), path) {
            ("GET", "/stats") => serde_json::to_value(&partner.stats).ok(),
            ("GET", "/faults") => serde_json::to_value(partner.faults).ok(),
            ("PUT", "/faults") => {
                return match serde_json::from_slice::<Faults>(body) {
                    Ok(faults) => {
                        partner.faults = faults;
                        answer(StatusCode::OK, &Value::Null)
                    }
                    Err(error) => {
                        let told = json!({"message": error.to_string()});
                        answer(StatusCode::BAD_REQUEST, &told)
                    }
                };
            }
            ("DELETE", "/stats") => {
                partner.stats = Stats::default();
                Some(Value::Null)
            }
            ("GET", "/lists") => {
                let lists = partner.lists();
                Some(
                    lists
                        .map(|(id, list)| (id.to_owned(), json!(list.count())))
                        .collect(),
                )
            }
            ("GET" | "PUT", path) => path
                .strip_prefix("/lists/")
                .and_then(|id| percent_decode_str(id).decode_utf8().ok())
                .and_then(|id| list_told(&mut partner, method, &id, query)),
            (_, _) => None,
        };
        match answered {
            Some(told) => answer(StatusCode::OK, &told),
            None => answer(
                StatusCode::NOT_FOUND,
                &json!({"message": "the simulator has no such thing"}),
            ),
        }
    }
}

fn list_told(partner: &mut Partner, method: &Method, id: &str, query: &str) -> Option<Value> {
    if *method == Method::PUT {
        partner.make_list(id);
    }
    let (_, list) = partner.lists().find(|(other, _)| *other == id)?;
    let mut told = serde_json::to_value(list.digest()).ok()?;
    if query.split('&').any(|part| part == "members=1")
        && let (Some(texts), Some(told)) = (list.texts(), told.as_object_mut())
    {
        let item = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
        let members = texts.map(|(id, json)| json!({"id": id, "item": item(json)}));
        told.insert("members".to_owned(), members.collect());
    }
    Some(told)
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let text = if body.is_null() {
        Bytes::new()
    } else {
        body.to_string().into()
    };
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    if !body.is_null() {
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    response
}

#[cfg(test)]
mod tests;
