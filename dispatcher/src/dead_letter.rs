//! Owns the records of `dead`: what ended undelivered, and why (rule 16).
//!
//! It never holds a secret: requests are not kept, responses are cut and made text.

use bytes::Bytes;
use runtime::log::{Headers, Record, StoredRecord, TopicName};
use schemas::records::Target;
use schemas::records::{
    DEAD_HEADER, DeadLetter, DeadReason, DeliveryRecord, LastAttempt, Origin, ResultRecord,
};

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
    letter.bulk = delivery.target.bulk.filter(|_| delivery.target.report);
    letter.attempts = delivery.state.attempts;
    letter.last_attempt = last;
    letter
}

/// How an attempt that was not delivered ended.
pub(crate) fn last_attempt(answer: &Answer, reason: &str, started_at: i64) -> LastAttempt {
    let (status, error, response) = match answer {
        Ok(response) => {
            let text = String::from_utf8_lossy(&response.body);
            let text: String = without_secrets(&text)
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

/// What comes before a secret in a response that repeats our request, in any case.
const BEFORE_SECRETS: [&str; 6] = [
    "whsec_",
    "whsk_",
    "bearer ",
    "basic ",
    "api-key: ",
    "token=",
];
const REMOVED: &str = "[removed]";

/// `text` without what stands behind a word that announces a secret: some endpoints answer with
/// the request they got (rule 17).
fn without_secrets(text: &str) -> String {
    // ASCII alone changes its case, so that places in both are the same.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(begin) = BEFORE_SECRETS
        .iter()
        .filter_map(|word| Some(at + lower.get(at..)?.find(word)? + word.len()))
        .min()
    {
        let is_secret = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let rest = text.get(begin..).unwrap_or_default();
        let end = begin + rest.find(|c| !is_secret(c)).unwrap_or(rest.len());
        out.push_str(text.get(at..begin).unwrap_or_default());
        let rest = lower.get(begin..).unwrap_or_default();
        if BEFORE_SECRETS.iter().any(|word| rest.starts_with(word)) {
            at = begin;
            continue;
        }
        if end > begin {
            out.push_str(REMOVED);
        }
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// The record on `results`: it completes its delivery's place, in the same transaction.
pub(crate) fn result(results: &TopicName, result: &ResultRecord) -> Record {
    Record {
        topic: results.clone(),
        partition: None,
        key: Some(Bytes::from(ResultRecord::key(result.bulk))),
        value: Some(Bytes::from(result.encode())),
        headers: Headers::default(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_response_that_repeats_our_request_is_kept_without_its_secrets() {
        let check = |text: &str, expected: &str| assert_eq!(without_secrets(text), expected);
        check("nothing to hide", "nothing to hide");
        check(
            "Authorization: Bearer abc.DEF-1, x",
            "Authorization: Bearer [removed], x",
        );
        check(
            r#"{"a":"Basic dXNlcg==","b":"whsec_abc+/="}"#,
            r#"{"a":"Basic [removed]","b":"whsec_[removed]"}"#,
        );
        check(
            "ä X-Api-Key: k1; token=é",
            "ä X-Api-Key: [removed]; token=é",
        );
        check("basic bearer x", "basic bearer [removed]");
    }

    proptest! {
        #[test]
        fn no_secret_behind_a_known_word_is_kept(
            before in "[a-zä ]{0,9}",
            word in proptest::sample::select(BEFORE_SECRETS.to_vec()),
            secret in "[A-Z0-9]{12}",
            after in "[ ,}].{0,9}",
        ) {
            let kept = without_secrets(&format!("{before}{word}{secret}{after}"));
            prop_assert!(!kept.contains(&secret), "{}", kept);
        }

        #[test]
        fn any_text_is_read(text in ".{0,64}") {
            let _kept = without_secrets(&text);
        }
    }
}
