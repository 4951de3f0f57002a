//! Answers as partners give them, grammars with faults, and bodies that nobody gives.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn grammar(value: impl std::borrow::Borrow<Value>) -> ResponseGrammar {
    ResponseGrammar::read(value.borrow()).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn braze() -> ResponseGrammar {
    grammar(json!({
        "status": {"4xx": "rejected", "429": "retry"},
        "lists": [{"at": "/errors", "index": "/index", "code": "/type"}],
    }))
}

fn iterable() -> ResponseGrammar {
    grammar(json!({
        "accepted": "/successCount",
        "lists": [
            {"at": "/invalidEmails", "id": "", "default_code": "invalid"},
            {"at": "/failedUpdates/conflictEmails", "id": "", "default_code": "conflict",
             "retryable": ["conflict"]},
            {"at": "/failedUpdates/notFoundEmails", "id": "", "default_code": "not-found"},
        ],
        "item_id": "/email",
    }))
}

fn meta() -> ResponseGrammar {
    grammar(json!({
        "received": "/num_received",
        "rejected": "/num_invalid_entries",
        "lists": [{"at": "/invalid_entry_samples", "id": ""}],
    }))
}

fn hubspot() -> ResponseGrammar {
    grammar(json!({
        "status": {"207": "delivered", "400": "rejected", "5xx": "retry"},
        "lists": [{"at": "/errors", "id": "/context/ids", "code": "/category",
                   "retryable": ["RATE_LIMITS"]}],
    }))
}

fn bloomreach() -> ResponseGrammar {
    grammar(json!({
        "lists": [{"at": "/results", "holds": "each", "success": {"at": "/success", "values": [true]},
                   "code": "/errors/0", "retryable": ["try again"]}],
    }))
}

/// `d` delivered, `r` retry, `x` rejected, `?` unknown.
fn letters(judged: &Judged) -> String {
    match judged {
        Judged::Whole(None) => "as the status".to_owned(),
        Judged::Whole(Some(meaning)) => format!("whole {meaning:?}"),
        Judged::Items(items) => items
            .iter()
            .map(|item| match item {
                ItemVerdict::Delivered => 'd',
                ItemVerdict::Retry(_) => 'r',
                ItemVerdict::Rejected(_) => 'x',
                ItemVerdict::Unknown => '?',
            })
            .collect(),
    }
}

#[track_caller]
fn check(grammar: &ResponseGrammar, status: u16, body: &Value, want: &str) {
    let judged = judge(
        grammar,
        status,
        body.to_string().as_bytes(),
        &["a", "b", "c"],
    );
    assert_eq!(letters(&judged), want, "{status} {body}");
}

#[test]
fn braze_names_failed_items_by_their_place() {
    let error = |index| json!({"type": "'external_id' is required", "input_array": "events", "index": index});
    check(
        &braze(),
        201,
        &json!({"message": "success", "events_processed": 3}),
        "ddd",
    );
    check(
        &braze(),
        201,
        &json!({"message": "success", "errors": [error(1)]}),
        "dxd",
    );
    check(
        &braze(),
        400,
        &json!({"message": "bad", "errors": [error(0), error(2)]}),
        "xrx",
    );
    check(&braze(), 400, &json!({"message": "bad"}), "whole Rejected");
    check(&braze(), 429, &json!({"errors": [error(0)]}), "whole Retry");
    check(&braze(), 503, &json!({}), "as the status");
    // Names an item that was not sent: what else it says is not to be trusted.
    check(&braze(), 201, &json!({"errors": [error(3)]}), "???");
}

