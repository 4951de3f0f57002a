//! Owns the dispatcher's loop: membership, reading, lanes, attempts, transactions and commits of
//! every placement that this process owns.
//!
//! One task owns all of it; whatever takes time is a future that this task awaits beside its
//! messages, so that nothing here is shared and nothing needs a lock. It must never await anything
//! else: a slow log or endpoint holds up no other.

mod attempt;
mod attempts;
mod batching;
mod chunks;
mod commits;
mod control_end;
mod disabling;
mod forgetting;
mod handover;
mod health;
mod intake;
mod lease;
mod moves;
mod ordering;
mod ownership;
mod preparing;
mod recalling;
mod recording;
mod reenabling;
mod replacing;
mod senders;
mod timers;
mod tokens;
mod transact;
mod transforming;
mod verdicts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use runtime::clock::{Clock, Entropy};
use runtime::log::topics::Topics;
use runtime::log::{
    Fetched, GroupMetadata, Member, Membership, NotWritten, Partition, Producer, Reader, Record,
    Revocation, SharedLog, Transactions,
};
use runtime::view::Follower;
use schemas::ids::EndpointId;
use schemas::resources::{DisabledReason, Quota};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::delivery::Transport;
use crate::endpoints::Endpoints;
use crate::metrics::Metrics;
use crate::outage::Outage;
use crate::owned::{Owned, Tenure};
use crate::probation::Probation;
use crate::throughput::Throughput;
use crate::work::{Delivery, Meter};
use crate::{Options, Stopped};

use attempt::Finished;
use commits::{CommitDone, Plain};
use control_end::ControlEnd;
use moves::{Move, TransactionDone};
use ownership::{Overtaken, TakenOver};
use recalling::Recalled;
use senders::Sending;
use timers::Timers;

pub use senders::Senders;

pub(crate) use lease::Lease;

/// So many best-effort records are handed over at once …
const RECORDS_TOGETHER: usize = 64;
/// … or those that there are after this time.
const RECORDS_WAIT: Duration = Duration::from_millis(10);

/// What the engine is built from.
pub(crate) struct Parts<T> {
    pub(crate) options: Options,
    pub(crate) topics: Topics,
    pub(crate) log: SharedLog,
    pub(crate) member: Arc<dyn Member>,
    pub(crate) membership: mpsc::UnboundedReceiver<Membership>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) fetched: mpsc::Receiver<Fetched>,
    /// Re-produces targets to their placement, durably.
    pub(crate) producer: Arc<dyn Producer>,
    /// Writes attempts and reports, best effort.
    pub(crate) recorder: Arc<dyn Producer>,
    pub(crate) follower: Follower,
    pub(crate) endpoints: Endpoints,
    pub(crate) transport: Arc<T>,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) metrics: Metrics,
}

/// A re-produced target's acknowledgement.
struct Reproduced {
    tenure: Tenure,
    delivery: Delivery,
    refused: Option<NotWritten>,
}

/// A revoke that waits for its placements to be drained; without one at shutdown.
struct Drain {
    placements: Vec<u32>,
    _revocation: Option<Revocation>,
}

