//! Subscriptions with a start: every event from there on, once, and in order where that is promised,
//! whatever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use runtime::clock::Entropy;
use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use runtime::log::{Headers, Position, Record};
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, ActivationKey, ControlKey, ControlObject};
use schemas::resources::{
    Endpoint, EndpointState, Quota, StartFrom, StartPosition, Subscription, SubscriptionState,
};

use super::auditor::{self, Audit};
use super::chaos::{self, Breaker, below, in_paused_time, one_of, seeds, span};
use super::{Cluster, PARTITIONS, event, event_record};

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
        let partitions = std::num::NonZeroU32::new(PARTITIONS).unwrap();
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

    /// The activations that are on `progress`, by key, as they stand at the end.
    fn activations(&self) -> BTreeMap<ActivationKey, Activation> {
        let mut all = BTreeMap::new();
        for number in 0..PARTITIONS {
            for record in self.sim.records(&self.topics.progress.partition(number)) {
                let key = record
                    .key
                    .as_deref()
                    .and_then(|key| std::str::from_utf8(key).ok());
                let Some(Ok(key)) = key.map(str::parse::<ActivationKey>) else {
                    continue;
                };
                match record.value {
                    Some(value) => all.insert(key, Activation::decode(&value).unwrap()),
                    None => all.remove(&key),
                };
            }
        }
        all
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

#[tokio::test(start_paused = true)]
async fn past_events_are_replayed_from_a_time_on_and_live_ones_go_on() {
    let mut cluster = cluster().await;
    cluster.publish_events(0..100).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let at = cluster.clock.now();
    cluster.publish_events(100..200).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.publish_events(200..300).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let audit = Audit::of(&cluster);
    assert_eq!(written(&audit, made.id).len(), 200);
    assert_eq!(audit.repeats(), 0);
    let activations = cluster.activations();
    assert_eq!(activations.len(), 4, "one for each source partition");
    assert!(activations.values().all(|activation| activation.done));
    let replayed = cluster.gauge("anabranch_router_replay_targets_total ", ROUTER);
    assert!((90..=110).contains(&replayed), "{replayed}");
}

#[tokio::test(start_paused = true)]
async fn latest_is_nothing_that_was_there_and_everything_after() {
    let mut cluster = cluster().await;
    // A router that lags: what is in the log and not routed is left out, too.
    let source = cluster.sources()[0].clone();
    cluster.publish_events(0..40).await;
    cluster.settle().await;
    cluster
        .sim
        .faults()
        .unreadable(&source, Duration::from_secs(20));
    cluster.publish_events(40..80).await;
    let ends: Vec<_> = cluster
        .sources()
        .iter()
        .map(|source| cluster.end(source))
        .collect();
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster
        .until("activated", |cluster| cluster.activations().len() == 4)
        .await;
    cluster.publish_events(80..120).await;
    cluster.settle_replays().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    let found = written(&audit, made.id);
    assert_eq!(found.len(), 40);
    for (partition, offset) in found {
        assert!(offset >= ends[usize::try_from(partition).unwrap()]);
    }
}

#[tokio::test(start_paused = true)]
async fn latest_counts_from_when_it_was_made_wherever_nobody_routes_yet() {
    let mut cluster = cluster().await;
    cluster.publish_events(0..20).await;
    cluster.settle().await;
    cluster.stop(ROUTER).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster.publish_events(20..60).await;
    cluster.start("router-2");
    cluster.settle_replays().await;
    check(&cluster, &made, made.created_at);
    assert_eq!(written(&Audit::of(&cluster), made.id).len(), 40);
}

#[tokio::test(start_paused = true)]
async fn activations_of_a_log_that_was_made_anew_are_void() {
    let mut cluster = cluster().await;
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster.publish_events(0..40).await;
    cluster.settle_replays().await;
    cluster.stop(ROUTER).await;
    // What is on record is of a longer log.
    const BEYOND: i64 = 5_000;
    for (key, activation) in cluster.activations() {
        let later = Activation {
            offset: Some(BEYOND),
            replayed_to: BEYOND,
            ..activation
        };
        let partitions = std::num::NonZeroU32::new(PARTITIONS).unwrap();
        let place = Activation::place(&later.topic, later.partition, partitions);
        let record = Record {
            topic: cluster.topics.progress.clone(),
            partition: Some(place),
            key: Some(Bytes::from(key.to_string())),
            value: Some(later.encode().into()),
            headers: Headers::default(),
        };
        cluster.publisher.write(record).await;
    }
    let group = crate::group(super::PREFIX);
    let committed = cluster.sim.committed(&group).into_iter();
    let committed = committed.map(|(partition, position)| Position {
        partition,
        offset: BEYOND,
        metadata: position.metadata,
    });
    let log = cluster.sim.process("restorer");
    let committed: Vec<_> = committed.collect();
    log.commit_for_empty_group(&group, &committed)
        .await
        .unwrap();
    cluster.start("router-2");
    cluster.publish_events(40..80).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    let lost: Vec<_> = places(&cluster, made.created_at, |_| true)
        .difference(&found)
        .copied()
        .collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let stale = |one: &Activation| one.offset == Some(BEYOND);
    assert!(!cluster.activations().values().any(stale));
}

#[tokio::test(start_paused = true)]
async fn an_ordered_replay_meets_the_live_position_without_a_seam() {
    let mut cluster = cluster().await;
    cluster.options.replay_rate = 200;
    cluster.crash(ROUTER);
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..300).await;
    let made = cluster.start_from(START, StartFrom::At(at), true).await;
    cluster.publish_events(300..600).await;
    cluster.settle_replays().await;
    cluster.publish_events(600..640).await;
    cluster.settle().await;
    check(&cluster, &made, at);
    assert!(
        cluster
            .activations()
            .values()
            .all(|activation| activation.offset.is_some())
    );
    assert_eq!(written(&Audit::of(&cluster), made.id).len(), 640);
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_where_its_last_owner_was() {
    let mut cluster = cluster().await;
    cluster.crash(ROUTER);
    cluster.options.replay_rate = 20;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        cluster.crash(&format!("router-{}", round + 1));
        cluster.start(&format!("router-{}", round + 2));
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    cluster.publish_events(400..420).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let audit = Audit::of(&cluster);
    assert!(audit.repeats() < 300, "it began anew: {}", audit.repeats());
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_a_replay_over_without_a_repeat() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 50;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.start("router-2");
    tokio::time::sleep(Duration::from_millis(900)).await;
    cluster.stop(ROUTER).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    assert_eq!(
        Audit::of(&cluster).repeats(),
        0,
        "what is in flight is awaited"
    );
}

#[tokio::test(start_paused = true)]
async fn past_events_keep_their_pace_and_hold_nobody_up() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    for number in 0..200 {
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
    }
    let before = cluster.clock.now();
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 200..220 {
        let sent = cluster.clock.now();
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
        let (_, _) = (sent, number);
        let both = |cluster: &Cluster| {
            let audit = Audit::of(cluster);
            let place = (0, i64::try_from(number).unwrap());
            [id(1), made.id]
                .iter()
                .all(|to| written(&audit, *to).contains(&place))
        };
        cluster.until("live", both).await;
        assert!(
            cluster.clock.now() - sent <= 20,
            "a live event waited for past ones"
        );
    }
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let took = cluster.clock.now() - before;
    assert!((19_000..40_000).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_a_replay_and_a_deletion_takes_its_records_back() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    // More than an ordered replay takes to meet the live position at once.
    for number in 0..700 {
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
    }
    let ordered = cluster.start_from(START, StartFrom::At(at), true).await;
    let made = cluster
        .start_from(START + 1, StartFrom::At(at), false)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (subscription, state) in [
        (&ordered, SubscriptionState::Paused),
        (&made, SubscriptionState::Paused),
        (&ordered, SubscriptionState::Active),
        (&made, SubscriptionState::Active),
    ] {
        let changed = Subscription {
            state,
            start: Some(StartPosition {
                from: StartFrom::At(at),
                ended: true,
            }),
            updated_at: 1,
            ..subscription.clone()
        };
        cluster.put(changed).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.settle_replays().await;
    let so_far = Audit::of(&cluster);
    for subscription in [&ordered, &made] {
        let replayed = written(&so_far, subscription.id).len();
        assert!((1..200).contains(&replayed), "{replayed}");
    }
    cluster.publish_events(700..740).await;
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    for subscription in [&ordered, &made] {
        let more = written(&audit, subscription.id).len() - written(&so_far, subscription.id).len();
        assert_eq!(more, 40, "it is live again");
    }
    cluster.delete(START).await;
    cluster.delete(START + 1).await;
    cluster
        .until("taken back", |cluster| cluster.activations().is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_of_the_range_is_said_and_is_no_incident() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    cluster.settle().await;
    let source = cluster.sources()[0].clone();
    cluster.sim.faults().delete_before(&source, 10);
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert_eq!(found.len(), 70);
    assert_eq!(
        cluster.gauge("anabranch_router_replay_cut_total ", ROUTER),
        1
    );
    assert_eq!(
        cluster.gauge("anabranch_router_incidents_total ", ROUTER),
        0
    );
    assert!(Audit::of(&cluster).dead.is_empty());
    let cut: Vec<_> = cluster
        .activations()
        .into_values()
        .filter_map(|one| one.log_start)
        .collect();
    assert_eq!(cut, [10]);
}

#[tokio::test(start_paused = true)]
async fn retention_that_overtakes_a_replay_lets_it_go_on_where_the_log_begins() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 1;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    cluster.settle().await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let source = cluster.sources()[0].clone();
    cluster.stop(ROUTER).await;
    cluster.sim.faults().delete_before(&source, 50);
    cluster.options.replay_rate = 1_000;
    cluster.start("router-2");
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert!((350..400).contains(&found.len()), "{}", found.len());
    assert_eq!(
        cluster.gauge("anabranch_router_replay_cut_total ", "router-2"),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn past_events_wait_while_their_endpoint_is_not_attempted() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    cluster.settle().await;
    let model = cluster.subscriptions[&id(1)].clone();
    let of_start = schemas::ids::EndpointId::from_bits(START);
    let mut endpoint = Endpoint::new(
        of_start,
        model.tenant.clone(),
        Quota::of_endpoint(of_start),
        model.placement,
    );
    endpoint.state = EndpointState::Disabled;
    cluster
        .control(&ControlObject::Endpoint(Box::new(endpoint.clone())))
        .await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.publish_events(80..84).await;
    cluster.settle().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert_eq!(found.len(), 4, "what is live is not held back");
    endpoint.state = EndpointState::Active;
    cluster
        .control(&ControlObject::Endpoint(Box::new(endpoint)))
        .await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
}

#[tokio::test(start_paused = true)]
async fn a_past_event_that_the_log_refuses_is_a_dead_letter_and_the_others_go_on() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    for number in 0..20 {
        let data = if number == 7 { "poison" } else { "data" };
        cluster
            .publish(0, &event("acme", "lead", number, data))
            .await;
    }
    let mut junk = event_record(
        &cluster.topics.events,
        0,
        &event("acme", "lead", 20, "data"),
    );
    junk.headers = Headers::default();
    cluster.publisher.write(junk).await;
    cluster.settle().await;
    let dead = Audit::of(&cluster).dead.len();
    cluster
        .sim
        .faults()
        .refuse_values(&cluster.topics.deliveries, "poison");
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.settle_replays().await;
    let audit = Audit::of(&cluster);
    check(&cluster, &made, at);
    assert_eq!(
        audit.dead.len(),
        dead + 1,
        "what cannot be read was a dead letter before"
    );
    assert_eq!(audit.dead.last().unwrap().subscription, Some(made.id));
}

#[tokio::test(start_paused = true)]
async fn a_changed_filter_counts_for_what_is_not_yet_replayed() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let narrowed = Subscription {
        filters: Filters::parse_str(r#"[{"suffix":{"id":"0"}}]"#).unwrap(),
        updated_at: 1,
        ..made.clone()
    };
    cluster.put(narrowed).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id).len();
    assert!((40..250).contains(&found), "{found}");
}

#[tokio::test(start_paused = true)]
async fn an_activation_whose_writing_fails_is_written_again_with_the_same_offset() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    for fault in [Fault::LostReply, Fault::LostRequest] {
        cluster
            .sim
            .faults()
            .fail_next_of(ROUTER, Operation::Produce, fault);
    }
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.publish_events(80..160).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    assert_eq!(cluster.activations().len(), 4);
}

