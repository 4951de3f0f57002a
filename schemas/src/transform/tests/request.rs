//! The request that templates make, and that its path leads to no other place.

use super::*;

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
