//! Owns what was found in one payload: places in its text, by slot.
//!
//! Never copies a value, but for strings with escapes. The surprise: it is used again for the next
//! payload without being cleared; numbers say what belongs to which.

use super::paths::{Node, Paths, Slot};

/// Values of one payload at the paths in use; a payload with more is not looked into.
const ITEMS_MAX: usize = 1 << 16;
/// The slot of what a later member of the same name has replaced.
const DEAD: Slot = Slot::MAX;
const NONE: u32 = u32::MAX;

/// A value that has no parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string.
    String(&'a str),
}

/// Memory for what is found in payloads, one after another.
#[derive(Debug, Clone, Default)]
pub struct Found {
    items: Vec<Item>,
    /// Strings with escapes.
    decoded: String,
    heads: Vec<Head>,
    generation: u32,
    members: Vec<Member>,
    frames: u32,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    slot: Slot,
    kind: Kind,
    start: u32,
    end: u32,
    next: u32,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something is there, but nothing to compare with: an object, an array, half a surrogate pair.
    Present,
    Null,
    True,
    False,
    Number,
    String,
    /// A string in `decoded`.
    Decoded,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    generation: u32,
    first: u32,
}

/// Where the items of an object's member are, so that a later one of its name can replace them.
#[derive(Debug, Clone, Copy, Default)]
struct Member {
    frame: u32,
    start: usize,
    end: usize,
}

impl Found {
    pub(super) fn begin(&mut self, paths: &Paths) {
        self.items.clear();
        self.decoded.clear();
        if self.generation == u32::MAX {
            self.heads.clear();
            self.generation = 0;
        }
        self.generation += 1;
        if self.frames > u32::MAX / 2 {
            self.members.clear();
            self.frames = 0;
        }
        let slots = paths.slot_bound().max(self.heads.len());
        self.heads.resize(slots, Head::default());
        let nodes = paths.node_count().max(self.members.len());
        self.members.resize(nodes, Member::default());
    }

    /// An object begins: its number.
    pub(super) fn frame(&mut self) -> u32 {
        // Fewer than the bytes of a payload each time: it does not pass its end.
        self.frames = self.frames.saturating_add(1);
        self.frames
    }

    /// The member that leads to `node` in the object `frame` begins; the last of a name counts.
    pub(super) fn begin_member(&mut self, node: Node, frame: u32) -> usize {
        let known = usize::try_from(node)
            .ok()
            .and_then(|node| self.members.get(node));
        if let Some(earlier) = known.filter(|member| member.frame == frame) {
            let replaced = self.items.get_mut(earlier.start..earlier.end);
            for item in replaced.into_iter().flatten() {
                item.slot = DEAD;
            }
        }
        self.items.len()
    }

    pub(super) fn end_member(&mut self, node: Node, frame: u32, start: usize) {
        let end = self.items.len();
        let member = usize::try_from(node)
            .ok()
            .and_then(|node| self.members.get_mut(node));
        if let Some(member) = member {
            *member = Member { frame, start, end };
        }
    }

    /// Takes down a value; `None` where there are too many.
    pub(super) fn push(&mut self, slot: Slot, kind: Kind, span: (usize, usize)) -> Option<()> {
        if self.items.len() >= ITEMS_MAX {
            return None;
        }
        self.items.push(Item {
            slot,
            kind,
            start: u32::try_from(span.0).ok()?,
            end: u32::try_from(span.1).ok()?,
            next: NONE,
        });
        Some(())
    }

    /// The memory for a string with escapes.
    pub(super) fn decoded(&mut self) -> &mut String {
        &mut self.decoded
    }

    /// Everything has been found: lists it by slot.
    pub(super) fn finish(&mut self) {
        for (index, item) in self.items.iter_mut().enumerate().rev() {
            let head = usize::try_from(item.slot)
                .ok()
                .and_then(|slot| self.heads.get_mut(slot));
            // Nothing has the slot of the dead.
            let Some(head) = head else {
                continue;
            };
            item.next = if head.generation == self.generation {
                head.first
            } else {
                NONE
            };
            *head = Head {
                generation: self.generation,
                first: u32::try_from(index).unwrap_or(NONE),
            };
        }
    }

    /// What is at the path of `slot` in `text`, the payload that was read last.
    pub(in crate::filter) fn values<'a>(&'a self, text: &'a str, slot: Slot) -> Values<'a> {
        let head = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.heads.get(slot));
        let head = head.filter(|head| head.generation == self.generation);
        Values {
            found: self,
            text,
            next: head.map_or(NONE, |head| head.first),
        }
    }

    /// Everything that was found in `text`, with its slot; `None` for what cannot be compared.
    pub(in crate::filter) fn all<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (Slot, Option<Scalar<'a>>)> {
        let living = self.items.iter().filter(|item| item.slot != DEAD);
        living.map(|item| (item.slot, self.scalar(text, item)))
    }

    fn scalar<'a>(&'a self, text: &'a str, item: &Item) -> Option<Scalar<'a>> {
        let span = |text: &'a str| {
            let range = usize::try_from(item.start)
                .ok()
                .zip(usize::try_from(item.end).ok());
            range.and_then(|(start, end)| text.get(start..end))
        };
        match item.kind {
            Kind::Present => None,
            Kind::Null => Some(Scalar::Null),
            Kind::True => Some(Scalar::Bool(true)),
            Kind::False => Some(Scalar::Bool(false)),
            Kind::Number => span(text).map(Scalar::Number),
            Kind::String => span(text).map(Scalar::String),
            Kind::Decoded => span(&self.decoded).map(Scalar::String),
        }
    }
}

/// What is at one path: the value, or the elements of an array.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    found: &'a Found,
    text: &'a str,
    next: u32,
}

impl Values<'_> {
    /// Whether something is there, an empty object or array included.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.next != NONE
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Scalar<'a>;

    fn next(&mut self) -> Option<Scalar<'a>> {
        loop {
            let index = usize::try_from(self.next).ok()?;
            let item = self.found.items.get(index)?;
            self.next = item.next;
            if let Some(scalar) = self.found.scalar(self.text, item) {
                return Some(scalar);
            }
        }
    }
}
