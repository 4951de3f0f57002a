//! Fair shares: what is beyond one arrives all the same, through `events.bulk`; where order is
//! promised, nothing is moved (rule 12).

use std::collections::BTreeSet;

use harness::{Answer, DEADLINE, Event, Log, Pipeline, event, eventually, ok};
use reqwest::Method;
use serde_json::json;

use crate::{on_both_logs, pipeline_on};

on_both_logs!(
    a_tenant_beyond_its_share_arrives_whole_through_bulk,
    a_tenant_whose_order_is_promised_is_told_to_wait,
);

const BULK: &str = "anabranch_ingest_accepted_events_total{class=\"bulk\"";
const ROUTED_BULK: &str = "anabranch_router_event_age_seconds_count{class=\"bulk\"";
const SHARE: &str = "ingest.fair_share_events_per_second=20";
const BATCH: usize = 50;
const BATCHES: usize = 12;

fn batch(number: usize) -> Vec<Event> {
    (0..BATCH)
        .map(|index| event("com.acme.flood", format!("{number:02}-{index:02}")))
        .collect()
}

async fn a_tenant_beyond_its_share_arrives_whole_through_bulk(log: Log) {
    let pipeline = pipeline_on(log).set(SHARE).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    for number in 0..BATCHES {
        pipeline.publish_all(&batch(number)).await;
    }
    let all = BATCH * BATCHES;
    eventually("every event", DEADLINE, async || {
        let ids: BTreeSet<String> = endpoint
            .sink
            .look(|all| all.iter().map(|arrival| arrival.event_id.clone()).collect());
        (ids.len() == all).then_some(())
    })
    .await;
    assert_eq!(endpoint.sink.count(), all, "each once");
    let bulk = pipeline.metric(BULK).await;
    // The first is within the share; the others are, as the seconds pass, now and then.
    assert!(bulk > 0.0, "nothing was beyond the share");
    eventually("routed from bulk", DEADLINE, async || {
        let routed = pipeline.metric(ROUTED_BULK).await;
        ((routed - bulk).abs() < 0.5).then_some(())
    })
    .await;
}

/// Publishes more than a second's share in one request.
async fn flood(pipeline: &Pipeline) -> Answer {
    let events: Vec<String> = batch(0).iter().map(Event::structured).collect();
    let json = "application/cloudevents-batch+json".to_owned();
    let headers = [("content-type".to_owned(), json)];
    let body = format!("[{}]", events.join(","));
    let path = pipeline.path("/events");
    let sent = pipeline.ingest().send(Method::POST, &path, &headers, body);
    sent.await.expect("an answer from ingest")
}

async fn a_tenant_whose_order_is_promised_is_told_to_wait(log: Log) {
    let pipeline = pipeline_on(log).set(SHARE).start().await;
    let endpoint = pipeline.endpoint(ok()).await;
    let body = json!({ "endpoint": endpoint.id, "ordered": true });
    let path = pipeline.path("/subscriptions?wait=applied");
    let made = pipeline.control().make(&path, &body).await;
    // Ingest follows by itself: until it knows, what is beyond the share is moved.
    let refused = eventually("ingest knows of the order", DEADLINE, async || {
        let answer = flood(&pipeline).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_eq!(refused.json()["violated-policies"][0], "fair-share");
    assert!(refused.headers.contains_key("retry-after"), "HT-11");
    let moved = pipeline.metric(BULK).await;
    eventually("taken when it has waited", DEADLINE, async || {
        (flood(&pipeline).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(flood(&pipeline).await.status, 429);
    let after = pipeline.metric(BULK).await;
    assert!((after - moved).abs() < 0.5, "moved although it is ordered");
    // Without the subscription it is moved again.
    let id = made["id"].as_str().expect("an id");
    let path = pipeline.path(&format!("/subscriptions/{id}"));
    pipeline.control().call(Method::DELETE, &path, None).await;
    eventually("moved again", DEADLINE, async || {
        flood(&pipeline).await;
        (pipeline.metric(BULK).await > moved).then_some(())
    })
    .await;
}
