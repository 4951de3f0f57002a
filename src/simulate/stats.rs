//! Owns what the simulator counts.
//!
//! It must never count a request twice: each is answered, limited, refused or dropped.

use std::collections::BTreeMap;

use schemas::profile::OperationKind;
use serde::Serialize;

/// Counts since the start, or since they were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stats {
    /// All requests.
    pub(crate) requests: u64,
    /// Those that were carried out, by operation.
    pub(crate) operations: BTreeMap<OperationKind, u64>,
    /// Items of those.
    pub(crate) items: u64,
    /// Members that were not there before.
    pub(crate) added: u64,
    /// Members that were, with other content.
    pub(crate) changed: u64,
    /// Members that were, just so.
    pub(crate) added_again: u64,
    /// Members that left.
    pub(crate) removed: u64,
    /// Removals of members that were not there.
    pub(crate) removed_again: u64,
    /// Items refused for good.
    pub(crate) rejected: u64,
    /// Items that may be sent again.
    pub(crate) retry: u64,
    /// Items said not to have come.
    pub(crate) missed: u64,
    /// Requests refused whole because of an item.
    pub(crate) refused_whole: u64,
    /// Answered 429.
    pub(crate) limited: u64,
    /// Answered 503.
    pub(crate) busy: u64,
    /// Requests that the API does not have, or not like this.
    pub(crate) wrong: u64,
    /// No answer, and not carried out.
    pub(crate) dropped_before: u64,
    /// No answer, and carried out.
    pub(crate) dropped_after: u64,
    /// The most requests at once.
    pub(crate) at_once_max: u32,
    /// When the first and the last request with members was carried out, in milliseconds.
    pub(crate) first_ms: Option<u64>,
    pub(crate) last_ms: Option<u64>,
}
