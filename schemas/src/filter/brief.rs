//! Owns filters in brief: a short program of bytes that fits into one line of memory, for whoever
//! has very many filters and looks at a few of them for each event.
//!
//! Never decides otherwise than the filters do: what it cannot tell for sure it leaves to them. The
//! surprise: only conditions that must all hold are in it, each on one attribute or one place in
//! data, and filters that are longer, or say more, have none.

use super::cesql::Told;
use super::data::{Clause, Literal, Test};
use super::extract::{Scalar, Slot};
use super::subject::Subject;
use super::{Comparison, Filter, Filters, Key};
use crate::event::{AttributeName, Context, Event};

/// How long it is: with a number of four bytes it is a line of memory.
const BYTES: usize = 60;
/// Patterns are looked for in longer texts by the filters, which take care of the time.
const TEXT_BYTES_MAX: usize = 512;

/// Operands from this on: an extension, whose name has so many bytes more.
const EXTENSION: u8 = 16;
/// An operand: what is at a path in data.
const PATH: u8 = u8::MAX;

/// Filters in brief.
///
/// Conditions one after another: an operation, an operand, the length of what follows, and that. A zero
/// is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief([u8; BYTES]);

/// What is asked of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Exact = 1,
    Prefix,
    Suffix,
    /// One of several texts, each behind its length.
    In,
    /// None of them; what is no text is none of them too.
    AnythingBut,
    /// The pieces between the stars of a pattern, each behind its length.
    Pieces,
    /// A number between two.
    Between,
    /// Nothing is known.
    Unknown,
}

const OPS: [Op; 8] = [
    Op::Exact,
    Op::Prefix,
    Op::Suffix,
    Op::In,
    Op::AnythingBut,
    Op::Pieces,
    Op::Between,
    Op::Unknown,
];

const CONTEXTS: [Context; 8] = [
    Context::SpecVersion,
    Context::Id,
    Context::Source,
    Context::Type,
    Context::Subject,
    Context::Time,
    Context::DataContentType,
    Context::DataSchema,
];

impl Default for Brief {
    /// The one that leaves everything to the filters.
    fn default() -> Self {
        let mut bytes = [0; BYTES];
        bytes[0] = Op::Unknown as u8;
        Self(bytes)
    }
}

impl Filters {
    /// The filters in brief, but for what they say of [`Filters::required_types`]. `slots` has the
    /// slot of each of [`Filters::pointers`].
    #[must_use]
    pub fn brief(&self, slots: &[Slot]) -> Brief {
        let mut writer = Writer {
            bytes: [0; BYTES],
            at: 0,
            slots,
        };
        let bits = self.beside_types();
        let asking = self.filters.iter().enumerate();
        let mut asking = asking.filter(|(place, _)| bits & (1 << place.min(&63)) != 0);
        let written = asking.try_for_each(|(_, filter)| writer.filter(filter));
        written.map_or_else(Brief::default, |()| Brief(writer.bytes))
    }
}

// === reading ===

