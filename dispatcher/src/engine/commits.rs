//! Owns the plain commits of positions, the lease that they extend, and the reports that go with
//! the passing of time.
//!
//! The surprise: in a rebalance of the classic protocol a plain commit waits on its connection
//! behind the request to join, for as long as a dead member's session lasts. Then a transaction
//! carries the positions, which has a connection of its own.

use std::time::Duration;

use futures_util::FutureExt;
use runtime::log::{Class, Error, Position};
use runtime::view::applied_record;
use schemas::records::Applied;
use tokio::time::Instant;
use tracing::warn;

use super::{Engine, bytes_as_i64};
use crate::delivery::Transport;
use crate::lane::Lane;
use crate::metrics::Deferred;
use crate::owned::{Owned, Source, Tenure};

/// Memory of marks beside the mandatory ones, in the whole process (rule 3).
const MARKS_BYTES: usize = 8 << 20;

/// A plain commit is overdue after this long without an acknowledgement: by far most take less on a
/// busy machine too, and a transaction of their positions has the time to end before attempts wait.
const OVERDUE: Duration = Duration::from_millis(200);
/// The wait before a plain commit that was refused is sent again.
const AGAIN: Duration = Duration::from_millis(25);

/// How plain commits fare.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// When the first was sent of those since the last acknowledgement.
    unanswered_since: Option<Instant>,
    /// Whether a transaction went out while one was on its way: the log may take the two in either
    /// order, so that afterwards positions are committed anew.
    pub(super) overlapped: bool,
}

/// What became of a plain commit.
pub(crate) struct CommitDone {
    sent_at: Instant,
    positions: Vec<(Tenure, usize, Position)>,
    result: Result<(), Error>,
}

impl<T: Transport> Engine<T> {
    /// Sends what there is to commit, when it is time and none is on its way. What a transaction
    /// covers is left out (rule 6).
    pub(super) fn start_commit(&mut self, now: Instant) {
        if self.commit.is_some() || now < self.timers.commit_at {
            return;
        }
        if !self.has_heard_all() {
            // What is lost is not to be committed under a place that was given anew (rule 5); it is
            // told of at once.
            return;
        }
        self.timers.commit_sent(now);
        let mut positions = self.changed_positions();
        if positions.is_empty() && !self.lease.is_fresh(now) {
            // Nothing changed: any position that is owned extends the lease.
            positions.extend(self.any_position());
        }
        if positions.is_empty() {
            return;
        }
        self.plain.unanswered_since.get_or_insert(now);
        let member = std::sync::Arc::clone(&self.parts.member);
        let sent: Vec<Position> = positions
            .iter()
            .map(|(_, _, position)| position.clone())
            .collect();
        self.commit = Some(
            async move {
                let result = member.commit(sent).await;
                CommitDone {
                    sent_at: now,
                    positions,
                    result,
                }
            }
            .boxed(),
        );
    }

    fn changed_positions(&mut self) -> Vec<(Tenure, usize, Position)> {
        let mut positions = Vec::new();
        for owned in self.owned.values_mut() {
            for index in 0..owned.sources.len() {
                let Some(source) = owned.sources.get(index) else {
                    continue;
                };
                if !source.dirty || source.ledger.is_frozen() || source.assignment.is_none() {
                    continue;
                }
                let Some(position) = owned.position(index) else {
                    continue;
                };
                let Some(source) = owned.sources.get_mut(index) else {
                    continue;
                };
                source.dirty = false;
                source.uncommitted.committing();
                source.measure(&position.metadata);
                let sent = (position.offset, position.metadata.clone());
                if source.sent.as_ref() == Some(&sent) {
                    source.uncommitted.committed();
                } else {
                    source.sent = Some(sent);
                    positions.push((owned.tenure, index, position));
                }
            }
        }
        positions
    }

    /// Commits every position anew: Kafka forgets those of topics that the group is not subscribed
    /// to after a week.
    pub(super) fn recommit(&mut self) {
        for source in self.owned.values_mut().flat_map(|owned| &mut owned.sources) {
            source.dirty = true;
            source.sent = None;
        }
    }

