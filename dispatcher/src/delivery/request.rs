//! Owns what an attempt sends: the body of an event in each mode, and the headers of one attempt.
//!
//! Never serialises a body twice (rule 9): [`encode_body`] is called once for an event and a mode
//! and its result shared by all targets and retries; [`headers_for_attempt`] signs those bytes.
//! The surprise: our own attributes (`anabranch…`) never leave, and an event without data is sent
//! as structured JSON whatever the mode, since a webhook must have a payload (HK-1).

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use schemas::codec::json::write_string;
use schemas::codec::{self, Reserved};
use schemas::event::Event;
use schemas::profile::template::Rendered;
use schemas::resources::BodyMode;

use super::sending::{Authorization, Sending};
use super::sign::{SigningKey, sign};
use super::{TransportError, TransportErrorKind};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CLOUDEVENTS_JSON: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const CLOUDEVENTS_BATCH: HeaderValue =
    HeaderValue::from_static("application/cloudevents-batch+json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OUR_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("anabranch/", env!("CARGO_PKG_VERSION")));

/// A smaller body fits into a packet anyway.
const COMPRESSED_BYTES_MIN: usize = 256;
/// A larger one would keep the others waiting for milliseconds.
const COMPRESSED_BYTES_MAX: usize = 1024 * 1024;

/// Version, trace, span and flags (HT-12).
const TRACEPARENT_CHARS: usize = 55;
/// Room for the headers that each attempt adds, the connection's `host` among them.
const OUR_HEADERS: usize = 7;
/// Room for an event's usual attributes in JSON.
const ATTRIBUTES_BYTES: usize = 512;

/// The longest `tracestate` that is passed on (HT-13).
const TRACESTATE_CHARS_MAX: usize = 512;

/// An event's body in one mode, and the headers that belong to it. A clone shares the bytes.
#[derive(Clone, Debug)]
pub struct EncodedBody {
    /// The bytes that are signed and sent.
    pub bytes: Bytes,
    headers: HeaderMap,
    trace: Trace,
}

/// What differs from one attempt to the next.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The delivery id, the same for each attempt (rule 4, WH-1).
    pub delivery_id: &'a str,
    /// Unix seconds of this attempt (WH-2).
    pub timestamp_seconds: i64,
    /// The endpoint's keys: the current one, and during a rotation the previous one.
    pub keys: &'a [SigningKey],
    /// Random; names this attempt's span.
    pub span_id: u64,
    /// Random; names the trace where the event brings none.
    pub trace_id: u128,
    /// How the endpoint's requests are made up.
    pub sending: &'a Sending,
    /// What authenticates this one.
    pub authorization: &'a Authorization,
}

/// A request without its destination.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// All headers of the attempt.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The trace that an event began with (EX-3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trace {
    parent: Option<Parent>,
    state: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    flags: u8,
}

/// Serialises an event once (rule 9). `accepted_at_ms` (unix milliseconds) stands in where
/// [`BodyMode::StandardWebhooks`] wants a time and the event has none.
#[must_use]
pub fn encode_body(event: &Event, mode: BodyMode, accepted_at_ms: i64) -> EncodedBody {
    let trace = Trace::of(event);
    let (bytes, headers) = match (mode, event.data()) {
        (BodyMode::Structured, _) | (_, None) => structured(event),
        (BodyMode::Binary, Some(data)) => (data.clone(), binary_headers(event)),
        (BodyMode::StandardWebhooks, Some(data)) => {
            let body = standard_webhook(event, data, accepted_at_ms);
            (body.into(), content_type(JSON))
        }
        (BodyMode::Data, Some(data)) => (data.clone(), content_type(data_type(event))),
        (BodyMode::Form, Some(data)) => {
            let encoded = url::form_urlencoded::byte_serialize(data);
            let body = std::iter::once("payload=")
                .chain(encoded)
                .collect::<String>();
            (body.into(), content_type(FORM))
        }
    };
    EncodedBody {
        bytes,
        headers,
        trace,
    }
}

