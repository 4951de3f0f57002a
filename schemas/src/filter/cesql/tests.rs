//! The specification's text as tables.

use serde_json::json;

use super::*;
use crate::filter::Filters;

pub(super) fn event() -> Event {
    Event::builder("1", "/shop/eu", "order.paid.v1")
        .subject("o-1")
        .attribute("flag", true)
        .attribute("count", 42)
        .attribute("text", "Grüße")
        .attribute("number", "7")
        .build()
        .unwrap()
}

pub(super) fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `expected` is the value and the errors, as text.
#[track_caller]
fn check(text: &str, expected: &str) {
    let event = event();
    let expression = parse(text);
    let found = expression.evaluate(&event);
    let mut shown = found.value.to_string();
    for error in &found.errors {
        shown = format!("{shown}; {error}");
    }
    assert_eq!(shown, expected, "{text}");
    assert_eq!(expression.matches(&event), found.is_match(), "{text}");
    assert_eq!(
        parse(&expression.to_string()).root,
        expression.root,
        "{text}"
    );
}

#[test]
fn sq_3_literals_and_identifiers_are_read_as_the_grammar_says() {
    check("-2147483648", "-2147483648");
    check("+7", "7");
    check("0042", "42");
    check("4-1", "3");
    check("4 -1", "3");
    check("4 - -1", "5");
    check("4--1", "5");
    check("- 5", "-5");
    check("- -5", "5");
    check(r"'it\'s'", "'it's'");
    check(r#""say \"so\"""#, r#"'say "so"'"#);
    check(r"'a\\'", r"'a\\'");
    check(r"'a\n'", r"'a\n'");
    check("''", "''");
    check("SOURCE", "'/shop/eu'");
    check(" \t\r\nTruE\n", "true");
    check("TRUE = 'true' AND FALSE = 'false'", "true");
    check("TRUE = 'TRUE' OR FALSE = 'FALSE'", "false");
}

#[test]
fn sq_4_operators_bind_in_the_order_of_the_specification() {
    check("1 + 2 * 3", "7");
    check("10 - 4 - 3", "3");
    check("100 / 10 / 5", "2");
    check("1 + 2 = 3", "true");
    check("1 < 2 = TRUE", "true");
    check("FALSE AND FALSE OR TRUE", "true");
    check("TRUE OR FALSE AND FALSE", "false");
    check("NOT FALSE AND FALSE", "false");
    check("NOT TRUE = FALSE", "true");
    check("NOT EXISTS absent", "true");
    check("2 * 3 IN (6)", "0");
    check("(2 * 3) IN (6)", "true");
    check("'abc' LIKE 'a%' IN (TRUE)", "true");
    check("-count + 2", "-40");
}

#[test]
fn sq_5_and_and_or_leave_out_what_no_longer_matters() {
    check("FALSE AND absent = 1", "false");
    check("TRUE OR 1 / 0 = 1", "true");
    check("FALSE AND NOPE()", "false");
    check(
        "TRUE XOR absent",
        "false; the event has no attribute `absent`",
    );
    check("FALSE OR FALSE AND absent OR TRUE", "true");
}

#[test]
fn sq_6_what_holds_a_missing_attribute_is_the_zero_value_of_its_type() {
    let missing = "the event has no attribute `absent`";
    for (text, zero) in [
        ("absent", "false"),
        ("absent * 5", "0"),
        ("1 / absent", "0"),
        ("-absent", "0"),
        ("NOT absent", "false"),
        ("absent != 'a'", "false"),
        ("absent NOT LIKE 'a'", "false"),
        ("absent NOT IN ('a')", "false"),
        ("1 IN (1, absent)", "false"),
        ("CONCAT('a', absent)", "''"),
        ("LENGTH(absent)", "0"),
        ("UPPER(absent)", "''"),
        ("absent = '' OR FALSE", "false"),
        ("CONCAT(absent) AND TRUE", "false"),
        ("CONCAT(absent) OR TRUE", "false"),
        ("LOWER(absent) XOR TRUE", "false"),
    ] {
        check(text, &format!("{zero}; {missing}"));
    }
}

#[test]
fn sq_7_arithmetic_truncates_and_never_leaves_32_bits() {
    check("-7 / 2", "-3");
    check("-7 % 2", "-1");
    check("7 % -2", "1");
    check("7 / 0", "0; math: division by zero");
    check("7 % 0", "0; math: division by zero");
    check("-2147483648 % -1", "0");
    let outside = "math: the result does not fit 32 bits";
    check("-2147483648 / -1", &format!("2147483647; {outside}"));
    check("2147483647 + 1", &format!("2147483647; {outside}"));
    check("-2147483648 - 1", &format!("-2147483648; {outside}"));
    check("65536 * -65536", &format!("-2147483648; {outside}"));
    check("- -2147483648", &format!("2147483647; {outside}"));
}

#[test]
fn sq_9_and_sq_10_values_are_cast_to_what_the_right_side_is() {
    check("number = 7", "true");
    check("7 = number", "true");
    check("'07' = 7", "true");
    check("7 = '07'", "false");
    check("flag = 'true'", "true");
    check("'TRUE' = flag", "true");
    check("1 = TRUE", "true");
    check("count = '42'", "true");
    check("count > number", "true");
    check("'+5' + TRUE", "6");
    check(
        "'2147483648' + 0",
        "0; cast: '2147483648' is not an integer",
    );
    check("'5 ' = 5", "false; cast: '5 ' is not an integer");
    check("'yes' AND TRUE", "false; cast: 'yes' is not a boolean");
    check("NOT 'fAlSe'", "true");
    check("'5' IN (5, 6)", "true");
    check("5 IN ('5')", "true");
    check("0 IN ('abc')", "false; cast: 'abc' is not an integer");
    check("10 AND TRUE", "true");
}

#[test]
fn sq_11_patterns_match_whole_texts_by_character() {
    check("text LIKE 'Gr__e'", "true");
    check("text LIKE 'Gr_e'", "false");
    check("'' LIKE '%'", "true");
    check("'' LIKE '_'", "false");
    check("'a%b' LIKE 'a\\%b'", "true");
    check("'axb' LIKE 'a\\%b'", "false");
    check(r"'a\b' LIKE 'a\b'", "true");
    check("'aab' LIKE '%ab'", "true");
    check("'aabab' LIKE '%ab_%'", "true");
    check("'Abc' LIKE 'abc'", "false");
    check("count LIKE '4_'", "true");
}

#[test]
fn sq_13_functions_count_characters() {
    check("LENGTH(text)", "5");
    check("UPPER(text)", "'GRÜSSE'");
    check("LEFT(text, 3)", "'Grü'");
    check("RIGHT(text, 3)", "'üße'");
    check("RIGHT(text, -1)", "'Grüße'; RIGHT: length is negative");
    check("SUBSTRING(text, 3, 2)", "'üß'");
    check("SUBSTRING(text, -3)", "'üße'");
    check("SUBSTRING(text, -3, 1)", "'ü'");
    check("SUBSTRING(text, 5, 9)", "'e'");
    check(
        "SUBSTRING(text, 6)",
        "''; SUBSTRING: position is outside the string",
    );
    check(
        "SUBSTRING(text, -6)",
        "''; SUBSTRING: position is outside the string",
    );
    check(
        "SUBSTRING(text, 2, -1)",
        "''; SUBSTRING: length is negative",
    );
    check(
        "SUBSTRING(text, -2147483648)",
        "''; SUBSTRING: position is outside the string",
    );
    check("SUBSTRING('', 0)", "''");
    check("TRIM('\u{2003} a\t')", "'a'");
    check("CONCAT('a', 1, TRUE)", "'a1true'");
    check("CONCAT_WS(', ', 'a', 'b')", "'a, b'");
    check("CONCAT_WS(',')", "''");
    check("concat_Ws('-', 1, 2)", "'1-2'");
    check("ABS(-7)", "7");
    check(
        "ABS(-2147483648)",
        "2147483647; math: the result does not fit 32 bits",
    );
    check("INT('x')", "0; cast: 'x' is not an integer");
    check("LEFT(CONCAT('abc', 'def'), 4)", "'abcd'");
    check(
        "NOPE(1)",
        "false; there is no function `NOPE` of 1 arguments",
    );
    check(
        "LEFT('a')",
        "false; there is no function `LEFT` of 1 arguments",
    );
}

const FAULTS: [(&str, &str); 23] = [
    (
        "",
        "expected an operand, found the end at byte 0 (line 1, column 1)",
    ),
    (
        "1 +",
        "expected an operand, found the end at byte 3 (line 1, column 4)",
    ),
    (
        "'ü' =\n  ?",
        "unexpected character '?' at byte 9 (line 2, column 3)",
    ),
    ("ü", "unexpected character 'ü' at byte 0 (line 1, column 1)"),
    (
        "a = 'b",
        "string literal has no end at byte 4 (line 1, column 5)",
    ),
    (
        "a = 'b\\'",
        "string literal has no end at byte 4 (line 1, column 5)",
    ),
    (
        "2147483648",
        "integer literal does not fit 32 bits at byte 0 (line 1, column 1)",
    ),
    (
        "-2147483649",
        "integer literal does not fit 32 bits at byte 0 (line 1, column 1)",
    ),
    (
        "x LIKE 123",
        "expected a string literal, found `123` at byte 7 (line 1, column 8)",
    ),
    (
        "x LIKE y",
        "expected a string literal, found `y` at byte 7 (line 1, column 8)",
    ),
    (
        "x NOT = y",
        "expected `LIKE` or `IN`, found `=` at byte 6 (line 1, column 7)",
    ),
    (
        "x IN ()",
        "expected an operand, found `)` at byte 6 (line 1, column 7)",
    ),
    (
        "x IN (1",
        "expected `,` or `)`, found the end at byte 7 (line 1, column 8)",
    ),
    (
        "(1",
        "expected an operator or `)`, found the end at byte 2 (line 1, column 3)",
    ),
    (
        "1 2",
        "expected an operator or the end, found `2` at byte 2 (line 1, column 3)",
    ),
    (
        "'it''s'",
        "expected an operator or the end, found `'s'` at byte 4 (line 1, column 5)",
    ),
    (
        "my_attr = 1",
        "`my_attr` is not the name of an attribute at byte 0 (line 1, column 1)",
    ),
    (
        "data = 1",
        "`data` is not the name of an attribute at byte 0 (line 1, column 1)",
    ),
    (
        "EXISTS 'a'",
        "expected the name of an attribute, found `'a'` at byte 7 (line 1, column 8)",
    ),
    (
        "EXISTS like",
        "`like` is not the name of an attribute at byte 7 (line 1, column 8)",
    ),
    (
        "a AND OR b",
        "expected an operand, found `OR` at byte 6 (line 1, column 7)",
    ),
    (
        "f2(1)",
        "`f2` is not the name of a function at byte 0 (line 1, column 1)",
    ),
    (
        "1 = + 2",
        "expected an operand, found `+` at byte 4 (line 1, column 5)",
    ),
];

#[test]
fn faults_are_named_with_their_place() {
    for (text, expected) in FAULTS {
        let error = Expression::parse(text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let unknown = Expression::parse_filter("TRUE OR\n nope(1, 2) = 3").unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no function `NOPE` of 2 arguments at byte 9 (line 2, column 2)"
    );
}

#[test]
fn sq_15_limits_hold_at_their_edge() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth - 1), ")".repeat(depth - 1));
    let refused = |text: &str| Expression::parse(text).unwrap_err().fault().clone();
    parse(&nested(DEPTH_MAX));
    assert_eq!(refused(&nested(DEPTH_MAX + 1)), Fault::TooDeep);
    let nots = |count: usize| format!("{}TRUE", "NOT ".repeat(count));
    parse(&nots(DEPTH_MAX - 1));
    assert_eq!(refused(&nots(DEPTH_MAX)), Fault::TooDeep);
    let likes = |count: usize| format!("id{}", " LIKE 'a'".repeat(count));
    parse(&likes(DEPTH_MAX - 1));
    assert_eq!(refused(&likes(DEPTH_MAX)), Fault::TooDeep);
    // An operand and an operator each; the last has none.
    let sum = |operands: usize| vec!["1"; operands].join("+");
    parse(&sum(NODES_MAX / 2));
    assert_eq!(refused(&sum(NODES_MAX / 2 + 1)), Fault::TooMany);
    let long = |bytes: usize| format!("'{}'", "x".repeat(bytes - 2));
    parse(&long(BYTES_MAX));
    assert_eq!(refused(&long(BYTES_MAX + 1)), Fault::TooLong);
}

