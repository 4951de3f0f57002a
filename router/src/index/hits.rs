//! Owns the memory of matching one event: rules that may want it, and what was found in its payload.
//!
//! The surprise: it is used again for the next event, so that matching needs no memory of its own.

use schemas::filter::Found;

use super::entries::Place;
use super::keys::LineId;

/// Memory for matching, one event after another.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) found: Found,
    pub(super) hits: Hits,
    pub(super) places: Vec<Place>,
}

/// Rules that may want an event.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pub(super) lines: Vec<LineId>,
    /// What is still to be looked up in the bucket at hand.
    pub(super) keys: Vec<u64>,
}

impl Hits {
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.keys.clear();
    }

    #[inline]
    pub(super) fn add(&mut self, line: LineId) {
        self.lines.push(line);
    }

    /// Each once, in the order in which they lie in memory.
    pub(super) fn sorted(&mut self) -> &[LineId] {
        if self.lines.len() > 1 {
            self.lines.sort_unstable();
            self.lines.dedup();
        }
        &self.lines
    }
}
