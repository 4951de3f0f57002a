//! Owns what routers keep on `progress` of a subscription with a start: from which offset of one
//! source partition on it is live there, and how far the events before that have been replayed.
//!
//! It must never be believed only because it is there. The surprise: a router that was stopped may
//! write one when the partition is somebody else's already. So each owner puts an [`OwnerMark`]
//! into the metadata of its commits, which the log takes from members alone: what others wrote
//! behind the place that it names is void.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Incarnation};
use crate::ids::SubscriptionId;
use crate::resources::{Placement, Quota};

/// The activation of one subscription in one source partition, as one owner left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The version of this record's form: 1.
    pub version: u8,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The source topic's full name.
    pub topic: String,
    /// The source partition.
    pub partition: u32,
    /// The subscription is live at this source offset and above it, and left out below; `None`
    /// while an ordered one's replay has not met the live position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Whatever of the start's range lies below this source offset is on `deliveries`.
    pub replayed_to: i64,
    /// Whether nothing is to be replayed any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub done: bool,
    /// Where the log began, if older events of the range that was asked for may have been gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<i64>,
    /// Who wrote it.
    pub writer: Writer,
}

/// One ownership of a source partition by one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Writer(std::sync::Arc<str>);

/// The key of an [`Activation`]: `activation/{partition}/{subscription}/{writer}/{topic}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActivationKey {
    /// The source topic's full name.
    pub topic: String,
    /// The source partition.
    pub partition: u32,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Who wrote it.
    pub writer: Writer,
}

/// What the owner of a source partition says with each commit: `activations/{from}/{writer}`, and
/// behind that the same of owners before it, as long as records are there that do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerMark {
    /// The owners, the newest first; never empty.
    owners: Vec<(i64, Writer)>,
}

const KEY: &str = "activation";
const MARK: &str = "activations";
/// No writer's text.
const NOBODY: &str = "0";
/// Owners in one mark: at about 60 bytes each, a third of what a commit may carry.
const OWNERS_MAX: usize = 20;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

// === impl Activation ===

impl Activation {
    /// The partition of `progress` that has all activations of one source partition. `partitions`
    /// is the count recorded in `control`, never the one that the log reports.
    pub fn place(topic: &str, partition: u32, partitions: NonZeroU32) -> u32 {
        let text = format!("{MARK}/{partition}/{topic}");
        Placement::of(&Quota::from_text(&text), partitions).partition()
    }

    /// The key it is stored under.
    pub fn key(&self) -> ActivationKey {
        ActivationKey {
            topic: self.topic.clone(),
            partition: self.partition,
            subscription: self.subscription,
            writer: self.writer.clone(),
        }
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers alone: writing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a value back. Members that a later version added are ignored.
    ///
    /// # Errors
    /// An unknown version, or JSON that does not fit.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        super::decode_json(value)
    }
}

// === impl Writer ===

impl Writer {
    /// The ownership with the number `tenure` of the process `incarnation`.
    pub fn new(incarnation: &Incarnation, tenure: u64) -> Self {
        Self(format!("{}-{tenure}", incarnation.as_str()).into())
    }

    /// Its text: digits and one hyphen.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (!text.is_empty() && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }
}

// === impl ActivationKey ===

impl ActivationKey {
    /// Whether a record's key may be one.
    pub fn is_one(key: &[u8]) -> bool {
        key.strip_prefix(KEY.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl fmt::Display for ActivationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            partition,
            subscription,
            writer,
        } = self;
        let writer = writer.as_str();
        write!(f, "{KEY}/{partition}/{subscription}/{writer}/{topic}")
    }
}

impl FromStr for ActivationKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.splitn(5, '/');
            let _kind = parts.next().filter(|kind| *kind == KEY)?;
            let partition = parts.next()?.parse().ok()?;
            let subscription = parts.next()?.parse().ok()?;
            let writer = Writer::parse(parts.next()?)?;
            let topic = parts.next().filter(|topic| !topic.is_empty())?.to_owned();
            Some(Self {
                topic,
                partition,
                subscription,
                writer,
            })
        };
        parse().ok_or(Error::Invalid("activation key"))
    }
}

// === impl OwnerMark ===

impl OwnerMark {
    /// The mark of an owner that knows everything below `from` on the partition of `progress`, and
    /// that all of it counts. From there on only its own records do.
    pub fn new(writer: Writer, from: i64) -> Self {
        Self {
            owners: vec![(from, writer)],
        }
    }

    /// The same with what `earlier` says of the records below; where there is none, none of them
    /// count.
    #[must_use]
    pub fn behind(mut self, earlier: Option<&Self>) -> Self {
        let nobody = || Self::new(Writer(NOBODY.into()), 0);
        let earlier = earlier.cloned().unwrap_or_else(nobody);
        self.owners.extend(earlier.owners);
        // An owner that takes back what does not count says so no more; this many in a row that
        // never come to it are more than can be, and what is left out repeats, it loses nothing.
        self.owners.truncate(OWNERS_MAX);
        self
    }

