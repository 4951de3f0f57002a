//! Owns the transactions of rule 6: deliveries that go to a delay topic or to `dead`, and outcomes
//! that go to `results`, together with the positions that this completes.
//!
//! It must never let a plain commit pass while a transaction on the same partition is open, and
//! never count a place as completed whose transaction was aborted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hashbrown::HashMap;
use runtime::log::topics::DELAY_TIERS;
use runtime::log::{NotWritten, Position, Record, StoredRecord, Transactions};
use schemas::records::{DeadLetter, DeadReason, MAX_TARGETS, ResultRecord, Target};
use tokio::time::Instant;

use super::disabling::Telling;
use super::handover::Saving;
use super::transact::transact;
use super::{Engine, TransactionContext};
use crate::delivery::Transport;
use crate::ledger::{self, Place};
use crate::metrics::Hop;
use crate::order::Step;
use crate::owned::{Owned, Tenure};
use crate::planted::{self, Bug};
use crate::schedule::{Tier, tier_for};
use crate::work::{Delivery, Loaded};
use crate::{Stopped, dead_letter};

/// The most bytes of records in one transaction (design: hops).
const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// The most deliveries in one transaction.
const TRANSACTION_MOVES_MAX: usize = 5_000;
/// So many moves wait for no others.
const TRANSACTION_MOVES_ENOUGH: usize = 1_000;
/// The wait before a transaction that was aborted is tried again.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(200);
/// The same where the membership was changing, which takes a moment.
pub(super) const REJOIN_WAIT: Duration = Duration::from_millis(25);
/// So many fenced transactions are another live process of this name. One that the log gave up for
/// its age fences its producer too, and does not count.
const FENCED_MAX: u32 = 3;
/// A fence is forgotten after this long without another.
const FENCED_MEMORY: Duration = Duration::from_secs(600);

/// A delivery that leaves its source: where it is, and where it goes.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) tenure: Tenure,
    pub(crate) source: usize,
    pub(crate) place: Place,
    /// What it does to the line that orders the delivery.
    pub(crate) order: Option<Box<Step>>,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// To a delay topic, due when its state says.
    Defer(Delivery),
    /// To `dead`: a delivery, a record that cannot be read, or a mere reference.
    Dead {
        letter: Box<DeadLetter>,
        delivery: Option<Delivery>,
        poison: Option<Box<StoredRecord>>,
    },
    /// Nowhere: it is delivered, and `results` is to say so.
    Report(Box<ResultRecord>),
    /// Nowhere: it is delivered, and its line's record says whose turn is next.
    Done,
}

impl What {
    /// Whether there is nothing smaller to write in its place.
    fn is_least(&self) -> bool {
        matches!(
            self,
            Self::Report(_)
                | Self::Done
                | Self::Dead {
                    delivery: None,
                    poison: None,
                    ..
                }
        )
    }
}

/// What became of a transaction.
pub(crate) struct TransactionDone {
    pub(super) transactions: Option<Box<dyn Transactions>>,
    pub(super) sent_at: Instant,
    pub(super) outcome: Outcome,
    pub(super) moves: Vec<Move>,
    /// Which moves each record holds.
    pub(super) held: Vec<Vec<usize>>,
    /// Lanes whose state it carries.
    pub(super) savings: Vec<Saving>,
    /// Operational events that it carries.
    pub(super) tellings: Vec<Telling>,
    pub(super) touched: Vec<(Tenure, usize, Position)>,
    /// Whether somebody else has opened a producer of this name in the meantime.
    pub(super) fenced: bool,
}

pub(super) enum Outcome {
    Committed,
    Aborted {
        refused: Vec<(usize, NotWritten)>,
        /// Before it is tried again.
        wait: Duration,
    },
    /// The log cannot be asked what became of it: ownership is taken anew.
    NotKnown,
}

