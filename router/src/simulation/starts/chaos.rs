//! The same among crashes, stops and rebalances, by seed.

use std::time::Duration;

use runtime::clock::Entropy;
use runtime::log::simulated::{Fault, SimulationOptions};
use schemas::event::Event;
use schemas::resources::{StartFrom, Subscription};

use super::super::auditor::Audit;
use super::super::chaos::{below, in_paused_time, one_of, rampage, seeds, span, subscribe};
use super::super::{Cluster, PARTITIONS, Publisher, event, event_record};
use super::{START, check_order, places, written};

/// Publishes for a minute or so.
async fn publish(cluster: &Publisher, entropy: &Entropy, events: u64) {
    for number in 0..events {
        tokio::time::sleep(span(entropy, 0, 400)).await;
        let partition = u32::try_from(below(entropy, u64::from(PARTITIONS))).unwrap();
        let ty = one_of(entropy, &["lead", "stock", "other"]);
        let data = if below(entropy, 25) == 0 {
            "poison"
        } else {
            "data"
        };
        let event = event("acme", ty, number, data);
        cluster
            .write(event_record(&cluster.events, partition, &event))
            .await;
    }
}

/// A subscription with a start, and the time or the ends of the log that it is from.
struct Started {
    subscription: Subscription,
    at: Option<i64>,
    ends: Vec<i64>,
}

async fn begin_one(cluster: &mut Cluster, entropy: &Entropy, number: u128, began: i64) -> Started {
    let ends = cluster
        .sources()
        .iter()
        .map(|source| cluster.end(source))
        .collect();
    let ordered = number.is_multiple_of(3);
    let now = cluster.clock.now();
    let span = u64::try_from((now - began).max(1)).unwrap();
    let past = began + i64::try_from(below(entropy, span)).unwrap();
    let at = (number % 4 != 1).then_some(past);
    let from = at.map_or(StartFrom::Latest, StartFrom::At);
    let filters = one_of(entropy, &["[]", r#"[{"exact":{"type":"lead"}}]"#]);
    Started {
        subscription: cluster
            .subscribe_later(START + number, filters, from, ordered)
            .await,
        at,
        ends,
    }
}

impl Started {
    fn check(&self, cluster: &Cluster, audit: &Audit) {
        let Self {
            subscription,
            at,
            ends,
        } = self;
        let wants =
            |event: &Event| event.tenant() == Some("acme") && subscription.filters.matches(event);
        let found = written(audit, subscription.id);
        let expected = match at {
            Some(at) => places(cluster, *at, wants),
            // From its first event on, every one; and none that was there before.
            None => {
                let first = |partition: u32| {
                    let own = found.range((partition, 0)..(partition + 1, 0)).next();
                    own.map_or(i64::MAX, |(_, offset)| *offset)
                };
                for (partition, end) in (0..PARTITIONS).zip(ends) {
                    assert!(
                        first(partition) >= *end,
                        "{partition} begins before its end"
                    );
                }
                let all = places(cluster, 0, wants);
                all.into_iter()
                    .filter(|(partition, offset)| *offset >= first(*partition))
                    .collect()
            }
        };
        let lost: Vec<_> = expected.difference(&found).collect();
        let foreign: Vec<_> = found.difference(&expected).collect();
        assert!(
            lost.is_empty() && foreign.is_empty(),
            "{}: lost {lost:?}, below the start {foreign:?}: {:?}",
            subscription.id,
            cluster.activations_of(subscription.id)
        );
        // A refusal at random, of what is not refused the next time, leaves no order.
        let mut trace = cluster.sim.trace().lines.into_iter();
        let is_fickle = trace.any(|(_, line)| line.ends_with("Produce Refused"));
        if subscription.ordered && !is_fickle {
            check_order(audit, subscription.id);
        }
    }
}

async fn survive(seed: u64) -> usize {
    let mut options = SimulationOptions::rough(seed);
    options
        .probabilities
        .retain(|(_, fault, _)| *fault != Fault::Refused);
    let mut cluster = Cluster::new(options).await;
    cluster.options.replay_rate = if seed.is_multiple_of(3) { 1_000 } else { 20 };
    cluster.commit_first_positions().await;
    subscribe(&mut cluster).await;
    let refused = &cluster.topics.deliveries;
    cluster.sim.faults().refuse_values(refused, "poison");
    let entropy = Entropy::seeded(seed);
    let began = cluster.clock.now();
    let publisher = cluster.publisher.clone();
    let publisher_entropy = entropy.fork("publisher");
    let publishing = publish(&publisher, &publisher_entropy, 250);
    let starts_entropy = entropy.fork("starts");
    let mut started = Vec::new();
    let starting = async |cluster: &mut Cluster, step: u32| {
        let step = u128::from(step);
        if step % 5 == 3 {
            started.push(begin_one(cluster, &starts_entropy, step / 5, began).await);
        }
        if below(&starts_entropy, 4) == 0 {
            cluster.sim.faults().compact(&cluster.topics.progress);
        }
    };
    rampage(&mut cluster, &entropy, publishing, starting).await;
    // Until those that crashed are missed, they own what nobody routes.
    tokio::time::sleep(Duration::from_secs(40)).await;
    cluster.settle_replays().await;
    cluster.stop_all().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    for one in &started {
        one.check(&cluster, &audit);
    }
    started
        .iter()
        .map(|one| written(&audit, one.subscription.id).len())
        .sum()
}

#[test]
fn replays_lose_nothing_and_repeat_only_what_is_dropped() {
    let seeds = seeds(20);
    let played = seeds.clone().count();
    let written: usize = seeds.map(|seed| in_paused_time(survive(seed))).sum();
    assert!(
        written > 100 * played,
        "hardly anything was replayed: {written}"
    );
}
