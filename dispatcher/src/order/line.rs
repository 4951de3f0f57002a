//! Owns one line: the delivery whose turn it is, and those that are kept behind it.
//!
//! It must never let two out at once, nor one that is fresh before all that were deferred have
//! ended and everybody knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use super::block::skipped;
use super::{Behind, Block, Key, LOST_AFTER_MS, Moment, NEAR_MS, Step, StepKind, WAIT_MS_MAX};
use crate::ledger::Place;
use crate::planted::{self, Bug};

/// A delivery of a line that is with its lane or attempted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    /// 0 for one that never was deferred.
    pub(super) sequence: u64,
    pub(super) place: Place,
    /// It got its sequence where it was read in `deliveries`.
    pub(super) is_left: bool,
    /// Its end is known and not yet committed.
    pub(super) ends: bool,
}

#[derive(Debug)]
pub(super) struct Kept<T> {
    pub(super) item: T,
    pub(super) place: Place,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Line<T> {
    /// What is committed.
    pub(super) durable: Block,
    /// As it is when every move that is queued is committed.
    pub(super) head: u64,
    pub(super) next: u64,
    pub(super) ended: BTreeSet<u64>,
    pub(super) due_at: i64,
    pub(super) out: Option<Out>,
    /// Deliveries with a sequence, in memory until it is theirs.
    pub(super) parked: BTreeMap<u64, Kept<T>>,
    /// Deliveries without one, in order.
    pub(super) fresh: VecDeque<Kept<T>>,
    /// Moves whose transaction is not yet committed.
    pub(super) moves: usize,
    /// Turns that have ended.
    pub(super) ends: u64,
    /// How many had at the last look, and when that was seen first.
    pub(super) stands: Option<(u64, Instant)>,
}

/// [`Arrived`] with what a line keeps.
pub(super) enum Kind<T> {
    Go(Kept<T>),
    Kept,
    Behind(Behind<T>),
    Late(Kept<T>),
}

impl<T> PartialEq for Kind<T> {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl<T> Line<T> {
    pub(super) fn of(durable: Block) -> Self {
        let free = durable.is_free();
        Self {
            head: if free { 1 } else { durable.head },
            next: if free { 1 } else { durable.tail },
            ended: durable.ended.clone(),
            due_at: durable.due_at,
            durable,
            out: None,
            parked: BTreeMap::new(),
            fresh: VecDeque::new(),
            moves: 0,
            ends: 0,
            stands: None,
        }
    }

    /// Whether nothing is blocked, and everybody knows it.
    pub(super) fn is_open(&self) -> bool {
        self.head == self.next && self.moves == 0 && self.durable.is_free()
    }

    /// Whether nothing of it is here, and no move of it is on its way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.out.is_none() && self.moves == 0 && self.parked.is_empty() && self.fresh.is_empty()
    }

    pub(super) fn is_left_at(&self, place: Place) -> bool {
        self.durable.at == Some(place) && self.durable.head == self.head && self.out.is_none()
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        let parked = self.parked.values().map(|kept| kept.since);
        parked
            .chain(self.fresh.front().map(|kept| kept.since))
            .min()
    }

    pub(super) fn arrive_again(
        &mut self,
        key: &Key,
        sequence: u64,
        kept: Kept<T>,
        at: Moment,
    ) -> Kind<T> {
        if self.head == self.next && self.out.is_none() {
            // Nothing is known of a block: what comes first is the head.
            self.head = self.head.max(sequence);
        }
        self.next = self.next.max(sequence + 1);
        if sequence < self.head || self.ended.contains(&sequence) {
            return Kind::Late(kept);
        }
        if sequence > self.head
            && self.out.is_none()
            && at.wall > self.due_at.saturating_add(LOST_AFTER_MS)
            && self.due_at > 0
        {
            self.head = skipped(sequence, &mut self.ended);
        }
        match self.out {
            None if sequence == self.head || planted::is(Bug::AttemptsNonHead) => {
                let is_left = self.is_left_at(kept.place);
                self.go_out(sequence, &kept);
                self.out = self.out.map(|out| Out { is_left, ..out });
                Kind::Go(kept)
            }
            Some(out) if out.sequence == sequence => Kind::Late(kept),
            None if self.due_at > at.wall + NEAR_MS => {
                Kind::Behind(self.behind(key, sequence, kept, at))
            }
            None | Some(_) if self.parked.contains_key(&sequence) => Kind::Late(kept),
            None | Some(_) => {
                self.parked.insert(sequence, kept);
                Kind::Kept
            }
        }
    }

