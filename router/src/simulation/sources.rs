//! Topics of the user's own: split arrays under crashes, first positions, and sources that come and
//! go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use runtime::clock::Entropy;
use runtime::log::simulated::SimulationOptions;
use runtime::log::{Headers, Partition, Record, TopicName, TopicSettings};
use schemas::ids::{Mark, SourceId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject, DeadLetter, DeadReason, DeliveryRecord};
use schemas::resources::{Source, SubscriptionState};
use serde_json::{Value, json};

use super::chaos::{below, in_paused_time, one_of, rampage, seeds, span, subscribe};
use super::{Cluster, PARTITIONS, PATIENCE, PREFIX, Publisher, event};
use crate::group;
use crate::routing::RECORD_TARGETS_MAX;

const TOPIC: &str = "shop.orders";
const SPLIT_PARTITIONS: u32 = 3;
const RECORDS: u64 = 120;

fn topic() -> TopicName {
    TopicName::new(TOPIC)
}

async fn create(cluster: &Cluster) {
    let settings = TopicSettings {
        name: topic(),
        partitions: SPLIT_PARTITIONS,
        replication: 0,
        compact: false,
        retention: Duration::from_secs(14 * 24 * 3600),
        max_record_bytes: 4 << 20,
        append_time: false,
    };
    let settings = [settings];
    while cluster.outside.create_topics(&settings).await.is_err() {}
}

fn source(cluster: &Cluster, id: u128, more: &Value) -> Source {
    let mut object = json!({
        "version": 1, "kind": "source", "id": SourceId::from_bits(id), "tenant": "acme",
        "topic": TOPIC, "format": "json", "event": { "type": { "pointer": "/kind" } },
        "created_at": cluster.clock.now(), "updated_at": cluster.clock.now(),
    });
    for (name, value) in more.as_object().unwrap() {
        object[name] = value.clone();
    }
    match ControlObject::decode(object.to_string().as_bytes()) {
        Ok(ControlObject::Source(source)) => *source,
        other => panic!("{other:?}"),
    }
}

async fn put(cluster: &Cluster, source: &Source) {
    let object = ControlObject::Source(Box::new(source.clone()));
    cluster.control(&object).await;
}

async fn delete(cluster: &Cluster, source: &Source) {
    cluster
        .publisher
        .write(Record {
            topic: cluster.topics.control.clone(),
            partition: Some(0),
            key: Some(ControlKey::Source(source.id).to_string().into()),
            value: None,
            headers: Headers::default(),
        })
        .await;
}

async fn write(publisher: &Publisher, partition: u32, value: &str) -> i64 {
    publisher
        .write(Record {
            topic: topic(),
            partition: Some(partition),
            key: None,
            value: Some(Bytes::from(value.to_owned())),
            headers: Headers::default(),
        })
        .await
}

fn places() -> impl Iterator<Item = Partition> {
    (0..SPLIT_PARTITIONS).map(|number| topic().partition(number))
}

/// Waits until everything in the topic is routed and committed.
async fn settle(cluster: &Cluster) {
    cluster
        .until("the source is routed", |cluster| {
            places().all(|at| cluster.committed(&at).unwrap_or(0) >= cluster.end(&at))
        })
        .await;
}

/// A record's partition, offset and item.
type Place = (u32, i64, u32);

/// What is in the log of the source's events.
#[derive(Default)]
struct Found {
    /// How often a dispatcher would send each target.
    sent: BTreeMap<(Place, SubscriptionId), usize>,
    types: BTreeMap<Place, String>,
    /// Dead letters for a target.
    refused: BTreeSet<(Place, SubscriptionId)>,
    /// Those for what could not be read, with their bytes.
    poison: BTreeMap<Place, Option<Bytes>>,
    /// Ranges that were not read.
    lost: usize,
    repeats: usize,
}

