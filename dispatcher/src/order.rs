//! Owns the order of deliveries within a key (rule 12): which of a key's deliveries may be
//! attempted, which wait behind it, and what a transaction says of a blocked key.
//!
//! Pure: it never attempts, sleeps or writes. A key is *blocked* when its head went to a delay
//! topic: whatever follows gets the next sequence and goes there too, and only the head may be
//! attempted. The surprise: keys share a fixed number of *lines* for each endpoint, so that the
//! state of blocked keys has a bound by itself; at the bound every line is blocked, and all
//! deliveries of the endpoint are deferred while its partition goes on.

mod block;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::{HashMap, HashSet};
use schemas::ids::EndpointId;
use schemas::resources::Quota;
use tokio::time::Instant;

use crate::ledger::Place;

pub(crate) use block::{Block, Step, StepKind};

use block::skipped;

/// Lines of one endpoint: keys that share one wait for each other.
pub(crate) const LINES: u64 = 1_024;
/// What waits behind a head that is due within this is kept in memory, milliseconds.
const NEAR_MS: i64 = 5_000;
/// What waits behind many others is looked at again after this time at the latest, milliseconds.
const WAIT_MS_MAX: i64 = 6 * 3_600_000;
/// A sequence that has not come back so long after it was due never will: no delivery lives longer.
const LOST_AFTER_MS: i64 = 5 * 24 * 3_600_000;

/// A line of an endpoint's keys: what is strictly ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) quota: Quota,
    pub(crate) hash: u64,
}

/// When something happens to a line, and how long its deliveries take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// Unix milliseconds.
    pub(crate) wall: i64,
    /// About how long one delivery takes, milliseconds.
    pub(crate) pace_ms: i64,
}

/// What becomes of a delivery that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived<T> {
    /// It may be attempted.
    Go(T),
    /// It is kept here until those before it have ended.
    Kept,
    /// It waits for others in a delay topic.
    Behind(Behind<T>),
    /// Its sequence has ended: it is out of any order.
    Late(T),
}

/// A delivery that goes behind its line's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind<T> {
    pub(crate) item: T,
    /// Not before this, unix milliseconds.
    pub(crate) due_at: i64,
    pub(crate) step: Step,
}

/// How the end of an attempted delivery is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending<T> {
    /// What goes with its move; `None` where completing its place says all.
    pub(crate) step: Option<Step>,
    /// Whose turn it is.
    pub(crate) next: Option<T>,
}

/// All ordered lines of one placement.
#[derive(Debug)]
pub(crate) struct Book<T> {
    /// How many bytes a delivery takes.
    weight: fn(&T) -> usize,
    /// Bytes kept of each lane.
    kept: HashMap<Quota, usize>,
    lines: HashMap<Key, Line<T>>,
    /// Lines in which something is kept.
    keeping: HashSet<Key>,
}

/// A delivery of a line that is with its lane or attempted.
#[derive(Debug, Clone, Copy)]
struct Out {
    /// 0 for one that never was deferred.
    sequence: u64,
    place: Place,
    /// It got its sequence where it was read in `deliveries`.
    is_left: bool,
    /// Its end is known and not yet committed.
    ends: bool,
}

#[derive(Debug)]
struct Kept<T> {
    item: T,
    place: Place,
    since: Instant,
}

#[derive(Debug)]
struct Line<T> {
    /// What is committed.
    durable: Block,
    /// As it is when every move that is queued is committed.
    head: u64,
    next: u64,
    ended: BTreeSet<u64>,
    due_at: i64,
    out: Option<Out>,
    /// Deliveries with a sequence, in memory until it is theirs.
    parked: BTreeMap<u64, Kept<T>>,
    /// Deliveries without one, in order.
    fresh: VecDeque<Kept<T>>,
    /// Moves whose transaction is not yet committed.
    moves: usize,
}