    fn any_source(&self) -> Option<(Tenure, usize)> {
        self.owned.values().find_map(|owned| {
            let index = owned
                .sources
                .iter()
                .position(|source| source.assignment.is_some() && !source.ledger.is_frozen())?;
            Some((owned.tenure, index))
        })
    }

    fn any_position(&self) -> Option<(Tenure, usize, Position)> {
        let (tenure, index) = self.any_source()?;
        let position = self.owned.get(&tenure.placement)?.position(index)?;
        Some((tenure, index, position))
    }

    pub(super) fn on_commit(&mut self, done: CommitDone) {
        let now = self.now();
        let overlapped = self.plain.overlapped;
        self.plain.overlapped &= self.transaction.is_some();
        let succeeded = done.result.is_ok();
        for (tenure, index, _) in done.positions {
            let owned = self.tenant_of(tenure);
            let Some(source) = owned.and_then(|owned| owned.sources.get_mut(index)) else {
                continue;
            };
            if succeeded {
                source.uncommitted.committed();
            } else {
                let is_transacting = source.ledger.is_frozen();
                source.uncommitted.not_committed(is_transacting);
            }
            if !succeeded || overlapped {
                source.dirty = true;
                source.sent = None;
            }
        }
        match done.result {
            Ok(()) => {
                self.parts.metrics.commits.acknowledged.inc();
                self.plain.unanswered_since = None;
                self.lease.extend(done.sent_at);
                self.resume_lanes();
                if overlapped {
                    self.timers.commit_now(now);
                }
            }
            Err(error) => {
                self.parts.metrics.commits.failures.inc();
                warn!(%error, "positions were not committed");
                if error.class() != Class::Never {
                    self.timers.commit_now(now + AGAIN);
                }
            }
        }
    }

    /// Brings lanes back into the ring that waited for an acknowledged commit.
    pub(super) fn resume_lanes(&mut self) {
        if self.awaiting_commit.is_empty() {
            return;
        }
        let now = self.now();
        for owned in self.owned.values_mut() {
            if std::mem::take(&mut owned.awaits_commit) {
                owned.lanes.values_mut().for_each(|lane| lane.waited(now));
            }
        }
        self.ring.extend(self.awaiting_commit.drain(..));
    }

    /// The sources whose positions a transaction is to carry, since a plain commit is overdue: those
    /// where something completed waits for one, or any when the lease does.
    pub(super) fn overdue_sources(&mut self, now: Instant) -> Vec<(Tenure, usize)> {
        let Some(since) = self.plain.unanswered_since else {
            return Vec::new();
        };
        if now < since + OVERDUE {
            self.timers.wake_transaction(since + OVERDUE);
            return Vec::new();
        }
        let waiting = |owned: &Owned| {
            let (tenure, sources) = (owned.tenure, owned.sources.iter().enumerate());
            let waits = |source: &Source| Some((source.assignment?, source.uncommitted.since()?).1);
            let of_source = move |(index, source)| Some((waits(source)?, (tenure, index)));
            sources.filter_map(of_source).collect::<Vec<_>>()
        };
        let waiting: Vec<_> = self.owned.values().flat_map(waiting).collect();
        let oldest = waiting.iter().map(|(since, _)| *since).min();
        let due = oldest.map(|since| since + self.parts.options.commit_interval);
        if due.is_some_and(|due| due <= now) {
            return waiting.into_iter().map(|(_, source)| source).collect();
        }
        if let Some(due) = due {
            self.timers.wake_transaction(due);
        }
        if self.lease.is_fresh(now) {
            return Vec::new();
        }
        self.any_source().into_iter().collect()
    }

