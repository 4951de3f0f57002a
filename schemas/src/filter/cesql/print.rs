//! Owns how a tree is written: the text that reads back as the same tree.
//!
//! Never more brackets than the tree needs, and so never deeper than what was read.

use std::fmt::{self, Display, Formatter, Write as _};

use super::lexer::Quote;
use super::tree::{LEVELS, Literal, Node};

/// Tighter than every binary operator.
const POSTFIX: usize = LEVELS;
const UNARY: usize = LEVELS + 1;
const OPERAND: usize = LEVELS + 2;

impl Node {
    fn level(&self) -> usize {
        match self {
            Self::Literal(_) | Self::Attribute(_) | Self::Exists(_) | Self::Call(_) => OPERAND,
            Self::Not(_) | Self::Negate(_) => UNARY,
            Self::Like { .. } | Self::In { .. } => POSTFIX,
            Self::Chain { rest, .. } => rest
                .first()
                .map_or(OPERAND, |(operator, _)| operator.level()),
        }
    }

    /// Writes it where only `level` and tighter needs no brackets.
    fn write(&self, level: usize, f: &mut Formatter<'_>) -> fmt::Result {
        if self.level() < level {
            write!(f, "({self})")
        } else {
            write!(f, "{self}")
        }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal}"),
            Self::Attribute(name) => f.write_str(name.as_str()),
            Self::Exists(name) => write!(f, "EXISTS {}", name.as_str()),
            Self::Not(operand) => {
                f.write_str("NOT ")?;
                operand.write(UNARY, f)
            }
            // The space keeps it from becoming a literal's sign.
            Self::Negate(operand) => {
                f.write_str("- ")?;
                operand.write(UNARY, f)
            }
            Self::Like {
                operand,
                negated,
                text,
                quote,
                ..
            } => {
                operand.write(POSTFIX, f)?;
                f.write_str(if *negated { " NOT LIKE " } else { " LIKE " })?;
                write_text(text, *quote, f)
            }
            Self::In {
                operand,
                negated,
                set,
            } => {
                operand.write(POSTFIX, f)?;
                f.write_str(if *negated { " NOT IN (" } else { " IN (" })?;
                list(set, f)
            }
            Self::Chain { first, rest } => {
                let level = self.level() + 1;
                first.write(level, f)?;
                rest.iter().try_for_each(|(operator, operand)| {
                    write!(f, " {} ", operator.text())?;
                    operand.write(level, f)
                })
            }
            Self::Call(call) => {
                write!(f, "{}(", call.name)?;
                list(&call.arguments, f)
            }
        }
    }
}

fn list(nodes: &[Node], f: &mut Formatter<'_>) -> fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        f.write_str(if index > 0 { ", " } else { "" })?;
        write!(f, "{node}")?;
    }
    f.write_char(')')
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(true) => f.write_str("TRUE"),
            Self::Boolean(false) => f.write_str("FALSE"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Text(text, quote) => write_text(text, *quote, f),
        }
    }
}

/// The literal that the lexer reads as `text`: backslashes come in pairs with what follows them.
fn write_text(text: &str, quote: Quote, f: &mut Formatter<'_>) -> fmt::Result {
    let quote = quote.character();
    f.write_char(quote)?;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == quote {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
        if character == '\\'
            && let Some(escaped) = characters.next()
        {
            f.write_char(escaped)?;
        }
    }
    f.write_char(quote)
}
