//! What is published arrives: byte-equal, signed, in the form that the endpoint asks for.

use std::collections::HashMap;
use std::path::PathBuf;

use harness::{Event, Log, event, eventually, ok};
use reqwest::Method;
use serde_json::json;
use serde_json::value::RawValue;

use crate::{on_both_logs, pipeline_on};

on_both_logs!(
    github_payloads_arrive_byte_equal_and_signed,
    bodies_have_the_form_that_was_asked_for
);

/// Payloads of the data set, in the form `{"event":…,"payload":…}`, as events.
fn github_events() -> Option<Vec<Event>> {
    let path = std::env::var_os("GITHUB_WEBHOOKS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/github-webhooks.ndjson"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(&path) else {
        harness::not_run(&format!("GitHub's payloads: {} is absent", path.display()));
        return None;
    };
    let read = |(number, line): (usize, &str)| {
        let line: HashMap<&str, &RawValue> =
            serde_json::from_str(line).expect("a line of the data");
        let name: String = serde_json::from_str(line["event"].get()).expect("an event's name");
        event(&format!("com.github.{name}"), number).data(line["payload"].get())
    };
    Some(
        text.lines()
            .filter(|line| !line.is_empty())
            .enumerate()
            .map(read)
            .collect(),
    )
}

/// Rule 9, WH-1 to WH-6.
async fn github_payloads_arrive_byte_equal_and_signed(log: Log) {
    let Some(events) = github_events() else {
        return;
    };
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    for event in &events {
        pipeline.publish(event).await;
    }
    let arrivals = endpoint.sink.expect_requests(events.len()).await;
    assert_eq!(arrivals.len(), events.len(), "nothing arrives twice");
    let by_id: HashMap<String, _> = arrivals
        .iter()
        .map(|arrival| (arrival.event_id.clone(), arrival))
        .collect();
    for event in &events {
        let arrival = by_id[&event.id];
        assert!(
            arrival.is_signed_by(&endpoint.secret),
            "signature of {}",
            event.id
        );
        assert_eq!(arrival.data(), event.data, "data of {}", event.id);
        assert_eq!(arrival.attribute("type").as_ref(), Some(&event.ty));
        assert_eq!(arrival.attribute("source").as_ref(), Some(&event.source));
        assert!(
            arrival.attribute("anabranchtenant").is_none(),
            "ours stay with us"
        );
    }
}

async fn bodies_have_the_form_that_was_asked_for(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let modes = ["structured", "binary", "standard_webhooks", "data", "form"];
    let mut endpoints = Vec::new();
    for mode in modes {
        let endpoint = pipeline.endpoint_with(ok(), json!({ "body": mode })).await;
        pipeline.subscription(&endpoint, &[]).await;
        endpoints.push(endpoint);
    }
    let event = event("com.acme.lead.created", "lead-1")
        .attribute("subject", "leads/1")
        .data(r#"{"name": "Ada & Co",  "n": 1.0}"#);
    pipeline.publish(&event).await;
    for (mode, endpoint) in modes.into_iter().zip(&endpoints) {
        let arrivals = endpoint.sink.expect_requests(1).await;
        let arrival = &arrivals[0];
        assert!(arrival.is_signed_by(&endpoint.secret), "{mode}");
        let body = String::from_utf8(arrival.body.to_vec()).expect("text");
        let content_type = arrival.header("content-type");
        match mode {
            "structured" => {
                assert!(content_type.starts_with("application/cloudevents+json"));
                assert_eq!(arrival.data(), event.data);
                assert_eq!(arrival.attribute("subject").as_deref(), Some("leads/1"));
            }
            "binary" => {
                assert_eq!(
                    (body, content_type),
                    (event.data.clone(), "application/json")
                );
                assert_eq!(arrival.header("ce-id"), "lead-1");
                assert_eq!(arrival.header("ce-subject"), "leads/1");
            }
            "standard_webhooks" => {
                let json: serde_json::Value = serde_json::from_str(&body).expect("json");
                assert_eq!(json["type"], event.ty.as_str());
                assert!(json["timestamp"].is_string());
                assert_eq!(arrival.data(), event.data);
            }
            "data" => assert_eq!(
                (body, content_type),
                (event.data.clone(), "application/json")
            ),
            "form" => {
                assert_eq!(content_type, "application/x-www-form-urlencoded");
                let expected = "payload=%7B%22name%22%3A+%22Ada+%26+Co%22%2C++%22n%22%3A+1.0%7D";
                assert_eq!(body, expected);
            }
            other => panic!("{other}"),
        }
    }
}

/// All three HTTP modes of CloudEvents, and JSON from somebody who has never heard of them.
#[tokio::test]
async fn producers_over_http_may_use_every_mode() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    pipeline.publish(&event("com.acme.a", "structured")).await;
    let (path, ingest) = (pipeline.path("/events"), pipeline.ingest());
    let binary = event("com.acme.a", "binary");
    let sent = ingest
        .send(
            Method::POST,
            &path,
            &binary.http_headers(),
            binary.data.clone(),
        )
        .await;
    let _taken = sent.expect("an answer").expect(202);
    let headers = [(
        "content-type".to_owned(),
        "application/cloudevents-batch+json".to_owned(),
    )];
    let batch: Vec<String> = ["batch-1", "batch-2"]
        .map(|id| event("com.acme.a", id).structured())
        .to_vec();
    let sent = ingest
        .send(
            Method::POST,
            &path,
            &headers,
            format!("[{}]", batch.join(",")),
        )
        .await;
    let _taken = sent.expect("an answer").expect(202);
    for id in ["structured", "binary", "batch-1", "batch-2"] {
        endpoint.sink.expect_event(id).await;
    }
    let path = pipeline.path("/events/com.acme.plain");
    let answer = ingest
        .call(Method::POST, &path, Some(&json!({"plain": true})))
        .await;
    let _taken = answer.expect(202);
    let plain = eventually("the plain event", harness::DEADLINE, async || {
        let plain = |arrival: &harness::Arrival| {
            arrival.attribute("type").as_deref() == Some("com.acme.plain")
        };
        endpoint.sink.arrivals().into_iter().find(plain)
    })
    .await;
    assert_eq!(plain.data(), r#"{"plain":true}"#);
    assert!(plain.is_signed_by(&endpoint.secret));
}
