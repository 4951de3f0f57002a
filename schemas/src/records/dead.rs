//! Owns the record of `dead`: a delivery that will not be attempted again, and why.
//!
//! The delivery itself is the value, as it was on `deliveries`, so that a redrive writes it back;
//! the reason is one header. Where the delivery is too large or cannot be read, the header refers
//! to its origin.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DeliveryRecord, Error, Origin, ResultRecord, ResultVerdict};
use crate::ids::{DeliveryId, EndpointId, SubscriptionId, TenantId};

/// The header that holds a [`DeadLetter`] as JSON.
pub const DEAD_HEADER: &str = "anabranch-dead";

/// Why a delivery ended undelivered. A closed set: also a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The schedule has no further attempt.
    AttemptsExhausted,
    /// The delivery reached its maximum age.
    MaxAge,
    /// The endpoint refused it for good.
    Rejected,
    /// The endpoint said that it is gone.
    EndpointGone,
    /// The endpoint is disabled.
    EndpointDisabled,
    /// The endpoint or the subscription does not exist any more.
    Deleted,
    /// It is too large for the log.
    TooLarge,
    /// The record cannot be read.
    Undecodable,
    /// It cannot be written as a request.
    Unencodable,
    /// Retention overtook the reader: what was there is not known.
    RetentionLost,
    /// It has been round too often.
    Loop,
    /// No request could be made of it by its subscription's templates.
    Template,
    /// Nothing could be made of it by its subscription's transform.
    Transform,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::AttemptsExhausted,
        Self::MaxAge,
        Self::Rejected,
        Self::EndpointGone,
        Self::EndpointDisabled,
        Self::Deleted,
        Self::TooLarge,
        Self::Undecodable,
        Self::Unencodable,
        Self::RetentionLost,
        Self::Loop,
        Self::Template,
        Self::Transform,
    ];

    /// The word for it in records, metrics and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::MaxAge => "max_age",
            Self::Rejected => "rejected",
            Self::EndpointGone => "endpoint_gone",
            Self::EndpointDisabled => "endpoint_disabled",
            Self::Deleted => "deleted",
            Self::TooLarge => "too_large",
            Self::Undecodable => "undecodable",
            Self::Unencodable => "unencodable",
            Self::RetentionLost => "retention_lost",
            Self::Loop => "loop",
            Self::Template => "template",
            Self::Transform => "transform",
        }
    }
}

/// The most characters of an endpoint's words in a report.
const WORDS_CHARS_MAX: usize = 256;

/// How the last attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAttempt {
    /// When it was started, unix milliseconds.
    pub started_at: i64,
    /// Why it failed: a word of a closed set.
    pub reason: String,
    /// The HTTP status, where there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong in words, where there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of the response's body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
}

/// Why, when and where from a delivery went to `dead`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The version of this record's form: 1.
    pub version: u8,
    /// Why.
    pub reason: DeadReason,
    /// More words on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When, unix milliseconds.
    pub at: i64,
    /// The source record's topic, partition, offset and index.
    pub origin: (String, u32, i64, u32),
    /// The last offset of a lost range, where more than one record is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<i64>,
    /// The tenant, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The endpoint, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The subscription, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionId>,
    /// The delivery, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// The redrive or chunk that it belonged to, where the outcome is reported.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::result::optional_bits"
    )]
    pub bulk: Option<u128>,
    /// Attempts that counted.
    #[serde(default)]
    pub attempts: u32,
    /// The last attempt, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
}

impl LastAttempt {
    /// What the endpoint answered, in a line of at most 256 characters; none where it did not.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let status = self.status?;
        let body = self.response.as_deref().unwrap_or_default();
        let mut words = format!("{status}:");
        for word in body.split_whitespace() {
            words.push(' ');
            words.push_str(word);
            if words.len() > WORDS_CHARS_MAX * 4 {
                break;
            }
        }
        let words: String = words.chars().take(WORDS_CHARS_MAX).collect();
        Some(words.trim_end_matches(':').to_owned())
    }
}

impl DeadLetter {
    /// A dead letter of `origin` with nothing else known.
    pub fn new(reason: DeadReason, at: i64, origin: &Origin) -> Self {
        Self {
            version: 1,
            reason,
            detail: None,
            at,
            origin: (
                origin.topic.to_string(),
                origin.partition,
                origin.offset,
                origin.index,
            ),
            through: None,
            tenant: None,
            endpoint: None,
            subscription: None,
            delivery: None,
            bulk: None,
            attempts: 0,
            last_attempt: None,
        }
    }

    /// The report on it, where it was asked for one.
    pub fn report(&self) -> Option<ResultRecord> {
        Some(ResultRecord {
            version: 1,
            bulk: self.bulk?,
            delivery: self.delivery?,
            endpoint: self.endpoint?,
            subscription: self.subscription?,
            verdict: ResultVerdict::Dead,
            reason: Some(self.reason),
            words: self.last_attempt.as_ref().and_then(LastAttempt::words),
            at: self.at,
            dropped: false,
            count: None,
            items: Vec::new(),
            captured: std::collections::BTreeMap::new(),
        })
    }

    /// The value of [`DEAD_HEADER`].
    pub fn to_header(&self) -> Vec<u8> {
        // A value of strings and numbers alone: writing it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a dead letter and its delivery, where the record holds one that can be read.
    ///
    /// # Errors
    /// When the header is missing, malformed or of a later version.
    pub fn decode<'h>(
        headers: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
        value: Option<&Bytes>,
    ) -> Result<(Self, Option<DeliveryRecord>), Error> {
        let json = headers
            .clone()
            .find_map(|(name, value)| (name == DEAD_HEADER).then_some(value))
            .ok_or(Error::Empty)?;
        let letter: Self = super::decode_json(json)?;
        let delivery = value.and_then(|value| DeliveryRecord::decode(headers, value).ok());
        Ok((letter, delivery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: Option<u16>, response: Option<&str>, expected: Option<&str>) {
        let last = LastAttempt {
            started_at: 0,
            reason: "forbidden".to_owned(),
            status,
            error: None,
            response: response.map(str::to_owned),
        };
        assert_eq!(last.words().as_deref(), expected);
    }

    #[test]
    fn an_endpoints_words_are_one_short_line() {
        check(
            Some(403),
            Some("{\n  \"error\": \"no\"\n}"),
            Some("403: { \"error\": \"no\" }"),
        );
        check(Some(400), None, Some("400"));
        check(None, None, None);
        let long = "é".repeat(5_000);
        let cut = format!("400: {}", "é".repeat(WORDS_CHARS_MAX - 5));
        check(Some(400), Some(&long), Some(&cut));
    }
}
