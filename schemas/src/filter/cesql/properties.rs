//! The properties that every expression has, and the fuzz target.

use proptest::prelude::*;
use serde_json::json;

use super::tests::{event, parse};
use super::*;
use crate::event::arbitrary;
use crate::filter::Filters;

/// Any expression, as text, from small alphabets so that matches happen.
fn expression() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec!["id", "type", "subject", "ext", "n", "absent"]);
    let literal = proptest::sample::select(vec![
        "TRUE",
        "false",
        "0",
        "7",
        "-3",
        "2147483647",
        "'a'",
        "\"b\"",
        "'ab'",
        "'7'",
        "'true'",
        r"'a\'b'",
        r#""\\""#,
        "''",
    ]);
    let pattern = proptest::sample::select(vec!["'a%'", "'%b'", "'_'", r"'\%'", "\"%a%\""]);
    let leaf = prop_oneof![
        literal.prop_map(str::to_owned),
        name.clone().prop_map(str::to_owned),
        name.prop_map(|name| format!("EXISTS {name}")),
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let operator = proptest::sample::select(vec![
            "AND", "OR", "XOR", "=", "!=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%",
        ]);
        let function = proptest::sample::select(vec![
            "LENGTH",
            "CONCAT",
            "CONCAT_WS",
            "LOWER",
            "TRIM",
            "LEFT",
            "RIGHT",
            "SUBSTRING",
            "ABS",
            "INT",
            "BOOL",
            "STRING",
            "NOPE",
        ]);
        let several = || proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            3 => (inner.clone(), operator, inner.clone())
                .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
            1 => inner.clone().prop_map(|inner| format!("({inner})")),
            1 => inner.clone().prop_map(|inner| format!("NOT ({inner})")),
            1 => inner.clone().prop_map(|inner| format!("-({inner})")),
            1 => (inner.clone(), pattern.clone())
                .prop_map(|(inner, pattern)| format!("({inner}) LIKE {pattern}")),
            1 => (inner.clone(), several())
                .prop_map(|(inner, set)| format!("({inner}) NOT IN ({})", set.join(", "))),
            1 => (function, several())
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(","))),
        ]
    })
}

fn small_event() -> impl Strategy<Value = Event> {
    let text = || "[ab7]{1,2}";
    let optional = proptest::option::of(text());
    let number = proptest::option::of(-3..9_i32);
    (text(), text(), optional, number).prop_map(|(id, ty, ext, n)| {
        let mut builder = Event::builder(&id, "/s", &ty).subject("a");
        if let Some(ext) = ext {
            builder = builder.attribute("ext", ext.as_str());
        }
        if let Some(n) = n {
            builder = builder.attribute("n", n);
        }
        builder.build().unwrap()
    })
}

