//! The dialects of our own as tables, and against an evaluator that reads the JSON.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::event::Event;
use crate::filter::extract::{steps, tests::naive as find};
use crate::filter::{Error, Fault, Filters};

fn event(data: &str) -> Event {
    let event = Event::builder("1", "/shop", "com.github.push");
    let event = event.data("application/json", data.as_bytes().to_vec());
    event.build().unwrap()
}

fn parse(filters: &Value) -> Filters {
    Filters::parse(filters).unwrap_or_else(|error| panic!("{error}: {filters}"))
}

fn data(pointer: &str, tests: &Value) -> Value {
    json!([{ "anabranch-data": { pointer: tests } }])
}

fn check(filters: &Value, event: &Event, expected: bool) {
    let compiled = parse(filters);
    assert_eq!(compiled.matches(event), expected, "{filters} {event:?}");
    assert_eq!(compiled.explain(event).matched, Some(expected));
    assert_eq!(compiled.to_json(), *filters);
    assert_eq!(Filters::parse_str(&filters.to_string()), Ok(compiled));
}

#[test]
fn tests_pass_what_they_describe() {
    let event = event(
        r#"{"region":"eu-west","n":12.50,"big":9007199254740993,"ok":true,"none":null,"empty":"",
            "ip":"10.1.2.3","v6":"2001:db8::7","tags":["red","blue"],"nums":[5,25],"obj":{},"arr":[],
            "lines":[{"sku":"a-1","qty":2},{"sku":"b-2","qty":9}]}"#,
    );
    for (pointer, tests, expected) in [
        ("/region", json!({"exact": "eu-west"}), true),
        ("/region", json!({"exact": "EU-west"}), false),
        ("/n", json!({"exact": 12.5}), true),
        ("/n", json!({"exact": "12.50"}), false),
        ("/big", json!({"exact": 9_007_199_254_740_993_u64}), true),
        ("/big", json!({"exact": 9_007_199_254_740_992_u64}), false),
        ("/ok", json!({"exact": true}), true),
        ("/ok", json!({"exact": "true"}), false),
        ("/none", json!({"exact": null}), true),
        ("/absent", json!({"exact": null}), false),
        ("/empty", json!({"exact": ""}), true),
        ("/region", json!({"prefix": "eu-"}), true),
        ("/region", json!({"suffix": "west"}), true),
        ("/n", json!({"prefix": "1"}), false),
        ("/region", json!({"wildcard": "eu-*st"}), true),
        ("/region", json!({"wildcard": "*-*-*"}), false),
        ("/region", json!({"in": ["us", "eu-west", 3]}), true),
        ("/n", json!({"in": [1, 12.5]}), true),
        ("/region", json!({"anything-but": ["us", "eu"]}), true),
        ("/region", json!({"anything-but": ["eu-west"]}), false),
        ("/absent", json!({"anything-but": ["x"]}), false),
        ("/n", json!({"gt": 12, "lt": 13}), true),
        ("/n", json!({"gt": 12.5}), false),
        ("/n", json!({"gte": 12.5, "lte": 12.5}), true),
        ("/big", json!({"gt": 9_007_199_254_740_992_u64}), true),
        ("/region", json!({"gt": 0}), false),
        ("/ip", json!({"cidr": "10.0.0.0/8"}), true),
        ("/ip", json!({"cidr": "11.0.0.0/8"}), false),
        ("/v6", json!({"cidr": "2001:db8::/32"}), true),
        ("/region", json!({"cidr": "0.0.0.0/0"}), false),
        ("/none", json!({"exists": true}), true),
        ("/absent", json!({"exists": false}), true),
        ("/obj", json!({"exists": true}), true),
        ("/arr", json!({"exists": true}), true),
        ("/arr", json!({"exists": false}), false),
        ("/obj", json!({"anything-but": [1]}), false),
        ("/region", json!({"exists": true, "prefix": "us"}), false),
        // An array passes where one element passes every test.
        ("/tags", json!({"exact": "blue"}), true),
        ("/tags", json!({"anything-but": ["red"]}), true),
        ("/tags", json!({"anything-but": ["red", "blue"]}), false),
        ("/nums", json!({"gt": 10, "lt": 20}), false),
        ("/nums", json!({"gt": 20, "lt": 30}), true),
        ("/lines/sku", json!({"prefix": "b-"}), true),
        ("/lines/0/sku", json!({"prefix": "b-"}), false),
        ("/lines/1/qty", json!({"gt": 5}), true),
    ] {
        check(&data(pointer, &tests), &event, expected);
    }
}

