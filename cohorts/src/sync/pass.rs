//! Owns one pass of a run: chunks made, written as far as credit goes, heard of, and stored.
//!
//! Never more unreported than the bounds say, in chunks and in bytes, and no chunk written beyond
//! what is stored as ahead. The surprise: a chunk may be made several times (after a crash), and is
//! written again then; its record has the same mark, so that dispatchers drop the repeat (rule 3),
//! and what was reported meanwhile is found before it is written.

mod ending;
mod hearing;
mod refusals;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use runtime::log::NotWritten;
use schemas::records::ResultRecord;
use schemas::resources::{EndpointState, Sync, SyncState};
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use self::refusals::{PIECES_AT_ONCE, Refusals};
use super::desk::{self, Batch, Desk};
use super::ledger::Ledger;
use super::live::StatusState;
use super::note::{Ahead, RunNote};
use super::pace::Turn;
use super::record::{Made, Maker};
use super::runner::{Ears, Runner, Wake};
use super::{Fault, Means, roster_folder};
use crate::sealed::{seal, unseal};
use crate::{Chunk, Error, Outcomes, Position, Roster};

/// The most bytes of one run's unreported chunks.
const RUN_BYTES_MAX: usize = 32 << 20;
/// Chunks made or written in one turn.
const TURN_CHUNKS: usize = 64;
/// So many chunks of each operation are stored as ahead at once.
const AHEAD: u64 = 2_048;
/// Reports about chunks that are not made yet: all of two saves, and far more.
const EARLY_MAX: usize = 262_144;
/// Generations of the roster between two sweeps.
const SWEEP_EVERY: u32 = 32;
/// How often what is shown is renewed.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// Before a record is written again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

const AHEAD_NAME: &str = "ahead.json";

/// One pass that is under way.
pub(super) struct Pass<'r> {
    runner: &'r mut Runner,
    run: &'r mut RunNote,
    ears: &'r mut Ears,
    sync: Arc<Sync>,
    maker: Arc<Maker>,
    ledger: Ledger,
    ready: VecDeque<Ready>,
    flying: HashMap<u128, Flying>,
    /// Chunks in jobs that have not ended.
    jobs: Vec<InJob>,
    bytes: usize,
    outcomes: Outcomes,
    desk: Option<Desk>,
    reading: Option<Blocking<(Desk, Batch)>>,
    saving: Option<Blocking<Roster>>,
    stretching: Option<Blocking<Position>>,
    writing: FuturesUnordered<Written>,
    /// No chunk of these numbers or higher ones may be written.
    below: Position,
    /// Chunks below these may have been written before this process began.
    must_reach: Position,
    /// Chunks below these had been made when this process began.
    restored: Position,
    /// Pieces of those that had no outcome, and are not made again yet.
    to_remake: usize,
    is_resuming: bool,
    ended: bool,
    dirty: bool,
    saved_at: Instant,
    shown_at: Option<Instant>,
    followed_at: Option<Instant>,
    /// No record is written before, as the log has just refused some.
    hold_until: Option<Instant>,
    saves: u32,
    refusals: Refusals,
}

type Blocking<T> = BoxFuture<'static, Result<T, Error>>;
type Written = BoxFuture<'static, (Vec<u128>, Vec<Result<i64, NotWritten>>)>;

/// A chunk that is to be written.
struct Ready {
    chunk: Chunk,
    made: Option<Made>,
    /// It may be in the log already.
    is_tried: bool,
}

/// A chunk that was written and not reported.
struct Flying {
    chunk: Chunk,
    refused: Vec<(usize, String)>,
    expires_at: i64,
    /// The job that this asks after, with the report that named it.
    poll: Option<Box<Job>>,
}

/// A job that the members of one chunk are in.
struct Job {
    report: ResultRecord,
    id: Value,
    polls: u32,
    /// Its poll that is under way.
    turn: Option<Turn>,
    /// Nothing is expected of it after that, unix milliseconds.
    until: i64,
}

