//! Dead letters that come back: a redrive delivers each once, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Api, DEADLINE, Endpoint, Log, Pipeline, always, event, eventually, never, ok, slow};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both_logs, pipeline_on};

on_both_logs!(
    what_an_endpoint_refused_is_delivered_once_when_it_is_sent_again,
    a_redrive_goes_on_after_its_control_was_killed,
);

async fn get(api: &Api, path: &str) -> Value {
    api.call(Method::GET, path, None).await.expect(200).json()
}

/// Publishes so many events that the endpoint refuses, and waits until all are listed as dead.
async fn refused(pipeline: &Pipeline, endpoint: &Endpoint, count: usize) -> Vec<Value> {
    for number in 0..count {
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    let path = format!("/dead?limit=100&endpoint={}&reason=rejected", endpoint.id);
    let path = pipeline.path(&path);
    eventually("the letters listed", DEADLINE, async || {
        let mut found: Vec<Value> = Vec::new();
        let mut next = String::new();
        loop {
            let page = get(pipeline.control(), &format!("{path}{next}")).await;
            found.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        (found.len() >= count).then_some(found)
    })
    .await
}

async fn redrive(pipeline: &Pipeline, body: Value) -> String {
    let made = pipeline
        .control()
        .make(&pipeline.path("/redrives"), &body)
        .await;
    made["id"].as_str().expect("an id").to_owned()
}

async fn over(pipeline: &Pipeline, id: &str) -> Value {
    let path = pipeline.path(&format!("/redrives/{id}"));
    eventually("the redrive over", DEADLINE, async || {
        let sent = pipeline.control().send(Method::GET, &path, &[], "").await;
        let state = sent.ok().filter(|answer| answer.status == 200)?.json();
        (state["state"] == "done").then_some(state)
    })
    .await
}

/// How often each event was taken.
fn taken(endpoint: &Endpoint) -> BTreeMap<String, u32> {
    let mut taken = BTreeMap::new();
    endpoint.sink.look(|all| {
        for arrival in all.iter().filter(|arrival| arrival.status == 200) {
            *taken.entry(arrival.event_id.clone()).or_default() += 1;
        }
    });
    taken
}

async fn what_an_endpoint_refused_is_delivered_once_when_it_is_sent_again(log: Log) {
    const EVENTS: usize = 30;
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(always(422)).await;
    let letters = refused(&pipeline, &endpoint, EVENTS).await;
    assert_eq!(letters.len(), EVENTS);
    assert_eq!(letters[0]["last_attempt"]["status"], 422);
    let refusals = endpoint.sink.arrivals();
    endpoint.sink.behave(ok());
    // One by its id, then all: what is delivered is not sent again.
    let one = redrive(&pipeline, json!({ "letters": [letters[0]["id"]] })).await;
    assert_eq!(over(&pipeline, &one).await["counts"]["delivered"], 1);
    let all = redrive(&pipeline, json!({ "endpoint": endpoint.id })).await;
    let counts = over(&pipeline, &all).await["counts"].clone();
    assert_eq!(counts["delivered"], EVENTS - 1, "{counts}");
    assert_eq!(counts["settled"], 1, "{counts}");
    let again = redrive(&pipeline, json!({})).await;
    let counts = over(&pipeline, &again).await["counts"].clone();
    assert_eq!(counts["settled"], EVENTS, "{counts}");
    let once = taken(&endpoint);
    assert_eq!(once.len(), EVENTS);
    assert!(once.values().all(|times| *times == 1), "{once:?}");
    // Rule 4: the id is the one that was refused; each is signed.
    for arrival in endpoint.sink.arrivals() {
        let before = refusals
            .iter()
            .find(|refusal| refusal.event_id == arrival.event_id);
        assert_eq!(before.map(|before| &before.id), Some(&arrival.id));
        assert!(arrival.is_signed_by(&endpoint.secret));
    }
}

async fn a_redrive_goes_on_after_its_control_was_killed(log: Log) {
    const EVENTS: usize = 60;
    let is_embedded = log == Log::Embedded;
    let killed = if is_embedded { "up" } else { "control" };
    let mut pipeline = pipeline_on(log).start().await;
    let members = json!({ "concurrency": 1 });
    let endpoint = pipeline.endpoint_with(always(422), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    refused(&pipeline, &endpoint, EVENTS).await;
    endpoint.sink.behave(slow(Duration::from_millis(50)));
    let before = endpoint.sink.count();
    let id = redrive(&pipeline, json!({ "endpoint": endpoint.id })).await;
    endpoint.sink.expect_requests(before + 5).await;
    pipeline.process(killed).kill();
    pipeline.process(killed).restart();
    pipeline.ready(killed).await;
    let counts = over(&pipeline, &id).await["counts"].clone();
    assert_eq!(counts["matched"], EVENTS, "{counts}");
    assert_eq!(counts["delivered"], EVENTS, "{counts}");
    let taken = taken(&endpoint);
    assert_eq!(taken.len(), EVENTS);
    // The embedded log's process is the dispatcher too: what it had in flight, or ended and not
    // committed, may come again (rule 13). In half a second that is ten, one after another.
    let repeats = taken.values().filter(|times| **times > 1).count();
    let allowed = if is_embedded { 15 } else { 0 };
    assert!(repeats <= allowed, "{taken:?}");
    let requests = endpoint.sink.count();
    never("more requests", Duration::from_millis(500), async || {
        endpoint.sink.count() > requests
    })
    .await;
}
