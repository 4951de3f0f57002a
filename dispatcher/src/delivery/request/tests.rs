use super::*;
use crate::delivery::sign::{Received, verify};
use proptest::prelude::*;
use schemas::profile::Method;
use std::io::Read as _;
use std::sync::LazyLock;

const DATA: &str = "{ \"a\" : 1.0,\n \"b\":\"é\" }";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event() -> Event {
    let mut event = Event::builder("e-1", "/orders", "order.paid")
        .attribute("time", "2026-01-02T03:04:05.6Z")
        .attribute("subject", "Euro € 😀")
        .untyped_data(Bytes::from_static(DATA.as_bytes()))
        .build()
        .unwrap();
    event.set_tenant("acme").unwrap();
    event.set_extension("anabranchloop", 1.into()).unwrap();
    event.set_extension("traceparent", TRACE.into()).unwrap();
    event
}

fn body(event: &Event, mode: BodyMode) -> EncodedBody {
    encode_body(event, mode, 1_767_323_045_600)
}

fn text(body: &EncodedBody) -> &str {
    std::str::from_utf8(&body.bytes).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .unwrap_or_else(|| panic!("{name} is missing"))
        .to_str()
        .unwrap()
}

static PLAIN: LazyLock<Sending> = LazyLock::new(Sending::default);

fn attempt(keys: &[SigningKey]) -> Attempt<'_> {
    let delivery_id = "msg_00000000000000000000000001";
    Attempt {
        delivery_id,
        timestamp_seconds: 1_700_000_000,
        keys,
        span_id: 7,
        trace_id: 9,
        sending: &PLAIN,
        authorization: &Authorization::Given,
    }
}

#[test]
fn what_is_compressed_is_what_is_signed() {
    // rule 9
    let plain = EncodedBody {
        bytes: Bytes::from(vec![b'a'; 5_000]),
        ..body(&event(), BodyMode::Structured)
    };
    let packed = plain.compressed().unwrap();
    assert_eq!(header(&packed.headers, "content-encoding"), "gzip");
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&*packed.bytes);
    decoder.read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.bytes);
    let keys = [SigningKey::from_bytes(&[5; 32]).unwrap()];
    let prepared = headers_for_attempt(&packed, &attempt(&keys));
    let received = Received {
        id: header(&prepared.headers, "webhook-id"),
        timestamp: header(&prepared.headers, "webhook-timestamp"),
        signature: header(&prepared.headers, "webhook-signature"),
        body: &packed.bytes,
    };
    let keys = [keys[0].verifying()];
    assert_eq!(verify(&keys, &received, 1_700_000_000), Ok(()));
    // Too small, too large, or no smaller.
    for bytes in [vec![b'a'; 255], vec![b'a'; 1024 * 1024 + 1]] {
        let bytes = Bytes::from(bytes);
        assert!(
            EncodedBody {
                bytes,
                ..plain.clone()
            }
            .compressed()
            .is_none()
        );
    }
    let mut noise = vec![0; 4_000];
    runtime::clock::Entropy::seeded(5).fill(&mut noise);
    let bytes = Bytes::from(noise);
    assert!(EncodedBody { bytes, ..plain }.compressed().is_none());
}

#[test]
fn structured_mode_carries_the_event_with_its_data_unchanged() {
    let body = body(&event(), BodyMode::Structured);
    assert_eq!(
        header(&body.headers, "content-type"),
        "application/cloudevents+json"
    );
    assert!(text(&body).contains(DATA), "{}", text(&body));
    assert!(!text(&body).contains("anabranch"));
    let back: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
    assert_eq!(
        (&back["id"], &back["type"]),
        (&"e-1".into(), &"order.paid".into())
    );
    assert_eq!(back["traceparent"], TRACE, "carried unchanged (EX-3)");
}

#[test]
fn binary_mode_puts_attributes_into_headers() {
    // CE-11, CE-12
    let body = body(&event(), BodyMode::Binary);
    assert_eq!(text(&body), DATA);
    assert_eq!(header(&body.headers, "ce-id"), "e-1");
    assert_eq!(header(&body.headers, "ce-specversion"), "1.0");
    assert_eq!(
        header(&body.headers, "ce-subject"),
        "Euro%20%E2%82%AC%20%F0%9F%98%80"
    );
    assert_eq!(header(&body.headers, "content-type"), "application/json");
    assert!(
        body.headers
            .keys()
            .all(|name| !name.as_str().contains("anabranch"))
    );
    assert!(!body.headers.contains_key("ce-datacontenttype"));
}

