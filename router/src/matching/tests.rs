//! What becomes of single source records.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use runtime::log::{Headers, StoredRecord, TopicName};
use schemas::codec;
use schemas::event::{ACCEPTED, AttributeValue, Event};
use schemas::ids::SubscriptionId;
use schemas::records::{DeadLetter, DeadReason, DeliveryRecord, MAX_TARGETS};

use super::{Matched, Outgoing, Places, RECORD_BYTES_MAX, Refused, Unreadable, route};
use crate::index::Index;
use crate::index::tests::{put, subscription};

fn places() -> Places {
    let source = TopicName::new("t.events");
    Places {
        source_topic: Arc::from("t.events"),
        source: source.partition(3),
        deliveries: TopicName::new("t.deliveries"),
        gates: super::Gates::default(),
        dead: TopicName::new("t.dead"),
    }
}

fn stored(event: &Event) -> StoredRecord {
    let (headers, value) = codec::kafka::encode_binary(event);
    let headers = headers
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    StoredRecord {
        offset: 41,
        timestamp: 7_000,
        key: None,
        value,
        headers,
    }
}

fn event(bytes: usize) -> Event {
    let event = Event::builder("1", "/shop", "a").data("text/plain", vec![b'x'; bytes]);
    let mut event = event.build().unwrap();
    event.set_tenant("acme").unwrap();
    event
}

fn index(subscriptions: u128) -> Index {
    let mut index = Index::new();
    (0..subscriptions).for_each(|id| put(&mut index, &subscription(id, "acme", "[]")));
    index.set_control_offset(99);
    index
}

fn all(record: &StoredRecord, index: &mut Index, refused: &Refused) -> Vec<Outgoing> {
    let Matched::Wanted(mut fanout) = route(&places(), record, index, refused) else {
        return Vec::new();
    };
    std::iter::from_fn(|| fanout.next(&places(), Some(40), 1)).collect()
}

fn delivery(outgoing: &Outgoing) -> DeliveryRecord {
    DeliveryRecord::decode(
        outgoing.record.headers.iter(),
        outgoing.record.value.as_ref().unwrap(),
    )
    .unwrap()
}

fn letter(outgoing: &runtime::log::Record) -> DeadLetter {
    let headers: Vec<_> = outgoing.headers.iter().collect();
    DeadLetter::decode(headers.into_iter(), outgoing.value.as_ref())
        .unwrap()
        .0
}

#[test]
fn a_record_carries_the_event_its_origin_and_the_position() {
    let mut event = event(5);
    event
        .set_extension(ACCEPTED, AttributeValue::String("6999"))
        .unwrap();
    let out = all(&stored(&event), &mut index(1), &Refused::default());
    let record = delivery(&out[0]);
    assert_eq!(record.event, event);
    assert_eq!((record.origin.offset, record.origin.partition), (41, 3));
    assert_eq!(&*record.origin.topic, "t.events");
    assert_eq!(record.router_position, Some(40), "rule 3");
    assert_eq!((record.accepted_at, record.control_offset), (6_999, 99));
    assert_eq!(
        out[0].record.partition,
        Some(
            index(1)
                .matches(&event)
                .unwrap()
                .iter()
                .next()
                .unwrap()
                .placement
        )
    );
}

#[test]
fn a_target_of_an_ordered_subscription_carries_the_events_order_key() {
    // rule 12
    let mut index = index(2);
    let mut ordered = subscription(2, "acme", "[]");
    ordered.ordered = true;
    put(&mut index, &ordered);
    let event = event(5);
    let out = all(&stored(&event), &mut index, &Refused::default());
    let targets: Vec<_> = out.iter().flat_map(|out| delivery(out).targets).collect();
    assert_eq!(targets.len(), 3);
    for target in targets {
        let key = Some((schemas::ids::order_key(&event), 0));
        let is_ordered = target.subscription == ordered.id;
        assert_eq!(target.order, key.filter(|_| is_ordered));
    }
}

#[test]
fn a_position_beyond_the_origin_is_left_out() {
    let record = stored(&event(5));
    let Matched::Wanted(mut fanout) = route(&places(), &record, &mut index(1), &Refused::default())
    else {
        panic!("unwanted");
    };
    let out = fanout.next(&places(), Some(42), 1).unwrap();
    assert_eq!(delivery(&out).router_position, None);
}

#[test]
fn structured_and_foreign_headers_arrive_as_binary_mode() {
    let event = event(5);
    let mut structured = stored(&event);
    let (headers, value) = codec::kafka::encode_structured(&event);
    structured.headers = headers
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    structured.value = Some(value);
    let mut foreign = stored(&event);
    let pairs: Vec<_> = foreign
        .headers
        .iter()
        .chain([("x-trace", &b"1"[..])])
        .collect();
    foreign.headers = pairs.into_iter().collect();
    for record in [structured, foreign] {
        let out = all(&record, &mut index(1), &Refused::default());
        assert_eq!(delivery(&out[0]).event, event);
        assert_eq!(out[0].record.headers.get("x-trace"), None);
    }
}