impl<T: Transport> Engine<T> {
    pub(super) fn push_move(&mut self, moved: Move) {
        if let What::Dead { letter, .. } = &moved.what {
            self.parts.metrics.dead.get(letter.reason.into()).inc();
        }
        let too_early = match &moved.what {
            What::Defer(_) => planted::is(Bug::HopWithoutTransaction),
            What::Dead { .. } => planted::is(Bug::CompletedBeforeDead),
            What::Report(_) | What::Done => false,
        };
        if let Some(source) = self.source_of_move(&moved).filter(|_| too_early) {
            source.ledger.complete(moved.place);
            source.dirty = true;
        }
        let is_urgent = moved.order.is_some() || matches!(moved.what, What::Report(_));
        if let Some(owned) = self.tenant_of(moved.tenure) {
            owned.moves += 1;
            self.moves_are_urgent |= is_urgent;
            self.moves.push_back(moved);
        }
    }

    /// Opens a transaction for what has arrived, unless one is open, or a plain commit is on its
    /// way that it could be overtaken by. Positions alone do not wait for an overdue commit: one
    /// that is set back by it is committed again, while a delivery would be moved again.
    pub(super) fn start_transaction(&mut self, now: Instant) {
        self.timers.transaction_at = None;
        if self.transaction.is_some() {
            return;
        }
        let mut touched = self.overdue_sources(now);
        let committing = self.commit.is_some();
        let nothing_else = self.moves.is_empty() && !self.wants_saving();
        if touched.is_empty() && (committing || nothing_else) {
            return;
        }
        if let Some(at) = self.transaction_not_before.filter(|at| *at > now) {
            self.timers.transaction_at = Some(at);
            return;
        }
        if let Some(at) = self.waits_for_company(&touched).filter(|at| *at > now) {
            self.timers.wake_transaction(at);
            return;
        }
        let group = self.parts.member.group_metadata();
        let Some(group) = group.ok().filter(|_| self.may_speak_for_its_placements()) else {
            self.transaction_not_before = Some(now + RETRY_WAIT);
            self.timers.transaction_at = self.transaction_not_before;
            self.timers.commit_now(now);
            return;
        };
        let Some(transactions) = self.transactions.take() else {
            return;
        };
        let (moves, mut records, mut held) = if committing {
            Default::default()
        } else {
            self.gather()
        };
        let savings = self.gather_progress(&mut records, &mut touched);
        let tellings = self.gather_tellings(&mut records, &mut touched);
        held.resize(records.len(), Vec::new());
        let touched = self.freeze(&moves, touched);
        if touched.is_empty() {
            self.transactions = Some(transactions);
            self.on_saved(savings, false);
            self.tell_again(tellings);
            return;
        }
        self.transacted_at = Some(now);
        self.plain.overlapped |= committing;
        let context = TransactionContext {
            log: self.parts.log.clone(),
            member: Arc::clone(&self.parts.member),
            id: self.parts.options.transactional_id(),
            timeout: self.parts.options.transaction_timeout,
            partitions: touched
                .iter()
                .map(|(_, _, at)| at.partition.clone())
                .collect(),
            group,
            gives_way: self.fences(now) + 1 >= FENCED_MAX,
        };
        let done = TransactionDone {
            transactions: None,
            sent_at: now,
            outcome: Outcome::NotKnown,
            moves,
            held,
            savings,
            tellings,
            touched,
            fenced: false,
        };
        self.transaction = Some(transact(context, transactions, records, done).boxed());
    }

    /// Whether what the member says of its place in the group is true of what is owned here (rule 5).
    /// A process that was stopped for long may have lost its place, or have another already, before
    /// it is told that its placements are gone; and the log asks a transaction for no more than the
    /// place, or for nothing where there is none. Asked after the place was read: a plain commit,
    /// which the group checks, comes first where the lease is over.
    fn may_speak_for_its_placements(&self) -> bool {
        let leased = self.lease.holds(self.now()) || planted::is(Bug::LeaseNotAsked);
        leased && self.has_heard_all()
    }

    /// Whether nothing waits that the membership has to tell: what is lost may be part of it.
    pub(super) fn has_heard_all(&self) -> bool {
        self.parts.membership.is_empty() || planted::is(Bug::NewsUnheard)
    }

