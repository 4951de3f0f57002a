//! Owns deletion: what is older than its topic keeps, what is more than the disk may hold, and the
//! tombstones of compacted topics.
//!
//! It must never take the last record of a compacted partition (its offset is where the partition
//! ends), and it works in slices so that nobody waits for it long. The surprise: it runs on the
//! writer's thread, which makes every deletion part of the one journal.

use std::sync::Arc;

use super::Shared;
use super::block::Block;
use super::slots::Slot;
use super::store::Tombstone;
use crate::clock::millis;
use crate::log::Error;

/// How long after a deletion its tombstone stays (Kafka's default).
const TOMBSTONE_MS: i64 = 24 * 3_600_000;
/// The blocks or tombstones that one slice removes at most.
const SLICE: usize = 1_024;
/// Between two looks, in milliseconds, where the last one found nothing more to do.
const EVERY_MS: i64 = 10_000;

/// Remembers when to look again.
#[derive(Debug)]
pub(super) struct Keeper {
    next_at: i64,
}

impl Keeper {
    /// A keeper that looks at once.
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            next_at: shared.options.clock.now(),
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, shared: &Shared) -> bool {
        shared.options.clock.now() >= self.next_at
    }

    /// One slice of work. Looks again at once if there is more.
    pub(super) fn keep(&mut self, shared: &Shared) -> Result<(), Error> {
        let now = shared.options.clock.now();
        let mut left = SLICE;
        self.expire(shared, now, &mut left)?;
        self.shrink(shared, &mut left)?;
        self.bury(shared, now, &mut left)?;
        self.next_at = if left == 0 {
            now
        } else {
            now.saturating_add(EVERY_MS)
        };
        Ok(())
    }

    /// Retention by time: a block goes when its last record is too old.
    fn expire(&self, shared: &Shared, now: i64, left: &mut usize) -> Result<(), Error> {
        let longest = millis(shared.options.retention);
        for topic in shared
            .topics
            .all()
            .iter()
            .filter(|topic| !topic.row.compact)
        {
            let kept = i64::try_from(topic.row.retention_ms)
                .unwrap_or(i64::MAX)
                .min(longest);
            let oldest = now.saturating_sub(kept);
            for slot in &topic.slots {
                let mut gone = Vec::new();
                for block in blocks(shared, slot).take(*left) {
                    let block = block?;
                    if block.last_timestamp >= oldest {
                        break;
                    }
                    gone.push(block);
                }
                *left = left.saturating_sub(gone.len());
                remove(shared, slot, &gone)?;
            }
        }
        Ok(())
    }

    /// Retention by bytes: the oldest block of all goes first.
    fn shrink(&self, shared: &Shared, left: &mut usize) -> Result<(), Error> {
        let mut heads = Vec::new();
        let mut kept: u64 = 0;
        for topic in shared
            .topics
            .all()
            .iter()
            .filter(|topic| !topic.row.compact)
        {
            for slot in &topic.slots {
                let mut blocks = blocks(shared, slot);
                if let Some(first) = blocks.next().transpose()? {
                    kept = kept.saturating_add(slot.state().appended.saturating_sub(first.before));
                    let slot = Arc::clone(slot);
                    heads.push(Head {
                        slot,
                        first: Some(first),
                        blocks,
                        gone: Vec::new(),
                    });
                }
            }
        }
        let mut excess = kept.saturating_sub(shared.options.retention_bytes);
        while excess > 0 && *left > 0 {
            let Some(head) = heads.iter_mut().min_by_key(|head| head.age()) else {
                break;
            };
            let Some(first) = head.first.take() else {
                break;
            };
            excess = excess.saturating_sub(first.bytes().len() as u64);
            *left -= 1;
            head.gone.push(first);
            head.first = head.blocks.next().transpose()?;
        }
        for head in heads {
            remove(shared, &head.slot, &head.gone)?;
        }
        Ok(())
    }

    /// Tombstones that everybody has had time to read.
    fn bury(&self, shared: &Shared, now: i64, left: &mut usize) -> Result<(), Error> {
        let store = &shared.store;
        let due = store.tombstones_before(now.saturating_sub(TOMBSTONE_MS), *left)?;
        let mut writes = store.batch();
        for tombstone in due {
            let Tombstone { slot, offset, .. } = tombstone;
            let current = store.last_of_key(slot, &tombstone.key)? == Some(offset);
            let last = store
                .block_at(slot, i64::MAX)?
                .is_some_and(|block| block.base == offset);
            if current && last {
                // Kept with its row: the next look asks again, whether or not it is still the last.
                continue;
            }
            if current {
                writes.remove_block(slot, offset);
                writes.forget_key(slot, &tombstone.key);
            }
            *left = left.saturating_sub(1);
            writes.forget_tombstone(tombstone);
        }
        if writes.is_empty() {
            Ok(())
        } else {
            writes.commit()
        }
    }
}

/// From the start on: before it there is nothing but what the store has yet to clean up.
fn blocks(shared: &Shared, slot: &Slot) -> impl Iterator<Item = Result<Block, Error>> + use<> {
    shared.store.blocks_from(slot.id, slot.bounds().start)
}

/// The oldest block that a partition still has, while the oldest of all are looked for.
struct Head<I> {
    slot: Arc<Slot>,
    first: Option<Block>,
    blocks: I,
    gone: Vec<Block>,
}

impl<I> Head<I> {
    fn age(&self) -> i64 {
        self.first
            .as_ref()
            .map_or(i64::MAX, |block| block.last_timestamp)
    }
}

/// Removes the first blocks of a partition; its start moves behind them, in the same write.
fn remove(shared: &Shared, slot: &Slot, gone: &[Block]) -> Result<(), Error> {
    let Some(last) = gone.last() else {
        return Ok(());
    };
    // First in memory: a reader that finds a block missing must find that the start has moved.
    slot.move_start(last.end());
    let mut writes = shared.store.batch();
    for block in gone {
        writes.remove_block(slot.id, block.base);
    }
    writes.start(slot.id, last.end());
    writes.commit()?;
    tracing::debug!(partition = %slot.partition, start = last.end(), "retention moved the start");
    Ok(())
}
