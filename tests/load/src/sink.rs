//! Owns the endpoint: a server on one thread that counts the ids it sees once, and the handle of
//! the process that it runs in.
//!
//! It must never do more for a request than read it, remember its id and answer. The surprise: its
//! own questions come over the same port, under `/-/`, and are not counted; what is posted under
//! `/hang` is never answered.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hashbrown::HashSet;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use schemas::ids::DeliveryId;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::child::{Child, free_address};
use crate::client::{Connection, is_ok};
use crate::events::{BATCH, ID_PREFIX};
use crate::pace::wall_us;

const LOOK: Duration = Duration::from_millis(20);
/// Where an endpoint hangs.
const HANG: &str = "/hang";
/// What precedes an item's number in a batch.
const ITEM_MARK: &str = "\"id\":\"load-";
const START_TIMEOUT: Duration = Duration::from_secs(5);

// === the server ===

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<u128, foldhash::fast::RandomState>,
    counts: Counts,
    first: Option<Example>,
    times: Option<Vec<(u64, i64)>>,
}

/// What has arrived.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests.
    pub(crate) requests: u64,
    /// Different ids among them.
    pub(crate) unique: u64,
    /// When the first came, by the wall clock in microseconds.
    pub(crate) first_us: i64,
    /// When the last new id came.
    pub(crate) last_us: i64,
}

/// One request as it came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Example {
    /// Its headers.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body.
    pub(crate) body: String,
}

/// Serves until the process ends; with `times` it remembers when each event arrived.
///
/// # Errors
/// Where the address cannot be had.
pub(crate) async fn serve(address: SocketAddr, times: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| address.to_string())?;
    let seen = Rc::new(RefCell::new(Seen {
        times: times.then(Vec::new),
        ..Seen::default()
    }));
    let local = LocalSet::new();
    local
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(answer_all(stream, Rc::clone(&seen)));
            }
        })
        .await
}

