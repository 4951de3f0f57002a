//! Owns the built-in functions (SQ-13) and the casts of their names.
//!
//! Never fails without a value (CESQL §3.5.3). The surprise: `INT`, `BOOL` and `STRING` are not in
//! the specification's tables, but its text and its test suite use them.

use std::borrow::Cow;

use super::error::EvaluationError;
use super::value::{Type, Value};

/// A built-in function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Int,
    Bool,
    Text,
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
    Abs,
}

/// What a function gives: a value, and what was wrong with its arguments.
pub(super) type Given<'v> = (Value<'v>, Option<EvaluationError>);

impl Function {
    /// The function called `name`, in upper case, of so many arguments (SQ-14).
    pub(super) fn resolve(name: &str, arguments: usize) -> Option<Self> {
        Some(match (name, arguments) {
            ("INT", 1) => Self::Int,
            ("BOOL", 1) => Self::Bool,
            ("STRING", 1) => Self::Text,
            ("LENGTH", 1) => Self::Length,
            ("CONCAT", _) => Self::Concat,
            ("CONCAT_WS", 1..) => Self::ConcatWs,
            ("LOWER", 1) => Self::Lower,
            ("UPPER", 1) => Self::Upper,
            ("TRIM", 1) => Self::Trim,
            ("LEFT", 2) => Self::Left,
            ("RIGHT", 2) => Self::Right,
            ("SUBSTRING", 2 | 3) => Self::Substring,
            ("ABS", 1) => Self::Abs,
            _ => return None,
        })
    }

    /// The type of what it gives.
    pub(super) const fn returns(self) -> Type {
        match self {
            Self::Int | Self::Length | Self::Abs => Type::Integer,
            Self::Bool => Type::Boolean,
            Self::Text
            | Self::Concat
            | Self::ConcatWs
            | Self::Lower
            | Self::Upper
            | Self::Trim
            | Self::Left
            | Self::Right
            | Self::Substring => Type::Text,
        }
    }

    /// The type that its argument `index`, from 0, is cast to.
    pub(super) const fn takes(self, index: usize) -> Type {
        match self {
            Self::Int | Self::Abs => Type::Integer,
            Self::Bool => Type::Boolean,
            Self::Left | Self::Right | Self::Substring if index > 0 => Type::Integer,
            Self::Text
            | Self::Length
            | Self::Concat
            | Self::ConcatWs
            | Self::Lower
            | Self::Upper
            | Self::Trim
            | Self::Left
            | Self::Right
            | Self::Substring => Type::Text,
        }
    }

    /// Its value for arguments of the types that it takes.
    pub(super) fn call<'v>(self, arguments: Vec<Value<'v>>) -> Given<'v> {
        let mut arguments = arguments.into_iter();
        match self {
            Self::Concat => (joined("", arguments), None),
            Self::ConcatWs => {
                let delimiter = text(arguments.next());
                (joined(&delimiter, arguments), None)
            }
            Self::Left => left(text(arguments.next()), integer(arguments.next().as_ref())),
            Self::Right => right(text(arguments.next()), integer(arguments.next().as_ref())),
            Self::Substring => {
                let (of, position) = (text(arguments.next()), integer(arguments.next().as_ref()));
                substring(
                    of,
                    position,
                    arguments.next().map(|length| integer(Some(&length))),
                )
            }
            Self::Abs => absolute(integer(arguments.next().as_ref())),
            Self::Length => {
                let characters = text(arguments.next()).chars().count();
                let length = i32::try_from(characters).unwrap_or(i32::MAX);
                (Value::Integer(length), None)
            }
            Self::Lower => (owned(text(arguments.next()).to_lowercase()), None),
            Self::Upper => (owned(text(arguments.next()).to_uppercase()), None),
            Self::Trim => (trim(text(arguments.next())), None),
            // The cast to the type that it takes is all that they do.
            Self::Int | Self::Bool | Self::Text => {
                let zero = self.returns().zero();
                (arguments.next().unwrap_or(zero), None)
            }
        }
    }
}

fn text(argument: Option<Value<'_>>) -> Cow<'_, str> {
    match argument {
        Some(Value::Text(text)) => text,
        Some(Value::Integer(_) | Value::Boolean(_)) | None => Cow::Borrowed(""),
    }
}

fn integer(argument: Option<&Value<'_>>) -> i32 {
    match argument {
        Some(Value::Integer(integer)) => *integer,
        Some(Value::Text(_) | Value::Boolean(_)) | None => 0,
    }
}

fn owned(text: String) -> Value<'static> {
    Value::Text(Cow::Owned(text))
}

fn joined<'v>(delimiter: &str, parts: impl Iterator<Item = Value<'v>>) -> Value<'static> {
    let parts: Vec<_> = parts.map(|part| text(Some(part))).collect();
    owned(parts.join(delimiter))
}

/// The bytes `from..to` of `of`, without a copy where it is somebody else's.
fn part(of: Cow<'_, str>, from: usize, to: usize) -> Value<'_> {
    Value::Text(match of {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(from..to).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(from..to).unwrap_or_default().to_owned()),
    })
}

/// Unicode's white space.
fn trim(of: Cow<'_, str>) -> Value<'_> {
    let from = of.len() - of.trim_start().len();
    let to = from + of.trim().len();
    part(of, from, to)
}

/// The byte at which the character `index` begins; the end where there are fewer.
fn byte_of(text: &str, index: usize) -> usize {
    let place = text.char_indices().nth(index);
    place.map_or(text.len(), |(byte, _)| byte)
}

fn left(of: Cow<'_, str>, length: i32) -> Given<'_> {
    let Ok(length) = usize::try_from(length) else {
        let error = EvaluationError::FunctionEvaluation("LEFT", "length is negative");
        return (Value::Text(of), Some(error));
    };
    let to = byte_of(&of, length);
    (part(of, 0, to), None)
}

fn right(of: Cow<'_, str>, length: i32) -> Given<'_> {
    let Ok(length) = usize::try_from(length) else {
        let error = EvaluationError::FunctionEvaluation("RIGHT", "length is negative");
        return (Value::Text(of), Some(error));
    };
    let before = of.chars().count().saturating_sub(length);
    let (from, to) = (byte_of(&of, before), of.len());
    (part(of, from, to), None)
}

fn substring(of: Cow<'_, str>, position: i32, length: Option<i32>) -> Given<'_> {
    let empty = Value::Text(Cow::Borrowed(""));
    let refused = |why| Some(EvaluationError::FunctionEvaluation("SUBSTRING", why));
    let Ok(length) = length.map(usize::try_from).transpose() else {
        return (empty, refused("length is negative"));
    };
    let count = of.chars().count();
    let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
    if position == 0 {
        return (empty, None);
    }
    if distance > count {
        return (empty, refused("position is outside the string"));
    }
    let start = if position > 0 {
        distance - 1
    } else {
        count - distance
    };
    let from = byte_of(&of, start);
    let to = length.map_or(of.len(), |length| {
        from + byte_of(of.get(from..).unwrap_or_default(), length)
    });
    (part(of, from, to), None)
}

fn absolute(of: i32) -> Given<'static> {
    match of.checked_abs() {
        Some(absolute) => (Value::Integer(absolute), None),
        None => {
            let error = EvaluationError::Math("the result does not fit 32 bits");
            (Value::Integer(i32::MAX), Some(error))
        }
    }
}
