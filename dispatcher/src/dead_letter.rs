//! Owns the records of `dead`: what ended undelivered, and why (rule 16).
//!
//! It never holds a secret: requests are not kept, responses are cut and made text.

use bytes::Bytes;
use runtime::log::{Headers, Record, StoredRecord, TopicName};
use schemas::records::Target;
use schemas::records::{DEAD_HEADER, DeadLetter, DeadReason, DeliveryRecord, LastAttempt, Origin};

use crate::delivery::Answer;
use crate::work::Delivery;

/// The most characters of a response that a dead letter keeps.
const RESPONSE_CHARS_MAX: usize = 4_096;
/// A record this close to the log's limit is referred to instead of repeated.
const REPEATED_BYTES_MAX: usize = runtime::log::topics::MAX_RECORD_BYTES - (64 << 10);

/// The dead letter of one delivery.
pub(crate) fn of_delivery(
    delivery: &Delivery,
    reason: DeadReason,
    at: i64,
    last: Option<LastAttempt>,
) -> DeadLetter {
    let record = &delivery.loaded.record;
    let mut letter = DeadLetter::new(reason, at, &record.origin);
    letter.tenant = record.event.tenant().and_then(|tenant| tenant.parse().ok());
    letter.endpoint = Some(delivery.target.endpoint);
    letter.subscription = Some(delivery.target.subscription);
    letter.delivery = Some(record.delivery_id(&delivery.target));
    letter.attempts = delivery.state.attempts;
    letter.last_attempt = last;
    letter
}

/// How an attempt that was not delivered ended.
pub(crate) fn last_attempt(answer: &Answer, reason: &str, started_at: i64) -> LastAttempt {
    let (status, error, response) = match answer {
        Ok(response) => {
            let text: String = String::from_utf8_lossy(&response.body)
                .chars()
                .take(RESPONSE_CHARS_MAX)
                .collect();
            (
                Some(response.status),
                None,
                Some(text).filter(|text| !text.is_empty()),
            )
        }
        Err(error) => (None, Some(error.to_string()), None),
    };
    LastAttempt {
        started_at,
        reason: reason.to_owned(),
        status,
        error,
        response,
    }
}

/// The record for a delivery: its own record with one target, so that a redrive writes it back, or
/// a reference to its origin where that is too large for the log.
pub(crate) fn record(dead: &TopicName, letter: &DeadLetter, delivery: &Delivery) -> Record {
    let source = &delivery.loaded.record;
    let target = Target {
        state: Some(delivery.state),
        ..delivery.target.clone()
    };
    let value = source.value_for(std::slice::from_ref(&target));
    let mut record = reference(dead, letter);
    if value.len() > REPEATED_BYTES_MAX {
        return record;
    }
    record.headers = headers(source, Some(letter));
    record.value = Some(value);
    record
}

/// The record that says why and names the origin, and no more.
pub(crate) fn reference(dead: &TopicName, letter: &DeadLetter) -> Record {
    let mut headers = Headers::builder();
    headers.push(DEAD_HEADER, &letter.to_header());
    Record {
        topic: dead.clone(),
        partition: None,
        key: letter
            .endpoint
            .map(|endpoint| Bytes::from(endpoint.to_string())),
        value: None,
        headers: headers.build(),
    }
}

/// The record for bytes that cannot be read: they are kept as they are.
pub(crate) fn poison(dead: &TopicName, letter: &DeadLetter, stored: &StoredRecord) -> Record {
    let mut record = reference(dead, letter);
    if stored.len_bytes() > REPEATED_BYTES_MAX {
        return record;
    }
    let mut headers = Headers::builder();
    headers.push(DEAD_HEADER, &letter.to_header());
    for (name, value) in stored.headers.iter() {
        headers.push(name, value);
    }
    record.headers = headers.build();
    record.value.clone_from(&stored.value);
    record
}

/// The letter for a place whose record is not known to hold an event.
pub(crate) fn of_place(
    reason: DeadReason,
    at: i64,
    partition: &runtime::log::Partition,
    offset: i64,
) -> DeadLetter {
    let origin = Origin {
        topic: partition.topic.as_str().into(),
        partition: partition.number,
        offset,
        index: 0,
    };
    DeadLetter::new(reason, at, &origin)
}

/// The headers of a record that carries `source`'s event.
pub(crate) fn headers(source: &DeliveryRecord, letter: Option<&DeadLetter>) -> Headers {
    let mut headers = Headers::builder();
    if let Some(letter) = letter {
        headers.push(DEAD_HEADER, &letter.to_header());
    }
    for (name, value) in source.headers() {
        headers.push(&name, &value);
    }
    headers.build()
}
