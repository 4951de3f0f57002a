//! Owns what goes wrong at the simulated partner, and when.
//!
//! Deterministic: a member that is refused is refused always, and the same requests with the same
//! seed fare the same. The surprise: members are judged by their ids and requests by their numbers,
//! so that a request that is sent again is another.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Faults {
    /// The share of members that are refused for good.
    pub(crate) reject: Share,
    /// The share of requests of which a part is not taken and may be sent again.
    pub(crate) partial: Share,
    /// The share of requests without an answer: half of them are carried out.
    pub(crate) drop: Share,
    /// Milliseconds before each answer.
    pub(crate) slow_ms: u64,
    /// Seconds that jobs take, where they take other than the profile says.
    pub(crate) job_seconds: Option<u32>,
    /// Whether limits are not enforced.
    pub(crate) no_limits: bool,
    /// What all choices come from.
    pub(crate) seed: u64,
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub(crate) struct Share(f64);

/// Choices that do not follow from each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    Partial,
    DropBefore,
    DropAfter,
    Part(usize),
}

impl Faults {
    /// Whether the member with this id is refused.
    pub(super) fn rejects(&self, id: &str) -> bool {
        self.reject.0 > 0.0
            && self
                .reject
                .covers(xxh3_64_with_seed(id.as_bytes(), self.seed))
    }

    /// Whether the choice falls on the request with this number.
    pub(super) fn chooses(&self, choice: Choice, request: u64) -> bool {
        let (share, salt) = match choice {
            Choice::Partial => (self.partial, 1),
            Choice::DropBefore => (Share(self.drop.0 / 2.0), 2),
            Choice::DropAfter => (Share(self.drop.0 / 2.0), 3),
            Choice::Part(at) => (Share(0.5), 4 + at as u64),
        };
        let mut bytes = [0; 16];
        bytes
            .iter_mut()
            .zip(request.to_le_bytes().into_iter().chain(salt.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        share.0 > 0.0 && share.covers(xxh3_64_with_seed(&bytes, self.seed))
    }
}

impl Share {
    /// All.
    pub(crate) const ALL: Self = Self(1.0);
    /// Every other.
    pub(crate) const HALF: Self = Self(0.5);

    fn covers(self, hash: u64) -> bool {
        // 53 bits: every one of them is a number of its own.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        unit < self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err("must be from 0 to 1, or from 0% to 100%".to_owned())
        }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// `0.01` or `1%`.
impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<f64>();
            number.map_err(|_| format!("`{text}` is no number"))
        };
        match text.strip_suffix('%') {
            Some(percent) => Self::try_from(number(percent)? / 100.0),
            None => Self::try_from(number(text)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_bounded() {
        let read = |text: &str| text.parse::<Share>().map(f64::from);
        assert_eq!([read("1%"), read("0.25")], [Ok(0.01), Ok(0.25)]);
        assert!(
            ["101%", "-1", "x", "", "1.5", "NaN"]
                .iter()
                .all(|text| read(text).is_err())
        );
        assert!(serde_json::from_str::<Faults>(r#"{"reject":2}"#).is_err());
    }

    #[test]
    fn a_share_is_about_what_it_says_and_always_the_same() {
        let faults = |seed| Faults {
            reject: Share(0.1),
            drop: Share(0.2),
            seed,
            ..Faults::default()
        };
        let refused = |faults: Faults| -> Vec<u32> {
            let all = 0..10_000;
            all.filter(|id| faults.rejects(&format!("u-{id}")))
                .collect()
        };
        assert_eq!(refused(faults(1)), refused(faults(1)));
        assert_ne!(refused(faults(1)), refused(faults(2)));
        assert!((800..1_200).contains(&refused(faults(1)).len()));
        let dropped = |choice| {
            (0..10_000)
                .filter(|at| faults(1).chooses(choice, *at))
                .count()
        };
        assert!((800..1_200).contains(&dropped(Choice::DropBefore)));
        assert!((800..1_200).contains(&dropped(Choice::DropAfter)));
        assert_eq!(dropped(Choice::Partial), 0);
    }
}
