//! What is found against a search of the tree, and what is JSON against a parser.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

/// An array stands for its elements: an index selects one, any other step is taken in each.
pub(crate) fn naive<'a>(value: &'a Value, names: &[String], found: &mut Vec<&'a Value>) {
    match (value, names) {
        (Value::Array(items), []) => {
            found.push(value);
            items.iter().for_each(|item| naive(item, &[], found));
        }
        (_, []) => found.push(value),
        (Value::Object(members), [name, rest @ ..]) => {
            if let Some(member) = members.get(name) {
                naive(member, rest, found);
            }
        }
        (Value::Array(items), [name, rest @ ..]) if is_index(name) => {
            let item = name.parse::<usize>().ok().and_then(|at| items.get(at));
            item.into_iter().for_each(|item| naive(item, rest, found));
        }
        (Value::Array(items), names) => {
            items.iter().for_each(|item| naive(item, names, found));
        }
        _ => {}
    }
}

/// What `pointer` finds in `text`: whether anything, and the scalars.
fn expected(text: &str, pointer: &str) -> (bool, Vec<String>) {
    let value: Value = serde_json::from_str(text).unwrap();
    let mut found = Vec::new();
    naive(&value, &steps(pointer).collect::<Vec<_>>(), &mut found);
    let is_scalar = |value: &&&Value| !value.is_array() && !value.is_object();
    let mut scalars: Vec<_> = found
        .iter()
        .filter(is_scalar)
        .map(|v| v.to_string())
        .collect();
    scalars.sort();
    (!found.is_empty(), scalars)
}

fn shown(scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(text) => text.to_owned(),
        Scalar::String(text) => Value::from(text).to_string(),
    }
}

fn check(text: &str, pointers: &[&str], found: &mut Found) {
    let paths: Paths = pointers.iter().copied().zip(0..).collect();
    // Of a pointer that comes twice the last slot counts.
    let last = |pointer| pointers.iter().rposition(|other| other == pointer).unwrap();
    let slots: Vec<Slot> = pointers
        .iter()
        .map(last)
        .map(|at| at.try_into().unwrap())
        .collect();
    assert!(extract(&paths, text, found), "{text}");
    for (slot, pointer) in slots.iter().zip(pointers) {
        let values = found.values(text, *slot);
        let present = values.is_present();
        let mut scalars: Vec<String> = values.map(shown).collect();
        scalars.sort();
        let expected = expected(text, pointer);
        assert_eq!(
            (present, scalars),
            expected,
            "{pointer} of {pointers:?} in {text}"
        );
    }
    let mut all: Vec<Slot> = found.all(text).map(|(slot, _)| slot).collect();
    all.retain(|slot| !slots.contains(slot));
    assert!(all.is_empty(), "{all:?} in {text}");
}

