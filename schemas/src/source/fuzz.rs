//! Fuzz targets of sources: no record makes a decoder panic, what it makes are events of its tenant,
//! and the same record makes the same ones.

use bytes::Bytes;
use serde_json::json;

use super::tests::source;
use super::{Decoded, Decoder, RecordParts};

const ITERATIONS: usize = 2_000;
const ENVELOPE: &[u8] = br#"{"schema":{},"payload":{"op":"u","before":{"id":1},"after":{"id":1},"source":{"table":"t","ts_ms":1},"ts_ms":2}}"#;
const SPLIT: &[u8] =
    br#"{"at":"2026-11-22T07:15:00Z","items":[{"kind":"a","n":1},{"kind":"\u20ac"},3,[]]}"#;

/// `valid` with the input's rest written over it at a place that the input's first byte names.
fn spliced(valid: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((at, rest)) = input.split_first() else {
        return valid.to_vec();
    };
    let at = usize::from(*at) % valid.len();
    let end = (at + rest.len()).min(valid.len());
    [&valid[..at], rest, &valid[end..]].concat()
}

/// What a decoder makes, as text; panics where it is no event of the tenant.
fn made(decoder: &Decoder, key: &Bytes, value: &Bytes) -> String {
    let headers = [("kind", &key[..]), ("ce_id", &key[..])];
    let record = RecordParts {
        partition: 1,
        offset: 2,
        timestamp: 3,
        key: Some(key),
        value: Some(value),
        headers,
    };
    match decoder.decode(&record) {
        Decoded::Tombstone => "tombstone".to_owned(),
        Decoded::Poison(words) => words,
        Decoded::Items(items) => {
            let items = items.map(|item| match item.event {
                Ok(event) => {
                    assert_eq!(event.tenant(), Some("acme"));
                    assert!(value.len() >= event.data().map_or(0, Bytes::len));
                    format!("{event:?}")
                }
                Err(words) => words,
            });
            items.collect()
        }
    }
}

#[test]
fn no_record_makes_a_decoder_panic() {
    let decoders: Vec<Decoder> = [
        json!({ "format": "cloudevents" }),
        json!({ "format": "opaque", "event": { "type": { "key": true }, "subject": { "header": "kind" } } }),
        json!({ "format": "json", "split": "/items", "event": {
            "type": { "pointer": "/kind" }, "time": { "record": "/at" }, "id": { "key": true } } }),
        json!({ "format": "json", "event": { "type": { "pointer": "/items/0/kind" } } }),
        json!({ "format": "debezium", "event": { "subject": { "pointer": "/after/id" } } }),
    ]
    .iter()
    .map(|more| Decoder::new(source(more)))
    .collect();
    bolero::check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let key = Bytes::copy_from_slice(&input[..input.len().min(9)]);
            for value in [
                input.to_vec(),
                spliced(ENVELOPE, input),
                spliced(SPLIT, input),
            ] {
                let value = Bytes::from(value);
                for decoder in &decoders {
                    let once = made(decoder, &key, &value);
                    assert_eq!(made(decoder, &key, &value), once);
                }
            }
        });
}
