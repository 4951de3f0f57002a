//! Filters of the CloudEvents subscriptions API (SB-2 to SB-4): exact, prefix, suffix, all, any
//! and not; and dialects of our own (SB-6): patterns of attributes, and what is inside JSON data.
//! All of them are compiled into one immutable tree.
//!
//! Never panics, never takes longer than event and filters together allow. The surprise: what is
//! missing makes a comparison false, hence `not` over it true.

mod access;
mod brief;
pub mod cesql;
mod data;
mod decimal;
mod decisive;
mod error;
mod explain;
pub(crate) mod extract;
mod network;
mod parse;
mod subject;
mod text;
mod wildcard;

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use access::{Alternative, Key, Need, Operand};
pub use brief::Brief;
pub use decimal::Decimal;
pub use decisive::Decisive;
pub use error::{Error, Fault};
pub use explain::{CLAUSES_MAX, Explanation};
pub use extract::{Found, Paths, Scalar, Slot, Values};
pub use network::{Block, address};
pub use subject::Subject;
pub use text::Text;

use data::{Clause, Clauses};
use wildcard::Wildcard;

use crate::event::{AttributeName, Context, Event};

/// How deep filters may be nested.
pub const DEPTH_MAX: usize = 32;
/// How many filters and comparisons one subscription may have.
pub const NODES_MAX: usize = 512;
/// Bytes of all names and values of one subscription's filters.
pub const BYTES_MAX: usize = 32 << 10;
/// Bytes of filters as JSON text, white space and escapes included.
const TEXT_BYTES_MAX: usize = 4 * BYTES_MAX;

/// The dialect of what is inside data (SB-6).
const DATA: &str = "anabranch-data";
/// The dialect of patterns of attributes.
const GLOB: &str = "anabranch-glob";

/// A subscription's filters, joined by AND; none match every event (SB-2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filters {
    filters: Box<[Filter]>,
    /// How many places in data they look at.
    paths: u16,
}

/// One filter (SB-4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Filter {
    Exact(Box<[Comparison]>),
    Prefix(Box<[Comparison]>),
    Suffix(Box<[Comparison]>),
    Glob(Box<[Pattern]>),
    Data(Box<[Clause]>),
    Sql(Box<cesql::Expression>),
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
}

/// An attribute and the text that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Comparison {
    attribute: AttributeName,
    value: Text,
}

