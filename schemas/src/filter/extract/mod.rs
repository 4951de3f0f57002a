//! Owns reading JSON payloads for filters: one pass over the bytes that checks all of them and
//! takes down what is at the paths in use.
//!
//! It must never build a tree, panic, or take longer than a small multiple of the payload's length.
//! The surprise: an array stands for its elements. A step that is an index selects one; every other
//! step is taken in each of them, and so is the comparison at the end.

mod found;
pub(crate) mod lex;
mod paths;

use found::Kind;
use paths::{Node, ROOT};

pub use found::{Found, Scalar, Values};
pub(crate) use paths::is_pointer;
pub use paths::{Paths, Slot};
#[cfg(test)]
pub(crate) use paths::{is_index, steps};

/// An element of an array that an index and a name both lead into is read twice; this is how much
/// of that there may be, in lengths of the payload. Beyond it the payload is not looked into.
const REREADS_MAX: usize = 16;

/// Finds what is at `paths` in `text`; `false` where it is not one JSON document.
pub(super) fn extract(paths: &Paths, text: &str, found: &mut Found) -> bool {
    found.begin(paths);
    let mut reader = Reader {
        paths,
        found,
        text,
        bytes: text.as_bytes(),
        rereads: text.len().saturating_mul(REREADS_MAX),
    };
    let start = lex::blank(reader.bytes, 0);
    let end = reader.value(start, Place::named(ROOT), 0);
    let is_document = end.is_some_and(|end| lex::blank(text.as_bytes(), end) == text.len());
    found.finish();
    is_document
}

/// Where the reader is among the paths.
#[derive(Debug, Clone, Copy)]
struct Place {
    node: Node,
    /// It is in an element of an array that no index selected: indexes have had their turn.
    is_through: bool,
}

impl Place {
    fn named(node: Node) -> Self {
        Self {
            node,
            is_through: false,
        }
    }

    fn through(self) -> Self {
        Self {
            is_through: true,
            ..self
        }
    }
}

/// Reads values on the way to a path in use. Recursion is bounded by [`lex::DEPTH_MAX`].
struct Reader<'a> {
    paths: &'a Paths,
    found: &'a mut Found,
    text: &'a str,
    bytes: &'a [u8],
    /// Bytes that may be read once more.
    rereads: usize,
}

impl Reader<'_> {
    /// Where the value at `at` ends, which `place` leads to.
    fn value(&mut self, at: usize, place: Place, depth: usize) -> Option<usize> {
        let slot = self.paths.slot(place.node);
        let (end, kind) = match self.bytes.get(at)? {
            b'{' | b'[' if depth >= lex::DEPTH_MAX => return None,
            b'{' => {
                self.note(slot, Kind::Present, (at, at))?;
                return self.object(at + 1, place, depth + 1);
            }
            b'[' => {
                self.note(slot, Kind::Present, (at, at))?;
                return self.array(at + 1, place, depth + 1);
            }
            b'"' => {
                let (end, escaped) = lex::string(self.bytes, at + 1)?;
                self.string(slot, (at + 1, end - 1), escaped)?;
                return Some(end);
            }
            b't' => (lex::word(self.bytes, at, b"true")?, Kind::True),
            b'f' => (lex::word(self.bytes, at, b"false")?, Kind::False),
            b'n' => (lex::word(self.bytes, at, b"null")?, Kind::Null),
            _ => (lex::number(self.bytes, at)?, Kind::Number),
        };
        self.note(slot, kind, (at, end))?;
        Some(end)
    }

    fn note(&mut self, slot: Option<Slot>, kind: Kind, span: (usize, usize)) -> Option<()> {
        match slot {
            Some(slot) => self.found.push(slot, kind, span),
            None => Some(()),
        }
    }

    fn string(&mut self, slot: Option<Slot>, span: (usize, usize), escaped: bool) -> Option<()> {
        if !escaped || slot.is_none() {
            return self.note(slot, Kind::String, span);
        }
        let raw = self.text.get(span.0..span.1)?;
        let decoded = self.found.decoded();
        let start = decoded.len();
        let is_text = lex::unescape(raw, decoded).is_some();
        let span = (start, decoded.len());
        let kind = if is_text {
            Kind::Decoded
        } else {
            Kind::Present
        };
        self.note(slot, kind, span)
    }

    fn object(&mut self, at: usize, place: Place, depth: usize) -> Option<usize> {
        let frame = self.found.frame();
        let mut at = lex::blank(self.bytes, at);
        if self.bytes.get(at) == Some(&b'}') {
            return Some(at + 1);
        }
        loop {
            if self.bytes.get(at) != Some(&b'"') {
                return None;
            }
            let (end, escaped) = lex::string(self.bytes, at + 1)?;
            let child = self.child(place, (at + 1, end - 1), escaped);
            at = lex::colon(self.bytes, end)?;
            at = match child {
                Some(child) => {
                    let start = self.found.begin_member(child, frame);
                    let end = self.value(at, Place::named(child), depth)?;
                    self.found.end_member(child, frame, start);
                    end
                }
                None => lex::skip(self.bytes, at, depth)?,
            };
            at = lex::blank(self.bytes, at);
            match self.bytes.get(at)? {
                b',' => at = lex::blank(self.bytes, at + 1),
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Where the member named by the text in `span` leads.
    #[inline]
    fn child(&self, place: Place, span: (usize, usize), escaped: bool) -> Option<Node> {
        if escaped {
            return self.named(place, self.text.get(span.0..span.1)?);
        }
        let child = self.paths.child_at(place.node, self.bytes, span)?;
        if !place.is_through {
            return Some(child);
        }
        let name = self.text.get(span.0..span.1)?;
        (!paths::is_index(name)).then_some(child)
    }

    /// As [`Reader::child`], of a name with escapes.
    fn named(&self, place: Place, raw: &str) -> Option<Node> {
        let mut name = String::new();
        lex::unescape(raw, &mut name)?;
        let child = self.paths.child(place.node, &name)?;
        (!place.is_through || !paths::is_index(&name)).then_some(child)
    }

    fn array(&mut self, at: usize, place: Place, depth: usize) -> Option<usize> {
        let has_indexes = !place.is_through && self.paths.has_indexes(place.node);
        let looks_through = self.paths.looks_through(place.node);
        let mut at = lex::blank(self.bytes, at);
        if self.bytes.get(at) == Some(&b']') {
            return Some(at + 1);
        }
        for index in 0_usize.. {
            let selected = has_indexes
                .then(|| self.paths.child(place.node, &index.to_string()))
                .flatten()
                .map(Place::named);
            at = match (selected, looks_through) {
                (None, false) => lex::skip(self.bytes, at, depth)?,
                (Some(child), false) => self.value(at, child, depth)?,
                (None, true) => self.value(at, place.through(), depth)?,
                (Some(child), true) => {
                    let end = self.value(at, child, depth)?;
                    self.rereads = self.rereads.checked_sub(end - at)?;
                    self.value(at, place.through(), depth)?
                }
            };
            at = lex::blank(self.bytes, at);
            match self.bytes.get(at)? {
                b',' => at = lex::blank(self.bytes, at + 1),
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests;
