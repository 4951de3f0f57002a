//! Dispatchers that are added and removed under load: nothing is lost, and nothing comes twice
//! (rule 13: a drained shutdown hands over what it has done).

use std::time::Duration;

use harness::{Endpoint, Pipeline, eventually, ok};

use crate::crashes::{all_arrive, repeats};
use crate::pipeline;

const ENDPOINTS: usize = 6;
const DISPATCHERS_MAX: usize = 3;
const EVENTS_PER_S: u64 = 100;
const SETTLES: Duration = Duration::from_secs(120);

/// Removals, each followed by an addition.
fn rounds() -> usize {
    if harness::long() { 20 } else { 3 }
}

#[tokio::test]
async fn dispatchers_come_and_go_in_the_classic_group() {
    dispatchers_come_and_go("classic").await;
}

#[tokio::test]
async fn dispatchers_come_and_go_in_a_group_of_kip_848() {
    dispatchers_come_and_go("consumer").await;
}

async fn dispatchers_come_and_go(protocol: &str) {
    let protocol = format!("kafka.group_protocol={protocol}");
    let mut pipeline = pipeline().heavy().set(&protocol).start().await;
    let mut endpoints = Vec::new();
    for _ in 0..ENDPOINTS {
        endpoints.push(pipeline.subscribed(ok()).await);
    }
    let load = pipeline.load("com.acme.load", EVENTS_PER_S);
    let mut members = vec!["dispatcher-1".to_owned()];
    while members.len() < DISPATCHERS_MAX {
        let name = pipeline.add("dispatcher").await;
        takes_part(&pipeline, &endpoints, &name).await;
        members.push(name);
    }
    for round in 0..rounds() {
        // The longest-serving one leaves; now and then the next one before that is over.
        let leaving = members.drain(..1 + round % 2).collect::<Vec<String>>();
        for name in &leaving {
            pipeline.process(name).signal("TERM");
        }
        for name in &leaving {
            let ended = pipeline.process(name).exit(SETTLES).await;
            assert!(ended.success(), "{name} left with {ended}");
        }
        for name in leaving {
            pipeline.process(&name).restart();
            pipeline.ready(&name).await;
            takes_part(&pipeline, &endpoints, &name).await;
            members.push(name);
        }
    }
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    for endpoint in &endpoints {
        let repeated = repeats(endpoint, &sent);
        let first = repeated.iter().next();
        assert!(
            first.is_none(),
            "{} came twice though nobody died; the first: {first:?}",
            repeated.len()
        );
    }
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
}

/// Waits until it owns placements and all endpoints are served.
async fn takes_part(pipeline: &Pipeline, endpoints: &[Endpoint], name: &str) {
    eventually(&format!("placements of {name}"), SETTLES, async || {
        let placements = "anabranch_dispatch_placements";
        (pipeline.process_metric(name, placements).await > 0.0).then_some(())
    })
    .await;
    let counts: Vec<usize> = endpoints.iter().map(|it| it.sink.count()).collect();
    for (endpoint, before) in endpoints.iter().zip(counts) {
        eventually("deliveries to all", SETTLES, async || {
            (endpoint.sink.count() > before + 50).then_some(())
        })
        .await;
    }
}
