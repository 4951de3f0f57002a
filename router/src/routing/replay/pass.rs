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

use super::super::source::{Phase, Source};

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
    saved_to: i64,
}

impl Pass {
    /// A pass over `ranges`, of which there is at least one, by `source`, which begins at the
    /// first of them.
    pub(super) fn new(
        number: u64,
        source: Source,
        ranges: BTreeMap<SubscriptionId, Range<i64>>,
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
            saved_to: from,
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

    /// Whether more is on `deliveries` than is on record.
    pub(super) fn is_unsaved(&self) -> bool {
        self.reached() > self.saved_to
    }

    /// How far the subscription of this range is.
    pub(super) fn replayed(&self, range: &Range<i64>) -> i64 {
        self.reached().clamp(range.start, range.end)
    }

    /// Notes that everything below `to` is on record, for the pass of that number.
    pub(super) fn saved(&mut self, number: u64, to: i64) {
        if self.number == number {
            self.saved_to = to;
            self.source.committed(to);
        }
    }
}
