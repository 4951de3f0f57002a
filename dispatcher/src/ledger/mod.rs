//! Owns which targets of a source partition are completed: the offset window between what is
//! committed and what has been read.
//!
//! Its unit is the target (offset, index). It must never put the position behind an open target
//! (rule 6). The surprise: while a transaction that covers this partition is open, completed
//! records stay in the window, so that an abort can open them again.

mod metadata;

use std::collections::VecDeque;

pub use metadata::{Inherited, MetadataError, stamped, unstamped};

use crate::planted::{self, Bug};

/// The most bytes of metadata text that Kafka takes with a position by default.
pub const MAX_METADATA_BYTES: usize = 4_096;

/// A target's place in its source partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The record's offset.
    pub offset: i64,
    /// The target's index in the record.
    pub index: u16,
}

/// One record in the window.
#[derive(Debug)]
struct Entry {
    offset: i64,
    open: u16,
    targets: Bits,
}

/// The offset window of one source partition.
#[derive(Debug)]
pub struct Ledger {
    /// Offsets below are completed and committed or about to be.
    base: i64,
    /// The offset behind the last record admitted.
    next: i64,
    window: VecDeque<Entry>,
    inherited: Inherited,
    frozen: bool,
}

impl Ledger {
    /// The window of a partition whose position is `committed`, with what its last owner had
    /// completed beyond it.
    pub fn resume(committed: i64, inherited: Inherited) -> Self {
        Self {
            base: committed,
            next: committed,
            window: VecDeque::new(),
            inherited,
            frozen: false,
        }
    }

    /// Takes in the record at `offset` with `targets` targets (0 counts as completed) and says
    /// which of them are open. Offsets between the last record and this one were never delivered by
    /// the log: they count as completed. A record below the window is completed already.
    pub fn admit(&mut self, offset: i64, targets: u16) -> Vec<u16> {
        if offset < self.next {
            return Vec::new();
        }
        if offset > self.next && planted::is(Bug::GapsStayOpen) {
            self.window.push_back(Entry {
                offset: self.next,
                open: 1,
                targets: Bits::all_open(1),
            });
        }
        self.next = offset + 1;
        let mut bits = Bits::all_open(targets);
        self.inherited.take_completed(offset, targets, |index| {
            bits.complete(index);
        });
        let open: Vec<u16> = (0..targets).filter(|index| bits.is_open(*index)).collect();
        let open_count = u16::try_from(open.len()).unwrap_or(u16::MAX);
        if open_count > 0 || !self.window.is_empty() || self.frozen {
            self.window.push_back(Entry {
                offset,
                open: open_count,
                targets: bits,
            });
        }
        self.trim();
        open
    }

    /// Says that nothing below `offset` will be delivered by the log any more.
    pub fn skip_to(&mut self, offset: i64) {
        self.next = self.next.max(offset);
        self.trim();
    }

    /// Completes a target. Returns whether it was open.
    pub fn complete(&mut self, place: Place) -> bool {
        let Some(entry) = self.entry(place.offset) else {
            return false;
        };
        let was_open = entry.targets.complete(place.index);
        if was_open {
            entry.open -= 1;
        }
        self.trim();
        was_open
    }

    /// Opens a target again whose transaction was aborted. Only while frozen.
    pub fn reopen(&mut self, place: Place) {
        debug_assert!(
            self.frozen,
            "a target is opened again only while its transaction is open"
        );
        if let Some(entry) = self.entry(place.offset)
            && entry.targets.open_again(place.index)
        {
            entry.open += 1;
        }
    }

    /// Keeps completed records in the window until [`Ledger::thaw`].
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Lets completed records go.
    pub fn thaw(&mut self) {
        self.frozen = false;
        self.trim();
    }

    /// Whether a transaction that covers this partition is open.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The offset behind the last record admitted.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The lowest offset that is not completed: what may be committed.
    pub fn position(&self) -> i64 {
        if planted::is(Bug::CommitPastOpen) {
            return self.next;
        }
        self.window
            .iter()
            .find(|entry| entry.open > 0)
            .map_or(self.next, |entry| entry.offset)
    }

    /// How many records are in the window.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether every record admitted is completed.
    pub fn is_empty(&self) -> bool {
        self.window.iter().all(|entry| entry.open == 0)
    }

    /// The places that are open, lowest first.
    pub fn open_places(&self) -> impl Iterator<Item = Place> + '_ {
        self.window
            .iter()
            .filter(|entry| entry.open > 0)
            .flat_map(|entry| {
                entry.targets.open().map(|index| Place {
                    offset: entry.offset,
                    index,
                })
            })
    }

    /// The text to commit with [`Ledger::position`]: what is completed beyond it, and from where a
    /// new owner reads to know the marks (rule 3).
    pub fn metadata(&self, marks_from: Option<i64>) -> String {
        metadata::encode(self, marks_from)
    }

    fn entry(&mut self, offset: i64) -> Option<&mut Entry> {
        // Offsets mostly follow one another, which tells the place without a search.
        let first = self.window.front()?.offset;
        let near = usize::try_from(offset.checked_sub(first)?).ok()?;
        let at = match self.window.get(near) {
            Some(entry) if entry.offset == offset => near,
            _ => self
                .window
                .binary_search_by_key(&offset, |entry| entry.offset)
                .ok()?,
        };
        self.window.get_mut(at)
    }

    fn trim(&mut self) {
        if self.frozen {
            return;
        }
        while self.window.front().is_some_and(|entry| entry.open == 0) {
            self.window.pop_front();
        }
        self.base = self.base.max(self.position());
        self.inherited.forget_below(self.base.max(self.next));
    }
}

/// Which of a record's targets are completed: one word inline, since most records have few.
#[derive(Debug)]
struct Bits {
    len: u16,
    first: u64,
    rest: Vec<u64>,
}

impl Bits {
    fn all_open(len: u16) -> Self {
        let words = usize::from(len).div_ceil(64).saturating_sub(1);
        Self {
            len,
            first: 0,
            rest: vec![0; words],
        }
    }

    fn word(&mut self, index: u16) -> Option<&mut u64> {
        if index >= self.len {
            return None;
        }
        match usize::from(index / 64) {
            0 => Some(&mut self.first),
            at => self.rest.get_mut(at - 1),
        }
    }

    fn is_open(&self, index: u16) -> bool {
        let word = match usize::from(index / 64) {
            0 => self.first,
            at => self.rest.get(at - 1).copied().unwrap_or(u64::MAX),
        };
        index < self.len && word & (1 << (index % 64)) == 0
    }

    /// Returns whether it was open.
    fn complete(&mut self, index: u16) -> bool {
        let was_open = self.is_open(index);
        if let Some(word) = self.word(index) {
            *word |= 1 << (index % 64);
        }
        was_open
    }

    /// Returns whether it was completed.
    fn open_again(&mut self, index: u16) -> bool {
        let was_completed = index < self.len && !self.is_open(index);
        if let Some(word) = self.word(index) {
            *word &= !(1 << (index % 64));
        }
        was_completed
    }

    fn open(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.len).filter(|index| self.is_open(*index))
    }
}

#[cfg(test)]
mod tests;