#[test]
fn iterable_names_failed_items_by_id_and_counts_the_accepted() {
    let body = |accepted: u32, invalid: &[&str], conflict: &[&str]| {
        json!({"successCount": accepted, "failCount": 3 - accepted, "invalidEmails": invalid,
               "failedUpdates": {"conflictEmails": conflict, "notFoundEmails": []}})
    };
    check(&iterable(), 200, &body(3, &[], &[]), "ddd");
    check(&iterable(), 200, &body(1, &["b"], &["c"]), "dxr");
    // One failed and nobody says which.
    check(&iterable(), 200, &body(2, &[], &[]), "???");
    check(&iterable(), 200, &body(1, &["b"], &[]), "?x?");
    check(&iterable(), 200, &json!({"msg": "no counts"}), "???");
}

#[test]
fn meta_receives_less_than_was_sent_under_200() {
    let body = |received: u32, invalid: u32, samples: Value| {
        json!({"audience_id": "1", "session_id": "2", "num_received": received,
               "num_invalid_entries": invalid, "invalid_entry_samples": samples})
    };
    check(&meta(), 200, &body(3, 0, json!([])), "ddd");
    check(&meta(), 200, &body(2, 0, json!([])), "???");
    check(&meta(), 200, &body(3, 1, json!({"b": "hash"})), "dxd");
    // Samples only: more were invalid than are named.
    check(&meta(), 200, &body(3, 2, json!({"b": "hash"})), "?x?");
    let alone = |received, invalid| {
        let body = body(received, invalid, json!({})).to_string();
        letters(&judge(&meta(), 200, body.as_bytes(), &["a"]))
    };
    assert_eq!([alone(1, 0), alone(0, 0), alone(1, 1)], ["d", "r", "x"]);
}

#[test]
fn hubspot_names_many_ids_in_one_entry() {
    let error = |category: &str, ids: &[&str]| json!({"status": "error", "category": category, "context": {"ids": ids}});
    let body = |errors: Value| json!({"status": "COMPLETE", "results": [], "errors": errors});
    check(&hubspot(), 200, &body(json!([])), "ddd");
    let both = body(json!([
        error("VALIDATION_ERROR", &["a"]),
        error("RATE_LIMITS", &["c"])
    ]));
    check(&hubspot(), 207, &both, "xdr");
    check(
        &hubspot(),
        400,
        &body(json!([error("VALIDATION_ERROR", &["a", "b"])])),
        "xxr",
    );
    check(&hubspot(), 502, &json!("gateway"), "whole Retry");
}

#[test]
fn bloomreach_answers_for_each_item_in_order() {
    let body = |results: Value| json!({"success": true, "results": results});
    let failed = |why: &str| json!({"success": false, "errors": [why]});
    let ok = json!({"success": true});
    check(&bloomreach(), 200, &body(json!([ok, ok, ok])), "ddd");
    check(
        &bloomreach(),
        200,
        &body(json!([failed("x"), ok, failed("try again")])),
        "xdr",
    );
    check(&bloomreach(), 200, &body(json!([ok])), "d??");
    check(&bloomreach(), 200, &body(json!("none")), "???");
}

#[test]
fn what_is_cut_or_no_json_says_nothing_of_any_item() {
    // Rule 15.
    for body in ["", "{\"errors\":[", "<html>"] {
        let judged = judge(&braze(), 200, body.as_bytes(), &["a", "b"]);
        assert_eq!(letters(&judged), "??", "{body}");
        let judged = judge(&braze(), 400, body.as_bytes(), &["a", "b"]);
        assert_eq!(letters(&judged), "whole Rejected", "{body}");
    }
    let plain = grammar(json!({"status": {"409": "delivered"}}));
    let judged = judge(&plain, 409, b"", &["a"]);
    assert_eq!(judged, Judged::Whole(Some(Meaning::Delivered)));
}

