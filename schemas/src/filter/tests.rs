//! SB-2 to SB-4 as tables, and the evaluator against a naive one that reads the JSON.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::arbitrary;

fn parse(value: &Value) -> Filters {
    Filters::parse(value).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn event() -> Event {
    Event::builder("1", "/shop/eu", "order.paid.v1")
        .subject("o-1")
        .attribute("flag", true)
        .attribute("count", 42)
        .attribute("empty", "")
        .build()
        .unwrap()
}

#[test]
fn sb_4_dialects_match_as_the_specification_says() {
    for (filters, expected) in [
        (json!([]), true),
        (json!([{"exact": {"type": "order.paid.v1"}}]), true),
        (json!([{"exact": {"type": "Order.paid.v1"}}]), false),
        (
            json!([{"exact": {"type": "order.paid.v1", "subject": "o-2"}}]),
            false,
        ),
        (json!([{"exact": {"specversion": "1.0"}}]), true),
        (json!([{"exact": {"flag": "true", "count": "42"}}]), true),
        (
            json!([{"prefix": {"type": "order.", "source": "/shop"}}]),
            true,
        ),
        (json!([{"prefix": {"type": "paid"}}]), false),
        (json!([{"suffix": {"type": ".v1"}}]), true),
        (json!([{"suffix": {"type": "xorder.paid.v1"}}]), false),
        (
            json!([{"all": [{"exact": {"id": "1"}}, {"suffix": {"source": "eu"}}]}]),
            true,
        ),
        (
            json!([{"all": [{"exact": {"id": "1"}}, {"suffix": {"source": "us"}}]}]),
            false,
        ),
        (
            json!([{"any": [{"exact": {"id": "2"}}, {"suffix": {"source": "eu"}}]}]),
            true,
        ),
        (json!([{"any": [{"exact": {"id": "2"}}]}]), false),
        (json!([{"not": {"exact": {"id": "2"}}}]), true),
        (
            json!([{"exact": {"id": "1"}}, {"exact": {"id": "2"}}]),
            false,
        ),
        // A missing attribute is no match, and its negation is one.
        (json!([{"exact": {"absent": "x"}}]), false),
        (json!([{"prefix": {"empty": "x"}}]), false),
        (json!([{"not": {"exact": {"absent": "x"}}}]), true),
        (
            json!([{"not": {"not": {"prefix": {"absent": "x"}}}}]),
            false,
        ),
    ] {
        let compiled = parse(&filters);
        assert_eq!(compiled.matches(&event()), expected, "{filters}");
        assert_eq!(compiled.to_json(), filters);
        assert_eq!(
            Filters::parse_str(&filters.to_string()),
            Ok(compiled.clone())
        );
        assert_eq!(
            serde_json::from_value::<Filters>(filters).unwrap(),
            compiled
        );
    }
}

#[test]
fn sb_3_faults_are_named_by_their_pointer() {
    for (filters, pointer, fault) in [
        (json!({}), "", Fault::NotAnArray),
        (json!([3]), "/0", Fault::NotAnObject),
        (json!([{}]), "/0", Fault::NotOneDialect),
        (
            json!([{"exact": {"id": "1"}, "not": {}}]),
            "/0",
            Fault::NotOneDialect,
        ),
        (json!([{"jq": "TRUE"}]), "/0/jq", Fault::UnsupportedDialect),
        (
            json!([{"all": [{"a/b~": 1}]}]),
            "/0/all/0/a~1b~0",
            Fault::UnsupportedDialect,
        ),
        (
            json!([{"exact": {"id": "1"}}, {"exact": {}}]),
            "/1/exact",
            Fault::Empty,
        ),
        (json!([{"exact": []}]), "/0/exact", Fault::NotAnObject),
        (json!([{"exact": {"": "x"}}]), "/0/exact/", Fault::Empty),
        (json!([{"exact": {"id": ""}}]), "/0/exact/id", Fault::Empty),
        (
            json!([{"exact": {"id": 1}}]),
            "/0/exact/id",
            Fault::NotAString,
        ),
        (
            json!([{"exact": {"Id": "1"}}]),
            "/0/exact/Id",
            Fault::NotAnAttribute,
        ),
        (
            json!([{"exact": {"data": "1"}}]),
            "/0/exact/data",
            Fault::NotAnAttribute,
        ),
        (json!([{"any": []}]), "/0/any", Fault::Empty),
        (json!([{"all": {}}]), "/0/all", Fault::NotAnArray),
        (
            json!([{"not": [{"any": []}]}]),
            "/0/not",
            Fault::NotAnObject,
        ),
        (
            json!([{"not": {"any": [{"prefix": {"id": null}}]}}]),
            "/0/not/any/0/prefix/id",
            Fault::NotAString,
        ),
    ] {
        let error = Filters::parse(&filters).unwrap_err();
        assert_eq!(
            (error.pointer(), error.fault()),
            (pointer, &fault),
            "{filters}"
        );
    }
    assert_eq!(Filters::parse_str("[").unwrap_err().fault(), &Fault::Syntax);
}

#[test]
fn limits_hold_at_their_edge() {
    let nested = |depth: usize| {
        (1..depth).fold(
            json!({"exact": {"id": "1"}}),
            |inner, _| json!({ "not": inner }),
        )
    };
    parse(&json!([nested(DEPTH_MAX)]));
    let deep = Filters::parse(&json!([nested(DEPTH_MAX + 1)])).unwrap_err();
    assert_eq!(deep.fault(), &Fault::TooDeep);

    let wide = |count: usize| Value::Array(vec![json!({"exact": {"id": "1"}}); count]);
    parse(&wide(NODES_MAX / 2));
    assert_eq!(
        Filters::parse(&wide(NODES_MAX / 2 + 1))
            .unwrap_err()
            .fault(),
        &Fault::TooMany
    );

    let long = |bytes: usize| json!([{"exact": {"id": "x".repeat(bytes - 2)}}]);
    parse(&long(BYTES_MAX));
    assert_eq!(
        Filters::parse(&long(BYTES_MAX + 1)).unwrap_err().fault(),
        &Fault::TooLong
    );
    let text = " ".repeat(TEXT_BYTES_MAX + 1);
    assert_eq!(
        Filters::parse_str(&text).unwrap_err().fault(),
        &Fault::TooLong
    );
}

#[test]
fn required_types_bound_what_can_match() {
    let exact = |ty: &str| json!({"exact": {"type": ty}});
    for (filters, expected) in [
        (json!([]), None),
        (json!([exact("a")]), Some(vec!["a"])),
        (json!([{"exact": {"id": "1"}}, exact("a")]), Some(vec!["a"])),
        (json!([exact("b"), exact("a")]), Some(vec![])),
        (
            json!([{"any": [exact("b"), exact("a")]}]),
            Some(vec!["a", "b"]),
        ),
        (
            json!([{"any": [exact("b"), {"prefix": {"type": "a"}}]}]),
            None,
        ),
        (
            json!([{"any": [exact("b"), exact("a")]}, {"any": [exact("b"), exact("c")]}]),
            Some(vec!["b"]),
        ),
        (
            json!([{"all": [{"suffix": {"id": "1"}}, exact("a")]}]),
            Some(vec!["a"]),
        ),
        (json!([{"not": exact("a")}]), None),
    ] {
        assert_eq!(parse(&filters).required_types(), expected, "{filters}");
    }
}

#[test]
fn filters_are_made_of_types() {
    for types in [&[][..], &["a"], &["a", "b"]] {
        let filters = Filters::of_types(types).unwrap();
        let required = (!types.is_empty()).then(|| types.to_vec());
        assert_eq!(filters.required_types(), required);
        assert_eq!(filters.is_empty(), types.is_empty());
    }
    assert_eq!(
        Filters::of_types(&["a", ""]).unwrap_err().pointer(),
        "/0/any/1/exact/type"
    );
}

/// The specification read literally, from the JSON.
fn naive(filter: &Value, event: &Event) -> bool {
    let (dialect, body) = filter.as_object().unwrap().iter().next().unwrap();
    let parts = || body.as_array().unwrap().iter();
    let entries = |holds: fn(&str, &str) -> bool| {
        body.as_object().unwrap().iter().all(|(name, value)| {
            event
                .attribute(name)
                .is_some_and(|text| holds(text, value.as_str().unwrap()))
        })
    };
    match dialect.as_str() {
        "exact" => entries(|text, value| text == value),
        "prefix" => entries(|text, value| text.get(..value.len()) == Some(value)),
        "suffix" => entries(|text, value| {
            text.len()
                .checked_sub(value.len())
                .and_then(|at| text.get(at..))
                == Some(value)
        }),
        "all" => parts().all(|part| naive(part, event)),
        "any" => parts().any(|part| naive(part, event)),
        "not" => !naive(body, event),
        other => panic!("{other}"),
    }
}

/// Small alphabets, so that matches happen.
fn small_event() -> impl Strategy<Value = Event> {
    let text = || "[ab]{1,2}";
    let optional = || proptest::option::of(text());
    (text(), text(), text(), optional(), optional()).prop_map(|(id, source, ty, subject, ext)| {
        let mut builder = Event::builder(&id, &source, &ty);
        for (name, text) in [("subject", subject), ("ext", ext)] {
            if let Some(text) = text {
                builder = builder.attribute(name, text.as_str());
            }
        }
        builder.build().unwrap()
    })
}

fn filter_json() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(vec!["id", "source", "type", "subject", "ext"]);
    let dialect = proptest::sample::select(vec!["exact", "prefix", "suffix"]);
    let entries = proptest::collection::btree_map(name, "[ab]{1,2}", 1..3);
    let leaf = (dialect, entries).prop_map(|(dialect, entries)| json!({ dialect: entries }));
    leaf.prop_recursive(4, 24, 3, |inner| {
        let parts = || proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts().prop_map(|parts| json!({ "all": parts })),
            parts().prop_map(|parts| json!({ "any": parts })),
            inner.clone().prop_map(|part| json!({ "not": part })),
        ]
    })
}

