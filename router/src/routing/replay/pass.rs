//! Owns one pass over past events of a source partition: for whom, from where, up to where.
//!
//! It must never read beyond its end, which is fixed before it begins to read: so the first end of
//! the log that it hears of is behind it. The surprise: it is a source like the live one, with the
//! same window, the same care after a failure and the same dead letters; all that differs is that
//! it commits nothing and carries no position.

use std::collections::BTreeMap;
use std::ops::Range;

use runtime::log::{Assignment, Batch};
use schemas::ids::SubscriptionId;
use tokio::time::Instant;

use super::super::source::{Phase, Source};
use super::saving::{Saved, Unsaved};

/// A pass over past events.
#[derive(Debug)]
pub(super) struct Pass {
    /// Tells it from an earlier one.
    pub(super) number: u64,
    pub(super) source: Source,
    /// Which offsets are for whom.
    pub(super) ranges: BTreeMap<SubscriptionId, Range<i64>>,
    /// The offset behind the last one that is read.
    until: i64,
    /// Everything below `until` was handed over.
    is_whole: bool,
    /// Everything below `until` was begun.
    is_begun: bool,
    is_cut: bool,
    /// What is not on record.
    pub(super) unsaved: Unsaved,
}

impl Pass {
    /// A pass over `ranges`, of which there is at least one, by `source`, which begins at the
    /// first of them.
    pub(super) fn new(
        number: u64,
        source: Source,
        ranges: BTreeMap<SubscriptionId, Range<i64>>,
        now: Instant,
    ) -> Self {
        let from = source.read_from();
        Self {
            number,
            until: ranges.values().map(|range| range.end).max().unwrap_or(from),
            source,
            ranges,
            is_whole: false,
            is_begun: false,
            is_cut: false,
            unsaved: Unsaved::new(from, now),
        }
    }

    /// Takes in what was read; says whether that was all.
    pub(super) fn receive(&mut self, mut batch: Batch) -> bool {
        let below = batch
            .records
            .partition_point(|record| record.offset < self.until);
        self.is_whole |= below < batch.records.len()
            || batch
                .records
                .last()
                .is_some_and(|last| last.offset + 1 >= self.until);
        batch.records.truncate(below);
        if !batch.records.is_empty() {
            self.source.receive(batch);
        }
        self.settle();
        self.is_whole
    }

    /// The end of the log was handed over under `assignment`.
    pub(super) fn ended(&mut self, assignment: Assignment) -> bool {
        let is_own = self.source.assignment == Some(assignment);
        self.is_whole |= is_own;
        self.settle();
        is_own
    }

    /// Whether there is more to read.
    pub(super) fn wants_reading(&self) -> bool {
        !self.is_whole && self.source.assignment.is_none() && self.source.phase == Phase::Routing
    }

    /// Notes that all is begun, once it is: what nobody wanted at the end is done then, too.
    pub(super) fn settle(&mut self) {
        // One that is given up has dropped what it had read.
        let is_routing = self.source.phase == Phase::Routing;
        if is_routing && self.is_whole && !self.is_begun && self.source.has_begun_all() {
            self.is_begun = true;
            self.source.window.extend(self.until);
        }
    }

    /// Reads nothing more: what was begun is the end.
    pub(super) fn cut(&mut self) {
        if self.is_cut {
            return;
        }
        self.is_cut = true;
        self.until = self.until.min(self.source.cut_backlog());
        self.is_whole = true;
        self.settle();
    }

    /// A write has failed; what is not acknowledged is read again.
    pub(super) fn rewound(&mut self) {
        self.is_whole = false;
        self.is_begun = false;
    }

    /// Whether it ends before its time.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether everything is on `deliveries`.
    pub(super) fn is_over(&self) -> bool {
        self.is_begun && self.source.window.is_settled() && self.reached() >= self.until
    }

    /// Everything below is on `deliveries`, as far as it is in anybody's range.
    pub(super) fn reached(&self) -> i64 {
        self.source.read_from()
    }

    /// Whether this is the last chance to say how far it is.
    pub(super) fn is_ending(&self) -> bool {
        self.is_over() || self.source.phase == Phase::Draining
    }

    /// Whether more is on `deliveries` than is on record. Whoever got nothing may be behind until
    /// the end.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.is_any(self.reached(), self.is_ending())
    }

    /// How far the subscription of this range is.
    pub(super) fn replayed(&self, range: &Range<i64>) -> i64 {
        self.reached().clamp(range.start, range.end)
    }

    /// Notes that it is on record how far it is, if it was this pass.
    pub(super) fn saved(&mut self, saved: Saved) {
        if self.number == saved.pass {
            self.unsaved.saved(saved);
            self.source.committed(saved.to);
        }
    }
}