#[test]
fn faults_are_all_told_with_pointers() {
    let check = |value: Value, want: &[&str]| {
        let faults = ResponseGrammar::read(&value).unwrap_err().0;
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, want, "{value}");
    };
    check(json!([]), &[""]);
    check(
        json!({"other": 1, "received": "x"}),
        &["/other", "/received"],
    );
    check(
        json!({"status": {"6xx": "delivered", "200": "fine", "+4xx": "retry", "0200": "retry"}}),
        &["/status/6xx", "/status/200", "/status/+4xx", "/status/0200"],
    );
    check(
        json!({"lists": [{"holds": "some", "retryable": [1]}, {"at": "/a~2", "success": {}}]}),
        &[
            "/lists/0/at",
            "/lists/0/holds",
            "/lists/0/retryable/0",
            "/lists/1/at",
            "/lists/1/success/at",
            "/lists/1/success/values",
        ],
    );
    check(
        json!({"lists": vec![json!({"at": ""}); LISTS_MAX + 1]}),
        &["/lists"],
    );
}

#[test]
fn an_endpoint_is_told_its_grammars_faults_where_they_are() {
    use crate::resources::input::{EndpointInput, UrlPolicy};
    let read = |grammar: Value| {
        let body = json!({"url": "https://example.com/in", "grammar": grammar});
        EndpointInput::read(&body, &UrlPolicy::default())
    };
    let good = serde_json::to_value(braze()).unwrap();
    assert_eq!(read(good).unwrap().grammar.as_deref(), Some(&braze()));
    let faults = read(json!({"lists": [{}], "other": 1})).unwrap_err().0;
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/grammar/other", "/grammar/lists/0/at"]);
}

#[test]
fn grammars_survive_storage() {
    for grammar in [braze(), iterable(), meta(), hubspot(), bloomreach()] {
        let text = serde_json::to_string(&grammar).unwrap();
        assert_eq!(
            serde_json::from_str::<ResponseGrammar>(&text).unwrap(),
            grammar
        );
    }
}

#[test]
fn no_body_makes_it_panic_and_every_item_has_a_verdict() {
    let grammars = [braze(), iterable(), meta(), hubspot(), bloomreach()];
    let bodies = [
        r#"{"errors":[{"index":1,"type":"x"}],"results":[{"success":false}]}"#,
        r#"{"num_received":3,"num_invalid_entries":1,"invalid_entry_samples":{"b":"x"},"successCount":2}"#,
        r#"{"errors":[{"category":"x","context":{"ids":["a","c"]}}],"invalidEmails":["b"]}"#,
    ];
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            let Some((first, rest)) = input.split_first() else {
                return;
            };
            let valid = bodies[usize::from(*first) % bodies.len()].as_bytes();
            let at = usize::from(*first) % valid.len();
            let spliced = [
                &valid[..at],
                rest,
                &valid[(at + rest.len()).min(valid.len())..],
            ]
            .concat();
            for body in [rest, &spliced] {
                for grammar in &grammars {
                    for status in [200, 207, 400] {
                        let judged = judge(grammar, status, body, &["a", "b", "c"]);
                        if let Judged::Items(items) = judged {
                            assert_eq!(items.len(), 3);
                        }
                    }
                }
            }
        });
}

proptest! {
    /// Against an oracle: the failed places, told once by index and once by id.
    #[test]
    fn named_items_fail_and_all_others_do_not(failed in prop::collection::vec(any::<bool>(), 0..40)) {
        let ids: Vec<String> = (0..failed.len()).map(|at| format!("i{at}")).collect();
        let sent: Vec<&str> = ids.iter().map(String::as_str).collect();
        let places = || (0..failed.len()).filter(|at| failed[*at]);
        let by_index: Vec<Value> = places().map(|at| json!({"index": at, "type": "t"})).collect();
        let by_id: Vec<&str> = places().map(|at| sent[at]).collect();
        let want: String = failed.iter().map(|failed| if *failed { 'x' } else { 'd' }).collect();
        let body = json!({"errors": by_index}).to_string();
        prop_assert_eq!(letters(&judge(&braze(), 200, body.as_bytes(), &sent)), want.as_str());
        let accepted = failed.len() - by_id.len();
        let body = json!({"successCount": accepted, "invalidEmails": by_id}).to_string();
        prop_assert_eq!(letters(&judge(&iterable(), 200, body.as_bytes(), &sent)), want);
    }
}
