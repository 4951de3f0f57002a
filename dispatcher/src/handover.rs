//! Owns what passes from one owner of a placement to the next: what the last one left, and which
//! lanes' state is not written yet.
//!
//! It never writes: the engine's transactions do. The surprise: a lane is made again and again, and
//! what was left counts for the first of them alone.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use runtime::log::{Assignment, Bounds, Committed};
use schemas::records::{
    DisabledProgress, EnabledProgress, LaneProgress, ProbationProgress, ProgressKey, Spent,
};
use schemas::resources::Quota;
use tokio::time::Instant;

use crate::lane::Lane;
use crate::limiter::Anchor;
use crate::order::Key;
use crate::probation::Version;

/// A placement's state between two owners.
#[derive(Debug)]
pub(crate) struct Handover {
    anchor: Anchor,
    taken_at: Instant,
    /// While `progress` is read.
    pub(crate) reading: Option<Reading>,
    /// Lanes that were left and have not been made yet.
    left: HashMap<Quota, LaneProgress>,
    /// Lanes of which `progress` holds a state.
    kept: HashSet<Quota>,
    /// Lanes whose state has changed since it was written, in an order that is always the same.
    unsaved: BTreeSet<Quota>,
    /// Blocked lines of which nothing is left but what `progress` says.
    freed: BTreeSet<Key>,
    /// Whether one of them waits for it.
    urgent: bool,
}

/// What was left of endpoints.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Those that were given up.
    pub(crate) disabled: Vec<DisabledProgress>,
    /// Those that came back.
    pub(crate) enabled: Vec<EnabledProgress>,
    /// Those that wait for a probe.
    pub(crate) probation: Vec<ProbationProgress>,
}

/// The reading of `progress` up to the mark of this take-over.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) assignment: Assignment,
    /// The offset of the mark: what lies before it is all that others left.
    pub(crate) until: i64,
    /// Each source's position and bounds, for when it is read.
    pub(crate) found: Vec<(Option<Committed>, Bounds)>,
}

impl Handover {
    pub(crate) fn new(now: Instant, wall: i64) -> Self {
        Self {
            anchor: Anchor::new(now, wall),
            taken_at: now,
            reading: None,
            left: HashMap::new(),
            kept: HashSet::new(),
            unsaved: BTreeSet::new(),
            freed: BTreeSet::new(),
            urgent: false,
        }
    }

    /// Takes in one record of `progress`.
    ///
    /// # Errors
    /// When it is a lane's and cannot be read.
    pub(crate) fn learn(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), schemas::records::Error> {
        let key = std::str::from_utf8(key).unwrap_or_default();
        match (key.parse(), value) {
            (Ok(ProgressKey::Lane(quota)), Some(value)) => {
                self.kept.insert(quota.clone());
                self.left.insert(quota, LaneProgress::decode(value)?);
            }
            (Ok(ProgressKey::Lane(quota)), None) => {
                self.left.remove(&quota);
                self.kept.remove(&quota);
            }
            // Others' keys share the topic.
            (Ok(ProgressKey::Order(..) | ProgressKey::Owner(_)) | Err(_), _) => {}
        }
        Ok(())
    }

    /// The placement is owned from now on, with all that was left known.
    pub(crate) fn begin(&mut self, now: Instant, wall: i64) {
        self.anchor = Anchor::new(now, wall);
        self.taken_at = now;
    }

    /// What was left of the endpoints of lanes that have not been made yet.
    pub(crate) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for left in self.left.values() {
            marks.disabled.extend(&left.disabled);
            marks.enabled.extend(&left.enabled);
            marks.probation.extend(&left.probation);
        }
        marks
    }

    /// Keeps what is true still of the marks that were left.
    pub(crate) fn keep_marks(&mut self, is_current: impl Fn(Version) -> bool) {
        for left in self.left.values_mut() {
            left.disabled
                .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
            left.enabled
                .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
            left.probation
                .retain(|mark| is_current((mark.endpoint, mark.updated_at)));
        }
    }

    /// Hands a new lane what was left of it.
    pub(crate) fn hand_over(&mut self, quota: &Quota, lane: &mut Lane) {
        lane.inherit(self.anchor, self.taken_at, self.left.remove(quota));
    }

    /// The state of this lane has changed: it goes with the next transaction, at once if `urgent`.
    pub(crate) fn mark(&mut self, quota: &Quota, urgent: bool) {
        if !self.unsaved.contains(quota) {
            self.unsaved.insert(quota.clone());
        }
        self.urgent |= urgent;
    }

    /// A lane is gone because a new one would be the same: so is what `progress` says of it.
    pub(crate) fn forget(&mut self, quota: &Quota) {
        if self.kept.contains(quota) {
            self.mark(quota, true);
        }
    }

    /// Drops what was left of lanes that nobody has asked for since, once a new lane would be the
    /// same.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.left.is_empty() {
            return;
        }
        let (wall, taken) = (self.anchor.unix_ms(now), self.anchor.unix_ms(self.taken_at));
        let over: Vec<Quota> = self
            .left
            .extract_if(|_, record| is_over(record, taken, wall))
            .map(|(quota, _)| quota)
            .collect();
        for quota in over {
            self.forget(&quota);
        }
    }

    /// When the placement was taken over.
    pub(crate) fn taken_at(&self) -> Instant {
        self.taken_at
    }

    /// Whether something was left of such a lane that nobody has asked for since.
    pub(crate) fn leaves(&self, such: impl Fn(&Quota) -> bool) -> bool {
        self.left.keys().any(such)
    }

    /// Drops what was left of lanes of which nobody is known.
    pub(crate) fn forget_left(&mut self, is_known: impl Fn(&Quota) -> bool) {
        let unknown = self.left.extract_if(|quota, _| !is_known(quota));
        let unknown: Vec<Quota> = unknown.map(|(quota, _)| quota).collect();
        for quota in unknown {
            self.forget(&quota);
        }
    }

    /// What `progress` says of these lines is to be taken back.
    pub(crate) fn free(&mut self, lines: impl IntoIterator<Item = Key>) {
        self.freed.extend(lines);
        self.urgent |= !self.freed.is_empty();
    }

    /// The lines that are to be taken back, which from now on count as being so.
    pub(crate) fn take_freed(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.freed)
    }

    /// Whether a transaction is to be opened for it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent && !(self.unsaved.is_empty() && self.freed.is_empty())
    }

    /// The lanes whose state is to be written, which from now on count as being written.
    pub(crate) fn take_unsaved(&mut self) -> BTreeSet<Quota> {
        self.urgent = false;
        std::mem::take(&mut self.unsaved)
    }

    /// Whether `progress` holds a state of this lane, as far as is known.
    pub(crate) fn is_kept(&self, quota: &Quota) -> bool {
        self.kept.contains(quota)
    }

    /// What was written of a lane is in the log: a state, or none.
    pub(crate) fn written(&mut self, quota: Quota, is_state: bool) {
        if is_state {
            self.kept.insert(quota);
        } else {
            self.kept.remove(&quota);
        }
    }
}

