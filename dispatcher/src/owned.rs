//! Owns the state of one placement while this process owns it: the partition of `deliveries`, the
//! delay partitions of the same number, their ledgers, marks and lanes.
//!
//! It is dropped whole when the partition goes: nothing of it may outlive ownership (rule 5). The
//! surprise: a quota has one placement, so every lane belongs to exactly one of these.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hashbrown::HashMap;
use runtime::log::topics::{DELAY_TIERS, Topics};
use runtime::log::{Assignment, Partition, Position, TopicName};
use schemas::resources::Quota;
use tokio::time::Instant;

use crate::handover::Handover;
use crate::lane::Lane;
use crate::ledger::{Inherited, Ledger, MAX_METADATA_BYTES};
use crate::marks::Marks;
use crate::order::Book;
use crate::pending::Pending;
use crate::planted::{self, Bug};
use crate::uncommitted::Uncommitted;
use crate::work::{Delivery, Meter};

/// The index of `deliveries` among the sources.
pub(crate) const DELIVERIES: usize = 0;

/// Records between a source's position and what has been read of it; beyond it nothing more is
/// taken in.
pub(crate) const WINDOW_RECORDS_MAX: usize = 65_536;

/// A window, or the text to commit, is crowded from here on: a share of what it may hold.
const CROWDED_RECORDS: usize = WINDOW_RECORDS_MAX / 4;

/// Fewer deliveries than these are queued by chance: the process keeps up.
const QUEUED_MIN: u64 = 1_024;

/// The horizon is halved so often at most.
const HALVINGS_MAX: u32 = 8;

/// Names one stretch of ownership: what is on its way for an earlier one is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tenure {
    pub(crate) placement: u32,
    pub(crate) number: u64,
}

/// How far along a tenure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Committed positions are being fetched.
    TakingOver,
    /// Deliveries are attempted.
    Serving,
    /// Nothing new is started; what runs may end until the deadline.
    Draining {
        /// When what still runs is given up.
        deadline: Instant,
    },
}

/// Whether the log is asked if the head of a source is a repeat (rule 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recall {
    /// It is not.
    None,
    /// It is; the head waits.
    Asked,
    /// It has answered for the record at this offset.
    Answered(i64),
}

/// One partition that is read, with its ledger.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) partition: Partition,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) ledger: Ledger,
    /// Below it, records are read again only for their marks.
    pub(crate) committed: i64,
    /// The position last acknowledged, or sent in what is under way.
    pub(crate) sent: Option<(i64, String)>,
    pub(crate) pending: Pending,
    pub(crate) paused: bool,
    /// How long its records wait from their append time; `None` for `deliveries`.
    pub(crate) tier: Option<Duration>,
    /// Whether there may be something new to commit.
    pub(crate) dirty: bool,
    pub(crate) uncommitted: Uncommitted,
    /// Whether the text to commit grows near its limit, so that deferring is in order.
    pub(crate) crowded: bool,
    /// Whether the text is at its limit, so that nothing more is taken in.
    pub(crate) full: bool,
    /// The control offset that its head waits for, and since when.
    pub(crate) waits_for_control: Option<(i64, Instant)>,
    /// What the log is asked about its head.
    pub(crate) recall: Recall,
    /// Where the log begins, when it no longer holds what was to be read next.
    pub(crate) overtaken_by: Option<i64>,
}

impl Source {
    fn new(partition: Partition, tier: Option<Duration>, pending: Pending) -> Self {
        Self {
            partition,
            assignment: None,
            ledger: Ledger::resume(0, Inherited::default()),
            committed: 0,
            sent: None,
            pending,
            paused: false,
            tier,
            dirty: false,
            uncommitted: Uncommitted::default(),
            crowded: false,
            full: false,
            waits_for_control: None,
            recall: Recall::None,
            overtaken_by: None,
        }
    }

    /// Takes note of how near to its limit the text to commit is.
    pub(crate) fn measure(&mut self, metadata: &str) {
        self.crowded = metadata.len() > MAX_METADATA_BYTES / 4 * 3;
        self.full = metadata.len() > MAX_METADATA_BYTES / 16 * 15;
    }

    /// Whether what waits in memory keeps the position so far back that it must become less.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded || self.ledger.len() >= CROWDED_RECORDS
    }
}

/// One placement that this process owns.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) tenure: Tenure,
    pub(crate) phase: Phase,
    pub(crate) sources: Vec<Source>,
    pub(crate) marks: Marks,
    pub(crate) lanes: HashMap<Quota, Lane>,
    /// The order of keys, where it is promised (rule 12).
    pub(crate) orders: Book<Delivery>,
    /// What the last owner left, and what the next is to know.
    pub(crate) handover: Handover,
    /// Whether attempts wait for an acknowledged commit: nothing more is taken in meanwhile, and
    /// nothing counts as slow for it.
    pub(crate) awaits_commit: bool,
    /// Attempts and re-produced targets under way.
    pub(crate) in_flight: usize,
    /// Verdicts that wait for a transaction.
    pub(crate) moves: usize,
    pub(crate) meter: Meter,
    /// A lane that held its share of memory when it was last given something.
    pub(crate) busy: Option<Quota>,
    /// Set when the tenure ends, for attempts that are about to be sent.
    pub(crate) ended: Arc<AtomicBool>,
    /// Whether what is queued waits for nothing but this process: reading more helps nobody, and
    /// deferring would cost what the process lacks.
    pub(crate) waits_for_process: bool,
    /// How often the horizon is halved.
    halvings: u32,
}

