//! Subscriptions with a start: past events from a time on, once, beside the live ones, whoever dies.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Endpoint, Event, Log, Pipeline, event, eventually, never, ok};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both_logs, pipeline_on};

on_both_logs!(
    past_events_are_replayed_once_though_the_router_dies,
    latest_begins_behind_all_that_is_there,
);

const BEFORE: u64 = 150;
const PAST: u64 = 150;
const LIVE: u64 = 60;

fn events(ids: std::ops::Range<u64>) -> Vec<Event> {
    ids.map(|id| event("com.acme.start", id)).collect()
}

fn ids(ids: std::ops::Range<u64>) -> BTreeSet<String> {
    ids.map(|id| id.to_string()).collect()
}

fn arrived(endpoint: &Endpoint) -> Vec<String> {
    let arrivals = endpoint.sink.arrivals();
    arrivals
        .iter()
        .filter_map(|arrival| arrival.attribute("id"))
        .collect()
}

async fn subscribe(pipeline: &Pipeline, endpoint: &Endpoint, start: &str) -> Value {
    let body = json!({ "endpoint": endpoint.id, "start": start });
    let path = pipeline.path("/subscriptions?wait=applied");
    pipeline.control().make(&path, &body).await
}

/// The present as RFC 3339, from the answer of a service that knows it.
async fn now(pipeline: &Pipeline) -> String {
    let endpoint = pipeline.endpoint(ok()).await;
    let path = pipeline.path(&format!("/endpoints/{}", endpoint.id));
    let shown = pipeline.control().call(Method::GET, &path, None).await;
    let shown = shown.expect(200).json();
    shown["created_at"].as_str().expect("a time").to_owned()
}

async fn expect_exactly(endpoint: &Endpoint, expected: &BTreeSet<String>) -> Vec<String> {
    eventually(
        "every event from the start on",
        Duration::from_secs(90),
        async || {
            let found: BTreeSet<String> = arrived(endpoint).into_iter().collect();
            (found.len() >= expected.len()).then_some(())
        },
    )
    .await;
    let all = arrived(endpoint);
    let found: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(found, *expected);
    all
}

async fn past_events_are_replayed_once_though_the_router_dies(log: Log) {
    let is_embedded = log == Log::Embedded;
    let mut pipeline = pipeline_on(log).set("router.replay_rate=5").start().await;
    let other = pipeline.subscribed(ok()).await;
    pipeline.publish_all(&events(0..BEFORE)).await;
    other
        .sink
        .expect_requests(usize::try_from(BEFORE).expect("small"))
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = now(&pipeline).await;
    pipeline.publish_all(&events(BEFORE..BEFORE + PAST)).await;
    let endpoint = pipeline.endpoint(ok()).await;
    let made = subscribe(&pipeline, &endpoint, &start).await;
    assert_eq!(made["start"], start.as_str(), "as it was asked for");
    endpoint.sink.expect_requests(20).await;
    let killed: &[&str] = if is_embedded {
        &["up"]
    } else {
        &["router-1", "router-2"]
    };
    for name in killed {
        pipeline.process(name).kill();
        pipeline.process(name).restart();
    }
    for name in killed {
        pipeline.ready(name).await;
    }
    let end = BEFORE + PAST + LIVE;
    pipeline.publish_all(&events(BEFORE + PAST..end)).await;
    let all = expect_exactly(&endpoint, &ids(BEFORE..end)).await;
    if !is_embedded {
        // Dispatchers live on: what a new router writes again is dropped by its mark (rule 3).
        assert_eq!(all.len(), ids(BEFORE..end).len());
    }
    expect_exactly(&other, &ids(0..end)).await;
}

async fn latest_begins_behind_all_that_is_there(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let other = pipeline.subscribed(ok()).await;
    pipeline.publish_all(&events(0..BEFORE)).await;
    let endpoint = pipeline.endpoint(ok()).await;
    subscribe(&pipeline, &endpoint, "latest").await;
    pipeline.publish_all(&events(BEFORE..BEFORE + LIVE)).await;
    expect_exactly(&endpoint, &ids(BEFORE..BEFORE + LIVE)).await;
    expect_exactly(&other, &ids(0..BEFORE + LIVE)).await;
    never(
        "an event from before the start",
        Duration::from_secs(1),
        async || endpoint.sink.count() > usize::try_from(LIVE).expect("small"),
    )
    .await;
    let future = json!({ "endpoint": endpoint.id, "start": "2100-01-01T00:00:00Z" });
    let path = pipeline.path("/subscriptions");
    let refused = pipeline
        .control()
        .call(Method::POST, &path, Some(&future))
        .await;
    let refused = refused.expect(422).json();
    assert!(
        refused.to_string().contains("must not be in the future"),
        "{refused}"
    );
}
