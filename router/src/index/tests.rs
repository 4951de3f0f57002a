//! The index against a naive evaluator, and what changes do to it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{Placement, Quota, Subscription, SubscriptionState};
use serde_json::{Value, json};

use super::Index;

pub(crate) fn subscription(id: u128, tenant: &str, filters: &str) -> Subscription {
    let endpoint = EndpointId::from_bits(id + 1_000_000);
    let partitions = std::num::NonZeroU32::new(6).unwrap();
    Subscription {
        id: SubscriptionId::from_bits(id),
        tenant: tenant.parse().unwrap(),
        endpoint,
        placement: Placement::of(&Quota::of_endpoint(endpoint), partitions),
        name: None,
        filters: Filters::parse_str(filters).unwrap(),
        state: SubscriptionState::Active,
        ordered: false,
        start: None,
        transform: None,
        request: None,
        hidden: false,
        created_at: 0,
        updated_at: 0,
    }
}

pub(crate) fn put(index: &mut Index, subscription: &Subscription) {
    let object = ControlObject::Subscription(Box::new(subscription.clone()));
    index.apply(&object.key(), Some(&object));
}

fn delete(index: &mut Index, id: u128) {
    index.apply(
        &ControlKey::Subscription(SubscriptionId::from_bits(id)),
        None,
    );
}

pub(crate) fn event(tenant: &str, ty: &str, subject: &str) -> Event {
    let mut event = Event::builder("1", "/shop", ty)
        .subject(subject)
        .build()
        .unwrap();
    event.set_tenant(tenant).unwrap();
    event
}

fn found(index: &mut Index, event: &Event) -> BTreeSet<u128> {
    let matches = index.matches(event);
    let all: Vec<u128> = matches
        .iter()
        .flat_map(|matches| matches.iter())
        .map(|entry| entry.subscription.bits())
        .collect();
    let unique: BTreeSet<u128> = all.iter().copied().collect();
    assert_eq!(all.len(), unique.len(), "a subscription matched twice");
    unique
}

#[test]
fn a_hidden_subscription_matches_nothing() {
    let mut index = Index::new();
    let seen = subscription(1, "acme", "[]");
    put(&mut index, &seen);
    let hidden = Subscription {
        hidden: true,
        ..seen
    };
    put(&mut index, &hidden);
    assert!(found(&mut index, &event("acme", "a", "s")).is_empty());
}

#[test]
fn an_event_without_a_tenant_or_of_an_unknown_one_matches_nothing() {
    let mut index = Index::new();
    put(&mut index, &subscription(1, "acme", "[]"));
    assert_eq!(
        found(&mut index, &event("acme", "a", "s")),
        BTreeSet::from([1])
    );
    assert_eq!(
        found(&mut index, &event("other", "a", "s")),
        BTreeSet::new()
    );
    let bare = Event::builder("1", "/shop", "a").build().unwrap();
    assert_eq!(found(&mut index, &bare), BTreeSet::new());
}

