//! What each step makes of an event, and where one fails.

use super::*;

/// What the steps make of [`DATA`], byte for byte.
fn check(steps: &Value, expected: &str) {
    let made = made(&json!({ "steps": steps }), &event());
    assert_eq!(data(&made), expected, "{steps}");
    assert!(made.event.has_valid_json());
    assert_eq!((made.method, made.path.as_str()), (Method::Post, ""));
}

/// Why the steps make nothing of [`DATA`].
fn check_failure(steps: &Value, pointer: &str, part: &str) {
    let failure = run(&json!({ "steps": steps }), &event()).unwrap_err();
    assert_eq!(failure.pointer, pointer, "{failure}");
    assert!(failure.detail.contains(part), "{failure}");
}

#[test]
fn select_keeps_places_and_their_bytes() {
    check(
        &json!([{"select": ["/id", "/amount"]}]),
        r#"{"id":9007199254740993123,"amount":10.50}"#,
    );
    check(
        &json!([{"select": ["/lines/sku", "/nothing"]}]),
        r#"{"lines":[{"sku":"x"},{"sku":"y"}]}"#,
    );
    check(
        &json!([{"select": ["/lines/1", "/tags/0"]}]),
        r#"{"tags":["a"],"lines":[{"sku":"y"}]}"#,
    );
    check(&json!([{"select": ["/address/street"]}]), "{}");
    check(
        &json!([{"select": [""]}, {"select": ["/address", "/address/city"]}]),
        r#"{"address":{"city": "Zürich", "zip": null}}"#,
    );
}

#[test]
fn strip_removes_places() {
    let rest = ["/id", "/first", "/last", "/amount", "/q"];
    check(
        &json!([{"strip": rest}, {"strip": ["/lines/sku", "/address/zip", "/tags/0", "/no"]}]),
        r#"{"tags":["b"],"lines":[{"n":1},{},3],"address":{"city":"Zürich"}}"#,
    );
    check(
        &json!([{"strip": rest}, {"strip": ["/lines", "/address"]}, {"strip": ["/tags/0", "/tags/1"]}]),
        r#"{"tags":[]}"#,
    );
    let none = made(&json!({"steps": [{"strip": [""]}]}), &event());
    assert_eq!(none.event.data(), None);
}