    /// When a transaction for what there is may be opened at the earliest: as often as positions are
    /// committed, where nothing else waits for it. Endpoints that are down defer a few deliveries
    /// all the time, and a transaction for each few costs the log more than they are worth.
    fn waits_for_company(&self, touched: &[(Tenure, usize)]) -> Option<Instant> {
        let at_once = !touched.is_empty()
            || self.moves_are_urgent
            || self.moves.len() >= TRANSACTION_MOVES_ENOUGH
            || self.wants_saving()
            || !self.drains.is_empty()
            || self.stopping;
        let interval = self.parts.options.commit_interval;
        self.transacted_at
            .filter(|_| !at_once)
            .map(|at| at + interval)
    }

    /// Takes moves for one transaction and the records that hold them.
    fn gather(&mut self) -> (Vec<Move>, Vec<Record>, Vec<Vec<usize>>) {
        let now = self.now();
        // What finds no room goes with the next one, an interval later at most.
        self.moves_are_urgent = false;
        let mut moves = Vec::new();
        let mut records = Vec::new();
        let mut held: Vec<Vec<usize>> = Vec::new();
        let mut groups: HashMap<(usize, Tier, u32), Group> = HashMap::new();
        let mut bytes = 0;
        while bytes < TRANSACTION_BYTES_MAX && moves.len() < TRANSACTION_MOVES_MAX {
            let Some(moved) = self.moves.pop_front() else {
                break;
            };
            let Some(owned) = self.tenant_of(moved.tenure) else {
                continue;
            };
            owned.moves -= 1;
            let at = moves.len();
            match &moved.what {
                What::Defer(delivery) => {
                    // `next_free` goes along with what was deferred by it (rule 7).
                    let endpoint = self.parts.endpoints.get(delivery.target.endpoint);
                    if let Some(quota) = endpoint.map(|endpoint| endpoint.quota.clone()) {
                        self.mark_unsaved(moved.tenure, &quota, false);
                    }
                    let due = self.parts.clock.instant_at(delivery.state.due_at);
                    let wait = due.saturating_duration_since(now);
                    // What came due meanwhile, or was revoked while it waited, takes the shortest.
                    let tier = tier_for(wait, wait).unwrap_or(Tier::Seconds5);
                    let key = (
                        Arc::as_ptr(&delivery.loaded) as usize,
                        tier,
                        moved.tenure.placement,
                    );
                    let group = groups.entry(key).or_insert_with(|| {
                        bytes += delivery.loaded.record_bytes();
                        Group::new(Arc::clone(&delivery.loaded))
                    });
                    group.add(delivery, at);
                    bytes += 64;
                }
                What::Dead {
                    letter,
                    delivery,
                    poison,
                } => {
                    let record = self.dead_record(letter, delivery.as_ref(), poison.as_deref());
                    let report = letter.report();
                    let report = report.map(|report| self.result_record(&report));
                    for record in std::iter::once(record).chain(report) {
                        bytes += record.len_bytes();
                        records.push(record);
                        held.push(vec![at]);
                    }
                }
                What::Done => {}
                What::Report(report) => {
                    let record = self.result_record(report);
                    bytes += record.len_bytes();
                    records.push(record);
                    held.push(vec![at]);
                }
            }
            moves.push(moved);
        }
        for record in self.order_records(&moves) {
            records.push(record);
            held.push(Vec::new());
        }
        self.write_groups(groups, &mut records, &mut held);
        (moves, records, held)
    }

