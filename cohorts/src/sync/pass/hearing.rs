//! Owns what reports make of the chunks of a pass: members settled, halves made, jobs asked after.
//!
//! Never settles a chunk twice: a report of what is not on its way is a repeat.

use std::time::Duration;

use schemas::profile::{JobState, OperationKind};
use schemas::records::{ResultRecord, ResultVerdict};

use super::{EARLY_MAX, Flying, InJob, Job, Pass, RETRY_WAIT, Ready, count};
use crate::Chunk;
use crate::sync::Fault;
use crate::sync::answer::{self, Heard, Taken};
use crate::sync::call::{PACE_WAIT, job_life_ms, job_state};
use crate::sync::note::Stop;
use crate::sync::pace::Turn;
use crate::sync::record::Call;
use futures_util::FutureExt;

/// For the last poll of a job and its report.
const POLL_GRACE_MS: i64 = 60_000;

impl Pass<'_> {
    pub(super) fn hear_all(&mut self) -> Result<(), Fault> {
        while self.saving.is_none() || !self.outcomes.are_many() {
            match self.ears.reports.try_recv() {
                Ok(report) => self.hear(report),
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                    return Err(Fault::Stopped);
                }
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, report: ResultRecord) {
        match self.flying.remove(&report.bulk) {
            Some(flying) => self.conclude(flying, report),
            None if self.runner.note.late.hear(report.bulk) => self.dirty = true,
            None if self.is_resuming && self.ears.early.len() < EARLY_MAX => {
                self.ears.early.insert(report.bulk, report);
            }
            // A second report of what is settled.
            None => {}
        }
    }

    pub(super) fn conclude(&mut self, mut flying: Flying, report: ResultRecord) {
        if let Some(job) = flying.poll.take() {
            return self.polled(flying, job, &report);
        }
        if let Some(why) = answer::is_over(&report) {
            self.run.stop.get_or_insert(Stop::Failed(why.to_owned()));
        }
        let heard = answer::heard(&flying.chunk, &report);
        if heard == Heard::Halves || answer::is_refusal(&report) || is_delivered(&report) {
            let chunk = (flying.chunk.len(), !flying.chunk.path().is_empty());
            self.refusals
                .hear(chunk, report.verdict, report.words.as_deref());
            if let Some(why) = self.refusals.verdict(self.run.counts.confirmed) {
                self.run.stop.get_or_insert(Stop::Failed(why));
            }
        }
        if heard == Heard::Halves {
            return self.halve(&flying.chunk);
        }
        let operations = &self.sync.profile.operations;
        let job = report
            .captured
            .get("job")
            .filter(|_| operations.poll.is_some() && operations.start_job.is_none())
            .filter(|_| report.verdict == ResultVerdict::Delivered);
        if let Some(id) = job.cloned() {
            let poll = operations.poll.as_ref();
            let until = self.runner.means.clock.now() + poll.map_or(0, job_life_ms);
            let job = Box::new(Job {
                report,
                id,
                polls: 0,
                turn: None,
                until,
            });
            return self.wait_for_job(flying, job);
        }
        let confirmed = self.run.counts.confirmed;
        let taken = if self.refusals.are_doubtful(confirmed) && answer::is_refusal(&report) {
            Taken::Doubted
        } else if self.run.jobs.is_empty() {
            Taken::Confirmed
        } else {
            Taken::Pending
        };
        self.settle(&flying, (&report, taken));
    }

    pub(super) fn halve(&mut self, chunk: &Chunk) {
        self.run.counts.halved += 1;
        self.bytes = self.bytes.saturating_sub(chunk.held_bytes());
        if let Some((front, behind)) = chunk.split() {
            self.ledger.split(chunk);
            for half in [behind, front] {
                self.bytes += half.held_bytes();
                self.ready.push_front(Ready {
                    is_tried: self.is_resuming,
                    chunk: half,
                    made: None,
                });
            }
        }
        self.dirty = true;
    }

    fn settle(&mut self, flying: &Flying, (report, taken): (&ResultRecord, Taken)) {
        let before = self.run.counts;
        let members = (&flying.chunk, flying.refused.as_slice());
        answer::settle(
            members,
            (report, taken),
            &mut self.outcomes,
            &mut self.run.counts,
        );
        let unknown = self.run.counts.unknown - before.unknown;
        self.run.again += self.run.counts.retry - before.retry;
        match (taken, report.verdict) {
            (Taken::Pending, ResultVerdict::Delivered) => {}
            (Taken::Pending, ResultVerdict::Dead | ResultVerdict::Rejected) => {
                self.run.lost += unknown;
            }
            (Taken::Confirmed | Taken::Doubted, _) => self.run.again += unknown,
        }
        self.close(&flying.chunk);
    }

    /// Nothing is heard, or nothing of it could be sent.
    pub(super) fn settle_unknown(&mut self, flying: &Flying, is_lost: bool) {
        let members = (&flying.chunk, flying.refused.as_slice());
        answer::settle_unknown(members, &mut self.outcomes, &mut self.run.counts);
        if is_lost {
            let members = count(flying.chunk.len() - flying.refused.len());
            if self.run.jobs.is_empty() {
                self.run.again += members;
            } else {
                self.run.lost += members;
            }
        }
        self.close(&flying.chunk);
    }

    fn close(&mut self, chunk: &Chunk) {
        self.run.counts.chunks += 1;
        self.bytes = self.bytes.saturating_sub(chunk.held_bytes());
        self.ledger.settle(chunk);
        self.dirty = true;
    }

    /// Credit that is not returned within a delivery's life becomes unknown.
    pub(super) fn expire(&mut self) {
        let now = self.runner.means.clock.now();
        let over: Vec<u128> = self
            .flying
            .iter()
            .filter(|(_, flying)| flying.expires_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(flying) = self.flying.remove(&id) {
                self.settle_unknown(&flying, true);
            }
        }
    }

    // === Jobs of single chunks ===

    fn wait_for_job(&mut self, flying: Flying, mut job: Box<Job>) {
        job.turn = None;
        let poll = self.sync.profile.operations.poll.as_ref();
        let every = poll.map_or(RETRY_WAIT, |poll| {
            Duration::from_secs(poll.every.get().into())
        });
        self.jobs.push(InJob {
            chunk: flying.chunk,
            refused: flying.refused,
            job,
            due: self.runner.means.clock.instant() + every,
        });
    }

    pub(super) fn ask_again(&mut self, mut flying: Flying) {
        if let Some(job) = flying.poll.take() {
            self.wait_for_job(flying, job);
        }
    }

    pub(super) fn ask_after_jobs(&mut self) -> Result<(), Fault> {
        let now = self.runner.means.clock.instant();
        let due: Vec<InJob> = self.jobs.extract_if(.., |job| job.due <= now).collect();
        for mut waiting in due {
            let expires_at = waiting.job.until.saturating_add(POLL_GRACE_MS);
            let call = Call {
                operation: OperationKind::Poll,
                name: format!("{:032x}/{}", waiting.job.report.bulk, waiting.job.polls),
                job: Some(waiting.job.id.clone()),
            };
            let id = self.maker.call_id(&call);
            if !self.ears.early.contains_key(&id) {
                waiting.job.turn = self.poll_turn();
                if waiting.job.turn.is_none() {
                    waiting.due = now + PACE_WAIT;
                    self.jobs.push(waiting);
                    continue;
                }
            }
            waiting.job.polls += 1;
            let flying = Flying {
                chunk: waiting.chunk,
                refused: waiting.refused,
                expires_at,
                poll: Some(waiting.job),
            };
            if let Some(report) = self.ears.early.remove(&id) {
                self.conclude(flying, report);
                continue;
            }
            let record = self.maker.call(&call, self.at())?;
            self.flying.insert(id, flying);
            match self.runner.means.producer.try_send(vec![record]) {
                Ok(acks) => {
                    let waiting = async move { (vec![id], acks.wait().await) };
                    self.writing.push(waiting.boxed());
                }
                Err(_) => self.written((vec![id], Vec::new())),
            }
        }
        Ok(())
    }

    fn poll_turn(&self) -> Option<Turn> {
        let poll = self.sync.profile.operations.poll.as_ref()?;
        self.runner.poll_turn(&self.sync, poll)
    }

    fn polled(&mut self, flying: Flying, job: Box<Job>, report: &ResultRecord) {
        let poll = self.sync.profile.operations.poll.as_ref();
        let state = match (poll, report.verdict) {
            (Some(poll), ResultVerdict::Delivered) => job_state(poll, &report.captured),
            (Some(_), ResultVerdict::Dead | ResultVerdict::Rejected) => JobState::Running,
            (None, _) => JobState::Done,
        };
        let is_given_up = job.until <= self.runner.means.clock.now();
        match state {
            JobState::Done => self.settle(&flying, (&job.report, Taken::Confirmed)),
            JobState::Running if !is_given_up => self.wait_for_job(flying, job),
            JobState::Running | JobState::Failed => self.settle_unknown(&flying, true),
        }
    }
}

fn is_delivered(report: &ResultRecord) -> bool {
    report.verdict == ResultVerdict::Delivered
}
