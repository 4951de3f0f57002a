//! Owns how an answer says that what was asked for is deprecated or will end: `Deprecation` (RFC
//! 9745) and `Sunset` (RFC 8594).
//!
//! It only reads; whoever gets the answer says it on.

use http::HeaderMap;

/// The longest header that is kept.
const KEPT_CHARS_MAX: usize = 256;

/// What an endpoint says of the end of what it serves, as it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Since when it is deprecated: `@1688169599`, or what came before the standard.
    pub deprecation: Option<Box<str>>,
    /// When it ends: an HTTP date.
    pub sunset: Option<Box<str>>,
}

impl Ending {
    /// What the headers of an answer say; `None` where they say nothing of it.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| -> Option<Box<str>> {
            let value = headers.get(name)?.to_str().ok()?;
            (!value.is_empty() && value.len() <= KEPT_CHARS_MAX).then(|| value.into())
        };
        let (deprecation, sunset) = (text("deprecation"), text("sunset"));
        // Before the standard it was a boolean, which says nothing where it is false.
        let deprecation = deprecation.filter(|text| !text.eq_ignore_ascii_case("false"));
        if deprecation.is_none() && sunset.is_none() {
            return None;
        }
        Some(Self {
            deprecation,
            sunset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_are_read_as_they_are() {
        let check = |pairs: &[(&'static str, &str)],
                     expected: Option<(Option<&str>, Option<&str>)>| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
            let ending = Ending::of(&pairs.collect());
            let found = ending
                .as_ref()
                .map(|ending| (ending.deprecation.as_deref(), ending.sunset.as_deref()));
            assert_eq!(found, expected);
        };
        let date = "Sun, 31 Jan 2027 00:00:00 GMT";
        check(&[("content-type", "text/plain")], None);
        check(
            &[("deprecation", "@1688169599")],
            Some((Some("@1688169599"), None)),
        );
        check(&[("sunset", date)], Some((None, Some(date))));
        check(
            &[("deprecation", "true"), ("sunset", date)],
            Some((Some("true"), Some(date))),
        );
        check(&[("deprecation", "false")], None);
        check(&[("sunset", &"x".repeat(257))], None);
    }
}
