//! Owns what can be wrong with filters. The pointer leads into the array of filters.

const DIALECTS: &str =
    "exact, prefix, suffix, all, any, not, sql, anabranch-data or anabranch-glob";
const TESTS: &str = "exact, in, anything-but, prefix, suffix, wildcard, cidr, gt, gte, lt, lte or \
                     exists";

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
    #[error("the dialect is not supported, use {}", DIALECTS)]
    UnsupportedDialect,
    /// At least one entry is wanted (SB-4).
    #[error("must not be empty")]
    Empty,
    /// Attribute values are strings (SB-4).
    #[error("must be a string")]
    NotAString,
    /// A pattern has `\\` before something else than `*` and `\\`.
    #[error("must have `\\` before `*` and `\\` only")]
    NotAPattern,
    /// What is inside data is named by a JSON pointer (RFC 6901) of at most 32 steps.
    #[error("is not a json pointer of at most 32 steps")]
    NotAPointer,
    /// No such comparison with data.
    #[error("the comparison is not supported, use {}", TESTS)]
    UnsupportedTest,
    /// Objects and arrays are not compared.
    #[error("must be a string, a number, a boolean or null")]
    NotAScalar,
    /// Bounds are numbers.
    #[error("must be a number")]
    NotANumber,
    /// Whether something exists is true or false.
    #[error("must be true or false")]
    NotABoolean,
    /// Not an address, nor a range in CIDR notation.
    #[error("is not an ip address or a range of them")]
    NotANetwork,
    /// What must not exist cannot be compared.
    #[error("must be alone where it is false")]
    NotAlone,
    /// No CESQL expression, and where (SB-3).
    #[error("is not an expression: {0}")]
    NotAnExpression(super::cesql::Error),
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
