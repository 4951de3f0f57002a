//! The transport against real endpoints on loopback (SS-11, rule 10).

mod asking;
mod dress;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use super::address::{Policy, Resolve, ResolveError, SystemResolver};
use super::client::{ClientSettings, HttpTransport};
use super::{Answer, BODY_KEPT_BYTES_MAX, BODY_READ_BYTES_MAX};
use super::{Destination, OutgoingRequest, Response, Transport, TransportErrorKind};

/// Long enough for a busy machine, short enough for a test.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// An endpoint that lives as long as its value.
struct Endpoint {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Endpoint {
    async fn serving(router: Router) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counter = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }

    /// Reads a request's head from each connection, then does what the test says.
    async fn raw<F>(then: fn(TcpStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counter = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                open.spawn(async move {
                    let mut head = [0; 4096];
                    assert!(stream.read(&mut head).await.unwrap() > 0);
                    then(stream).await;
                });
            }
        });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Answers from a table; the last answer of a name is repeated.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn with(name: &str, answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        Arc::new(Self(Mutex::new(HashMap::from([(
            name.to_owned(),
            answers,
        )]))))
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let mut names = self.0.lock().unwrap();
        let answers = names.get_mut(name).ok_or(ResolveError::NoAddress)?;
        Ok(if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        })
    }
}

fn transport(policy: Policy, resolver: Arc<dyn Resolve>) -> HttpTransport {
    HttpTransport::new(
        ClientSettings {
            policy,
            ..ClientSettings::default()
        },
        resolver,
    )
    .unwrap()
}

fn laptop() -> HttpTransport {
    let policy = Policy {
        allow_loopback: true,
        ..Policy::default()
    };
    transport(policy, Arc::new(Names::default()))
}

/// One address of this machine stands for the public internet; all others stay forbidden.
fn internet(port: u16) -> Policy {
    Policy {
        allow_http: true,
        allowed_ports: vec![port],
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        ..Policy::default()
    }
}

async fn send(transport: &HttpTransport, url: &str, timeout: Duration) -> Answer {
    let body = Bytes::from_static(b"payload");
    let destination = Arc::new(Destination::new(Url::parse(url).unwrap()));
    transport
        .send(OutgoingRequest {
            method: Method::POST,
            kept_bytes: 0,
            destination,
            headers: HeaderMap::new(),
            body,
            timeout,
        })
        .await
}

async fn expect_response(transport: &HttpTransport, url: &str) -> Response {
    send(transport, url, PATIENCE).await.unwrap()
}

async fn expect_error(transport: &HttpTransport, url: &str, kind: TransportErrorKind) -> String {
    let error = send(transport, url, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind, kind, "{url}: {error}");
    error.text
}

async fn expect_timeout(endpoint: &Endpoint) {
    let started = Instant::now();
    let error = send(&laptop(), &endpoint.url("/"), SHORT)
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Timeout, "{error}");
    assert!(started.elapsed() >= SHORT);
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn the_response_is_brought_back() {
    let echo = post(|body: Bytes| async move {
        let headers = [("retry-after", "7"), ("content-type", "text/plain")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, body)
    });
    let endpoint = Endpoint::serving(Router::new().route("/", echo)).await;
    let response = expect_response(&laptop(), &endpoint.url("/")).await;
    let expected = Response {
        status: 503,
        retry_after: Some("7".to_owned()),
        left: None,
        content_type: Some("text/plain".to_owned()),
        body: Bytes::from_static(b"payload"),
        body_bytes_read: 7,
        truncated: false,
        ending: None,
    };
    assert_eq!(response, expected);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_never_followed() {
    // SS-5, WH-11
    let hits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hits);
    let router = Router::new()
        .route(
            "/",
            post(|| async { (StatusCode::FOUND, [("location", "/other")]) }),
        )
        .fallback(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { StatusCode::OK }
        });
    let endpoint = Endpoint::serving(router).await;
    assert_eq!(
        expect_response(&laptop(), &endpoint.url("/")).await.status,
        302
    );
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_is_kept_and_read_to_its_caps() {
    // SS-8, rule 10
    let sized = |bytes: usize| post(move || async move { vec![b'x'; bytes] });
    let endless = post(|| async {
        let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1000]));
        Body::from_stream(chunks).into_response()
    });
    let read_max = usize::try_from(BODY_READ_BYTES_MAX).unwrap();
    let router = Router::new()
        .route("/kept", sized(BODY_KEPT_BYTES_MAX))
        .route("/read", sized(read_max))
        .route("/beyond", sized(read_max + 1))
        .route("/endless", endless);
    let endpoint = Endpoint::serving(router).await;
    let check = async |transport: &HttpTransport, path: &str, truncated: bool| {
        let response = expect_response(transport, &endpoint.url(path)).await;
        assert_eq!(
            (response.status, response.truncated),
            (200, truncated),
            "{path}"
        );
        assert_eq!(response.body.len(), BODY_KEPT_BYTES_MAX, "{path}");
        // One read of the socket may bring more than the cap, never much more.
        assert!(response.body_bytes_read < 8 * BODY_READ_BYTES_MAX, "{path}");
    };
    let first = laptop();
    check(&first, "/kept", false).await;
    check(&first, "/read", true).await;
    check(&first, "/beyond", true).await;
    assert_eq!(
        endpoint.connections(),
        1,
        "read to the end, the connection is used again"
    );
    let second = laptop();
    check(&second, "/endless", true).await;
    check(&second, "/kept", false).await;
    assert_eq!(
        endpoint.connections(),
        3,
        "given up, the connection is dropped"
    );
    let policy = Policy {
        allow_loopback: true,
        ..Policy::default()
    };
    let settings = ClientSettings {
        policy,
        body_kept_bytes: 10,
        body_read_bytes: 20,
        ..ClientSettings::default()
    };
    let sparing = HttpTransport::new(settings, Arc::new(Names::default())).unwrap();
    let response = expect_response(&sparing, &endpoint.url("/kept")).await;
    assert_eq!((response.body.len(), response.truncated), (10, true));
}

