//! Owns how many members there are, as the cohorts service leaves it on `progress`: of a cohort, and
//! at the partner of a sync. `control` tells by it whether a schedule can be kept.
//!
//! A count is what is true when it is written. The surprise: nobody decides by it who is sent: that
//! is for snapshots and rosters alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::ids::{CohortId, SyncId};

/// The key of a [`MemberCount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberCountKey {
    /// Of a cohort's newest snapshot: `members/cohort/{cohort}`.
    Cohort(CohortId),
    /// Those whom a sync's partner holds or may hold: `members/sync/{sync}`.
    Sync(SyncId),
}

/// How many members there are; `null` when what they are members of is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCount {
    /// The version of this record's form: 1.
    pub version: u8,
    /// How many.
    pub members: u64,
    /// When, unix milliseconds.
    pub at: i64,
}

const KEY: &str = "members";
const COHORT: &str = "cohort";
const SYNC: &str = "sync";

impl MemberCountKey {
    /// Whether a record's key may be one.
    pub fn is_one(key: &[u8]) -> bool {
        key.strip_prefix(KEY.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl fmt::Display for MemberCountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cohort(id) => write!(f, "{KEY}/{COHORT}/{id}"),
            Self::Sync(id) => write!(f, "{KEY}/{SYNC}/{id}"),
        }
    }
}

impl FromStr for MemberCountKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.splitn(3, '/');
            let _kind = parts.next().filter(|kind| *kind == KEY)?;
            match (parts.next()?, parts.next()?) {
                (COHORT, id) => id.parse().ok().map(Self::Cohort),
                (SYNC, id) => id.parse().ok().map(Self::Sync),
                _ => None,
            }
        };
        parse().ok_or(Error::Invalid("key of a count of members"))
    }
}

impl MemberCount {
    /// A count.
    pub fn new(members: u64, at: i64) -> Self {
        Self {
            version: 1,
            members,
            at,
        }
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        // Numbers alone: writing cannot fail.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_version_1_are_read_for_ever() {
        let count = MemberCount::new(10_000_000, 1_795_331_700_000);
        let stored = include_bytes!("fixtures/members-v1.json");
        assert_eq!(MemberCount::decode(stored), Ok(count));
        assert_eq!(MemberCount::decode(&count.encode()), Ok(count));
        let later = br#"{"version":2,"members":1,"at":0}"#;
        assert_eq!(MemberCount::decode(later), Err(Error::Version(2)));
    }

    #[test]
    fn keys_are_read_back_and_others_are_none() {
        for key in [
            MemberCountKey::Cohort(CohortId::from_bits(7)),
            MemberCountKey::Sync(SyncId::from_bits(7)),
        ] {
            let text = key.to_string();
            assert!(MemberCountKey::is_one(text.as_bytes()));
            assert_eq!(text.parse(), Ok(key));
        }
        for other in ["members", "members/cohort", "members/sync/x", "lane/a", ""] {
            assert!(other.parse::<MemberCountKey>().is_err(), "{other}");
        }
    }
}