fn look(cluster: &Cluster) -> Found {
    let mut found = Found::default();
    for number in 0..PARTITIONS {
        // Every mark is remembered: nothing here outlives rule 3's ten minutes.
        let mut marks: HashMap<Mark, ()> = HashMap::new();
        for record in cluster
            .sim
            .records(&cluster.topics.deliveries.partition(number))
        {
            let value = record.value.as_ref().unwrap();
            let decoded = DeliveryRecord::decode(record.headers.iter(), value).unwrap();
            if &*decoded.origin.topic != TOPIC {
                continue;
            }
            let origin = &decoded.origin;
            assert!(
                decoded
                    .router_position
                    .is_none_or(|position| position <= origin.offset),
                "rule 3"
            );
            assert_eq!(decoded.event.tenant(), Some("acme"));
            let place = (origin.partition, origin.offset, origin.index);
            found.types.insert(place, decoded.event.ty().to_owned());
            for (mark, target) in decoded.marks().zip(&decoded.targets) {
                let count = found.sent.entry((place, target.subscription)).or_default();
                let is_new = marks.insert(mark, ()).is_none();
                *count += usize::from(is_new);
                found.repeats += usize::from(!is_new);
            }
        }
        for record in cluster.sim.records(&cluster.topics.dead.partition(number)) {
            let headers: Vec<_> = record.headers.iter().collect();
            let (letter, _) =
                DeadLetter::decode(headers.into_iter(), record.value.as_ref()).unwrap();
            found.bury(letter, record.value);
        }
    }
    found
}

impl Found {
    fn bury(&mut self, letter: DeadLetter, value: Option<Bytes>) {
        let (topic, partition, offset, index) = letter.origin;
        if topic != TOPIC {
            return;
        }
        let place = (partition, offset, index);
        match (letter.reason, letter.subscription) {
            (DeadReason::Undecodable, _) => {
                assert_eq!(letter.tenant.unwrap().as_str(), "acme");
                assert!(letter.detail.is_some(), "rule 16");
                self.poison.insert(place, value);
            }
            (DeadReason::RetentionLost, _) => self.lost += 1,
            (_, subscription) => drop(self.refused.insert((place, subscription.unwrap()))),
        }
    }

    /// The places that were routed to the subscription of `id`, in order.
    fn places_of(&self, id: u128) -> Vec<Place> {
        let id = SubscriptionId::from_bits(id);
        let sent = self.sent.keys().filter(|(_, to)| *to == id);
        sent.map(|(place, _)| *place).collect()
    }
}

/// Every item of every record reached whom it is for, once, or left a dead letter.
fn check(cluster: &Cluster, found: &Found) {
    let mut allowed = BTreeSet::new();
    for at in places() {
        for record in cluster.sim.records(&at) {
            let value = record.value.as_ref().unwrap();
            let document: Option<Value> = serde_json::from_slice(value).ok();
            let items = document
                .as_ref()
                .and_then(|document| document["items"].as_array());
            let Some(items) = items else {
                let poison = &found.poison[&(at.number, record.offset, 0)];
                assert_eq!(poison.as_ref(), Some(value), "rule 16");
                continue;
            };
            for (index, item) in items.iter().enumerate() {
                let place = (at.number, record.offset, u32::try_from(index).unwrap());
                let Some(kind) = item["kind"].as_str() else {
                    let bytes = found.poison[&place].as_ref().unwrap();
                    assert_eq!(serde_json::from_slice::<Value>(bytes).unwrap(), *item);
                    continue;
                };
                assert!(!found.poison.contains_key(&place), "{place:?}");
                let event = event("acme", kind, 0, "");
                for subscription in cluster.subscriptions.values() {
                    let is_wanted = subscription.tenant.as_str() == "acme"
                        && subscription.filters.matches(&event);
                    if !is_wanted {
                        continue;
                    }
                    let key = (place, subscription.id);
                    let must = subscription.state == SubscriptionState::Active
                        && subscription.updated_at == 0;
                    let is_there = found.sent.contains_key(&key) || found.refused.contains(&key);
                    assert!(is_there || !must, "{key:?} is lost");
                    allowed.insert(key);
                }
            }
        }
    }
    for (key, count) in &found.sent {
        assert_eq!(*count, 1, "{key:?} is sent so often");
        assert!(allowed.contains(key), "{key:?} was wanted by nobody");
    }
}

