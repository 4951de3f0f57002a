//! Filters of the CloudEvents subscriptions API (SB-2 to SB-4): exact, prefix, suffix, all, any
//! and not, compiled into an immutable tree.
//!
//! Never looks into data, never panics, never allocates while matching. The surprise: a missing
//! attribute makes a comparison false, hence `not` over it true.

mod error;
mod parse;

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use error::{Error, Fault};

use crate::event::{AttributeName, Context, Event};

/// How deep filters may be nested.
pub const DEPTH_MAX: usize = 32;
/// How many filters and comparisons one subscription may have.
pub const NODES_MAX: usize = 512;
/// Bytes of all names and values of one subscription's filters.
pub const BYTES_MAX: usize = 32 << 10;
/// Bytes of filters as JSON text, white space and escapes included.
const TEXT_BYTES_MAX: usize = 4 * BYTES_MAX;

/// A subscription's filters, joined by AND; none match every event (SB-2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    filters: Box<[Filter]>,
}

/// One filter (SB-4).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Exact(Box<[Comparison]>),
    Prefix(Box<[Comparison]>),
    Suffix(Box<[Comparison]>),
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
}

/// An attribute and the text that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    attribute: AttributeName,
    value: Box<str>,
}

impl Filters {
    /// Compiles filters from their JSON form, an array.
    ///
    /// # Errors
    /// Names the JSON pointer of the first fault: an unsupported dialect (SB-3), an empty name or
    /// value, a limit.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        Self::parse_all(value).map_err(|faults| {
            let first = faults.into_iter().next();
            first.unwrap_or_else(|| Error::new("", Fault::NotAnArray))
        })
    }

    /// [`Filters::parse`], for whoever wants to know every fault at once.
    ///
    /// # Errors
    /// At least one fault, in the order of the text; not more than a few dozen.
    pub fn parse_all(value: &Value) -> Result<Self, Vec<Error>> {
        let filters = parse::filters(value)?;
        Ok(Self { filters })
    }

    /// [`Filters::parse`] from JSON text.
    ///
    /// # Errors
    /// As `parse`; also where the text is not JSON or is too long.
    pub fn parse_str(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::new("", Fault::TooLong));
        }
        let value = serde_json::from_str(text).map_err(|_| Error::new("", Fault::Syntax))?;
        Self::parse(&value)
    }

    /// Filters that match events of any of these types; none match every event.
    ///
    /// # Errors
    /// A type is empty, or there are too many.
    pub fn of_types(types: &[&str]) -> Result<Self, Error> {
        let exact = |ty: &&str| serde_json::json!({ "exact": { "type": ty } });
        let filters = match types {
            [] => Vec::new(),
            [one] => vec![exact(one)],
            several => {
                let any: Vec<Value> = several.iter().map(exact).collect();
                vec![serde_json::json!({ "any": any })]
            }
        };
        Self::parse(&Value::Array(filters))
    }

    /// Whether every event matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether the event passes all filters.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.filters.iter().all(|filter| filter.matches(event))
    }

    /// The event types outside which nothing can match, sorted; `None` means any type. An empty
    /// list means that no event can match at all.
    #[must_use]
    pub fn required_types(&self) -> Option<Vec<&str>> {
        required_by_all(&self.filters).map(|types| types.into_iter().collect())
    }

    /// The JSON form that [`Filters::parse`] reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Maps of strings only: this cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Filter {
    /// Recursion is bounded by [`DEPTH_MAX`].
    fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Exact(entries) => every(entries, event, |text, value| text == value),
            Self::Prefix(entries) => every(entries, event, |text, value| text.starts_with(value)),
            Self::Suffix(entries) => every(entries, event, |text, value| text.ends_with(value)),
            Self::All(filters) => filters.iter().all(|filter| filter.matches(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(event)),
            Self::Not(filter) => !filter.matches(event),
        }
    }

    fn required_types(&self) -> Option<BTreeSet<&str>> {
        match self {
            Self::Exact(entries) => {
                let is_type =
                    |entry: &&Comparison| entry.attribute.context() == Some(Context::Type);
                entries
                    .iter()
                    .find(is_type)
                    .map(|entry| BTreeSet::from([&*entry.value]))
            }
            Self::All(filters) => required_by_all(filters),
            Self::Any(filters) => filters
                .iter()
                .try_fold(BTreeSet::new(), |mut types, filter| {
                    types.append(&mut filter.required_types()?);
                    Some(types)
                }),
            Self::Prefix(_) | Self::Suffix(_) | Self::Not(_) => None,
        }
    }
}

/// All entries must hold; a missing attribute does not (SB-4).
fn every(entries: &[Comparison], event: &Event, holds: impl Fn(&str, &str) -> bool) -> bool {
    entries.iter().all(|entry| {
        event
            .get(&entry.attribute)
            .is_some_and(|text| holds(text, &entry.value))
    })
}

fn required_by_all(filters: &[Filter]) -> Option<BTreeSet<&str>> {
    let each = filters.iter().filter_map(Filter::required_types);
    each.reduce(|left, right| left.intersection(&right).copied().collect())
}

impl Serialize for Filters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.filters)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Exact(entries) => map.serialize_entry("exact", &Entries(entries))?,
            Self::Prefix(entries) => map.serialize_entry("prefix", &Entries(entries))?,
            Self::Suffix(entries) => map.serialize_entry("suffix", &Entries(entries))?,
            Self::All(filters) => map.serialize_entry("all", filters)?,
            Self::Any(filters) => map.serialize_entry("any", filters)?,
            Self::Not(filter) => map.serialize_entry("not", filter)?,
        }
        map.end()
    }
}

struct Entries<'a>(&'a [Comparison]);

impl<'a> Serialize for Entries<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |entry: &'a Comparison| (entry.attribute.as_str(), &entry.value);
        serializer.collect_map(self.0.iter().map(pair))
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
