//! Owns requests without members: making a list, starting a job, letting it run, asking after it.
//! They go the way of chunks, one at a time, while nothing else of the run is on its way.
//!
//! The surprise: what a job was given is unknown until the job's end says otherwise; then the
//! roster itself tells who was in it.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::log::NotWritten;
use schemas::profile::{JobState, OperationKind, Poll};
use schemas::records::{ResultRecord, ResultVerdict};
use schemas::resources::{Quota, Sync};
use serde_json::Value;

use super::note::{RunNote, Stop};
use super::pace::Turn;
use super::record::Call;
use super::runner::{Ears, Runner};
use super::{Fault, Means};
use crate::item::Standing;
use crate::roster::Items;
use crate::{Error, Operation, Outcomes, Roster, Verdict};

/// Before a record is written again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Before a partner whose windows for polls are full may be asked.
pub(super) const PACE_WAIT: Duration = Duration::from_millis(250);

/// What an answer held, or why there was none that counts.
pub(super) type Called = Result<BTreeMap<String, Value>, String>;

impl Runner {
    /// Makes one request and waits for its outcome: until a deadline; without one, as long as any
    /// delivery lives, or until the run is to end.
    pub(super) async fn call(
        &mut self,
        run: &mut RunNote,
        ears: &mut Ears,
        (call, deadline): (&Call, Option<i64>),
    ) -> Result<Called, Fault> {
        let maker = self.maker(run)?;
        let id = maker.call_id(call);
        if let Some(report) = ears.early.remove(&id) {
            return Ok(called(report));
        }
        let sync = self.sync()?;
        loop {
            let at = (self.means.clock.now(), self.means.directory.applied());
            let record = maker.call(call, at)?;
            let written = self.means.producer.send(vec![record]).await.wait().await;
            match written.first() {
                Some(Ok(_)) => break,
                Some(Err(why @ (NotWritten::TooLarge | NotWritten::Invalid))) => {
                    return Ok(Err(why.to_string()));
                }
                // A second copy has the same mark: it is dropped (rule 3).
                Some(Err(NotWritten::TimedOut | NotWritten::Unknown)) | None => {
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
        let life = self.means.clock.now().saturating_add(self.life_ms(&sync));
        loop {
            let until = deadline.or(run.stop_until).unwrap_or(life).min(life);
            let until = self.means.clock.instant_at(until);
            tokio::select! {
                report = ears.reports.recv() => {
                    let report = report.ok_or(Fault::Stopped)?;
                    if report.bulk == id {
                        return Ok(called(report));
                    }
                    if !self.note.late.hear(report.bulk) {
                        ears.early.insert(report.bulk, report);
                    }
                }
                wake = self.wake() => self.take(Some(run), wake)?,
                () = tokio::time::sleep_until(until) => {
                    return Ok(Err("nothing was heard of it".to_owned()));
                }
            }
        }
    }

    /// Starts the jobs that members are put into, where the profile has such.
    pub(super) async fn start_jobs(
        &mut self,
        run: &mut RunNote,
        ears: &mut Ears,
    ) -> Result<(), Fault> {
        let sync = self.sync()?;
        if sync.profile.operations.start_job.is_none() || run.stop.is_some() {
            return Ok(());
        }
        let sides = [
            ("add", run.planned.add + run.planned.update),
            ("remove", run.planned.remove),
        ];
        for (side, members) in sides {
            if members == 0 || run.jobs.contains_key(side) {
                continue;
            }
            let call = Call {
                operation: OperationKind::StartJob,
                name: side.to_owned(),
                job: None,
            };
            match self.call(run, ears, (&call, None)).await? {
                Ok(mut captured) => {
                    let job = captured.remove("job").unwrap_or_default();
                    run.jobs.insert(side.to_owned(), job);
                }
                Err(why) => {
                    let why = format!("the partner's job was not started: {why}");
                    run.stop.get_or_insert(Stop::Failed(why));
                }
            }
        }
        self.save(Some(run), Outcomes::default()).await
    }

    /// Lets the jobs run and waits for their ends: only then are their members confirmed (rule 15).
    pub(super) async fn end_jobs(
        &mut self,
        run: &mut RunNote,
        ears: &mut Ears,
    ) -> Result<(), Fault> {
        let jobs = run.jobs.clone();
        for (side, job) in jobs {
            if run.counts.sent > 0 {
                let ended = self.end_job(run, ears, (&side, &job)).await?;
                match ended {
                    // Who was in a chunk of which nothing was heard is sent again with the rest.
                    JobState::Done if run.lost > 0 => run.again += run.lost,
                    JobState::Done => self.confirm(run, &side).await?,
                    JobState::Running | JobState::Failed => {
                        let why = format!("the partner's job for `{side}` did not succeed");
                        run.stop.get_or_insert(Stop::Failed(why));
                    }
                }
            }
            run.jobs.remove(&side);
        }
        Ok(())
    }

    async fn end_job(
        &mut self,
        run: &mut RunNote,
        ears: &mut Ears,
        (side, job): (&str, &Value),
    ) -> Result<JobState, Fault> {
        let sync = self.sync()?;
        let operations = &sync.profile.operations;
        let call = |operation, name| Call {
            operation,
            name,
            job: Some(job.clone()),
        };
        // A job is waited for to its end, whatever becomes of the run: it changes the list.
        let life = operations.poll.as_ref().map(job_life_ms);
        let now = self.means.clock.now();
        let deadline = life.map(|life| now.saturating_add(life));
        if operations.run_job.is_some() {
            let run_job = call(OperationKind::RunJob, side.to_owned());
            if self.call(run, ears, (&run_job, deadline)).await?.is_err() {
                return Ok(JobState::Failed);
            }
        }
        let (Some(poll), Some(deadline)) = (&operations.poll, deadline) else {
            return Ok(JobState::Done);
        };
        let every = Duration::from_secs(poll.every.get().into());
        let mut number = 0_u32;
        while self.means.clock.now() < deadline {
            let Some(_turn) = self.poll_turn(&sync, poll) else {
                self.pause(run, PACE_WAIT).await?;
                continue;
            };
            let asked = call(OperationKind::Poll, format!("{side}/{number}"));
            number += 1;
            if let Ok(captured) = self.call(run, ears, (&asked, Some(deadline))).await? {
                match job_state(poll, &captured) {
                    JobState::Running => {}
                    ended @ (JobState::Done | JobState::Failed) => return Ok(ended),
                }
            }
            self.pause(run, every).await?;
        }
        Ok(JobState::Failed)
    }

    /// The turn of a poll, by the windows that its partner has for those.
    pub(super) fn poll_turn(&self, sync: &Sync, poll: &Poll) -> Option<Turn> {
        let quota = self.quota(sync);
        self.means.pace.take(&quota, poll, &self.means.clock)
    }

    /// What the sync's endpoint spends with others of its account.
    pub(super) fn quota(&self, sync: &Sync) -> Quota {
        let facts = self.means.directory.endpoint(sync.endpoint);
        let own = || Quota::of_endpoint(sync.endpoint);
        facts.map_or_else(own, |facts| facts.quota)
    }

    /// Takes up what comes from outside for so long.
    async fn pause(&mut self, run: &mut RunNote, time: Duration) -> Result<(), Fault> {
        let until = self.means.clock.instant() + time;
        while self.means.clock.instant() < until {
            tokio::select! {
                wake = self.wake() => self.take(Some(run), wake)?,
                () = tokio::time::sleep_until(until) => {}
            }
        }
        Ok(())
    }

    /// Confirms the members that the roster says are unknown on one side: those that the job held.
    async fn confirm(&mut self, run: &mut RunNote, side: &str) -> Result<(), Fault> {
        let roster = self.lend()?;
        let is_removal = side == super::record::side(Operation::Remove);
        let work = move || confirm_unknown(roster, is_removal);
        let turns = std::sync::Arc::clone(&self.means.turns);
        let (roster, outcomes, confirmed) = Means::blocking(turns, work).await?;
        self.roster = Some(roster);
        run.counts.confirmed += confirmed;
        if is_removal {
            run.counts.removed += confirmed;
        }
        run.counts.unknown = run.counts.unknown.saturating_sub(confirmed);
        self.save(Some(run), outcomes).await
    }
}

fn confirm_unknown(mut roster: Roster, is_removal: bool) -> Result<(Roster, Outcomes, u64), Error> {
    let (mut outcomes, mut confirmed) = (Outcomes::default(), 0);
    let mut items = Items::new(&roster);
    let note = roster.note().clone();
    while items.advance()? {
        let Some((key, item)) = items.item()? else {
            continue;
        };
        if item.standing != Standing::Unknown || item.leaving != is_removal {
            continue;
        }
        let operation = if is_removal {
            Operation::Remove
        } else {
            Operation::Add
        };
        let sent = (item.hash, item.fields);
        outcomes.record(key, (operation, item.held), sent, Verdict::Confirmed);
        confirmed += 1;
        if outcomes.are_many() {
            // Read from the generation that this began with: what is written now is not read.
            roster.apply(&mut outcomes, note.clone())?;
        }
    }
    Ok((roster, outcomes, confirmed))
}

/// How long something is expected of a job, in milliseconds.
pub(super) fn job_life_ms(poll: &Poll) -> i64 {
    i64::from(poll.until.get()).saturating_mul(1_000)
}

/// What was kept of an answer to a poll says of its job.
pub(super) fn job_state(poll: &Poll, captured: &BTreeMap<String, Value>) -> JobState {
    let says = |says: &schemas::profile::Says| {
        let names = poll.request.capture.iter();
        names
            .filter(|(_, at)| **at == says.at)
            .filter_map(|(name, _)| captured.get(name))
            .any(|found| says.values.contains(found))
    };
    if says(&poll.failed) {
        JobState::Failed
    } else if says(&poll.done) {
        JobState::Done
    } else {
        JobState::Running
    }
}

fn called(report: ResultRecord) -> Called {
    match report.verdict {
        ResultVerdict::Delivered => Ok(report.captured),
        ResultVerdict::Rejected => Err("the partner refused the request".to_owned()),
        ResultVerdict::Dead => {
            let reason = report.reason.map_or("dead", |reason| reason.as_str());
            Err(format!("it is a dead letter, reason {reason}"))
        }
    }
}
