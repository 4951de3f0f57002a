//! Owns endpoints: servers on loopback that behave as they are told and remember each request.
//!
//! It must never judge what arrives. The surprise: what a sink does depends on the attempt, which it
//! counts for each delivery id by itself.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::now_ms;
use crate::poll::{DEADLINE, eventually};

const BODY_BYTES_MAX: usize = 64 << 20;

/// What a sink does.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with this status, always.
    Always(u16),
    /// Answers the first attempts of a delivery with the status, the later ones with 200.
    Fails(u32, u16),
    /// Takes the request and never answers.
    Hangs,
    /// Answers the first requests of all with 429 and `Retry-After` in seconds.
    Throttles(u32, u64),
    /// Answers each so manieth request with 429 and `Retry-After` in seconds, the others with 200.
    ThrottlesEvery(u32, u64),
    /// Answers with 302 to this place.
    Redirects(String),
    /// Answers with 200 after this time.
    Slow(Duration),
    /// Answers with 200 and so many bytes.
    Big(usize),
    /// Answers as this says.
    Answers(Answers),
}

/// What a sink answers to a request: from how many came before it, and its body.
#[derive(Clone)]
pub struct Answers(Arc<AnswerTo>);

type AnswerTo = dyn Fn(usize, &[u8]) -> (u16, String) + Send + Sync;

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers(..)")
    }
}

/// 200.
pub fn ok() -> Behaviour {
    Behaviour::Always(200)
}

/// This status, always.
pub fn always(status: u16) -> Behaviour {
    Behaviour::Always(status)
}

/// 500 for the first `attempts` of each delivery, then 200.
pub fn fails(attempts: u32) -> Behaviour {
    Behaviour::Fails(attempts, 500)
}

/// No answer.
pub fn hangs() -> Behaviour {
    Behaviour::Hangs
}

/// 429 with `Retry-After` for the first `requests`, then 200.
pub fn throttles(requests: u32, seconds: u64) -> Behaviour {
    Behaviour::Throttles(requests, seconds)
}

/// 429 with `Retry-After` for each `nth` request, 200 for the others.
pub fn throttles_every(nth: u32, seconds: u64) -> Behaviour {
    Behaviour::ThrottlesEvery(nth, seconds)
}

/// 302 to `place`.
pub fn redirects(place: &str) -> Behaviour {
    Behaviour::Redirects(place.to_owned())
}

/// 200 after a while.
pub fn slow(wait: Duration) -> Behaviour {
    Behaviour::Slow(wait)
}

/// 200 with a body of so many bytes.
pub fn big(bytes: usize) -> Behaviour {
    Behaviour::Big(bytes)
}

/// The status and the body that `answer` gives, from how many requests came before and the body.
pub fn answers(
    answer: impl Fn(usize, &[u8]) -> (u16, String) + Send + Sync + 'static,
) -> Behaviour {
    Behaviour::Answers(Answers(Arc::new(answer)))
}

/// One request that a sink got.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it had arrived, unix milliseconds.
    pub at: i64,
    /// Its `webhook-id`.
    pub id: String,
    /// The id of the event that it carries, where it does.
    pub event_id: String,
    /// The ids of all events that it carries: several in a batch.
    pub event_ids: Vec<String>,
    /// Which request with this id it was, from 1.
    pub attempt: u32,
    /// Its method, path and query: `POST /hook`.
    pub asked: String,
    /// The status it was answered with; 0 for none.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Arrival {
    /// Whether the signature is one of `secret`'s, as the reference library of Standard Webhooks
    /// sees it.
    ///
    /// # Panics
    /// When the secret is not one.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
        webhook.verify(&self.body, &self.headers).is_ok()
    }

    /// An attribute of the event, from a structured body or from headers.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.headers, &self.body, name)
    }

    /// The bytes of `data` in a structured body.
    ///
    /// # Panics
    /// When it has none.
    pub fn data(&self) -> String {
        let json: HashMap<String, Box<RawValue>> =
            serde_json::from_slice(&self.body).expect("a structured body");
        json.get("data").expect("data").get().to_owned()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

fn attribute(headers: &HeaderMap, body: &[u8], name: &str) -> Option<String> {
    if let Some(value) = headers.get(format!("ce-{name}")) {
        return value.to_str().ok().map(str::to_owned);
    }
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    json.get(name)?.as_str().map(str::to_owned)
}

/// The ids of the events of a batch; of one event, `single`.
fn event_ids(body: &[u8], single: &str) -> Vec<String> {
    if body.trim_ascii_start().first() != Some(&b'[') {
        return vec![single.to_owned()];
    }
    let items: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
    let ids = items.iter().filter_map(|item| item.get("id")?.as_str());
    ids.map(str::to_owned).collect()
}

#[derive(Debug)]
struct Shared {
    ids_only: AtomicBool,
    behaviour: Mutex<Behaviour>,
    arrivals: Mutex<Vec<Arrival>>,
    counts: Mutex<HashMap<String, u32>>,
}

/// A server that stands for somebody else's system.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
}

