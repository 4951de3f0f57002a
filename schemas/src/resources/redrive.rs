//! Owns the redrive as it is stored: which dead letters are sent again, and how far that is.
//!
//! Which letters a filter takes is decided here, by their reasons and times alone. The surprise: a
//! letter has no name but its place on `dead`, so that is its id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{EndpointId, RedriveId, TenantId};
use crate::records::{DeadLetter, DeadReason};

/// The most letters that one redrive names.
pub const LETTERS_MAX: usize = 100;

/// A dead letter's place: its partition and offset on `dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dl_{}_{}", self.partition, self.offset)
    }
}

/// Why a text is not a letter's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `dl_`, a partition, `_` and an offset, as lists show it")]
pub struct NotALetter;

impl FromStr for LetterId {
    type Err = NotALetter;

    fn from_str(text: &str) -> Result<Self, NotALetter> {
        let (partition, offset) = text
            .strip_prefix("dl_")
            .and_then(|rest| rest.split_once('_'))
            .ok_or(NotALetter)?;
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<i64>().ok()).flatten()
        };
        let partition = number(partition).and_then(|number| u32::try_from(number).ok());
        Ok(Self {
            partition: partition.ok_or(NotALetter)?,
            offset: number(offset).ok_or(NotALetter)?,
        })
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Which dead letters are meant; all that is said must hold, and nothing said takes all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeadFilter {
    /// Of this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// For one of these reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<DeadReason>,
    /// Dead at this time or later, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Dead before this time, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// These letters alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub letters: Vec<LetterId>,
}

impl DeadFilter {
    /// Whether it takes `letter`, whose place is `id`.
    pub fn takes(&self, id: LetterId, letter: &DeadLetter) -> bool {
        self.endpoint
            .is_none_or(|endpoint| letter.endpoint == Some(endpoint))
            && (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
            && (self.letters.is_empty() || self.letters.contains(&id))
    }

    /// Whether a letter could be taken by both: two redrives at once would send it twice.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.endpoint, other.endpoint) {
            (Some(own), Some(others)) => own == others,
            (Some(_) | None, None) | (None, Some(_)) => true,
        }
    }
}

/// Whether a redrive goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveState {
    /// It sends, or waits for another of the same endpoint.
    Running,
    /// Everything that it sent is reported, or given up.
    Done,
    /// It was told to send no more.
    Cancelled,
}

/// What became of the letters that a redrive's filter took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RedriveCounts {
    /// Letters taken.
    pub matched: u64,
    /// Written to `deliveries`.
    pub sent: u64,
    /// Reported as delivered.
    pub delivered: u64,
    /// Reported as dead again.
    pub dead: u64,
    /// Not reported within the delivery's maximum age.
    pub unknown: u64,
    /// Not sent: an earlier redrive had delivered them, or this one has them already.
    pub settled: u64,
    /// Not sent: nothing to send, nowhere to send it, or the endpoint is disabled.
    pub skipped: u64,
}

/// Dead letters that are sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// Its id; its bits are the deliveries' bulk id.
    pub id: RedriveId,
    /// Whose letters.
    pub tenant: TenantId,
    /// Which of them.
    pub filter: DeadFilter,
    /// Whether it goes on.
    pub state: RedriveState,
    /// What became of them; of one that runs, as of its last change.
    #[serde(default)]
    pub counts: RedriveCounts,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

impl Redrive {
    /// A redrive that is to begin.
    pub fn new(id: RedriveId, tenant: TenantId, filter: DeadFilter, at: i64) -> Self {
        Self {
            id,
            tenant,
            filter,
            state: RedriveState::Running,
            counts: RedriveCounts::default(),
            created_at: at,
            updated_at: at,
        }
    }

    /// Whether it takes `letter`: one of its tenant that its filter takes.
    pub fn takes(&self, id: LetterId, letter: &DeadLetter) -> bool {
        letter.tenant.as_ref() == Some(&self.tenant) && self.filter.takes(id, letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Origin;

    fn letter(reason: DeadReason, at: i64, endpoint: u128) -> DeadLetter {
        let origin = Origin {
            topic: "events".into(),
            partition: 0,
            offset: 1,
            index: 0,
        };
        DeadLetter {
            tenant: Some("acme".parse().unwrap()),
            endpoint: Some(EndpointId::from_bits(endpoint)),
            ..DeadLetter::new(reason, at, &origin)
        }
    }

    const HERE: LetterId = LetterId {
        partition: 3,
        offset: 14,
    };

    #[test]
    fn a_letters_id_is_its_place() {
        assert_eq!(HERE.to_string(), "dl_3_14");
        assert_eq!("dl_3_14".parse(), Ok(HERE));
        for text in [
            "",
            "dl_",
            "dl_3",
            "dl_3_",
            "dl_3_-1",
            "dl_+3_1",
            "3_14",
            "dl_4294967296_1",
        ] {
            assert_eq!(text.parse::<LetterId>(), Err(NotALetter), "{text}");
        }
    }

    #[test]
    fn a_filter_takes_what_all_its_parts_take() {
        let dead = letter(DeadReason::Rejected, 50, 7);
        let check = |filter: DeadFilter, expected: bool| {
            assert_eq!(filter.takes(HERE, &dead), expected, "{filter:?}");
        };
        let all = DeadFilter::default;
        check(all(), true);
        for (endpoint, expected) in [(7, true), (8, false)] {
            let endpoint = Some(EndpointId::from_bits(endpoint));
            check(DeadFilter { endpoint, ..all() }, expected);
        }
        for (reason, expected) in [(DeadReason::Rejected, true), (DeadReason::Loop, false)] {
            let reasons = vec![reason];
            check(DeadFilter { reasons, ..all() }, expected);
        }
        for (since, expected) in [(50, true), (51, false)] {
            let since = Some(since);
            check(DeadFilter { since, ..all() }, expected);
        }
        for (until, expected) in [(51, true), (50, false)] {
            let until = Some(until);
            check(DeadFilter { until, ..all() }, expected);
        }
        for (offset, expected) in [(14, true), (15, false)] {
            let letters = vec![LetterId { offset, ..HERE }];
            check(DeadFilter { letters, ..all() }, expected);
        }
    }

    #[test]
    fn a_redrive_takes_only_its_tenants_letters() {
        let id = RedriveId::from_bits(1);
        let of =
            |tenant: &str| Redrive::new(id, tenant.parse().unwrap(), DeadFilter::default(), 50);
        assert!(of("acme").takes(HERE, &letter(DeadReason::MaxAge, 50, 7)));
        assert!(!of("rival").takes(HERE, &letter(DeadReason::MaxAge, 50, 7)));
    }
}