impl Owned {
    /// What is read and not taken in is counted by `read_ahead`.
    pub(crate) fn new(
        tenure: Tenure,
        topics: &Topics,
        handover: Handover,
        read_ahead: &Meter,
    ) -> Self {
        let source = |topic: &TopicName, tier| {
            let pending = Pending::new(read_ahead.clone());
            Source::new(topic.partition(tenure.placement), tier, pending)
        };
        let deliveries = source(&topics.deliveries, None);
        let tiers = topics.delays.iter().zip(DELAY_TIERS);
        let delays = tiers.map(|(topic, (tier, _))| source(topic, Some(tier)));
        Self {
            tenure,
            phase: Phase::TakingOver,
            sources: std::iter::once(deliveries).chain(delays).collect(),
            marks: Marks::default(),
            lanes: HashMap::new(),
            handover,
            orders: Book::new(Delivery::bytes),
            awaits_commit: false,
            in_flight: 0,
            moves: 0,
            meter: Meter::default(),
            busy: None,
            ended: Arc::default(),
            waits_for_process: false,
            halvings: 0,
        }
    }

    /// Whether a text to commit is at its limit though deliveries are deferred.
    pub(crate) fn is_full(&self) -> bool {
        self.sources.iter().any(|source| source.full)
    }

    /// Whether reading waits for a lane that moves.
    pub(crate) fn waits_for_lane(&mut self, now: Instant, lane_bytes_max: usize) -> bool {
        let lane = self.busy.as_ref().and_then(|quota| self.lanes.get(quota));
        let waits = lane.is_some_and(|lane| lane.is_busy(now, lane_bytes_max));
        if !waits {
            self.busy = None;
        }
        waits
    }

    /// Looks whether each lane that has something queued is through with it within `time`, which the
    /// process needs for that of all.
    pub(crate) fn look_at_lanes(&mut self, now: Instant, time: Duration) {
        let (mut queued, mut all) = (0, true);
        for lane in self.lanes.values_mut().filter(|lane| lane.queued() > 0) {
            queued += lane.queued();
            all = all && lane.is_through_within(now, time);
        }
        self.waits_for_process = all && queued >= QUEUED_MIN;
    }

    /// How long deliveries may wait for a turn at their endpoint: less and less while a window, or
    /// the text to commit, grows near its limit and it is not the process that they wait for.
    pub(crate) fn horizon(&mut self, horizon: Duration) -> Duration {
        let crowded = self.sources.iter().any(Source::is_crowded);
        self.halvings = if crowded && !self.waits_for_process {
            (self.halvings + 1).min(HALVINGS_MAX)
        } else {
            self.halvings.saturating_sub(1)
        };
        horizon / (1 << self.halvings)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Since when something completed waits for an acknowledged commit.
    pub(crate) fn uncommitted_since(&self) -> Option<Instant> {
        let waits = |source: &Source| source.uncommitted.since();
        self.sources.iter().filter_map(waits).min()
    }

    /// The source that `assignment` of `partition` belongs to, if it is not stale.
    pub(crate) fn source_of(&self, partition: &Partition, assignment: Assignment) -> Option<usize> {
        self.sources.iter().position(|source| {
            source.assignment == Some(assignment) && source.partition == *partition
        })
    }

    /// The lane of `quota`, made on first use.
    pub(crate) fn lane(&mut self, quota: &Quota, now: Instant, concurrency: u32) -> &mut Lane {
        let handover = &mut self.handover;
        self.lanes.entry(quota.clone()).or_insert_with(|| {
            let mut lane = Lane::new(now, concurrency);
            handover.hand_over(quota, &mut lane);
            lane
        })
    }

    /// What there is to commit for source `index`: its position as it is now.
    pub(crate) fn position(&self, index: usize) -> Option<Position> {
        let source = self.sources.get(index)?;
        let offset = source.ledger.position();
        let marks_from = if index == DELIVERIES {
            self.marks.replay_from(offset)
        } else {
            None
        };
        Some(Position {
            partition: source.partition.clone(),
            offset,
            metadata: source.ledger.metadata(marks_from),
        })
    }

    /// Whether nothing is left that a drain waits for.
    pub(crate) fn is_drained(&self) -> bool {
        let committed = self
            .sources
            .iter()
            .all(|source| !source.dirty && !source.ledger.is_frozen());
        let saved = !self.handover.is_urgent();
        let is_quiet = self.in_flight == 0 || planted::is(Bug::DrainBeforeInFlight);
        is_quiet && self.moves == 0 && committed && saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Place;

    #[test]
    fn a_window_that_fills_shortens_the_horizon() {
        // Deliveries that wait in memory hold the position; what is read behind them needs room.
        let tenure = Tenure {
            placement: 0,
            number: 1,
        };
        let horizon = Duration::from_secs(10);
        let now = Instant::now();
        let mut owned = Owned::new(
            tenure,
            &Topics::with_prefix("t."),
            Handover::new(now, 0),
            &Meter::default(),
        );
        assert_eq!(owned.horizon(horizon), horizon);
        for offset in 0..16_384 {
            owned.sources[DELIVERIES].ledger.admit(offset, 1);
        }
        assert_eq!(owned.horizon(horizon), horizon / 2);
        assert_eq!(owned.horizon(horizon), horizon / 4);
        // They wait for this process: reading waits for them.
        owned.waits_for_process = true;
        assert_eq!(owned.horizon(horizon), horizon / 2);
        owned.waits_for_process = false;
        assert_eq!(owned.horizon(horizon), horizon / 4);
        for offset in 0..16_384 {
            let place = Place { offset, index: 0 };
            owned.sources[DELIVERIES].ledger.complete(place);
        }
        assert_eq!(owned.horizon(horizon), horizon / 2);
        assert_eq!(owned.horizon(horizon), horizon);
    }
}
