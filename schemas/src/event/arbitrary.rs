//! Owns the generator of valid events for property tests.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::value::is_forbidden;
use super::{AttributeValue, Context, Event};

/// A string that CE-2 admits, 1 to 11 characters of any script.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let admitted = |found: char| if is_forbidden(found) { '€' } else { found };
    let character = prop_oneof![
        4 => proptest::char::range(' ', '~'),
        1 => any::<char>().prop_map(admitted),
    ];
    vec(character, 1..12).prop_map(|characters| characters.into_iter().collect())
}

#[derive(Debug, Clone)]
enum Owned {
    Boolean(bool),
    Integer(i32),
    String(String),
    Binary(Vec<u8>),
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        any::<bool>().prop_map(Owned::Boolean),
        any::<i32>().prop_map(Owned::Integer),
        text().prop_map(Owned::String),
        vec(any::<u8>(), 0..9).prop_map(Owned::Binary),
    ]
}

fn payload() -> impl Strategy<Value = (Option<&'static str>, Option<Bytes>)> {
    let json = [
        r#"{"a": [1,  2.50e1],"b":"\u20ac\\"}"#,
        "null",
        "0",
        "\"\"",
        "[ ]",
        "{bad",
        "\"€\"",
    ];
    let types = [
        None,
        Some("application/json"),
        Some("Application/Vnd.x+JSON; charset=utf-8"),
        Some("x/y"),
    ];
    let texts = select(vec![
        Some("text/plain"),
        Some("application/xml"),
        Some("application/zip"),
    ]);
    let bytes = || vec(any::<u8>(), 1..20).prop_map(|bytes| Some(Bytes::from(bytes)));
    let documents =
        select(json.to_vec()).prop_map(|text| Some(Bytes::from_static(text.as_bytes())));
    prop_oneof![
        select(types.to_vec()).prop_map(|kind| (kind, None)),
        (select(types.to_vec()), prop_oneof![documents, bytes()]),
        (
            texts.clone(),
            text().prop_map(|text| Some(Bytes::from(text)))
        ),
        (texts, bytes()),
    ]
}

/// Any valid event.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let times = [
        None,
        Some("2026-11-22T07:15:00Z"),
        Some("1985-04-12t23:20:60.5200+05:30"),
    ];
    let sources = select(vec!["/a", "https://example.com/b?c=%20#d", "urn:x:y"]);
    let schemas = select(vec![None, Some("https://example.com/schema")]);
    let names = "[a-z0-9]{1,20}".prop_filter("a free name", |name| {
        name != "data" && Context::from_name(name).is_none()
    });
    (
        (text(), sources, text()),
        (
            proptest::option::of(text()),
            select(times.to_vec()),
            schemas,
        ),
        btree_map(names, value(), 0..5),
        payload(),
    )
        .prop_map(
            |((id, source, ty), (subject, time, schema), extensions, (kind, data))| {
                let mut builder = Event::builder(&id, source, &ty);
                let optional = [
                    ("subject", subject.as_deref()),
                    ("time", time),
                    ("dataschema", schema),
                    ("datacontenttype", kind),
                ];
                for (name, text) in optional {
                    if let Some(text) = text {
                        builder.set(name, text.into()).unwrap();
                    }
                }
                for (name, value) in &extensions {
                    let value = match value {
                        Owned::Boolean(value) => AttributeValue::Boolean(*value),
                        Owned::Integer(value) => AttributeValue::Integer(*value),
                        Owned::String(value) => AttributeValue::String(value),
                        Owned::Binary(value) => AttributeValue::Binary(value),
                    };
                    builder.set(name, value).unwrap();
                }
                if let Some(data) = data {
                    builder = builder.untyped_data(data);
                }
                builder.build().unwrap()
            },
        )
}