#[test]
fn rename_moves_what_is_there_at_once() {
    check(
        &json!([{"select": ["/first", "/last"]}, {"rename": {"/first": "/last", "/last": "/first", "/no": "/x"}}]),
        r#"{"last":"Ada","first":"L"}"#,
    );
    check(
        &json!([{"select": ["/first"]}, {"rename": {"/first": "/properties/name~1first"}}]),
        r#"{"properties":{"name/first":"Ada"}}"#,
    );
    check(
        &json!([{"select": ["/tags"]}, {"rename": {"/tags/0": "/one", "/tags/1": "/two"}}]),
        r#"{"tags":[],"one":"a","two":"b"}"#,
    );
    // Wrapped, and unwrapped.
    check(
        &json!([{"select": ["/amount"]}, {"rename": {"": "/contact"}}]),
        r#"{"contact":{"amount":10.50}}"#,
    );
    check(&json!([{"rename": {"/tags": ""}}]), r#"["a", "b"]"#);
}

#[test]
fn set_puts_constants_of_any_type() {
    check(
        &json!([{"select": ["/address/zip", "/tags"]}, {"set": {"/address/zip/code": 1, "/tags/-": {"a": [null]}, "/tags/0": true}}]),
        r#"{"tags":[true, "b",{"a":[null]}],"address":{"zip":{"code":1}}}"#
            .replace(", ", ",")
            .as_str(),
    );
    check(&json!([{"set": {"": ["whole"]}}]), r#"["whole"]"#);
    check_failure(
        &json!([{"set": {"/first/x": 1}}]),
        "/steps/0/set/~1first~1x",
        "neither an object nor an array",
    );
    check_failure(
        &json!([{"set": {"/tags/x": 1}}]),
        "/steps/0/set/~1tags~1x",
        "neither",
    );
    check_failure(
        &json!([{"set": {"/tags/7": 1}}]),
        "/steps/0/set/~1tags~17",
        "beyond the end",
    );
}

#[test]
fn compute_makes_values_of_any_type_of_the_event_as_it_came() {
    check(
        &json!([{"strip": [""]}, {"compute": {
            "/name": {"text": "{{ data.first }} {{ data.last|upper }}"},
            "/cents": {"value": "data.amount|times(100)|round|int"},
            "/tags": {"value": "data.tags"},
            "/is": {"value": "data.lines|length > 2 and event.count == 7"},
            "/subject": {"value": "event.subject"},
            "/none": {"value": "data.phone|default(none)"},
            "/lines": {"json": "[{% for l in data.lines if l is mapping %}{{ ',' if not loop.first }}{{ l.sku|tojson }}{% endfor %}]"},
            "/no": {"value": "data.nothing.at.all", "when": "data.nothing is defined"},
        }}]),
        r#"{"name":"Ada L","cents":1050,"tags":["a","b"],"is":true,"subject":"l-1","none":null,"lines":["x","y"]}"#,
    );
    check_failure(
        &json!([{"compute": {"/x": {"value": "data.phone"}}}]),
        "/steps/0/compute/~1x/value",
        "",
    );
    check_failure(
        &json!([{"compute": {"/x": {"text": "{{ data.phone }}"}}}]),
        "/steps/0/compute/~1x/text",
        "undefined",
    );
    check_failure(
        &json!([{"compute": {"/x": {"json": "{{ data.first }}"}}}]),
        "/steps/0/compute/~1x",
        "made no JSON",
    );
    check_failure(
        &json!([{"compute": {"/x": {"value": "1", "when": "data.first"}}}]),
        "/steps/0/compute/~1x/when",
        "neither true nor false",
    );
}

#[test]
fn attributes_are_set_and_removed() {
    let steps = json!([{"attributes": {"type": "contact.{{ event.type|replace('lead.', '') }}", "subject": null,
        "partnerid": "{{ data.id }}", "datacontenttype": "application/merge-patch+json"}}]);
    let made = made(&json!({"steps": steps}), &event());
    assert_eq!(
        (made.event.ty(), made.event.subject()),
        ("contact.created", None)
    );
    assert_eq!(made.event.attribute("count"), Some("7"));
    assert_eq!(made.event.tenant(), Some("acme"));
    assert_eq!(
        made.event.datacontenttype(),
        Some("application/merge-patch+json")
    );
    assert_eq!((made.event.id(), made.event.source()), ("e-1", "/leads"));
    assert_eq!(data(&made), DATA);
    check_failure(
        &json!([{"attributes": {"time": "{{ data.first }}"}}]),
        "/steps/0/attributes/time",
        "rfc 3339",
    );
    check_failure(
        &json!([{"attributes": {"datacontenttype": "text/plain"}}, {"set": {"/a": 1}}]),
        "/steps",
        "datacontenttype",
    );
}

#[test]
fn drop_ends_it_where_its_condition_holds() {
    let steps =
        |condition: &str| json!({"steps": [{"set": {"/first": "set"}}, {"drop": condition}]});
    let dropped = Ok(Outcome::Dropped("/steps/1".to_owned()));
    assert_eq!(run(&steps("data.first == 'Ada'"), &event()), dropped);
    assert_eq!(run(&steps("data.email is undefined"), &event()), dropped);
    assert!(matches!(
        run(&steps("data.first == 'set'"), &event()),
        Ok(Outcome::Made(_))
    ));
    let failure = run(&steps("data.first"), &event()).unwrap_err();
    assert_eq!(failure.pointer, "/steps/1/drop");
    assert!(!failure.detail.contains("Ada"));
}

#[test]
fn data_that_is_no_json_fails_where_somebody_looks() {
    let event = event_of("{broken");
    for transform in [
        json!({"steps": [{"strip": ["/a"]}]}),
        json!({"steps": [{"drop": "data.a == 1"}]}),
        json!({"request": {"path": "/{{ data.a }}"}}),
    ] {
        let failure = run(&transform, &event).unwrap_err();
        assert!(failure.detail.contains("no JSON"), "{failure}");
    }
    let without = Event::builder("1", "/s", "t").build().unwrap();
    let made = made(&json!({"steps": [{"set": {"/a": 1}}]}), &without);
    assert_eq!(data(&made), r#"{"a":1}"#);
}