/// What an event's templates made, as a body; without another media type it is JSON.
///
/// # Errors
/// When a header cannot be sent.
pub fn encode_rendered(event: &Event, rendered: Rendered) -> Result<EncodedBody, TransportError> {
    let mut headers = HeaderMap::new();
    if rendered.body.is_some() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    for (name, value) in rendered.headers {
        let wrong = |_| {
            let text = format!("header {name}: cannot be sent");
            TransportError::new(TransportErrorKind::Template, text)
        };
        let value = HeaderValue::try_from(value)
            .map_err(|_| ())
            .map_err(wrong)?;
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| ())
            .map_err(wrong)?;
        headers.insert(name, value);
    }
    Ok(EncodedBody {
        bytes: rendered.body.unwrap_or_default().into(),
        headers,
        trace: Trace::of(event),
    })
}

/// Several events' bodies as one JSON array. `like` is the first event's body: its trace is the
/// request's, and its media type, where it is that of a CloudEvent, becomes the batch's (CE-14).
#[must_use]
pub fn encode_batch<'a>(like: &EncodedBody, items: impl Iterator<Item = &'a [u8]>) -> EncodedBody {
    let mut body = vec![b'['];
    for (at, item) in items.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.push(b']');
    let is_event = like.headers.get(CONTENT_TYPE) == Some(&CLOUDEVENTS_JSON);
    EncodedBody {
        bytes: body.into(),
        headers: content_type(if is_event { CLOUDEVENTS_BATCH } else { JSON }),
        trace: like.trace.clone(),
    }
}

/// An event's data as an item of a JSON array: its own bytes where it is JSON, else text, else
/// base64; `null` where there is none.
#[must_use]
pub fn array_item_bytes(event: &Event) -> Bytes {
    match event.data() {
        None => Bytes::from_static(b"null"),
        Some(data) if event.has_valid_json() => data.clone(),
        Some(data) => {
            let mut item = Vec::new();
            write_data(event, data, &mut item);
            item.into()
        }
    }
}

/// The headers of one attempt, with the signature over the body's exact bytes (WH-1..4).
#[must_use]
pub fn headers_for_attempt(body: &EncodedBody, attempt: &Attempt<'_>) -> Prepared {
    let mut headers = HeaderMap::with_capacity(body.headers.len() + OUR_HEADERS);
    headers.extend(
        body.headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    headers.insert(USER_AGENT, OUR_AGENT);
    insert_text(&mut headers, WEBHOOK_ID, attempt.delivery_id.as_bytes());
    headers.insert(
        WEBHOOK_TIMESTAMP,
        HeaderValue::from(attempt.timestamp_seconds),
    );
    if !attempt.keys.is_empty() {
        let signature = sign(
            attempt.keys,
            attempt.delivery_id,
            attempt.timestamp_seconds,
            &body.bytes,
        );
        insert_text(&mut headers, WEBHOOK_SIGNATURE, signature.as_bytes());
    }
    insert_text(&mut headers, TRACEPARENT, &body.trace.child(attempt));
    if let Some(state) = &body.trace.state {
        headers.insert(TRACESTATE, state.clone());
    }
    attempt.sending.put(&mut headers, attempt.authorization);
    Prepared {
        headers,
        body: body.bytes.clone(),
    }
}

impl EncodedBody {
    /// The same compressed (`Content-Encoding: gzip`), where it becomes smaller and is worth it. The
    /// signature is of these bytes (rule 9).
    #[must_use]
    pub fn compressed(&self) -> Option<Self> {
        if !(COMPRESSED_BYTES_MIN..=COMPRESSED_BYTES_MAX).contains(&self.bytes.len()) {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.bytes).ok()?;
        let bytes = encoder.finish().ok()?;
        if bytes.len() >= self.bytes.len() {
            return None;
        }
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Some(Self {
            bytes: bytes.into(),
            headers,
            trace: self.trace.clone(),
        })
    }
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    // Ids, signatures and traces are printable ASCII by construction.
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert(name, value);
    }
}

fn content_type(value: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, value)])
}

/// The media type of the data; absent means JSON (CE-9), if that is true.
fn data_type(event: &Event) -> HeaderValue {
    match event.datacontenttype() {
        Some(text) => HeaderValue::from_str(text).unwrap_or(OCTETS),
        None if event.has_valid_json() => JSON,
        None => OCTETS,
    }
}

fn structured(event: &Event) -> (Bytes, HeaderMap) {
    let mut body = Vec::with_capacity(event.data().map_or(0, Bytes::len) + ATTRIBUTES_BYTES);
    codec::json::encode(event, Reserved::Omit, &mut body);
    (body.into(), content_type(CLOUDEVENTS_JSON))
}

