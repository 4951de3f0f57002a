//! Transforms by example: each step, the request, what is refused, and where it ends.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::codec;
use crate::event::Limits;
use crate::records::ControlObject;
use crate::resources::input::{Faults, SubscriptionInput};

const DATA: &str = r#"{"id": 9007199254740993123, "first": "Ada", "last": "L", "amount": 10.50, "tags": ["a", "b"],
    "lines": [{"sku": "x", "n": 1}, {"sku": "y"}, 3], "address": {"city": "Zürich", "zip": null}, "q": "a/b?c"}"#;

fn event_of(data: &'static str) -> Event {
    let event = Event::builder("e-1", "/leads", "lead.created")
        .attribute("subject", "l-1")
        .attribute("count", 7)
        .attribute("anabranchtenant", "acme");
    event
        .data("application/json", Bytes::from_static(data.as_bytes()))
        .build()
        .unwrap()
}

fn event() -> Event {
    event_of(DATA)
}

fn transform(value: &Value) -> Result<Transform, Faults> {
    Transform::read(value)
}

fn run(value: &Value, event: &Event) -> Result<Outcome, Failure> {
    let transform = transform(value).unwrap_or_else(|faults| panic!("{value}: {faults:?}"));
    Compiled::new(&transform).unwrap().run(event)
}

fn made(value: &Value, event: &Event) -> Made {
    match run(value, event) {
        Ok(Outcome::Made(made)) => *made,
        other => panic!("{value}: {other:?}"),
    }
}

