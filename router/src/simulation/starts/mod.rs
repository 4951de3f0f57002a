//! Subscriptions with a start: every event from there on, once, and in order where that is promised,
//! whatever fails.

mod activation;
mod chaos;
mod replaying;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use runtime::log::simulated::SimulationOptions;
use runtime::log::{Headers, Record};
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, ActivationKey, ControlKey};
use schemas::resources::{Quota, StartFrom, StartPosition, Subscription};

use super::auditor::{self, Audit};
use super::{Cluster, PARTITIONS, event};

const ROUTER: &str = "router-1";
const START: u128 = 100;

fn id(number: u128) -> SubscriptionId {
    SubscriptionId::from_bits(number)
}

/// A cluster with a router and a subscription that is live all the while.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new(SimulationOptions::default()).await;
    cluster.commit_first_positions().await;
    cluster.subscribe(1, "acme", "[]").await;
    cluster.start(ROUTER);
    cluster
}

impl Cluster {
    /// Adds a subscription of `acme` that starts there.
    async fn start_from(&mut self, number: u128, from: StartFrom, ordered: bool) -> Subscription {
        self.subscribe_later(number, "[]", from, ordered).await
    }

    async fn subscribe_later(
        &mut self,
        number: u128,
        filters: &str,
        from: StartFrom,
        ordered: bool,
    ) -> Subscription {
        let model = self.subscriptions[&id(1)].clone();
        let endpoint = schemas::ids::EndpointId::from_bits(number);
        let partitions = NonZeroU32::new(PARTITIONS).unwrap();
        let quota = Quota::of_endpoint(endpoint);
        let subscription = Subscription {
            id: id(number),
            endpoint,
            placement: schemas::resources::Placement::of(&quota, partitions),
            filters: Filters::parse_str(filters).unwrap(),
            start: Some(StartPosition::new(from)),
            ordered,
            created_at: self.clock.now(),
            ..model
        };
        self.put(subscription.clone()).await;
        subscription
    }

    async fn delete(&mut self, number: u128) {
        self.subscriptions.remove(&id(number));
        self.publisher
            .write(Record {
                topic: self.topics.control.clone(),
                partition: Some(0),
                key: Some(Bytes::from(
                    ControlKey::Subscription(id(number)).to_string(),
                )),
                value: None,
                headers: Headers::default(),
            })
            .await;
    }

    /// Publishes so many events, some time apart.
    async fn publish_events(&self, ids: std::ops::Range<u64>) {
        for number in ids {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let partition = u32::try_from(number % u64::from(PARTITIONS)).unwrap();
            self.publish(partition, &event("acme", "lead", number, "data"))
                .await;
        }
    }

    /// Source partitions that have an owner.
    fn owned(&self) -> usize {
        self.sim.owners(&crate::group(super::PREFIX)).len()
    }