pub(crate) struct Engine<T> {
    parts: Parts<T>,
    owned: BTreeMap<u32, Owned>,
    tenures: u64,
    /// Bytes of records taken in.
    meter: Meter,
    /// Bytes of records read and not yet taken in.
    read_ahead: Meter,
    lease: Lease,
    ring: VecDeque<(Tenure, Quota)>,
    /// Lanes that found no room for another attempt; they count as in the ring.
    parked: VecDeque<(Tenure, Quota)>,
    /// Lanes whose placement waits for an acknowledged commit; they count as in the ring.
    awaiting_commit: Vec<(Tenure, Quota)>,
    outage: Outage,
    /// Attempts under way in lanes that were slow, or not known, when they were started.
    slow_in_flight: usize,
    throughput: Throughput,
    /// Sources that hold records not taken in, the delay topics first.
    unread: BTreeSet<(Reverse<usize>, Tenure)>,
    timers: Timers,
    sending: Sending<Finished>,
    takeovers: FuturesUnordered<BoxFuture<'static, TakenOver>>,
    overtaken: FuturesUnordered<BoxFuture<'static, Overtaken>>,
    reproducing: FuturesUnordered<BoxFuture<'static, Reproduced>>,
    recalling: FuturesUnordered<BoxFuture<'static, Recalled>>,
    moves: VecDeque<Move>,
    /// Ordered deliveries whose turn has come.
    turns: VecDeque<(Tenure, Delivery)>,
    transactions: Option<Box<dyn Transactions>>,
    transaction: Option<BoxFuture<'static, TransactionDone>>,
    transaction_not_before: Option<Instant>,
    /// When the last transaction was opened, and whether something in `moves` may not wait for
    /// company.
    transacted_at: Option<Instant>,
    moves_are_urgent: bool,
    commit: Option<BoxFuture<'static, CommitDone>>,
    plain: Plain,
    control_probe: Option<BoxFuture<'static, ControlEnd>>,
    /// The end of `control` as last asked for, when a record seemed ahead of it.
    control_end: Option<ControlEnd>,
    /// When it is looked next for what is left of deleted endpoints.
    forget_at: Instant,
    drains: Vec<Drain>,
    /// Endpoints that were given up, by their last change: held to it until they are changed.
    gone: HashMap<EndpointId, (i64, DisabledReason)>,
    /// Disabled endpoints that may come back by themselves.
    probation: Probation<reenabling::Named>,
    /// Operational events that go with the next transaction.
    tellings: Vec<disabling::Telling>,
    records: Vec<Record>,
    /// Endpoints whose end was told of.
    endings: chunks::Endings,
    stopping: bool,
    /// How often the transactional producer was fenced, and when last.
    fenced: (u32, Instant),
}

impl<T: Transport> Engine<T> {
    pub(crate) fn new(parts: Parts<T>, transactions: Box<dyn Transactions>) -> Self {
        let now = parts.clock.instant();
        let session = parts.member.session_timeout();
        parts
            .metrics
            .state
            .memory_limit_bytes
            .set(bytes_as_i64(parts.options.memory_bytes));
        let sending = Sending::start(parts.options.senders);
        Self {
            lease: Lease::new(session, now),
            timers: Timers::new(now, parts.options.commit_interval, session / 4),
            parts,
            owned: BTreeMap::new(),
            tenures: 0,
            meter: Meter::default(),
            read_ahead: Meter::default(),
            ring: VecDeque::new(),
            parked: VecDeque::new(),
            awaiting_commit: Vec::new(),
            outage: Outage::default(),
            slow_in_flight: 0,
            throughput: Throughput::new(now),
            unread: BTreeSet::new(),
            sending,
            takeovers: FuturesUnordered::new(),
            overtaken: FuturesUnordered::new(),
            reproducing: FuturesUnordered::new(),
            recalling: FuturesUnordered::new(),
            moves: VecDeque::new(),
            turns: VecDeque::new(),
            transactions: Some(transactions),
            transaction: None,
            transaction_not_before: None,
            transacted_at: None,
            moves_are_urgent: false,
            commit: None,
            plain: Plain::default(),
            control_probe: None,
            control_end: None,
            forget_at: now,
            drains: Vec::new(),
            gone: HashMap::new(),
            probation: Probation::new(),
            tellings: Vec::new(),
            records: Vec::new(),
            endings: chunks::Endings::default(),
            stopping: false,
            fenced: (0, now),
        }
    }

    /// Runs until `token` is cancelled and everything owned is drained, or until the log says that
    /// this process may not go on.
    pub(crate) async fn run(mut self, token: CancellationToken) -> Result<(), Stopped> {
        let ended = self.work(token).await;
        // Nothing is sent any more when this returns.
        self.sending.end().await;
        ended
    }

