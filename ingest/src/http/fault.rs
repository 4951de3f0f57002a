//! Owns which problem each fault of an event is.
//!
//! Never shows an error of the log; the client learns whether repeating helps.

use std::time::Duration;

use runtime::log::NotWritten;
use runtime::problem::{Problem, ProblemType};
use schemas::codec;

/// Where an event is in the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the whole of it.
    Alone,
    /// It is this one of a batch.
    At(usize),
}

impl Place {
    /// The JSON pointer to what `rest` points to in the event.
    pub(super) fn pointer(self, rest: &str) -> String {
        match self {
            Self::Alone => rest.to_owned(),
            Self::At(index) => format!("/{index}{rest}"),
        }
    }
}

/// The problem of an event that is not one.
pub(super) fn problem(error: &codec::Error, place: Place) -> Problem {
    let kind = if error.is_too_large() {
        ProblemType::TooLarge
    } else if error.is_malformed() {
        ProblemType::Malformed
    } else if matches!(error, codec::Error::UnsupportedFormat) {
        ProblemType::UnsupportedMediaType
    } else {
        ProblemType::Validation
    };
    let problem = Problem::new(kind).detail(error.to_string());
    match error.pointer() {
        Some(pointer) => problem.error(place.pointer(&pointer), error.to_string()),
        None => problem,
    }
}

/// The problem of an event that the log did not acknowledge.
pub(super) fn not_written(fault: NotWritten) -> Problem {
    match fault {
        NotWritten::TooLarge => {
            Problem::new(ProblemType::TooLarge).detail("the event is too large for the log")
        }
        NotWritten::Invalid => {
            Problem::new(ProblemType::Validation).detail("the log does not take the event")
        }
        NotWritten::TimedOut | NotWritten::Unknown => Problem::new(ProblemType::Unavailable)
            .detail("the log did not acknowledge in time; sending again with the same id is safe")
            .retry_after(Duration::from_secs(1)),
    }
}
