//! Owns what is known of a blocked line, and how each move of a transaction changes it.
//!
//! Steps are applied in the order in which they were made, each once: what a transaction leaves out
//! is not in the record that it writes.

use std::collections::BTreeSet;

use super::Key;
use crate::ledger::Place;

/// What is known of a blocked line: as committed, or with the moves of an open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// The sequence that may be attempted.
    pub(crate) head: u64,
    /// The sequence that is given next; equal to the head when nothing is blocked.
    pub(crate) tail: u64,
    /// When the head is due, unix milliseconds.
    pub(crate) due_at: i64,
    /// Where in `deliveries` the head still is, when what follows it was deferred before it.
    pub(crate) at: Option<Place>,
    /// Sequences behind the head that have ended: the log could not take them.
    pub(crate) ended: BTreeSet<u64>,
}

/// What a move does to a line, committed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: Key,
    pub(crate) sequence: u64,
    /// Sequences below it have ended.
    pub(super) floor: u64,
    /// The head that is still at its place, with its sequence.
    pub(super) at: Option<(u64, Place)>,
    pub(crate) kind: StepKind,
}

/// What a step does with its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// It goes to a delay topic, due then.
    Deferred(i64),
    /// It is delivered or dead.
    Ended,
}

impl Block {
    pub(crate) fn is_free(&self) -> bool {
        self.head == self.tail
    }

    /// The block after `step`.
    pub(crate) fn apply(&mut self, step: &Step) {
        let first = step.at.map_or(step.sequence, |(head, _)| head);
        if self.is_free() {
            *self = Self {
                head: first,
                tail: first,
                ..Self::default()
            };
        }
        if let Some((head, place)) = step.at
            && head == self.head
        {
            self.at = Some(place);
        }
        self.tail = self.tail.max(step.sequence + 1);
        if step.floor > self.head {
            self.advance_to(step.floor);
        }
        match step.kind {
            StepKind::Deferred(due_at) if step.sequence == self.head => {
                self.due_at = due_at;
                self.at = None;
            }
            StepKind::Deferred(_) => {}
            StepKind::Ended if step.sequence == self.head => self.advance_to(self.head + 1),
            StepKind::Ended if step.sequence > self.head => {
                self.ended.insert(step.sequence);
            }
            StepKind::Ended => {}
        }
        if self.is_free() {
            self.ended.clear();
        }
    }

    fn advance_to(&mut self, head: u64) {
        self.head = skipped(head, &mut self.ended);
        self.at = None;
        self.tail = self.tail.max(self.head);
    }
}

/// The first sequence from `head` on that has not ended.
pub(super) fn skipped(mut head: u64, ended: &mut BTreeSet<u64>) -> u64 {
    *ended = ended.split_off(&head);
    while ended.remove(&head) {
        head += 1;
    }
    head
}
