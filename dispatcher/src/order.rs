//! Owns the order of deliveries within a key (rule 12): which of a key's deliveries may be
//! attempted, which wait behind it, and what a transaction says of a blocked key.
//!
//! Pure: it never attempts, sleeps or writes. A key is *blocked* when its head went to a delay
//! topic: whatever follows gets the next sequence and goes there too, and only the head may be
//! attempted. The surprise: keys share a fixed number of *lines* for each endpoint, so that the
//! state of blocked keys has a bound by itself; at the bound every line is blocked, and all
//! deliveries of the endpoint are deferred while its partition goes on.

mod block;
mod line;

use std::collections::BTreeSet;

use hashbrown::HashMap;
use schemas::ids::EndpointId;
use schemas::resources::Quota;
use tokio::time::Instant;

use crate::ledger::Place;

pub(crate) use block::{Block, Step, StepKind};

use line::{Kept, Kind, Line};

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
    /// Lines in which something is kept, in an order that is always the same.
    keeping: BTreeSet<Key>,
}

/// The line of an ordered endpoint's key.
pub(crate) fn line_of(quota: Quota, endpoint: EndpointId, key: u64) -> Key {
    // The hash's low bits choose the line, the rest of the number names the endpoint.
    let hash = first_line(endpoint) + key % LINES;
    Key { quota, hash }
}

/// Whether the line is of this endpoint, whose quota it names.
pub(crate) fn is_line_of(endpoint: EndpointId, key: &Key) -> bool {
    first_line(endpoint) == key.hash / LINES * LINES
}

fn first_line(endpoint: EndpointId) -> u64 {
    let bits = endpoint.bits();
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    let (low, high) = (half(bits), half(bits >> 64));
    let of_endpoint = (low ^ high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    of_endpoint / LINES * LINES
}

// === impl Book ===

impl<T> Book<T> {
    /// An empty book of deliveries that take so many bytes.
    pub(crate) fn new(weight: fn(&T) -> usize) -> Self {
        Self {
            weight,
            kept: HashMap::new(),
            lines: HashMap::new(),
            keeping: BTreeSet::new(),
        }
    }

    /// Takes over what a predecessor committed.
    pub(crate) fn load(&mut self, key: Key, block: Block) {
        if block.is_free() {
            self.lines.remove(&key);
        } else {
            self.lines.insert(key, Line::of(block));
        }
    }

    /// Whether there is such a line.
    pub(crate) fn has(&self, such: impl FnMut(&Key) -> bool) -> bool {
        self.lines.keys().any(such)
    }

    /// Forgets the lines at rest of which nobody is known, and says which they were.
    pub(crate) fn forget(&mut self, is_known: impl Fn(&Key) -> bool) -> Vec<Key> {
        let unknown = self
            .lines
            .extract_if(|key, line| line.is_at_rest() && !is_known(key));
        unknown.map(|(key, _)| key).collect()
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
        line.ends += 1;
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
        self.spill_some(key, |line| line.spill(key, at))
    }

    /// The part of what is kept whose turn comes last, for what has just been kept beyond the bound.
    pub(crate) fn shed(&mut self, key: &Key, at: Moment) -> Vec<Behind<T>> {
        self.spill_some(key, |line| {
            if !line.fresh.is_empty() {
                return line.spill_fresh(key, at);
            }
            let last = line.parked.pop_last();
            let last = last.map(|(sequence, kept)| line.behind(key, sequence, kept, at));
            last.into_iter().collect()
        })
    }

    /// What is kept since `before` or longer and whose turn does not come soon; all of it where no
    /// turn has ended since then.
    pub(crate) fn spill_overdue(
        &mut self,
        key: &Key,
        before: Instant,
        at: Moment,
    ) -> Vec<Behind<T>> {
        self.spill_some(key, |line| {
            if line.stands_since(at.now) <= before {
                return line.spill(key, at);
            }
            let mut behind = Vec::new();
            let turns = u64::try_from(NEAR_MS / at.pace_ms.max(1)).unwrap_or(0);
            for (sequence, kept) in line.parked.split_off(&line.head.saturating_add(turns)) {
                behind.push(line.behind(key, sequence, kept, at));
            }
            if line.fresh.front().is_some_and(|kept| kept.since <= before) {
                behind.extend(line.spill_fresh(key, at));
            }
            behind
        })
    }

    fn spill_some(
        &mut self,
        key: &Key,
        spill: impl FnOnce(&mut Line<T>) -> Vec<Behind<T>>,
    ) -> Vec<Behind<T>> {
        let Some(line) = self.lines.get_mut(key) else {
            return Vec::new();
        };
        let behind = spill(line);
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

#[cfg(test)]
mod tests;
