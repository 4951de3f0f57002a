//! What a flood does to others: in `events.bulk`, and by one event that very many want.

use std::time::Duration;

use runtime::log::simulated::{Latencies, Latency, SimulationOptions};
use runtime::log::{Partition, Position, Record, TopicName};
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{DeliveryRecord, MAX_TARGETS};

use super::{Cluster, PARTITIONS, PREFIX, event, event_record};
use crate::{Window, group};

const ROUTER: &str = "router-1";
/// What one turn writes at the most (`routing::source`), and the record that ends it.
const TURN_TARGETS: usize = 8_000 + MAX_TARGETS;
/// And the most events of a kilobyte: a turn ends at 1 MiB.
const TURN_EVENTS: usize = 1_024;

/// A cluster that reads `events.bulk` too, with one subscription to everything.
async fn cluster(options: SimulationOptions) -> Cluster {
    let mut cluster = Cluster::new(options).await;
    let topics = cluster.topics.clone();
    cluster.options.sources = vec![topics.events.clone(), topics.bulk.clone()];
    let first = |partition: Partition| Position {
        partition,
        offset: 0,
        metadata: String::new(),
    };
    let sources = [&topics.events, &topics.bulk];
    let partitions = sources.into_iter().flat_map(partitions_of);
    let positions: Vec<Position> = partitions.map(first).collect();
    let group = group(PREFIX);
    let committed = cluster.outside.commit_for_empty_group(&group, &positions);
    committed.await.unwrap();
    cluster.subscribe(1, "acme", "[]").await;
    cluster
}

fn partitions_of(topic: &TopicName) -> impl Iterator<Item = Partition> {
    let topic = topic.clone();
    (0..PARTITIONS).map(move |number| topic.partition(number))
}

/// Writes `count` events of a kilobyte to every partition of `topic` at once.
async fn fill(cluster: &Cluster, topic: &TopicName, count: u64) {
    let data = "x".repeat(1 << 10);
    let records: Vec<Record> = (0..count)
        .flat_map(|id| (0..PARTITIONS).map(move |partition| (id, partition)))
        .map(|(id, partition)| event_record(topic, partition, &event("acme", "a", id, &data)))
        .collect();
    let acks = cluster.publisher.producer.send(records).await;
    assert!(acks.wait().await.iter().all(Result::is_ok));
}

async fn settle(cluster: &Cluster) {
    cluster
        .until("routed", |cluster| {
            let topics = [&cluster.topics.events, &cluster.topics.bulk];
            topics.into_iter().flat_map(partitions_of).all(|partition| {
                cluster.committed(&partition).unwrap_or(0) >= cluster.end(&partition)
            })
        })
        .await;
}

/// What is on `deliveries`: when it was appended, and the record; partition after partition.
fn deliveries(cluster: &Cluster) -> Vec<(i64, DeliveryRecord)> {
    let records = partitions_of(&cluster.topics.deliveries)
        .flat_map(|partition| cluster.sim.records(&partition));
    let decoded = records.map(|record| {
        let value = record.value.as_ref().unwrap();
        let decoded = DeliveryRecord::decode(record.headers.iter(), value).unwrap();
        (record.timestamp, decoded)
    });
    decoded.collect()
}

fn is_of(record: &DeliveryRecord, topic: &TopicName) -> bool {
    *record.origin.topic == *topic.as_str()
}

