//! Owns what can be wrong with an expression's text, and what can go wrong in its evaluation.
//!
//! Never echoes more of the text than a word of it. The surprise: the two are different things: a
//! text that is wrong is refused when it is read, an evaluation with errors still has a value.

use std::fmt;

/// A text that is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at {position}")]
pub struct Error {
    position: Position,
    fault: Fault,
}

/// A place in an expression's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    offset: usize,
    line: usize,
    column: usize,
}

/// What is wrong with an expression's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than [`super::BYTES_MAX`] (SQ-15).
    #[error("expression is longer than {} bytes", super::BYTES_MAX)]
    TooLong,
    /// Nested deeper than [`super::DEPTH_MAX`] (SQ-15).
    #[error("expression is nested deeper than {} levels", super::DEPTH_MAX)]
    TooDeep,
    /// More than [`super::NODES_MAX`] operands and operators (SQ-15).
    #[error("expression has more than {} operands and operators", super::NODES_MAX)]
    TooMany,
    /// A character that nothing begins with.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// A string literal without its end.
    #[error("string literal has no end")]
    NoEnd,
    /// An integer literal outside 32 bits (SQ-3).
    #[error("integer literal does not fit 32 bits")]
    NotAnInteger,
    /// No event can have an attribute of this name (CE-1).
    #[error("`{0}` is not the name of an attribute")]
    NotAnAttribute(Box<str>),
    /// A function's name has letters and underscores only.
    #[error("`{0}` is not the name of a function")]
    NotAFunction(Box<str>),
    /// Something else was wanted here.
    #[error("expected {wanted}, found {found}")]
    Unexpected {
        /// What was wanted.
        wanted: &'static str,
        /// What is there.
        found: Box<str>,
    },
    /// No such function, or not with so many arguments (SQ-14); only where an expression is used as
    /// a filter, which could never match.
    #[error("there is no function `{name}` of {arguments} arguments")]
    UnknownFunction {
        /// Its name.
        name: Box<str>,
        /// How many arguments it is given.
        arguments: usize,
    },
}

impl Error {
    /// `fault` at the byte `offset` of `text`.
    pub(super) fn at(text: &str, offset: usize, fault: Fault) -> Self {
        Self {
            position: Position::of(text, offset),
            fault,
        }
    }

    /// Where the fault is.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl Position {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            offset: before.len(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    /// Bytes before the place.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.offset
    }

    /// The line, from 1.
    #[must_use]
    pub const fn line(self) -> usize {
        self.line
    }

    /// The character in the line, from 1.
    #[must_use]
    pub const fn column(self) -> usize {
        self.column
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            line,
            column,
        } = self;
        write!(f, "byte {offset} (line {line}, column {column})")
    }
}

/// What went wrong in an evaluation (CESQL §3.3). The value is given all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A division by zero, or a result outside 32 bits.
    #[error("math: {0}")]
    Math(&'static str),
    /// A value that cannot be cast.
    #[error("cast: {0} is not {1}")]
    Cast(Box<str>, &'static str),
    /// The event has no such attribute.
    #[error("the event has no attribute `{0}`")]
    MissingAttribute(Box<str>),
    /// There is no such function of so many arguments.
    #[error("there is no function `{0}` of {1} arguments")]
    MissingFunction(Box<str>, usize),
    /// A function was given what it cannot work with.
    #[error("{0}: {1}")]
    FunctionEvaluation(&'static str, &'static str),
    /// More work than [`super::WORK_BYTES_MAX`] (SQ-15).
    #[error("evaluation takes more than {} bytes of work", super::WORK_BYTES_MAX)]
    TooMuchWork,
}
