//! Owns when a run of a sync begins, what it is about, and what its plan says of it.
//!
//! Never begins while another is under way: the runner asks in between. The surprise: a plan of
//! deltas counts what they name, for reading a roster of millions would take the seconds that deltas
//! have.

use std::num::NonZeroUsize;
use std::sync::Arc;

use schemas::resources::{Sync, SyncState};
use tracing::info;

use super::note::{RunNote, RunScope};
use super::record::kind_of;
use super::results::Positions;
use super::runner::Runner;
use super::{Fault, Means, desk};
use crate::{
    ChunkLimits, Cohort, Counts, DELTAS_MAX, Delta, Error, Operation, Outcomes, Roster, View,
};

/// The most bytes of members in one request, whatever the partner takes: the log takes 4 MiB.
const CHUNK_BYTES_MAX: u64 = 2 << 20;

/// Why a run begins.
pub(super) enum Begin {
    Whole { approved: bool },
    Deltas(Vec<Delta>),
}

impl Runner {
    /// What is to be begun now.
    pub(super) async fn due(&mut self) -> Result<Option<Begin>, Fault> {
        let sync = self.sync()?;
        if sync.state == SyncState::Paused {
            return Ok(None);
        }
        let now = self.means.clock.now();
        if self.next_scheduled(&sync).is_some_and(|at| at <= now) {
            self.note.scheduled = Some(now);
            self.note.queued.get_or_insert(false);
        }
        if let Some(approved) = self.note.queued.take() {
            return Ok(Some(Begin::Whole { approved }));
        }
        let Some(after) = self.note.last_delta.filter(|_| self.look) else {
            return Ok(None);
        };
        self.look = false;
        let cohort = self.cohort()?;
        let work = move || cohort.deltas(after);
        let deltas = Means::blocking(Arc::clone(&self.means.turns), work).await?;
        let Some(first) = deltas.first() else {
            return Ok(None);
        };
        let is_gapless = first.first == after + 1
            && deltas.windows(2).all(|pair| match pair {
                [one, next] => next.first == one.last + 1,
                _ => false,
            });
        Ok(Some(if is_gapless && deltas.len() <= DELTAS_MAX {
            Begin::Deltas(deltas)
        } else {
            // What was between is folded away, or soon will be: the whole has it.
            Begin::Whole { approved: false }
        }))
    }

    /// When the schedule says that a run is due: once for all that were missed.
    pub(super) fn next_scheduled(&self, sync: &Sync) -> Option<i64> {
        let followed = self.note.scheduled.unwrap_or(sync.created_at);
        let from = followed.max(sync.updated_at);
        sync.schedule.as_ref()?.next_after(from)
    }

    /// Plans a run and stores that it is under way.
    pub(super) async fn begin(&mut self, begin: Begin) -> Result<(), Fault> {
        let sync = self.sync()?;
        let (cohort, roster) = (self.cohort()?, self.lend()?);
        let (scope, approved) = match begin {
            Begin::Whole { approved } => (RunScope::Whole, approved),
            Begin::Deltas(deltas) => (RunScope::Deltas(deltas), false),
        };
        let holds_back = !self.note.late.is_empty();
        let own = Arc::clone(&sync);
        let work = move || {
            let view = cohort.view()?;
            let planned = match &scope {
                RunScope::Deltas(deltas) => {
                    plan_deltas(&own, (&cohort, &view, deltas), (&roster, holds_back))?
                }
                RunScope::Whole if roster.entries_max() == 0 && view.deltas.is_empty() => {
                    let snapshot = view.snapshot.as_ref();
                    Counts {
                        add: snapshot.map_or(0, |snapshot| snapshot.members),
                        ..Counts::default()
                    }
                }
                RunScope::Whole => desk::plan(&cohort, (&view, &scope), (&roster, holds_back))?,
            };
            Ok((roster, view, scope, planned))
        };
        let planning = Means::blocking(Arc::clone(&self.means.turns), work);
        let (roster, view, scope, planned) = planning.await?;
        self.note.runs += 1;
        let waits = !approved && needs_approval(&sync, &planned);
        let run = RunNote {
            id: format!("run_{:06}", self.note.runs),
            scope,
            view,
            pass: 0,
            base: roster.generation(),
            limits: limits(&sync),
            ledger: Default::default(),
            results: Positions::default(),
            planned,
            counts: Default::default(),
            again: 0,
            lost: 0,
            approved,
            waits,
            stop: None,
            stop_until: None,
            closed: false,
            holds_back,
            started_at: self.means.clock.now(),
            jobs: Default::default(),
        };
        info!(sync = %self.id, run = run.id, ?planned, waits, "run begins");
        self.roster = Some(roster);
        self.save(Some(&run), Outcomes::default()).await?;
        self.note.run = Some(run);
        Ok(())
    }
}

/// What deltas ask for. Only where that many removals may need approval, or how many members go
/// into a job must be known, the roster is read for what they come to.
fn plan_deltas(
    sync: &Sync,
    (cohort, view, deltas): (&Cohort, &View, &[Delta]),
    (roster, holds_back): (&Roster, bool),
) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    let mut named = cohort.changes(deltas);
    while named.advance()? {
        let is_gone = named.entry().is_some_and(|entry| entry.is_gone());
        *if is_gone {
            &mut counts.remove
        } else {
            &mut counts.add
        } += 1;
    }
    let held = roster.held()?;
    let among = |counts: Counts| Counts {
        held,
        keep: held.saturating_sub(counts.remove + counts.update),
        ..counts
    };
    let has_jobs = sync.profile.operations.start_job.is_some();
    if !has_jobs && !needs_approval(sync, &among(counts)) {
        return Ok(among(counts));
    }
    let scope = RunScope::Deltas(deltas.to_vec());
    desk::plan(cohort, (view, &scope), (roster, holds_back)).map(among)
}

/// Whether a run removes more than its sync lets it without approval. An empty cohort never empties
/// a partner's list by itself.
pub(crate) fn needs_approval(sync: &Sync, planned: &Counts) -> bool {
    if planned.remove == 0 {
        return false;
    }
    let is_emptied = planned.add + planned.update + planned.keep == 0;
    let share = f64::from(sync.removals_max_percent);
    is_emptied || (share < 100.0 && planned.removed_percent() > share)
}

/// The most that one request of a sync holds.
pub(crate) fn limits(sync: &Sync) -> ChunkLimits {
    let at_least_one = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let items = |operation| {
        let items = sync.profile.items_max(kind_of(operation)).get();
        at_least_one(usize::try_from(items).unwrap_or(usize::MAX))
    };
    // A template writes more than the members; what is too large after all is halved.
    let bytes = (sync.profile.limits.bytes.get() / 4 * 3).min(CHUNK_BYTES_MAX);
    ChunkLimits {
        items: items(Operation::Add),
        update_items: Some(items(Operation::Update)),
        remove_items: Some(items(Operation::Remove)),
        bytes: at_least_one(usize::try_from(bytes).unwrap_or(usize::MAX)),
    }
}
