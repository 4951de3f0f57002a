//! Units by example: who joins, how they are named and written, and how they come apart.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{AttemptState, DeliveryRecord, Origin, Target};
use serde_json::json;

use super::*;
use crate::delivery::Response;
use crate::ledger::Place;
use crate::work::{Loaded, Meter};

fn item(number: i64) -> Delivery {
    let target = Target::new(SubscriptionId::from_bits(1), EndpointId::from_bits(2));
    let data = Bytes::from(json!({"email": format!("m{number}")}).to_string());
    let record = DeliveryRecord {
        origin: Origin {
            topic: "events".into(),
            partition: 0,
            offset: number,
            index: 0,
        },
        router_position: None,
        accepted_at: 0,
        control_offset: 0,
        event: Event::builder(&format!("e{number}"), "/s", "t")
            .data("application/json", data)
            .build()
            .unwrap(),
        targets: vec![target.clone()],
    };
    Delivery {
        loaded: Loaded::new(record, 100, [Meter::default(), Meter::default()]),
        source: 0,
        place: Place {
            offset: number,
            index: 0,
        },
        target,
        state: AttemptState::default(),
        queued_at: tokio::time::Instant::now(),
        line: None,
        company: Vec::new(),
        is_piece: false,
        sent: None,
    }
}

fn unit(numbers: std::ops::Range<i64>) -> Delivery {
    Delivery::together(numbers.map(item).collect()).unwrap()
}

fn batch(items: u32, bytes: u32) -> Batch {
    Batch {
        max_items: NonZeroU32::new(items).unwrap(),
        max_bytes: NonZeroU32::new(bytes).unwrap(),
        max_wait_ms: 0,
        format: BatchFormat::CloudEvents,
    }
}

#[test]
fn a_unit_takes_as_many_as_its_items_and_bytes_allow() {
    let check = |items, bytes, items_max, expected: usize| {
        let mut unit = item(0);
        let mut room = Room::beside(&unit, &batch(items, bytes), items_max);
        for number in 1..20 {
            let next = item(number);
            if room.take(&unit, &next) {
                unit.company.push(next);
            }
        }
        assert_eq!(unit.items().count(), expected);
        let body = body(&unit, BatchFormat::CloudEvents);
        assert!(expected == 1 || body.bytes.len() <= usize::try_from(bytes).unwrap());
    };
    check(5, 100_000, 100, 5);
    check(50, 100_000, 3, 3);
    check(50, 1, 100, 1);
    check(50, 500, 100, 4);
    let mut other = item(1);
    other.target.endpoint = EndpointId::from_bits(9);
    let mut room = Room::beside(&item(0), &batch(5, 100_000), 100);
    assert!(!room.take(&item(0), &other), "of another endpoint");
    let mut piece = item(2);
    piece.is_piece = true;
    assert!(!room.take(&item(0), &piece), "a piece stays apart");
    assert!(Room::beside(&piece, &batch(5, 100_000), 100).is_full());
}

#[test]
fn a_request_is_named_by_what_it_carries() {
    // WH-1
    assert_eq!(id(&item(1)), own_id(&item(1)));
    let mut backwards = unit(0..3).into_items();
    backwards.reverse();
    let backwards = Delivery::together(backwards).unwrap();
    assert_eq!(id(&unit(0..3)), id(&backwards));
    assert_ne!(id(&unit(0..3)), id(&unit(0..4)));
    assert_ne!(id(&unit(0..2)), own_id(&item(0)));
}

#[test]
fn bodies_are_arrays_of_events_or_of_their_data() {
    let events = body(&unit(0..2), BatchFormat::CloudEvents);
    let events: serde_json::Value = serde_json::from_slice(&events.bytes).unwrap();
    assert_eq!(
        (&events[0]["id"], &events[1]["id"]),
        (&json!("e0"), &json!("e1"))
    );
    let data = body(&unit(0..2), BatchFormat::Array);
    assert_eq!(data.bytes, r#"[{"email":"m0"},{"email":"m1"}]"#);
}

fn answer(status: u16, body: &serde_json::Value) -> Answer {
    Ok(Response {
        status,
        retry_after: None,
        left: None,
        content_type: None,
        body: Bytes::from(body.to_string()),
        body_bytes_read: 0,
        truncated: false,
        ending: None,
    })
}

#[test]
fn each_item_has_its_own_verdict_where_a_grammar_says_so() {
    // rule 15
    let grammar = ResponseGrammar::read(&json!({
        "accepted": "/ok",
        "lists": [{"at": "/bad", "id": ""}, {"at": "/later", "id": "", "default_code": "x",
                   "retryable": ["x"]}],
        "item_id": "/email",
    }));
    let grammar = grammar.unwrap();
    let said = |body| {
        said(
            &unit(0..3),
            Some(&grammar),
            &answer(200, &body),
            Verdict::Delivered,
        )
    };
    let rejected = Verdict::Rejected {
        reason: Reason::Item,
    };
    assert_eq!(
        said(json!({"ok": 1, "bad": ["m1"], "later": ["m2"]})),
        Said::Items(vec![Verdict::Delivered, rejected, again(Reason::Item)])
    );
    let unsaid = again(Reason::NotSaid);
    assert_eq!(said(json!({"ok": 2})), Said::Items(vec![unsaid; 3]));
    let whole = super::said(
        &unit(0..3),
        None,
        &answer(200, &json!({})),
        Verdict::Delivered,
    );
    assert_eq!(whole, Said::Whole(Verdict::Delivered));
}

proptest! {
    /// Halving against an endpoint that rejects whatever holds a culprit: every other item is taken
    /// exactly once, and each culprit ends alone.
    #[test]
    fn culprits_end_alone_and_all_others_are_taken_once(culprits in prop::collection::vec(any::<bool>(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let is_culprit = |item: &Delivery| culprits[usize::try_from(item.place.offset).unwrap()];
        let mut to_send = vec![unit(0..i64::try_from(culprits.len()).unwrap())];
        let mut taken = vec![0; culprits.len()];
        let mut requests = 0;
        while let Some(unit) = to_send.pop() {
            requests += 1;
            prop_assert!(requests < 4 * culprits.len());
            if !unit.items().any(is_culprit) {
                for item in unit.items() {
                    taken[usize::try_from(item.place.offset).unwrap()] += 1;
                }
            } else if let Some(halves) = halves(unit) {
                prop_assert!(halves.iter().all(|half| half.is_piece));
                to_send.extend(halves);
            }
        }
        let expected: Vec<i32> = culprits.iter().map(|culprit| i32::from(!culprit)).collect();
        prop_assert_eq!(taken, expected);
    }
}

#[test]
fn memory_is_counted_for_all_of_a_unit() {
    let one = item(0).bytes();
    assert_eq!(unit(0..5).bytes(), 5 * one);
    assert_eq!(Arc::strong_count(&unit(0..2).loaded), 1);
}
