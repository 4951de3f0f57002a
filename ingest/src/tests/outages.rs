//! The log fails, clients vanish, the service stops: nothing is acknowledged that is not written,
//! and everything taken is given back.

use std::time::Duration;

use runtime::log::simulated::{Fault, Operation};
use tokio::io::AsyncWriteExt;

use super::harness::{PARTITIONS, bearer, options, read, start};
use crate::Options;

const PATH: &str = "/v1/tenants/acme/events/t";

#[tokio::test]
async fn rule_1_a_write_that_fails_is_503_and_may_be_repeated_with_its_id() {
    let server = start(options()).await;
    let id = ("idempotency-key", "1");
    for (fault, written) in [(Fault::LostRequest, 0), (Fault::LostReply, 1)] {
        let before = server.events().len();
        server
            .log
            .faults()
            .fail_next_of("ingest", Operation::Produce, fault);
        let reply = server.post("/t", &[id], "{}").await;
        assert_eq!(
            (reply.status, reply.problem()),
            (503, "unavailable"),
            "{fault:?}"
        );
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(server.events().len() - before, written, "{fault:?}");
    }
    assert_eq!(server.post("/t", &[id], "{}").await.status, 202);
    assert!(server.events().iter().all(|event| event.id() == "1"));
    assert_eq!(
        server.metric("anabranch_ingest_events_total{result=\"unavailable\"}"),
        2.0
    );
}

#[tokio::test]
async fn rule_1_a_log_that_does_not_answer_is_503_within_the_deadline() {
    let server = start(Options {
        write_timeout: Duration::from_millis(100),
        ..options()
    })
    .await;
    for number in 0..PARTITIONS {
        server
            .log
            .faults()
            .unwritable(&server.topics.events.partition(number), None);
    }
    let reply = server.post("/t", &[], "{}").await;
    assert_eq!((reply.status, reply.problem()), (503, "unavailable"));
    let batch = r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{}]"#;
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let reply = server.post("", &headers, batch).await;
    assert_eq!((reply.status, &reply.body["accepted"]), (503, &0.into()));
    let statuses = [
        &reply.body["results"][0]["status"],
        &reply.body["results"][1]["status"],
    ];
    assert_eq!(statuses, [503, 422]);
    server.log.faults().heal();
    assert_eq!(server.post("/t", &[], "{}").await.status, 202);
    server.until("anabranch_ingest_in_flight_bytes", 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_leaves_nothing_behind() {
    let server = start(options()).await;
    let key = bearer(1);
    for framing in [("content-length", "10"), ("transfer-encoding", "chunked")] {
        let mut stream = server
            .open("POST", PATH, &[("authorization", &key), framing])
            .await;
        stream.write_all(b"4\r\n{\"a\"").await.unwrap();
        drop(stream);
    }
    server
        .until(
            "anabranch_ingest_requests_total{result=\"disconnected\"}",
            2.0,
        )
        .await;
    server.until("anabranch_ingest_in_flight_bytes", 0.0).await;
    assert_eq!(server.events(), []);
    assert_eq!(server.post("/t", &[], "{}").await.status, 202);
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_service_does() {
    let server = start(options()).await;
    let key = bearer(1);
    let head = [("authorization", key.as_str()), ("content-length", "2")];
    let mut stream = server.open("POST", PATH, &head).await;
    server
        .until("anabranch_ingest_in_flight_bytes", 1_024.0)
        .await;
    server.tasks.cancel();
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(read(&mut stream).await.status, 202);
    server.tasks.finished().await;
    assert_eq!(server.events().len(), 1);
    assert_eq!(server.tasks.cause().map(|cause| cause.to_string()), None);
}
