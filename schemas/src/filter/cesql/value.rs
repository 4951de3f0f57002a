//! Owns values: the three types (SQ-2), their zero values, the casts between them (SQ-9), and how
//! an event's attributes become values.
//!
//! Never copies an attribute's text. The surprise: a boolean or integer extension keeps its type
//! only as long as its encoding did; over Kafka it is a string, and casts make it what it was.

use std::borrow::Cow;
use std::fmt;

use super::error::EvaluationError;
use crate::event::{AttributeName, AttributeValue, Event};

/// What an expression evaluates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'v> {
    /// A boolean.
    Boolean(bool),
    /// A signed 32-bit integer.
    Integer(i32),
    /// A string.
    Text(Cow<'v, str>),
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Boolean,
    Integer,
    Text,
}

impl Type {
    /// The type's default (CESQL §3.1).
    pub(super) const fn zero(self) -> Value<'static> {
        match self {
            Self::Boolean => Value::Boolean(false),
            Self::Integer => Value::Integer(0),
            Self::Text => Value::Text(Cow::Borrowed("")),
        }
    }
}

/// The longest text that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

impl Value<'_> {
    /// What it is.
    pub(super) const fn of_type(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::Text(_) => Type::Text,
        }
    }

    /// Whether it is the boolean true.
    #[must_use]
    pub const fn is_true(&self) -> bool {
        matches!(self, Self::Boolean(true))
    }

    /// Itself as a value that nobody has lent.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Boolean(boolean) => Value::Boolean(boolean),
            Self::Integer(integer) => Value::Integer(integer),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// As an expression would write it, texts without escapes and cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Text(text) => {
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                let cut = if shown.len() < text.len() { "…" } else { "" };
                write!(f, "'{shown}{cut}'")
            }
        }
    }
}

/// SQ-9: the boolean of a value, with the error where it has none.
pub(super) fn boolean(value: &Value<'_>) -> Result<bool, EvaluationError> {
    match value {
        Value::Boolean(boolean) => Ok(*boolean),
        Value::Integer(integer) => Ok(*integer != 0),
        Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Value::Text(_) => Err(EvaluationError::Cast(shown(value), "a boolean")),
    }
}

/// SQ-9: the integer of a value, with the error where it has none.
pub(super) fn integer(value: &Value<'_>) -> Result<i32, EvaluationError> {
    match value {
        Value::Boolean(boolean) => Ok(i32::from(*boolean)),
        Value::Integer(integer) => Ok(*integer),
        // Rust reads what the specification says: one sign, digits, 32 bits.
        Value::Text(text) => text
            .parse()
            .map_err(|_| EvaluationError::Cast(shown(value), "an integer")),
    }
}

/// SQ-9: the text of a value, which it always has.
pub(super) fn text(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Boolean(true) => Cow::Borrowed("true"),
        Value::Boolean(false) => Cow::Borrowed("false"),
        Value::Integer(integer) => Cow::Owned(integer.to_string()),
        Value::Text(text) => text,
    }
}

/// `value` for an error.
pub(super) fn shown(value: &Value<'_>) -> Box<str> {
    value.to_string().into()
}

/// What an expression is evaluated on.
pub(super) trait Attributes {
    /// The attribute called `name`, where there is one.
    fn value<'a>(&'a self, name: &AttributeName) -> Option<Value<'a>>;
}

impl Attributes for Event {
    fn value<'a>(&'a self, name: &AttributeName) -> Option<Value<'a>> {
        if name.context().is_some() {
            return self.get(name).map(|text| Value::Text(text.into()));
        }
        Some(match self.extension(name.as_str())? {
            AttributeValue::Boolean(boolean) => Value::Boolean(boolean),
            AttributeValue::Integer(integer) => Value::Integer(integer),
            AttributeValue::String(text)
            | AttributeValue::Uri(text)
            | AttributeValue::UriRef(text)
            | AttributeValue::Timestamp(text) => Value::Text(text.into()),
            // SQ-2: as its text, base 64.
            AttributeValue::Binary(_) => Value::Text(self.get(name)?.into()),
        })
    }
}
