//! CESQL 1.0.0 (SQ-1 to SQ-15): expressions over an event's attributes, compiled once and evaluated
//! for each event.
//!
//! Never looks into data, never panics, and never does more than a bounded amount of work, whatever
//! the text and the event. The surprise: an evaluation always has a value, and may have errors
//! beside it; as a filter an expression matches only where it is true and there are none (SQ-1).

mod error;
mod evaluate;
mod function;
mod lexer;
mod like;
mod needs;
mod parser;
mod print;
mod trace;
mod tree;
mod value;

use std::fmt;

pub(super) use needs::{Needed, Told};

pub use error::{Error, EvaluationError, Fault, Position};
pub use trace::Step;
pub use value::Value;

use crate::event::{AttributeName, Event};
use evaluate::Run;
use tree::Node;
use value::Attributes;

/// Bytes of an expression's text.
pub const BYTES_MAX: usize = 4 << 10;
/// How deep an expression may be nested: brackets, arguments, signs, `NOT`, `LIKE` and `IN` in each
/// other. Operators of one precedence behind each other are no depth.
pub const DEPTH_MAX: usize = 32;
/// How many operands and operators an expression may have.
pub const NODES_MAX: usize = 512;
/// What one evaluation may do: bytes that functions are given (and `CONCAT_WS` repeats) and steps
/// that `LIKE` takes. So no evaluation makes more than 768 KiB of text, `CONCAT` included (`UPPER`
/// may make three bytes of one).
pub const WORK_BYTES_MAX: usize = 256 << 10;

/// A compiled expression. It is shown as its canonical text, which reads back as the same tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    text: Box<str>,
    root: Node,
}

/// What an expression evaluates to for one event (SQ-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation<'v> {
    /// The value, which there always is.
    pub value: Value<'v>,
    /// What went wrong on the way, in the order of evaluation.
    pub errors: Vec<EvaluationError>,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Names the place of the first fault: of the grammar, or of a limit.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parser::parse(text).map(|(root, _)| Self::of(text, root))
    }

    /// [`Expression::parse`] for a filter: what can only ever fail is refused too.
    ///
    /// # Errors
    /// As `parse`, and where a function does not exist (SQ-14).
    pub fn parse_filter(text: &str) -> Result<Self, Error> {
        let (root, unknown) = parser::parse(text)?;
        unknown.map_or_else(|| Ok(Self::of(text, root)), Err)
    }

    fn of(text: &str, root: Node) -> Self {
        let text = text.into();
        Self { text, root }
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is true for the event, without any error (SQ-1). Stops at the first.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.matches_on(event)
    }

    fn matches_on<A: Attributes>(&self, attributes: &A) -> bool {
        let mut run = Run::fast(attributes, WORK_BYTES_MAX);
        run.node(&self.root)
            .is_ok_and(|outcome| outcome.value.is_true())
    }

    /// Its value for the event, and every error.
    #[must_use]
    pub fn evaluate<'v>(&'v self, event: &'v Event) -> Evaluation<'v> {
        self.evaluate_on(event)
    }

    fn evaluate_on<'v, A: Attributes>(&'v self, attributes: &'v A) -> Evaluation<'v> {
        let mut run = Run::complete(attributes, WORK_BYTES_MAX);
        let value = match run.node(&self.root) {
            Ok(outcome) => outcome.value,
            // A run that collects its errors is not stopped by one.
            Err(evaluate::Stopped) => Value::Boolean(false),
        };
        Evaluation {
            value,
            errors: run.take_errors(),
        }
    }

    /// How it came to its value, part by part.
    #[must_use]
    pub fn trace(&self, event: &Event) -> Step {
        trace::trace(&self.root, event)
    }

    /// The attributes that it looks at, each once, in the order of their names.
    #[must_use]
    pub fn attributes(&self) -> Vec<&AttributeName> {
        let mut names = Vec::new();
        self.root.walk(&mut |node| {
            if let Node::Attribute(name) | Node::Exists(name) = node {
                names.push(name);
            }
        });
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The event type outside which it cannot match, where it plainly requires one.
    #[must_use]
    pub fn required_type(&self) -> Option<&str> {
        self.root.required_type()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.root, f)
    }
}

impl Evaluation<'_> {
    /// Whether a filter with this outcome matches (SQ-1).
    #[must_use]
    pub fn is_match(&self) -> bool {
        self.value.is_true() && self.errors.is_empty()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
