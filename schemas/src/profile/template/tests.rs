//! Templates by example: what they make, what they may not, and where it ends.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::profile::RequestTemplates;

fn chunk(members: &serde_json::Value) -> Chunk {
    let data = json!({
        "operation": "add",
        "list": "l 1",
        "variables": {"name": "a/b", "dots": "..", "number": 7, "line": "a\r\nb"},
        "members": members,
    });
    Chunk::read(&Bytes::from(data.to_string())).unwrap()
}

fn add(path: &str, header: Option<&str>, body: &str) -> Result<Compiled, Faults> {
    let headers = header.map(|value| ("x-own".to_owned(), value.to_owned()));
    Compiled::new(RequestTemplates {
        add: Some(Operation {
            path: path.to_owned(),
            headers: headers.into_iter().collect(),
            body: Some(body.to_owned()),
            ..Operation::default()
        }),
        ..RequestTemplates::default()
    })
}

fn body(source: &str, members: &serde_json::Value) -> Result<String, String> {
    let compiled = add("", None, source).map_err(|faults| format!("{faults:?}"))?;
    let rendered = compiled.render(&chunk(members), BODY_BYTES_MAX);
    let rendered = rendered.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(rendered.body.unwrap()).unwrap())
}

#[test]
fn bodies_are_made_of_the_chunk() {
    let members = json!([{"id": "a", "n": 1.5, "t": "<\"é&>"}, {"id": "b", "o": {"p": [1]}}]);
    let check = |source: &str, expected: &str| {
        assert_eq!(body(source, &members).as_deref(), Ok(expected), "{source}");
    };
    check("plain", "plain");
    // As they came, and not escaped for HTML.
    check("{{ members|tojson }}", &members.to_string());
    check("{{ members[0]|tojson }}", &members[0].to_string());
    check("{{ members[0].t|tojson }}", r#""<\"é&>""#);
    check(
        "{{ members|map(attribute='id')|list|tojson }}",
        r#"["a","b"]"#,
    );
    check(
        "{{ members|length }} {{ operation }} {{ list }}",
        "2 add l 1",
    );
    check(
        "{% for m in members %}{{ m.id }}{{ ',' if not loop.last }}{% endfor %}",
        "a,b",
    );
    check(
        "{% for k, v in members[1]|items if k != 'id' %}{{ loop.first }}{{ k }}={{ v|tojson }}{% endfor %}",
        r#"Trueo={"p":[1]}"#,
    );
    check(
        "{{ members[1].n|default(0) }}{{ members[1].n is defined }}",
        "0False",
    );
    check("{{ 'a'|concat('b', 7, variables.name)|upper }}", "AB7A/B");
    check(
        "{{ ['x', 'y']|join('-') }}{{ 'aXb'|replace('X', '--') }}",
        "x-ya--b",
    );
    check(
        "{{ ' A '|trim|lower|sha256 }}",
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    );
    check(
        "{{ variables.name|segment }}{{ 'ä ?#'|segment }}{{ '7'|int }}",
        "a%2Fb%C3%A4%20%3F%237",
    );
}

#[test]
fn numbers_are_calculated_with() {
    let members = json!([{"id": "a", "price": 19.99, "count": 3}]);
    let check =
        |source: &str, expected: Result<&str, &str>| match (body(source, &members), expected) {
            (Ok(made), Ok(expected)) => assert_eq!(made, expected, "{source}"),
            (Err(told), Err(part)) => assert!(told.contains(part), "{source}: {told}"),
            (made, expected) => panic!("{source}: {made:?}, not {expected:?}"),
        };
    check("{{ members[0].count|add(2)|times(10) }}", Ok("50"));
    check("{{ members[0].price|times(100)|round|int }}", Ok("1999"));
    check(
        "{{ members[0].price|times(members[0].count)|round(2)|tojson }}",
        Ok("59.97"),
    );
    check(
        "{{ '1.5'|float|add(1) }}{{ 7 - 2 }}{{ 7 // 2 }}",
        Ok("2.553"),
    );
    check("{{ members[0].id|add(1) }}", Err("must be numbers"));
    check("{{ 9223372036854775807|add(1) }}", Err("too large"));
    check("{{ 9223372036854775807.5|times(1e300) }}", Err("too large"));
}

#[test]
fn every_filter_and_test_that_may_be_written_is_there() {
    let environment = engine::environment(1);
    let listed = format!("{environment:?}");
    for name in language::FILTERS.iter().chain(&language::TESTS) {
        assert!(listed.contains(name), "{name}");
    }
}

#[test]
fn what_is_not_there_is_an_error_and_never_shown_with_data() {
    let members = json!([{"id": "somebody"}]);
    for source in [
        "{{ members[0].email }}",
        "{{ members[0].email|tojson }}",
        "{{ nothing }}",
        "{% if members[0].email %}{% endif %}",
        "{{ members[0].id.x.y }}",
        "{{ members|string }}",
        "{{ ' work' }}{{ work }}",
    ] {
        let told = body(source, &members).unwrap_err();
        assert!(
            told.starts_with("template add/body: line 1"),
            "{source}: {told}"
        );
        assert!(!told.contains("somebody"), "{told}");
    }
}

#[test]
fn work_and_bytes_are_bounded() {
    let members: Vec<_> = (0..2_000)
        .map(|at| json!({"id": format!("member-{at}")}))
        .collect();
    let members = json!(members);
    let nested = "{% for a in members %}{% for b in members %}{% for c in members %}{{ a.id }}{% endfor %}{% endfor %}{% endfor %}";
    let compiled = add("", None, nested).unwrap();
    let error = compiled
        .render(&chunk(&members), 1_000)
        .unwrap_err()
        .to_string();
    assert!(error.contains("made more than 1000 bytes"), "{error}");
    let silent = "{% for a in members %}{% for b in members %}{% if a.id == b %}{% endif %}{% endfor %}{% endfor %}";
    let error = body(silent, &members).unwrap_err();
    assert!(error.contains("fuel"), "{error}");
    let costly = "{% for a in members %}{% if members|tojson == a %}{% endif %}{% endfor %}";
    let error = body(costly, &members).unwrap_err();
    assert!(error.contains("filters have made more"), "{error}");
    let listed: String = (0..200)
        .map(|at| format!("{{% set x{at} = members|map(attribute='id')|list %}}"))
        .collect();
    assert!(listed.len() < BODY_TEMPLATE_BYTES_MAX);
    let lists = "{% for a in members %}{% if members|list|length == a %}{% endif %}{% endfor %}";
    let error = body(lists, &members).unwrap_err();
    assert!(error.contains("filters have made more"), "{error}");
    assert_eq!(body(&listed, &members).as_deref(), Ok(""));
    let growing: String = (0..40)
        .map(|_| "{% set x = x|default(members|tojson)|concat(x|default('')) %}")
        .collect();
    assert!(body(&growing, &members).is_err());
}

#[test]
fn the_largest_chunk_has_enough_steps() {
    let fields: serde_json::Map<_, _> = (0..10)
        .map(|at| (format!("field_{at}"), json!(at)))
        .collect();
    let member = serde_json::Value::Object(fields);
    let source = "{% for m in members %}{% for k, v in m|items if k != 'id' %}{{ ',' if not loop.first }}{{ k|tojson }}:{{ v|tojson }}{% endfor %}{% endfor %}";
    for count in [FEW_MEMBERS, FEW_MEMBERS + 1, 10_000] {
        let made = body(source, &json!(vec![member.clone(); count]));
        assert!(made.is_ok(), "{count}: {made:?}");
    }
}

#[test]
fn a_path_never_leaves_the_endpoints_url() {
    // rule 10
    let check = |path: &str, expected: Result<&str, &str>| {
        let made = add(path, None, "").unwrap().render(&chunk(&json!([])), 10);
        match (made, expected) {
            (Ok(made), Ok(expected)) => assert_eq!(made.path, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (made, expected) => panic!("{path}: {made:?}, not {expected:?}"),
        }
    };
    check("", Ok(""));
    check(
        "/lists/{{ list|segment }}?a={{ variables.name|segment }}",
        Ok("/lists/l%201?a=a%2Fb"),
    );
    check("?q={{ variables.number }}", Ok("?q=7"));
    check("/v1/jobs:run", Ok("/v1/jobs:run"));
    check("/x/{{ variables.name }}", Ok("/x/a/b"));
    check("{{ variables.name }}", Err("does not begin"));
    check("//evil.example/", Err("empty segment"));
    check("/{{ variables.dots|segment }}/x", Err("dots"));
    check("/a/%2e%2E", Err("dots"));
    check("/a/./b", Err("dots"));
    check("/{{ list }}", Err("segment"));
    check("/{{ variables.line }}", Err("segment"));
    check("/a#b", Err("segment"));
    check("/a\\b", Err("segment"));
    check("@evil.example/", Err("does not begin"));
}

#[test]
fn a_header_is_one_line() {
    let check = |value: &str, fine: bool| {
        let made = add("", Some(value), "")
            .unwrap()
            .render(&chunk(&json!([])), 10);
        assert_eq!(made.is_ok(), fine, "{value}: {made:?}");
    };
    check("2025-10-15", true);
    check("a {{ variables.number }}", true);
    check("a {{ variables.line }}", false);
    check("a\r\nx: y", false);
    check("é", false);
}

#[test]
fn an_update_is_an_addition_where_nothing_else_is_said() {
    let compiled = add("/x", None, "{{ operation }}").unwrap();
    let mut chunk = chunk(&json!([]));
    chunk.operation = OperationKind::Update;
    let rendered = compiled.render(&chunk, 10).unwrap();
    assert_eq!(
        (rendered.path.as_str(), rendered.body.unwrap()),
        ("/x", b"update".to_vec())
    );
    chunk.operation = OperationKind::Poll;
    let none = RenderError::NoOperation(OperationKind::Poll);
    assert_eq!(compiled.render(&chunk, 10), Err(none));
}

proptest! {
    /// Whatever a member holds, what is written as JSON is JSON, and says the same.
    #[test]
    fn any_member_is_written_as_json(id in ".{0,20}", key in "[a-z_]{1,8}", text in ".{0,40}") {
        prop_assume!(key != "id");
        let members = json!([{"id": id, key: text}]);
        let source = "[{% for m in members %}{{ '{' }}{% for k, v in m|items %}{{ ',' if not loop.first }}{{ k|tojson }}:{{ v|tojson }}{% endfor %}{{ '}' }}{% endfor %}]";
        let made = body(source, &members).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&made).unwrap(), members);
    }

    /// Whatever a value holds, as a segment it is one.
    #[test]
    fn any_value_stays_in_its_segment(text in ".{1,20}") {
        let mut chunk = chunk(&json!([]));
        chunk.list = json!(text);
        let made = add("/a/{{ list|segment }}/b", None, "").unwrap().render(&chunk, 10);
        match made {
            Ok(made) => {
                let url = url::Url::parse(&format!("https://h.example/base{}", made.path)).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 4);
                prop_assert_eq!((segments[0], segments[1], segments[3]), ("base", "a", "b"));
            }
            Err(_) => prop_assert!(text == "." || text == ".."),
        }
    }
}
