//! What is told in brief is what the filters say, and the usual ones fit.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::filter::{Found, Paths};

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
/// Only the filters can tell.
const OPEN: Option<bool> = None;

/// What brief and filters say of an event.
fn both(filters: &Filters, event: &Event) -> (Option<bool>, bool) {
    let pointers = filters.pointers();
    // Slots that are not the numbers of the pointers.
    let slots: Vec<Slot> = (7..).take(pointers.len()).collect();
    let paths: Paths = pointers.into_iter().zip(slots.iter().copied()).collect();
    let mut found = Found::default();
    let mut subject = Subject::new(event, &paths, &mut found);
    let bits = filters.beside_types();
    let whole = filters.passes_those(bits, &mut subject, &slots);
    (filters.brief(&slots).passes(&mut subject), whole)
}

fn event(subject: &str, data: &str) -> Event {
    Event::builder("evt-1", "/shop/7/eu", "a")
        .subject(subject)
        .attribute("channel", "web-7")
        .attribute("count", 42)
        .data("application/json", data.to_owned())
        .build()
        .unwrap()
}

fn check(own: &str, data: &str, expected: Option<bool>) {
    let own: Value = serde_json::from_str(own).unwrap();
    let filters = Filters::parse(&json!([{ "exact": { "type": "a" } }, own])).unwrap();
    let (brief, whole) = both(&filters, &event("eu.1.g7", data));
    assert_eq!(brief, expected, "{own} {data}");
    assert!(brief.is_none_or(|brief| brief == whole), "{own} {data}");
}

