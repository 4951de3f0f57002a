//! Owns one sync that this process owns: when a run begins, from which state, and how it ends.
//!
//! Never two runs of a sync at once, and never the next before all that the last one wrote is
//! reported: a late request of the old could undo one of the new. The surprise: whatever goes wrong
//! is answered in one way: everything is read again from the store, as after a crash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::ids::SyncId;
use schemas::records::{MemberCountKey, ResultRecord};
use schemas::resources::{Overlap, Sync, SyncState};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::note::{RunNote, RunScope, Stop};
use super::record::{Call, Maker};
use super::request::{Ask, Request, Requests};
use super::results::between;
use super::{Fault, Means, Note, Status, StatusState, folder, identity, pace, pass, roster_folder};
use crate::{Cohort, Error, Outcomes, Roster, Store};

/// Before the store or the log is asked again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at what was reported of late chunks.
const LATE_WAIT: Duration = Duration::from_secs(5);
/// Nothing is due for so long.
const LONG: Duration = Duration::from_secs(3_600);
/// A delivery's longest life where its endpoint says nothing.
const MAX_AGE_MS: i64 = 76 * 3_600_000;
/// For the last attempt and the report, beyond the maximum age.
const REPORT_GRACE_MS: i64 = 3_600_000;

/// What a sync's task is told.
#[derive(Debug)]
pub(crate) enum Wake {
    /// Somebody asks something.
    Request(Request),
    /// An object in `control` has changed.
    Changed,
    /// Another process owns the sync, or it is deleted.
    Stop,
}

/// A sync that is owned here.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(super) means: Means,
    pub(super) id: SyncId,
    wakes: mpsc::UnboundedReceiver<Wake>,
    pub(super) requests: Requests,
    pub(super) note: Note,
    pub(super) roster: Option<Roster>,
    /// Requests that are dealt with, once the note is stored.
    pub(super) done: Vec<String>,
    /// The cohort may have changed.
    pub(super) look: bool,
}

/// Reports about one sync.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) reports: mpsc::UnboundedReceiver<ResultRecord>,
    /// Reports about chunks that are not made yet, after a restart.
    pub(super) early: HashMap<u128, ResultRecord>,
}

impl Runner {
    pub(crate) fn new(means: Means, id: SyncId, wakes: mpsc::UnboundedReceiver<Wake>) -> Self {
        Self {
            requests: Requests::new(&means.root),
            means,
            id,
            wakes,
            note: Note::default(),
            roster: None,
            done: Vec::new(),
            look: true,
        }
    }

    /// Carries runs out until it is told to stop.
    pub(crate) async fn run(mut self) {
        loop {
            match self.go().await {
                Err(Fault::Stopped) => break,
                Ok(()) => {}
                Err(fault) => {
                    warn!(sync = %self.id, error = %runtime::task::chain(&fault), "sync waits");
                    self.means.telemetry.faults.inc();
                }
            }
            self.roster = None;
            tokio::time::sleep(RETRY_WAIT).await;
        }
        self.means.live.set(self.id, None);
    }

    async fn go(&mut self) -> Result<(), Fault> {
        self.load().await?;
        loop {
            if let Some(run) = self.note.run.take() {
                self.carry_out(run).await?;
                continue;
            }
            self.follow_late().await?;
            if let Some(begin) = self.due().await? {
                self.begin(begin).await?;
            } else {
                self.save_requests().await?;
                self.show(None, StatusState::Idle, 0);
                let is_late = !self.note.late.is_empty();
                let soon = is_late.then(|| self.means.clock.instant() + LATE_WAIT);
                self.rest(None, soon).await?;
            }
        }
    }

    /// Reads what is stored.
    async fn load(&mut self) -> Result<(), Fault> {
        let (folder, identity) = (
            roster_folder(&self.means.root, self.id),
            identity(self.sync()?.as_ref()),
        );
        let work = move || Roster::open(folder, &identity);
        let roster = Means::blocking(Arc::clone(&self.means.turns), work).await?;
        self.note = Note::read(roster.note())?;
        self.roster = Some(roster);
        self.take_over_polls()?;
        if self.note.last.is_some() {
            self.tell_held();
        }
        self.look = true;
        // What was taken up and is not in the note is asked again.
        self.done.clear();
        Ok(())
    }

