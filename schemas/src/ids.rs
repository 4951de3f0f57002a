//! Owns the identifiers: of tenants, of the objects in `control`, of deliveries and of marks.
//!
//! Ids of objects are 128 bits, written as a prefix and 26 lower-case characters of Crockford's
//! base 32 (no i, l, o, u), so that a log line says what kind of thing it names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::event::Event;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The prefix that names the kind is missing.
    #[error("must begin with `{0}`")]
    Prefix(&'static str),
    /// What follows the prefix is not 26 characters of base 32.
    #[error("must have 26 characters of 0-9 and a-z (without i, l, o, u) behind its prefix")]
    Characters,
    /// A tenant's name has other characters or another length.
    #[error("must be 1 to 63 characters of a-z, 0-9 and `-`, and begin with a letter or digit")]
    Tenant,
}

fn to_text(prefix: &str, bits: u128) -> String {
    let mut text = String::with_capacity(prefix.len() + TEXT_LEN);
    text.push_str(prefix);
    for place in (0..TEXT_LEN).rev() {
        let digit = usize::try_from((bits >> (5 * place)) & 31).unwrap_or(0);
        text.push(char::from(ALPHABET.get(digit).copied().unwrap_or(b'0')));
    }
    text
}

fn from_text(prefix: &'static str, text: &str) -> Result<u128, Error> {
    let digits = text.strip_prefix(prefix).ok_or(Error::Prefix(prefix))?;
    if digits.len() != TEXT_LEN || digits.as_bytes().first().is_some_and(|first| *first > b'7') {
        return Err(Error::Characters);
    }
    digits.bytes().try_fold(0_u128, |bits, byte| {
        let digit = ALPHABET
            .iter()
            .position(|known| *known == byte)
            .ok_or(Error::Characters)?;
        Ok(bits << 5 | digit as u128)
    })
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// The id with these 128 bits (those of a UUIDv7 when it is made).
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits.
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_text($prefix, self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                from_text($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

object_id!(
    /// Names an endpoint.
    EndpointId, "ep_"
);
object_id!(
    /// Names a subscription.
    SubscriptionId, "sub_"
);
object_id!(
    /// Names an API key.
    KeyId, "key_"
);
object_id!(
    /// Names a redrive.
    RedriveId, "rdr_"
);
object_id!(
    /// Names a cohort.
    CohortId, "coh_"
);
object_id!(
    /// Names a sync.
    SyncId, "syn_"
);
object_id!(
    /// Names a source.
    SourceId, "src_"
);
object_id!(
    /// Names a delivery: the `webhook-id` (WH-1), the same for ever (rule 4).
    DeliveryId, "msg_"
);

impl DeliveryId {
    /// The id of the delivery of the event (`source`, `id`) for `subscription`: a pure function of
    /// the three, with their lengths (rule 4).
    pub fn of(source: &str, id: &str, subscription: SubscriptionId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"anabranch delivery 1");
        with_length(&mut hash, source.as_bytes());
        with_length(&mut hash, id.as_bytes());
        hash.update(subscription.bits().to_be_bytes());
        Self(first_bits(hash))
    }
}

impl DeliveryId {
    /// The id of a request that carries several deliveries: a pure function of theirs, which the
    /// caller has sorted.
    pub fn of_batch(ids: &[Self]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"anabranch batch 1");
        for id in ids {
            hash.update(id.0.to_be_bytes());
        }
        Self(first_bits(hash))
    }
}

/// Names a target's way into `deliveries`: 128 bits of origin, event and subscription, computed and
/// never stored in a record (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(u128);

impl Mark {
    /// Its 128 bits.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The marks of one record's targets share this prefix; [`MarkSeed::mark`] ends it.
    pub fn seed(origin: &crate::records::Origin, source: &str, id: &str) -> MarkSeed {
        let mut hash = Sha256::new();
        hash.update(b"anabranch mark 1");
        with_length(&mut hash, origin.topic.as_bytes());
        hash.update(origin.partition.to_be_bytes());
        hash.update(origin.offset.to_be_bytes());
        hash.update(origin.index.to_be_bytes());
        with_length(&mut hash, source.as_bytes());
        with_length(&mut hash, id.as_bytes());
        MarkSeed(hash)
    }
}

/// The part of a mark that all targets of a record share.
#[derive(Debug, Clone)]
pub struct MarkSeed(Sha256);

impl MarkSeed {
    /// The mark of the target for `subscription`; a redrive or a chunk adds its own id.
    pub fn mark(&self, subscription: SubscriptionId, bulk: Option<u128>) -> Mark {
        let mut hash = self.0.clone();
        hash.update(subscription.bits().to_be_bytes());
        if let Some(bulk) = bulk {
            hash.update(bulk.to_be_bytes());
        }
        Mark(first_bits(hash))
    }
}

/// The key within which an ordered subscription's events are delivered one after another: the
/// event's `partitionkey`, else its `subject`, else its `source` (rule 12). The same for ever: it
/// is in records.
pub fn order_key(event: &Event) -> u64 {
    let (kind, text) = match (event.attribute("partitionkey"), event.subject()) {
        (Some(key), _) => (b'k', key),
        (None, Some(subject)) => (b's', subject),
        (None, None) => (b'o', event.source()),
    };
    let mut hash = Sha256::new();
    hash.update(b"anabranch order 1");
    hash.update([kind]);
    with_length(&mut hash, text.as_bytes());
    let bits = first_bits(hash) >> 64;
    u64::try_from(bits).unwrap_or(0)
}

fn with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn first_bits(hash: Sha256) -> u128 {
    hash.finalize()
        .iter()
        .take(16)
        .fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

/// Names a tenant: a slug that the operator chooses. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=63).contains(&text.len())
            && text.bytes().next().is_some_and(good)
            && text.bytes().all(|byte| good(byte) || byte == b'-');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Error::Tenant)
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Origin;
    use proptest::prelude::*;

    #[test]
    fn a_delivery_id_is_fixed_for_ever_and_keeps_its_parts_apart() {
        let sub = SubscriptionId::from_bits(7);
        let id = DeliveryId::of("/shop", "42", sub);
        // A change of this text would send every delivery in the log again: never update it.
        assert_eq!(id.to_string(), "msg_2020fmg85mmx6df36746ap6mpr");
        assert_ne!(id, DeliveryId::of("/shop4", "2", sub));
        assert_ne!(
            id,
            DeliveryId::of("/shop", "42", SubscriptionId::from_bits(8))
        );
        assert!(!id.to_string().contains('.'), "WH-1");
    }

    #[test]
    fn tenants_are_slugs() {
        for good in ["a", "acme", "a-b", "0-", &"x".repeat(63)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert_eq!(bad.parse::<TenantId>(), Err(Error::Tenant), "{bad}");
        }
    }

    #[test]
    fn a_mark_is_of_each_of_its_parts() {
        // rule 3
        let origin = Origin {
            topic: "events".into(),
            partition: 1,
            offset: 2,
            index: 3,
        };
        let sub = SubscriptionId::from_bits(7);
        let of = |origin: &Origin, source, id| Mark::seed(origin, source, id);
        let mark = of(&origin, "/s", "id").mark(sub, None);
        assert_eq!(of(&origin, "/s", "id").mark(sub, None), mark);
        let place = |topic: &str, partition, offset, index| Origin {
            topic: topic.into(),
            partition,
            offset,
            index,
        };
        let others = [
            of(&place("event", 1, 2, 3), "/s", "id").mark(sub, None),
            of(&place("events", 2, 2, 3), "/s", "id").mark(sub, None),
            of(&place("events", 1, 3, 3), "/s", "id").mark(sub, None),
            of(&place("events", 1, 2, 0), "/s", "id").mark(sub, None),
            of(&origin, "/si", "d").mark(sub, None),
            of(&origin, "/s", "i").mark(sub, None),
            of(&origin, "/s", "id").mark(SubscriptionId::from_bits(8), None),
            of(&origin, "/s", "id").mark(sub, Some(0)),
            of(&origin, "/s", "id").mark(sub, Some(1)),
        ];
        let different: std::collections::HashSet<Mark> = others.into_iter().chain([mark]).collect();
        assert_eq!(different.len(), others.len() + 1);
    }

    #[test]
    fn an_order_key_is_of_the_partition_key_else_the_subject_else_the_source() {
        // rule 12
        let event = |source: &str, attributes: &[(&str, &str)]| {
            let mut event = Event::builder("1", source, "t");
            for (name, text) in attributes {
                event = event.attribute(name, *text);
            }
            order_key(&event.build().unwrap())
        };
        let of_source = event("/a", &[]);
        assert_eq!(
            of_source, 1_720_418_714_168_720_071,
            "in records: never changes"
        );
        let different: std::collections::HashSet<u64> = [
            of_source,
            event("/b", &[]),
            event("/b", &[("subject", "/a")]),
            event("/b", &[("partitionkey", "/a")]),
        ]
        .into();
        assert_eq!(different.len(), 4);
        let same = event("/c", &[("subject", "x"), ("partitionkey", "/a")]);
        assert!(different.contains(&same));
    }

    #[test]
    fn texts_of_ids_are_lower_case_base_32() {
        let check = |text: &str, expected: Result<u128, Error>| {
            assert_eq!(
                text.parse::<EndpointId>().map(EndpointId::bits),
                expected,
                "{text}"
            );
        };
        check("ep_00000000000000000000000000", Ok(0));
        check("ep_7zzzzzzzzzzzzzzzzzzzzzzzzz", Ok(u128::MAX));
        check("ep_80000000000000000000000000", Err(Error::Characters));
        check("ep_0000000000000000000000000", Err(Error::Characters));
        check("ep_000000000000000000000000000", Err(Error::Characters));
        for other in ["A", "i", "l", "o", "u", "-", " ", "{"] {
            check(
                &format!("ep_0000000000000000000000000{other}"),
                Err(Error::Characters),
            );
        }
        check("ep_000000000000000000000000ä", Err(Error::Characters));
        check("00000000000000000000000000", Err(Error::Prefix("ep_")));
        check("key_00000000000000000000000000", Err(Error::Prefix("ep_")));
        check("", Err(Error::Prefix("ep_")));
    }

    proptest! {
        #[test]
        fn ids_come_back_from_their_text(bits: u128) {
            let id = EndpointId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse::<EndpointId>().unwrap(), id);
            prop_assert!(id.to_string().parse::<SubscriptionId>().is_err());
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{id}\""));
            prop_assert_eq!(serde_json::from_str::<EndpointId>(&json).unwrap(), id);
        }

        #[test]
        fn texts_sort_as_their_bits(a: u128, b: u128) {
            // UUIDv7 bits begin with the time: lists by text are lists by age.
            let (one, other) = (KeyId::from_bits(a), KeyId::from_bits(b));
            prop_assert_eq!(one.to_string().cmp(&other.to_string()), a.cmp(&b));
        }

        #[test]
        fn a_delivery_id_is_of_each_of_its_parts(
            source in ".{0,4}", id in ".{0,4}", sub: u128,
            other_source in ".{0,4}", other_id in ".{0,4}", other_sub: u128,
        ) {
            // rule 4
            let one = DeliveryId::of(&source, &id, SubscriptionId::from_bits(sub));
            let other =
                DeliveryId::of(&other_source, &other_id, SubscriptionId::from_bits(other_sub));
            let same = (source, id, sub) == (other_source, other_id, other_sub);
            prop_assert_eq!(one == other, same);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let parsed = text.parse::<KeyId>();
            if let Ok(id) = parsed { prop_assert_eq!(id.to_string(), text); }
        }
    }
}
