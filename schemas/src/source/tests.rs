//! What records become, as tables; and what holds for every array.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Decoded, Decoder, ITEMS_MAX, Item, RecordParts, TEXT_BYTES_MAX};
use crate::event::{ACCEPTED, AttributeValue, Event, LOOP};
use crate::records::ControlObject;
use crate::resources::Source;

/// A source of topic `shop.orders` and tenant `acme`, and what `more` says of it.
pub(super) fn source(more: &Value) -> Source {
    let mut object = json!({
        "version": 1, "kind": "source", "id": "src_00000000000000000000000001",
        "tenant": "acme", "topic": "shop.orders", "created_at": 0, "updated_at": 0,
    });
    for (name, value) in more.as_object().unwrap() {
        object[name] = value.clone();
    }
    match ControlObject::decode(object.to_string().as_bytes()) {
        Ok(ControlObject::Source(source)) => *source,
        other => panic!("{other:?}"),
    }
}

const HEADERS: [(&str, &[u8]); 3] = [("kind", b"lead"), ("kind", b"second"), ("broken", b"\xff")];

fn decode(more: &Value, key: Option<&str>, value: Option<&str>) -> Decoded {
    let key = key.map(|text| Bytes::from(text.to_owned()));
    let value = value.map(|text| Bytes::from(text.to_owned()));
    Decoder::new(source(more)).decode(&RecordParts {
        partition: 3,
        offset: 41,
        timestamp: 1_795_331_700_000,
        key: key.as_ref(),
        value: value.as_ref(),
        headers: HEADERS,
    })
}

fn items(more: &Value, key: Option<&str>, value: &str) -> Vec<Item> {
    match decode(more, key, Some(value)) {
        Decoded::Items(items) => items.collect(),
        Decoded::Tombstone => panic!("a tombstone"),
        Decoded::Poison(words) => panic!("{words}"),
    }
}

fn one(more: &Value, key: Option<&str>, value: &str) -> Result<Event, String> {
    let [item] = <[Item; 1]>::try_from(items(more, key, value)).unwrap();
    assert_eq!(item.index, 0);
    item.event
}

fn words(more: &Value, key: Option<&str>, value: &str) -> String {
    match decode(more, key, Some(value)) {
        Decoded::Poison(words) => words,
        Decoded::Items(mut items) => items.next().unwrap().event.unwrap_err(),
        Decoded::Tombstone => panic!("a tombstone"),
    }
}