impl Brief {
    /// Whether the event passes the filters, whose types it is one of; `None` where only they can
    /// tell.
    #[must_use]
    #[inline]
    pub fn passes(&self, subject: &mut Subject<'_>) -> Option<bool> {
        let mut reader = Reader(&self.0);
        while let Some(op) = reader.op() {
            let holds = match reader.byte()? {
                PATH => {
                    let slot = Slot::from_le_bytes(*reader.0.first_chunk()?);
                    reader.take(size_of::<Slot>())?;
                    op.holds_in_data(reader.text()?, slot, subject)?
                }
                operand => {
                    let text = reader.attribute(operand, subject.event())?;
                    let wanted = reader.text()?;
                    match text {
                        Some(text) => op.holds(wanted, text.as_bytes())?,
                        None => false,
                    }
                }
            };
            if !holds {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Whether nothing is known without the filters.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        Reader(&self.0).op() == Some(Op::Unknown)
    }
}

impl Op {
    /// Whether any of the values is what is asked for (an array is its elements).
    #[inline]
    fn holds_in_data(self, wanted: &[u8], slot: Slot, subject: &mut Subject<'_>) -> Option<bool> {
        let Some(values) = subject.values(slot) else {
            return Some(false);
        };
        for value in values {
            let holds = match (self, value) {
                (Self::Between, Scalar::Number(text)) => between(wanted, text.parse().ok()?)?,
                (Self::Between, _) => false,
                (_, Scalar::String(text)) => self.holds(wanted, text.as_bytes())?,
                (_, Scalar::Null | Scalar::Bool(_) | Scalar::Number(_)) => {
                    self == Self::AnythingBut
                }
            };
            if holds {
                return Some(true);
            }
        }
        Some(false)
    }

    #[inline]
    fn holds(self, wanted: &[u8], text: &[u8]) -> Option<bool> {
        Some(match self {
            Self::Exact => text == wanted,
            Self::Prefix => text.starts_with(wanted),
            Self::Suffix => text.ends_with(wanted),
            Self::In => Reader(wanted).any(text),
            Self::AnythingBut => !Reader(wanted).any(text),
            Self::Pieces => return has_pieces(Reader(wanted), text),
            Self::Between | Self::Unknown => return None,
        })
    }
}

/// Rounding keeps the order, so only a number that is one of the two when rounded is left open.
fn between(wanted: &[u8], number: f64) -> Option<bool> {
    let (low, high) = wanted.split_at_checked(8)?;
    let low = f64::from_le_bytes(*low.first_chunk()?);
    let high = f64::from_le_bytes(*high.first_chunk()?);
    if number > low && number < high {
        return Some(true);
    }
    (number < low || number > high).then_some(false)
}

/// As [`super::wildcard::Wildcard`] does it: each piece is looked for where it is first.
fn has_pieces(mut pieces: Reader<'_>, text: &[u8]) -> Option<bool> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut piece = pieces.text()?;
    let Some(mut text) = text.strip_prefix(piece) else {
        return Some(false);
    };
    let Some(next) = pieces.text() else {
        return Some(text.is_empty());
    };
    piece = next;
    while let Some(next) = pieces.text() {
        let found = match piece {
            [] => Some(0),
            piece => text.windows(piece.len()).position(|part| part == piece),
        };
        let Some(behind) = found.and_then(|at| text.get(at + piece.len()..)) else {
            return Some(false);
        };
        (text, piece) = (behind, next);
    }
    Some(text.ends_with(piece))
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next condition, unless that was the last.
    #[inline]
    fn op(&mut self) -> Option<Op> {
        let code = usize::from(self.byte()?);
        OPS.get(code.checked_sub(1)?).copied()
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    /// What is behind its length.
    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// The text of the attribute of `operand`; whether the event has one.
    #[inline]
    fn attribute<'e>(&mut self, operand: u8, event: &'e Event) -> Option<Option<&'e str>> {
        let Some(length) = operand.checked_sub(EXTENSION) else {
            let context = CONTEXTS.get(usize::from(operand))?;
            return Some(event.context_attribute(*context));
        };
        let name = self.take(usize::from(length))?;
        Some(event.extension_text(name))
    }

    /// Whether one of the texts is this one.
    #[inline]
    fn any(mut self, wanted: &[u8]) -> bool {
        while let Some(text) = self.text() {
            if text == wanted {
                return true;
            }
        }
        false
    }
}

// === writing ===

/// A program as far as it is written. Every step is `None` where there is no room, or no words.
#[derive(Debug)]
struct Writer<'a> {
    bytes: [u8; BYTES],
    at: usize,
    slots: &'a [Slot],
}