/// `ce-` headers and the content type (CE-11, CE-12).
fn binary_headers(event: &Event) -> HeaderMap {
    let pairs = codec::http::encode_binary(event, Reserved::Omit).into_iter();
    // Names and values are valid by construction: attribute names are letters and digits.
    let valid = pairs.filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_bytes()).ok()?;
        Some((name, HeaderValue::try_from(value).ok()?))
    });
    valid.collect()
}

/// `{"type":…,"timestamp":…,"data":…}` with the data's own bytes where it is JSON (WH-9).
fn standard_webhook(event: &Event, data: &Bytes, accepted_at_ms: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.len() + 128);
    body.extend_from_slice(br#"{"type":"#);
    write_string(event.ty(), &mut body);
    body.extend_from_slice(br#","timestamp":"#);
    match event.time() {
        Some(time) => write_string(time, &mut body),
        None => write_string(&rfc3339(accepted_at_ms), &mut body),
    }
    body.extend_from_slice(br#","data":"#);
    write_data(event, data, &mut body);
    body.push(b'}');
    body
}

fn write_data(event: &Event, data: &Bytes, body: &mut Vec<u8>) {
    if event.has_valid_json() {
        body.extend_from_slice(data);
    } else {
        match std::str::from_utf8(data) {
            Ok(text) => write_string(text, body),
            Err(_) => write_string(&STANDARD.encode(data), body),
        }
    }
}

fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

// === impl Trace ===

impl Trace {
    fn of(event: &Event) -> Self {
        let parent = event.attribute("traceparent").and_then(Parent::parse);
        // Without a valid parent the state means nothing (HT-12).
        let state = parent
            .and_then(|_| event.attribute("tracestate"))
            .filter(|state| state.len() <= TRACESTATE_CHARS_MAX)
            .and_then(|state| HeaderValue::from_str(state).ok());
        Self { parent, state }
    }

    /// This hop's `traceparent`: a child of the event's, else the root of a new, unsampled trace.
    fn child(&self, attempt: &Attempt<'_>) -> [u8; TRACEPARENT_CHARS] {
        let Parent { trace_id, flags } = self.parent.unwrap_or(Parent {
            trace_id: attempt.trace_id.max(1),
            flags: 0,
        });
        let mut text = [b'-'; TRACEPARENT_CHARS];
        let parts = [
            (0..2, 0),
            (3..35, trace_id),
            (36..52, attempt.span_id.max(1).into()),
            (53..55, flags.into()),
        ];
        for (place, number) in parts {
            write_hex(number, text.get_mut(place).unwrap_or_default());
        }
        text
    }
}

impl Parent {
    /// Reads a `traceparent` (HT-12); of a version above 00 only the first 55 characters.
    fn parse(text: &str) -> Option<Self> {
        let head = text.get(..55)?;
        let rest = text.get(55..)?;
        let mut parts = head.split('-');
        let mut next = |length: usize| parts.next().and_then(|part| lower_hex(part, length));
        let version = next(2)?;
        let (trace_id, span_id, flags) = (next(32)?, next(16)?, next(2)?);
        let longer_allowed = version > 0 && rest.starts_with('-');
        if version == 0xff || trace_id == 0 || span_id == 0 {
            return None;
        }
        if !rest.is_empty() && !longer_allowed {
            return None;
        }
        // Bits 0 and 1 have a meaning; the others are not ours to pass on.
        let flags = u8::try_from(flags & 0b11).ok()?;
        Some(Self { trace_id, flags })
    }
}

/// Writes `number` in lower-case hexadecimal digits, as many as there is room for.
fn write_hex(number: u128, out: &mut [u8]) {
    let mut rest = number;
    for digit in out.iter_mut().rev() {
        let low = u8::try_from(rest & 0xf).unwrap_or(0);
        *digit = if low < 10 {
            b'0' + low
        } else {
            b'a' + low - 10
        };
        rest >>= 4;
    }
}

/// Exactly `length` lower-case hexadecimal digits.
fn lower_hex(text: &str, length: usize) -> Option<u128> {
    let digits = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != length || !digits {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::sign::{Received, verify};
    use proptest::prelude::*;
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
        fn no_traceparent_makes_the_reader_panic(text in ".{0,70}") {
            if let Some(parent) = Parent::parse(&text) {
                prop_assert!(parent.trace_id != 0);
            }
        }

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
}