    /// Another process may have asked the partner after jobs of late (rule 5).
    fn take_over_polls(&self) -> Result<(), Fault> {
        let sync = self.sync()?;
        let Some(poll) = &sync.profile.operations.poll else {
            return Ok(());
        };
        let ended_at = self.note.last.as_ref().map(|last| last.ended_at);
        let counted = pace::longest(poll).map_or(0, runtime::clock::millis);
        let now = self.means.clock.now();
        let is_near = ended_at.is_some_and(|at| now < at.saturating_add(counted));
        if is_near || self.note.run.is_some() {
            let quota = self.quota(&sync);
            self.means.pace.take_over(&quota, poll, &self.means.clock);
        }
        Ok(())
    }

    /// The sync as it is in `control`.
    pub(super) fn sync(&self) -> Result<Arc<Sync>, Fault> {
        self.means.directory.sync(self.id).ok_or(Fault::Stopped)
    }

    pub(super) fn cohort(&self) -> Result<Cohort, Fault> {
        let sync = self.sync()?;
        let (tenant, cohort) = (sync.tenant.as_str(), sync.cohort.to_string());
        Ok(Cohort::new(&self.means.root, tenant, &cohort))
    }

    pub(super) fn folder(&self) -> Store {
        folder(&self.means.root, self.id)
    }

    /// The roster, to be lent to a blocking thread.
    pub(super) fn lend(&mut self) -> Result<Roster, Fault> {
        let lost = || Error::Worker("the roster was lost".to_owned());
        Ok(self.roster.take().ok_or_else(lost)?)
    }

    /// How long a report is waited for, from now.
    pub(super) fn life_ms(&self, sync: &Sync) -> i64 {
        let facts = self.means.directory.endpoint(sync.endpoint);
        let max_age = facts.and_then(|facts| facts.max_age_ms);
        let max_age = max_age.map_or(MAX_AGE_MS, |age| i64::try_from(age).unwrap_or(i64::MAX));
        max_age.saturating_add(REPORT_GRACE_MS)
    }

    pub(super) fn show(&self, run: Option<&RunNote>, state: StatusState, in_flight: u64) {
        let mut note = self.note.clone();
        note.run = run.cloned();
        let is_paused = self
            .sync()
            .is_ok_and(|sync| sync.state == SyncState::Paused);
        let state = if run.is_some_and(|run| run.stop.is_some()) {
            StatusState::Stopping
        } else if is_paused {
            StatusState::Paused
        } else {
            state
        };
        let now = self.means.clock.now();
        let status = Status::of(&note, (state, in_flight), now);
        self.means.live.set(self.id, Some(status));
    }

    // === Storing ===

    /// Stores outcomes, the note and the run as the next generation; requests that the note has
    /// dealt with are removed then.
    pub(super) async fn save(
        &mut self,
        run: Option<&RunNote>,
        outcomes: Outcomes,
    ) -> Result<(), Fault> {
        let roster = self.lend()?;
        let roster = self.saving(roster, run, outcomes, None).await?;
        self.roster = Some(roster);
        Ok(())
    }

    /// The work of storing; `sweep` also removes generations but for the one it names.
    pub(super) fn saving(
        &mut self,
        mut roster: Roster,
        run: Option<&RunNote>,
        mut outcomes: Outcomes,
        sweep: Option<u64>,
    ) -> impl Future<Output = Result<Roster, Error>> + Send + use<> {
        let mut note = self.note.clone();
        note.run = run.cloned();
        let (requests, done, id) = (
            self.requests.clone(),
            std::mem::take(&mut self.done),
            self.id,
        );
        self.means.telemetry.saves.inc();
        Means::blocking(Arc::clone(&self.means.turns), move || {
            roster.apply(&mut outcomes, note.write())?;
            for request in &done {
                requests.done(id, request)?;
            }
            if let Some(base) = sweep {
                roster.sweep(&[base])?;
            }
            Ok(roster)
        })
    }

    async fn save_requests(&mut self) -> Result<(), Fault> {
        if self.done.is_empty() {
            return Ok(());
        }
        self.save(None, Outcomes::default()).await
    }

    // === What comes from outside ===

    /// Waits until something is to be done: a request, a change, a time.
    async fn rest(
        &mut self,
        run: Option<&mut RunNote>,
        until: Option<Instant>,
    ) -> Result<(), Fault> {
        let now = self.means.clock.instant();
        let sync = self.sync()?;
        let scheduled = self
            .next_scheduled(&sync)
            .filter(|_| sync.state == SyncState::Active)
            .map(|at| self.means.clock.instant_at(at));
        let at = [scheduled, until]
            .into_iter()
            .flatten()
            .fold(now + LONG, Instant::min);
        tokio::select! {
            wake = self.wakes.recv() => self.take(run, wake),
            () = tokio::time::sleep_until(at) => Ok(()),
        }
    }

