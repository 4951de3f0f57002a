//! Owns what is put on record of how far replays are: when, and of whom.
//!
//! It must never say more than is on `deliveries`. The surprise: of a subscription for which nothing
//! was written since the last time, nothing is said most times, however far it is. That costs whoever
//! takes over some reading, and repeats nothing; a thousand that read together and want little would
//! be a thousand records a second.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::log::Partition;
use schemas::ids::SubscriptionId;
use tokio::time::Instant;

use super::super::Router;
use super::super::source::{Load, Phase};
use super::book::Known;
use super::idle;
use super::passing::UNSAVED_MAX;

/// How far those are that got something is put on record at least so often, …
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(1);
/// … and how far all are.
const SAVE_ALL_EVERY: Duration = Duration::from_secs(10);

/// How far a pass was put on record.
#[derive(Debug, Clone, Copy)]
pub(in crate::routing) struct Saved {
    /// The pass's number.
    pub(super) pass: u64,
    /// Of everybody who got something below this offset.
    pub(super) to: i64,
    /// Of all others, too.
    pub(super) is_whole: bool,
}

/// What a pass has written and not put on record.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// Whatever was written below is on record.
    from: i64,
    /// Somebody is further than that is on record, and got nothing.
    is_partial: bool,
    /// The first and the last event that was written for each since.
    written: BTreeMap<SubscriptionId, (i64, i64)>,
    /// Dead letters were written up to this offset: whose, is not looked at.
    dead_to: Option<i64>,
    /// When all was put on record.
    whole_at: Instant,
}

// === impl Unsaved ===

impl Unsaved {
    /// Nothing, of a pass that begins at `from`.
    pub(super) fn new(from: i64, now: Instant) -> Self {
        Self {
            from,
            is_partial: false,
            written: BTreeMap::new(),
            dead_to: None,
            whole_at: now,
        }
    }

    /// Notes that `load`, of events below `next`, was handed to the producer.
    pub(super) fn wrote(&mut self, load: &Load, next: i64) {
        for (offset, subscription) in load.past() {
            let span = self.written.entry(*subscription);
            let span = span.or_insert((*offset, *offset));
            // Written again after a failure, it is further back.
            *span = (span.0.min(*offset), span.1.max(*offset));
        }
        if load.has_dead() {
            self.dead_to = Some(next);
        }
    }

    /// Whether there is anything to put on record of a pass that has reached that far.
    pub(super) fn is_any(&self, reached: i64, is_ending: bool) -> bool {
        reached > self.from || (is_ending && self.is_partial)
    }

    /// Whether all is to be put on record.
    fn is_whole_due(&self, now: Instant) -> bool {
        self.dead_to.is_some() || now >= self.whole_at + SAVE_ALL_EVERY
    }

    /// Whether something below `to` was written for the subscription.
    fn has_below(&self, subscription: SubscriptionId, to: i64) -> bool {
        let span = self.written.get(&subscription);
        span.is_some_and(|(first, _)| *first < to)
    }

    /// Notes what is on record.
    pub(super) fn saved(&mut self, saved: Saved) {
        self.from = saved.to;
        self.is_partial = !saved.is_whole;
        self.dead_to.take_if(|to| *to <= saved.to);
        self.written.retain(|_, (first, last)| {
            *first = (*first).max(saved.to);
            *last >= saved.to
        });
    }
}

// === impl Router ===

impl Router {
    /// Puts on record how far a pass is, when that is due.
    pub(super) fn save(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let is_draining = self
            .sources
            .get(partition)
            .is_none_or(|source| source.phase == Phase::Draining);
        let replays = &mut self.replays;
        let Some(aside) = idle(&mut replays.asides, partition) else {
            return;
        };
        let Some(pass) = aside.pass.as_mut().filter(|pass| pass.is_unsaved()) else {
            return;
        };
        let is_last = is_draining || pass.is_ending();
        let is_due = is_last
            || now >= aside.saved_at + SAVE_EVERY
            || pass.source.window.uncommitted_targets() >= UNSAVED_MAX / 2;
        if !is_due {
            return;
        }
        aside.saved_at = now;
        let is_all = is_last || pass.unsaved.is_whole_due(now);
        if is_all {
            pass.unsaved.whole_at = now;
        }
        let mut saved = Saved {
            pass: pass.number,
            to: pass.reached(),
            is_whole: true,
        };
        let mut notes = Vec::new();
        for (id, range) in &pass.ranges {
            let Some(known) = aside
                .book
                .get(*id)
                .filter(|_| replays.starts.get(*id).is_some())
            else {
                continue;
            };
            let to = pass.replayed(range);
            if to <= known.replayed_to {
                continue;
            }
            if is_all || to == range.end || pass.unsaved.has_below(*id, to) {
                let known = Known {
                    replayed_to: to,
                    done: known.offset == Some(to),
                    ..*known
                };
                notes.push(aside.book.record(*id, known, &aside.writer));
            } else {
                saved.is_whole = false;
            }
        }
        if notes.is_empty() {
            pass.saved(saved);
        } else {
            self.note(partition, notes, Some(saved));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> SubscriptionId {
        SubscriptionId::from_bits(u128::from(number))
    }

    #[tokio::test(start_paused = true)]
    async fn all_is_due_after_a_dead_letter_and_after_a_while() {
        let now = Instant::now();
        let mut unsaved = Unsaved::new(5, now);
        assert!(!unsaved.is_any(5, true));
        assert!(unsaved.is_any(6, false));
        let saved = |to, is_whole| Saved {
            pass: 1,
            to,
            is_whole,
        };
        unsaved.saved(saved(6, false));
        assert!(!unsaved.is_any(6, false));
        assert!(unsaved.is_any(6, true), "whoever got nothing is behind");
        assert!(!unsaved.is_whole_due(now));
        assert!(unsaved.is_whole_due(now + SAVE_ALL_EVERY));
        unsaved.dead_to = Some(9);
        unsaved.saved(saved(8, true));
        assert!(unsaved.is_whole_due(now), "it may be above");
        unsaved.saved(saved(9, true));
        assert!(!unsaved.is_whole_due(now));
    }

    proptest! {
        /// Whoever got an event that is below what is saved, and not yet on record, is told of.
        #[test]
        fn nobody_who_got_something_is_left_out(
            steps in prop::collection::vec((0_u8..3, any::<bool>(), 0_i64..4), 1..60),
        ) {
            let now = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
                .block_on(async { Instant::now() });
            let mut unsaved = Unsaved::new(0, now);
            let (mut next, mut reached) = (0_i64, 0_i64);
            // Each event that is written, and whether it is on record.
            let mut events: Vec<(u8, i64)> = Vec::new();
            for (who, saves, ahead) in steps {
                unsaved.wrote(&Load::of_past(&[(next, id(who))]), next + 1);
                events.push((who, next));
                next += 1;
                reached = reached.max(next - ahead);
                if saves {
                    for who in 0..3 {
                        let own = || events.iter().filter(|(to, _)| *to == who);
                        let is_told = unsaved.has_below(id(who), reached);
                        prop_assert!(is_told || !own().any(|(_, at)| *at < reached));
                        prop_assert!(!is_told || own().count() > 0);
                    }
                    events.retain(|(_, at)| *at >= reached);
                    unsaved.saved(Saved { pass: 1, to: reached, is_whole: false });
                }
            }
        }
    }
}
