//! Every limit, and back-pressure where memory is the limit.

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::records::ControlObject;
use schemas::resources::{FairShare, Tenant};
use tokio::io::AsyncWriteExt;

use super::harness::{Reply, Server, bearer, options, read, start};
use crate::Options;

const PATH: &str = "/v1/tenants/acme/events/t";
const KIB: usize = 1 << 10;

fn small() -> Options {
    Options {
        max_body_bytes: 8 * KIB,
        max_event_bytes: 4 * KIB,
        max_batch_events: 3,
        max_attributes: 10,
        max_header_bytes: 8 * KIB,
        max_in_flight_bytes: 8 * KIB,
        room_timeout: Duration::from_millis(50),
        ..options()
    }
}

#[track_caller]
fn check(reply: &Reply, status: u16, problem: &str) {
    assert_eq!(
        (reply.status, reply.problem()),
        (status, problem),
        "{reply:?}"
    );
}

fn batch(count: usize) -> String {
    let events = (0..count)
        .map(|id| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#));
    format!("[{}]", events.collect::<Vec<_>>().join(","))
}

async fn post_batch(server: &Server, count: usize) -> Reply {
    let content_type = ("content-type", "application/cloudevents-batch+json");
    server.post("", &[content_type], batch(count)).await
}

#[tokio::test]
async fn sizes_beyond_the_limits_are_413() {
    let server = start(small()).await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    check(
        &server.post("/t", &[], text(8 * KIB + 1)).await,
        413,
        "too-large",
    );
    check(
        &server.post("/t", &[], text(4 * KIB + 1)).await,
        413,
        "too-large",
    );
    check(
        &server.post("/t", &[], text(4 * KIB)).await,
        413,
        "too-large",
    );
    assert_eq!(
        server.post("/t", &[], text(4 * KIB - 300)).await.status,
        202,
        "CE-5"
    );
    check(&post_batch(&server, 4).await, 413, "too-large");
    assert_eq!(post_batch(&server, 3).await.status, 202);
    let names: Vec<_> = (0..11).map(|n| format!("ce-a{n}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    check(&server.post("", &headers, "").await, 413, "too-large");
    let long = "x".repeat(8 * KIB);
    check(
        &server.post("/t", &[("x-long", &long)], "{}").await,
        431,
        "head-too-large",
    );
    let longer = "x".repeat(20 * KIB);
    let bare = server.post("/t", &[("x-long", &longer)], "{}").await;
    assert_eq!(bare.status, 431);
    assert_eq!(server.events().len(), 4);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_at_the_limit() {
    let server = start(small()).await;
    let key = bearer(1);
    let head = [
        ("authorization", key.as_str()),
        ("transfer-encoding", "chunked"),
    ];
    let mut fits = server.open("POST", PATH, &head).await;
    fits.write_all(b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read(&mut fits).await.status, 202);
    assert_eq!(server.events()[0].data().unwrap().as_ref(), b"[1,2]");
    let mut endless = server.open("POST", PATH, &head).await;
    let chunk = format!("800\r\n{}\r\n", "x".repeat(0x800));
    for _ in 0..5 {
        endless.write_all(chunk.as_bytes()).await.unwrap();
    }
    check(&read(&mut endless).await, 413, "too-large");
    server.until("anabranch_ingest_in_flight_bytes", 0.0).await;
}

#[tokio::test]
async fn ht_11_a_tenant_beyond_its_rate_waits_and_the_others_do_not() {
    let server = start(options()).await;
    let offset = server.metric("anabranch_ingest_control_offset");
    let tenant = Tenant {
        id: "acme".parse().unwrap(),
        name: None,
        events_per_second: NonZeroU32::MIN.into(),
        bytes_per_second: NonZeroU32::new(1_024),
        fair_share: FairShare::default(),
        created_at: 0,
        updated_at: 1,
    };
    server.put(ControlObject::Tenant(tenant)).await;
    server
        .until("anabranch_ingest_control_offset", offset + 1.0)
        .await;
    // More than a second's worth can never pass.
    check(&post_batch(&server, 2).await, 413, "too-large");
    check(
        &server.post("/t", &[], vec![b' '; 1_025]).await,
        413,
        "too-large",
    );
    // So much of both that it takes most of a second until there is room again for what follows.
    let most = format!("\"{}\"", "x".repeat(700));
    assert_eq!(server.post("/t", &[], most).await.status, 202);
    let refused = server.post("/t", &[], "{}").await;
    check(&refused, 429, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.body["violated-policies"][0], "tenant-events");
    let refused = server.post("/t", &[], vec![b' '; 1_000]).await;
    assert_eq!(refused.body["violated-policies"][0], "tenant-bytes");
    let other = bearer(2);
    let path = "/v1/tenants/other/events/t";
    assert_eq!(
        server
            .send("POST", path, &[("authorization", &other)], b"{}")
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn rule_8_a_body_without_room_waits_and_then_is_503() {
    let server = start(small()).await;
    let key = bearer(1);
    let length = (8 * KIB).to_string();
    let head = [("authorization", key.as_str()), ("content-length", &length)];
    let mut first = server.open("POST", PATH, &head).await;
    server
        .until("anabranch_ingest_in_flight_bytes", 8.0 * 1_024.0)
        .await;
    let second = server.post("/t", &[], "{}").await;
    check(&second, 503, "unavailable");
    assert!(second.header("retry-after").is_some());
    assert_eq!(server.metric("anabranch_ingest_room_waits_total"), 1.0);
    first.write_all(&vec![b'1'; 8 * KIB]).await.unwrap();
    check(&read(&mut first).await, 413, "too-large");
    server.until("anabranch_ingest_in_flight_bytes", 0.0).await;
    assert_eq!(server.post("/t", &[], "{}").await.status, 202);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408() {
    let server = start(Options {
        body_timeout: Duration::from_millis(100),
        ..small()
    })
    .await;
    let key = bearer(1);
    for body in [("content-length", "10"), ("transfer-encoding", "chunked")] {
        let mut stream = server
            .open("POST", PATH, &[("authorization", &key), body])
            .await;
        check(&read(&mut stream).await, 408, "timeout");
    }
    server.until("anabranch_ingest_in_flight_bytes", 0.0).await;
    assert_eq!(server.events(), []);
}