struct InJob {
    chunk: Chunk,
    refused: Vec<(usize, String)>,
    job: Box<Job>,
    due: Instant,
}

impl<'r> Pass<'r> {
    /// Carries a pass out to its end: everything that was written is reported and stored.
    pub(super) async fn carry_out(
        runner: &'r mut Runner,
        run: &'r mut RunNote,
        ears: &'r mut Ears,
    ) -> Result<(), Fault> {
        let mut pass = Self::open(runner, run, ears).await?;
        let driven = pass.drive().await;
        // A generation that is being written must not race with the next owner's, which is us.
        if let Some(saving) = pass.saving.take() {
            drop(saving.await);
        }
        driven
    }

    async fn open(
        runner: &'r mut Runner,
        run: &'r mut RunNote,
        ears: &'r mut Ears,
    ) -> Result<Self, Fault> {
        let sync = runner.sync()?;
        let maker = runner.maker(run)?;
        let ledger = Ledger::restore(&run.ledger);
        let (folder, name) = (runner.folder(), run.name());
        let (cohort, roster) = (runner.cohort()?, roster_folder(&runner.means.root, sync.id));
        let (base, identity) = (run.base, super::identity(&sync));
        let (view, scope) = (run.view.clone(), run.scope.clone());
        let (limits, from, own) = (run.limits, ledger.lowest(), Arc::clone(&maker));
        let holds_back = run.holds_back;
        let work = move || {
            let base = Roster::open_at(roster, base, &identity)?;
            let members = desk::members(&cohort, &view, &scope);
            let desk = Desk::open(members, (&base, holds_back), (limits, from), own);
            Ok((desk, read_ahead(&folder, &name)?))
        };
        let (desk, below) = Means::blocking(Arc::clone(&runner.means.turns), work).await?;
        let saved_at = runner.means.clock.instant();
        let (restored, to_remake) = (ledger.made(), ledger.open_pieces());
        // Of a run that was stopped nothing was written beyond what its ledger has.
        let must_reach = if run.closed { restored } else { below };
        Ok(Self {
            sync,
            maker,
            ledger,
            ready: VecDeque::new(),
            flying: HashMap::new(),
            jobs: Vec::new(),
            bytes: 0,
            outcomes: Outcomes::default(),
            desk: Some(desk),
            reading: None,
            saving: None,
            stretching: None,
            writing: FuturesUnordered::new(),
            below,
            must_reach,
            restored,
            to_remake,
            is_resuming: true,
            ended: false,
            dirty: true,
            saved_at,
            shown_at: None,
            followed_at: None,
            hold_until: None,
            saves: 0,
            refusals: Refusals::default(),
            runner,
            run,
            ears,
        })
    }