#[test]
fn a_change_of_filters_moves_a_subscription_between_the_lists() {
    let mut index = Index::new();
    let of = |filters| subscription(1, "acme", filters);
    put(&mut index, &of(r#"[{"exact":{"type":"a"}}]"#));
    put(
        &mut index,
        &of(r#"[{"any":[{"exact":{"type":"b"}},{"exact":{"type":"c"}}]}]"#),
    );
    assert_eq!(found(&mut index, &event("acme", "a", "s")), BTreeSet::new());
    assert_eq!(
        found(&mut index, &event("acme", "c", "s")),
        BTreeSet::from([1])
    );
    put(&mut index, &of("[]"));
    assert_eq!(
        found(&mut index, &event("acme", "a", "s")),
        BTreeSet::from([1])
    );
    assert_eq!(index.len(), 1);
    delete(&mut index, 1);
    assert!(index.is_empty() && index.tenant("acme").is_none());
}

#[test]
fn who_holds_a_tenant_sees_it_unchanged() {
    let mut index = Index::new();
    put(&mut index, &subscription(1, "acme", "[]"));
    let event = event("acme", "a", "s");
    let matches = index.matches(&event).unwrap();
    let (held, place) = (matches.entries.clone(), matches.places[0]);
    delete(&mut index, 1);
    put(&mut index, &subscription(2, "acme", "[]"));
    assert_eq!(held.get(place).unwrap().subscription.bits(), 1);
    assert_eq!(found(&mut index, &event), BTreeSet::from([2]));
}

/// Dialects of the specification.
fn of_attributes() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["type", "subject", "source", "missing"]);
    let text = prop::sample::select(vec!["a", "b", "ab", "ba", "/shop", "abcdefgh"]);
    let dialect = prop::sample::select(vec!["exact", "prefix", "suffix"]);
    (dialect, name, text).prop_map(|(dialect, name, text)| json!({ dialect: { name: text } }))
}

/// Those that look for patterns, inside data, and CESQL.
fn of_our_own() -> impl Strategy<Value = Value> {
    let pattern =
        prop::sample::select(vec!["a*", "*b", "*", "*a*b*", "*bcde*", "*abcdefgh*", "ab"]);
    let name = prop::sample::select(vec!["type", "subject"]);
    let glob = (name, pattern.clone())
        .prop_map(|(name, pattern)| json!({ "anabranch-glob": { name: pattern } }));
    let scalar = prop::sample::select(vec![
        json!(1),
        json!(1.5),
        json!("a"),
        json!("abcdefgh"),
        json!(true),
        json!(null),
    ]);
    let number = prop::sample::select(vec![json!(0), json!(1), json!(1.5), json!(1e3)]);
    let bound = prop::sample::select(vec!["gt", "gte", "lt", "lte"]);
    let network = prop::sample::select(vec!["10.0.0.0/8", "10.0.0.7", "::/0", "::1"]);
    let test = prop_oneof![
        scalar.clone().prop_map(|value| json!({ "exact": value })),
        prop::collection::vec(scalar.clone(), 1..4).prop_map(|list| json!({ "in": list })),
        scalar.prop_map(|value| json!({ "anything-but": [value] })),
        pattern.prop_map(|pattern| json!({ "wildcard": pattern })),
        (number.clone(), number.clone()).prop_map(|(low, high)| json!({ "gte": low, "lt": high })),
        (bound, number).prop_map(|(bound, number)| json!({ bound: number })),
        network.prop_map(|network| json!({ "cidr": network })),
        any::<bool>().prop_map(|exists| json!({ "exists": exists })),
        Just(json!({ "prefix": "ab", "suffix": "h" })),
    ];
    let pointer = prop::sample::select(vec!["/a", "/b", "/b/c", "/a/0"]);
    let data =
        (pointer, test).prop_map(|(pointer, test)| json!({"anabranch-data": {pointer: test}}));
    let sql = prop::sample::select(vec![
        "subject = 'ab'",
        "type = 'a' AND subject LIKE 'a%'",
        "subject IN ('b', 'ba') OR source LIKE '%shop'",
        "NOT EXISTS missing",
        "missing = 'x' OR TRUE",
    ]);
    let sql = sql.prop_map(|text| json!({ "sql": text }));
    prop_oneof![1 => glob, 3 => data, 1 => sql]
}

fn filter() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![of_attributes(), of_our_own()];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            several().prop_map(|all| json!({ "all": all })),
            several().prop_map(|any| json!({ "any": any })),
            inner.prop_map(|not| json!({ "not": not })),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let tenant = prop::sample::select(vec!["acme", "other"]);
    let text = || prop::sample::select(vec!["a", "b", "ab", "ba", "c", "xabcdefghx"]);
    let data = prop::sample::select(vec![
        r#"{"a":1,"b":{"c":"ab"}}"#,
        r#"{"a":["abcdefgh",1.50,true],"b":"10.0.0.7"}"#,
        r#"{"a":[],"b":{"c":[0.5,1000,"::ffff:10.1.1.1"]}}"#,
        r#"{"a":null,"b":"abh","a":"xbcdex"}"#,
        r#"{"a":1"#,
        "[]",
    ]);
    (tenant, text(), text(), prop::option::of(data)).prop_map(|(tenant, ty, subject, data)| {
        let mut event = Event::builder("1", "/shop", ty).subject(subject);
        if let Some(data) = data {
            event = event.data("application/json", data);
        }
        let mut event = event.build().unwrap();
        event.set_tenant(tenant).unwrap();
        event
    })
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        id: u128,
        tenant: &'static str,
        filters: String,
        paused: bool,
    },
    Delete(u128),
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = prop::sample::select(vec!["acme", "other"]);
    let filters = prop::collection::vec(filter(), 0..3).prop_map(|all| json!(all).to_string());
    prop_oneof![
        4 => (0..60_u128, tenant, filters, prop::bool::weighted(0.2))
            .prop_map(|(id, tenant, filters, paused)| Step::Put { id, tenant, filters, paused }),
        1 => (0..60_u128).prop_map(Step::Delete),
    ]
}

/// Who wants `event`, by looking at every subscription.
fn naive(subscriptions: &[Subscription], event: &Event) -> BTreeSet<u128> {
    subscriptions
        .iter()
        .filter(|one| Some(one.tenant.as_str()) == event.tenant())
        .filter(|one| one.state == SubscriptionState::Active)
        .filter(|one| one.filters.matches(event))
        .map(|one| one.id.bits())
        .collect()
}