fn item(entropy: &Entropy) -> Value {
    let data = if below(entropy, 40) == 0 {
        "poison"
    } else {
        "data"
    };
    match below(entropy, 8) {
        0 => json!({ "n": 1 }),
        1 => json!(7),
        _ => json!({ "kind": one_of(entropy, &["lead", "stock", "other"]), "data": data }),
    }
}

async fn publish(publisher: &Publisher, entropy: &Entropy) {
    for _ in 0..RECORDS {
        tokio::time::sleep(span(entropy, 0, 800)).await;
        let partition = u32::try_from(below(entropy, u64::from(SPLIT_PARTITIONS))).unwrap();
        let items: Vec<Value> = (0..below(entropy, 7)).map(|_| item(entropy)).collect();
        let value = match below(entropy, 25) {
            0 => "{".to_owned(),
            1 => json!({ "item": items }).to_string(),
            _ => json!({ "items": items }).to_string(),
        };
        write(publisher, partition, &value).await;
    }
}

async fn survive(seed: u64) -> usize {
    let mut cluster = Cluster::new(SimulationOptions::rough(seed)).await;
    cluster.commit_first_positions().await;
    create(&cluster).await;
    subscribe(&mut cluster).await;
    let more = json!({ "split": "/items", "start": "earliest" });
    put(&cluster, &source(&cluster, 1, &more)).await;
    let deliveries = cluster.topics.deliveries.clone();
    cluster.sim.faults().refuse_values(&deliveries, "poison");
    let entropy = Entropy::seeded(seed);
    let publisher = cluster.publisher.clone();
    let publisher_entropy = entropy.fork("publisher");
    let publishing = publish(&publisher, &publisher_entropy);
    rampage(&mut cluster, &entropy, publishing, async |_, _| {}).await;
    settle(&cluster).await;
    cluster.stop_all().await;
    let found = look(&cluster);
    check(&cluster, &found);
    assert_eq!(found.lost, 0, "a new source is no incident");
    found.repeats
}

#[test]
fn a_split_source_loses_no_item_and_repeats_only_what_is_dropped() {
    let seeds = seeds(15);
    let whole = seeds.end - seeds.start > 5;
    let repeats: usize = seeds.map(|seed| in_paused_time(survive(seed))).sum();
    assert!(
        repeats > 0 || !whole,
        "the faults made no router repeat anything"
    );
}

async fn cluster() -> Cluster {
    let mut cluster = Cluster::new(SimulationOptions::default()).await;
    cluster.commit_first_positions().await;
    cluster.subscribe(1, "acme", "[]").await;
    cluster
}

const LEAD: &str = r#"{"kind":"lead"}"#;