impl Writer<'_> {
    /// Recursion is bounded by [`super::DEPTH_MAX`].
    fn filter(&mut self, filter: &Filter) -> Option<()> {
        match filter {
            Filter::Exact(entries) => self.comparisons(Op::Exact, entries),
            Filter::Prefix(entries) => self.comparisons(Op::Prefix, entries),
            Filter::Suffix(entries) => self.comparisons(Op::Suffix, entries),
            Filter::Glob(patterns) => patterns.iter().try_for_each(|pattern| {
                let pieces = pattern.wildcard.pieces();
                self.attribute(Op::Pieces, &pattern.attribute)?;
                self.texts(pieces)
            }),
            Filter::Data(clauses) => clauses.iter().try_for_each(|clause| self.clause(clause)),
            Filter::Sql(expression) => expression
                .told()?
                .into_iter()
                .try_for_each(|(name, told)| self.told(name, &told)),
            Filter::All(filters) => filters.iter().try_for_each(|filter| self.filter(filter)),
            Filter::Any(_) | Filter::Not(_) => None,
        }
    }

    fn comparisons(&mut self, op: Op, entries: &[Comparison]) -> Option<()> {
        entries.iter().try_for_each(|entry| {
            self.attribute(op, &entry.attribute)?;
            self.text(entry.value.as_bytes())
        })
    }

    fn told(&mut self, name: &AttributeName, told: &Told<'_>) -> Option<()> {
        match told {
            Told::Exact(text) => {
                self.attribute(Op::Exact, name)?;
                self.text(text.as_bytes())
            }
            Told::In(texts) => {
                self.attribute(Op::In, name)?;
                self.texts(texts.iter().copied())
            }
            Told::Pieces(pieces) => {
                self.attribute(Op::Pieces, name)?;
                self.texts(pieces.iter().map(|piece| &**piece))
            }
        }
    }

    fn clause(&mut self, clause: &Clause) -> Option<()> {
        let slot = *self.slots.get(usize::from(clause.path))?;
        let op = match &*clause.tests {
            [Test::Exact(_)] => Op::Exact,
            [Test::Prefix(_)] => Op::Prefix,
            [Test::Suffix(_)] => Op::Suffix,
            [Test::In(_)] => Op::In,
            [Test::AnythingBut(_)] => Op::AnythingBut,
            [Test::Wildcard(_)] => Op::Pieces,
            tests if tests.iter().all(|test| matches!(test, Test::Bound(..))) => Op::Between,
            _ => return None,
        };
        self.raw(&[op as u8, PATH])?;
        self.raw(&slot.to_le_bytes())?;
        match clause.tests.first()? {
            Test::Exact(literal) => self.text(string(literal)?.as_bytes()),
            Test::Prefix(text) | Test::Suffix(text) => self.text(text.as_bytes()),
            Test::In(literals) | Test::AnythingBut(literals) => {
                let texts: Option<Vec<&str>> = literals.iter().map(string).collect();
                self.texts(texts?)
            }
            Test::Wildcard(wildcard) => self.texts(wildcard.pieces()),
            Test::Bound(..) => {
                let Key::Between(low, high) = clause.between()? else {
                    return None;
                };
                let [low, high] = [low, high].map(f64::to_le_bytes);
                self.text([low, high].as_flattened())
            }
            Test::Network(_) | Test::Exists(_) => None,
        }
    }

    fn attribute(&mut self, op: Op, name: &AttributeName) -> Option<()> {
        if let Some(context) = name.context() {
            let place = CONTEXTS.iter().position(|other| *other == context)?;
            return self.raw(&[op as u8, u8::try_from(place).ok()?]);
        }
        let name = name.as_str().as_bytes();
        let operand = u8::try_from(name.len()).ok()?.checked_add(EXTENSION)?;
        self.raw(&[op as u8, operand])?;
        self.raw(name)
    }

    fn text(&mut self, text: &[u8]) -> Option<()> {
        self.raw(&[u8::try_from(text.len()).ok()?])?;
        self.raw(text)
    }

    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Option<()> {
        let start = self.at;
        self.raw(&[0])?;
        for text in texts {
            self.text(text.as_bytes())?;
        }
        let length = u8::try_from(self.at - start - 1).ok()?;
        self.bytes.get_mut(start).map(|byte| *byte = length)
    }

    fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        let room = self.bytes.get_mut(self.at..)?.get_mut(..bytes.len())?;
        room.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }
}

fn string(literal: &Literal) -> Option<&str> {
    match literal {
        Literal::String(text) => Some(text),
        Literal::Null | Literal::Bool(_) | Literal::Number(_) => None,
    }
}

#[cfg(test)]
mod tests;
