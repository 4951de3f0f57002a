//! What others make of our requests: the official libraries of Standard Webhooks, and servers that
//! want credentials, tokens or compressed bodies.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use dispatcher::delivery::sign::{Received, VerifyingKey, verify as verify_received};
use harness::{Arrival, Endpoint, Log, Pipeline, event, ok};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::pipeline_on;

/// What arrived, for a library that verifies with `key`.
fn message(arrival: &Arrival, (name, key): (&str, &str)) -> Value {
    let headers: serde_json::Map<String, Value> =
        ["webhook-id", "webhook-timestamp", "webhook-signature"]
            .into_iter()
            .map(|name| (name.to_owned(), arrival.header(name).into()))
            .collect();
    let body = String::from_utf8(arrival.body.to_vec()).expect("text");
    json!({ name: key, "headers": headers, "body": body })
}

/// Where `./test` has put the libraries.
fn libraries(language: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("ANABRANCH_INTEROP")?).join(language);
    folder.is_dir().then_some(folder)
}

fn verify(command: &mut Command, messages: &[Value]) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut input = child.stdin.take().expect("its input");
    let text = Value::from(messages).to_string();
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), format!("verified {}", messages.len()));
}

/// Changes the endpoint's secret to one of another version; the old one signs along.
async fn rotate(pipeline: &Pipeline, endpoint: &Endpoint, signature: &str) -> Value {
    let path = pipeline.path(&format!(
        "/endpoints/{}/rotate-secret?wait=applied",
        endpoint.id
    ));
    let body = json!({ "signature": signature });
    let answer = pipeline.control().call(Method::POST, &path, Some(&body));
    answer.await.expect(200).json()
}

/// WH-3..6: signatures of both versions, alone and together at a rotation.
#[tokio::test]
async fn signatures_are_verified_by_the_official_libraries() {
    let pipeline = pipeline_on(Log::Embedded).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let (first, second) = (event("com.acme.a", 1), event("com.acme.a", 2));
    pipeline.publish(&first).await;
    let symmetric = endpoint.expect_delivered(&first).await;
    let rotated = rotate(&pipeline, &endpoint, "v1a").await;
    let public = rotated["secrets"][0]["public_key"].as_str();
    let public = public.expect("a public key").to_owned();
    pipeline.publish(&second).await;
    let both = endpoint.expect_delivered(&second).await;
    let versions: Vec<&str> = both
        .header("webhook-signature")
        .split(' ')
        .filter_map(|one| one.split(',').next())
        .collect();
    assert_eq!(versions, ["v1a", "v1"]);
    // The Rust crate.
    assert!(symmetric.is_signed_by(&endpoint.secret) && both.is_signed_by(&endpoint.secret));
    let secret = ("secret", endpoint.secret.as_str());
    let mut messages = vec![message(&symmetric, secret), message(&both, secret)];
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/interop");
    match libraries("python") {
        Some(folder) => {
            let mut python = Command::new("python3");
            python.arg(scripts.join("verify.py"));
            verify(python.env("PYTHONPATH", folder), &messages);
        }
        None => harness::not_run("signatures in Python: its library is not installed"),
    }
    messages.push(message(&both, ("public_key", &public)));
    match libraries("javascript") {
        Some(folder) => {
            let mut node = Command::new("node");
            node.arg(scripts.join("verify.cjs"));
            verify(
                node.env("NODE_PATH", folder.join("node_modules")),
                &messages,
            );
        }
        None => harness::not_run("signatures in JavaScript: its library is not installed"),
    }
}

/// Rule 9: the bytes signed are the bytes sent, compressed or not.
#[tokio::test]
async fn bodies_are_compressed_and_headers_are_the_endpoints_own() {
    let pipeline = pipeline_on(Log::Embedded).start().await;
    let members = json!({
        "compress": true,
        "headers": [{ "name": "X-Source", "value": "anabranch" }],
        "authentication": { "kind": "basic", "username": "me", "password": "open sesame" },
    });
    let endpoint = pipeline.endpoint_with(ok(), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    let event = event("com.acme.a", 1).data(json!({ "text": "again ".repeat(500) }).to_string());
    pipeline.publish(&event).await;
    let arrivals = endpoint.sink.expect_requests(1).await;
    let arrival = &arrivals[0];
    assert_eq!(arrival.header("content-encoding"), "gzip");
    assert!(arrival.body.len() < 1_000 && arrival.body.starts_with(&[0x1f, 0x8b]));
    // The reference library reads text alone.
    let key = VerifyingKey::parse(&endpoint.secret).expect("a secret");
    let received = Received {
        id: &arrival.id,
        timestamp: arrival.header("webhook-timestamp"),
        signature: arrival.header("webhook-signature"),
        body: &arrival.body,
    };
    assert_eq!(
        verify_received(&[key], &received, arrival.at / 1_000),
        Ok(())
    );
    assert_eq!(arrival.header("x-source"), "anabranch");
    assert_eq!(
        arrival.header("authorization"),
        "Basic bWU6b3BlbiBzZXNhbWU="
    );
}

/// A token is fetched once, and every delivery carries it.
#[tokio::test]
async fn a_token_is_fetched_once_for_all_deliveries() {
    const EVENTS: usize = 20;
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let answer = move |body: String| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        assert_eq!(body, "grant_type=client_credentials&scope=events");
        async move {
            let token = format!("token-{number}");
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3_600 })
                .to_string()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!(
        "http://{}/token",
        listener.local_addr().expect("its address")
    );
    let router = Router::new().route("/token", post(answer));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });
    let pipeline = pipeline_on(Log::Embedded).start().await;
    let members = json!({ "authentication": {
        "kind": "oauth2", "token_url": url, "client_id": "me", "client_secret": "hush",
        "scope": "events",
    } });
    let endpoint = pipeline.endpoint_with(ok(), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    for number in 0..EVENTS {
        let number = i64::try_from(number).expect("a small number");
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    let arrivals = endpoint.sink.expect_requests(EVENTS).await;
    let bearers = arrivals
        .iter()
        .map(|arrival| arrival.header("authorization"));
    assert!(bearers.eq(std::iter::repeat_n("Bearer token-0", EVENTS)));
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}