#[test]
fn every_entry_must_hold_and_dialects_combine() {
    let event = event(r#"{"a":1,"b":"x"}"#);
    let a = json!({"anabranch-data": {"/a": {"exact": 1}}});
    let wrong = json!({"anabranch-data": {"/a": {"exact": 1}, "/b": {"exact": "y"}}});
    let ty = |pattern: &str| json!({"anabranch-glob": {"type": pattern}});
    for (filters, expected) in [
        (json!([a]), true),
        (json!([wrong]), false),
        (
            json!([{"not": wrong}, {"all": [a, {"exact": {"id": "1"}}]}]),
            true,
        ),
        (json!([{"any": [wrong, a]}]), true),
        (json!([ty("com.github.*")]), true),
        (json!([ty("com.*.push"), a]), true),
        (json!([ty("com.gitlab.*")]), false),
        (json!([ty("com.github.push")]), true),
        (json!([{"anabranch-glob": {"absent": "*"}}]), false),
        (json!([{"anabranch-glob": {"type": r"com\*"}}]), false),
    ] {
        check(&filters, &event, expected);
    }
}

#[test]
fn data_that_is_no_json_passes_no_test() {
    let tests = [
        json!({"exists": true}),
        json!({"exists": false}),
        json!({"exact": 1}),
    ];
    let text = |data: &str| {
        let event = Event::builder("1", "/shop", "t").data("text/plain", data.as_bytes().to_vec());
        event.build().unwrap()
    };
    let bare = Event::builder("1", "/shop", "t").build().unwrap();
    let bytes = Event::builder("1", "/shop", "t").untyped_data(b"{\"a\":\"\xff\"}".to_vec());
    for event in [
        event(r#"{"a":1"#),
        event(""),
        text(r#"{"a":1}"#),
        bare,
        bytes.build().unwrap(),
    ] {
        for test in &tests {
            let filters = data("/a", test);
            check(&filters, &event, false);
            check(&json!([{ "not": filters[0] }]), &event, true);
        }
    }
}

fn refused(filters: &Value, pointer: &str, fault: &Fault) {
    let error = Filters::parse(filters).unwrap_err();
    let expected = (format!("/0/anabranch-{pointer}"), fault);
    assert_eq!(
        (error.pointer().to_owned(), error.fault()),
        expected,
        "{filters}"
    );
}

#[test]
fn sb_3_faults_are_named_by_their_pointer() {
    for (tests, step, fault) in [
        (json!({}), "", Fault::Empty),
        (json!("x"), "", Fault::NotAnObject),
        (json!({"is": 1}), "/is", Fault::UnsupportedTest),
        (json!({"exact": []}), "/exact", Fault::NotAScalar),
        (json!({"in": "x"}), "/in", Fault::NotAnArray),
        (json!({"in": []}), "/in", Fault::Empty),
        (json!({"in": [1, {}]}), "/in/1", Fault::NotAScalar),
        (json!({"prefix": ""}), "/prefix", Fault::Empty),
        (json!({"prefix": 1}), "/prefix", Fault::NotAString),
        (json!({"gt": "1"}), "/gt", Fault::NotANumber),
        (json!({"exists": 1}), "/exists", Fault::NotABoolean),
        (
            json!({"exists": false, "gt": 1}),
            "/exists",
            Fault::NotAlone,
        ),
        (json!({"wildcard": "a\\b"}), "/wildcard", Fault::NotAPattern),
        (json!({"cidr": "10/8"}), "/cidr", Fault::NotANetwork),
    ] {
        refused(&data("/a", &tests), &format!("data/~1a{step}"), &fault);
    }
    let exact = json!({ "exact": 1 });
    let long = |steps: usize| "/a".repeat(steps);
    parse(&data(&long(32), &exact));
    refused(
        &data(&long(33), &exact),
        &format!(
            "data/{}",
            &long(33)
                .chars()
                .take(64)
                .collect::<String>()
                .replace('/', "~1")
        ),
        &Fault::NotAPointer,
    );
    for (filters, pointer, fault) in [
        (json!([{ "anabranch-data": {} }]), "data", Fault::Empty),
        (
            json!([{ "anabranch-data": [] }]),
            "data",
            Fault::NotAnObject,
        ),
        (data("a", &exact), "data/a", Fault::NotAPointer),
        (data("/~2", &exact), "data/~1~02", Fault::NotAPointer),
        (
            json!([{ "anabranch-glob": { "type": "\\" } }]),
            "glob/type",
            Fault::NotAPattern,
        ),
        (
            json!([{ "anabranch-glob": { "type": "" } }]),
            "glob/type",
            Fault::Empty,
        ),
    ] {
        refused(&filters, pointer, &fault);
    }
    let both = Filters::parse_all(&data("/a", &json!({ "gt": "1", "in": [] }))).unwrap_err();
    let faults: Vec<_> = both.iter().map(Error::fault).collect();
    assert_eq!(faults, [&Fault::NotANumber, &Fault::Empty]);
}

#[test]
fn limits_hold_for_data() {
    let listed = |count: usize| data("/a", &json!({"in": vec![1; count]}));
    parse(&listed(500));
    let error = Filters::parse(&listed(600)).unwrap_err();
    assert_eq!(error.fault(), &Fault::TooMany);
    let error = Filters::parse(&data("/a", &json!({"exact": "x".repeat(40_000)}))).unwrap_err();
    assert_eq!(error.fault(), &Fault::TooLong);
}

#[test]
fn types_that_a_pattern_bounds_are_known() {
    let glob = |pattern: &str| json!({"anabranch-glob": {"type": pattern}});
    for (filters, types, prefix) in [
        (json!([glob("a.b")]), Some(vec!["a.b"]), Some("a.b")),
        (json!([glob("com.*")]), None, Some("com.")),
        (json!([glob("*.x")]), None, None),
        (
            json!([glob("com.*"), {"prefix": {"type": "com.git"}}]),
            None,
            Some("com.git"),
        ),
        (
            json!([{"any": [glob("com.a*"), glob("com.b*")]}]),
            None,
            Some("com."),
        ),
        (
            json!([{"any": [glob("a*"), {"exact": {"id": "1"}}]}]),
            None,
            None,
        ),
        (json!([{"not": glob("a*")}]), None, None),
        (data("/a", &json!({"exact": 1})), None, None),
    ] {
        let compiled = parse(&filters);
        assert_eq!(compiled.required_types(), types, "{filters}");
        assert_eq!(compiled.required_type_prefix(), prefix, "{filters}");
    }
}

// === against an evaluator that reads the JSON ===

pub(crate) fn naive(filter: &Value, ty: &str, document: &Value) -> bool {
    let (dialect, body) = filter.as_object().unwrap().iter().next().unwrap();
    let parts = || body.as_array().unwrap().iter();
    match dialect.as_str() {
        "all" => parts().all(|part| naive(part, ty, document)),
        "any" => parts().any(|part| naive(part, ty, document)),
        "not" => !naive(body, ty, document),
        "prefix" => ty.starts_with(body["type"].as_str().unwrap()),
        "anabranch-glob" => like(body["type"].as_str().unwrap(), ty),
        "anabranch-data" => body.as_object().unwrap().iter().all(|(pointer, tests)| {
            let mut found = Vec::new();
            find(document, &steps(pointer).collect::<Vec<_>>(), &mut found);
            let tests = tests.as_object().unwrap();
            match tests.get("exists") {
                Some(wanted) if tests.len() == 1 => *wanted == Value::Bool(!found.is_empty()),
                _ => found
                    .into_iter()
                    .filter(|value| !value.is_object() && !value.is_array())
                    .any(|value| {
                        tests
                            .iter()
                            .all(|(name, wanted)| passes(name, wanted, value))
                    }),
            }
        }),
        other => panic!("{other}"),
    }
}

fn passes(name: &str, wanted: &Value, value: &Value) -> bool {
    let equal = |left: &Value, right: &Value| match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    };
    let listed = || {
        wanted
            .as_array()
            .unwrap()
            .iter()
            .any(|one| equal(one, value))
    };
    let compared = || Some(value.as_f64()?.total_cmp(&wanted.as_f64()?));
    let text = || value.as_str().zip(wanted.as_str());
    match name {
        "exact" => equal(wanted, value),
        "in" => listed(),
        "anything-but" => !listed(),
        "prefix" => text().is_some_and(|(text, wanted)| text.starts_with(wanted)),
        "suffix" => text().is_some_and(|(text, wanted)| text.ends_with(wanted)),
        "wildcard" => text().is_some_and(|(text, wanted)| like(wanted, text)),
        "cidr" => text().is_some_and(|(text, wanted)| {
            let bits = |text: &str| text.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
            let (address, length) = wanted.split_once('/').unwrap();
            let shift = 32 - length.parse::<u32>().unwrap();
            bits(text).is_some_and(|bits_of| bits_of >> shift == bits(address).unwrap() >> shift)
        }),
        "gt" => compared().is_some_and(|order| order.is_gt()),
        "gte" => compared().is_some_and(|order| order.is_ge()),
        "lt" => compared().is_some_and(|order| order.is_lt()),
        "lte" => compared().is_some_and(|order| order.is_le()),
        "exists" => *wanted == Value::Bool(true),
        other => panic!("{other}"),
    }
}

/// Every place is tried.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => text.is_empty(),
        Some(("*", rest)) => (0..=text.len()).any(|at| like(rest, text.get(at..).unwrap())),
        Some((letter, rest)) => text
            .strip_prefix(letter)
            .is_some_and(|text| like(rest, text)),
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(1),
        json!(1.0),
        json!(2.5),
        json!(-3),
        json!("a"),
        json!("ab"),
        json!("ba"),
        json!("10.0.0.1"),
        json!("10.9.0.1"),
    ])
}