    /// Whether the record of `writer` at `offset` counts.
    pub fn counts(&self, offset: i64, writer: &Writer) -> bool {
        let of_its_time = self.owners.iter().find(|(from, _)| offset >= *from);
        // Below all of them, everything was put in order.
        of_its_time.is_none_or(|(_, owner)| owner == writer)
    }
}

impl fmt::Display for OwnerMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        for (from, writer) in &self.owners {
            write!(f, "/{from}/{}", writer.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for OwnerMark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut rest = text.strip_prefix(MARK)?.strip_prefix('/')?.split('/');
            let mut owners = Vec::new();
            while let Some(from) = rest.next() {
                let writer = Writer::parse(rest.next()?)?;
                owners.push((from.parse().ok()?, writer));
            }
            (owners.len() <= OWNERS_MAX).then_some(Self { owners })
        };
        parse().ok_or(Error::Invalid("mark of activations"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer::new(&Incarnation::from_uuid_v7([7; 16]), 12)
    }

    fn full() -> Activation {
        Activation {
            version: 1,
            subscription: SubscriptionId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0002),
            topic: "anabranch.events".to_owned(),
            partition: 3,
            offset: Some(900),
            replayed_to: 700,
            done: false,
            log_start: Some(500),
            writer: writer(),
        }
    }

    #[test]
    fn records_of_version_1_are_read_for_ever() {
        let bytes = include_bytes!("fixtures/activation-v1-full.json");
        assert_eq!(Activation::decode(bytes), Ok(full()));
        assert_eq!(full().encode(), bytes.trim_ascii());
        let bytes = include_bytes!("fixtures/activation-v1-plain.json");
        let plain = Activation {
            offset: None,
            log_start: None,
            ..full()
        };
        assert_eq!(Activation::decode(bytes), Ok(plain));
        let later = br#"{"version":2}"#;
        assert_eq!(Activation::decode(later), Err(Error::Version(2)));
    }

    #[test]
    fn keys_and_marks_come_back() {
        let key = full().key();
        let text = key.to_string();
        assert!(ActivationKey::is_one(text.as_bytes()));
        assert_eq!(text.parse(), Ok(key));
        let mark = OwnerMark::new(writer(), 55);
        assert_eq!(mark.to_string().parse(), Ok(mark.clone()));
        let behind = OwnerMark::new(writer(), 70).behind(Some(&mark.behind(None)));
        assert_eq!(behind.to_string().parse(), Ok(behind));
        for other in [
            "",
            "lane/a",
            "activations/1/a",
            "activation",
            "activation/1/x/a-1/t",
        ] {
            let parsed = other.parse::<ActivationKey>();
            assert_eq!(parsed, Err(Error::Invalid("activation key")), "{other}");
        }
        assert!(!ActivationKey::is_one(b"activations/1/a"));
        for other in [
            "",
            "activations/x/a-1",
            "activations/1/",
            "activations/1/a/b",
            "p=1",
        ] {
            assert!(other.parse::<OwnerMark>().is_err(), "{other}");
        }
    }

    #[test]
    fn of_each_owners_time_only_its_own_records_count() {
        let writer = |number: u8| Writer::new(&Incarnation::from_uuid_v7([number; 16]), 1);
        let check = |mark: &OwnerMark, offset, by, expected| {
            assert_eq!(
                mark.counts(offset, &writer(by)),
                expected,
                "{offset} by {by}"
            );
        };
        let first = OwnerMark::new(writer(1), 10);
        let second = OwnerMark::new(writer(2), 20).behind(Some(&first));
        for (offset, by, expected) in [
            (9, 3, true),
            (10, 1, true),
            (19, 2, false),
            (20, 1, false),
            (20, 2, true),
        ] {
            check(&second, offset, by, expected);
        }
        // Put in order: everything below counts.
        check(&OwnerMark::new(writer(2), 20), 19, 3, true);
        let alone = OwnerMark::new(writer(2), 20).behind(None);
        check(&alone, 19, 2, false);
        check(&alone, 20, 2, true);
        let mut long = first;
        for number in 0..50 {
            long = OwnerMark::new(writer(number), i64::from(number)).behind(Some(&long));
        }
        assert!(long.to_string().len() < 1_500);
        assert_eq!(long.to_string().parse(), Ok(long));
    }

    #[test]
    fn all_activations_of_a_source_partition_are_in_one_place() {
        let partitions = NonZeroU32::new(48).unwrap();
        let place = |topic, number| Activation::place(topic, number, partitions);
        // Where they were once, they are looked for: never change these.
        assert_eq!(place("anabranch.events", 0), PLACES[0]);
        assert_eq!(place("anabranch.events", 1), PLACES[1]);
        assert_eq!(place("orders", 0), PLACES[2]);
    }

    const PLACES: [u32; 3] = [18, 24, 45];
}
