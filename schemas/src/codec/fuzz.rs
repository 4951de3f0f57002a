//! Fuzz targets of the codecs: no input makes one panic, and what is decoded can be encoded.
//!
//! Input is tried as it is, and spliced into a valid message so that it reaches past the outer
//! syntax.

use bytes::Bytes;

use super::{Reserved, http, json, kafka};
use crate::event::{Event, Limits};

const ITERATIONS: usize = 2_000;
const VALID: &[u8] = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":true,"subject":"\u20ac","time":"2026-11-22T07:15:00Z","datacontenttype":"text/x","data":"{}"}"#;

/// `valid` with the input's rest written over it at a place that the input's first byte names.
fn spliced(valid: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((at, rest)) = input.split_first() else {
        return valid.to_vec();
    };
    let at = usize::from(*at) % valid.len();
    let end = (at + rest.len()).min(valid.len());
    [&valid[..at], rest, &valid[end..]].concat()
}

fn survives(event: &Event) {
    let mut out = Vec::new();
    json::encode(event, Reserved::Omit, &mut out);
    let again = json::decode(&out.into(), &Limits::default());
    assert!(again.is_ok(), "{again:?}: {event:?}");
}

#[test]
fn json_never_panics() {
    bolero::check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            for text in [input.to_vec(), spliced(VALID, input)] {
                let text = Bytes::from(text);
                if let Ok(event) = json::decode(&text, &Limits::default()) {
                    survives(&event);
                }
                let batch = Bytes::from([b"[", text.as_ref(), b"]"].concat());
                if let Ok(events) = json::decode_batch(&batch, &Limits::default(), 2) {
                    events.iter().flatten().for_each(survives);
                }
            }
        });
}

#[test]
fn http_headers_never_panic() {
    bolero::check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let mut parts = input.splitn(3, |byte| *byte == b',');
            let kind = parts.next().unwrap_or_default();
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let value = parts.next().unwrap_or_default();
            let name = format!("ce-{name}");
            let headers = [
                ("ce-specversion", &b"1.0"[..]),
                ("ce-id", value),
                ("ce-source", b"/s"),
                ("ce-type", b"t"),
                ("content-type", kind),
                (name.as_str(), value),
            ];
            for count in [4, 5, 6] {
                let headers = headers.iter().copied().take(count);
                let body = Bytes::copy_from_slice(input);
                if let Ok(http::Message::One(event)) =
                    http::decode(headers, body, &Limits::default(), 2)
                {
                    survives(&event);
                }
            }
        });
}

#[test]
fn kafka_records_never_panic() {
    bolero::check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let mut parts = input.splitn(2, |byte| *byte == b',');
            let types = parts.next().unwrap_or_default();
            let value = parts.next().unwrap_or_default();
            let headers = [
                ("ce_specversion", &b"1.0"[..]),
                ("ce_id", b"1"),
                ("ce_source", b"/s"),
                ("ce_type", b"t"),
                ("ce_a", value),
                ("anabranch-types", types),
                ("content-type", types),
            ];
            for count in [4, 5, 6, 7] {
                let headers = headers.iter().copied().take(count);
                let value = Some(Bytes::copy_from_slice(value));
                if let Ok(event) = kafka::decode(headers, value, &Limits::default()) {
                    survives(&event);
                }
            }
        });
}
