//! Owns the record of `results`: the outcome of a delivery that asked for a report.
//!
//! It is written in the transaction that completes the delivery's offset, never before: whoever
//! reads it may count on the outcome. The surprise: 128-bit numbers are text here, because JSON's
//! readers have none of that size; and of a chunk's items only those are named that the partner did
//! not confirm.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{DeadReason, Error};
use crate::ids::{DeliveryId, EndpointId, SubscriptionId};

/// How a delivery that asked for a report ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultVerdict {
    /// The endpoint took it.
    Delivered,
    /// It is a dead letter.
    Dead,
    /// The partner refused a chunk of several as a whole and said nothing of single items: it is no
    /// dead letter, and whoever made it may send it again in parts.
    Rejected,
}

/// What became of an item of a chunk that the partner did not confirm (rule 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemResult {
    /// It is never taken like this.
    Rejected,
    /// It may be sent again.
    Retry,
    /// The answer does not say.
    Unknown,
}

/// One item of a chunk that was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemOutcome {
    /// Its place in the chunk, from 0.
    pub index: u32,
    /// What became of it.
    pub verdict: ItemResult,
    /// The partner's word for why, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The outcome of one delivery of a redrive or of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// The version of this record's form: 1.
    pub version: u8,
    /// The redrive or chunk that the delivery belongs to.
    #[serde(serialize_with = "write_bits", deserialize_with = "read_bits")]
    pub bulk: u128,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// How it ended.
    pub verdict: ResultVerdict,
    /// Why, where it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// What the endpoint answered where it refused, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// When, unix milliseconds.
    pub at: i64,
    /// Whether it ended as delivered without a request, because its transform drops the event.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dropped: bool,
    /// How many items a chunk held; `None` for all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Those of a delivered chunk's items that were not confirmed, in order; all others were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemOutcome>,
    /// What the answer held where the operation said to look, e.g. a remote list's id; at most 4
    /// KiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captured: BTreeMap<String, Value>,
}

impl ResultRecord {
    /// The record's key: all results of one redrive or sync are in one partition.
    pub fn key(bulk: u128) -> String {
        format!("{bulk:032x}")
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers alone: writing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// A later version, or JSON that does not fit.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        super::decode_json(value)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn write_bits<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ResultRecord::key(*bits))
}

fn read_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    u128::from_str_radix(&text, 16).map_err(de::Error::custom)
}

/// The same for a number that may be missing.
pub(super) mod optional_bits {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(in crate::records) fn serialize<S: Serializer>(
        bits: &Option<u128>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bits {
            Some(bits) => super::write_bits(bits, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::records) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u128>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let bits = text.map(|text| u128::from_str_radix(&text, 16));
        bits.transpose().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of version 1, which every later version must read: never change them.
    const V1: &str = r#"{"version":1,"bulk":"000000000000000000000000000000ff","delivery":"msg_0000000000000000000000000a","endpoint":"ep_00000000000000000000000007","subscription":"sub_00000000000000000000000003","verdict":"dead","reason":"rejected","at":5}"#;

    #[test]
    fn version_1_is_read_and_a_later_one_is_named() {
        let read = ResultRecord::decode(V1.as_bytes()).unwrap();
        let expected = ResultRecord {
            version: 1,
            bulk: 255,
            delivery: DeliveryId::from_bits(10),
            endpoint: EndpointId::from_bits(7),
            subscription: SubscriptionId::from_bits(3),
            verdict: ResultVerdict::Dead,
            reason: Some(DeadReason::Rejected),
            words: None,
            at: 5,
            dropped: false,
            count: None,
            items: Vec::new(),
            captured: BTreeMap::new(),
        };
        assert_eq!(read, expected);
        assert_eq!(String::from_utf8(read.encode()).unwrap(), V1);
        let later = V1.replace(r#""version":1"#, r#""version":2"#);
        assert_eq!(
            ResultRecord::decode(later.as_bytes()),
            Err(Error::Version(2))
        );
    }

    /// A chunk's outcome as it is written, which every later version must read: never change it.
    const CHUNK_V1: &str = r#"{"version":1,"bulk":"000000000000000000000000000000ff","delivery":"msg_0000000000000000000000000a","endpoint":"ep_00000000000000000000000007","subscription":"sub_00000000000000000000000003","verdict":"delivered","at":5,"count":50,"items":[{"index":3,"verdict":"rejected","code":"invalid_email"},{"index":7,"verdict":"unknown"}],"captured":{"job":"j-1"}}"#;

    #[test]
    fn a_chunks_items_are_read() {
        let read = ResultRecord::decode(CHUNK_V1.as_bytes()).unwrap();
        assert_eq!((read.count, read.items.len()), (Some(50), 2));
        assert_eq!(read.items[0].code.as_deref(), Some("invalid_email"));
        assert_eq!(read.items[1].verdict, ItemResult::Unknown);
        assert_eq!(read.captured["job"], "j-1");
        assert_eq!(String::from_utf8(read.encode()).unwrap(), CHUNK_V1);
    }

    proptest! {
        #[test]
        fn any_result_comes_back(bulk: u128, delivery: u128, at: i64, delivered: bool) {
            let result = ResultRecord {
                version: 1,
                bulk,
                delivery: DeliveryId::from_bits(delivery),
                endpoint: EndpointId::from_bits(bulk),
                subscription: SubscriptionId::from_bits(delivery),
                verdict: if delivered { ResultVerdict::Delivered } else { ResultVerdict::Dead },
                reason: (!delivered).then_some(DeadReason::MaxAge),
                words: (!delivered).then(|| "400: no".to_owned()),
                at,
                dropped: false,
                count: delivered.then_some(3),
                items: Vec::new(),
                captured: BTreeMap::new(),
            };
            prop_assert_eq!(ResultRecord::decode(&result.encode()).unwrap(), result);
        }
    }
}