/// The line of an ordered endpoint's key.
pub(crate) fn line_of(quota: Quota, endpoint: EndpointId, key: u64) -> Key {
    let bits = endpoint.bits();
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    let (low, high) = (half(bits), half(bits >> 64));
    let of_endpoint = (low ^ high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The hash's low bits choose the line, the rest of the number names the endpoint.
    let hash = of_endpoint / LINES * LINES + key % LINES;
    Key { quota, hash }
}

// === impl Book ===

impl<T> Book<T> {
    /// An empty book of deliveries that take so many bytes.
    pub(crate) fn new(weight: fn(&T) -> usize) -> Self {
        Self {
            weight,
            kept: HashMap::new(),
            lines: HashMap::new(),
            keeping: HashSet::new(),
        }
    }

    /// Takes over what a predecessor committed.
    pub(crate) fn load(&mut self, key: Key, block: Block) {
        if !block.is_free() {
            self.lines.insert(key, Line::of(block));
        }
    }

    /// How many bytes are kept of a lane.
    pub(crate) fn kept_bytes(&self, quota: &Quota) -> usize {
        self.kept.get(quota).copied().unwrap_or(0)
    }

    /// How many lines there are, blocked or at work.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// A delivery is read: with its sequence from a delay topic, without one from `deliveries`.
    pub(crate) fn arrive(
        &mut self,
        key: &Key,
        (sequence, place): (Option<u64>, Place),
        item: T,
        at: Moment,
    ) -> Arrived<T> {
        let weight = (self.weight)(&item);
        let line = self
            .lines
            .entry(key.clone())
            .or_insert_with(|| Line::of(Block::default()));
        let kept = Kept {
            item,
            place,
            since: at.now,
        };
        let was_left = sequence.is_none() && line.is_left_at(place);
        let sequence = sequence.or_else(|| was_left.then_some(line.head));
        let arrived = match sequence {
            Some(sequence) => line.arrive_again(key, sequence, kept, at),
            None => line.arrive_fresh(key, kept, at),
        };
        if arrived == Kind::Kept {
            self.keeping.insert(key.clone());
            *self.kept.entry(key.quota.clone()).or_default() += weight;
        }
        match arrived {
            Kind::Kept => Arrived::Kept,
            Kind::Go(kept) => Arrived::Go(kept.item),
            Kind::Late(kept) => Arrived::Late(kept.item),
            Kind::Behind(behind) => Arrived::Behind(behind),
        }
    }

    /// The delivery whose turn it is goes to a delay topic, due at `due_at`; what is kept behind it
    /// is to be [spilled](Self::spill).
    pub(crate) fn deferred(&mut self, key: &Key, due_at: i64) -> Option<Step> {
        let line = self.lines.get_mut(key)?;
        let out = line.out.take()?;
        if out.sequence == 0 {
            line.head = line.next;
            line.next += 1;
        }
        line.due_at = due_at;
        line.moves += 1;
        Some(line.step(key, line.head, StepKind::Deferred(due_at), None))
    }

    /// The delivery whose turn it is was delivered.
    pub(crate) fn delivered(&mut self, key: &Key) -> Ending<T> {
        self.ending(key, false)
    }

    /// The delivery whose turn it is becomes a dead letter.
    pub(crate) fn dead(&mut self, key: &Key) -> Ending<T> {
        self.ending(key, true)
    }

    fn ending(&mut self, key: &Key, is_dead: bool) -> Ending<T> {
        let none = Ending {
            step: None,
            next: None,
        };
        let Some(line) = self.lines.get_mut(key) else {
            return none;
        };
        let Some(out) = &mut line.out else {
            return none;
        };
        let ending = match (out.sequence, is_dead) {
            (0, false) => {
                line.out = None;
                Ending {
                    step: None,
                    next: line.take_fresh(),
                }
            }
            // What follows waits until its end is committed: it might be attempted again.
            (0, true) => {
                out.ends = true;
                line.moves += 1;
                Ending {
                    step: Some(line.step(key, 0, StepKind::Ended, None)),
                    next: None,
                }
            }
            (sequence, _) => {
                line.out = None;
                line.moves += 1;
                let step = line.step(key, sequence, StepKind::Ended, None);
                line.end(sequence);
                Ending {
                    step: Some(step),
                    next: line.take_parked(),
                }
            }
        };
        self.let_go(key, ending.next.as_ref());
        self.tidy(key);
        ending
    }

    /// What is kept in this line, with sequences, to be deferred behind its head.
    pub(crate) fn spill(&mut self, key: &Key, at: Moment) -> Vec<Behind<T>> {
        let Some(line) = self.lines.get_mut(key) else {
            return Vec::new();
        };
        let behind = line.spill(key, at);
        if line.oldest().is_none() {
            self.keeping.remove(key);
        }
        self.let_go(key, behind.iter().map(|behind| &behind.item));
        behind
    }

    /// Lines in which something is kept since `before`, or longer.
    pub(crate) fn overdue(&self, before: Instant) -> Vec<Key> {
        let overdue = |key: &&Key| {
            let line = self.lines.get(*key);
            line.and_then(Line::oldest)
                .is_some_and(|since| since <= before)
        };
        self.keeping.iter().filter(overdue).cloned().collect()
    }

    /// The log refused to take a delivery that was to be deferred: it becomes a dead letter in the
    /// same move. Returns the step that goes with it now, and whose turn it is.
    pub(crate) fn refused(&mut self, step: &Step) -> (Step, Option<T>) {
        let ended = Step {
            kind: StepKind::Ended,
            ..step.clone()
        };
        let Some(line) = self.lines.get_mut(&step.key) else {
            return (ended, None);
        };
        line.end(step.sequence);
        let next = line.take_parked();
        self.let_go(&step.key, next.as_ref());
        self.tidy(&step.key);
        (ended, next)
    }

    /// What is committed of a line.
    pub(crate) fn durable(&self, key: &Key) -> Block {
        let line = self.lines.get(key);
        line.map(|line| line.durable.clone()).unwrap_or_default()
    }

    /// A move of the line is committed. Returns whose turn it is, where that waited for it.
    pub(crate) fn committed(&mut self, step: &Step) -> Option<T> {
        let line = self.lines.get_mut(&step.key)?;
        line.moves = line.moves.saturating_sub(1);
        if step.sequence > 0 {
            line.durable.apply(step);
        } else {
            line.out = line.out.filter(|out| !out.ends);
        }
        let next = line.take_fresh();
        self.let_go(&step.key, next.as_ref());
        self.tidy(&step.key);
        next
    }

    /// What was kept is kept no longer.
    fn let_go<'i>(&mut self, key: &Key, items: impl IntoIterator<Item = &'i T>)
    where
        T: 'i,
    {
        let bytes: usize = items.into_iter().map(self.weight).sum();
        if let Some(kept) = self.kept.get_mut(&key.quota).filter(|_| bytes > 0) {
            *kept = kept.saturating_sub(bytes);
            if *kept == 0 {
                self.kept.remove(&key.quota);
            }
        }
    }

    /// Forgets a line of which nothing is left.
    fn tidy(&mut self, key: &Key) {
        let Some(line) = self.lines.get(key) else {
            return;
        };
        if line.oldest().is_none() {
            self.keeping.remove(key);
            if line.is_open() && line.out.is_none() {
                self.lines.remove(key);
            }
        }
    }
}

