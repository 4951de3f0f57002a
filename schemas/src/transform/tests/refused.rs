//! What is refused when a transform is read, and with which words.

use super::*;

/// The fault of `value` at `pointer` says `part`.
fn check_fault(value: &Value, pointer: &str, part: &str) {
    let Faults(faults) = transform(value).unwrap_err();
    let found = faults.iter().find(|fault| fault.pointer == pointer);
    let found = found.unwrap_or_else(|| panic!("{value}: {faults:?}"));
    assert!(found.detail.contains(part), "{value}: {faults:?}");
}

#[test]
fn steps_that_are_wrong_are_told_with_their_place() {
    check_fault(&json!([]), "", "an object");
    check_fault(&json!({"step": []}), "/step", "not a known member");
    check_fault(&json!({"steps": {}}), "/steps", "an array");
    check_fault(&json!({"steps": [{}]}), "/steps/0", "one member");
    check_fault(
        &json!({"steps": [{"select": ["/a"], "strip": ["/b"]}]}),
        "/steps/0",
        "one member",
    );
    check_fault(
        &json!({"steps": [{"select": ["a"]}]}),
        "/steps/0/select/0",
        "begin with `/`",
    );
    check_fault(
        &json!({"steps": [{"select": [format!("/{}", "a/".repeat(16))]}]}),
        "/steps/0/select/0",
        "steps deep",
    );
    check_fault(
        &json!({"steps": [{"rename": {"/a": "/x", "/a/b": "/y"}}]}),
        "/steps/0/rename/~1a~1b",
        "lies within `/a`",
    );
    check_fault(
        &json!({"steps": [{"rename": {"/a": "/x", "/b": "/x"}}]}),
        "/steps/0/rename/~1b",
        "lies within `/x`",
    );
    check_fault(
        &json!({"steps": [{"set": {"": 1, "/a": 2}}]}),
        "/steps/0/set/~1a",
        "lies within",
    );
}

#[test]
fn templates_that_are_wrong_are_told_with_their_place() {
    check_fault(
        &json!({"steps": [{"compute": {"/a": {}}}]}),
        "/steps/0/compute/~1a",
        "one of value, text, json",
    );
    check_fault(
        &json!({"steps": [{"compute": {"/a": {"text": "{{ data."}}}]}),
        "/steps/0/compute/~1a/text",
        "",
    );
    check_fault(
        &json!({"steps": [{"compute": {"/a": {"value": "data ~ data"}}}]}),
        "/steps/0/compute/~1a/value",
        "concat",
    );
    check_fault(
        &json!({"steps": [{"compute": {"/a": {"value": "1) %}{% set x = (2"}}}]}),
        "/steps/0/compute/~1a/value",
        "",
    );
    check_fault(
        &json!({"steps": [{"compute": {"/a": {"value": "data|nothing"}}}]}),
        "/steps/0/compute/~1a/value",
        "no filter `nothing`",
    );
    check_fault(
        &json!({"steps": [{"drop": "datum.x"}]}),
        "/steps/0/drop",
        "`datum` is not known",
    );
    check_fault(
        &json!({"steps": [{"drop": 1}]}),
        "/steps/0/drop",
        "a string",
    );
    check_fault(
        &json!({"steps": [{"attributes": {"id": "x"}}]}),
        "/steps/0/attributes/id",
        "cannot be changed",
    );
    check_fault(
        &json!({"steps": [{"attributes": {"type": null}}]}),
        "/steps/0/attributes/type",
        "must be there",
    );
    check_fault(
        &json!({"steps": [{"attributes": {"anabranchtenant": "x"}}]}),
        "/steps/0/attributes/anabranchtenant",
        "kept",
    );
    check_fault(
        &json!({"steps": [{"attributes": {"A-b": "x"}}]}),
        "/steps/0/attributes/A-b",
        "lower-case",
    );
}

#[test]
fn requests_that_are_wrong_are_told_with_their_place() {
    check_fault(
        &json!({"request": {"method": "GET"}}),
        "/request/method",
        "one of POST, PUT, PATCH, DELETE",
    );
    check_fault(
        &json!({"request": {"path": "https://x"}}),
        "/request/path",
        "begin",
    );
    check_fault(
        &json!({"request": {"path": "/a/../b"}}),
        "/request/path",
        "dots",
    );
    for name in [
        "Authorization",
        "cookie",
        "webhook-id",
        "Content-Length",
        "host",
        "ce-id",
        "Content-Type",
    ] {
        check_fault(
            &json!({"request": {"headers": {name: "x"}}}),
            &format!("/request/headers/{name}"),
            "",
        );
    }
    check_fault(
        &json!({"request": {"headers": {"x-a": "1", "X-A": "2"}}}),
        "/request/headers/X-A",
        "already",
    );
}

#[test]
fn what_is_too_much_is_refused() {
    let many = vec![json!({"strip": ["/a"]}); STEPS_MAX + 1];
    check_fault(&json!({"steps": many}), "/steps", "at most 64");
    let places: Vec<String> = (0..=PLACES_MAX).map(|at| format!("/{at}")).collect();
    check_fault(
        &json!({"steps": [{"select": places}]}),
        "",
        "at most 256 places",
    );
    let drops = vec![json!({"drop": "false"}); 33];
    let computed: Map = (0..32)
        .map(|at| (format!("/{at}"), json!({"value": "1"})))
        .collect();
    let mut both = drops;
    both.push(json!({"compute": computed}));
    check_fault(&json!({"steps": both}), "", "at most 64 templates");
    check_fault(
        &json!({"steps": [{"set": {"/a": "x".repeat(TRANSFORM_BYTES_MAX)}}]}),
        "",
        "bytes of JSON",
    );
    let long = format!("{{{{ '{}' }}}}", "x".repeat(LINE_BYTES_MAX));
    check_fault(
        &json!({"request": {"path": long}}),
        "/request/path",
        "at most 4096 bytes",
    );
}
