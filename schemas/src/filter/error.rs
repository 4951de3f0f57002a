//! Owns what can be wrong with filters. The pointer leads into the array of filters.

/// A filter that is refused, with the JSON pointer (RFC 6901) of the fault in the array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter at `{pointer}`: {fault}")]
pub struct Error {
    pointer: Box<str>,
    fault: Fault,
}

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text is not JSON.
    #[error("is not valid json")]
    Syntax,
    /// Filters and the parts of `all` and `any` are arrays.
    #[error("must be an array")]
    NotAnArray,
    /// A filter and what `exact`, `prefix` and `suffix` take are objects.
    #[error("must be an object")]
    NotAnObject,
    /// A filter object has one dialect as its only member (SB-2).
    #[error("must have exactly one dialect")]
    NotOneDialect,
    /// No such dialect here (SB-3).
    #[error("the dialect is not supported, use exact, prefix, suffix, all, any or not")]
    UnsupportedDialect,
    /// At least one entry is wanted (SB-4).
    #[error("must not be empty")]
    Empty,
    /// Attribute values are strings (SB-4).
    #[error("must be a string")]
    NotAString,
    /// No event can have an attribute of this name (CE-1).
    #[error("is not the name of an attribute")]
    NotAnAttribute,
    /// Nested deeper than [`super::DEPTH_MAX`].
    #[error("is nested deeper than {} filters", super::DEPTH_MAX)]
    TooDeep,
    /// More than [`super::NODES_MAX`] filters and comparisons.
    #[error("there are more than {} filters and comparisons", super::NODES_MAX)]
    TooMany,
    /// Names and values longer than [`super::BYTES_MAX`] together, or a text longer than four
    /// times that.
    #[error("names and values are longer than {} bytes", super::BYTES_MAX)]
    TooLong,
}

impl Error {
    pub(super) fn new(pointer: &str, fault: Fault) -> Self {
        Self {
            pointer: pointer.into(),
            fault,
        }
    }

    /// Where the fault is, from the array of filters; empty for the array itself.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }
}
