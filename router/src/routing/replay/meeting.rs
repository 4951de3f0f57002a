//! Owns what is to be passed over, and where an ordered replay meets the live position (rule 12).
//!
//! It must never let the live position stand still for longer than a moment: a replay that does not
//! meet it then tries again later. The surprise: it is the *live* events that wait; the last few
//! past ones are written, then the activation, and only then does the next live one begin.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use runtime::log::Partition;
use schemas::ids::SubscriptionId;
use tokio::time::Instant;

use super::super::Router;
use super::book::Known;
use super::starts::{self, Owed};
use super::{Aside, Replays};

/// An ordered replay this near to the live position meets it.
const MEET_OFFSETS: i64 = 512;
/// How long the live position may stand still for that, …
const MEET_MAX: Duration = Duration::from_secs(1);
/// … and how long it goes on before the next try.
const MEET_AGAIN: Duration = Duration::from_secs(10);
/// What is to be passed over.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ranges: BTreeMap<SubscriptionId, Range<i64>>,
    /// Ordered ones, by how far they are, that are near to the live position.
    pub(super) near: BTreeMap<SubscriptionId, i64>,
}

impl Replays {
    /// What `partition` owes now, where its live position is `next`.
    pub(super) fn plan(&self, partition: &Partition, next: i64) -> Plan {
        let mut plan = Plan::default();
        let aside = self.asides.get(partition);
        let Some(aside) = aside.filter(|_| self.rate.is_some()) else {
            return plan;
        };
        for id in &aside.open {
            let Some(subscription) = self.starts.get(*id) else {
                continue;
            };
            if self.starts.waits(subscription) {
                continue;
            }
            match starts::owed(subscription, aside.book.get(*id)) {
                Owed::Nothing | Owed::Activation => {}
                Owed::Past(range) => drop(plan.ranges.insert(*id, range)),
                Owed::Meeting(from) => {
                    if next.saturating_sub(from) <= MEET_OFFSETS {
                        plan.near.insert(*id, from);
                    }
                    if from < next {
                        plan.ranges.insert(*id, from..next);
                    }
                }
            }
        }
        plan
    }
}

impl Aside {
    /// Lets the live position go on where it has stood still for long enough.
    pub(super) fn give_up_meeting(&mut self, now: Instant) {
        if !self.is_deciding && self.meeting.is_some_and(|until| now >= until) {
            self.meeting = None;
            self.meet_again_at = Some(now + MEET_AGAIN);
        }
    }
}

impl Router {
    /// Lets ordered replays that are near meet the live position: it stands still, what is left is
    /// replayed, and then they are activated there.
    pub(super) fn meet(&mut self, partition: &Partition, plan: &Plan, next: i64) {
        let now = self.clock.instant();
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        if aside.is_deciding || plan.near.is_empty() {
            if !aside.is_deciding {
                aside.meeting = None;
            }
            return;
        }
        aside.give_up_meeting(now);
        if aside.meet_again_at.is_some_and(|at| now < at) {
            return;
        }
        aside.meeting.get_or_insert(now + MEET_MAX);
        if aside.is_busy || plan.near.values().any(|from| *from < next) {
            return;
        }
        let known = |id: &SubscriptionId| aside.book.get(*id).cloned();
        let met = plan.near.iter().filter_map(|(id, from)| {
            let offset = next.max(*from);
            let known = Known {
                offset: Some(offset),
                replayed_to: offset,
                done: true,
                ..known(id)?
            };
            Some((*id, known))
        });
        let met: Vec<_> = met.collect();
        self.decide(partition, met);
    }
}
