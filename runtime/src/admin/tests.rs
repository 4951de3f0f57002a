use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::*;

async fn get_text(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends `request` on a connection of its own and reads all that comes until it is closed: by a
/// reset where the server had not read everything.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn running(app: Router, limits: ServerLimits) -> (SocketAddr, Tasks, Metrics) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, metrics) = (Tasks::new("test"), Metrics::new());
    let connections = ConnectionMetrics::new(&metrics, ServerName::Control);
    let server = serve(listener, app, limits, connections, tasks.clone());
    tasks.spawn(TaskKind::ControlServer, server);
    (address, tasks, metrics)
}

#[tokio::test]
async fn readiness_lists_the_gates_that_are_closed() {
    let readiness = Readiness::new();
    let router = router(readiness.clone(), Metrics::new());
    assert_eq!(
        get_text(&router, "/readyz").await,
        (StatusCode::OK, "ready\n".into())
    );
    let (log, view) = (readiness.gate("log"), readiness.gate("view"));
    log.open();
    let (status, body) = get_text(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        body.contains(r#""pointer":"/view""#) && !body.contains("/log"),
        "{body}"
    );
    view.open();
    readiness.ready().await;
    assert_eq!(get_text(&router, "/readyz").await.0, StatusCode::OK);
    drop(log);
    assert_eq!(readiness.waiting(), ["log"], "a dropped gate is closed");
    assert_eq!(get_text(&router, "/livez").await.0, StatusCode::OK);
    assert_eq!(get_text(&router, "/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_gate_is_open_while_something_serves_and_until_it_drains() {
    let (readiness, stopped) = (Readiness::new(), tokio_util::sync::CancellationToken::new());
    let gate = readiness.gate("http");
    let seen = readiness.clone();
    let (stop, drained) = (stopped.clone(), tokio::sync::Notify::new());
    let serving = async {
        assert!(seen.is_ready());
        stop.cancel();
        drained.notified().await;
        "drained"
    };
    let looking = async {
        stopped.cancelled().await;
        while readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        drained.notify_one();
    };
    let (served, ()) = tokio::join!(gate.open_while(&stopped, serving), looking);
    assert_eq!((served, readiness.is_ready()), ("drained", false));
    let never = tokio_util::sync::CancellationToken::new();
    let failed = gate.open_while(&never, async { Err::<(), _>("failed") });
    assert_eq!(failed.await, Err("failed"));
    assert!(!readiness.is_ready(), "nobody serves any more");
}

#[tokio::test]
async fn the_admin_port_serves_metrics_and_stops_when_cancelled() {
    let (metrics, tasks) = (Metrics::new(), Tasks::new("test"));
    metrics
        .counter("anabranch_events_total", "Events")
        .inc_by(3);
    let bind = "127.0.0.1:0".parse().unwrap();
    let address = start(bind, Readiness::new(), metrics.clone(), &tasks)
        .await
        .unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(address, request).await;
    assert!(answer.contains("anabranch_events_total 3"), "{answer}");
    assert!(
        answer.contains(r#"anabranch_http_connections{server="admin"} 1"#),
        "{answer}"
    );
    assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(
        crate::telemetry::metric_faults(&metrics),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_head_beyond_the_limits_and_a_silent_client_are_ended() {
    let limits = ServerLimits {
        header_timeout: Duration::from_millis(300),
        max_headers: 4,
        ..ServerLimits::default()
    };
    let (address, tasks, metrics) = running(Router::new(), limits).await;
    // HT-3: ours is a problem; what hyper itself cannot take has nothing in it.
    let close = "connection: close\r\n";
    let with = |headers: usize, bytes: usize| {
        let many: String = (1..headers).map(|i| format!("x-{i}: 1\r\n")).collect();
        format!("GET /{} HTTP/1.1\r\n{many}{close}\r\n", "a".repeat(bytes))
    };
    let long = |bytes| format!("GET / HTTP/1.1\r\nx: {}\r\n{close}\r\n", "a".repeat(bytes));
    for (request, expected) in [
        (with(4, 0), "HTTP/1.1 404"),
        (with(5, 0), "at most 4 headers are taken"),
        (with(9, 0), "content-length: 0"),
        (with(1, 30_000), "HTTP/1.1 404"),
        (with(1, 40_000), "a head of at most 32768 bytes is taken"),
        (long(30_000), "HTTP/1.1 404"),
        (long(40_000), "a head of at most 32768 bytes is taken"),
        (long(66_000), "content-length: 0"),
    ] {
        let answer = exchange(address, &request).await;
        let is_known = expected.starts_with("HTTP") || answer.starts_with("HTTP/1.1 431");
        assert!(
            is_known && answer.contains(expected),
            "{expected}: {answer}"
        );
        let is_problem = expected.starts_with("a");
        assert_eq!(
            answer.contains("problems/head-too-large"),
            is_problem,
            "{answer}"
        );
    }
    let refused = r#"anabranch_http_heads_refused_total{server="control"} 3"#;
    assert!(metrics.render().contains(refused));
    // Each of these would hold a slot for ever: nothing, a prefix of HTTP/2, half a head.
    for stalled in ["", "PRI", "GET / HTTP/1.1\r\nx: 1\r\n"] {
        let answer = exchange(address, stalled).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
    assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn a_slow_handler_is_answered_with_a_problem() {
    let app = Router::new().route("/", get(std::future::pending::<()>));
    let limits = ServerLimits {
        request_timeout: Duration::from_millis(20),
        ..ServerLimits::default()
    };
    let (address, tasks, _) = running(app, limits).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(address, request).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("problems/timeout"),
        "{answer}"
    );
    assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn at_the_connection_limit_clients_wait_and_stopping_drains() {
    let (release, released) = tokio::sync::watch::channel(false);
    let handler = move || {
        let mut released = released.clone();
        async move {
            drop(released.wait_for(|go| *go).await);
            "done"
        }
    };
    let limits = ServerLimits {
        max_connections: 1,
        ..ServerLimits::default()
    };
    let (address, tasks, metrics) = running(Router::new().route("/", get(handler)), limits).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(request.as_bytes()).await.unwrap();
    let waits = r#"anabranch_http_accept_waits_total{server="control"} 1"#;
    while !metrics.render().contains(waits) {
        tokio::task::yield_now().await;
    }
    tasks.cancel();
    release.send_replace(true);
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
    assert!(
        metrics
            .render()
            .contains(r#"anabranch_http_connections{server="control"} 0"#)
    );
}