#[test]
fn sq_15_work_is_bounded_whatever_the_event() {
    let long = "a".repeat(60_000);
    let event = Event::builder("1", "/s", "t").attribute("long", long.as_str());
    let event = event.build().unwrap();
    let much = |text: &str| {
        let expression = parse(text);
        let found = expression.evaluate(&event);
        assert!(
            found.errors.contains(&EvaluationError::TooMuchWork),
            "{text}"
        );
        assert!(!expression.matches(&event), "{text}");
    };
    let longs = vec!["long"; 100].join(", ");
    much(&format!("LENGTH(CONCAT({longs})) > 0"));
    much(&format!("LENGTH(CONCAT_WS(long{})) > 0", ", 1".repeat(100)));
    much(&format!("long LIKE '%{}b'", "a_".repeat(1_000)));
    much(&format!("long LIKE '%{}b%'", "a".repeat(1_000)));
    // Patterns as people write them are far from it.
    assert!(parse("long LIKE '%a%a%a%' AND LENGTH(long) = 60000").matches(&event));
}

#[test]
fn attributes_and_the_required_type_are_known_without_an_event() {
    let expression = parse("subject = 'a' AND (EXISTS ext OR LENGTH(ext) IN (1, count))");
    let names = expression
        .attributes()
        .into_iter()
        .map(AttributeName::as_str);
    assert_eq!(names.collect::<Vec<_>>(), ["count", "ext", "subject"]);
    for (text, expected) in [
        ("type = 'a'", Some("a")),
        ("'a' = type", Some("a")),
        ("id = 'x' AND (type = 'a' AND TRUE)", Some("a")),
        ("type = 'a' OR TRUE", None),
        ("type = 'a' AND TRUE OR TRUE", None),
        ("type != 'a'", None),
        ("type = 1", None),
        ("NOT type = 'a'", None),
        ("type LIKE 'a'", None),
    ] {
        assert_eq!(parse(text).required_type(), expected, "{text}");
    }
}

