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
use schemas::transform::Made;

use super::sending::{Authorization, Sending};
use super::sign::{SigningKey, sign};
use super::trace::Trace;
use super::{TransportError, TransportErrorKind};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

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

/// Room for the headers that each attempt adds, the connection's `host` among them.
const OUR_HEADERS: usize = 7;
/// Room for an event's usual attributes in JSON.
const ATTRIBUTES_BYTES: usize = 512;

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
    insert_made(&mut headers, &rendered.headers)?;
    Ok(EncodedBody {
        bytes: rendered.body.unwrap_or_default().into(),
        headers,
        trace: Trace::of(event),
    })
}

/// What a transform made of an event, as a body in `mode`; where it has none, the signature is that
/// of nothing.
///
/// # Errors
/// When a header cannot be sent.
pub fn encode_made(
    made: &Made,
    mode: BodyMode,
    accepted_at_ms: i64,
) -> Result<EncodedBody, TransportError> {
    let mut body = encode_body(&made.event, mode, accepted_at_ms);
    if !made.has_body() {
        body.bytes = Bytes::new();
        body.headers.remove(CONTENT_TYPE);
    }
    insert_made(&mut body.headers, &made.headers)?;
    Ok(body)
}

fn insert_made(headers: &mut HeaderMap, made: &[(String, String)]) -> Result<(), TransportError> {
    for (name, value) in made {
        let wrong = || {
            let text = format!("header {name}: cannot be sent");
            TransportError::new(TransportErrorKind::Template, text)
        };
        let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        headers.insert(name, value);
    }
    Ok(())
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
    body.trace
        .put(&mut headers, attempt.trace_id, attempt.span_id);
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
    // Ids and signatures are printable ASCII by construction.
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

#[cfg(test)]
mod tests;