#[test]
fn values_are_found_where_they_are() {
    let mut found = Found::default();
    for (text, pointers) in [
        (
            r#"{"a":{"b":1,"c":[2,3]},"d":null}"#,
            &["/a/b", "/a/c", "/d", "/a", "/e"][..],
        ),
        (
            r#" [ 1 , {"a" : "x"} , [ 2 ] ] "#,
            &["", "/0", "/1/a", "/a", "/2/0", "/3"],
        ),
        (
            r#"{"items":[{"sku":"a","tags":["x","y"]},{"sku":"b"}]}"#,
            &["/items/sku", "/items/0/sku", "/items/tags", "/items/1/tags"],
        ),
        (
            r#"{"a/b":1,"m~n":2,"":3,"é":"ü"}"#,
            &["/a~1b", "/m~0n", "/", "/é"],
        ),
        (
            r#"{"\u0061":"\u00e9\ud83d\ude00\n\"\\\/","b":"c\td"}"#,
            &["/a", "/b"],
        ),
        // The last member of a name counts, as in most parsers.
        (
            r#"{"a":{"b":1,"c":2},"a":{"b":3}}"#,
            &["/a/b", "/a/c", "/a"],
        ),
        (r#"[{"a":1},{"a":2,"a":[]}]"#, &["/a", "/1/a"]),
        // An index and a name lead into the same element.
        (
            r#"{"a":[{"0":5,"b":6},[{"b":7}]]}"#,
            &["/a/0", "/a", "/a/b", "/a/0/b", "/a/1/0/b", "/a/0/0"],
        ),
        (r#""text""#, &[""]),
        ("-1500.0", &[""]),
        ("{}", &["", "/a"]),
        ("[]", &["", "/a", "/0"]),
    ] {
        check(text, pointers, &mut found);
        pointers
            .iter()
            .for_each(|pointer| check(text, &[pointer], &mut found));
    }
}

#[test]
fn half_a_surrogate_pair_is_there_and_equals_nothing() {
    let (paths, slot): (Paths, Slot) = ([("/a", 5)].into_iter().collect(), 5);
    let mut found = Found::default();
    for half in [r"\ud800", r"\udc00", r"\ud800\u0041", r"x\ud83dx"] {
        let text = format!(r#"{{"a":"{half}","\ud800":1}}"#);
        assert!(extract(&paths, &text, &mut found), "{text}");
        let mut values = found.values(&text, slot);
        assert!(values.is_present() && values.next().is_none(), "{text}");
    }
}

#[test]
fn what_is_nested_too_deep_is_not_looked_into() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut found = Found::default();
    for pointers in [&[][..], &[""], &["/0/0"], &["/a"]] {
        let paths: Paths = pointers.iter().copied().zip(0..).collect();
        assert!(extract(&paths, &nested(lex::DEPTH_MAX), &mut found));
        assert!(!extract(&paths, &nested(lex::DEPTH_MAX + 1), &mut found));
        assert!(!extract(&paths, &"[".repeat(1 << 20), &mut found));
        assert!(!extract(&paths, &"{\"a\":".repeat(1 << 18), &mut found));
    }
}

#[test]
fn what_would_take_long_is_not_looked_into() {
    let mut found = Found::default();
    // Each level doubles the ways into the next one.
    let ways = |levels: usize| {
        (0..levels).fold(vec![String::new()], |ways, _| {
            let both = |way: &String| [format!("{way}/0/a"), format!("{way}/a")];
            ways.iter().flat_map(both).collect()
        })
    };
    for (levels, expected) in [(4, true), (6, false)] {
        let ways = ways(levels);
        let paths: Paths = ways.iter().map(String::as_str).zip(0..).collect();
        let inner = format!("\"{}\"", "x".repeat(10_000));
        let text = (0..levels).fold(inner, |inner, _| format!("[{{\"a\":{inner}}}]"));
        assert_eq!(extract(&paths, &text, &mut found), expected, "{levels}");
        if expected {
            assert!(
                (0..)
                    .zip(&ways)
                    .all(|(slot, _)| found.values(&text, slot).count() == 1)
            );
        }
    }
    let (paths, slot): (Paths, Slot) = ([("/a", 5)].into_iter().collect(), 5);
    let numbers = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
    let text = numbers(60_000);
    assert!(extract(&paths, &text, &mut found));
    assert_eq!(found.values(&text, slot).count(), 60_000);
    assert!(
        !extract(&paths, &numbers(70_000), &mut found),
        "too many values"
    );
}

#[test]
fn names_are_told_apart_however_many_and_long_they_are() {
    let names = [
        "",
        "a",
        "b",
        "aa",
        "abcdefg",
        "abcdefgh",
        "abcdefghi",
        "abcdefghj",
        "é",
        "total",
        "lines",
        "status",
        "warehouse",
        "abcdefghijklmnop",
        "abcdefghijklmnoq",
        "i",
        "h",
    ];
    let others = [
        "c",
        "ab",
        "abcdefgg",
        "abcdefghk",
        "abcdefghijklmnor",
        "abcdefghijklmno",
        "è",
    ];
    let member = |name: &&str| format!("\"{name}\":\"{name}!\"");
    let members: Vec<String> = names.iter().chain(&others).map(member).collect();
    let text = format!("{{{}}}", members.join(","));
    let pointers: Vec<String> = names.iter().map(|name| format!("/{name}")).collect();
    let mut found = Found::default();
    for count in 1..=pointers.len() {
        let some: Vec<&str> = pointers.iter().take(count).map(String::as_str).collect();
        check(&text, &some, &mut found);
        // The last name of all is near the end of the text.
        let some: Vec<&str> = pointers
            .iter()
            .rev()
            .take(count)
            .map(String::as_str)
            .collect();
        check(r#"{"abcdefghi":1,"h":[]}"#, &some, &mut found);
    }
}

#[test]
fn strings_end_where_they_do_however_long_they_are() {
    let mut found = Found::default();
    for special in ["\\\"", r"\n", r"\x", r"\", "\"", "\u{1}", "é", "x"] {
        for before in 0..110 {
            let (before, behind) = ("é".repeat(before % 3) + &"x".repeat(before), "y".repeat(40));
            let text = format!("[\"{before}{special}{behind}\"]");
            let expected = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            assert_eq!(
                extract(&Paths::default(), &text, &mut found),
                expected,
                "{text}"
            );
        }
    }
}

/// JSON with members that come twice, and escapes.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-1",
        "2.5",
        "\"\"",
        "\"a\"",
        r#""\u0061\n""#,
        "\"é\"",
    ]);
    let leaf = scalar.prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let name = prop::sample::select(vec!["a", "b", "0", "1", r"\u0061"]);
        let member =
            (name, inner.clone()).prop_map(|(name, value)| format!("\"{name}\" : {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(member, 0..5).prop_map(|all| format!("{{{}}}", all.join(", "))),
        ]
    })
}