    /// Adds the records of what is deferred together, and which moves each holds.
    fn write_groups(
        &self,
        groups: HashMap<(usize, Tier, u32), Group>,
        records: &mut Vec<Record>,
        held: &mut Vec<Vec<usize>>,
    ) {
        // In the order of what came first, so that the same world is written the same way.
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable_by_key(|((_, tier, _), group)| (group.moves.first().copied(), *tier));
        for ((_, tier, placement), group) in groups {
            let topic = DELAY_TIERS
                .iter()
                .position(|(delay, _)| *delay == tier.delay());
            let topic = topic.and_then(|tier| self.parts.topics.delays.get(tier));
            let Some(topic) = topic.cloned() else {
                continue;
            };
            for (targets, places) in group.pieces() {
                records.push(Record {
                    topic: topic.clone(),
                    partition: Some(placement),
                    key: None,
                    value: Some(group.loaded.record.value_for(targets)),
                    headers: dead_letter::headers(&group.loaded.record, None),
                });
                held.push(places.to_vec());
            }
        }
    }

    fn dead_record(
        &self,
        letter: &DeadLetter,
        delivery: Option<&Delivery>,
        poison: Option<&StoredRecord>,
    ) -> Record {
        let dead = &self.parts.topics.dead;
        match (delivery, poison) {
            (Some(delivery), _) => dead_letter::record(dead, letter, delivery),
            (None, Some(stored)) => dead_letter::poison(dead, letter, stored),
            (None, None) => dead_letter::reference(dead, letter),
        }
    }

    fn result_record(&self, report: &ResultRecord) -> Record {
        dead_letter::result(&self.parts.topics.results, report)
    }

    /// Completes the places of `moves` as far as the transaction is concerned, and says which
    /// positions that makes, those of `touched` among them. Completed records stay in the window
    /// until the outcome is known.
    fn freeze(
        &mut self,
        moves: &[Move],
        mut touched: Vec<(Tenure, usize)>,
    ) -> Vec<(Tenure, usize, Position)> {
        for moved in moves {
            let Some(source) = self.source_of_move(moved) else {
                continue;
            };
            source.ledger.freeze();
            source.ledger.complete(moved.place);
            touched.push((moved.tenure, moved.source));
        }
        touched.sort_unstable();
        touched.dedup();
        // Tells this transaction's positions from all others, where the rest of the text is cut.
        let stamp = self.parts.entropy.u64();
        touched
            .into_iter()
            .filter_map(|(tenure, index)| {
                let owned = self.tenant_of(tenure)?;
                owned.sources.get_mut(index)?.ledger.freeze();
                let mut position = owned.position(index)?;
                position.metadata = ledger::stamped(position.metadata, stamp);
                let source = owned.sources.get_mut(index)?;
                source.dirty = false;
                source.uncommitted.transacting();
                source.measure(&position.metadata);
                Some((tenure, index, position))
            })
            .collect()
    }

    fn source_of_move(&mut self, moved: &Move) -> Option<&mut crate::owned::Source> {
        self.tenant_of(moved.tenure)?.sources.get_mut(moved.source)
    }

    pub(super) fn on_transaction(&mut self, done: TransactionDone) -> Result<(), Stopped> {
        let now = self.now();
        self.transactions = done.transactions;
        if done.fenced {
            let count = self.fences(now) + 1;
            self.fenced = (count, now);
            if count >= FENCED_MAX {
                return Err(Stopped::SameName(self.parts.options.instance.clone()));
            }
        }
        match done.outcome {
            Outcome::Committed => {
                self.parts.metrics.hops.get(Hop::Committed).inc();
                self.parts
                    .metrics
                    .hop_deliveries
                    .inc_by(done.moves.len() as u64);
                self.lease.extend(done.sent_at);
                self.transaction_not_before = None;
                self.thaw(done.touched, true);
                self.order_committed(&done.moves);
                self.on_saved(done.savings, true);
                self.resume_lanes();
            }
            Outcome::Aborted { refused, wait } => {
                self.parts.metrics.hops.get(Hop::Aborted).inc();
                if !done.fenced {
                    self.fenced = (0, now);
                }
                // Refused records are written as references at once; a reference that is refused
                // too must not make this loop spin.
                let mut letters = refused.iter().map(|(record, _)| {
                    let held = done.held.get(*record).and_then(|held| held.first());
                    held.and_then(|at| done.moves.get(*at))
                });
                let cannot_shrink =
                    |moved: Option<&Move>| moved.is_none_or(|moved| moved.what.is_least());
                if refused.is_empty() || letters.any(cannot_shrink) {
                    self.transaction_not_before = Some(now + wait);
                }
                self.take_back(done.moves, &done.held, &refused);
                self.thaw(done.touched, false);
                self.on_saved(done.savings, false);
                self.tell_again(done.tellings);
            }
            Outcome::NotKnown => {
                for (tenure, _, _) in done.touched {
                    self.let_go(tenure);
                }
            }
        }
        Ok(())
    }