#[test]
fn usual_filters_of_attributes_are_told_in_brief() {
    for (own, expected) in [
        (r#"{"exact":{"subject":"eu.1.g7"}}"#, YES),
        (r#"{"exact":{"subject":"eu.1.g"}}"#, NO),
        (r#"{"exact":{"absent":"x"}}"#, NO),
        (r#"{"exact":{"count":"42","id":"evt-1"}}"#, YES),
        (r#"{"prefix":{"source":"/shop/7/"}}"#, YES),
        (r#"{"suffix":{"channel":"-7"}}"#, YES),
        (r#"{"anabranch-glob":{"subject":"eu.*.g7"}}"#, YES),
        (r#"{"anabranch-glob":{"subject":"eu.*.1.g7"}}"#, NO),
        (r#"{"anabranch-glob":{"subject":"*.*.*.*"}}"#, NO),
        (r#"{"sql":"channel = 'web-7' AND id LIKE 'evt-%'"}"#, YES),
        (r#"{"sql":"channel = 'web-7' AND id LIKE 'evt-_%'"}"#, OPEN),
        (r#"{"sql":"channel = 'web-7' AND absent LIKE '%'"}"#, NO),
        (r#"{"sql":"id IN ('x', 'evt-1') AND count = '42'"}"#, YES),
        (r#"{"sql":"count IN (42)"}"#, OPEN),
        (r#"{"sql":"id = 'x' OR count = '42'"}"#, OPEN),
        (
            r#"{"all":[{"prefix":{"id":"e"}},{"suffix":{"id":"2"}}]}"#,
            NO,
        ),
        (
            r#"{"any":[{"prefix":{"id":"e"}},{"suffix":{"id":"2"}}]}"#,
            OPEN,
        ),
        (r#"{"not":{"prefix":{"id":"e"}}}"#, OPEN),
    ] {
        check(own, "", expected);
    }
}

#[test]
fn usual_filters_of_data_are_told_in_brief() {
    const RANGE: &str = r#"{"gte":1,"lt":2}"#;
    for (tests, n, expected) in [
        (r#"{"exact":"x"}"#, r#"["y","\u0078"]"#, YES),
        (r#"{"exact":1}"#, "1", OPEN),
        (r#"{"in":["x","y"]}"#, r#""y""#, YES),
        (r#"{"anything-but":["x","y"]}"#, r#""y""#, NO),
        (r#"{"anything-but":["x"]}"#, "null", YES),
        (r#"{"anything-but":["x"]}"#, "[]", NO),
        (r#"{"wildcard":"*-7-x*"}"#, r#""shoe-7-x42""#, YES),
        (r#"{"prefix":"sh","suffix":"2"}"#, r#""shoe""#, OPEN),
        (r#"{"exists":true}"#, r#""shoe""#, OPEN),
        (RANGE, "1.5", YES),
        (RANGE, "2.5", NO),
        (RANGE, r#""1.5""#, NO),
        // On the edge decimals decide.
        (RANGE, "1", OPEN),
        (RANGE, "1.00000000000000000000001", OPEN),
        (RANGE, "[7,1.5]", YES),
        (RANGE, "no JSON", NO),
    ] {
        let own = format!(r#"{{"anabranch-data":{{"/n":{tests}}}}}"#);
        check(&own, &format!(r#"{{"n":{n}}}"#), expected);
    }
}

#[test]
fn what_is_too_long_is_left_to_the_filters() {
    for length in 0..BYTES {
        let own = json!({ "prefix": { "subject": "x".repeat(length.max(1)) } });
        let filters = Filters::parse(&json!([own])).unwrap();
        // An op, an operand and a length.
        assert_eq!(
            filters.brief(&[]).is_unknown(),
            length + 3 > BYTES,
            "{length}"
        );
    }
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let own = json!([{ "anabranch-glob": { "subject": "*x" } }]);
    let (brief, whole) = both(&Filters::parse(&own).unwrap(), &event(&long, ""));
    assert_eq!((brief, whole), (None, true));
    assert!(Brief::default().is_unknown());
}

fn own() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["a", "b", "ab", "ba", "aab", "é"]);
    let name = || prop::sample::select(vec!["subject", "id", "channel", "count", "absent"]);
    let dialect = prop::sample::select(vec!["exact", "prefix", "suffix"]);
    let pattern = || prop::sample::select(vec!["a*", "*b", "*", "*a*b*", "a*a", "ab", "**é"]);
    let sql = (name(), text(), name(), text()).prop_map(|(left, is, right, like)| {
        json!({ "sql": format!("{left} = '{is}' AND {right} LIKE '{like}%{is}'") })
    });
    let number = || prop::sample::select(vec![json!(0), json!(1), json!(1.5), json!(1e300)]);
    let texts = || prop::collection::vec(text(), 1..3);
    let test = prop_oneof![
        text().prop_map(|text| json!({ "exact": text })),
        text().prop_map(|text| json!({ "prefix": text })),
        text().prop_map(|text| json!({ "suffix": text })),
        texts().prop_map(|texts| json!({ "in": texts })),
        texts().prop_map(|texts| json!({ "anything-but": texts })),
        pattern().prop_map(|pattern| json!({ "wildcard": pattern })),
        (number(), number()).prop_map(|(low, high)| json!({ "gt": low, "lte": high })),
        number().prop_map(|low| json!({ "gte": low })),
        text().prop_map(|text| json!({ "prefix": text, "suffix": text })),
    ];
    let pointer = prop::sample::select(vec!["/a", "/b"]);
    prop_oneof![
        (dialect, name(), text()).prop_map(|(dialect, name, text)| json!({dialect: {name: text}})),
        (name(), pattern()).prop_map(|(name, text)| json!({ "anabranch-glob": { name: text } })),
        sql,
        (pointer, test).prop_map(|(pointer, test)| json!({ "anabranch-data": { pointer: test } })),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = || prop::sample::select(vec!["a", "b", "ab", "ba", "aab", "abab", "éé", "42"]);
    let data = prop::sample::select(vec![
        r#"{"a":"ab","b":[1,0,"b",null]}"#,
        r#"{"a":[1.0,0.5,"\u0061ab"],"b":1.5000000000000000001}"#,
        r#"{"a":1e400,"b":{"c":1},"b":"aab"}"#,
        r#"{"a":"é","b":-0.0"#,
        "[]",
    ]);
    (text(), text(), text(), data).prop_map(|(id, subject, channel, data)| {
        let event = Event::builder(id, "/shop", "a").subject(subject);
        let event = event.attribute("channel", channel).attribute("count", 42);
        event.data("application/json", data).build().unwrap()
    })
}

proptest! {
    /// Against the filters themselves.
    #[test]
    fn what_is_told_in_brief_is_what_the_filters_say(
        own in prop::collection::vec(own(), 0..3),
        events in prop::collection::vec(any_event(), 1..8),
    ) {
        let filters = Filters::parse(&json!(own)).unwrap();
        for event in events {
            let (brief, whole) = both(&filters, &event);
            prop_assert!(brief.is_none_or(|brief| brief == whole), "{own:?} {event:?}");
        }
    }
}
