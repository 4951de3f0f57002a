//! Order per key (rule 12): what an endpoint accepts of a key is in the order of publication,
//! whatever fails and whoever dies.

use std::collections::{BTreeMap, BTreeSet};

use harness::{DEADLINE, Endpoint, Event, Log, Pipeline, answers, event, eventually};
use serde_json::json;

use crate::{on_both_logs, pipeline_on};

on_both_logs!(a_key_is_kept_in_order_though_its_endpoint_fails_now_and_then);

const KEYS: usize = 6;
const EVENTS_A_KEY: usize = 30;
/// Each such request is answered with 500.
const FAILS_EVERY: usize = 4;

/// An ordered subscription to an endpoint that fails now and then.
async fn ordered(pipeline: &Pipeline) -> Endpoint {
    let endpoint = pipeline
        .endpoint(answers(|before, _| {
            let is_failed = (before + 1).is_multiple_of(FAILS_EVERY);
            (if is_failed { 500 } else { 200 }, String::new())
        }))
        .await;
    let body = json!({ "endpoint": endpoint.id, "ordered": true });
    let path = pipeline.path("/subscriptions?wait=applied");
    pipeline.control().make(&path, &body).await;
    endpoint
}

/// Publishes events `numbers` of every key, the keys by turns.
async fn publish(pipeline: &Pipeline, numbers: std::ops::Range<usize>) {
    let events: Vec<Event> = numbers
        .flat_map(|number| (0..KEYS).map(move |key| (key, number)))
        .map(|(key, number)| {
            let id = format!("{key}-{number}");
            event("com.acme.ordered", id).attribute("partitionkey", &format!("key-{key}"))
        })
        .collect();
    pipeline.publish_all(&events).await;
}

/// The numbers that were accepted of each key, in the order of their arrival.
fn accepted(endpoint: &Endpoint) -> BTreeMap<usize, Vec<usize>> {
    let mut accepted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    endpoint.sink.look(|all| {
        for arrival in all.iter().filter(|arrival| arrival.status == 200) {
            let (key, number) = arrival.event_id.split_once('-').expect("key and number");
            let parsed = |text: &str| text.parse().expect("a number");
            accepted
                .entry(parsed(key))
                .or_default()
                .push(parsed(number));
        }
    });
    accepted
}

/// Waits until all events of each key were accepted.
async fn all_accepted(endpoint: &Endpoint, a_key: usize) -> BTreeMap<usize, Vec<usize>> {
    eventually("all events of each key", DEADLINE, async || {
        let accepted = accepted(endpoint);
        let is_over = |numbers: &Vec<usize>| {
            let different: BTreeSet<&usize> = numbers.iter().collect();
            different.len() == a_key
        };
        (accepted.len() == KEYS && accepted.values().all(is_over)).then_some(accepted)
    })
    .await
}

async fn a_key_is_kept_in_order_though_its_endpoint_fails_now_and_then(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = ordered(&pipeline).await;
    publish(&pipeline, 0..EVENTS_A_KEY).await;
    let expected: Vec<usize> = (0..EVENTS_A_KEY).collect();
    for (key, numbers) in all_accepted(&endpoint, EVENTS_A_KEY).await {
        assert_eq!(numbers, expected, "of key {key}");
    }
    let failed = endpoint.sink.count() - KEYS * EVENTS_A_KEY;
    assert!(
        failed >= KEYS * EVENTS_A_KEY / FAILS_EVERY,
        "{failed} failed"
    );
}

/// A new owner goes on at the head of each key: what the dead one had in flight, or not yet
/// committed, may come again (rule 13), in the same order.
#[tokio::test]
async fn a_key_is_kept_in_order_though_its_dispatcher_is_killed() {
    let mut pipeline = pipeline_on(Log::Kafka)
        .set("kafka.session_timeout=6s")
        .start()
        .await;
    let endpoint = ordered(&pipeline).await;
    publish(&pipeline, 0..EVENTS_A_KEY).await;
    endpoint.sink.expect_requests(KEYS * EVENTS_A_KEY / 3).await;
    let killed = owner(&pipeline).await;
    pipeline.process(killed).kill();
    let by_then = endpoint.sink.count();
    // What is published meanwhile queues behind what is blocked.
    publish(&pipeline, EVENTS_A_KEY..EVENTS_A_KEY * 2).await;
    pipeline.process(killed).restart();
    let accepted = all_accepted(&endpoint, EVENTS_A_KEY * 2).await;
    assert!(by_then < KEYS * EVENTS_A_KEY, "killed after all of it");
    for (key, numbers) in accepted {
        let (mut next, mut backwards) = (0, 0);
        for number in &numbers {
            assert!(
                *number <= next,
                "{number} of key {key} overtook {next}: {numbers:?}"
            );
            backwards += usize::from(*number < next);
            next = number + 1;
        }
        assert!(
            backwards <= 1,
            "one death, yet key {key} came as {numbers:?}"
        );
    }
}

/// The dispatcher that has made attempts, all for one endpoint.
async fn owner(pipeline: &Pipeline) -> &'static str {
    let attempts = "anabranch_dispatch_attempts_total";
    for name in ["dispatcher-1", "dispatcher-2"] {
        if pipeline.process_metric(name, attempts).await > 0.0 {
            return name;
        }
    }
    panic!("no dispatcher has made an attempt")
}
