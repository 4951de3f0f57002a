//! Owns what is shown of syncs that are owned here, while they run.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use schemas::ids::SyncId;
use serde::Serialize;

use super::note::{Note, RunCounts, Summary};
use crate::Counts;

/// What a sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusState {
    /// Nothing is to be done.
    Idle,
    /// A run is under way.
    Running,
    /// Held by its owner.
    Paused,
    /// The run makes nothing new, and waits for what is on its way.
    Stopping,
    /// The run would remove more than is allowed without approval.
    WaitsForApproval,
    /// Its endpoint takes nothing now.
    EndpointDisabled,
}

/// How a sync fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// What it is doing.
    pub state: StatusState,
    /// The run that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// What it set out to do.
    pub planned: Counts,
    /// What has become of its members.
    pub counts: RunCounts,
    /// Members that are still to be sent or heard of.
    pub left: u64,
    /// Members with an outcome, a second, over the run.
    pub rate: f64,
    /// Seconds until the run is over at that rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Chunks written and not yet reported.
    pub in_flight: u64,
    /// Until when a run that is to end waits for them, unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_until: Option<i64>,
    /// Chunks of ended runs that may arrive yet: whoever is unknown is held back until then.
    pub late: u64,
    /// When the run began, unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// What the last run came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Summary>,
}

impl Status {
    /// What a note says at a time.
    pub(crate) fn of(note: &Note, (state, in_flight): (StatusState, u64), now: i64) -> Self {
        let run = note.run.as_ref();
        let (planned, counts) = run.map_or_else(Default::default, |run| (run.planned, run.counts));
        let started_at = run.map(|run| run.started_at);
        let total = planned.add + planned.update + planned.remove;
        let settled = counts.confirmed + counts.rejected;
        let left = if run.is_some() {
            total.saturating_sub(settled)
        } else {
            0
        };
        let rate = started_at.map_or(0.0, |at| rate(counts.heard(), now - at));
        Self {
            state,
            run: run.map(|run| run.id.clone()),
            planned,
            counts,
            left,
            rate,
            seconds_left: seconds(left, rate).filter(|_| run.is_some()),
            in_flight,
            stopping_until: run.and_then(|run| run.stop_until),
            late: u64::try_from(note.late.len()).unwrap_or(u64::MAX),
            started_at,
            last: note.last.clone(),
        }
    }

    /// What a note says of itself, where nobody here owns the sync.
    pub(crate) fn stored(note: &Note, is_paused: bool, now: i64) -> Self {
        let state = match &note.run {
            Some(run) if run.stop.is_some() => StatusState::Stopping,
            Some(run) if run.waits => StatusState::WaitsForApproval,
            Some(_) | None if is_paused => StatusState::Paused,
            Some(_) => StatusState::Running,
            None => StatusState::Idle,
        };
        Self::of(note, (state, 0), now)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than a double has"
)]
fn rate(members: u64, millis: i64) -> f64 {
    if millis <= 0 {
        return 0.0;
    }
    members as f64 * 1_000.0 / millis as f64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a positive count, for people"
)]
fn seconds(left: u64, rate: f64) -> Option<u64> {
    (rate > 0.0).then(|| (left as f64 / rate).ceil() as u64)
}

/// The syncs that are owned here. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<RwLock<HashMap<SyncId, Status>>>);

impl Live {
    pub(crate) fn get(&self, sync: SyncId) -> Option<Status> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&sync).cloned()
    }

    pub(crate) fn set(&self, sync: SyncId, status: Option<Status>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => drop(all.insert(sync, status)),
            None => drop(all.remove(&sync)),
        }
    }

    /// How many runs are under way.
    pub(crate) fn running(&self) -> usize {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|status| status.run.is_some()).count()
    }
}