    /// Looks through the lanes: what waits too long is deferred, what is spent is dropped.
    pub(super) fn sweep(&mut self, now: Instant) {
        let horizon = self.parts.options.horizon;
        self.sweep_marks();
        self.forget_deleted(now);
        let share = MARKS_BYTES / self.owned.len().max(1);
        let mut overdue = Vec::new();
        let mut kept_long = Vec::new();
        let all_lanes = self.owned.values().flat_map(|owned| owned.lanes.values());
        self.throughput
            .measure(all_lanes.map(Lane::queued).sum(), now);
        let drain_max = self.throughput.lane_drain_max().min(horizon);
        let down = self.outage.is_down();
        for owned in self.owned.values_mut().filter(|owned| owned.is_serving()) {
            owned.marks.shrink_to(share);
            owned.look_at_lanes(now, drain_max);
            let shortened = owned.horizon(horizon);
            // What cannot leave because our own network is down, or nothing can be committed, stays
            // where it is.
            let stuck = down || owned.awaits_commit;
            for lane in owned.lanes.values_mut().filter(|_| !stuck) {
                let waits_for_process = lane.is_through_within(now, drain_max);
                let horizon = if waits_for_process {
                    horizon
                } else {
                    shortened
                };
                for delivery in lane.overdue(now, horizon) {
                    let earliest = now + Duration::from_secs(5);
                    let reserved = lane.reserve(now, earliest, delivery.source);
                    overdue.push((owned.tenure, delivery, reserved));
                }
            }
            let before = now.checked_sub(shortened).filter(|_| !stuck);
            let lines = before.map(|before| (before, owned.orders.overdue(before)));
            if let Some((before, keys)) = lines {
                let tenure = owned.tenure;
                kept_long.extend(keys.into_iter().map(|key| (tenure, key, before)));
            }
            let handover = &mut owned.handover;
            handover.sweep(now);
            owned.lanes.retain(|quota, lane| {
                let stays = lane.in_ring || !lane.is_spent(now);
                if !stays {
                    handover.forget(quota);
                }
                stays
            });
        }
        // As they were read: the order of the lanes is none.
        overdue.sort_by_key(|(tenure, delivery, _)| (*tenure, delivery.source, delivery.place));
        for (tenure, delivery, reserved) in overdue {
            self.postpone(tenure, delivery, reserved, Deferred::Horizon);
        }
        self.spill_overdue(kept_long);
    }

    /// Says on `progress` how much of `control` is applied here.
    pub(super) fn report_applied(&mut self) {
        let applied = Applied {
            version: 1,
            service: "dispatcher".to_owned(),
            instance: self.parts.options.instance.clone(),
            control_offset: self.parts.endpoints.applied(),
            at: self.wall(),
        };
        self.parts
            .metrics
            .state
            .control_offset
            .set(applied.control_offset);
        self.records
            .push(applied_record(&self.parts.topics.progress, &applied));
    }

    pub(super) fn report_metrics(&self) {
        let state = &self.parts.metrics.state;
        let owned = self.owned.values();
        let count = |count: usize| bytes_as_i64(count);
        state.placements.set(count(self.owned.len()));
        let read_ahead = self.read_ahead.bytes();
        state.read_ahead_bytes.set(count(read_ahead));
        state
            .memory_bytes
            .set(count(self.meter.bytes() + read_ahead));
        state
            .lanes
            .set(count(owned.clone().map(|owned| owned.lanes.len()).sum()));
        let lines = owned.clone().map(|owned| owned.orders.len());
        state.order_lines.set(count(lines.sum()));
        let lanes = owned.clone().flat_map(|owned| owned.lanes.values());
        let queued = lanes.clone().map(|lane| lane.len());
        state.queued.set(count(queued.sum()));
        let open = lanes.filter(|lane| !lane.breaker().is_closed());
        state.breakers_open.set(count(open.count()));
        state
            .marks_bytes
            .set(count(owned.clone().map(|owned| owned.marks.bytes()).sum()));
        let oldest = owned.clone().filter_map(|owned| owned.marks.oldest()).min();
        state.marks_oldest_timestamp.set(unix_seconds(oldest));
        let sources = owned.clone().flat_map(|owned| &owned.sources);
        state
            .paused_partitions
            .set(count(sources.filter(|source| source.paused).count()));
        let oldest = owned
            .flat_map(|owned| owned.lanes.values())
            .filter_map(|lane| lane.oldest_accepted())
            .min();
        state.oldest_timestamp.set(unix_seconds(oldest));
    }
}

fn unix_seconds(millis: Option<i64>) -> f64 {
    let millis = millis
        .and_then(|millis| u64::try_from(millis).ok())
        .unwrap_or(0);
    Duration::from_millis(millis).as_secs_f64()
}