/// [`Arrived`] with what a line keeps.
enum Kind<T> {
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

// === impl Line ===

impl<T> Line<T> {
    fn of(durable: Block) -> Self {
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
        }
    }

    /// Whether nothing is blocked, and everybody knows it.
    fn is_open(&self) -> bool {
        self.head == self.next && self.moves == 0 && self.durable.is_free()
    }

    fn is_left_at(&self, place: Place) -> bool {
        self.durable.at == Some(place) && self.durable.head == self.head && self.out.is_none()
    }

    fn oldest(&self) -> Option<Instant> {
        let parked = self.parked.values().map(|kept| kept.since);
        parked
            .chain(self.fresh.front().map(|kept| kept.since))
            .min()
    }

    fn arrive_again(&mut self, key: &Key, sequence: u64, kept: Kept<T>, at: Moment) -> Kind<T> {
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
            None if sequence == self.head => {
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

    fn arrive_fresh(&mut self, key: &Key, kept: Kept<T>, at: Moment) -> Kind<T> {
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

    fn go_out(&mut self, sequence: u64, kept: &Kept<T>) {
        self.out = Some(Out {
            sequence,
            place: kept.place,
            is_left: false,
            ends: false,
        });
    }

    fn behind(&mut self, key: &Key, sequence: u64, kept: Kept<T>, at: Moment) -> Behind<T> {
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

    fn step(&self, key: &Key, sequence: u64, kind: StepKind, at: Option<(u64, Place)>) -> Step {
        Step {
            key: key.clone(),
            sequence,
            floor: if sequence == 0 { 0 } else { self.head },
            at,
            kind,
        }
    }

    fn spill(&mut self, key: &Key, at: Moment) -> Vec<Behind<T>> {
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
        for (sequence, kept) in std::mem::take(&mut self.parked) {
            behind.push(self.behind(key, sequence, kept, at));
        }
        for kept in std::mem::take(&mut self.fresh) {
            let sequence = self.next;
            self.next += 1;
            behind.push(self.behind(key, sequence, kept, at));
        }
        behind
    }

    /// `sequence` has ended, as far as this process knows.
    fn end(&mut self, sequence: u64) {
        if sequence == self.head {
            self.head = skipped(self.head + 1, &mut self.ended);
        } else if sequence > self.head {
            self.ended.insert(sequence);
        }
    }

    /// The next head, where it is in memory.
    fn take_parked(&mut self) -> Option<T> {
        if self.out.is_some() {
            return None;
        }
        let kept = self.parked.remove(&self.head)?;
        self.go_out(self.head, &kept);
        Some(kept.item)
    }

    /// The next fresh delivery, where nothing is blocked.
    fn take_fresh(&mut self) -> Option<T> {
        if !self.is_open() || self.out.is_some() {
            return None;
        }
        let kept = self.fresh.pop_front()?;
        self.go_out(0, &kept);
        Some(kept.item)
    }
}

#[cfg(test)]
mod tests;
