//! Owns what can be wrong with one attribute. Never holds the refused value, which may be long or
//! secret; only the attribute's name.

/// An attribute that is missing or refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{attribute}`: {fault}")]
pub struct Error {
    attribute: Box<str>,
    fault: Fault,
}

/// Why an attribute is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A REQUIRED attribute is absent (CE-3).
    #[error("is required")]
    Missing,
    /// The value is empty where the specification wants text (CE-3, CE-4).
    #[error("must not be empty")]
    Empty,
    /// The same attribute was given twice.
    #[error("is given twice")]
    Duplicate,
    /// The name is not of lower-case letters and digits, or longer than 64 (CE-1).
    #[error("the name must be 1 to 64 lower-case letters and digits")]
    InvalidName,
    /// The name may not be used for an extension (CE-1).
    #[error("the name is not free for an extension")]
    NotAnExtension,
    /// The value has a control character or a noncharacter (CE-2).
    #[error("must not contain control characters or noncharacters")]
    ForbiddenCharacter,
    /// The value must be a string and is a boolean, a number, an object or an array.
    #[error("must be a string")]
    NotAString,
    /// The value is an object or an array; attributes are scalars (CE-2).
    #[error("must be a string, a boolean or an integer")]
    NotAScalar,
    /// The number has a fraction or an exponent, or does not fit 32 bits (CE-2).
    #[error("must be an integer from -2147483648 to 2147483647")]
    NotAnInteger,
    /// Not a URI-reference (CE-3).
    #[error("must be a uri-reference")]
    NotAUriReference,
    /// Not an absolute URI (CE-4).
    #[error("must be an absolute uri")]
    NotAUri,
    /// Not an RFC 3339 timestamp (CE-4).
    #[error("must be an rfc 3339 timestamp")]
    NotATimestamp,
    /// Not a media type of RFC 2046 (CE-4).
    #[error("must be a media type")]
    NotAMediaType,
    /// A `specversion` other than `1.0` (CE-3).
    #[error("must be `1.0`")]
    UnsupportedVersion,
    /// All attributes together exceed what an event can hold.
    #[error("the attributes are too long")]
    TooLong,
}

/// The longest name that an error repeats; a client chooses it.
const NAME_CHARS_MAX: usize = 64;

impl Error {
    /// An error about `attribute`, whose name is cut to 64 characters.
    #[must_use]
    pub fn new(attribute: &str, fault: Fault) -> Self {
        let attribute = attribute.chars().take(NAME_CHARS_MAX).collect::<String>();
        Self {
            attribute: attribute.into_boxed_str(),
            fault,
        }
    }

    /// The attribute at fault.
    #[must_use]
    pub fn attribute(&self) -> &str {
        &self.attribute
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.fault
    }
}