/// Publishes for a minute or so.
async fn publish(cluster: &super::Publisher, entropy: &Entropy, events: u64) {
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
    chaos::subscribe(&mut cluster).await;
    let refused = &cluster.topics.deliveries;
    cluster.sim.faults().refuse_values(refused, "poison");
    let entropy = Entropy::seeded(seed);
    let began = cluster.clock.now();
    let mut breaker = Breaker::new(entropy.fork("breaker"));
    breaker.start(&mut cluster);
    breaker.start(&mut cluster);
    let publisher = cluster.publisher.clone();
    let publisher_entropy = entropy.fork("publisher");
    let publishing = publish(&publisher, &publisher_entropy, 250);
    let starts_entropy = entropy.fork("starts");
    let breaking = async {
        let mut started = Vec::new();
        for step in 0..40_u128 {
            tokio::time::sleep(span(&breaker.entropy, 100, 4_000)).await;
            breaker.step(&mut cluster).await;
            if step % 5 == 3 {
                started.push(begin_one(&mut cluster, &starts_entropy, step / 5, began).await);
            }
            if below(&starts_entropy, 4) == 0 {
                cluster.sim.faults().compact(&cluster.topics.progress);
            }
        }
        started
    };
    let ((), started) = tokio::join!(publishing, breaking);
    cluster.sim.faults().heal();
    breaker.wake(&cluster, Duration::ZERO);
    breaker.start(&mut cluster);
    // Until those that crashed are missed, they own what nobody routes.
    tokio::time::sleep(Duration::from_secs(40)).await;
    cluster.settle_replays().await;
    for name in cluster.routers.keys().cloned().collect::<Vec<_>>() {
        cluster.stop(&name).await;
    }
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