proptest! {
    /// SQ-1: total, the same in both modes, and the same when printed and read again.
    #[test]
    fn every_expression_has_a_value(text in expression(), event in small_event()) {
        let compiled = parse(&text);
        let found = compiled.evaluate(&event);
        prop_assert_eq!(compiled.matches(&event), found.is_match());
        let again = parse(&compiled.to_string());
        prop_assert_eq!(&again.root, &compiled.root);
        let step = compiled.trace(&event);
        prop_assert_eq!(step.value.as_ref(), Some(&found.value.clone().into_owned()));
        prop_assert_eq!(step.errors.len(), found.errors.len());
        if let Some(required) = compiled.required_type() {
            prop_assert!(!found.is_match() || event.ty() == required);
        }
        for alternative in compiled.alternatives() {
            let holds = alternative.iter().any(|(name, needed)| {
                event.get(name).is_some_and(|text| match needed {
                    Needed::Exact(wanted) => text == *wanted,
                    Needed::Prefix(wanted) => text.starts_with(wanted),
                    Needed::Suffix(wanted) => text.ends_with(wanted),
                    Needed::Present => true,
                })
            });
            prop_assert!(!found.is_match() || holds, "{}", compiled);
        }
    }

    /// SQ-5: what is behind a decided operand cannot be told from anything else.
    #[test]
    fn a_decided_operand_ends_the_evaluation(text in expression(), event in small_event()) {
        for (decided, value) in [("FALSE AND", false), ("TRUE OR", true)] {
            let short = parse(&format!("{decided} ({text})"));
            let found = short.evaluate(&event);
            prop_assert_eq!(found.value, Value::Boolean(value));
            prop_assert_eq!(found.errors, Vec::new());
        }
    }

    /// `LIKE` against the naive one, which tries everything.
    #[test]
    fn like_finds_what_trying_everything_finds(pattern in r"[ab%_]{0,6}", text in "[ab]{0,8}") {
        fn naive(pattern: &[char], text: &[char]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, None) => true,
                (Some(('%', rest)), _) => {
                    (0..=text.len()).any(|skipped| naive(rest, &text[skipped..]))
                }
                (Some(('_', rest)), Some((_, behind))) => naive(rest, behind),
                (Some((wanted, rest)), Some((found, behind))) => {
                    wanted == found && naive(rest, behind)
                }
                (None, Some(_)) | (Some(_), None) => false,
            }
        }
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = naive(&characters(&pattern), &characters(&text));
        let mut steps = 1_000;
        let found = like::Pattern::of(&pattern).matches(&text, &mut steps);
        prop_assert_eq!(found, Some(expected));
    }

    /// SB-4: the simple dialects, written as expressions.
    #[test]
    fn the_simple_dialects_can_be_written_as_expressions(
        event in arbitrary::event(),
        name in proptest::sample::select(vec!["id", "type", "source", "subject", "time", "ext"]),
        value in "[a-z0-9/:.%_-]{1,3}",
    ) {
        let own = event.attribute(name).filter(|text| !text.is_empty() && text.len() < 200);
        let half = own.and_then(|text| text.get(..text.len() / 2 + 1));
        let value = half.or(own).map_or(value, ToOwned::to_owned);
        prop_assume!(!value.contains('\\'));
        let quoted = value.replace('\'', "\\'");
        let pattern = quoted.replace('%', "\\%").replace('_', "\\_");
        for (dialect, test) in [
            ("exact", format!("= '{quoted}'")),
            ("prefix", format!("LIKE '{pattern}%'")),
            ("suffix", format!("LIKE '%{pattern}'")),
        ] {
            let simple = Filters::parse(&json!([{ dialect: { name: value } }])).unwrap();
            let sql = parse(&format!("EXISTS {name} AND {name} {test}"));
            prop_assert_eq!(sql.matches(&event), simple.matches(&event), "{}", sql);
            let not = Filters::parse(&json!([{ "not": { dialect: { name: value } } }])).unwrap();
            let sql = parse(&format!("NOT (EXISTS {name} AND {name} {test})"));
            prop_assert_eq!(sql.matches(&event), not.matches(&event), "{}", sql);
        }
    }
}

/// `rest` in the middle of `valid`.
fn spliced(valid: &[u8], at: u8, rest: &[u8]) -> Vec<u8> {
    let at = usize::from(at) % valid.len();
    let end = (at + rest.len()).min(valid.len());
    [&valid[..at], rest, &valid[end..]].concat()
}

/// Filter text and event bytes, each an input of its own.
#[test]
fn no_text_and_no_event_make_an_expression_panic() {
    const TEXT: &[u8] = b"NOT type LIKE 'a%' AND (LENGTH(ext) + -3 IN (1, 2) OR EXISTS b)";
    const EVENT: &[u8] =
        br#"{"specversion":"1.0","id":"1","source":"/s","type":"abc","ext":"xyz","n":7}"#;
    let limits = crate::event::Limits::default();
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            let [at, to, rest @ ..] = input else {
                return;
            };
            let (text, bytes) = rest.split_at(rest.len() / 2);
            let written = spliced(EVENT, *to, bytes).into();
            let event = crate::codec::json::decode(&written, &limits).unwrap_or_else(|_| event());
            for text in [text, &spliced(TEXT, *at, text)] {
                let text = String::from_utf8_lossy(text);
                let Ok(expression) = Expression::parse(&text) else {
                    continue;
                };
                let found = expression.evaluate(&event);
                assert_eq!(expression.matches(&event), found.is_match());
                if let Ok(again) = Expression::parse(&expression.to_string()) {
                    assert_eq!(again.root, expression.root);
                }
                if let Ok(filters) = Filters::parse(&json!([{ "sql": text }])) {
                    let explained = filters.explain(&event);
                    assert_eq!(explained.matched, Some(found.is_match()));
                }
            }
        });
}
