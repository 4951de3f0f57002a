//! The index against a naive evaluator, and what changes do to it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{Placement, Quota, Subscription, SubscriptionState};

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

fn found(index: &Index, event: &Event) -> BTreeSet<u128> {
    let all: Vec<u128> = index
        .matches(event)
        .map(|entry| entry.subscription.bits())
        .collect();
    let unique: BTreeSet<u128> = all.iter().copied().collect();
    assert_eq!(all.len(), unique.len(), "a subscription matched twice");
    unique
}

#[test]
fn an_event_without_a_tenant_or_of_an_unknown_one_matches_nothing() {
    let mut index = Index::new();
    put(&mut index, &subscription(1, "acme", "[]"));
    assert_eq!(found(&index, &event("acme", "a", "s")), BTreeSet::from([1]));
    assert_eq!(found(&index, &event("other", "a", "s")), BTreeSet::new());
    let bare = Event::builder("1", "/shop", "a").build().unwrap();
    assert_eq!(found(&index, &bare), BTreeSet::new());
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
    assert_eq!(found(&index, &event("acme", "a", "s")), BTreeSet::new());
    assert_eq!(found(&index, &event("acme", "c", "s")), BTreeSet::from([1]));
    put(&mut index, &of("[]"));
    assert_eq!(found(&index, &event("acme", "a", "s")), BTreeSet::from([1]));
    assert_eq!(index.len(), 1);
    delete(&mut index, 1);
    assert!(index.is_empty() && index.tenant("acme").is_none());
}

#[test]
fn who_holds_a_tenant_sees_it_unchanged() {
    let mut index = Index::new();
    put(&mut index, &subscription(1, "acme", "[]"));
    let held = index.tenant("acme").unwrap().clone();
    delete(&mut index, 1);
    put(&mut index, &subscription(2, "acme", "[]"));
    let event = event("acme", "a", "s");
    let places: Vec<_> = held.matches(&event).collect();
    assert_eq!(held.entry(places[0]).unwrap().subscription.bits(), 1);
    assert_eq!(found(&index, &event), BTreeSet::from([2]));
}

fn filter() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["type", "subject", "source", "missing"]);
    let text = prop::sample::select(vec!["a", "b", "ab", "ba", "/shop"]);
    let dialect = prop::sample::select(vec!["exact", "prefix", "suffix"]);
    let leaf = (dialect, name, text)
        .prop_map(|(dialect, name, text)| format!(r#"{{"{dialect}":{{"{name}":"{text}"}}}}"#));
    leaf.prop_recursive(3, 12, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..3).prop_map(|all| all.join(","));
        prop_oneof![
            several
                .clone()
                .prop_map(|all| format!(r#"{{"all":[{all}]}}"#)),
            several.prop_map(|any| format!(r#"{{"any":[{any}]}}"#)),
            inner.prop_map(|not| format!(r#"{{"not":{not}}}"#)),
        ]
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
    let filters =
        prop::collection::vec(filter(), 0..3).prop_map(|all| format!("[{}]", all.join(",")));
    prop_oneof![
        4 => (0..8_u128, tenant, filters, prop::bool::weighted(0.2))
            .prop_map(|(id, tenant, filters, paused)| Step::Put { id, tenant, filters, paused }),
        1 => (0..8_u128).prop_map(Step::Delete),
    ]
}

proptest! {
    /// The index against looking at every subscription.
    #[test]
    fn the_index_finds_what_a_naive_search_finds(
        steps in prop::collection::vec(step(), 1..24),
        ty in prop::sample::select(vec!["a", "b", "ab", "c"]),
        subject in prop::sample::select(vec!["a", "b", "ba"]),
    ) {
        let mut index = Index::new();
        let mut naive: Vec<Subscription> = Vec::new();
        for step in steps {
            match step {
                Step::Put { id, tenant, filters, paused } => {
                    // A subscription never changes its tenant; here the naive side allows it too.
                    let mut wanted = subscription(id, tenant, &filters);
                    if paused { wanted.state = SubscriptionState::Paused; }
                    put(&mut index, &wanted);
                    naive.retain(|other| other.id != wanted.id);
                    naive.push(wanted);
                }
                Step::Delete(id) => {
                    delete(&mut index, id);
                    naive.retain(|other| other.id.bits() != id);
                }
            }
            for tenant in ["acme", "other"] {
                let event = event(tenant, ty, subject);
                let expected: BTreeSet<u128> = naive
                    .iter()
                    .filter(|one| one.tenant.as_str() == tenant)
                    .filter(|one| one.state == SubscriptionState::Active)
                    .filter(|one| one.filters.matches(&event))
                    .map(|one| one.id.bits())
                    .collect();
                prop_assert_eq!(found(&index, &event), expected);
            }
        }
    }
}
