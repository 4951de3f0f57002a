//! Owns what a partner's API accepts and how it answers, as data.
//!
//! It never guesses: where an answer does not say what became of an item, the verdict is unknown,
//! under 200 too (rule 15). The surprise: lists of an answer may hold the failed items or one entry
//! for each item sent, so a list says which it is.

mod check;
mod chunk;
mod file;
mod identity;
mod judge;
pub(crate) mod read;
mod ready;
mod settings;
pub mod template;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use check::PROFILE_BYTES_MAX;
pub use chunk::{CHUNK_ITEMS_MAX, CHUNK_TYPE, Chunk, ChunkData, NotAChunk};
pub use file::{
    AuthenticationKind, Counted, JobState, Limits, Method, Operation, OperationKind, Poll, Profile,
    RequestTemplates, Says, Simulator, Variable, Window,
};
pub use identity::{Hash, IDENTITY_MAX, Identity, Normalise, Reject, RejectReason, sha256_hex};
pub use judge::{ItemVerdict, Judged, judge};
pub use ready::{READY, ready};
pub use settings::LIST_NAME;

/// The most lists of one grammar.
pub const LISTS_MAX: usize = 32;
/// The most statuses of one grammar.
pub const STATUSES_MAX: usize = 100;
/// The most codes of one list.
pub const CODES_MAX: usize = 200;
/// The most characters of a pointer or a code.
pub const TEXT_CHARS_MAX: usize = 256;

/// How a partner's answer is read: what its status means, and what its body says of each item.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseGrammar {
    /// What statuses mean; one that is not here means what it means without a grammar.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<StatusRange, Meaning>,
    /// What in a body says that the whole request may be sent again, whatever the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Success>,
    /// How many items the partner says that it received; fewer than were sent is a mismatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Pointer>,
    /// How many items it says that it accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Pointer>,
    /// How many items it says that it rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Pointer>,
    /// Where the answer names items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<ItemList>,
    /// Where an item, as it was sent, holds the id that the answer names it by; without it, the
    /// event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<Pointer>,
}

/// What a status means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Taken; the body may name items that were not.
    Delivered,
    /// Not now.
    Retry,
    /// Not like this; the body may name the items that were wrong.
    Rejected,
}

/// One status, or all that begin with a digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusRange {
    /// This one, e.g. `207`.
    Exactly(u16),
    /// All that begin so, e.g. `4xx`.
    Class(u8),
}

/// A place in a JSON document (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pointer(String);

/// An array or object of the answer that speaks of single items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemList {
    /// Where it is; absent in an answer means that it is empty.
    pub at: Pointer,
    /// Which items it holds.
    #[serde(default, skip_serializing_if = "Holds::is_default")]
    pub holds: Holds,
    /// In an entry: what says that the item succeeded after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Success>,
    /// In an entry: the item's place in the request, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Pointer>,
    /// In an entry: the item's id, or an array of ids; the empty pointer is the entry itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Pointer>,
    /// In an entry: the code that says what was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Pointer>,
    /// The code of entries that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_code: Option<String>,
    /// Codes with which an item may be sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retryable: Vec<String>,
}

/// Which items a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Those that failed.
    #[default]
    Failed,
    /// Each item sent, in order.
    Each,
}

/// A place and what is there then: that an item succeeded, or that a request may be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Success {
    /// Where to look.
    pub at: Pointer,
    /// What is there then.
    pub values: Vec<Value>,
}

/// Why a text is no pointer, status or grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not RFC 6901.
    #[error("must be empty or begin with `/`, and every `~` be followed by 0 or 1")]
    Pointer,
    /// Too many characters.
    #[error("must be at most {TEXT_CHARS_MAX} characters")]
    Long,
    /// Not a status.
    #[error("must be a status from 200 to 599, or `2xx` to `5xx`")]
    Status,
}

impl ResponseGrammar {
    /// What `status` means: by itself before by its class.
    #[must_use]
    pub fn meaning(&self, status: u16) -> Option<Meaning> {
        let exactly = self.status.get(&StatusRange::Exactly(status));
        let class = || {
            let class = u8::try_from(status / 100).ok()?;
            self.status.get(&StatusRange::Class(class))
        };
        exactly.or_else(class).copied()
    }

    /// Whether the body of an answer must be read.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.retry.is_some() || self.reads_items()
    }

    /// Whether the body says what became of items.
    #[must_use]
    pub fn reads_items(&self) -> bool {
        let counts = [&self.received, &self.accepted, &self.rejected];
        !self.lists.is_empty() || counts.into_iter().any(Option::is_some)
    }

    /// Whether the answer names items by id.
    #[must_use]
    pub fn names_ids(&self) -> bool {
        self.lists.iter().any(|list| list.id.is_some())
    }
}

impl Holds {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Pointer ===

impl Pointer {
    /// The pointer that this text is.
    ///
    /// # Errors
    /// When it is none, or too long.
    pub fn try_new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.chars().count() > TEXT_CHARS_MAX {
            return Err(Error::Long);
        }
        let escapes = text.split('~').skip(1);
        let escaped = escapes.into_iter().all(|rest| rest.starts_with(['0', '1']));
        if !escaped || !(text.is_empty() || text.starts_with('/')) {
            return Err(Error::Pointer);
        }
        Ok(Self(text))
    }

    /// What is there in `value`.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(&self.0)
    }

    /// The pointer's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

// === impl StatusRange ===

impl FromStr for StatusRange {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(class) = text.strip_suffix("xx") {
            return match class.parse() {
                Ok(class @ 2..=5) if class_is_plain(text) => Ok(Self::Class(class)),
                Ok(_) | Err(_) => Err(Error::Status),
            };
        }
        match text.parse() {
            Ok(status @ 200..=599) if text.len() == 3 => Ok(Self::Exactly(status)),
            Ok(_) | Err(_) => Err(Error::Status),
        }
    }
}

/// `+4xx` parses as a number, and is no status.
fn class_is_plain(text: &str) -> bool {
    text.len() == 3
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
