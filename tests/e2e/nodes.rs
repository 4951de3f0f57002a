//! Three Kafka nodes, one of which dies under load and comes back: what was accepted arrives.

use std::time::Duration;

use harness::{Broker, Load, Log, eventually, now_ms, ok};

use crate::crashes::{all_arrive, repeats};
use crate::pipeline;

const EVENTS_PER_S: u64 = 100;
/// Before a death, what had ended is committed (rule 13).
const UNCOMMITTED_MS: i64 = 500;
const GOES_ON: Duration = Duration::from_secs(120);

/// Each node in turn, so that every coordinator moves: one, or twice all three with `--long`.
fn deaths() -> Vec<u32> {
    if harness::long() {
        vec![1, 2, 3, 1, 2, 3]
    } else {
        vec![2]
    }
}

#[tokio::test]
async fn one_of_three_nodes_dies_in_mid_load() {
    let mut broker = Broker::of_three_nodes();
    let log = Log::Brokers(broker.brokers().to_owned());
    let pipeline = pipeline()
        .on(log)
        .heavy()
        .routers(2)
        .dispatchers(2)
        .start()
        .await;
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        endpoints.push(pipeline.subscribed(ok()).await);
    }
    let load = pipeline.load("com.acme.load", EVENTS_PER_S);
    endpoints[0].sink.expect_requests(100).await;
    let mut away = Vec::new();
    for node in deaths() {
        let gone = now_ms();
        broker = with(broker, move |broker| broker.kill_node(node)).await;
        goes_on("with two of three", &load).await;
        broker = with(broker, move |broker| broker.start_node(node)).await;
        goes_on("with all three again", &load).await;
        away.push((gone, now_ms()));
        eprintln!("node {node} was gone from {gone} to {}", now_ms());
    }
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    for endpoint in &endpoints {
        let repeated = repeats(endpoint, &sent);
        for (id, arrivals) in &repeated {
            let at: Vec<i64> = arrivals.iter().map(|arrival| arrival.at).collect();
            let explains =
                |(gone, back): &(i64, i64)| at[0] > gone - UNCOMMITTED_MS && at[0] < *back;
            assert!(
                at.len() == 2 && away.iter().any(explains),
                "{id} came again though the log had it committed: {at:?}, away: {away:?}"
            );
        }
        eprintln!("{} repeated", repeated.len());
    }
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
    drop(pipeline);
    drop(broker);
}

async fn with(broker: Broker, act: impl FnOnce(&Broker) + Send + 'static) -> Broker {
    let acting = tokio::task::spawn_blocking(move || {
        act(&broker);
        broker
    });
    acting.await.expect("the script")
}

/// Waits until events are acknowledged again.
async fn goes_on(what: &str, load: &Load) {
    let before = load.so_far().acknowledged.len();
    eventually(what, GOES_ON, async || {
        (load.so_far().acknowledged.len() > before + 300).then_some(())
    })
    .await;
}
