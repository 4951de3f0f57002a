//! Owns a window that holds at any moment: never more than the count in any span of its length.
//!
//! It remembers each moment at which something was spent, up to [`EXACT_MAX`]; of larger counts it
//! remembers spans, and gives each back when its last moment leaves the window: late by a 1,000th of
//! the length at most, and never early.

use std::collections::VecDeque;

/// The largest count of which each moment is remembered.
const EXACT_MAX: u64 = 1_024;
/// About the most spans of a larger count: what arrives late stands in spans of its own.
const SPANS_MAX: u64 = 1_024;
/// The most spans that are saved.
const SAVED_SPANS_MAX: u64 = 64;

/// What was spent in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    first: u64,
    /// The last moment: what is given back, is given back one length after it.
    pub(super) last: u64,
    pub(super) spent: u64,
}

/// Counts against a sliding window. Times are unix nanoseconds.
#[derive(Debug)]
pub(super) struct Sliding {
    count: u64,
    per: u64,
    /// How much time one span takes in.
    grain: u64,
    spans: VecDeque<Span>,
    spent: u64,
}

impl Sliding {
    pub(super) fn new(count: u64, per: u64) -> Self {
        let grain = if count <= EXACT_MAX {
            0
        } else {
            per.div_ceil(SPANS_MAX - 2)
        };
        Self {
            count,
            per,
            grain,
            spans: VecDeque::new(),
            spent: 0,
        }
    }

    /// Whether `n` are free, and from when on.
    pub(super) fn check(&mut self, now: u64, n: u64) -> Result<(), u64> {
        self.forget(now);
        let mut over = (self.spent + n).saturating_sub(self.count);
        if over == 0 {
            return Ok(());
        }
        for span in &self.spans {
            over = over.saturating_sub(span.spent);
            if over == 0 {
                return Err(span.last.saturating_add(self.per).max(now + 1));
            }
        }
        // More than the window holds when it is empty.
        Err(now.saturating_add(super::WINDOW_MAX_NS))
    }

    /// Counts `n` as spent, free or not.
    pub(super) fn charge(&mut self, now: u64, n: u64) {
        if n == 0 {
            return;
        }
        self.forget(now);
        self.spent += n;
        match self.spans.back_mut() {
            Some(span) if now <= span.first.saturating_add(self.grain) => {
                span.last = span.last.max(now);
                span.spent += n;
            }
            Some(_) | None => self.spans.push_back(Span {
                first: now,
                last: now,
                spent: n,
            }),
        }
    }

    /// What was spent at `from` may count at `to` only, which is later and not to come.
    pub(super) fn put_off(&mut self, from: u64, to: u64, n: u64) {
        let at = self.spans.partition_point(|span| span.last < from);
        let Some(span) = self.spans.get_mut(at) else {
            return;
        };
        if span.first > from || span.spent < n {
            // It was merged or saved since, and counts late already.
            return;
        }
        span.spent -= n;
        if span.spent == 0 {
            self.spans.remove(at);
        }
        let next = self.spans.partition_point(|span| span.first <= to);
        let before = next.checked_sub(1).and_then(|at| self.spans.get_mut(at));
        if let Some(span) = before.filter(|span| to <= span.first.saturating_add(self.grain)) {
            span.last = span.last.max(to);
            span.spent += n;
            return;
        }
        match self.spans.get_mut(next) {
            Some(span) if span.last <= to.saturating_add(self.grain) => {
                span.first = to;
                span.spent += n;
            }
            Some(_) | None => self.spans.insert(
                next,
                Span {
                    first: to,
                    last: to,
                    spent: n,
                },
            ),
        }
    }

    /// How many are free now.
    pub(super) fn room(&mut self, now: u64) -> u64 {
        self.forget(now);
        self.count.saturating_sub(self.spent)
    }

    /// What is still in the window, in few spans, each as late as its last moment.
    pub(super) fn saved(&mut self, now: u64) -> Vec<Span> {
        self.forget(now);
        let grain = self.per.div_ceil(SAVED_SPANS_MAX - 2);
        let mut saved: Vec<Span> = Vec::new();
        for span in &self.spans {
            match saved.last_mut() {
                Some(into) if span.last <= into.first.saturating_add(grain) => {
                    into.last = span.last;
                    into.spent += span.spent;
                }
                Some(_) | None => saved.push(*span),
            }
        }
        saved
    }

    fn forget(&mut self, now: u64) {
        while let Some(span) = self.spans.front()
            && span.last.saturating_add(self.per) <= now
        {
            self.spent -= span.spent;
            self.spans.pop_front();
        }
    }

    #[cfg(test)]
    pub(super) fn spans(&self) -> usize {
        self.spans.len()
    }
}