impl Sink {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(behaviour: Behaviour) -> Self {
        let shared = Arc::new(Shared {
            ids_only: AtomicBool::new(false),
            behaviour: Mutex::new(behaviour),
            arrivals: Mutex::default(),
            counts: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&shared);
        std::thread::spawn(move || serve(listener, state, stopped));
        Self {
            address,
            shared,
            stop: Some(stop),
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on it does this.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// From now on it keeps neither headers nor bodies: for a run of many thousands.
    pub fn keep_ids_only(&self) {
        self.shared.ids_only.store(true, Ordering::Relaxed);
    }

    /// What has arrived.
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.shared.arrivals).clone()
    }

    /// Looks at what has arrived, without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&[Arrival]) -> T) -> T {
        look(&lock(&self.shared.arrivals))
    }

    /// How many requests have arrived.
    pub fn count(&self) -> usize {
        lock(&self.shared.arrivals).len()
    }

    /// Waits for `count` requests.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn expect_requests(&self, count: usize) -> Vec<Arrival> {
        let what = format!("{count} requests");
        eventually(&what, DEADLINE, async || {
            (self.count() >= count).then(|| self.arrivals())
        })
        .await
    }

    /// Waits until the event `id` was taken (2xx), and returns that request.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn expect_event(&self, id: &str) -> Arrival {
        let taken =
            |arrival: &&Arrival| (200..300).contains(&arrival.status) && arrival.event_id == id;
        eventually(&format!("event {id} delivered"), DEADLINE, async || {
            self.look(|all| all.iter().find(taken).cloned())
        })
        .await
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: std::net::TcpListener, state: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let router = Router::new()
            .fallback(take)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(state);
        let server = axum::serve(listener, router);
        tokio::select! {
            // Requests that hang end with the runtime.
            _ = stopped => {}
            served = server => served.expect("a server serves"),
        }
    });
}

async fn take(
    State(shared): State<Arc<Shared>>,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = now_ms();
    let id = headers
        .get("webhook-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let id = id.to_owned();
    let attempt = {
        let mut counts = lock(&shared.counts);
        let count = counts.entry(id.clone()).or_default();
        *count += 1;
        *count
    };
    let behaviour = lock(&shared.behaviour).clone();
    let before = lock(&shared.arrivals).len();
    let said = match &behaviour {
        Behaviour::Answers(answers) => Some(answers.0(before, &body)),
        Behaviour::Always(_)
        | Behaviour::Fails(..)
        | Behaviour::Hangs
        | Behaviour::Throttles(..)
        | Behaviour::ThrottlesEvery(..)
        | Behaviour::Redirects(_)
        | Behaviour::Slow(_)
        | Behaviour::Big(_) => None,
    };
    let (status, wait) = match &said {
        Some((status, _)) => (Some(*status), None),
        None => decide(&behaviour, attempt, before),
    };
    let recorded = status.unwrap_or(0);
    if let Some(wait) = wait {
        tokio::time::sleep(wait).await;
    }
    let event_id = attribute(&headers, &body, "id").unwrap_or_default();
    let ids_only = shared.ids_only.load(Ordering::Relaxed);
    let arrival = Arrival {
        at,
        id,
        event_ids: event_ids(&body, &event_id),
        event_id,
        attempt,
        asked: format!("{method} {uri}"),
        status: recorded,
        headers: if ids_only { HeaderMap::new() } else { headers },
        body: if ids_only { Bytes::new() } else { body },
    };
    lock(&shared.arrivals).push(arrival);
    let Some(status) = status else {
        return std::future::pending().await;
    };
    let body = said.map(|(_, body)| body).unwrap_or_default();
    answer(&behaviour, status, body)
}

/// The status, none for no answer, and how long it takes.
fn decide(behaviour: &Behaviour, attempt: u32, before: usize) -> (Option<u16>, Option<Duration>) {
    match behaviour {
        Behaviour::Always(status) => (Some(*status), None),
        Behaviour::Fails(times, status) if attempt <= *times => (Some(*status), None),
        Behaviour::Fails(..) | Behaviour::Big(_) | Behaviour::Answers(_) => (Some(200), None),
        Behaviour::Hangs => (None, None),
        Behaviour::Throttles(requests, _) => {
            let throttled = u32::try_from(before).is_ok_and(|before| before < *requests);
            (Some(if throttled { 429 } else { 200 }), None)
        }
        Behaviour::ThrottlesEvery(nth, _) => {
            let number = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            let throttled = number.is_multiple_of(*nth);
            (Some(if throttled { 429 } else { 200 }), None)
        }
        Behaviour::Redirects(_) => (Some(302), None),
        Behaviour::Slow(wait) => (Some(200), Some(*wait)),
    }
}

fn answer(behaviour: &Behaviour, status: u16, said: String) -> Response {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    let body = match behaviour {
        Behaviour::Throttles(_, seconds) | Behaviour::ThrottlesEvery(_, seconds)
            if status == 429 =>
        {
            response = response.header("retry-after", seconds.to_string());
            Body::empty()
        }
        Behaviour::Redirects(place) => {
            response = response.header("location", place);
            Body::empty()
        }
        Behaviour::Big(bytes) => Body::from(vec![b'x'; *bytes]),
        Behaviour::Answers(_) => Body::from(said),
        Behaviour::Always(_)
        | Behaviour::Fails(..)
        | Behaviour::Hangs
        | Behaviour::Throttles(..)
        | Behaviour::ThrottlesEvery(..)
        | Behaviour::Slow(_) => Body::empty(),
    };
    response.body(body).expect("a response")
}
