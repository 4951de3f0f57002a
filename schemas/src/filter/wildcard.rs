//! Owns patterns in which `*` stands for any text, the empty one included; `\*` and `\\` are the
//! characters themselves.
//!
//! Never backtracks: each piece between two stars is looked for once, from where the one before it
//! ended, so matching takes time in proportion to text and pattern together. The surprise: only
//! the pieces are kept; the pattern is put together again from them.

/// A pattern, as the pieces between its stars.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wildcard {
    /// Never empty; one piece is a pattern without a star.
    pieces: Box<[Box<str>]>,
}

impl Wildcard {
    /// Reads a pattern; `None` where `\` stands before anything but `*` and `\`.
    #[must_use]
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut piece = String::new();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '*' => pieces.push(std::mem::take(&mut piece).into_boxed_str()),
                '\\' => piece.push(letters.next().filter(|next| matches!(next, '*' | '\\'))?),
                other => piece.push(other),
            }
        }
        pieces.push(piece.into_boxed_str());
        let pieces = pieces.into_boxed_slice();
        Some(Self { pieces })
    }

    /// Whether all of `text` is what the pattern describes.
    #[must_use]
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else {
            return false;
        };
        let Some(mut text) = text.strip_prefix(&**first) else {
            return false;
        };
        let Some((last, middle)) = rest.split_last() else {
            return text.is_empty();
        };
        for piece in middle {
            // The leftmost place leaves the most for what follows.
            let Some((_, behind)) = text.split_once(&**piece) else {
                return false;
            };
            text = behind;
        }
        text.ends_with(&**last)
    }

    /// The only text that it matches, where it has no star.
    #[must_use]
    pub(super) fn literal(&self) -> Option<&str> {
        match &*self.pieces {
            [only] => Some(only),
            _ => None,
        }
    }

    /// What is between its stars, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().map(|piece| &**piece)
    }

    /// What every text that it matches begins with.
    #[must_use]
    pub(super) fn prefix(&self) -> &str {
        self.pieces.first().map_or("", |piece| piece)
    }

    /// What every text that it matches ends with.
    #[must_use]
    pub(super) fn suffix(&self) -> &str {
        self.pieces.last().map_or("", |piece| piece)
    }

    /// The longest text that is in every text that it matches.
    #[must_use]
    pub(super) fn longest(&self) -> &str {
        let pieces = self.pieces.iter();
        pieces
            .max_by_key(|piece| piece.len())
            .map_or("", |piece| piece)
    }

    /// The pattern that [`Wildcard::parse`] reads.
    #[must_use]
    pub(super) fn pattern(&self) -> String {
        let escaped = |piece: &str| piece.replace('\\', "\\\\").replace('*', "\\*");
        let pieces: Vec<_> = self.pieces.iter().map(|piece| escaped(piece)).collect();
        pieces.join("*")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("com.github.*", "com.github.push", true),
            ("com.github.*", "com.github.", true),
            ("com.github.*", "com.github", false),
            ("*", "", true),
            ("**", "a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*ab*ab*", "aab ab", true),
            ("*ab*ab*", "ab", false),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"\\*", r"\x", true),
            ("é*ß", "éxß", true),
        ] {
            let wildcard = Wildcard::parse(pattern).unwrap();
            assert_eq!(wildcard.matches(text), expected, "{pattern} {text}");
            assert_eq!(wildcard.pattern(), pattern);
        }
        for pattern in [r"\", r"a\b", r"*\"] {
            assert_eq!(Wildcard::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_makes_others_backtrack_takes_no_time() {
        // Exponential for whoever tries every place: 2,000 stars before a letter that is missing.
        let wildcard = Wildcard::parse(&("*a".repeat(2_000) + "*b")).unwrap();
        assert!(!wildcard.matches(&"a".repeat(100_000)));
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            [letter, rest @ ..] => text.first() == Some(letter) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_trying_every_place_matches(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            let wildcard = Wildcard::parse(&pattern).unwrap();
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naive(&letters(&pattern), &letters(&text));
            prop_assert_eq!(wildcard.matches(&text), expected);
            if expected {
                prop_assert!(text.starts_with(wildcard.prefix()));
                prop_assert!(text.ends_with(wildcard.suffix()));
                prop_assert!(text.contains(wildcard.longest()));
            }
        }
    }
}