    async fn drive(&mut self) -> Result<(), Fault> {
        loop {
            self.follow()?;
            self.follow_stop();
            self.hear_all()?;
            self.expire();
            self.ask_after_jobs()?;
            self.make();
            self.leave_out();
            self.give_up()?;
            self.stretch();
            self.write().await?;
            self.end_resuming();
            self.save()?;
            self.show();
            if self.is_over() {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Takes the sync over as it is in `control`.
    fn follow(&mut self) -> Result<(), Fault> {
        self.sync = self.runner.sync()?;
        let now = self.runner.means.clock.instant();
        if self.followed_at.is_some_and(|at| now < at + SHOW_EVERY) {
            return Ok(());
        }
        // Reading a schedule takes as long as many chunks.
        self.followed_at = Some(now);
        self.runner.follow_schedule(self.run)
    }

    // === Making chunks ===

    fn credit_left(&self) -> usize {
        let used = self.flying.len() + self.ready.len() + self.jobs.len();
        self.runner.means.bounds.chunks.saturating_sub(used)
    }

    /// Halves are more than what was refused: they wait for credit too.
    fn has_credit(&self) -> bool {
        self.flying.len() + self.jobs.len() < self.runner.means.bounds.chunks
    }

    /// Whether what is ready first may be written now: with its turn, its number, and, where a
    /// partner refuses one request after the other, only a piece of what it refused.
    fn is_first_due(&self) -> bool {
        let Some(first) = self.ready.front() else {
            return false;
        };
        let is_below = first.chunk.number() < self.below.of(first.chunk.operation());
        let is_sought = !self.refusals.are_many()
            || self.flying.is_empty()
            || (!first.chunk.path().is_empty() && self.flying.len() < PIECES_AT_ONCE);
        is_below && is_sought && self.has_credit()
    }

    /// Whether pieces of refused requests are to be sent before anything else.
    fn has_pieces(&self) -> bool {
        self.refusals.are_many() && !self.ready.is_empty()
    }

    /// This run's share of the bytes of all runs.
    fn bytes_max(&self) -> usize {
        let running = self.runner.means.live.running().max(1);
        (self.runner.means.bounds.bytes / running).min(RUN_BYTES_MAX)
    }

    fn has_room(&self) -> bool {
        let is_idle = self.flying.is_empty() && self.ready.is_empty() && self.jobs.is_empty();
        is_idle || (self.credit_left() > 0 && self.bytes < self.bytes_max())
    }

    fn may_send(&self) -> bool {
        let facts = self.runner.means.directory.endpoint(self.sync.endpoint);
        let is_held = facts.is_none_or(|facts| facts.state == EndpointState::Disabled);
        self.sync.state == SyncState::Active && !is_held
    }

    fn make(&mut self) {
        // What is given up is made without being sent.
        let is_of_use = self.gives_up() || (self.may_send() && !self.has_pieces());
        if self.ended || self.is_stopped() || !is_of_use || !self.has_room() {
            return;
        }
        let Some(mut desk) = self.desk.take() else {
            return;
        };
        let most = self.credit_left().clamp(1, TURN_CHUNKS);
        let room = self.bytes_max().saturating_sub(self.bytes);
        let at = self.at();
        let work = move || {
            let batch = desk.next((most, room), at)?;
            Ok((desk, batch))
        };
        let turns = Arc::clone(&self.runner.means.turns);
        self.reading = Some(Means::blocking(turns, work).boxed());
    }

    fn at(&self) -> (i64, i64) {
        let means = &self.runner.means;
        (means.clock.now(), means.directory.applied())
    }

    fn made(&mut self, (desk, batch): (Desk, Batch)) {
        self.desk = Some(desk);
        self.ended = batch.ended;
        for (chunk, made) in batch.chunks {
            let mut whole = Some(made);
            for piece in self.ledger.take(chunk) {
                let (operation, number) = (piece.operation(), piece.number());
                if number < self.restored.of(operation) {
                    self.to_remake = self.to_remake.saturating_sub(1);
                }
                let made = whole.take().filter(|_| piece.path().is_empty());
                self.bytes += piece.held_bytes();
                self.ready.push_back(Ready {
                    is_tried: self.is_resuming && number < self.must_reach.of(operation),
                    chunk: piece,
                    made,
                });
            }
        }
        self.dirty = true;
    }

    /// Stores that more chunks may be written, well before that is needed.
    fn stretch(&mut self) {
        let made = self.ledger.made();
        let is_short = crate::Operation::ALL
            .into_iter()
            .any(|operation| made.of(operation) + AHEAD / 2 > self.below.of(operation));
        if !is_short || self.stretching.is_some() || self.is_stopped() {
            return;
        }
        let mut below = self.below;
        for operation in crate::Operation::ALL {
            below.set(
                operation,
                (made.of(operation) + AHEAD).max(below.of(operation)),
            );
        }
        let (folder, name) = (self.runner.folder(), self.run.name());
        let work = move || {
            let ahead = Ahead { name, below };
            folder.put(AHEAD_NAME, seal(AHEAD_NAME, &ahead)?)?;
            Ok(below)
        };
        let turns = Arc::clone(&self.runner.means.turns);
        self.stretching = Some(Means::blocking(turns, work).boxed());
    }

    // === Writing them ===

    async fn write(&mut self) -> Result<(), Fault> {
        let now = self.runner.means.clock.instant();
        if !self.may_send() || self.hold_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let life = self.runner.life_ms(&self.sync);
        let (mut records, mut ids) = (Vec::new(), Vec::new());
        while records.len() < TURN_CHUNKS && self.is_first_due() {
            let Some(Ready { chunk, made, .. }) = self.ready.pop_front() else {
                break;
            };
            let made = match made {
                Some(made) => made,
                None => self.maker.chunk(&chunk, self.at())?,
            };
            let expires_at = self.runner.means.clock.now().saturating_add(life);
            let flying = Flying {
                chunk,
                refused: made.refused,
                expires_at,
                poll: None,
            };
            match (self.ears.early.remove(&made.id), made.record) {
                (Some(report), _) => self.conclude(flying, report),
                (None, None) => self.settle_unknown(&flying, false),
                (None, Some(record)) => {
                    let sent = flying.chunk.len() - flying.refused.len();
                    self.run.counts.sent += count(sent);
                    self.flying.insert(made.id, flying);
                    records.push(record);
                    ids.push(made.id);
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.runner.means.telemetry.chunks.inc_by(count(ids.len()));
        let acks = self.runner.means.producer.send(records).await;
        let waiting = async move { (ids, acks.wait().await) };
        self.writing.push(waiting.boxed());
        Ok(())
    }

    /// What the log says of records: one that it did not take is written again.
    fn written(&mut self, (ids, mut reports): (Vec<u128>, Vec<Result<i64, NotWritten>>)) {
        reports.resize(ids.len(), Err(NotWritten::Unknown));
        for (id, report) in ids.into_iter().zip(reports) {
            let Err(why) = report else { continue };
            let Some(flying) = self.flying.remove(&id) else {
                // Reported already: it was written.
                continue;
            };
            if flying.poll.is_some() {
                self.ask_again(flying);
            } else if !why.is_permanent() {
                self.ready.push_front(Ready {
                    chunk: flying.chunk,
                    made: None,
                    is_tried: true,
                });
            } else if flying.chunk.len() > 1 {
                self.halve(&flying.chunk);
            } else {
                warn!(sync = %self.sync.id, %why, "member cannot be sent");
                self.settle_unknown(&flying, true);
            }
            self.hold_until = Some(self.runner.means.clock.instant() + RETRY_WAIT);
        }
    }

    // === Storing ===

    /// Whatever may have been written by another process is made again by now.
    fn end_resuming(&mut self) {
        if !self.is_resuming || !self.ready.is_empty() || self.reading.is_some() {
            return;
        }
        let made = self.ledger.made();
        let is_made = crate::Operation::ALL
            .into_iter()
            .all(|operation| made.of(operation) >= self.must_reach.of(operation));
        if self.ended || (is_made && self.to_remake == 0) {
            self.is_resuming = false;
            if self.sync.profile.operations.poll.is_none() {
                self.ears.early.clear();
            }
        }
    }

    fn is_quiet(&self) -> bool {
        (self.ended || self.is_stopped())
            && self.ready.is_empty()
            && self.flying.is_empty()
            && self.jobs.is_empty()
            && self.writing.is_empty()
            && self.reading.is_none()
            && self.stretching.is_none()
    }

    fn save(&mut self) -> Result<(), Fault> {
        let now = self.runner.means.clock.instant();
        let is_due = now >= self.saved_at + self.runner.means.bounds.save_every;
        let is_wanted = is_due || self.outcomes.are_many() || self.is_quiet();
        if !self.dirty || !is_wanted || self.saving.is_some() {
            return Ok(());
        }
        // All reports before these have been handed to us, and are taken in now.
        let positions = self.runner.means.hub.positions();
        self.hear_all()?;
        // What was reported of chunks that are not made yet must be read again after a crash.
        if self.ears.early.is_empty() && self.jobs.is_empty() && !self.has_polls() {
            self.run.results = positions;
        }
        self.run.ledger = self.ledger.state();
        self.run.closed |= self.is_stopped();
        let outcomes = std::mem::take(&mut self.outcomes);
        self.saves += 1;
        let sweep = self
            .saves
            .is_multiple_of(SWEEP_EVERY)
            .then_some(self.run.base);
        let roster = self.runner.lend()?;
        let saving = self.runner.saving(roster, Some(self.run), outcomes, sweep);
        self.saving = Some(saving.boxed());
        self.dirty = false;
        self.saved_at = now;
        Ok(())
    }

    fn has_polls(&self) -> bool {
        self.flying.values().any(|flying| flying.poll.is_some())
    }

    fn is_over(&self) -> bool {
        self.is_quiet() && self.saving.is_none() && !self.dirty
    }

    fn show(&mut self) {
        let now = self.runner.means.clock.instant();
        if self.shown_at.is_some_and(|at| now < at + SHOW_EVERY) {
            return;
        }
        self.shown_at = Some(now);
        let state = if self.may_send() || self.sync.state == SyncState::Paused {
            StatusState::Running
        } else {
            StatusState::EndpointDisabled
        };
        let in_flight = count(self.flying.len());
        self.runner.show(Some(self.run), state, in_flight);
    }

    // === Waiting ===

    fn wake_at(&self) -> Instant {
        let means = &self.runner.means;
        let now = means.clock.instant();
        let expiry = self.flying.values().map(|flying| flying.expires_at).min();
        let save = (self.dirty && self.saving.is_none())
            .then_some(self.saved_at + means.bounds.save_every);
        let job = self.jobs.iter().map(|job| job.due).min();
        // The schedule and what is shown are looked at so often anyway.
        let soonest = now + SHOW_EVERY;
        expiry
            .into_iter()
            .map(|at| means.clock.instant_at(at) + Duration::from_millis(1))
            .chain(
                [save, job, self.hold_until.filter(|at| *at > now)]
                    .into_iter()
                    .flatten(),
            )
            .fold(soonest, Instant::min)
    }

    async fn wait(&mut self) -> Result<(), Fault> {
        let until = self.wake_at();
        let can_hear = self.saving.is_none() || !self.outcomes.are_many();
        let now = self.runner.means.clock.instant();
        let is_held = self.hold_until.is_some_and(|at| now < at);
        if self.is_first_due() && self.may_send() && !is_held {
            return Ok(());
        }
        let mut wake: Option<Option<Wake>> = None;
        tokio::select! {
            report = self.ears.reports.recv(), if can_hear => {
                self.hear(report.ok_or(Fault::Stopped)?);
            }
            Some(written) = self.writing.next(), if !self.writing.is_empty() => {
                self.written(written);
            }
            read = job(&mut self.reading) => {
                self.reading = None;
                self.made(read?);
            }
            below = job(&mut self.stretching) => {
                self.stretching = None;
                self.below = below?;
            }
            roster = job(&mut self.saving) => {
                self.saving = None;
                self.runner.roster = Some(roster?);
            }
            told = self.runner.wake() => wake = Some(told),
            () = tokio::time::sleep_until(until) => {}
        }
        if let Some(wake) = wake {
            self.runner.take(Some(self.run), wake)?;
            self.dirty = true;
        }
        Ok(())
    }
}

/// The end of blocking work; never, where there is none.
async fn job<T>(work: &mut Option<Blocking<T>>) -> Result<T, Error> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// How far the chunks of a pass may have been written.
fn read_ahead(folder: &crate::Store, name: &str) -> Result<Position, Error> {
    match folder.get(AHEAD_NAME) {
        Ok(bytes) => {
            let ahead: Ahead = unseal(AHEAD_NAME, &bytes)?;
            let is_ours = ahead.name == name;
            Ok(if is_ours {
                ahead.below
            } else {
                Position::default()
            })
        }
        Err(Error::Missing(_)) => Ok(Position::default()),
        Err(error) => Err(error),
    }
}

fn count(members: usize) -> u64 {
    u64::try_from(members).unwrap_or(u64::MAX)
}
