//! What answers say of chunks, by example.

use std::sync::Arc;

use bytes::Bytes;
use schemas::event::Event;
use schemas::ids::SubscriptionId;
use schemas::profile::{CHUNK_TYPE, Profile, ready};
use serde_json::json;

use super::*;
use crate::delivery::classify::{Reason, classify};
use crate::delivery::template::Requests;
use crate::delivery::{TransportError, TransportErrorKind};

fn requests() -> Arc<Requests> {
    let profile = Profile::from_yaml(ready("generic-50").unwrap()).unwrap();
    Arc::new(Requests::new(
        SubscriptionId::from_bits(1),
        profile.operations,
    ))
}

fn event(data: &Value) -> Event {
    Event::builder("c-1", "/syncs/s", CHUNK_TYPE)
        .data("application/json", Bytes::from(data.to_string()))
        .build()
        .unwrap()
}

fn chunk(operation: &str, members: usize) -> Event {
    let members: Vec<Value> = (0..members)
        .map(|at| json!({"id": format!("m{at}")}))
        .collect();
    event(&json!({
        "operation": operation, "list": "l/1", "variables": {"name": "n"}, "members": members,
    }))
}

fn asked(operation: &str, members: usize) -> Asked {
    requests().ask(&chunk(operation, members)).unwrap().1
}

fn answer(status: u16, body: &Value) -> Answer {
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

fn said(asked: &Asked, answer: &Answer) -> (Verdict, ChunkSaid) {
    let said = ChunkSaid::of(asked, answer);
    (said.verdict(classify(answer, 0)), said)
}

#[test]
fn a_chunk_becomes_the_request_of_its_operation() {
    let (rendered, asked) = requests().ask(&chunk("add", 2)).unwrap();
    assert_eq!(rendered.path, "/lists/l%2F1/members");
    assert_eq!(
        rendered.body.unwrap(),
        br#"{"members":[{"id":"m0"},{"id":"m1"}]}"#
    );
    assert_eq!(asked.chunk.count(), 2);
}

#[test]
fn what_is_no_chunk_has_no_request_and_the_reason_shows_nobody() {
    let check = |event: &Event, part: &str| {
        let error = requests().ask(event).unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Template);
        assert!(error.text.contains(part), "{error}");
        let verdict = classify(&Err(error), 0);
        let reason = Reason::Template;
        assert_eq!(verdict, Verdict::Rejected { reason });
    };
    check(&event(&json!({"somebody": 1})), "operation");
    check(&chunk("poll", 0), "no `poll`");
    let missing = json!({"operation": "remove", "list": 1, "members": [{"name": "somebody"}]});
    check(&event(&missing), "remove/body");
    let templates = serde_json::from_value(json!({"add": {"body": "{{ a ~ b }}"}})).unwrap();
    let broken = Arc::new(Requests::new(SubscriptionId::from_bits(1), templates));
    let error = broken.ask(&chunk("add", 1)).unwrap_err();
    assert!(error.text.contains("/add/body"), "{error}");
}

#[test]
fn members_have_their_own_outcomes_and_the_chunk_is_delivered() {
    // rule 15
    let failed = json!([{"index": 1, "code": "busy"}, {"index": 2, "code": "invalid"}]);
    let (verdict, said) = said(
        &asked("add", 4),
        &answer(200, &json!({"received": 4, "failed": failed})),
    );
    assert_eq!((verdict, said.count), (Verdict::Delivered, 4));
    let outcome = |index, verdict, code: &str| ItemOutcome {
        index,
        verdict,
        code: Some(code.to_owned()),
    };
    assert_eq!(
        said.items,
        [
            outcome(1, ItemResult::Retry, "busy"),
            outcome(2, ItemResult::Rejected, "invalid")
        ]
    );
}

#[test]
fn what_is_not_said_to_be_taken_is_not_confirmed() {
    let unknown = |said: &ChunkSaid| {
        let items = said.items.iter();
        items
            .filter(|item| item.verdict == ItemResult::Unknown)
            .count()
    };
    for body in [json!({"received": 2}), json!({}), json!("cut")] {
        let (verdict, said) = said(&asked("add", 3), &answer(200, &body));
        assert_eq!((verdict, unknown(&said)), (Verdict::Delivered, 3), "{body}");
    }
}

#[test]
fn a_chunk_is_refused_retried_or_lost_as_a_whole() {
    let check = |answer: &Answer, expected: Verdict| {
        let (verdict, said) = said(&asked("add", 3), answer);
        assert_eq!(verdict, expected, "{answer:?}");
        assert!(said.items.is_empty() && said.captured.is_empty());
    };
    let reason = Reason::BadRequest;
    check(
        &answer(400, &json!({"error": "no"})),
        Verdict::Rejected { reason },
    );
    let retry = |reason| Verdict::Retry {
        reason,
        retry_after: None,
        costs_attempt: true,
    };
    check(&answer(500, &json!({})), retry(Reason::ServerError));
    let timeout = Err(TransportError::new(TransportErrorKind::Timeout, "x"));
    check(&timeout, retry(Reason::Timeout));
}

#[test]
fn what_an_answer_holds_is_kept_where_it_was_taken() {
    let (verdict, taken) = said(
        &asked("create_list", 0),
        &answer(201, &json!({"id": "l-1"})),
    );
    assert_eq!((verdict, taken.count), (Verdict::Delivered, 0));
    assert_eq!(
        taken.captured,
        BTreeMap::from([("list".to_owned(), json!("l-1"))])
    );
    let (_, refused) = said(
        &asked("create_list", 0),
        &answer(422, &json!({"id": "l-1"})),
    );
    assert!(refused.captured.is_empty());
    let long = json!({"id": "x".repeat(CAPTURED_BYTES_MAX)});
    let (_, cut) = said(&asked("create_list", 0), &answer(201, &long));
    assert!(cut.captured.is_empty());
}

#[test]
fn a_report_of_many_fits_into_a_record() {
    let code = "w".repeat(256);
    let items = vec![ItemVerdict::Rejected(Some(code)); schemas::profile::CHUNK_ITEMS_MAX];
    let outcomes = outcomes(items);
    let with_words = outcomes
        .iter()
        .filter(|outcome| outcome.code.is_some())
        .count();
    assert_eq!(with_words, CODES_BYTES_MAX / 256);
    assert_eq!(outcomes.len(), schemas::profile::CHUNK_ITEMS_MAX);
    let bytes = serde_json::to_vec(&outcomes).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes}");
}
