//! Owns the words of an expression: what characters become which token (SQ-3).
//!
//! Never looks at what a token is for. The surprise: a sign is a token of its own, though the
//! grammar has it in the literal; only the parser knows whether `4 -1` has an operator.

use super::error::{Error, Fault};

/// A word of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    /// Bytes before it.
    pub(super) start: usize,
    /// Bytes before what follows it.
    pub(super) end: usize,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind<'t> {
    /// Letters, digits, underscores: an identifier, a function, a keyword.
    Word(&'t str),
    /// Digits alone.
    Digits(&'t str),
    /// A string literal, its delimiter unescaped.
    Text(String, Quote),
    /// An operator, a bracket, a comma.
    Symbol(&'static str),
    /// Behind the last word.
    End,
}

/// What delimits a string literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Quote {
    Single,
    Double,
}

impl Quote {
    pub(super) const fn character(self) -> char {
        match self {
            Self::Single => '\'',
            Self::Double => '"',
        }
    }
}

/// Longer ones first, so that `<=` is not `<`.
const SYMBOLS: [&str; 15] = [
    "!=", "<>", ">=", "<=", "(", ")", ",", "*", "/", "%", "+", "-", "=", ">", "<",
];

/// The words of `text`; the last is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut tokens = Vec::new();
    let mut start = 0;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let skipped = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        start += rest.len() - skipped.len();
        let read = token(skipped).map_err(|fault| Error::at(text, start, fault));
        let (kind, length) = read?;
        let is_end = kind == Kind::End;
        let end = start + length;
        tokens.push(Token { kind, start, end });
        if is_end {
            return Ok(tokens);
        }
        start = end;
    }
}

/// The word at the beginning of `rest`, and its length.
fn token(rest: &str) -> Result<(Kind<'_>, usize), Fault> {
    let Some(first) = rest.chars().next() else {
        return Ok((Kind::End, 0));
    };
    let quote = match first {
        '\'' => Some(Quote::Single),
        '"' => Some(Quote::Double),
        _ => None,
    };
    if let Some(quote) = quote {
        let (content, length) = literal(rest, quote).ok_or(Fault::NoEnd)?;
        return Ok((Kind::Text(content, quote), length));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return Ok((Kind::Symbol(symbol), symbol.len()));
    }
    let behind = rest.find(|next: char| !next.is_ascii_alphanumeric() && next != '_');
    match rest.get(..behind.unwrap_or(rest.len())) {
        None | Some("") => Err(Fault::Character(first)),
        Some(word) if word.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok((Kind::Digits(word), word.len()))
        }
        Some(word) => Ok((Kind::Word(word), word.len())),
    }
}

/// What a literal at the beginning of `rest` says, and its length with both delimiters. A backslash
/// keeps whatever follows it from ending the literal; only before the delimiter is it left out, so
/// that the escapes of `LIKE` reach its pattern.
fn literal(rest: &str, quote: Quote) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == quote.character() {
            return Some((content, at + 1));
        }
        if character != '\\' {
            content.push(character);
            continue;
        }
        let (_, escaped) = characters.next()?;
        if escaped != quote.character() {
            content.push('\\');
        }
        content.push(escaped);
    }
    None
}