async fn answer_all(stream: TcpStream, seen: Rc<RefCell<Seen>>) {
    let service = service_fn(move |request| {
        let seen = Rc::clone(&seen);
        async move { Ok::<_, Infallible>(answer(request, &seen).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // The client went away in the middle of a request: it will be missing, which is what counts.
    served.ok();
}

async fn answer(request: Request<Incoming>, seen: &RefCell<Seen>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Response::new(Full::default()),
    };
    if head.uri.path().starts_with(HANG) {
        // Until the client gives up.
        return std::future::pending().await;
    }
    let mut seen = seen.borrow_mut();
    let text = match head.uri.path() {
        "/-/counts" => serde_json::to_vec(&seen.counts),
        "/-/first" => serde_json::to_vec(&seen.first),
        "/-/times" => serde_json::to_vec(&seen.times),
        "/-/reset" => {
            seen.reset();
            Ok(Vec::new())
        }
        _ => {
            seen.take(&head.headers, &body);
            return Response::new(Full::default());
        }
    };
    Response::new(Full::new(text.unwrap_or_default().into()))
}

impl Seen {
    fn reset(&mut self) {
        let times = self.times.as_ref().map(|_| Vec::new());
        *self = Self {
            times,
            ..Self::default()
        };
    }

    fn take(&mut self, headers: &HeaderMap, body: &[u8]) {
        let now = wall_us();
        if self.counts.requests == 0 {
            self.counts.first_us = now;
            self.first = Some(Example::of(headers, body));
        }
        self.counts.requests += 1;
        if is_batch(headers) {
            self.take_items(body, now);
            return;
        }
        let Some(id) = headers.get("webhook-id").and_then(|id| id.to_str().ok()) else {
            return;
        };
        let Ok(id) = id.parse::<DeliveryId>() else {
            return;
        };
        if self.ids.insert(id.bits()) {
            self.counts.unique += 1;
            self.counts.last_us = now;
            if let Some(times) = &mut self.times {
                times.extend(number_in(body).map(|number| (number, now)));
            }
        }
    }
}

impl Seen {
    /// A request of several names each by its event alone.
    fn take_items(&mut self, body: &[u8], now: i64) {
        for number in numbers_in(body) {
            if self.ids.insert(u128::from(number)) {
                self.counts.unique += 1;
                self.counts.last_us = now;
                if let Some(times) = &mut self.times {
                    times.push((number, now));
                }
            }
        }
    }
}

fn is_batch(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(BATCH.as_bytes()))
}

impl Example {
    fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        Self {
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }
}

/// The number of the event that a body carries.
fn number_in(body: &[u8]) -> Option<u64> {
    let mark = ID_PREFIX.as_bytes();
    let at = body.windows(mark.len()).position(|window| window == mark)?;
    number_at(body.get(at + mark.len()..)?)
}

/// The numbers of the events of a batch, each by its member `id`: a payload's text may hold the
/// prefix by chance.
fn numbers_in(body: &[u8]) -> impl Iterator<Item = u64> {
    // Searching text is quicker than comparing at each byte.
    let text = std::str::from_utf8(body).unwrap_or_default();
    let after = |(at, mark): (usize, &str)| text.as_bytes().get(at + mark.len()..);
    text.match_indices(ITEM_MARK)
        .filter_map(move |found| number_at(after(found)?))
}

fn number_at(rest: &[u8]) -> Option<u64> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

// === the handle ===

/// A running endpoint.
#[derive(Debug)]
pub(crate) struct Sink {
    address: SocketAddr,
    child: Child,
    questions: Connection,
}

impl Sink {
    /// Starts this program again as the endpoint.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn start(dir: &Path, times: bool) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut args = vec!["--sink".to_owned(), address.to_string()];
        if times {
            args.push("--times".to_owned());
        }
        let program = std::env::current_exe()?;
        let mut child = Child::start("sink", &program, &args, dir)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ok(address, "/-/counts").await {
            child.must_run()?;
            if Instant::now() >= deadline {
                bail!("the sink does not answer at {address}");
            }
            sleep(LOOK).await;
        }
        Ok(Self {
            address,
            child,
            questions: Connection::open(address, "").await?,
        })
    }

    /// Where it takes deliveries.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Where it takes requests and never answers.
    pub(crate) fn hanging_url(&self) -> String {
        format!("http://{}{HANG}", self.address)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn reset(&mut self) -> anyhow::Result<()> {
        self.ask("/-/reset").await.map(drop)
    }

    /// What has arrived.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn counts(&mut self) -> anyhow::Result<Counts> {
        Ok(serde_json::from_slice(&self.ask("/-/counts").await?)?)
    }

    /// The first request.
    ///
    /// # Errors
    /// Where there was none.
    pub(crate) async fn first(&mut self) -> anyhow::Result<Example> {
        let first: Option<Example> = serde_json::from_slice(&self.ask("/-/first").await?)?;
        first.context("the sink has seen no request")
    }

    /// When each event arrived: its number, and the wall clock in microseconds.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn times(&mut self) -> anyhow::Result<Vec<(u64, i64)>> {
        let times: Option<Vec<_>> = serde_json::from_slice(&self.ask("/-/times").await?)?;
        times.context("the sink keeps no times")
    }

    /// Waits for `unique` different deliveries; fails where nothing new comes for `patience`.
    ///
    /// # Errors
    /// How many came.
    pub(crate) async fn expect(
        &mut self,
        unique: u64,
        patience: Duration,
    ) -> anyhow::Result<Counts> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let counts = self.counts().await?;
            if counts.unique >= unique {
                return Ok(counts);
            }
            if counts.unique > before {
                (before, since) = (counts.unique, Instant::now());
            } else if since.elapsed() > patience {
                self.child.must_run()?;
                bail!("{before} of {unique} deliveries arrived");
            }
            sleep(LOOK).await;
        }
    }

    async fn ask(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let asked = (Method::GET, path);
        let answer = self.questions.send(asked, "", Bytes::new()).await?;
        Ok(answer.into_body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_from_the_body() {
        let check = |body: &str, number| assert_eq!(number_in(body.as_bytes()), number, "{body}");
        check(&crate::events::structured(42), Some(42));
        check(r#"{"id":"load-000000000","x":1}"#, Some(0));
        check(r#"{"id":"other-1"}"#, None);
        check("load-", None);
        check("", None);
    }

    #[test]
    fn a_batch_counts_by_its_items() {
        assert!(ITEM_MARK.ends_with(ID_PREFIX));
        let mut seen = Seen {
            times: Some(Vec::new()),
            ..Seen::default()
        };
        let headers = HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(BATCH),
        )]);
        seen.take(&headers, &crate::events::batch(5, 3));
        seen.take(&headers, &crate::events::batch(7, 2));
        assert_eq!((seen.counts.requests, seen.counts.unique), (2, 4));
        let times = seen.times.unwrap();
        let numbers: Vec<u64> = times.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [5, 6, 7, 8]);
    }

    #[test]
    fn an_id_counts_once() {
        let mut seen = Seen {
            times: Some(Vec::new()),
            ..Seen::default()
        };
        let id = DeliveryId::from_bits(7).to_string();
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("webhook-id"),
            http::HeaderValue::from_str(&id).unwrap(),
        )]);
        for _ in 0..3 {
            seen.take(&headers, crate::events::structured(1).as_bytes());
        }
        seen.take(&HeaderMap::new(), b"");
        assert_eq!((seen.counts.requests, seen.counts.unique), (4, 1));
        assert_eq!(seen.times.as_ref().unwrap().len(), 1);
        seen.reset();
        assert_eq!(seen.counts.requests, 0);
        assert!(seen.times.is_some());
    }
}
