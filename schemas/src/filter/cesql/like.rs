//! Owns `LIKE` (SQ-11): its pattern, and the matching of a text.
//!
//! Never backtracks into what is behind an earlier `%`: two pointers, and at most pattern times text
//! steps, which are counted against the evaluation's budget.

use std::str::Chars;

use super::needs::Needed;

/// A pattern, read once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    pieces: Box<[Piece]>,
    /// What a text like this begins with, and ends with.
    prefix: Box<str>,
    suffix: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Piece {
    /// `%`: any characters, or none.
    Run,
    /// `_`: one character.
    One,
    /// This character.
    Character(char),
}

impl Pattern {
    /// The pattern of this text, in which `\%` and `\_` are the characters themselves.
    pub(super) fn of(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                // Several are as good as one.
                '%' if pieces.last() == Some(&Piece::Run) => continue,
                '%' => Piece::Run,
                '_' => Piece::One,
                '\\' => match characters.next_if(|next| matches!(next, '%' | '_')) {
                    Some(escaped) => Piece::Character(escaped),
                    None => Piece::Character('\\'),
                },
                other => Piece::Character(other),
            });
        }
        let is_character = |piece: &Piece| match piece {
            Piece::Character(character) => Some(*character),
            Piece::Run | Piece::One => None,
        };
        let prefix: String = pieces.iter().map_while(is_character).collect();
        let suffix: String = pieces.iter().rev().map_while(is_character).collect();
        Self {
            pieces: pieces.into(),
            prefix: prefix.into(),
            suffix: suffix.chars().rev().collect::<String>().into(),
        }
    }

    /// What a text must be to be like this.
    pub(super) fn needed(&self) -> Needed<'_> {
        let wild = |piece: &Piece| matches!(piece, Piece::Run | Piece::One);
        if !self.pieces.iter().any(wild) {
            return Needed::Exact(&self.prefix);
        }
        match (&*self.prefix, &*self.suffix) {
            ("", "") => Needed::Present,
            ("", suffix) => Needed::Suffix(suffix),
            (prefix, _) => Needed::Prefix(prefix),
        }
    }

    /// The texts between one `%` and the next; `None` where `_` is in one.
    pub(super) fn between_runs(&self) -> Option<Vec<String>> {
        let character = |piece: &Piece| match piece {
            Piece::Character(character) => Some(*character),
            Piece::Run | Piece::One => None,
        };
        let between = self.pieces.split(|piece| *piece == Piece::Run);
        between
            .map(|pieces| pieces.iter().map(character).collect())
            .collect()
    }

    /// Whether all of `text` is like this; `None` where that takes more than `steps`, of which it
    /// takes away what it has used.
    pub(super) fn matches(&self, text: &str, steps: &mut usize) -> Option<bool> {
        let mut rest = text.chars();
        let mut at = 0;
        // Behind the last `%`: its place, and where the text goes on if it takes one more.
        let mut retry: Option<(usize, Chars<'_>)> = None;
        loop {
            *steps = steps.checked_sub(1)?;
            let fits = match self.pieces.get(at) {
                Some(Piece::Run) => {
                    at += 1;
                    if at == self.pieces.len() {
                        return Some(true);
                    }
                    retry = Some((at, rest.clone()));
                    continue;
                }
                Some(Piece::One) => rest.next().is_some(),
                Some(Piece::Character(wanted)) => rest.next() == Some(*wanted),
                None if rest.as_str().is_empty() => return Some(true),
                None => false,
            };
            if fits {
                at += 1;
                continue;
            }
            let Some((behind, from)) = &mut retry else {
                return Some(false);
            };
            if from.next().is_none() {
                return Some(false);
            }
            (at, rest) = (*behind, from.clone());
        }
    }
}