fn pointer() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "0", "1"]);
    prop::collection::vec(name, 0..4)
        .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

proptest! {
    #[test]
    fn what_is_found_is_what_a_search_of_the_tree_finds(
        texts in prop::collection::vec(json(), 1..4),
        pointers in prop::collection::vec(pointer(), 0..6),
    ) {
        let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
        // The memory of one is used for the next.
        let mut found = Found::default();
        for text in texts {
            check(&text, &pointers, &mut found);
        }
    }
}

#[test]
fn only_json_is_taken_for_json() {
    const VALID: &str = r#"{"a":[1,-2.5e+3,true,null,{"b":"x\u00e9\\"}],"c":{},"d":"","e":false}"#;
    let mut found = Found::default();
    let pointers = ["/a", "/a/0", "/a/b", "/c", "/d"];
    let some: Paths = pointers.into_iter().zip(0..).collect();
    let mut check = |text: &str| {
        let expected = serde_json::from_str::<IgnoredAny>(text).is_ok();
        for paths in [&Paths::default(), &some] {
            assert_eq!(extract(paths, text, &mut found), expected, "{text:?}");
        }
    };
    (0..=VALID.len()).for_each(|end| check(VALID.get(..end).unwrap()));
    for text in [
        "01",
        "1.",
        "-",
        "1e",
        "+1",
        "[1,]",
        "{,}",
        "{\"a\"}",
        "[1 2]",
        "\"\u{1}\"",
        "nul",
    ] {
        check(text);
    }
    bolero::check!()
        .with_iterations(4_000)
        .for_each(|input: &[u8]| {
            let Some((at, rest)) = input.split_first() else {
                return;
            };
            let at = usize::from(*at) % VALID.len();
            let end = (at + rest.len()).min(VALID.len());
            let spliced = [&VALID.as_bytes()[..at], rest, &VALID.as_bytes()[end..]].concat();
            // One byte is where most faults are.
            let mut changed = VALID.as_bytes().to_vec();
            changed[at] = rest.first().copied().unwrap_or(b' ');
            for bytes in [input, &spliced, &changed] {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    check(text);
                }
            }
        });
}