    /// How often the producer was fenced of late.
    fn fences(&self, now: Instant) -> u32 {
        let (count, last) = self.fenced;
        if now < last + FENCED_MEMORY { count } else { 0 }
    }

    fn thaw(&mut self, touched: Vec<(Tenure, usize, Position)>, committed: bool) {
        let overlapped = self.plain.overlapped;
        self.plain.overlapped &= self.commit.is_some();
        for (tenure, index, position) in touched {
            let owned = self.tenant_of(tenure);
            if let Some(source) = owned.and_then(|owned| owned.sources.get_mut(index)) {
                source.ledger.thaw();
                source.dirty = true;
                if committed {
                    let text = ledger::unstamped(&position.metadata).to_owned();
                    source.sent = Some((position.offset, text)).filter(|_| !overlapped);
                    source.uncommitted.transacted();
                } else {
                    source.uncommitted.not_transacted();
                }
            }
        }
    }

    /// Opens the places of an aborted transaction again and queues its moves anew. A record that
    /// can never be written becomes a dead letter that refers to its origin (rule 6).
    fn take_back(
        &mut self,
        moves: Vec<Move>,
        held: &[Vec<usize>],
        refused: &[(usize, NotWritten)],
    ) {
        let too_large: Vec<usize> = refused
            .iter()
            .filter_map(|(record, _)| held.get(*record))
            .flatten()
            .copied()
            .collect();
        for (at, mut moved) in moves.into_iter().enumerate().rev() {
            let Some(source) = self.source_of_move(&moved) else {
                continue;
            };
            if !planted::is(Bug::NoReopenAfterAbort) {
                source.ledger.reopen(moved.place);
            }
            if too_large.contains(&at) {
                moved.what = self.referred(moved.what);
                self.order_refused(&mut moved);
            }
            if let Some(owned) = self.tenant_of(moved.tenure) {
                owned.moves += 1;
                self.moves.push_front(moved);
            }
        }
    }

    fn referred(&self, what: What) -> What {
        let letter = match what {
            What::Defer(delivery) => {
                let reason = DeadReason::TooLarge;
                self.parts.metrics.dead.get(reason.into()).inc();
                Box::new(dead_letter::of_delivery(
                    &delivery,
                    reason,
                    self.wall(),
                    None,
                ))
            }
            What::Dead { letter, .. } => letter,
            What::Report(_) | What::Done => return what,
        };
        What::Dead {
            letter,
            delivery: None,
            poison: None,
        }
    }
}

/// Deliveries of one record that go to one delay topic together.
struct Group {
    loaded: Arc<Loaded>,
    targets: Vec<Target>,
    moves: Vec<usize>,
}

impl Group {
    fn new(loaded: Arc<Loaded>) -> Self {
        Self {
            loaded,
            targets: Vec::new(),
            moves: Vec::new(),
        }
    }

    fn add(&mut self, delivery: &Delivery, moved: usize) {
        let mut state = delivery.state;
        state.hops = state.hops.saturating_add(1);
        self.targets.push(Target {
            state: Some(state),
            ..delivery.target.clone()
        });
        self.moves.push(moved);
    }

    fn pieces(&self) -> impl Iterator<Item = (&[Target], &[usize])> {
        self.targets
            .chunks(MAX_TARGETS)
            .zip(self.moves.chunks(MAX_TARGETS))
    }
}

impl Owned {
    /// Whether a transaction on any of its partitions is open.
    pub(crate) fn is_frozen(&self) -> bool {
        self.sources.iter().any(|source| source.ledger.is_frozen())
    }
}
