//! Owns the memory of what has been on a deliveries partition, so that what a router wrote twice is
//! sent once (rule 3).
//!
//! It drops by exact identity only, never by position or interval: where memory fails, the error is
//! a duplicate with the same id, not a loss. The surprise: a mark counts as a repeat only at a
//! higher offset than it was first seen at, so a record read again after a rewind is itself.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use schemas::ids::Mark;
use schemas::records::DeliveryRecord;

use crate::planted::{self, Bug};

/// How long a mark at or above its origin's position is kept, in milliseconds of append time.
const KEPT_MS: i64 = 10 * 60 * 1_000;
/// The most append time that a new owner reads again, in milliseconds.
const REPLAY_MS: i64 = 60_000;
/// The most bytes that a new owner reads again.
const REPLAY_BYTES: u64 = 64 << 20;
/// A checkpoint of offset, time and bytes is kept for each of these many bytes …
const CHECKPOINT_BYTES: u64 = 64 << 10;
/// … or milliseconds.
const CHECKPOINT_MS: i64 = 250;
/// What one mark takes in memory: its entry in the map (with the map's slack) and in the queue.
const MARK_BYTES: usize = 96;

#[derive(Debug, Clone, Copy)]
struct Marked {
    mark: Mark,
    /// Offset in the deliveries partition.
    offset: i64,
    /// Index into `origins`.
    origin: usize,
    origin_offset: i64,
    appended_at: i64,
}

#[derive(Debug)]
struct Origin {
    topic: Arc<str>,
    partition: u32,
    /// The position last carried (last, not highest); `None` while no record carried one.
    position: Option<i64>,
    /// The highest offset of it in a record with a position.
    highest: i64,
}

/// Ordered targets of which the log alone can say whether they are repeats (rule 12).
#[derive(Debug)]
pub struct Doubt {
    /// Their marks.
    pub marks: Vec<Mark>,
    /// When their event was accepted, unix milliseconds: they were not there before.
    pub accepted_at: i64,
    /// Where their event came from.
    pub origin: schemas::records::Origin,
}

#[derive(Debug, Clone, Copy)]
struct Checkpoint {
    offset: i64,
    appended_at: i64,
    bytes: u64,
}

/// The marks of one deliveries partition.
#[derive(Debug, Default)]
pub struct Marks {
    first_seen: HashMap<Mark, i64>,
    queue: VecDeque<Marked>,
    origins: Vec<Origin>,
    checkpoints: VecDeque<Checkpoint>,
    bytes_read: u64,
    newest_append: i64,
    replay: Option<Replay>,
    /// What the log said of the record last looked up.
    recalled: Vec<(Mark, i64)>,
}

/// What is read again for its marks: from an offset up to the position taken over.
#[derive(Debug, Clone, Copy)]
struct Replay {
    from: i64,
    until: i64,
}

impl Origin {
    fn is(&self, origin: &schemas::records::Origin) -> bool {
        self.partition == origin.partition && self.topic == origin.topic
    }
}

impl Marks {
    /// The marks of a partition that is read again from `from` up to its position, `until`.
    pub fn resume(from: i64, until: i64) -> Self {
        Self {
            replay: Some(Replay { from, until }),
            ..Self::default()
        }
    }

    /// Marks the targets of `record`, read at `offset` and appended at `appended_at` (unix
    /// milliseconds), and says for each whether it is a repeat to be dropped.
    pub fn admit(
        &mut self,
        record: &DeliveryRecord,
        offset: i64,
        appended_at: i64,
        bytes: usize,
    ) -> Vec<bool> {
        self.checkpoint(offset, appended_at, bytes as u64);
        if self.replay.is_some_and(|replay| offset >= replay.until) {
            self.replay = None;
        }
        let origin = self.origin(record);
        record
            .marks()
            .map(|mark| match self.first_seen.entry(mark) {
                Entry::Occupied(first) => *first.get() < offset,
                Entry::Vacant(unseen) => {
                    let recalled = self.recalled.iter().find(|(known, _)| *known == mark);
                    let first = recalled.map_or(offset, |(_, first)| *first);
                    unseen.insert(first);
                    let origin_offset = record.origin.offset;
                    self.queue.push_back(Marked {
                        mark,
                        offset,
                        origin,
                        origin_offset,
                        appended_at,
                    });
                    first < offset
                }
            })
            .collect()
    }

    /// What of `record` may be a repeat although its mark is not remembered: ordered targets that
    /// come after later events of their origin, written by a router that goes on there. `None` where
    /// there is no doubt.
    pub fn doubt(&self, record: &DeliveryRecord) -> Option<Doubt> {
        record.router_position?;
        let origin = self
            .origins
            .iter()
            .find(|origin| origin.is(&record.origin))?;
        if record.origin.offset >= origin.highest {
            return None;
        }
        let ordered = record
            .targets
            .iter()
            .zip(record.marks())
            .filter(|(target, _)| target.order.is_some());
        let marks: Vec<Mark> = ordered
            .map(|(_, mark)| mark)
            .filter(|mark| !self.first_seen.contains_key(mark))
            .collect();
        (!marks.is_empty()).then(|| Doubt {
            marks,
            accepted_at: record.accepted_at,
            origin: record.origin.clone(),
        })
    }