    /// The next word from outside. Cancel-safe.
    pub(super) async fn wake(&mut self) -> Option<Wake> {
        self.wakes.recv().await
    }

    /// Takes up what came from outside.
    pub(super) fn take(
        &mut self,
        mut run: Option<&mut RunNote>,
        wake: Option<Wake>,
    ) -> Result<(), Fault> {
        let request = match wake {
            None | Some(Wake::Stop) => return Err(Fault::Stopped),
            Some(Wake::Changed) => return self.sync().map(drop),
            Some(Wake::Request(request)) => request,
        };
        if !self.note.has_handled(&request.id) {
            match request.ask {
                Ask::Look => self.look_at(run.as_deref_mut()),
                Ask::Cancel => self.cancel(run.as_deref_mut()),
                Ask::Run { approve_removals } => {
                    self.ask_run(run.as_deref_mut(), approve_removals)?;
                }
            }
            self.note.handle(request.id.clone());
        }
        if let Some(run) = run {
            run.bound_stop(self.means.clock.now(), self.means.bounds.stop_wait);
        }
        if !self.done.contains(&request.id) {
            self.done.push(request.id);
        }
        Ok(())
    }

    /// The cohort has changed: deltas that wait for approval are looked at with the newer ones.
    fn look_at(&mut self, run: Option<&mut RunNote>) {
        self.look = true;
        if let Some(run) = run.filter(|run| run.waits && run.scope != RunScope::Whole) {
            run.stop.get_or_insert(Stop::Replaced);
        }
    }

    fn cancel(&mut self, run: Option<&mut RunNote>) {
        self.note.queued = None;
        if let Some(run) = run {
            run.stop.get_or_insert(Stop::Cancelled);
        }
    }

    /// A run is asked for or due while another may be under way.
    pub(super) fn ask_run(
        &mut self,
        run: Option<&mut RunNote>,
        approved: bool,
    ) -> Result<(), Fault> {
        let Some(run) = run else {
            let before = self.note.queued.unwrap_or(false);
            self.note.queued = Some(before || approved);
            return Ok(());
        };
        if run.waits {
            if approved {
                (run.approved, run.waits) = (true, false);
            } else {
                // Planned anew, with the cohort as it is now.
                run.stop.get_or_insert(Stop::Replaced);
                self.note.queued.get_or_insert(false);
            }
            return Ok(());
        }
        match self.sync()?.overlap {
            Overlap::Skip => {}
            Overlap::Finish => drop(self.note.queued.get_or_insert(approved)),
            Overlap::Replace => {
                run.stop.get_or_insert(Stop::Replaced);
                self.note.queued.get_or_insert(approved);
            }
        }
        Ok(())
    }

    // === A run ===

    async fn carry_out(&mut self, mut run: RunNote) -> Result<(), Fault> {
        while run.waits && run.stop.is_none() {
            self.show(Some(&run), StatusState::WaitsForApproval, 0);
            self.rest(Some(&mut run), None).await?;
            self.follow_schedule(&mut run)?;
            self.save(Some(&run), Outcomes::default()).await?;
        }
        let is_begun = !run.results.is_empty();
        if run.stop.is_some() && !is_begun {
            return self.finish(run).await;
        }
        let mut ears = self.listen(&mut run).await?;
        if !self.make_list(&mut run, &mut ears).await? {
            return self.finish(run).await;
        }
        loop {
            self.start_jobs(&mut run, &mut ears).await?;
            pass::Pass::carry_out(self, &mut run, &mut ears).await?;
            self.end_jobs(&mut run, &mut ears).await?;
            let again = std::mem::take(&mut run.again);
            let is_over = again == 0 || run.pass + 1 >= self.means.bounds.passes;
            if run.stop.is_some() || is_over {
                return self.finish(run).await;
            }
            info!(sync = %self.id, run = run.id, members = again, "run goes over members again");
            self.next_pass(&mut run).await?;
            self.wait_between(&mut run).await?;
        }
    }

    /// A run that came due while another is under way.
    pub(super) fn follow_schedule(&mut self, run: &mut RunNote) -> Result<(), Fault> {
        let (sync, now) = (self.sync()?, self.means.clock.now());
        if sync.state == SyncState::Active && self.next_scheduled(&sync).is_some_and(|at| at <= now)
        {
            self.note.scheduled = Some(now);
            self.ask_run(Some(run), false)?;
        }
        Ok(())
    }