#[tokio::test]
async fn the_deadline_covers_everything() {
    // SS-8, rule 10
    let hanging_head = Endpoint::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    expect_timeout(&hanging_head.await).await;
    let hanging_body = Endpoint::raw(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    expect_timeout(&hanging_body.await).await;
    let dripping = post(|| async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        Body::from_stream(stream::poll_fn(move |context| {
            ticks
                .poll_tick(context)
                .map(|_| Some(Ok::<_, std::io::Error>("x")))
        }))
    });
    expect_timeout(&Endpoint::serving(Router::new().route("/", dripping)).await).await;
}

#[tokio::test]
async fn broken_connections_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let text = expect_error(&laptop(), &nobody, TransportErrorKind::Connect).await;
    assert!(text.contains("refused"), "{text}");
    let silent = Endpoint::raw(|stream| async move { drop(stream) }).await;
    expect_error(&laptop(), &silent.url("/"), TransportErrorKind::Reset).await;
    let cut = Endpoint::raw(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
            .await
            .unwrap();
    });
    expect_error(&laptop(), &cut.await.url("/"), TransportErrorKind::Reset).await;
    let mumbling = Endpoint::raw(|mut stream| async move {
        stream.write_all(b"220 smtp ready\r\n\r\n").await.unwrap();
    });
    expect_error(
        &laptop(),
        &mumbling.await.url("/"),
        TransportErrorKind::Protocol,
    )
    .await;
}

#[tokio::test]
async fn this_machine_is_refused_unless_allowed() {
    // SS-2, SS-7, SS-10
    let endpoint = Endpoint::serving(Router::new()).await;
    let port = endpoint.address.port();
    let policy = Policy {
        allow_http: true,
        allowed_ports: vec![port],
        ..Policy::default()
    };
    let guarded = transport(policy, Arc::new(SystemResolver::default()));
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let url = format!("http://{host}:{port}/?secret");
        let text = expect_error(&guarded, &url, TransportErrorKind::Address).await;
        assert_eq!(text, "destination address is not allowed");
    }
    assert_eq!(endpoint.connections(), 0);
    // Allowed, `localhost` needs no resolver.
    let url = format!("http://localhost:{port}/");
    assert_eq!(expect_response(&laptop(), &url).await.status, 404);
}