    pub(super) fn arrive_fresh(&mut self, key: &Key, kept: Kept<T>, at: Moment) -> Kind<T> {
        if self.is_open() && self.out.is_none() && self.fresh.is_empty() {
            self.go_out(0, &kept);
            return Kind::Go(kept);
        }
        let waits_long = self.out.is_none() && self.due_at > at.wall + NEAR_MS;
        if waits_long && self.head < self.next && self.fresh.is_empty() {
            let sequence = self.next;
            self.next += 1;
            return Kind::Behind(self.behind(key, sequence, kept, at));
        }
        self.fresh.push_back(kept);
        Kind::Kept
    }

    pub(super) fn go_out(&mut self, sequence: u64, kept: &Kept<T>) {
        self.out = Some(Out {
            sequence,
            place: kept.place,
            is_left: false,
            ends: false,
        });
    }

    pub(super) fn behind(
        &mut self,
        key: &Key,
        sequence: u64,
        kept: Kept<T>,
        at: Moment,
    ) -> Behind<T> {
        let ahead = i64::try_from(sequence.saturating_sub(self.head)).unwrap_or(i64::MAX);
        let turn = ahead.saturating_mul(at.pace_ms).min(WAIT_MS_MAX);
        // When it may be its turn: sooner, it would be written again and again.
        let due_at = self.due_at.max(at.wall).saturating_add(turn);
        let due_at = due_at.max(at.wall + NEAR_MS);
        if sequence == self.head {
            self.due_at = due_at;
        }
        self.moves += 1;
        // A head that is still where it was read: its place says which sequence it has.
        let left = self
            .out
            .filter(|out| out.is_left)
            .map(|out| (out.sequence, out.place));
        Behind {
            item: kept.item,
            due_at,
            step: self.step(key, sequence, StepKind::Deferred(due_at), left),
        }
    }

    pub(super) fn step(
        &self,
        key: &Key,
        sequence: u64,
        kind: StepKind,
        at: Option<(u64, Place)>,
    ) -> Step {
        Step {
            key: key.clone(),
            sequence,
            floor: if sequence == 0 { 0 } else { self.head },
            at,
            kind,
        }
    }

    /// Since when no turn has ended, as far as was looked.
    pub(super) fn stands_since(&mut self, now: Instant) -> Instant {
        match self.stands {
            Some((ends, since)) if ends == self.ends => since,
            Some(_) | None => {
                self.stands = Some((self.ends, now));
                now
            }
        }
    }

    pub(super) fn spill(&mut self, key: &Key, at: Moment) -> Vec<Behind<T>> {
        if self.out.is_some_and(|out| out.ends) {
            // Its end is on its way; those behind it go once that is committed.
            return Vec::new();
        }
        let mut behind = Vec::new();
        for (sequence, kept) in std::mem::take(&mut self.parked) {
            behind.push(self.behind(key, sequence, kept, at));
        }
        behind.extend(self.spill_fresh(key, at));
        behind
    }

    pub(super) fn spill_fresh(&mut self, key: &Key, at: Moment) -> Vec<Behind<T>> {
        let mut behind = Vec::new();
        // A fresh head that is out gets its sequence before those behind it get theirs.
        if let Some(out) = self
            .out
            .as_mut()
            .filter(|out| out.sequence == 0 && !out.ends)
            && !self.fresh.is_empty()
        {
            out.sequence = self.next;
            out.is_left = true;
            self.head = self.next;
            self.next += 1;
        }
        if self.out.is_some_and(|out| out.ends) {
            // Its end is on its way; those behind it go once that is committed.
            return behind;
        }
        for kept in std::mem::take(&mut self.fresh) {
            let sequence = self.next;
            self.next += 1;
            behind.push(self.behind(key, sequence, kept, at));
        }
        behind
    }

    /// `sequence` has ended, as far as this process knows.
    pub(super) fn end(&mut self, sequence: u64) {
        if sequence == self.head {
            self.head = skipped(self.head + 1, &mut self.ended);
        } else if sequence > self.head {
            self.ended.insert(sequence);
        }
    }

    /// The next head, where it is in memory.
    pub(super) fn take_parked(&mut self) -> Option<T> {
        if self.out.is_some() {
            return None;
        }
        let kept = self.parked.remove(&self.head)?;
        self.go_out(self.head, &kept);
        Some(kept.item)
    }

    /// The next fresh delivery, where nothing is blocked.
    pub(super) fn take_fresh(&mut self) -> Option<T> {
        if !self.is_open() || self.out.is_some() {
            return None;
        }
        let kept = self.fresh.pop_front()?;
        self.go_out(0, &kept);
        Some(kept.item)
    }
}
