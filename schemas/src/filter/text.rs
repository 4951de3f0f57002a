//! Owns the texts that attributes are compared with: short ones lie in the filter itself, so that a
//! comparison reads no other place in memory.
//!
//! The surprise: bytes are compared, since what they are part of is UTF-8 on both sides.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The longest text that lies in the filter.
const SHORT: usize = 30;

/// A text that does not change, in 32 bytes where it is short. In maps its bytes stand for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    /// Its length, and its bytes with zeros behind them.
    Short(u8, [u8; SHORT]),
    Long(Box<str>),
}

impl Text {
    /// The bytes of the text.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Kept::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        let short = bytes
            .get_mut(..text.len())
            .zip(u8::try_from(text.len()).ok());
        let Some((start, length)) = short else {
            return Self(Kept::Long(text.into()));
        };
        start.copy_from_slice(text.as_bytes());
        Self(Kept::Short(length, bytes))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was made of a text.
            Kept::Short(..) => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Kept::Long(text) => text,
        }
    }
}

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_made_of_whatever_its_length() {
        for text in [
            "",
            "a",
            "\0",
            "é",
            &"x".repeat(SHORT),
            &"x".repeat(SHORT + 1),
            &"é".repeat(40),
        ] {
            let kept = Text::from(text);
            assert_eq!((&*kept, kept.as_bytes()), (text, text.as_bytes()));
            assert_eq!(matches!(kept.0, Kept::Short(..)), text.len() <= SHORT);
        }
        assert_ne!(Text::from("a"), Text::from("a\0"));
        assert_eq!(size_of::<Text>(), 32);
        let set = std::collections::HashSet::from([Text::from("a"), Text::from(&*"x".repeat(40))]);
        assert!(set.contains(&b"a"[..]) && set.contains("x".repeat(40).as_bytes()));
    }
}