fn metric(cluster: &Cluster, name: &str) -> String {
    let metrics = cluster.routers["router-1"].metrics.render();
    let line = metrics.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_new_source_starts_where_it_says_and_no_incident_is_made() {
    for (start, from) in [("latest", 3), ("earliest", 0)] {
        let mut cluster = cluster().await;
        create(&cluster).await;
        for _ in 0..3 {
            write(&cluster.publisher, 0, LEAD).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        put(&cluster, &source(&cluster, 1, &json!({ "start": start }))).await;
        // Before any router has seen the source, and still its own.
        for _ in 3..5 {
            write(&cluster.publisher, 0, LEAD).await;
        }
        cluster.start("router-1");
        settle(&cluster).await;
        let found = look(&cluster);
        let expected: Vec<Place> = (from..5).map(|offset| (0, offset, 0)).collect();
        assert_eq!(found.places_of(1), expected, "{start}");
        assert_eq!(found.lost, 0);
        assert_eq!(metric(&cluster, "anabranch_router_incidents_total"), "0");
        let committed = cluster.sim.committed(&group(PREFIX));
        let first = &committed[&topic().partition(1)];
        assert_eq!(first.metadata, SourceId::from_bits(1).to_string());
        cluster.stop("router-1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_missing_stops_nobody_and_is_read_when_it_appears() {
    let mut cluster = cluster().await;
    put(&cluster, &source(&cluster, 1, &json!({}))).await;
    cluster.start("router-1");
    cluster.publish(0, &event("acme", "a", 1, "data")).await;
    cluster.settle().await;
    cluster
        .until("said", |cluster| {
            metric(cluster, "anabranch_router_missing_source_topics") == "1"
        })
        .await;
    create(&cluster).await;
    write(&cluster.publisher, 2, LEAD).await;
    settle(&cluster).await;
    assert_eq!(look(&cluster).places_of(1), [(2, 0, 0)]);
    assert_eq!(
        metric(&cluster, "anabranch_router_missing_source_topics"),
        "0"
    );
    assert_eq!(metric(&cluster, "anabranch_router_source_topics"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_may_not_be_committed_is_set_aside_and_tried_again() {
    let mut cluster = cluster().await;
    create(&cluster).await;
    cluster.sim.faults().forbid(&topic());
    let more = json!({ "start": "earliest" });
    put(&cluster, &source(&cluster, 1, &more)).await;
    cluster.start("router-1");
    // The router goes on with everything else.
    for partition in 0..PARTITIONS {
        let id = u64::from(partition);
        cluster
            .publish(partition, &event("acme", "a", id, "data"))
            .await;
    }
    cluster.settle().await;
    let set_aside = "anabranch_router_source_topics_set_aside_total";
    cluster
        .until("set aside", |cluster| metric(cluster, set_aside) == "1")
        .await;
    assert_eq!(
        metric(&cluster, "anabranch_router_missing_source_topics"),
        "1"
    );
    write(&cluster.publisher, 0, LEAD).await;
    cluster.publish(1, &event("acme", "a", 9, "data")).await;
    cluster.settle().await;
    cluster.sim.faults().heal();
    settle(&cluster).await;
    assert_eq!(look(&cluster).places_of(1), [(0, 0, 0)]);
    assert_eq!(metric(&cluster, set_aside), "1");
    assert_eq!(
        metric(&cluster, "anabranch_router_missing_source_topics"),
        "0"
    );
    cluster.stop("router-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_record_of_too_many_targets_ends_in_dead_letters_and_the_next_goes_on() {
    const SUBSCRIPTIONS: usize = 600;
    let mut cluster = cluster().await;
    create(&cluster).await;
    for id in 2..=SUBSCRIPTIONS as u128 {
        cluster.subscribe(id, "acme", "[]").await;
    }
    let more = json!({ "split": "/items" });
    put(&cluster, &source(&cluster, 1, &more)).await;
    cluster.options.window.targets = 64_000;
    cluster.options.window.bytes = 8 << 20;
    cluster.start("router-1");
    let items = vec![json!({ "kind": "lead" }); 420];
    let value = json!({ "items": items }).to_string();
    write(&cluster.publisher, 0, &value).await;
    write(&cluster.publisher, 0, r#"{"items":[{"kind":"lead"}]}"#).await;
    settle(&cluster).await;
    let found = look(&cluster);
    let begun = RECORD_TARGETS_MAX.div_ceil(SUBSCRIPTIONS);
    assert_eq!(found.sent.len(), (begun + 1) * SUBSCRIPTIONS, "rule 8");
    assert_eq!(found.poison.len(), items.len() - begun, "rule 16");
    assert!(found.sent.values().all(|count| *count == 1));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_deleted_is_given_up_and_another_starts_by_itself() {
    let mut cluster = cluster().await;
    create(&cluster).await;
    let first = source(&cluster, 1, &json!({ "start": "earliest" }));
    put(&cluster, &first).await;
    write(&cluster.publisher, 0, LEAD).await;
    cluster.start("router-1");
    settle(&cluster).await;
    delete(&cluster, &first).await;
    cluster
        .until("given up", |cluster| {
            let owners = cluster.sim.owners(&group(PREFIX));
            owners.keys().all(|partition| partition.topic != topic())
        })
        .await;
    assert_eq!(
        cluster.committed(&topic().partition(0)),
        Some(1),
        "positions are kept"
    );
    write(&cluster.publisher, 0, LEAD).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(look(&cluster).places_of(1), [(0, 0, 0)]);
    let second = source(&cluster, 2, &json!({ "start": "latest" }));
    put(&cluster, &second).await;
    write(&cluster.publisher, 0, LEAD).await;
    settle(&cluster).await;
    assert_eq!(look(&cluster).places_of(1), [(0, 0, 0), (0, 2, 0)]);
    assert_eq!(metric(&cluster, "anabranch_router_incidents_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_source_in_the_place_of_another_takes_no_position_over() {
    let mut cluster = cluster().await;
    create(&cluster).await;
    let first = source(&cluster, 1, &json!({ "start": "earliest" }));
    put(&cluster, &first).await;
    cluster.start("router-1");
    for _ in 0..3 {
        write(&cluster.publisher, 0, LEAD).await;
    }
    settle(&cluster).await;
    // Both at once: the group hears of no change.
    delete(&cluster, &first).await;
    let again = json!({ "start": "earliest", "event": { "type": { "constant": "again" } } });
    put(&cluster, &source(&cluster, 2, &again)).await;
    cluster
        .until("read again", |cluster| {
            look(cluster)
                .types
                .values()
                .filter(|ty| *ty == "again")
                .count()
                == 3
        })
        .await;
    let label = SourceId::from_bits(2).to_string();
    cluster
        .until("committed", |cluster| {
            let committed = cluster.sim.committed(&group(PREFIX));
            let position = &committed[&topic().partition(0)];
            position.offset == 3 && position.metadata == label
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_decoding_is_for_what_is_not_begun() {
    let mut cluster = cluster().await;
    create(&cluster).await;
    let mut source = source(&cluster, 1, &json!({}));
    put(&cluster, &source).await;
    cluster.start("router-1");
    write(&cluster.publisher, 0, LEAD).await;
    settle(&cluster).await;
    source.event.ty = Some(schemas::resources::Expression::Constant("other".to_owned()));
    put(&cluster, &source).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    write(&cluster.publisher, 0, LEAD).await;
    settle(&cluster).await;
    let types: Vec<String> = look(&cluster).types.into_values().collect();
    assert_eq!(types, ["lead", "other"]);
    assert_eq!(cluster.committed(&topic().partition(0)), Some(2));
}

#[tokio::test(start_paused = true)]
async fn one_record_of_many_items_is_written_within_the_window() {
    let mut cluster = cluster().await;
    create(&cluster).await;
    put(
        &cluster,
        &source(&cluster, 1, &json!({ "split": "/items" })),
    )
    .await;
    cluster.start("router-1");
    let items = vec![json!({ "kind": "lead" }); 2_000];
    write(
        &cluster.publisher,
        0,
        &json!({ "items": items }).to_string(),
    )
    .await;
    write(&cluster.publisher, 0, r#"{"items":[]}"#).await;
    tokio::time::timeout(PATIENCE, settle(&cluster))
        .await
        .unwrap();
    let found = look(&cluster);
    assert_eq!(found.places_of(1).len(), 2_000);
    check(&cluster, &found);
    assert_eq!(found.repeats, 0);
}