    /// Takes in where marks in doubt were first, of a record from `origin`. Where none was there, the
    /// origin has begun anew (a topic that was made again), and what follows is in no doubt.
    pub fn recall(&mut self, origin: &schemas::records::Origin, found: Vec<(Mark, i64)>) {
        if found.is_empty()
            && let Some(known) = self.origins.iter_mut().find(|known| known.is(origin))
        {
            known.highest = origin.offset;
        }
        self.recalled = found;
    }

    /// Forgets the oldest marks that are not mandatory until at most `budget` bytes are held beside
    /// the mandatory ones.
    pub fn shrink_to(&mut self, budget: usize) {
        if planted::is(Bug::MarksKeptShort) {
            self.queue.clear();
            self.first_seen.clear();
        }
        let allowed = budget / MARK_BYTES;
        if self.queue.len() <= allowed {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        let optional = queue.iter().filter(|marked| !self.is_mandatory(marked));
        let mut excess = optional.count().saturating_sub(allowed);
        queue.retain(|marked| {
            if excess == 0 || self.is_mandatory(marked) {
                return true;
            }
            excess -= 1;
            self.first_seen.remove(&marked.mark);
            false
        });
        self.queue = queue;
    }

    /// The lowest offset that a new owner must read again for a partition whose position is
    /// `position`; `None` when nothing below it matters.
    pub fn replay_from(&self, position: i64) -> Option<i64> {
        // Until the replay is over, this owner knows less than the text it found: another take-over
        // begins where this one did.
        if let Some(replay) = self.replay {
            return Some(replay.from).filter(|from| *from < position);
        }
        let lowest = self
            .queue
            .iter()
            .find(|marked| self.is_mandatory(marked))
            .map(|marked| marked.offset)?;
        let below = |checkpoint: &&Checkpoint| checkpoint.offset < position;
        let last_below = self.checkpoints.iter().rev().find(below);
        let floor = last_below.and_then(|last| {
            self.checkpoints.iter().find(|checkpoint| {
                checkpoint.appended_at >= last.appended_at - REPLAY_MS
                    && last.bytes - checkpoint.bytes.min(last.bytes) <= REPLAY_BYTES
            })
        });
        // A position so far behind that its checkpoints are gone has no floor: then the mark alone
        // says it, which the routers' windows keep near.
        let from = floor.map_or(lowest, |floor| lowest.max(floor.offset));
        Some(from).filter(|from| *from < position)
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.queue.len() * MARK_BYTES
    }

    /// The append time (unix milliseconds) of the oldest mark.
    pub fn oldest(&self) -> Option<i64> {
        self.queue.front().map(|marked| marked.appended_at)
    }

    fn is_mandatory(&self, marked: &Marked) -> bool {
        let position = self
            .origins
            .get(marked.origin)
            .and_then(|origin| origin.position);
        position.is_some_and(|position| marked.origin_offset >= position)
            && marked.appended_at >= self.newest_append - KEPT_MS
    }

    fn origin(&mut self, record: &DeliveryRecord) -> usize {
        let known = self
            .origins
            .iter()
            .position(|origin| origin.is(&record.origin));
        let at = known.unwrap_or_else(|| {
            self.origins.push(Origin {
                topic: record.origin.topic.clone(),
                partition: record.origin.partition,
                position: None,
                highest: i64::MIN,
            });
            self.origins.len() - 1
        });
        if let Some(origin) = self.origins.get_mut(at)
            && record.router_position.is_some()
        {
            origin.position = record.router_position;
            origin.highest = origin.highest.max(record.origin.offset);
        }
        at
    }

    fn checkpoint(&mut self, offset: i64, appended_at: i64, bytes: u64) {
        self.newest_append = self.newest_append.max(appended_at);
        let due = self.checkpoints.back().is_none_or(|last| {
            self.bytes_read - last.bytes >= CHECKPOINT_BYTES
                || appended_at - last.appended_at >= CHECKPOINT_MS
        });
        if due {
            let bytes = self.bytes_read;
            self.checkpoints.push_back(Checkpoint {
                offset,
                appended_at,
                bytes,
            });
        }
        self.bytes_read += bytes;
        // Twice the bound, because the position may lie behind what has been read.
        while self.checkpoints.front().is_some_and(|first| {
            self.bytes_read - first.bytes > 2 * REPLAY_BYTES
                || first.appended_at < self.newest_append - 2 * KEPT_MS
        }) {
            self.checkpoints.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
