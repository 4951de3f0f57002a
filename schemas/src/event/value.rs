//! Owns attribute values: the types of CE-2 and what text each attribute admits.
//!
//! Never changes a text. The surprise: only booleans and integers keep their type inside an event,
//! because no encoding tells a URI or a timestamp from a string.

use jiff::civil::Date;

use super::error::Fault;

/// What most events' data is.
const JSON: &str = "application/json";

/// A value to be set, or as read from an event.
///
/// An event stores `Binary`, `Uri`, `UriRef` and `Timestamp` as strings, and gives strings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    /// A boolean.
    Boolean(bool),
    /// A signed 32-bit integer.
    Integer(i32),
    /// A string without control characters and noncharacters.
    String(&'a str),
    /// Bytes, held as base64 text.
    Binary(&'a [u8]),
    /// An absolute URI.
    Uri(&'a str),
    /// A URI-reference.
    UriRef(&'a str),
    /// An RFC 3339 timestamp.
    Timestamp(&'a str),
}

impl<'a> From<&'a str> for AttributeValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(text)
    }
}

impl From<bool> for AttributeValue<'_> {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for AttributeValue<'_> {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

/// CE-2: strings have no U+0000-001F, no U+007F-009F and no noncharacters.
pub(super) fn check_string(text: &str) -> Result<(), Fault> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    if text.chars().any(is_forbidden) {
        Err(Fault::ForbiddenCharacter)
    } else {
        Ok(())
    }
}

/// CE-2.
pub(crate) fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// A URI-reference by its characters and percent-encodings (RFC 3986 §2); the structure of
/// authority and path is left to whoever resolves it.
pub(super) fn check_uri_reference(text: &str) -> Result<(), Fault> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => is_hex(bytes.next()) && is_hex(bytes.next()),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => true,
            _ => b"-._~:/?#[]@!$&'()*+,;=".contains(&byte),
        };
        if !fine {
            return Err(Fault::NotAUriReference);
        }
    }
    Ok(())
}

fn is_hex(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_hexdigit())
}

/// An absolute URI: a scheme, then the characters of a URI-reference (RFC 3986 §3.1).
pub(super) fn check_uri(text: &str) -> Result<(), Fault> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let letters = scheme
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !letters || !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err(Fault::NotAUri);
    }
    check_uri_reference(text).map_err(|_| Fault::NotAUri)
}

/// RFC 3339 §5.6, with leap seconds and lower-case `t` and `z`.
pub(super) fn check_timestamp(text: &str) -> Result<(), Fault> {
    is_timestamp(text)
        .filter(|valid| *valid)
        .map(|_| ())
        .ok_or(Fault::NotATimestamp)
}

/// `None` where the shape is wrong, `false` where a number is out of its range.
fn is_timestamp(text: &str) -> Option<bool> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|(at, byte)| bytes.get(*at) != Some(byte))
    {
        return None;
    }
    if !matches!(bytes.get(10), Some(b'T' | b't')) {
        return None;
    }
    let day = Date::new(
        i16::from(number(text, 0, 2)?) * 100 + i16::from(number(text, 2, 4)?),
        number(text, 5, 7)?,
        number(text, 8, 10)?,
    );
    let clock = number(text, 11, 13)? <= 23 && number(text, 14, 16)? <= 59;
    let seconds = number(text, 17, 19)? <= 60;
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
        if rest.len() == fraction.len() {
            return None;
        }
    }
    Some(day.is_ok() && clock && seconds && is_offset(rest)?)
}

/// `Z`, or `+hh:mm` with hours up to 23.
fn is_offset(text: &str) -> Option<bool> {
    if matches!(text, "Z" | "z") {
        return Some(true);
    }
    if text.len() != 6 || !text.starts_with(['+', '-']) || text.as_bytes().get(3) != Some(&b':') {
        return None;
    }
    Some(number(text, 1, 3)? <= 23 && number(text, 4, 6)? <= 59)
}

/// The two digits in `start..end`.
fn number(text: &str, start: usize, end: usize) -> Option<i8> {
    let digits = text.get(start..end)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// `type/subtype` and printable parameters (RFC 2046, RFC 9110 §8.3.1).
pub(super) fn check_media_type(text: &str) -> Result<(), Fault> {
    if text == JSON {
        return Ok(());
    }
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let valid = essence(text)
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if printable && valid {
        Ok(())
    } else {
        Err(Fault::NotAMediaType)
    }
}

/// A media type without its parameters.
pub(crate) fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// `*/json` or `*+json` (CE-9).
pub(super) fn is_json(media_type: &str) -> bool {
    if media_type == JSON {
        return true;
    }
    let subtype = essence(media_type)
        .split_once('/')
        .map_or("", |(_, subtype)| subtype);
    let suffix = subtype
        .rsplit_once('+')
        .map_or(subtype, |(_, suffix)| suffix);
    suffix.eq_ignore_ascii_case("json")
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}