fn document() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "0"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map(name, inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

fn test() -> impl Strategy<Value = (String, Value)> {
    let text = prop::sample::select(vec!["a", "b", "ab", "ba"]);
    let pattern = prop::sample::select(vec!["a*", "*a", "*", "a*b", "**b", "ab", "*0.0*"]);
    let network = prop::sample::select(vec!["10.0.0.0/8", "10.0.0.0/16", "10.9.0.1/32"]);
    let number = prop::sample::select(vec![json!(1), json!(2.5), json!(-3.0), json!(0), json!(2)]);
    let lists = prop::collection::vec(scalar(), 1..3).prop_map(Value::Array);
    let named = |names: Vec<&'static str>| prop::sample::select(names);
    prop_oneof![
        scalar().prop_map(|value| ("exact", value)),
        (named(vec!["in", "anything-but"]), lists),
        (named(vec!["prefix", "suffix"]), text.prop_map(Value::from)),
        pattern.prop_map(|pattern| ("wildcard", json!(pattern))),
        network.prop_map(|network| ("cidr", json!(network))),
        (named(vec!["gt", "gte", "lt", "lte"]), number),
        Just(("exists", json!(true))),
    ]
    .prop_map(|(name, value)| (name.to_owned(), value))
}

/// A filter of every dialect of our own, with data of the names that documents have.
pub(crate) fn filter() -> impl Strategy<Value = Value> {
    let pointer =
        prop::sample::select(vec!["", "/a", "/b", "/a/b", "/0", "/a/0", "/b/0/a", "/a/a"]);
    let tests = prop_oneof![
        6 => prop::collection::vec(test(), 1..3)
            .prop_map(|tests| Value::Object(tests.into_iter().collect())),
        1 => Just(json!({"exists": false})),
    ];
    let clauses = prop::collection::vec((pointer, tests), 1..3).prop_map(|clauses| {
        let clauses = clauses
            .into_iter()
            .map(|(name, tests)| (name.to_owned(), tests));
        json!({ "anabranch-data": Value::Object(clauses.collect()) })
    });
    let types = prop::sample::select(vec!["a*", "a*b", "*b", "ab", "b"]);
    let leaf = prop_oneof![
        4 => clauses,
        1 => types.prop_map(|pattern| json!({ "anabranch-glob": { "type": pattern } })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let parts = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts().prop_map(|parts| json!({ "all": parts })),
            parts().prop_map(|parts| json!({ "any": parts })),
            inner.clone().prop_map(|part| json!({ "not": part })),
        ]
    })
}

