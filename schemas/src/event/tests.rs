//! Tests of the event value: CE-1 to CE-6 as tables.

use super::*;

fn event() -> Event {
    Event::builder("1", "/s", "a.b").build().unwrap()
}

/// Sets one attribute on top of the required ones.
fn check(name: &str, value: impl Into<AttributeValue<'static>>, expected: Result<(), Fault>) {
    let builder = Event::builder("1", "/s", "a.b").attribute(name, value);
    let got = builder.build().map(|_| ()).map_err(|error| {
        let start: String = name.chars().take(64).collect();
        assert_eq!(error.attribute(), start);
        error.fault()
    });
    assert_eq!(got, expected, "{name}");
}

#[test]
fn ce_1_names_are_short_lower_case_and_free() {
    check("a0", "x", Ok(()));
    check("comexampleextension1", "x", Ok(()));
    check(&"a".repeat(64), "x", Ok(()));
    check(&"a".repeat(65), "x", Err(Fault::InvalidName));
    for name in ["", "A", "a_b", "a-b", "é", "data_base64"] {
        check(name, "x", Err(Fault::InvalidName));
    }
    check("data", "x", Err(Fault::NotAnExtension));
    check("id", "2", Err(Fault::Duplicate));
}

#[test]
fn ce_2_values_are_typed_and_strings_are_clean() {
    check("a", true, Ok(()));
    check("a", i32::MIN, Ok(()));
    check("a", "", Ok(()));
    check("a", "Euro € 😀", Ok(()));
    for text in [
        "\u{0}",
        "a\n",
        "\u{7f}",
        "\u{85}",
        "\u{9f}",
        "\u{fdd0}",
        "\u{fffe}",
        "\u{10ffff}",
    ] {
        check("a", text, Err(Fault::ForbiddenCharacter));
        check("subject", text, Err(Fault::ForbiddenCharacter));
    }
    check("subject", true, Err(Fault::NotAString));
    check(
        "subject",
        AttributeValue::Binary(b"x"),
        Err(Fault::NotAString),
    );
    check("a", AttributeValue::Uri("/relative"), Err(Fault::NotAUri));
    check(
        "a",
        AttributeValue::UriRef("a b"),
        Err(Fault::NotAUriReference),
    );
    check(
        "a",
        AttributeValue::Timestamp("today"),
        Err(Fault::NotATimestamp),
    );
}