proptest! {
    #[test]
    fn matches_what_the_specification_says(
        filters in proptest::collection::vec(filter_json(), 0..3),
        events in proptest::collection::vec(small_event(), 1..20),
    ) {
        let json = Value::Array(filters.clone());
        let compiled = parse(&json);
        prop_assert_eq!(compiled.to_json(), json);
        let types = compiled.required_types();
        for event in &events {
            let expected = filters.iter().all(|filter| naive(filter, event));
            prop_assert_eq!(compiled.matches(event), expected);
            prop_assert_eq!(compiled.explain(event).matched, Some(expected));
            let possible = types.as_ref().is_none_or(|types| types.contains(&event.ty()));
            prop_assert!(possible || !expected);
            let mut found = Found::default();
            let (paths, slots) = compiled.paths();
            let mut subject = Subject::new(event, &paths, &mut found);
            let beside = compiled.passes_those(compiled.beside_types(), &mut subject, &slots);
            prop_assert!(!possible || beside == expected);
        }
    }

    #[test]
    fn every_attribute_matches_its_own_text(event in arbitrary::event()) {
        for (context, text) in event.context() {
            for dialect in ["exact", "prefix", "suffix"] {
                let filters = json!([{ dialect: { context.name(): text } }]);
                prop_assert!(parse(&filters).matches(&event));
            }
        }
    }
}

