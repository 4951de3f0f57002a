//! Encodings of events: JSON (CE-7 to CE-9), HTTP (CE-10 to CE-15) and Kafka (CE-16 to CE-20).
//!
//! Pure functions over bytes and `(name, value)` pairs; never names an HTTP or Kafka library's
//! types, never re-encodes data that is already in the wanted form. The surprise: decoded data
//! shares the memory of the input it was found in.

pub mod http;
pub mod json;
pub mod kafka;

use crate::event::{self, Builder, Limits};

/// Why bytes or headers are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An attribute is missing or refused.
    #[error(transparent)]
    Attribute(#[from] event::Error),
    /// More attributes than [`Limits::max_attributes`].
    #[error("the event has more than {limit} attributes")]
    TooManyAttributes {
        /// The limit.
        limit: usize,
    },
    /// Attributes longer than [`Limits::max_attribute_bytes`].
    #[error("the attributes are longer than {limit} bytes")]
    AttributesTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Data longer than [`Limits::max_data_bytes`] (CE-5).
    #[error("the data is longer than {limit} bytes")]
    DataTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A batch of more events than asked for (CE-14).
    #[error("the batch has more than {limit} events")]
    TooManyEvents {
        /// The limit.
        limit: usize,
    },
    /// Not JSON.
    #[error("not valid json at line {line}, column {column}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 at the start of a line.
        column: usize,
    },
    /// JSON, but not an object (CE-7).
    #[error("an event must be a json object")]
    NotAnObject,
    /// JSON, but not an array (CE-7).
    #[error("a batch must be a json array")]
    NotAnArray,
    /// Both `data` and `data_base64` are present (CE-8).
    #[error("`data` and `data_base64` exclude each other")]
    DataTwice,
    /// `datacontenttype` is not JSON, and `data` is not a string (CE-9).
    #[error("`data` must be a string where `datacontenttype` is not json")]
    DataNotText,
    /// `data_base64` is not base64 text (CE-8).
    #[error("`data_base64` must be base64 text")]
    InvalidBase64,
    /// A header that cannot be read.
    #[error("header `{name}`: {fault}")]
    Header {
        /// The header.
        name: Box<str>,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// An event format other than JSON in UTF-8 (415).
    #[error("only the json event format in utf-8 is supported")]
    UnsupportedFormat,
    /// A structured message without content.
    #[error("a structured event has no content")]
    NoContent,
}

/// Why a header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Not UTF-8 after decoding, overlong forms included (CE-13, CE-16).
    #[error("is not utf-8")]
    NotUtf8,
    /// A `%` without two hexadecimal digits (CE-13).
    #[error("has a `%` without two hexadecimal digits")]
    BadPercent,
    /// A quoted string without an end (CE-13).
    #[error("has a quoted string without an end")]
    UnendedQuote,
    /// Given twice.
    #[error("is given twice")]
    Duplicate,
    /// `content-type` carries this attribute (CE-11).
    #[error("must not appear, use `content-type`")]
    Forbidden,
}

impl Error {
    fn header(name: &str, fault: HeaderFault) -> Self {
        // A client chooses the name; an error repeats the start of it.
        Self::Header {
            name: name.chars().take(64).collect::<String>().into_boxed_str(),
            fault,
        }
    }

    /// The attribute at fault, where it is one.
    #[must_use]
    pub fn attribute(&self) -> Option<&str> {
        match self {
            Self::Attribute(error) => Some(error.attribute()),
            Self::TooManyAttributes { .. }
            | Self::AttributesTooLarge { .. }
            | Self::DataTooLarge { .. }
            | Self::TooManyEvents { .. }
            | Self::Syntax { .. }
            | Self::NotAnObject
            | Self::NotAnArray
            | Self::DataTwice
            | Self::DataNotText
            | Self::InvalidBase64
            | Self::Header { .. }
            | Self::UnsupportedFormat
            | Self::NoContent => None,
        }
    }

    /// The JSON pointer (RFC 6901) of the member at fault inside the event, where it is known.
    #[must_use]
    pub fn pointer(&self) -> Option<String> {
        match self {
            Self::Attribute(error) => {
                let name = error.attribute().replace('~', "~0").replace('/', "~1");
                Some(format!("/{name}"))
            }
            Self::DataTooLarge { .. } | Self::DataTwice | Self::DataNotText => {
                Some("/data".to_owned())
            }
            Self::InvalidBase64 => Some("/data_base64".to_owned()),
            Self::NotAnObject | Self::NotAnArray => Some(String::new()),
            Self::TooManyAttributes { .. }
            | Self::AttributesTooLarge { .. }
            | Self::TooManyEvents { .. }
            | Self::Syntax { .. }
            | Self::Header { .. }
            | Self::UnsupportedFormat
            | Self::NoContent => None,
        }
    }

    /// Whether a limit was exceeded (413).
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::TooManyAttributes { .. }
                | Self::AttributesTooLarge { .. }
                | Self::DataTooLarge { .. }
                | Self::TooManyEvents { .. }
        )
    }

    /// Whether the bytes could not be read as a message at all (400), rather than being read and
    /// refused (422).
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::Syntax { .. } | Self::Header { .. } | Self::NoContent
        )
    }
}

/// What an encoder does with the extensions that are the pipeline's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// Writes them: inside the pipeline.
    Keep,
    /// Leaves them out: towards endpoints.
    Omit,
}

impl Reserved {
    fn admits(self, name: &str) -> bool {
        self == Self::Keep || !event::is_reserved(name)
    }
}

/// How a message's content type says it is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, data as the content.
    Binary,
    /// One event in an event format.
    Structured,
    /// An array of events; HTTP only.
    Batched,
}

const BATCH_PREFIX: &str = "application/cloudevents-batch";
const STRUCTURED_PREFIX: &str = "application/cloudevents";

impl Mode {
    /// The mode of an HTTP message (CE-10).
    #[must_use]
    pub fn of_http(content_type: Option<&str>) -> Self {
        let content_type = content_type.unwrap_or_default().trim_start();
        if has_prefix(content_type, BATCH_PREFIX) {
            Self::Batched
        } else if has_prefix(content_type, STRUCTURED_PREFIX) {
            Self::Structured
        } else {
            Self::Binary
        }
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Refuses event formats other than `expected` and charsets other than UTF-8 (CE-7, CE-20).
fn check_format(content_type: &str, expected: &str) -> Result<(), Error> {
    let mut parts = content_type.split(';').map(str::trim);
    let format = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case(expected));
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .all(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        });
    if format && charset {
        Ok(())
    } else {
        Err(Error::UnsupportedFormat)
    }
}

/// Checked after each attribute, so that a hostile message costs no more than the limits.
fn check_attributes(builder: &Builder, limits: &Limits) -> Result<(), Error> {
    if builder.attribute_count() > limits.max_attributes {
        return Err(Error::TooManyAttributes {
            limit: limits.max_attributes,
        });
    }
    if builder.attribute_bytes() > limits.max_attribute_bytes {
        return Err(Error::AttributesTooLarge {
            limit: limits.max_attribute_bytes,
        });
    }
    Ok(())
}

fn check_data(bytes: usize, limits: &Limits) -> Result<(), Error> {
    if bytes > limits.max_data_bytes {
        return Err(Error::DataTooLarge {
            limit: limits.max_data_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod fuzz;