/// Whether a new lane would be the same at `wall`, where the placement was taken over at `taken`
/// (unix milliseconds).
fn is_over(record: &LaneProgress, taken: i64, wall: i64) -> bool {
    let is_past = |at: Option<i64>| at.is_none_or(|at| at <= wall);
    let windows = record.windows.iter().all(|window| {
        let length = i64::try_from(window.per_ms.get()).unwrap_or(i64::MAX);
        let whole_at = match window.spent {
            Spent::Spread { whole_at } => whole_at,
            Spent::Sliding { .. } | Spent::Fixed { .. } => taken,
        };
        // What was reserved counts from the take-over on, and a margin beside.
        whole_at.max(taken).saturating_add(length.saturating_mul(2)) <= wall
    });
    is_past(record.hold_until)
        && is_past(record.next_free_at)
        && record.breaker.is_none()
        && record.disabled.is_empty()
        && record.enabled.is_empty()
        && record.probation.is_empty()
        && windows
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use schemas::ids::EndpointId;
    use schemas::records::WindowProgress;
    use schemas::resources::LimitUnit;

    use super::*;

    const WALL: i64 = 1_795_331_700_000;

    fn quota(number: u128) -> Quota {
        Quota::of_endpoint(EndpointId::from_bits(number))
    }

    fn held(number: u128, until: i64) -> LaneProgress {
        LaneProgress {
            hold_until: Some(until),
            ..LaneProgress::new(quota(number), WALL)
        }
    }

    fn learn(handover: &mut Handover, number: u128, record: Option<&LaneProgress>) {
        let key = ProgressKey::Lane(quota(number)).to_string();
        let value = record.map(LaneProgress::encode);
        handover.learn(key.as_bytes(), value.as_deref()).unwrap();
    }

    #[test]
    fn the_last_record_of_a_lane_counts_and_null_is_none() {
        let now = Instant::now();
        let mut handover = Handover::new(now, WALL);
        learn(&mut handover, 1, Some(&held(1, WALL + 60_000)));
        learn(&mut handover, 1, Some(&held(1, WALL + 20_000)));
        learn(&mut handover, 2, Some(&held(2, WALL + 20_000)));
        learn(&mut handover, 2, None);
        handover.learn(b"applied/router/r", Some(b"{}")).unwrap();
        assert!(handover.learn(b"lane/q", Some(b"{")).is_err());
        handover.begin(now, WALL);
        let mut lane = Lane::new(now, 1);
        handover.hand_over(&quota(1), &mut lane);
        assert!(lane.is_held_long(now));
        assert!(!lane.is_held_long(now + std::time::Duration::from_secs(20)));
        let mut again = Lane::new(now, 1);
        handover.hand_over(&quota(1), &mut again);
        assert!(!again.is_held_long(now), "it counts once");
        let mut other = Lane::new(now, 1);
        handover.hand_over(&quota(2), &mut other);
        assert!(!other.is_held_long(now));
        assert!(handover.is_kept(&quota(1)) && !handover.is_kept(&quota(2)));
    }

    #[test]
    fn what_nobody_asks_for_is_dropped_when_it_says_nothing_any_more() {
        let now = Instant::now();
        let mut handover = Handover::new(now, WALL);
        learn(&mut handover, 1, Some(&held(1, WALL + 20_000)));
        let mut windows = LaneProgress::new(quota(2), WALL);
        windows.windows.push(WindowProgress {
            per_ms: NonZeroU64::new(60_000).unwrap(),
            unit: LimitUnit::Requests,
            reserved: 1,
            spent: Spent::Spread { whole_at: WALL },
        });
        learn(&mut handover, 2, Some(&windows));
        handover.begin(now, WALL);
        let seconds = std::time::Duration::from_secs;
        handover.sweep(now + seconds(19));
        assert!(!handover.is_urgent());
        handover.sweep(now + seconds(20));
        assert!(handover.is_urgent());
        assert_eq!(handover.take_unsaved(), BTreeSet::from([quota(1)]));
        handover.sweep(now + seconds(121));
        assert_eq!(handover.take_unsaved(), BTreeSet::from([quota(2)]));
        assert!(!handover.is_urgent());
    }
}