#[test]
fn what_attributes_must_be_is_known_without_an_event() {
    let exact = |name: &str, text: &str| format!("{name}={text}");
    let alternatives = |text: &str| -> Vec<Vec<String>> {
        let expression = parse(text);
        let shown = |(name, needed): &(&AttributeName, Needed<'_>)| match needed {
            Needed::Exact(text) => exact(name.as_str(), text),
            Needed::Prefix(text) => format!("{}={text}%", name.as_str()),
            Needed::Suffix(text) => format!("{}=%{text}", name.as_str()),
            Needed::Present => name.as_str().to_owned(),
        };
        let all = expression.alternatives();
        let each = all
            .iter()
            .map(|alternative| alternative.iter().map(shown).collect());
        each.collect()
    };
    for (text, expected) in [
        (
            "type = 'a' AND ext LIKE 'b%'",
            vec![vec!["type=a"], vec!["ext=b%"]],
        ),
        ("type = 'a' OR id LIKE '%_z'", vec![vec!["type=a", "id=%z"]]),
        ("type = 'a' OR NOT id = 'b'", vec![]),
        (
            "type IN ('a', 'b') AND TRUE",
            vec![vec!["type=a", "type=b"]],
        ),
        ("ext IN ('a', 'b')", vec![]),
        ("'a' = type", vec![vec!["type=a"]]),
        ("'a' = ext", vec![vec!["ext"]]),
        (
            "ext LIKE 'a' AND ext LIKE '%'",
            vec![vec!["ext=a"], vec!["ext"]],
        ),
        ("EXISTS ext", vec![vec!["ext"]]),
        ("type = 'a' AND TRUE OR TRUE", vec![]),
        ("type = 'a' = TRUE", vec![]),
        ("ext = 5", vec![]),
        ("ext NOT LIKE 'a'", vec![]),
    ] {
        assert_eq!(alternatives(text), expected, "{text}");
    }
}

