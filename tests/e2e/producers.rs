//! Producers that write CloudEvents straight to the topic (CE-16 to CE-20).

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::{Log, Pipeline, event, ok};

use crate::pipeline_on;

/// Direct writers name the tenant themselves: the topic's ACL is what they are trusted by.
const TENANT: (&str, &str) = ("anabranchtenant", "acme");

#[tokio::test]
async fn rdkafka_writes_both_modes() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let binary = event("com.acme.direct", "rdkafka-binary").attribute(TENANT.0, TENANT.1);
    pipeline
        .produce(&binary.kafka_headers(), &binary.data)
        .await;
    let structured = event("com.acme.direct", "rdkafka-structured").attribute(TENANT.0, TENANT.1);
    let json = "application/cloudevents+json; charset=utf-8".to_owned();
    let headers = [("content-type".to_owned(), json)];
    pipeline.produce(&headers, &structured.structured()).await;
    for event in [&binary, &structured] {
        let arrival = endpoint.expect_delivered(event).await;
        assert_eq!(arrival.data(), event.data);
        assert!(arrival.attribute(TENANT.0).is_none(), "ours stay with us");
    }
}

#[tokio::test]
async fn kcat_writes_both_modes() {
    if Command::new("kcat").arg("-V").output().is_err() {
        harness::not_run("producing with kcat: kcat is not installed");
        return;
    }
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let binary = event("com.acme.direct", "kcat-binary").attribute(TENANT.0, TENANT.1);
    kcat(&pipeline, &binary.kafka_headers(), &binary.data);
    let structured = event("com.acme.direct", "kcat-structured").attribute(TENANT.0, TENANT.1);
    let headers = [(
        "content-type".to_owned(),
        "application/cloudevents+json".to_owned(),
    )];
    kcat(&pipeline, &headers, &structured.structured());
    for event in [&binary, &structured] {
        let arrival = endpoint.expect_delivered(event).await;
        assert_eq!(arrival.data(), event.data);
    }
}

fn kcat(pipeline: &Pipeline, headers: &[(String, String)], value: &str) {
    let mut command = Command::new("kcat");
    command.args([
        "-P",
        "-b",
        pipeline.brokers(),
        "-t",
        &pipeline.topic("events"),
    ]);
    for (name, value) in headers {
        command.args(["-H", &format!("{name}={value}")]);
    }
    let mut child = command.stdin(Stdio::piped()).spawn().expect("kcat");
    let mut input = child.stdin.take().expect("kcat reads");
    input.write_all(value.as_bytes()).expect("kcat reads");
    drop(input);
    assert!(child.wait().expect("kcat").success());
}

/// Rule 16: what cannot be read leaves a record that says why, and holds nothing up.
#[tokio::test]
async fn a_record_that_is_no_event_becomes_a_dead_letter() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    pipeline.produce(&[], "no event").await;
    let good = event("com.acme.direct", "behind").attribute(TENANT.0, TENANT.1);
    pipeline.produce(&good.kafka_headers(), &good.data).await;
    endpoint.expect_delivered(&good).await;
    let letters = harness::eventually("a dead letter", harness::DEADLINE, async || {
        let letters = harness::dead_letters(pipeline.brokers(), pipeline.prefix());
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason.as_str(), "undecodable");
    assert_eq!(letters[0].origin.0, pipeline.topic("events"));
}
