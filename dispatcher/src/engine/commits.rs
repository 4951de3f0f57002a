//! Owns the plain commits of positions, the lease that they extend, and the reports that go with
//! the passing of time.

use std::time::Duration;

use futures_util::FutureExt;
use runtime::log::{Class, Error, Position};
use runtime::view::applied_record;
use schemas::records::Applied;
use tokio::time::Instant;
use tracing::warn;

use super::{Engine, bytes_as_i64};
use crate::delivery::Transport;
use crate::metrics::Deferred;
use crate::owned::Tenure;

/// Memory of marks beside the mandatory ones, in the whole process (rule 3).
const MARKS_BYTES: usize = 8 << 20;

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
        self.timers.commit_sent(now);
        let mut positions = self.changed_positions();
        if positions.is_empty() && !self.lease.is_fresh(now) {
            // Nothing changed: any position that is owned extends the lease.
            positions.extend(self.any_position());
        }
        if positions.is_empty() {
            return;
        }
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
                source.measure(&position.metadata);
                let sent = (position.offset, position.metadata.clone());
                if source.sent.as_ref() != Some(&sent) {
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

    fn any_position(&self) -> Option<(Tenure, usize, Position)> {
        self.owned.values().find_map(|owned| {
            let index = owned
                .sources
                .iter()
                .position(|source| source.assignment.is_some() && !source.ledger.is_frozen())?;
            Some((owned.tenure, index, owned.position(index)?))
        })
    }

    pub(super) fn on_commit(&mut self, done: CommitDone) {
        match done.result {
            Ok(()) => {
                self.parts.metrics.commits.inc();
                self.lease.extend(done.sent_at);
            }
            Err(error) => {
                self.parts.metrics.commit_failures.inc();
                warn!(%error, "positions were not committed");
                for (tenure, index, _) in done.positions {
                    let owned = self.tenant_of(tenure);
                    if let Some(source) = owned.and_then(|owned| owned.sources.get_mut(index)) {
                        source.dirty = true;
                        source.sent = None;
                    }
                }
                if error.class() != Class::Never {
                    self.timers
                        .commit_now(self.now() + Duration::from_millis(50));
                }
            }
        }
    }

    /// Looks through the lanes: what waits too long is deferred, what is spent is dropped.
    pub(super) fn sweep(&mut self, now: Instant) {
        let horizon = self.parts.options.horizon;
        let share = MARKS_BYTES / self.owned.len().max(1);
        let mut overdue = Vec::new();
        for owned in self.owned.values_mut().filter(|owned| owned.is_serving()) {
            owned.marks.shrink_to(share);
            let horizon = owned.horizon(horizon);
            for lane in owned.lanes.values_mut() {
                for delivery in lane.overdue(now, horizon) {
                    let due = lane.reserve(now, now + Duration::from_secs(5));
                    overdue.push((owned.tenure, delivery, due));
                }
            }
            owned
                .lanes
                .retain(|_, lane| lane.in_ring || !lane.is_spent(now));
        }
        for (tenure, delivery, due) in overdue {
            let due_at = self.parts.clock.wall_at(due);
            self.defer(tenure, delivery, due_at, Deferred::Horizon);
        }
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
        state.memory_bytes.set(count(self.meter.bytes()));
        state
            .lanes
            .set(count(owned.clone().map(|owned| owned.lanes.len()).sum()));
        let queued = owned
            .clone()
            .flat_map(|owned| owned.lanes.values())
            .map(|lane| lane.len());
        state.queued.set(count(queued.sum()));
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