fn data(made: &Made) -> String {
    let data = made.event.data().map(|data| data.to_vec());
    String::from_utf8(data.unwrap_or_default()).unwrap()
}

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
fn the_request_is_made_of_templates() {
    let request = json!({"request": {"method": "PUT",
        "path": "/contacts/{{ data.q }}/{{ data.q|segment }}/{{ data.id|string }}?v=2",
        "query": {"city": "{{ data.address.city }}", "x y": "&"},
        "headers": {"X-Count": "{{ event.count }}"}}});
    let mut number = event_of(r#"{"q": "a/b?c", "id": 7, "address": {"city": "Zürich"}}"#);
    let made = made(&request, &number);
    assert_eq!(made.method, Method::Put);
    assert_eq!(
        made.path,
        "/contacts/a%2Fb%3Fc/a%2Fb%3Fc/7?v=2&city=Z%C3%BCrich&x%20y=%26"
    );
    assert_eq!(made.headers, [("X-Count".to_owned(), "7".to_owned())]);
    assert!(made.has_body());
    // What is not looked at goes as it came, whatever it is.
    number = number.with_data(Some(Bytes::from_static(b"\xff")), false);
    let request = json!({"request": {"method": "DELETE", "path": "/contacts/{{ event.subject }}"}});
    let made = self::made(&request, &number);
    assert_eq!(
        (made.path.as_str(), made.has_body()),
        ("/contacts/l-1", false)
    );
    assert_eq!(made.event, number);
}

#[test]
fn a_path_leads_to_no_other_place() {
    // rule 10
    let check = |path: &str, value: &'static str, expected: Result<&str, &str>| {
        let request = json!({"request": {"path": path}});
        match (run(&request, &event_of(value)), expected) {
            (Ok(Outcome::Made(made)), Ok(expected)) => assert_eq!(made.path, expected, "{value}"),
            (Err(failure), Err(part)) => {
                assert_eq!(failure.pointer, "/request/path");
                assert!(failure.detail.contains(part), "{failure}");
            }
            (outcome, _) => panic!("{path} {value}: {outcome:?}"),
        }
    };
    check(
        "/c/{{ data }}",
        r#""1/../../admin""#,
        Ok("/c/1%2F..%2F..%2Fadmin"),
    );
    check("/c/{{ data }}/x", r#""..""#, Err("dots"));
    check("/c/{{ data }}", r#""""#, Err("empty"));
    check("/c/{{ data }}", "null", Err("none"));
    check("/c/{{ data }}", "[1]", Err("no text"));
    check(
        "{{ data }}",
        r#""https://evil.example""#,
        Err("does not begin"),
    );
    check("/{{ data }}", r#""/evil.example""#, Ok("/%2Fevil.example"));
    check("/c/{{ data }}", "1.5", Ok("/c/1.5"));
    check(
        "/c{% if data %}/{{ 'x'|concat('é\n') }}{% endif %}",
        "true",
        Ok("/c/x%C3%A9%0A"),
    );
    check("/c/{{ data }}", "true", Ok("/c/true"));
}

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

type Map = serde_json::Map<String, Value>;

#[test]
fn bombs_end_in_bounded_time() {
    let items = (0..2_000).map(|at| json!({"n": at})).collect::<Vec<_>>();
    let text = json!({ "l": items, "t": "x".repeat(60_000) }).to_string();
    let event = event_of(Box::leak(text.into_boxed_str()));
    let loops = "{% for a in data.l %}{% for b in data.l %}{% for c in data.l %}x{% endfor %}{% endfor %}{% endfor %}";
    let grows: String =
        "{% set x = data.t %}".to_owned() + &"{% set x = x|concat(x) %}".repeat(40) + "{{ x }}";
    let written = "{% for a in data.l %}{{ data.t }}{% endfor %}";
    let hashed = "{% for a in data.l %}{{ data|tojson|sha256 }}{% endfor %}";
    for (template, part) in [
        (loops, "fuel"),
        (&grows, "filters have made more"),
        (written, "made more than"),
        (hashed, "filters have made more"),
    ] {
        let failure = run(
            &json!({"steps": [{"compute": {"/x": {"text": template}}}]}),
            &event,
        );
        let failure = failure.unwrap_err();
        assert!(failure.detail.contains(part), "{failure}");
    }
    // Many small ones cost no more than one.
    let some = "{% for a in data.l %}{% if a.n == -1 %}x{% endif %}{% endfor %}";
    let many: Map = (0..60)
        .map(|at| (format!("/{at}"), json!({"text": some})))
        .collect();
    let failure = run(&json!({"steps": [{"compute": many}]}), &event).unwrap_err();
    assert!(failure.detail.contains("too many steps"), "{failure}");
    let large: Map = (0..30)
        .map(|at| (format!("/{at}"), json!({"text": "{{ data.t }}"})))
        .collect();
    let failure = run(&json!({"steps": [{"compute": large}]}), &event).unwrap_err();
    assert!(failure.detail.contains("made more than"), "{failure}");
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

#[test]
fn what_is_stored_is_read_again() {
    let value = json!({
        "steps": [
            {"select": ["/b", "/a"]}, {"strip": ["/c"]}, {"rename": {"/z": "/y", "/a": "/b"}},
            {"set": {"/k": {"n": [1.5, null]}}},
            {"compute": {"/x": {"value": "data.a", "when": "true"}, "/d": {"text": "t"}}},
            {"attributes": {"subject": null, "x": "1"}}, {"drop": "false"},
        ],
        "request": {"method": "PATCH", "path": "/p", "query": {"q": "1"}, "headers": {"x-a": "b"}},
    });
    let read = transform(&value).unwrap();
    let stored = serde_json::to_string(&read).unwrap();
    assert_eq!(
        stored,
        value.to_string(),
        "in the order in which it was written"
    );
    assert_eq!(serde_json::from_str::<Transform>(&stored).unwrap(), read);
    assert_eq!(
        serde_json::from_str::<Transform>("{}").unwrap(),
        Transform::default()
    );
}

#[test]
fn the_guides_example_does_what_the_guide_says() {
    let guide = include_str!("../../../docs/transforms.md");
    let block = |from: &str, to: &str| {
        let rest = guide.split(from).nth(1).unwrap();
        rest.split(to).next().unwrap()
    };
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let event = Bytes::from(block("```json\n", "```").to_owned());
    let event = codec::json::decode(&event, &Limits::default()).unwrap();
    let made = made(&parse(block("<<'JSON'\n", "JSON\n")), &event);
    let asked = format!("{:?} /v1{}\n{}", made.method, made.path, data(&made));
    let expected = block("becomes\n\n```\n", "\n```");
    assert_eq!(asked.replacen("Put", "PUT", 1), expected);
}

#[test]
fn a_subscription_of_version_1_keeps_its_transform_for_ever() {
    let stored = include_str!("../records/fixtures/control-v1-subscription-transform.json");
    let Ok(ControlObject::Subscription(subscription)) = ControlObject::decode(stored.as_bytes())
    else {
        panic!("{stored}");
    };
    let transform = subscription.transform.clone().unwrap();
    assert_eq!((transform.steps.len(), transform.has_request()), (7, true));
    Compiled::new(&transform).unwrap();
    let again = ControlObject::Subscription(subscription).encode();
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
    assert_eq!(parse(&again), parse(stored.as_bytes()));
}

#[test]
fn a_change_of_a_transform_replaces_the_whole() {
    let stored = include_str!("../records/fixtures/control-v1-subscription-transform.json");
    let Ok(ControlObject::Subscription(old)) = ControlObject::decode(stored.as_bytes()) else {
        panic!("{stored}");
    };
    let patched = |patch: &Value| SubscriptionInput::patched(&old, patch);
    assert_eq!(
        patched(&json!({"name": "n"})).unwrap().transform,
        old.transform
    );
    assert_eq!(
        patched(&json!({"transform": null})).unwrap().transform,
        None
    );
    let steps = json!({"steps": [{"attributes": {"subject": null}}]});
    let replaced = patched(&json!({"transform": steps})).unwrap().transform;
    assert_eq!(replaced, Some(Box::new(transform(&steps).unwrap())));
    let Faults(faults) = patched(&json!({"transform": {"steps": [{"drop": "x"}]}})).unwrap_err();
    assert_eq!(faults[0].pointer, "/transform/steps/0/drop");
    let endpoint = old.endpoint.to_string();
    let made = json!({"endpoint": endpoint, "transform": {"request": {"method": "STEAL"}}});
    let Faults(faults) = SubscriptionInput::read(&made).unwrap_err();
    assert_eq!(faults[0].pointer, "/transform/request/method");
}