    async fn wait_between(&mut self, run: &mut RunNote) -> Result<(), Fault> {
        let until = self.means.clock.instant() + self.means.bounds.pass_wait;
        while self.means.clock.instant() < until && run.stop.is_none() {
            self.show(Some(run), StatusState::Running, 0);
            self.rest(Some(run), Some(until)).await?;
            self.follow_schedule(run)?;
        }
        Ok(())
    }

    /// From here on the roster as it is now is compared with.
    async fn next_pass(&mut self, run: &mut RunNote) -> Result<(), Fault> {
        run.pass += 1;
        run.holds_back = !self.note.late.is_empty();
        run.base = self.roster.as_ref().map_or(run.base, Roster::generation);
        run.ledger = Default::default();
        run.lost = 0;
        self.save(Some(run), Outcomes::default()).await
    }

    /// Hears of the run's chunks from where it had come to.
    async fn listen(&mut self, run: &mut RunNote) -> Result<Ears, Fault> {
        let sync = self.sync()?;
        let (reports, positions) = self.means.hub.listen(sync.subscription);
        let mut early = HashMap::new();
        if run.results.is_empty() {
            self.hear_late(&positions).await?;
            run.results.clone_from(&positions);
            // Stored before anything is written: whatever is reported is behind it.
            self.save(Some(run), Outcomes::default()).await?;
        } else {
            let (log, topic) = (&self.means.log, &self.means.topics.results);
            let span = (&run.results, &positions);
            let missed = between(log, topic, sync.subscription, span).await?;
            let missed = missed.into_iter();
            let own = missed.filter(|report| !self.note.late.hear(report.bulk));
            early.extend(own.map(|report| (report.bulk, report)));
        }
        Ok(Ears { reports, early })
    }

    pub(super) fn maker(&self, run: &RunNote) -> Result<Arc<Maker>, Fault> {
        let sync = self.sync()?;
        let own = sync.list.clone().map(serde_json::Value::String);
        Ok(Arc::new(Maker {
            list: own.or_else(|| self.note.list.clone()).unwrap_or_default(),
            sync,
            name: run.name(),
            jobs: run.jobs.clone(),
            deliveries: self.means.topics.deliveries.clone(),
        }))
    }

    /// Makes the partner's list, where the profile can and there is none. Says whether there is
    /// one, or none is needed.
    async fn make_list(&mut self, run: &mut RunNote, ears: &mut Ears) -> Result<bool, Fault> {
        let sync = self.sync()?;
        let has_list = sync.list.is_some() || self.note.list.is_some();
        let operations = &sync.profile.operations;
        if has_list || operations.create_list.is_none() || run.stop.is_some() {
            return Ok(true);
        }
        let call = Call {
            operation: schemas::profile::OperationKind::CreateList,
            name: String::new(),
            job: None,
        };
        match self.call(run, ears, (&call, None)).await? {
            Ok(mut captured) => {
                self.note.list = captured.remove("list");
                self.save(Some(run), Outcomes::default()).await?;
                Ok(true)
            }
            Err(why) => {
                let why = format!("the partner's list was not made: {why}");
                run.stop.get_or_insert(Stop::Failed(why));
                Ok(false)
            }
        }
    }

    /// Stores what the run came to.
    async fn finish(&mut self, run: RunNote) -> Result<(), Fault> {
        let summary = run.summary(self.means.clock.now());
        info!(sync = %self.id, run = run.id, outcome = summary.outcome, counts = ?run.counts,
            "run is over");
        if run.stop.is_none() {
            self.note.last_delta = Some(match &run.scope {
                RunScope::Whole => run.view.last_delta(),
                RunScope::Deltas(deltas) => deltas.last().map_or(0, |delta| delta.last),
            });
            self.look = true;
        }
        self.means.telemetry.ended(&summary);
        self.leave_late(&run);
        self.note.last = Some(summary);
        self.note.run = None;
        let roster = self.lend()?;
        let base = roster.generation();
        let saving = self.saving(roster, None, Outcomes::default(), Some(base));
        self.roster = Some(saving.await?);
        self.tell_held();
        Ok(())
    }

    /// Tells how many members the partner holds or may hold.
    fn tell_held(&self) {
        let held = self.roster.as_ref().and_then(Roster::held_known);
        self.means.teller.tell(MemberCountKey::Sync(self.id), held);
    }
}