#[test]
fn what_is_no_event_of_a_tenant_is_a_dead_letter_with_its_bytes() {
    let mut nameless = event(5);
    assert!(nameless.remove_extension("anabranchtenant"));
    let mut malformed = event(5);
    malformed.set_tenant("Not A Slug").unwrap();
    let mut junk = stored(&nameless);
    junk.headers = Headers::default();
    for (record, word) in [
        (stored(&nameless), "is missing"),
        (stored(&malformed), "must be"),
        (junk, "specversion"),
    ] {
        match route(&places(), &record, &mut index(1), &Refused::default()) {
            Matched::Undecodable(words) => {
                assert!(words.contains(word), "{words}");
                let unreadable = Unreadable {
                    offset: record.offset,
                    index: 0,
                    tenant: None,
                    words: &words,
                };
                let value = record.value.clone();
                let dead = unreadable.record(&places(), &record.headers, value, 5);
                assert_eq!(dead.value, record.value);
                let letter = letter(&dead);
                assert_eq!(letter.reason, DeadReason::Undecodable);
                assert_eq!(letter.origin, ("t.events".into(), 3, 41, 0));
            }
            Matched::Wanted(_) | Matched::Unwanted => panic!("{word}"),
        }
    }
}

#[test]
fn an_event_too_large_for_a_record_is_a_dead_letter_for_each_target() {
    let out = all(
        &stored(&event(RECORD_BYTES_MAX)),
        &mut index(3),
        &Refused::default(),
    );
    assert_eq!(out.len(), 3);
    for outgoing in &out {
        assert_eq!(outgoing.dead, Some(DeadReason::TooLarge), "rule 6");
        let letter = letter(&outgoing.record);
        assert_eq!(letter.tenant.unwrap().as_str(), "acme");
        assert!(letter.endpoint.is_some() && letter.delivery.is_some());
        assert!(outgoing.record.value.is_none());
    }
}

#[test]
fn a_refused_target_is_a_dead_letter_and_the_others_go_on() {
    let refused = Refused::from_iter([(
        (41, 0, SubscriptionId::from_bits(1)),
        DeadReason::Unencodable,
    )]);
    let out = all(&stored(&event(5)), &mut index(3), &refused);
    let dead: Vec<_> = out
        .iter()
        .filter(|outgoing| outgoing.dead.is_some())
        .collect();
    assert_eq!(
        letter(&dead[0].record).subscription,
        Some(SubscriptionId::from_bits(1))
    );
    assert_eq!(dead.len(), 1);
    assert_eq!(
        out.iter().map(|outgoing| outgoing.targets).sum::<usize>(),
        2
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Rule 2: at most 1,000 targets of one partition a record, each target exactly once, never
    /// more bytes than the log takes, and never more records than the bounds ask for.
    #[test]
    fn targets_are_grouped_within_the_bounds(
        subscriptions in 0_u128..7_000,
        below in prop::sample::select(vec![RECORD_BYTES_MAX, 2_000, 70_000]),
    ) {
        let mut index = index(subscriptions);
        let record = stored(&event(RECORD_BYTES_MAX.saturating_sub(below)));
        let out = all(&record, &mut index, &Refused::default());
        let mut seen = HashSet::new();
        let mut by_partition: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for outgoing in &out {
            prop_assert!(outgoing.record.len_bytes() <= RECORD_BYTES_MAX);
            let decoded = delivery(outgoing);
            prop_assert!(decoded.targets.len() <= MAX_TARGETS && !decoded.targets.is_empty());
            let partition = outgoing.record.partition.unwrap();
            by_partition.entry(partition).or_default().push(decoded.targets.len());
            for target in &decoded.targets {
                prop_assert!(seen.insert(target.subscription));
            }
        }
        prop_assert_eq!(seen.len() as u128, subscriptions);
        for sizes in by_partition.values() {
            // All but the last record of a partition are full.
            prop_assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]));
            prop_assert!(sizes.iter().rev().skip(1).all(|size| *size == sizes[0]));
        }
    }

    #[test]
    fn no_bytes_make_routing_panic(
        pairs in prop::collection::vec((".{0,12}", prop::collection::vec(any::<u8>(), 0..12)), 0..6),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        let record = StoredRecord {
            offset: 1,
            timestamp: 0,
            key: None,
            value: value.map(Bytes::from),
            headers: pairs.into_iter().collect(),
        };
        let _ = all(&record, &mut index(1), &Refused::default()).len();
    }
}