proptest! {
    /// The index against looking at every subscription.
    #[test]
    fn the_index_finds_what_a_naive_search_finds(
        steps in prop::collection::vec(step(), 1..160),
        events in prop::collection::vec(any_event(), 1..8),
    ) {
        let mut index = Index::new();
        let mut all: Vec<Subscription> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put { id, tenant, filters, paused } => {
                    // A subscription never changes its tenant; here the naive side allows it too.
                    let mut wanted = subscription(id, tenant, &filters);
                    if paused { wanted.state = SubscriptionState::Paused; }
                    put(&mut index, &wanted);
                    all.retain(|other| other.id != wanted.id);
                    all.push(wanted);
                }
                Step::Delete(id) => {
                    delete(&mut index, id);
                    all.retain(|other| other.id.bits() != id);
                }
            }
            let event = &events[number % events.len()];
            prop_assert_eq!(found(&mut index, event), naive(&all, event));
        }
        for event in &events {
            prop_assert_eq!(found(&mut index, event), naive(&all, event));
        }
        // Nothing is left of what is deleted.
        all.iter().for_each(|one| delete(&mut index, one.id.bits()));
        prop_assert!(index.is_empty());
        prop_assert!(index.tenant("acme").is_none() && index.tenant("other").is_none());
    }
}

#[test]
fn many_subscriptions_of_one_type_are_found_each_by_what_it_asks_for() {
    let filters = |id: u128| {
        let own = match id % 6 {
            0 => json!({ "exact": { "subject": format!("order-{id}") } }),
            1 => json!({ "prefix": { "subject": format!("order-{id}") } }),
            2 => json!({ "suffix": { "subject": format!("order-{id}") } }),
            3 => json!({ "anabranch-data": { "/n": { "gte": 10 * id, "lt": 10 * id + 10 } } }),
            4 => json!({ "anabranch-glob": { "subject": format!("*order-{id}*") } }),
            _ => json!({ "sql": format!("subject = 'order-{id}' OR subject = 'none'") }),
        };
        json!([{ "exact": { "type": "a" } }, own]).to_string()
    };
    let mut index = Index::new();
    let all: Vec<_> = (1_000..4_000)
        .map(|id| subscription(id, "acme", &filters(id)))
        .collect();
    all.iter().for_each(|one| put(&mut index, one));
    for id in [1_000, 1_001, 1_002, 1_003, 1_004, 1_005, 3_999] {
        let data = format!(r#"{{"n":{}.5}}"#, 10 * id);
        let event = Event::builder("1", "/shop", "a").subject(&format!("order-{id}"));
        let mut event = event.data("application/json", data).build().unwrap();
        event.set_tenant("acme").unwrap();
        let expected = naive(&all, &event);
        assert!(expected.contains(&id));
        assert_eq!(found(&mut index, &event), expected);
    }
}

#[test]
fn no_filter_and_no_event_make_the_index_panic() {
    const FILTERS: &[u8] =
        br#"[{"any":[{"anabranch-data":{"/a":{"gt":1,"in":["x",2]}}},{"sql":"id LIKE 'a%'"}]}]"#;
    const DATA: &[u8] = br#"{"a":[{"b":"\u0061"},2.5e-3,"10.0.0.1"],"c":null}"#;
    let spliced = |valid: &[u8], at: u8, rest: &[u8]| {
        let at = usize::from(at) % valid.len();
        let end = (at + rest.len()).min(valid.len());
        [&valid[..at], rest, &valid[end..]].concat()
    };
    bolero::check!()
        .with_iterations(1_000)
        .for_each(|input: &[u8]| {
            let [at, rest @ ..] = input else {
                return;
            };
            let (left, right) = rest.split_at(rest.len() / 2);
            let mut index = Index::new();
            let texts = [FILTERS.to_vec(), spliced(FILTERS, *at, left), left.to_vec()];
            let all: Vec<_> = (1..)
                .zip(&texts)
                .filter_map(|(id, text)| {
                    let filters = Filters::parse_str(&String::from_utf8_lossy(text)).ok()?;
                    let mut one = subscription(id, "acme", "[]");
                    one.filters = filters;
                    Some(one)
                })
                .collect();
            all.iter().for_each(|one| put(&mut index, one));
            for data in [DATA.to_vec(), spliced(DATA, *at, right), right.to_vec()] {
                let event = Event::builder("1", "/shop", "a").data("application/json", data);
                let mut event = event.build().unwrap();
                event.set_tenant("acme").unwrap();
                assert_eq!(found(&mut index, &event), naive(&all, &event));
            }
        });
}

#[test]
fn what_is_in_a_long_text_is_found_wherever_it_is() {
    let mut index = Index::new();
    let filters = r#"[{"anabranch-glob":{"subject":"*needle-1*"}}]"#;
    put(&mut index, &subscription(1, "acme", filters));
    for before in [0, 1, 55, 56, 57, 63, 64, 65, 128, 5_000] {
        let hay = |text: &str| "x".repeat(before) + text + &"y".repeat(100);
        let wanted = event("acme", "a", &hay("needle-1"));
        assert_eq!(found(&mut index, &wanted), BTreeSet::from([1]), "{before}");
        let other = event("acme", "a", &hay("needle-2"));
        assert_eq!(found(&mut index, &other), BTreeSet::new(), "{before}");
    }
}