#[test]
fn standard_webhooks_mode_embeds_the_datas_own_bytes() {
    // WH-9
    let body = body(&event(), BodyMode::StandardWebhooks);
    let expected = r#"{"type":"order.paid","timestamp":"2026-01-02T03:04:05.6Z","data":"#;
    assert_eq!(text(&body), format!("{expected}{DATA}}}"));
    assert_eq!(header(&body.headers, "content-type"), "application/json");
}

#[test]
fn standard_webhooks_mode_always_is_json() {
    let check = |content_type: &str, data: &'static [u8], expected: &str| {
        let event = Event::builder("1", "/s", "t")
            .data(content_type, Bytes::from_static(data))
            .build()
            .unwrap();
        let body = body(&event, BodyMode::StandardWebhooks);
        let value: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
        assert_eq!(value["data"], expected);
        assert_eq!(
            value["timestamp"], "2026-01-02T03:04:05.6Z",
            "the time of acceptance"
        );
    };
    check("text/plain", b"a \"b\"", "a \"b\"");
    check("application/json", b"{broken", "{broken");
    check("application/octet-stream", &[0xff, 0xfe], "//4=");
}

#[test]
fn data_and_form_modes_send_the_payload_alone() {
    let data = body(&event(), BodyMode::Data);
    assert_eq!(text(&data), DATA);
    assert_eq!(header(&data.headers, "content-type"), "application/json");
    let form = body(&event(), BodyMode::Form);
    let fields: Vec<_> = url::form_urlencoded::parse(&form.bytes)
        .into_owned()
        .collect();
    assert_eq!(fields, [("payload".to_owned(), DATA.to_owned())]);
    assert_eq!(
        header(&form.headers, "content-type"),
        "application/x-www-form-urlencoded"
    );
}

#[test]
fn an_event_without_data_is_always_structured() {
    // HK-1, standards §8.3
    let event = Event::builder("1", "/s", "t").build().unwrap();
    for mode in [
        BodyMode::Structured,
        BodyMode::Binary,
        BodyMode::StandardWebhooks,
        BodyMode::Data,
        BodyMode::Form,
    ] {
        let body = body(&event, mode);
        assert_eq!(
            header(&body.headers, "content-type"),
            "application/cloudevents+json"
        );
        assert!(!body.bytes.is_empty());
    }
}

#[test]
fn an_attempts_headers_verify_over_the_bytes_sent() {
    // WH-1..5, rule 9
    let keys = [SigningKey::from_bytes(&[5; 32]).unwrap()];
    let body = body(&event(), BodyMode::Structured);
    let prepared = headers_for_attempt(&body, &attempt(&keys));
    assert_eq!(
        prepared.body.as_ptr(),
        body.bytes.as_ptr(),
        "one body for all attempts"
    );
    let received = Received {
        id: header(&prepared.headers, "webhook-id"),
        timestamp: header(&prepared.headers, "webhook-timestamp"),
        signature: header(&prepared.headers, "webhook-signature"),
        body: &prepared.body,
    };
    let keys = [keys[0].verifying()];
    assert_eq!(verify(&keys, &received, 1_700_000_000), Ok(()));
    assert!(header(&prepared.headers, "user-agent").starts_with("anabranch/"));
    let unsigned = headers_for_attempt(&body, &attempt(&[]));
    assert!(!unsigned.headers.contains_key("webhook-signature"));
}

