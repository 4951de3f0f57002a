//! Owns the events that are published: 300 bytes of structured JSON each, no two payloads alike.
//!
//! It must never draw on chance: the same number is always the same event. The surprise: the text
//! of a payload does not compress, so that no codec flatters anybody.

use anyhow::Context as _;
use bytes::Bytes;
use schemas::codec::json;
use schemas::event::{ACCEPTED, AttributeValue, Event, Limits};

/// What a whole event in structured mode takes.
pub(crate) const EVENT_BYTES: usize = 300;
/// The tenant of every benchmark.
pub(crate) const TENANT: &str = "load";
/// What an event's id begins with; its number follows in nine digits or more.
pub(crate) const ID_PREFIX: &str = "load-";
/// The content type of one event.
pub(crate) const ONE: &str = "application/cloudevents+json";
/// The content type of a batch.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// The type of events that are of none in particular.
pub(crate) const MEASURED: &str = "load.measured";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Event `number` in structured mode.
pub(crate) fn structured(number: u64) -> String {
    structured_as(number, MEASURED)
}

/// Event `number` of a type in structured mode.
pub(crate) fn structured_as(number: u64, event_type: &str) -> String {
    let mut text = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{ID_PREFIX}{number:09}\",\"source\":\"/load\",\
         \"type\":\"{event_type}\",\"datacontenttype\":\"application/json\",\
         \"data\":{{\"number\":{number},\"text\":\""
    );
    let tail = "\"}}";
    let mut noise = Noise::new(number);
    while text.len() + tail.len() < EVENT_BYTES {
        text.push(noise.letter());
    }
    text.push_str(tail);
    text
}

/// Events `from..from + count` as one body in batched mode.
pub(crate) fn batch(from: u64, count: u64) -> Bytes {
    let events: Vec<String> = (from..from + count).map(structured).collect();
    format!("[{}]", events.join(",")).into()
}

/// Event `number` as it is behind ingest, which accepted it now.
///
/// # Errors
/// Where `schemas` refuses it.
pub(crate) fn accepted(number: u64, accepted: &str) -> anyhow::Result<Event> {
    accepted_as(number, MEASURED, accepted)
}

/// The same for an event of a type.
///
/// # Errors
/// Where `schemas` refuses it.
pub(crate) fn accepted_as(number: u64, event_type: &str, accepted: &str) -> anyhow::Result<Event> {
    let text = Bytes::from(structured_as(number, event_type));
    let mut event = json::decode(&text, &Limits::default()).context("an event")?;
    event.set_tenant(TENANT)?;
    event.set_extension(ACCEPTED, AttributeValue::String(accepted))?;
    Ok(event)
}

/// Xorshift over a number: letters that no codec finds a pattern in.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn new(number: u64) -> Self {
        // Neighbours must not begin alike; zero would stay zero.
        Self((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn letter(&mut self) -> char {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let index = usize::from(self.0.to_be_bytes()[0] >> 2);
        char::from(ALPHABET.get(index).copied().unwrap_or(b'A'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_whatever_its_number() {
        for number in [0, 1, 999_999_999, u64::MAX >> 1] {
            assert_eq!(structured(number).len(), EVENT_BYTES, "{number}");
        }
    }

    #[test]
    fn an_event_is_one_and_has_its_number() {
        let event = accepted(7, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(event.id(), "load-000000007");
        assert_eq!(event.tenant(), Some(TENANT));
        assert!(event.data_is_json());
    }

    #[test]
    fn a_batch_is_an_array_of_different_events() {
        let events: Vec<serde_json::Value> = serde_json::from_slice(&batch(5, 3)).unwrap();
        let data: Vec<String> = events
            .iter()
            .map(|event| event["data"].to_string())
            .collect();
        assert_eq!(events.len(), 3);
        assert!(data[0] != data[1] && data[1] != data[2]);
    }
}