#[tokio::test]
async fn a_name_that_turns_inward_is_refused_at_the_next_connect() {
    // SS-4: rebinding
    let closing = post(|| async { [("connection", "close")] });
    let endpoint = Endpoint::serving(Router::new().route("/", closing)).await;
    let port = endpoint.address.port();
    let names = Names::with("hook.example", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let transport = transport(internet(port), names);
    let url = format!("http://hook.example:{port}/");
    assert_eq!(expect_response(&transport, &url).await.status, 200);
    expect_error(&transport, &url, TransportErrorKind::Address).await;
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn one_forbidden_answer_refuses_all() {
    // SS-3
    let endpoint = Endpoint::serving(Router::new()).await;
    let port = endpoint.address.port();
    for answer in [&["127.0.0.1", "10.0.0.1"], &["fd00::1", "127.0.0.1"]] {
        let transport = transport(internet(port), Names::with("hook.example", &[answer]));
        let url = format!("http://hook.example:{port}/");
        expect_error(&transport, &url, TransportErrorKind::Address).await;
    }
    assert_eq!(endpoint.connections(), 0);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_dns_failure() {
    let transport = transport(internet(1), Names::with("hook.example", &[&[]]));
    for host in ["hook.example", "unknown.example"] {
        let url = format!("http://{host}:1/?secret");
        let text = expect_error(&transport, &url, TransportErrorKind::Dns).await;
        assert_eq!(text, "no address for this name");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let endpoint = Endpoint::serving(Router::new().route("/", post(|| async { "thanks" }))).await;
    let transport = laptop();
    for _ in 0..20 {
        assert_eq!(
            expect_response(&transport, &endpoint.url("/")).await.status,
            200
        );
    }
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn no_answer_is_lost_where_a_tasks_budget_ends() {
    // What else the task did at each turn leaves a budget of 0 to 20 to the exchange.
    let endpoint = Endpoint::serving(Router::new().route("/", post(|| async { "thanks" }))).await;
    let (transport, url) = (laptop(), endpoint.url("/"));
    for spent in 108..128 {
        let mut sent = std::pin::pin!(expect_response(&transport, &url));
        let answer = std::future::poll_fn(|cx| {
            for _ in 0..spent {
                match tokio::task::coop::poll_proceed(cx) {
                    Poll::Ready(restore) => restore.made_progress(),
                    Poll::Pending => return Poll::Pending,
                }
            }
            sent.as_mut().poll(cx)
        });
        assert_eq!(answer.await.status, 200);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_costs_no_attempt() {
    let fleeting = Endpoint::raw(|mut stream| async move {
        let thanks = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(thanks).await.unwrap();
        // Says that it keeps the connection, and closes it.
    });
    let fleeting = fleeting.await;
    let transport = laptop();
    for connections in 1..=5 {
        let response = expect_response(&transport, &fleeting.url("/")).await;
        assert_eq!(response.status, 200);
        assert_eq!(fleeting.connections(), connections);
        // Long enough for the end to arrive; were it not, the attempt would be a failed one.
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_sent_is_not_repeated() {
    let cutting = Endpoint::raw(|mut stream| async move {
        let thanks = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(thanks).await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        // Took the second request and gave no answer.
    });
    let cutting = cutting.await;
    let transport = laptop();
    assert_eq!(
        expect_response(&transport, &cutting.url("/")).await.status,
        200
    );
    expect_error(&transport, &cutting.url("/"), TransportErrorKind::Reset).await;
    assert_eq!(cutting.connections(), 1);
}

#[tokio::test]
async fn idle_connections_are_kept_to_their_number_and_time() {
    let slow = post(|| async { tokio::time::sleep(SHORT).await });
    let endpoint = Endpoint::serving(Router::new().route("/", slow)).await;
    let url = endpoint.url("/");
    let with = |pool_idle_timeout, pool_idle_per_host_max| {
        let settings = ClientSettings {
            policy: Policy {
                allow_loopback: true,
                ..Policy::default()
            },
            pool_idle_timeout,
            pool_idle_per_host_max,
            ..ClientSettings::default()
        };
        HttpTransport::new(settings, Arc::new(Names::default())).unwrap()
    };
    let three = async |transport: &HttpTransport| {
        let send = || expect_response(transport, &url);
        tokio::join!(send(), send(), send());
    };
    let two = with(PATIENCE, 2);
    three(&two).await;
    assert_eq!(endpoint.connections(), 3);
    three(&two).await;
    assert_eq!(endpoint.connections(), 4, "two of three were kept");
    let none = with(Duration::ZERO, 64);
    three(&none).await;
    three(&none).await;
    assert_eq!(endpoint.connections(), 10, "none was young enough");
}

#[tokio::test]
async fn a_url_that_is_no_request_is_refused_as_one() {
    let everything = Policy {
        allow_loopback: true,
        allow_http: true,
        allowed_ports: vec![0],
        ..Policy::default()
    };
    let transport = transport(everything, Arc::new(Names::default()));
    let long = format!("http://127.0.0.1:1/{}", "x".repeat(70_000));
    expect_error(&transport, &long, TransportErrorKind::Request).await;
}

/// Answers every name with this machine's address after a while, and counts who asks at once.
#[derive(Debug, Default)]
struct Counting {
    asking: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Resolve for Counting {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let asking = self.asking.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(asking, Ordering::SeqCst);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.asking.fetch_sub(1, Ordering::SeqCst);
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }
}

#[tokio::test]
async fn a_burst_opens_few_connections_at_once() {
    let endpoint = Endpoint::serving(Router::new().route("/", post(|| async {}))).await;
    let port = endpoint.address.port();
    let names = Arc::new(Counting::default());
    let transport = transport(internet(port), names.clone());
    let url = format!("http://hook.example:{port}/");
    let sent = (0..400).map(|_| expect_response(&transport, &url));
    futures_util::future::join_all(sent).await;
    assert_eq!(names.most.load(Ordering::SeqCst), 64);
    assert!(endpoint.connections() < 400, "none was used again");
}

mod tls;
