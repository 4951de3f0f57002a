//! Owns the record of `results`: the outcome of a delivery that asked for a report.
//!
//! It is written in the transaction that completes the delivery's offset, never before: whoever
//! reads it may count on the outcome. The surprise: 128-bit numbers are text here, because JSON's
//! readers have none of that size.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
    /// When, unix milliseconds.
    pub at: i64,
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
            at: 5,
        };
        assert_eq!(read, expected);
        assert_eq!(String::from_utf8(read.encode()).unwrap(), V1);
        let later = V1.replace(r#""version":1"#, r#""version":2"#);
        assert_eq!(
            ResultRecord::decode(later.as_bytes()),
            Err(Error::Version(2))
        );
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
                at,
            };
            prop_assert_eq!(ResultRecord::decode(&result.encode()).unwrap(), result);
        }
    }
}