fn attributes(event: &Event) -> Value {
    let context = event.context().map(|(name, text)| (name.name(), text));
    let extensions = event.extension_texts();
    let all = context.chain(extensions);
    let all = all.filter(|(name, _)| *name != "specversion" && *name != "anabranchtenant");
    all.map(|(name, text)| (name.to_owned(), Value::from(text)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const AT: &str = "2026-11-22T07:15:00Z";

#[test]
fn json_has_attributes_by_itself() {
    let more = json!({ "format": "json", "event": { "type": { "constant": "order" } } });
    let value = " {\"a\": 1.50} ";
    let event = one(&more, Some("k-1"), value).unwrap();
    assert_eq!(
        attributes(&event),
        json!({
            "id": "shop.orders/3/41", "source": "/kafka/shop.orders", "type": "order", "time": AT,
            "datacontenttype": "application/json", "partitionkey": "k-1",
        })
    );
    assert_eq!(event.tenant(), Some("acme"));
    assert_eq!(event.data().unwrap(), value, "the bytes stay as they are");
}

#[test]
fn opaque_bytes_are_passed_on() {
    let more = json!({ "format": "opaque", "event": {
        "type": { "header": "kind" }, "source": { "constant": "/mainframe" } } });
    let event = one(&more, None, "\u{0}\u{1}").unwrap();
    assert_eq!(
        attributes(&event),
        json!({
            "id": "shop.orders/3/41", "source": "/mainframe", "type": "lead", "time": AT,
            "datacontenttype": "application/octet-stream",
        })
    );
    assert_eq!(event.data().unwrap(), "\u{0}\u{1}");
}

#[test]
fn expressions_take_texts_numbers_and_flags() {
    let check = |expression: Value, expected: Option<&str>| {
        let more = json!({ "format": "json", "event": {
            "type": { "constant": "t" }, "subject": expression } });
        let value = r#"{"s":"a\u0062","n":1e400,"t":true,"z":null,"e":"","l":["x"]}"#;
        let event = one(&more, Some("key"), value).unwrap();
        assert_eq!(event.subject(), expected, "{more}");
    };
    check(json!({ "constant": "c" }), Some("c"));
    check(json!({ "header": "kind" }), Some("lead"));
    check(json!({ "header": "none" }), None);
    check(json!({ "key": true }), Some("key"));
    check(json!({ "pointer": "/s" }), Some("ab"));
    check(json!({ "pointer": "/n" }), Some("1e400"));
    check(json!({ "pointer": "/t" }), Some("true"));
    check(json!({ "pointer": "/z" }), None);
    check(json!({ "pointer": "/e" }), None);
    check(json!({ "pointer": "/none" }), None);
    check(json!({ "record": "/l/0" }), Some("x"));
}

#[test]
fn a_time_is_rfc_3339_or_milliseconds() {
    let check = |time: Value, expected: Result<Option<&str>, &str>| {
        let more = json!({ "format": "json", "event": {
            "type": { "constant": "t" }, "time": { "pointer": "/at" } } });
        let made = one(&more, None, &json!({ "at": time }).to_string());
        match (&made, expected) {
            (Ok(event), Ok(expected)) => assert_eq!(event.time(), expected, "{time}"),
            (Err(words), Err(part)) => assert!(words.contains(part), "{words}"),
            (_, _) => panic!("{time}: {made:?}"),
        }
    };
    check(json!(1_795_331_700_000_i64), Ok(Some(AT)));
    check(json!("1795331700000"), Ok(Some(AT)));
    check(
        json!("2026-11-22T08:15:00+01:00"),
        Ok(Some("2026-11-22T08:15:00+01:00")),
    );
    check(json!(null), Ok(None));
    check(json!("yesterday"), Err("time"));
    check(json!(9_000_000_000_000_000_i64), Err("is no time"));
}

#[test]
fn what_cannot_be_an_event_says_why() {
    let check = |event: Value, value: &str, part: &str| {
        let more = json!({ "format": "json", "event": event });
        let words = words(&more, None, value);
        assert!(words.contains(part), "{words}");
    };
    let kind = json!({ "type": { "pointer": "/kind" } });
    check(kind.clone(), "{", "value is not json: EOF");
    check(
        kind.clone(),
        "{}",
        "`event.type`: there is nothing at `/kind`",
    );
    check(
        kind.clone(),
        r#"{"kind":{}}"#,
        "`event.type`: what is at `/kind` is an object",
    );
    check(
        kind.clone(),
        r#"{"kind":"\ud800"}"#,
        "`event.type`: what is at `/kind` is no text",
    );
    check(kind.clone(), "{\"kind\":\"a\\u0007\"}", "`type`");
    let long = json!({ "kind": "x".repeat(TEXT_BYTES_MAX + 1) }).to_string();
    check(kind, &long, "is longer than 4096 bytes");
    let with =
        |name: &str, expression: Value| json!({ "type": { "constant": "t" }, name: expression });
    check(
        with("id", json!({ "key": true })),
        "{}",
        "`event.id`: the record has no key",
    );
    check(
        with("source", json!({ "header": "none" })),
        "{}",
        "there is no header `none`",
    );
    check(
        with("source", json!({ "pointer": "/s" })),
        r#"{"s":"a b"}"#,
        "source",
    );
    check(
        with("subject", json!({ "header": "broken" })),
        "{}",
        "is not utf-8",
    );
}

#[test]
fn a_key_becomes_an_order_key_only_where_it_is_text() {
    let check = |key: &str, expected: Option<&str>| {
        let more = json!({ "format": "opaque", "event": { "type": { "constant": "t" } } });
        let event = one(&more, Some(key), "x").unwrap();
        assert_eq!(event.attribute("partitionkey"), expected, "{key:?}");
    };
    check("k", Some("k"));
    check("", None);
    check("a\u{0}", None);
    check(&"k".repeat(1_025), None);
}

#[test]
fn an_array_is_split_and_a_bad_item_harms_no_other() {
    let more = json!({ "format": "json", "split": "/items", "event": {
        "type": { "pointer": "/kind" }, "subject": { "record": "/shop" } } });
    let value = r#"{"shop": 7, "items": [ {"kind":"a"} , {}, {"kind":"b", "n":1.0}] }"#;
    let items = items(&more, None, value);
    let data = [r#"{"kind":"a"}"#, "{}", r#"{"kind":"b", "n":1.0}"#];
    for (at, item) in items.iter().enumerate() {
        assert_eq!(item.index as usize, at);
        assert_eq!(item.data.as_ref().unwrap(), data[at]);
        match &item.event {
            Ok(event) => {
                assert_eq!(event.id(), format!("shop.orders/3/41/{at}"));
                assert_eq!(event.subject(), Some("7"));
                assert_eq!(event.data(), item.data.as_ref());
            }
            Err(words) => assert!(at == 1 && words.contains("nothing at `/kind`"), "{words}"),
        }
    }
    assert_eq!(items.len(), 3);
    for (value, part) in [
        ("{}", "`split`: there is nothing at `/items`"),
        (r#"{"items":{}}"#, "`split`: there is no array at `/items`"),
    ] {
        assert_eq!(words(&more, None, value), part);
    }
    assert_eq!(items_of(&more, r#"{"items":[]}"#), 0);
    let many = |count: usize| json!({ "items": vec![0; count] }).to_string();
    assert_eq!(items_of(&more, &many(ITEMS_MAX)), ITEMS_MAX);
    assert!(words(&more, None, &many(ITEMS_MAX + 1)).contains("more than 10000 items"));
}

fn items_of(more: &Value, value: &str) -> usize {
    items(more, None, value).len()
}

#[test]
fn items_that_share_an_id_are_told_apart_by_their_places() {
    let ids = |id: Value| -> Vec<String> {
        let more = json!({ "format": "json", "split": "", "event": {
            "type": { "constant": "t" }, "id": id } });
        let items = items(&more, Some("k"), r#"[{"n":"a"},{"n":"b"}]"#);
        let ids = items
            .into_iter()
            .map(|item| item.event.unwrap().id().to_owned());
        ids.collect()
    };
    assert_eq!(ids(json!({ "key": true })), ["k/0", "k/1"]);
    assert_eq!(ids(json!({ "header": "kind" })), ["lead/0", "lead/1"]);
    assert_eq!(ids(json!({ "pointer": "/n" })), ["a", "b"]);
}

const ROW: &str = r#"{"before":null,"after":{"id":7,"v":1.50},"source":{"connector":"postgresql",
    "ts_ms":1795331700000,"db":"shop","schema":"public","table":"orders"},"op":"c","ts_ms":1795331700999}"#;

#[test]
fn debezium_is_read_with_and_without_its_schema() {
    let more = json!({ "format": "debezium", "event": { "subject": { "pointer": "/after/id" } } });
    let wrapped = format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{ROW}}}"#);
    for (key, value) in [
        (r#"{"id":7}"#, ROW),
        (r#"{"schema":{},"payload":{"id":7}}"#, wrapped.as_str()),
    ] {
        let event = one(&more, Some(key), value).unwrap();
        assert_eq!(
            attributes(&event),
            json!({
                "id": "shop.orders/3/41", "source": "/kafka/shop.orders", "type": "orders.created",
                "time": AT, "subject": "7", "partitionkey": r#"{"id":7}"#,
                "datacontenttype": "application/json", "iodebeziumop": "c",
                "iodebeziumdb": "shop", "iodebeziumschema": "public", "iodebeziumtable": "orders",
            })
        );
        assert_eq!(event.data().unwrap(), ROW);
    }
}

#[test]
fn each_change_has_its_word_and_a_tombstone_is_none() {
    let more = json!({ "format": "debezium" });
    for (op, word) in [
        ("c", "created"),
        ("u", "updated"),
        ("d", "deleted"),
        ("r", "read"),
        ("t", "truncated"),
    ] {
        let value = ROW.replace(r#""op":"c""#, &format!(r#""op":"{op}""#));
        let event = one(&more, None, &value).unwrap();
        assert_eq!(event.ty(), format!("orders.{word}"));
        assert_eq!(event.attribute("iodebeziumop"), Some(op));
    }
    for tombstone in [
        decode(&more, Some("k"), None),
        decode(&more, None, Some(r#"{"schema":null,"payload":null}"#)),
        decode(&more, None, Some("null")),
        decode(
            &json!({ "format": "json", "event": { "type": { "key": true } } }),
            Some("k"),
            None,
        ),
        decode(
            &json!({ "format": "opaque", "event": { "type": { "key": true } } }),
            Some("k"),
            None,
        ),
    ] {
        assert!(matches!(tombstone, Decoded::Tombstone), "{tombstone:?}");
    }
    for (value, part) in [
        ("[]", "it is no object"),
        (r#"{"after":{}}"#, "it has no `op`"),
        (r#"{"schema":{},"payload":"x"}"#, "it is no object"),
        (r#"{"op":"m"}"#, "`op` is `m`, none of c, u, d, r, t"),
    ] {
        let words = words(&more, None, value);
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn a_change_without_a_table_or_a_time_is_still_one() {
    let event = one(
        &json!({ "format": "debezium" }),
        None,
        r#"{"op":"u","ts_ms":1795331700000}"#,
    );
    let event = event.unwrap();
    assert_eq!((event.ty(), event.time()), ("row.updated", Some(AT)));
}

/// A cloudevent's record in one of the two modes, decoded.
fn cloud_event(event: &Event, structured: bool) -> Decoded {
    let (headers, value) = if structured {
        let (headers, value) = crate::codec::kafka::encode_structured(event);
        (headers, Some(value))
    } else {
        crate::codec::kafka::encode_binary(event)
    };
    let pairs: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    Decoder::new(source(&json!({ "format": "cloudevents" }))).decode(&RecordParts {
        partition: 0,
        offset: 0,
        timestamp: -1,
        key: None,
        value: value.as_ref(),
        headers: pairs,
    })
}

#[test]
fn a_cloudevent_keeps_what_it_says_but_its_tenant() {
    // CE-17
    let mut event = Event::builder("1", "/s", "t")
        .attribute("partitionkey", "p")
        .data("application/json", "{}")
        .build()
        .unwrap();
    event.set_tenant("other").unwrap();
    event
        .set_extension(LOOP, AttributeValue::Integer(2))
        .unwrap();
    event
        .set_extension(ACCEPTED, AttributeValue::String("1"))
        .unwrap();
    for structured in [false, true] {
        let Decoded::Items(mut items) = cloud_event(&event, structured) else {
            panic!("no event");
        };
        assert!(!items.is_empty());
        let found = items.next().unwrap().event.unwrap();
        assert_eq!(
            (found.tenant(), found.loop_count()),
            (Some("acme"), 2),
            "rule 19"
        );
        assert_eq!(found.attribute(ACCEPTED), None);
        assert_eq!(
            (found.id(), found.attribute("partitionkey")),
            ("1", Some("p"))
        );
        assert!(items.is_empty() && items.next().is_none());
    }
    let poison = words(&json!({ "format": "cloudevents" }), None, "{}");
    assert!(poison.contains("specversion"), "{poison}");
}

#[test]
fn fixtures_of_sources_are_read_for_ever() {
    let full = ControlObject::decode(
        include_str!("../records/fixtures/control-v1-source-full.json").as_bytes(),
    );
    let ControlObject::Source(read) = full.unwrap() else {
        panic!("no source");
    };
    let expected = source(&json!({
        "id": "src_0000000000000000000000000a", "name": "Orders", "format": "json",
        "event": {
            "type": { "pointer": "/kind" }, "source": { "constant": "/shop" },
            "subject": { "header": "subject" }, "key": { "key": true },
            "id": { "pointer": "/id" }, "time": { "record": "/at" },
        },
        "split": "/items", "start": "earliest", "weight": 25,
        "created_at": 1_764_000_000_000_i64, "updated_at": 1_764_000_000_000_i64,
    }));
    assert_eq!(*read, expected);
    let again = ControlObject::Source(read.clone()).encode();
    assert_eq!(
        ControlObject::decode(&again),
        Ok(ControlObject::Source(read))
    );
    let plain = ControlObject::decode(
        include_str!("../records/fixtures/control-v1-source-plain.json").as_bytes(),
    );
    let ControlObject::Source(plain) = plain.unwrap() else {
        panic!("no source");
    };
    assert_eq!(
        (plain.weight, plain.split, plain.event.is_empty()),
        (10, None, true)
    );
}

proptest! {
    /// Each item is its own event, in order, with its bytes as they were.
    #[test]
    fn every_item_of_an_array_becomes_what_it_says(
        kinds in prop::collection::vec(prop::option::of("[a-zé\"\\\\]{1,6}"), 0..20),
        pretty: bool,
    ) {
        let document = json!({ "a": { "items": kinds.iter().map(|kind| json!({ "k": kind })).collect::<Vec<_>>() } });
        let text = if pretty {
            serde_json::to_string_pretty(&document).unwrap()
        } else {
            document.to_string()
        };
        let more = json!({ "format": "json", "split": "/a/items", "event": { "type": { "pointer": "/k" } } });
        let items = items(&more, None, &text);
        prop_assert_eq!(items.len(), kinds.len());
        for ((at, item), kind) in items.iter().enumerate().zip(&kinds) {
            let data: Value = serde_json::from_slice(item.data.as_ref().unwrap()).unwrap();
            prop_assert_eq!(data, json!({ "k": kind }));
            match (&item.event, kind) {
                (Ok(event), Some(kind)) => {
                    prop_assert_eq!(event.ty(), kind);
                    prop_assert_eq!(event.id(), format!("shop.orders/3/41/{at}"));
                    prop_assert!(event.has_valid_json());
                }
                (Err(_), None) => {}
                (made, kind) => prop_assert!(false, "{:?} of {:?}", made, kind),
            }
        }
    }
}