    async fn work(&mut self, token: CancellationToken) -> Result<(), Stopped> {
        self.report_applied();
        loop {
            self.pump().await;
            if self.stopping && self.owned.is_empty() {
                self.flush_records();
                return Ok(());
            }
            let wake = self.timers.next(self.now(), self.commit.is_some());
            tokio::select! {
                biased;
                () = token.cancelled(), if !self.stopping => self.stop(),
                Some(message) = self.parts.membership.recv() => self.on_membership(message)?,
                // Before attempts, which may always have something: the lease depends on it.
                done = pending_or(&mut self.commit) => self.on_commit(done),
                done = pending_or(&mut self.transaction) => self.on_transaction(done)?,
                finished = self.sending.next() => {
                    self.on_finished_all(finished.ok_or(Stopped::Sender)?);
                }
                Some(taken) = self.takeovers.next() => self.on_taken_over(taken)?,
                Some(found) = self.overtaken.next() => self.on_overtaken(&found),
                Some(done) = self.reproducing.next() => self.on_reproduced(done),
                Some(recalled) = self.recalling.next() => self.on_recalled(recalled),
                end = pending_or(&mut self.control_probe) => self.on_control_probe(end),
                update = self.parts.follower.next() => self.on_update(update?),
                Some(fetched) = self.parts.fetched.recv() => self.on_fetched_all(fetched),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Everything that can be done now without waiting, but for the senders' turn.
    async fn pump(&mut self) {
        let now = self.now();
        if self.timers.sweep_due(now) {
            self.sweep(now);
            if self.timers.recommit_due(now) {
                self.recommit();
            }
            self.report_metrics();
        }
        if self.timers.report_due(now) {
            self.report_applied();
        }
        self.take_in(now);
        self.wake_lanes(now);
        self.take_turns();
        self.start_attempts();
        if self.sending.flush() {
            // What was charged to a limit now is to leave now: a sender beside this task has its turn
            // before the rest, and before another record is taken in.
            tokio::task::yield_now().await;
        }
        self.start_transaction(now);
        self.start_commit(now);
        self.flush_records_when_due(now);
        self.finish_drains(now);
    }

    fn now(&self) -> Instant {
        self.parts.clock.instant()
    }

    fn wall(&self) -> i64 {
        self.parts.clock.now()
    }

    /// The owned state of `tenure`, unless it has ended.
    fn tenant_of(&mut self, tenure: Tenure) -> Option<&mut Owned> {
        self.owned
            .get_mut(&tenure.placement)
            .filter(|owned| owned.tenure == tenure)
    }

    /// Best-effort records go in company: handing one over costs as much as handing over many.
    fn flush_records_when_due(&mut self, now: Instant) {
        if self.records.is_empty() {
            self.timers.flush_at = None;
        } else if self.records.len() >= RECORDS_TOGETHER
            || self.timers.flush_at.is_some_and(|at| at <= now)
        {
            self.timers.flush_at = None;
            self.flush_records();
        } else {
            self.timers.flush_at.get_or_insert(now + RECORDS_WAIT);
        }
    }

    /// Hands the collected best-effort records over; what finds no room is counted.
    fn flush_records(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.records);
        if let Err(dropped) = self.parts.recorder.try_send(records) {
            self.parts
                .metrics
                .attempt_records_dropped
                .inc_by(dropped.len() as u64);
        }
    }
}

/// The group that dispatchers are members of.
pub(crate) fn group(topics: &Topics) -> String {
    format!("{}.dispatcher", topics.deliveries)
}

fn bytes_as_i64(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Awaits the future in `slot` and empties it; never ends while there is none.
/// cancel-safe: the future stays in its slot until it is done.
async fn pending_or<O>(slot: &mut Option<BoxFuture<'static, O>>) -> O {
    match slot {
        Some(future) => {
            let done = future.await;
            *slot = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Everything that a transaction's future needs to find out what became of it.
#[derive(Clone)]
struct TransactionContext {
    log: SharedLog,
    member: Arc<dyn Member>,
    id: String,
    timeout: Duration,
    partitions: Vec<Partition>,
    group: GroupMetadata,
    /// Whether this process ends when it is fenced once more.
    gives_way: bool,
}