    fn gauge(&self, name: &str, router: &str) -> i64 {
        self.shown(name, router)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// What a router shows, once it has begun.
    fn shown(&self, name: &str, router: &str) -> Option<i64> {
        let metrics = self.routers[router].metrics.render();
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Of one subscription.
    fn activations_of(&self, subscription: SubscriptionId) -> Vec<Activation> {
        let all = self.activations().into_values();
        all.filter(|one| one.subscription == subscription).collect()
    }

    /// Waits until nothing is left to replay.
    async fn settle_replays(&self) {
        let open = |cluster: &Self| {
            let open = |router: &String| cluster.shown("anabranch_router_replays ", router);
            let open = |router| open(router).unwrap_or(1);
            cluster.routers.keys().map(open).sum::<i64>()
        };
        // Gauges are shown every second, and who takes a partition over has to learn first.
        for _ in 0..30 {
            self.settle().await;
            self.until("replayed", |cluster| open(cluster) == 0).await;
            let mut stays = true;
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stays &= open(self) == 0;
            }
            if stays && self.owned() == self.sources().len() {
                return self.settle().await;
            }
        }
        panic!("replays do not settle");
    }

    /// Every record on `progress` of an activation, in the order of each partition.
    fn activation_records(&self) -> Vec<(ActivationKey, Option<Activation>)> {
        let mut all = Vec::new();
        for number in 0..PARTITIONS {
            for record in self.sim.records(&self.topics.progress.partition(number)) {
                let key = record
                    .key
                    .as_deref()
                    .and_then(|key| std::str::from_utf8(key).ok());
                let Some(Ok(key)) = key.map(str::parse::<ActivationKey>) else {
                    continue;
                };
                let activation = record.value.map(|value| Activation::decode(&value));
                all.push((key, activation.transpose().unwrap()));
            }
        }
        all
    }

    /// The activations that are on `progress`, by key, as they stand at the end.
    fn activations(&self) -> BTreeMap<ActivationKey, Activation> {
        let mut all = BTreeMap::new();
        for (key, activation) in self.activation_records() {
            match activation {
                Some(activation) => all.insert(key, activation),
                None => all.remove(&key),
            };
        }
        all
    }

    /// Writes an activation from outside, as one that comes late.
    async fn write_activation(&self, activation: &Activation) {
        let partitions = NonZeroU32::new(PARTITIONS).unwrap();
        let place = Activation::place(&activation.topic, activation.partition, partitions);
        self.publisher
            .write(Record {
                topic: self.topics.progress.clone(),
                partition: Some(place),
                key: Some(Bytes::from(activation.key().to_string())),
                value: Some(activation.encode().into()),
                headers: Headers::default(),
            })
            .await;
    }
}

/// Where the events that `wants` are, by the offset at which the time lies in each partition.
fn places(cluster: &Cluster, at: i64, wants: impl Fn(&Event) -> bool) -> BTreeSet<(u32, i64)> {
    let mut places = BTreeSet::new();
    for source in cluster.sources() {
        let records = cluster.sim.records(&source);
        let first = records.iter().position(|record| record.timestamp >= at);
        let Some(first) = first else { continue };
        for record in &records[first..] {
            if auditor::read(record).is_some_and(|event| wants(&event)) {
                places.insert((source.number, record.offset));
            }
        }
    }
    places
}

/// Where the events are that were written for a subscription, or are dead letters of it.
fn written(audit: &Audit, subscription: SubscriptionId) -> BTreeSet<(u32, i64)> {
    let dead = audit.dead_targets();
    let all = audit.written.keys().chain(&dead);
    all.filter(|(_, _, to)| *to == subscription)
        .map(|(partition, offset, _)| (*partition, *offset))
        .collect()
}

/// Every event from the start on is written once a dispatcher has dropped what it knows, none
/// below, and in order where that is promised.
fn check(cluster: &Cluster, subscription: &Subscription, at: i64) {
    let audit = Audit::of(cluster);
    audit.check(cluster);
    let tenant = Some(subscription.tenant.as_str());
    let wants = |event: &Event| event.tenant() == tenant && subscription.filters.matches(event);
    let expected = places(cluster, at, wants);
    let found = written(&audit, subscription.id);
    let lost: Vec<_> = expected.difference(&found).collect();
    let foreign: Vec<_> = found.difference(&expected).collect();
    assert!(
        lost.is_empty() && foreign.is_empty(),
        "lost {lost:?}, below the start {foreign:?}"
    );
    if subscription.ordered {
        check_order(&audit, subscription.id);
    }
}

/// Rule 12, across the seam of past and live.
fn check_order(audit: &Audit, subscription: SubscriptionId) {
    let mut last: BTreeMap<u32, i64> = BTreeMap::new();
    // What the log refused may be written by a later owner that it does not refuse it to.
    let is_refused = |event: &Event| event.data().is_some_and(|data| data == "poison".as_bytes());
    for (partition, offset, event) in audit.sent(subscription) {
        if is_refused(event) {
            continue;
        }
        let before = last.insert(partition, offset);
        assert!(
            before < Some(offset),
            "{partition}/{offset} comes after {before:?}"
        );
    }
}