#[test]
fn a_trace_shows_what_each_part_came_to() {
    let event = event();
    let step = parse("type = 'x' OR (EXISTS subject AND absent > 3) OR TRUE").trace(&event);
    let shown = |step: &Step| {
        let value = step.value.as_ref().map(ToString::to_string);
        (
            step.text.clone(),
            value.unwrap_or_default(),
            step.errors.len(),
        )
    };
    let row = |text: &str, value: &str, errors| (text.to_owned(), value.to_owned(), errors);
    assert_eq!(shown(&step).1, "false");
    let parts: Vec<_> = step.parts.iter().map(shown).collect();
    assert_eq!(
        parts,
        [
            row("type = 'x'", "false", 0),
            row("EXISTS subject AND absent > 3", "false", 1),
        ]
    );
    assert_eq!(
        shown(&step.parts[0].parts[0]),
        row("type", "'order.paid.v1'", 0)
    );
    let decided = parse("TRUE AND id = '2' AND 1 / 0 = 1").trace(&event);
    assert_eq!(shown(&decided.parts[1]), row("1 / 0 = 1", "", 0));
}

#[test]
fn sb_3_an_expression_is_a_dialect_and_refused_with_its_place() {
    let filters = |sql: &str| Filters::parse(&json!([{ "not": { "sql": sql } }]));
    let refused = |sql: &str| {
        let error = filters(sql).unwrap_err();
        (error.pointer().to_owned(), error.to_string())
    };
    let text = "type LIKE 'order.%' AND count > 41";
    let compiled = filters(text).unwrap();
    assert!(!compiled.matches(&event()));
    assert_eq!(compiled.to_json(), json!([{ "not": { "sql": text } }]));
    // SQ-1: an error and what is no boolean are no match.
    assert!(filters("absent = 1").unwrap().matches(&event()));
    assert!(filters("count").unwrap().matches(&event()));
    let (pointer, said) = refused("type LIKE\n 7");
    assert_eq!(pointer, "/0/not/sql");
    assert!(
        said.ends_with("found `7` at byte 11 (line 2, column 2)"),
        "{said}"
    );
    assert_eq!(refused("NOPE() = 1").0, "/0/not/sql");
    assert_eq!(refused("").0, "/0/not/sql");
    let required = Filters::parse(&json!([{ "sql": "type = 'a' AND id = 'b'" }])).unwrap();
    assert_eq!(required.required_types(), Some(vec!["a"]));
}