#[test]
fn no_input_makes_filters_panic() {
    const VALID: &[u8] = br#"[{"any":[{"exact":{"type":"a"}},{"not":{"prefix":{"ext":"b"}}}]}]"#;
    let event = event();
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            let Some((at, rest)) = input.split_first() else {
                return;
            };
            let at = usize::from(*at) % VALID.len();
            let end = (at + rest.len()).min(VALID.len());
            let spliced = [&VALID[..at], rest, &VALID[end..]].concat();
            for bytes in [input, &spliced] {
                let text = String::from_utf8_lossy(bytes);
                if let Ok(filters) = Filters::parse_str(&text) {
                    let again = Filters::parse(&filters.to_json()).unwrap();
                    assert_eq!(again.matches(&event), filters.matches(&event));
                }
            }
        });
}

#[test]
fn every_fault_is_told_once_and_no_more_than_a_few_dozen() {
    let wrong = |count: usize| Value::Array(vec![json!({ "exact": { "id": 7 } }); count]);
    let faults = |value: &Value| Filters::parse_all(value).unwrap_err();
    let three = faults(&wrong(3));
    let pointers: Vec<_> = three.iter().map(Error::pointer).collect();
    assert_eq!(pointers, ["/0/exact/id", "/1/exact/id", "/2/exact/id"]);
    assert_eq!(faults(&wrong(10_000)).len(), 32);
    // Limits are told where they are passed, not for all that follows.
    let many = Value::Array(vec![json!({ "exact": { "id": "7" } }); NODES_MAX]);
    let many = faults(&many);
    assert_eq!(many.len(), 1);
    assert_eq!(many[0].fault(), &Fault::TooMany);
    let text = "x".repeat(BYTES_MAX);
    let long = faults(&json!([{ "exact": { "id": text, "type": text, "source": "/a" } }]));
    assert_eq!(long.len(), 1);
    assert_eq!(long[0].fault(), &Fault::TooLong);
}
