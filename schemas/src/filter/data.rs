//! Owns comparisons with what is inside a JSON payload (SB-6, our own dialect): a JSON pointer, and
//! tests that one value there must pass together.
//!
//! Never converts: a number is no string, and numbers are compared as decimals. The surprise: an
//! array passes where one of its elements passes every test, so `gt` and `lt` speak of the same one.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;

use super::decimal::Decimal;
use super::extract::{Scalar, Slot};
use super::network::Network;
use super::subject::Subject;
use super::wildcard::Wildcard;

/// A place in the payload and what is wanted there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Clause {
    pub(super) pointer: Box<str>,
    /// The pointer's number among those of the subscription.
    pub(super) path: u16,
    /// At least one.
    pub(super) tests: Box<[Test]>,
}

/// What one value must pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Exact(Literal),
    In(Box<[Literal]>),
    AnythingBut(Box<[Literal]>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Wildcard(Wildcard),
    Network(Network),
    Bound(Bound, Box<str>),
    Exists(bool),
}

/// On which side of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// A value in a filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// As JSON writes it.
    Number(Box<str>),
    String(Box<str>),
}

impl Clause {
    /// `slots` has the slot of each path of the subscription.
    pub(super) fn holds(&self, subject: &mut Subject<'_>, slots: &[Slot]) -> bool {
        let slot = slots.get(usize::from(self.path));
        let Some(mut values) = slot.and_then(|slot| subject.values(*slot)) else {
            return false;
        };
        let present = values.is_present();
        match &*self.tests {
            [Test::Exists(wanted)] => present == *wanted,
            tests => values.any(|value| tests.iter().all(|test| test.passes(value))),
        }
    }
}

impl Test {
    pub(super) fn passes(&self, value: Scalar<'_>) -> bool {
        match self {
            Self::Exact(literal) => literal.equals(value),
            Self::In(literals) => literals.iter().any(|literal| literal.equals(value)),
            Self::AnythingBut(literals) => !literals.iter().any(|literal| literal.equals(value)),
            Self::Prefix(prefix) => string(value).is_some_and(|text| text.starts_with(&**prefix)),
            Self::Suffix(suffix) => string(value).is_some_and(|text| text.ends_with(&**suffix)),
            Self::Wildcard(wildcard) => string(value).is_some_and(|text| wildcard.matches(text)),
            Self::Network(network) => string(value).is_some_and(|text| network.contains(text)),
            Self::Bound(bound, number) => bound.holds(value, number),
            // There is a value.
            Self::Exists(wanted) => *wanted,
        }
    }

    /// The test's name in JSON.
    fn name(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::In(_) => "in",
            Self::AnythingBut(_) => "anything-but",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::Wildcard(_) => "wildcard",
            Self::Network(_) => "cidr",
            Self::Bound(Bound::Greater, _) => "gt",
            Self::Bound(Bound::GreaterOrEqual, _) => "gte",
            Self::Bound(Bound::Less, _) => "lt",
            Self::Bound(Bound::LessOrEqual, _) => "lte",
            Self::Exists(_) => "exists",
        }
    }
}

impl Bound {
    fn holds(self, value: Scalar<'_>, number: &str) -> bool {
        let Scalar::Number(text) = value else {
            return false;
        };
        let (Some(left), Some(right)) = (Decimal::parse(text), Decimal::parse(number)) else {
            return false;
        };
        match self {
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

impl Literal {
    fn equals(&self, value: Scalar<'_>) -> bool {
        match (self.as_scalar(), value) {
            (Scalar::Number(left), Scalar::Number(right)) => {
                let number = Decimal::parse(left);
                left == right || (number.is_some() && number == Decimal::parse(right))
            }
            (left, right) => left == right,
        }
    }

    pub(super) fn as_scalar(&self) -> Scalar<'_> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(value) => Scalar::Bool(*value),
            Self::Number(text) => Scalar::Number(text),
            Self::String(text) => Scalar::String(text),
        }
    }
}

fn string(value: Scalar<'_>) -> Option<&str> {
    match value {
        Scalar::String(text) => Some(text),
        Scalar::Null | Scalar::Bool(_) | Scalar::Number(_) => None,
    }
}

// === the JSON form ===

/// The object that [`super::parse`] reads.
pub(super) struct Clauses<'a>(pub(super) &'a [Clause]);

impl Serialize for Clauses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |clause| (Pointer(clause), Tests(clause));
        serializer.collect_map(self.0.iter().map(pair))
    }
}

struct Pointer<'a>(&'a Clause);

impl Serialize for Pointer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.pointer)
    }
}

struct Tests<'a>(&'a Clause);

impl Serialize for Tests<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.tests.len()))?;
        for test in &self.0.tests {
            map.serialize_entry(test.name(), test)?;
        }
        map.end()
    }
}

impl Serialize for Test {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(literal) => literal.serialize(serializer),
            Self::In(literals) | Self::AnythingBut(literals) => {
                let mut array = serializer.serialize_seq(Some(literals.len()))?;
                for literal in literals {
                    array.serialize_element(literal)?;
                }
                array.end()
            }
            Self::Prefix(text) | Self::Suffix(text) => serializer.serialize_str(text),
            Self::Wildcard(wildcard) => serializer.serialize_str(&wildcard.pattern()),
            Self::Network(network) => serializer.serialize_str(network.as_str()),
            Self::Bound(_, number) => serialize_number(number, serializer),
            Self::Exists(wanted) => serializer.serialize_bool(*wanted),
        }
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(text) => serialize_number(text, serializer),
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

fn serialize_number<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // It was written by `Number` itself.
    let number: Number = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
    number.serialize(serializer)
}

#[cfg(test)]
mod tests;