#[test]
fn ce_3_required_attributes_are_required_and_not_empty() {
    for (builder, name, fault) in [
        (Event::builder("", "/s", "t"), "id", Fault::Empty),
        (Event::builder("1", "", "t"), "source", Fault::Empty),
        (
            Event::builder("1", "a b", "t"),
            "source",
            Fault::NotAUriReference,
        ),
        (
            Event::builder("1", "/%2", "t"),
            "source",
            Fault::NotAUriReference,
        ),
        (Event::builder("1", "/s", ""), "type", Fault::Empty),
        (Builder::new(), "specversion", Fault::Missing),
        (
            Builder::new().attribute("specversion", "0.3"),
            "specversion",
            Fault::UnsupportedVersion,
        ),
        (
            Builder::new().attribute("specversion", "1.0"),
            "id",
            Fault::Missing,
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!((error.attribute(), error.fault()), (name, fault));
    }
}

#[test]
fn ce_4_optional_attributes_have_their_forms() {
    check("subject", "", Err(Fault::Empty));
    check("dataschema", "https://example.com/s", Ok(()));
    for text in ["/s", "1a:b", ":x", "a b:c", "https://é"] {
        check("dataschema", text, Err(Fault::NotAUri));
    }
    check("datacontenttype", "text/plain; charset=\"utf-8\"", Ok(()));
    for text in ["json", "/json", "a/", "a b/c", "a/b\n", "é/b"] {
        check("datacontenttype", text, Err(Fault::NotAMediaType));
    }
    for text in [
        "2026-11-22T07:15:00Z",
        "2024-02-29t00:00:60.123456789z",
        "0000-01-01T23:59:59-23:59",
    ] {
        check("time", text, Ok(()));
    }
    for text in [
        "2026-11-22",
        "2026-11-22 07:15:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T07:60:00Z",
        "2026-11-22T07:15:61Z",
        "2026-11-22T07:15:00",
        "2026-11-22T07:15:00.Z",
        "2026-11-22T07:15:00+24:00",
        "2026-11-22T07:15:00+0100",
        "2026-11-22T+7:15:00Z",
        "2026-11-22T07:15:00Z[UTC]",
    ] {
        check("time", text, Err(Fault::NotATimestamp));
    }
}

#[test]
fn time_is_kept_as_written() {
    let event = Event::builder("1", "/s", "t")
        .time("2026-11-22t07:15:00.50+00:00")
        .build();
    assert_eq!(event.unwrap().time(), Some("2026-11-22t07:15:00.50+00:00"));
}

#[test]
fn ce_9_data_is_json_by_media_type() {
    for (kind, expected) in [
        ("application/json", true),
        ("TEXT/JSON; charset=utf-8", true),
        ("application/vnd.a+b+json", true),
        ("application/jsonx", false),
        ("application/json+xml", false),
        ("text/plain", false),
    ] {
        let event = Event::builder("1", "/s", "t")
            .data(kind, "1")
            .build()
            .unwrap();
        assert_eq!(event.data_is_json(), expected, "{kind}");
        assert_eq!(event.has_valid_json(), expected, "{kind}");
    }
    let mut invalid = Event::builder("1", "/s", "t")
        .untyped_data(&b"\"\xff\""[..])
        .build()
        .unwrap();
    assert!(invalid.data_is_json() && !invalid.verify_json());
}

#[test]
fn attributes_are_seen_as_strings() {
    let event = Event::builder("1", "/s", "t")
        .attribute("flag", true)
        .attribute("count", -7)
        .attribute("bin", AttributeValue::Binary(&[0xff]))
        .build()
        .unwrap();
    for (name, expected) in [
        ("specversion", Some("1.0")),
        ("type", Some("t")),
        ("subject", None),
        ("flag", Some("true")),
        ("count", Some("-7")),
        ("bin", Some("/w==")),
        ("absent", None),
    ] {
        assert_eq!(event.attribute(name), expected, "{name}");
        assert_eq!(
            event.get(&AttributeName::new(name).unwrap()),
            expected,
            "{name}"
        );
    }
    assert_eq!(event.extension("count"), Some(AttributeValue::Integer(-7)));
    assert_eq!(event.extension("flag"), Some(AttributeValue::Boolean(true)));
}

#[test]
fn the_tenant_is_a_reserved_extension_and_clones_keep_their_own() {
    let mut event = event();
    assert_eq!(event.reserved_extension(), None);
    let before = event.clone();
    event.set_tenant("acme").unwrap();
    event.set_tenant("other").unwrap();
    assert_eq!((before.tenant(), event.tenant()), (None, Some("other")));
    assert_eq!(event.reserved_extension(), Some(TENANT));
    assert!(event.remove_extension(TENANT) && !event.remove_extension(TENANT));
    assert_eq!(event, before);
    assert!(event.set_extension("id", "x".into()).is_err());
}

#[test]
fn the_loop_count_is_read_from_any_form() {
    let mut event = event();
    assert_eq!(event.loop_count(), 0);
    event.set_extension(LOOP, 2.into()).unwrap();
    assert_eq!(event.loop_count(), 2);
    event.set_extension(LOOP, "3".into()).unwrap();
    assert_eq!(event.loop_count(), 3);
}

#[test]
fn debug_shows_no_payload() {
    let event = Event::builder("1", "/s", "t")
        .untyped_data("\"secret\"")
        .build()
        .unwrap();
    assert!(!format!("{event:?}").contains("secret"));
}