#[tokio::test(start_paused = true)]
async fn live_events_stay_young_beside_a_flood_in_bulk() {
    let latencies = Latencies {
        acknowledge: Latency::fixed(Duration::from_millis(50)),
        ..Latencies::default()
    };
    let mut cluster = cluster(SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    })
    .await;
    let (live, bulk) = (cluster.topics.events.clone(), cluster.topics.bulk.clone());
    cluster.options.window.targets = 20;
    // More than the readers and the loop hold, and seconds of what the window lets through.
    fill(&cluster, &bulk, 3_000).await;
    cluster.start(ROUTER);
    for id in 0..60 {
        let partition = u32::try_from(id % 4).unwrap();
        cluster
            .publish(partition, &event("acme", "a", id, "live"))
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = partitions_of(&bulk)
        .map(|partition| cluster.end(&partition) - cluster.committed(&partition).unwrap_or(0));
    assert!(left.sum::<i64>() > 1_000, "the flood went on all the while");
    settle(&cluster).await;
    let all = deliveries(&cluster);
    let ages = |topic: &TopicName| {
        let of_topic = all.iter().filter(|(_, record)| is_of(record, topic));
        of_topic
            .map(|(at, record)| at - record.accepted_at)
            .collect::<Vec<_>>()
    };
    let (live, bulk) = (ages(&live), ages(&bulk));
    assert_eq!((live.len(), bulk.len()), (60, 4 * 3_000), "nothing is lost");
    // Beside the router's start, for which the first one may wait.
    let late = live.iter().filter(|age| **age > 5).count();
    assert!(
        late <= 2,
        "{late} of 60 live events waited for the flood: {live:?}"
    );
    assert!(
        bulk.iter().max() > Some(&4_000),
        "nor was it a flood otherwise"
    );
    let metrics = cluster.routers[ROUTER].metrics.render();
    for (class, count) in [("live", 60), ("bulk", 12_000)] {
        let line = format!("anabranch_router_event_age_seconds_count{{class=\"{class}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_both_is_routed_by_weight() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    // Wide enough that turns alone decide.
    cluster.options.window = Window {
        targets: 64_000,
        bytes: 64 << 20,
        age: Duration::from_secs(10),
    };
    let (live, bulk) = (cluster.topics.events.clone(), cluster.topics.bulk.clone());
    fill(&cluster, &live, 5_000).await;
    fill(&cluster, &bulk, 5_000).await;
    cluster.start(ROUTER);
    settle(&cluster).await;
    let all = deliveries(&cluster);
    assert_eq!(all.len(), 40_000);
    // One subscription: one partition of `deliveries`, in the order of the turns.
    let last = all
        .iter()
        .rposition(|(_, record)| is_of(record, &live))
        .unwrap();
    let beside = all
        .iter()
        .take(last)
        .filter(|(_, record)| is_of(record, &bulk))
        .count();
    // 10 to 100, and the stated error: a turn of each, weighed.
    let (share, error) = (20_000 / 10, TURN_EVENTS + TURN_EVENTS / 10);
    assert!(
        (share - error..=share + error).contains(&beside),
        "{beside} of bulk beside 20,000 live events, not {share} ± {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_work_between_two_turns_of_another_partition_is_bounded() {
    const WIDE: usize = 20_000;
    const OTHERS: u64 = 10_000;
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.options.window = Window {
        targets: 64_000,
        bytes: 64 << 20,
        age: Duration::from_secs(10),
    };
    // All at one endpoint, so that one partition of `deliveries` shows the order of the turns.
    let mut one = cluster.subscriptions[&SubscriptionId::from_bits(1)].clone();
    one.filters = Filters::parse_str(r#"[{"exact":{"type":"wide"}}]"#).unwrap();
    one.endpoint = EndpointId::from_bits(1);
    for id in 2..WIDE as u128 + 1 {
        one.id = SubscriptionId::from_bits(id);
        cluster.put(one.clone()).await;
    }
    let records: Vec<Record> = std::iter::once((0, event("acme", "wide", 0, "data")))
        .chain((1..=OTHERS).map(|id| (1, event("acme", "a", id, "data"))))
        .map(|(partition, event)| event_record(&cluster.topics.events, partition, &event))
        .collect();
    let acks = cluster.publisher.producer.send(records).await;
    assert!(acks.wait().await.iter().all(Result::is_ok));
    cluster.start(ROUTER);
    settle(&cluster).await;
    let (mut between, mut most, mut wide) = (0, 0, 0);
    let mut was_between = false;
    for (_, record) in deliveries(&cluster) {
        if record.event.ty() == "wide" {
            between += record.targets.len();
            wide += record.targets.len();
            assert!(record.targets.len() <= MAX_TARGETS, "rule 2");
        } else {
            was_between |= between > 0;
            most = std::mem::take(&mut between).max(most);
        }
    }
    assert_eq!(wide, WIDE);
    assert!(was_between, "the others went first: nothing was at stake");
    assert!(
        most <= TURN_TARGETS,
        "{most} targets before the others' next turn"
    );
}