/// An attribute and the pattern that it must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pattern {
    attribute: AttributeName,
    wildcard: Wildcard,
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
        parse::filters(value)
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

    /// Whether the event passes all filters. For one event and one subscription; who has many
    /// of them reads the payload once, see [`Filters::passes`].
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let (paths, slots) = self.paths();
        let mut found = Found::default();
        self.passes(&mut Subject::new(event, &paths, &mut found), &slots)
    }

    /// What they look at in data, for themselves alone, and the slots of [`Filters::pointers`].
    fn paths(&self) -> (Paths, Vec<Slot>) {
        let paths = self.pointers().into_iter().zip(0..).collect();
        (paths, (0..Slot::from(self.paths)).collect())
    }

    /// Which of the filters, by their place, ask for more than that the type is one of
    /// [`Filters::required_types`]: a bit each, the last one for all that are behind it.
    #[must_use]
    pub fn beside_types(&self) -> u64 {
        let asking = self.filters.iter().enumerate();
        let asking = asking.filter(|(_, filter)| !filter.is_of_types());
        asking.fold(0, |bits, (place, _)| bits | (1 << place.min(63)))
    }

    /// Whether the event passes the filters of these bits, see [`Filters::beside_types`].
    #[must_use]
    pub fn passes_those(&self, bits: u64, subject: &mut Subject<'_>, slots: &[Slot]) -> bool {
        let mut left = bits;
        while left != 0 {
            let place = left.trailing_zeros();
            left &= left - 1;
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let count = if place == 63 { usize::MAX } else { 1 };
            let mut some = self.filters.iter().skip(place).take(count);
            if !some.all(|filter| filter.passes(subject, slots)) {
                return false;
            }
        }
        true
    }

    /// Whether the event passes all filters. `slots` has the slot of each of
    /// [`Filters::pointers`] among the paths of `subject`, in the same order.
    #[must_use]
    pub fn passes(&self, subject: &mut Subject<'_>, slots: &[Slot]) -> bool {
        let mut filters = self.filters.iter();
        filters.all(|filter| filter.passes(subject, slots))
    }

    /// The places in data that the filters look at, as JSON pointers, each once.
    #[must_use]
    pub fn pointers(&self) -> Vec<&str> {
        let mut pointers = vec![""; usize::from(self.paths)];
        for filter in &self.filters {
            filter.clauses(&mut pointers);
        }
        pointers
    }

    /// The event types outside which nothing can match, sorted; `None` means any type. An empty
    /// list means that no event can match at all.
    #[must_use]
    pub fn required_types(&self) -> Option<Vec<&str>> {
        required_by_all(&self.filters).map(|types| types.into_iter().collect())
    }

    /// What the type of every event begins with that can match; `None` where that is any text.
    #[must_use]
    pub fn required_type_prefix(&self) -> Option<&str> {
        longest_prefix(&self.filters).filter(|prefix| !prefix.is_empty())
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
    fn passes(&self, subject: &mut Subject<'_>, slots: &[Slot]) -> bool {
        let event = subject.event();
        match self {
            Self::Exact(entries) => every(entries, event, |text, value| text == value),
            Self::Prefix(entries) => every(entries, event, <[u8]>::starts_with),
            Self::Suffix(entries) => every(entries, event, <[u8]>::ends_with),
            Self::Glob(patterns) => patterns.iter().all(|pattern| pattern.holds(event)),
            Self::Data(clauses) => clauses.iter().all(|clause| clause.holds(subject, slots)),
            Self::Sql(expression) => expression.matches(event),
            Self::All(filters) => filters.iter().all(|filter| filter.passes(subject, slots)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(subject, slots)),
            Self::Not(filter) => !filter.passes(subject, slots),
        }
    }

    /// Whether it says nothing but which types there may be.
    fn is_of_types(&self) -> bool {
        match self {
            Self::Exact(entries) => match &**entries {
                [only] => only.attribute.context() == Some(Context::Type),
                _ => false,
            },
            Self::Any(filters) => filters.iter().all(Self::is_of_types),
            Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Glob(_)
            | Self::Data(_)
            | Self::Sql(_)
            | Self::All(_)
            | Self::Not(_) => false,
        }
    }

    /// Enters the pointers of data at their numbers.
    fn clauses<'a>(&'a self, pointers: &mut [&'a str]) {
        match self {
            Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) | Self::Glob(_) | Self::Sql(_) => {}
            Self::Data(clauses) => {
                for clause in clauses {
                    if let Some(pointer) = pointers.get_mut(usize::from(clause.path)) {
                        *pointer = &clause.pointer;
                    }
                }
            }
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().for_each(|filter| filter.clauses(pointers));
            }
            Self::Not(filter) => filter.clauses(pointers),
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
            Self::Glob(patterns) => {
                let mut types = patterns.iter().filter(|pattern| pattern.is_of_type());
                let literal = types.find_map(|pattern| pattern.wildcard.literal());
                literal.map(|ty| BTreeSet::from([ty]))
            }
            Self::Sql(expression) => expression.required_type().map(|ty| BTreeSet::from([ty])),
            Self::All(filters) => required_by_all(filters),
            Self::Any(filters) => filters
                .iter()
                .try_fold(BTreeSet::new(), |mut types, filter| {
                    types.append(&mut filter.required_types()?);
                    Some(types)
                }),
            Self::Prefix(_) | Self::Suffix(_) | Self::Data(_) | Self::Not(_) => None,
        }
    }

    /// What the type of every event begins with that passes.
    fn required_type_prefix(&self) -> Option<&str> {
        let is_type = |entry: &&Comparison| entry.attribute.context() == Some(Context::Type);
        match self {
            Self::Exact(entries) | Self::Prefix(entries) => {
                entries.iter().find(is_type).map(|entry| &*entry.value)
            }
            Self::Glob(patterns) => {
                let mut types = patterns.iter().filter(|pattern| pattern.is_of_type());
                types.next().map(|pattern| pattern.wildcard.prefix())
            }
            Self::Sql(expression) => expression.required_type(),
            Self::All(filters) => longest_prefix(filters),
            Self::Any(filters) => filters
                .iter()
                .map(Self::required_type_prefix)
                .reduce(|left, right| Some(common(left?, right?)))?,
            Self::Suffix(_) | Self::Data(_) | Self::Not(_) => None,
        }
    }
}

impl Pattern {
    fn holds(&self, event: &Event) -> bool {
        let text = event.get(&self.attribute);
        text.is_some_and(|text| self.wildcard.matches(text))
    }

    fn is_of_type(&self) -> bool {
        self.attribute.context() == Some(Context::Type)
    }
}

/// All entries must hold; a missing attribute does not (SB-4).
fn every(entries: &[Comparison], event: &Event, holds: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    entries.iter().all(|entry| {
        event
            .get(&entry.attribute)
            .is_some_and(|text| holds(text.as_bytes(), entry.value.as_bytes()))
    })
}

fn required_by_all(filters: &[Filter]) -> Option<BTreeSet<&str>> {
    let each = filters.iter().filter_map(Filter::required_types);
    each.reduce(|left, right| left.intersection(&right).copied().collect())
}

/// The longest of those that all have.
fn longest_prefix(filters: &[Filter]) -> Option<&str> {
    let each = filters.iter().filter_map(Filter::required_type_prefix);
    each.max_by_key(|prefix| prefix.len())
}

/// What both begin with.
fn common<'a>(left: &'a str, right: &str) -> &'a str {
    let pairs = left.char_indices().zip(right.chars());
    let end = pairs
        .take_while(|((_, ours), theirs)| ours == theirs)
        .map(|((at, letter), _)| at + letter.len_utf8())
        .last();
    end.and_then(|end| left.get(..end)).unwrap_or_default()
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
            Self::Glob(patterns) => map.serialize_entry(GLOB, &Patterns(patterns))?,
            Self::Data(clauses) => map.serialize_entry(DATA, &Clauses(clauses))?,
            Self::Sql(expression) => map.serialize_entry("sql", expression.text())?,
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
        let pair = |entry: &'a Comparison| (entry.attribute.as_str(), &*entry.value);
        serializer.collect_map(self.0.iter().map(pair))
    }
}

struct Patterns<'a>(&'a [Pattern]);

impl Serialize for Patterns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |entry: &Pattern| {
            (
                entry.attribute.as_str().to_owned(),
                entry.wildcard.pattern(),
            )
        };
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