proptest! {
    #[test]
    fn filters_match_what_reading_the_tree_says(
        filters in prop::collection::vec(filter(), 0..3),
        documents in prop::collection::vec(document(), 1..6),
        ty in prop::sample::select(vec!["a", "b", "ab", "acb"]),
    ) {
        let json = Value::Array(filters.clone());
        let compiled = parse(&json);
        prop_assert_eq!(compiled.to_json(), json);
        let (types, prefix) = (compiled.required_types(), compiled.required_type_prefix());
        prop_assert_eq!(compiled.beside_types().count_ones() as usize, filters.len());
        for document in &documents {
            let event = Event::builder("1", "/s", ty).data("application/json", document.to_string());
            let event = event.build().unwrap();
            let expected = filters.iter().all(|filter| naive(filter, ty, document));
            prop_assert_eq!(compiled.matches(&event), expected, "{}", document);
            if expected {
                prop_assert!(types.as_ref().is_none_or(|types| types.contains(&ty)));
                prop_assert!(prefix.is_none_or(|prefix| ty.starts_with(prefix)));
            }
        }
    }
}

#[test]
fn no_filter_and_no_bytes_panic() {
    const FILTERS: &[u8] = br#"[{"anabranch-data":{"/a/0":{"gt":1,"in":["x",2]},"":{"cidr":"::/1","wildcard":"a*\\*"}}},{"anabranch-glob":{"type":"a*"}}]"#;
    const DATA: &[u8] = br#"{"a":[{"b":"\u0061"},2.5e-3,"10.0.0.1"],"c":null}"#;
    let spliced = |valid: &[u8], at: u8, rest: &[u8]| {
        let at = usize::from(at) % valid.len();
        let end = (at + rest.len()).min(valid.len());
        [&valid[..at], rest, &valid[end..]].concat()
    };
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            let [at, rest @ ..] = input else {
                return;
            };
            let (left, right) = rest.split_at(rest.len() / 2);
            for filters in [left.to_vec(), spliced(FILTERS, *at, left), FILTERS.to_vec()] {
                let Ok(filters) = Filters::parse_str(&String::from_utf8_lossy(&filters)) else {
                    continue;
                };
                let again = Filters::parse(&filters.to_json()).unwrap();
                for data in [right.to_vec(), spliced(DATA, *at, right)] {
                    let event = Event::builder("1", "/s", "ab").data("application/json", data);
                    let event = event.build().unwrap();
                    assert_eq!(filters.matches(&event), again.matches(&event));
                }
            }
        });
}