#[test]
fn the_hop_is_a_child_of_the_events_trace() {
    // HT-12, HT-13, EX-3
    let check = |parent: Option<&str>, state: Option<&str>, expected: &str, carried: bool| {
        let mut event = Event::builder("1", "/s", "t").build().unwrap();
        for (name, value) in [("traceparent", parent), ("tracestate", state)] {
            if let Some(value) = value {
                event.set_extension(name, value.into()).unwrap();
            }
        }
        let body = body(&event, BodyMode::Structured);
        let headers = headers_for_attempt(&body, &attempt(&[])).headers;
        assert_eq!(header(&headers, "traceparent"), expected, "{parent:?}");
        assert_eq!(headers.contains_key("tracestate"), carried, "{parent:?}");
    };
    let child = "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01";
    let fresh = "00-00000000000000000000000000000009-0000000000000007-00";
    check(Some(TRACE), Some("vendor=1"), child, true);
    check(Some(TRACE), None, child, false);
    check(Some(&TRACE.replace("00-0a", "cc-0a")), None, child, false);
    check(
        Some(&format!("{}-more", TRACE.replace("00-0a", "cc-0a"))),
        None,
        child,
        false,
    );
    check(Some(&format!("{TRACE}-more")), None, fresh, false);
    check(
        Some(&TRACE.replace("00-0a", "ff-0a")),
        Some("vendor=1"),
        fresh,
        false,
    );
    check(Some(&TRACE.to_uppercase()), None, fresh, false);
    check(
        Some(&TRACE.replace("b7ad6b7169203331", "0000000000000000")),
        None,
        fresh,
        false,
    );
    check(None, Some("vendor=1"), fresh, false);
}

proptest! {
    #[test]
    fn form_bodies_decode_to_the_data(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let event = Event::builder("1", "/s", "t")
            .data("application/octet-stream", Bytes::from(data.clone()))
            .build()
            .unwrap();
        let body = body(&event, BodyMode::Form);
        let encoded = body.bytes.strip_prefix(b"payload=").unwrap();
        let decoded: Vec<u8> = percent_encoding::percent_decode(
            &encoded.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<_>>(),
        ).collect();
        prop_assert_eq!(decoded, data);
    }
}

#[test]
fn what_a_transform_made_has_every_form() {
    let made = |method, ty: &str| Made {
        event: Event::builder("e-1", "/leads", ty)
            .data("application/json", Bytes::from_static(b"{\"a\":1.50}"))
            .build()
            .unwrap(),
        method,
        path: String::new(),
        headers: vec![("X-Own".to_owned(), "b".to_owned())],
    };
    let check = |mode, expected: &str| {
        let put = made(Method::Put, "contact");
        let body = encode_made(&put, mode, 1_767_323_045_600).unwrap();
        assert_eq!(text(&body), expected, "{mode:?}");
        assert_eq!(header(&body.headers, "x-own"), "b");
        // A DELETE is signed over nothing, and says nothing of a form.
        let delete = made(Method::Delete, "contact");
        let bare = encode_made(&delete, mode, 0).unwrap();
        assert!(bare.bytes.is_empty() && !bare.headers.contains_key("content-type"));
        assert_eq!(header(&bare.headers, "x-own"), "b");
        let keys = [SigningKey::from_bytes(&[5; 32]).unwrap()];
        for body in [body, bare] {
            let prepared = headers_for_attempt(&body, &attempt(&keys));
            let received = Received {
                id: header(&prepared.headers, "webhook-id"),
                timestamp: header(&prepared.headers, "webhook-timestamp"),
                signature: header(&prepared.headers, "webhook-signature"),
                body: &prepared.body,
            };
            let keys = [keys[0].verifying()];
            assert_eq!(verify(&keys, &received, 1_700_000_000), Ok(()), "rule 9");
        }
    };
    check(
        BodyMode::Structured,
        r#"{"specversion":"1.0","id":"e-1","source":"/leads","type":"contact","datacontenttype":"application/json","data":{"a":1.50}}"#,
    );
    check(BodyMode::Binary, r#"{"a":1.50}"#);
    check(BodyMode::Data, r#"{"a":1.50}"#);
    check(BodyMode::Form, "payload=%7B%22a%22%3A1.50%7D");
    check(
        BodyMode::StandardWebhooks,
        r#"{"type":"contact","timestamp":"2026-01-02T03:04:05.6Z","data":{"a":1.50}}"#,
    );
    let mut bad = made(Method::Put, "contact");
    bad.headers = vec![("x".to_owned(), "a\nb".to_owned())];
    let error = encode_made(&bad, BodyMode::Data, 0).unwrap_err();
    assert_eq!(error.text, "header x: cannot be sent");
}
