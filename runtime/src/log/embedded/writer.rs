//! Owns the one thread that writes: it takes whatever waits, appends it in one atomic write (the
//! group commit), syncs once for all who asked for durability, and keeps house when idle.
//!
//! It must never answer out of order, or show a position before the records it covers. The
//! surprise: readers see a record when it is in the journal's order, which may be a moment before
//! it is on the disk; nothing that follows from it can be on the disk earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::groups::{Ask, Standing};
use super::keeping::Keeper;
use super::round::{Groups, Reply, Round, Tail};
use super::slots::Topic;
use super::store::{Store, TopicRow};
use crate::log::{
    Class, Committed, Error, NotCommitted, NotWritten, Partition, Position, Record, TopicName,
    TopicSettings, Transaction,
};

/// A round takes no more commands once it has this much.
const ROUND_BYTES: usize = 4 << 20;
/// What was written without asking for durability is on the disk this much later.
const SYNC_WITHIN: Duration = Duration::from_millis(50);
/// How often an idle writer looks for what is to be deleted.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// What is remembered with a position, in bytes (Kafka's default).
const METADATA_BYTES: usize = 4_096;

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub(super) enum Command {
    /// Append records.
    Produce(Produce),
    /// Commit positions under a membership, or for a group that has no members.
    Commit {
        standing: Standing,
        positions: Vec<Position>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Append records and commit positions, or neither.
    Transact {
        producer: Epoch,
        transaction: Transaction,
        reply: oneshot::Sender<Result<(), NotCommitted>>,
    },
    /// Fence every earlier producer of this id.
    OpenTransactions {
        id: String,
        reply: oneshot::Sender<Epoch>,
    },
    /// Make what is missing.
    CreateTopics {
        topics: Vec<TopicSettings>,
        reply: oneshot::Sender<Result<Vec<TopicName>, Error>>,
    },
    /// Read positions behind everything asked for before.
    Committed {
        group: String,
        partitions: Vec<Partition>,
        reply: oneshot::Sender<Vec<(Partition, Option<Committed>)>>,
    },
}

/// Records of one producer.
#[derive(Debug)]
pub(super) struct Produce {
    /// In order.
    pub(super) records: Vec<Record>,
    /// Set when the producer was purged.
    pub(super) purged: Arc<AtomicBool>,
    /// Whether the acknowledgement waits for the disk.
    pub(super) durable: bool,
    /// Where the reports go.
    pub(super) reply: oneshot::Sender<Vec<Result<i64, NotWritten>>>,
    /// The producer's room, given back with the reports.
    pub(super) room: OwnedSemaphorePermit,
}

/// One opening of a transactional producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Epoch {
    id: String,
    number: u64,
}

/// The writer's own state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Command>,
    coordinator: mpsc::WeakUnboundedSender<Ask>,
    groups: Groups,
    epochs: HashMap<String, u64>,
    tail: Tail,
    keeper: Keeper,
    turn: u64,
    /// When what was written last without a sync is to be on the disk.
    sync_by: Option<Instant>,
    failure: Option<Error>,
}

impl Writer {
    /// A writer of `shared` that takes commands from `queue`, with the positions read from disk.
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Receiver<Command>,
        coordinator: mpsc::WeakUnboundedSender<Ask>,
    ) -> Result<Self, Error> {
        let mut groups = Groups::new();
        for (group, partition, committed) in shared.store.positions()? {
            groups
                .entry(group)
                .or_default()
                .insert(partition, committed);
        }
        Ok(Self {
            keeper: Keeper::new(&shared),
            shared,
            queue,
            coordinator,
            groups,
            epochs: HashMap::new(),
            tail: Tail::default(),
            turn: 0,
            sync_by: None,
            failure: None,
        })
    }

    /// Works until every handle to the log is gone.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // What has expired while nobody had the log open goes before anything is answered.
        self.keep();
        loop {
            match self.queue.recv_timeout(self.patience()) {
                Ok(command) => self.round(&shared.store, command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.sync_by.is_some_and(|by| by <= Instant::now()) {
                self.sync(Vec::new());
            }
            if self.keeper.is_due(&self.shared) {
                self.keep();
            }
        }
        self.sync(Vec::new());
    }

    /// How long there is nothing to do but wait for a command.
    fn patience(&self) -> Duration {
        if self.keeper.is_due(&self.shared) {
            return Duration::ZERO;
        }
        let until = |by: Instant| by.saturating_duration_since(Instant::now());
        self.sync_by.map_or(KEEP_EVERY, until)
    }

    /// One round: `first`, and what else waits behind it.
    fn round(&mut self, store: &Store, first: Command) {
        let mut round = Round::new(store, self.shared.options.clock.now());
        let mut next = Some(first);
        while let Some(command) = next {
            round = match command {
                Command::Produce(produce) => self.produce(round, produce),
                Command::Commit {
                    standing,
                    positions,
                    reply,
                } => {
                    self.commit(&mut round, &standing, positions, reply);
                    round
                }
                Command::Transact {
                    producer,
                    transaction,
                    reply,
                } => self.transact(round, &producer, transaction, reply),
                Command::OpenTransactions { id, reply } => {
                    drop(reply.send(self.open_transactions(id)));
                    round
                }
                Command::CreateTopics { topics, reply } => {
                    self.finish(round);
                    drop(reply.send(self.create_topics(&topics)));
                    Round::new(store, self.shared.options.clock.now())
                }
                Command::Committed {
                    group,
                    partitions,
                    reply,
                } => {
                    self.finish(round);
                    drop(reply.send(self.committed(&group, partitions)));
                    Round::new(store, self.shared.options.clock.now())
                }
            };
            next = if round.bytes() < ROUND_BYTES {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        self.finish(round);
    }

    fn produce<'a>(&mut self, mut round: Round<'a>, produce: Produce) -> Round<'a> {
        let Produce {
            records,
            purged,
            durable,
            reply,
            room,
        } = produce;
        if purged.load(Ordering::Acquire) {
            drop(reply.send(vec![Err(NotWritten::Unknown); records.len()]));
            return round;
        }
        self.turn = self.turn.wrapping_add(1);
        let reports = records
            .iter()
            .map(|record| self.append(&mut round, record))
            .collect();
        let reply = Reply::Acks {
            to: reply,
            reports,
            room,
        };
        if durable {
            round.durable.push(reply)
        } else {
            round.ordered.push(reply)
        }
        round
    }

    fn append(&mut self, round: &mut Round<'_>, record: &Record) -> Result<i64, NotWritten> {
        let topic = self
            .shared
            .topics
            .get(&record.topic)
            .ok_or(NotWritten::Invalid)?;
        let slot = topic.place(record, self.turn)?;
        round.append(&topic, slot, record).map_err(|error| {
            self.fail(error);
            NotWritten::Unknown
        })
    }

    fn commit(
        &self,
        round: &mut Round<'_>,
        standing: &Standing,
        positions: Vec<Position>,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        match self.check(standing, &positions) {
            Ok(()) => {
                round.commit(standing.group(), positions);
                round.ordered.push(Reply::Commit(reply));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Whether `positions` may be committed by `standing`.
    fn check(&self, standing: &Standing, positions: &[Position]) -> Result<(), Error> {
        if !standing.stands() {
            let message = "the member is no longer in the group";
            return Err(Error::new(Class::Fenced, standing.group(), message));
        }
        for position in positions {
            if position.metadata.len() > METADATA_BYTES {
                let message = format!("metadata is larger than {METADATA_BYTES} bytes");
                return Err(Error::new(Class::Never, &position.partition, message));
            }
            if self.shared.topics.slot(&position.partition).is_none() {
                return Err(Error::new(
                    Class::Never,
                    &position.partition,
                    "no such partition",
                ));
            }
        }
        Ok(())
    }

    fn transact<'a>(
        &mut self,
        mut round: Round<'a>,
        producer: &Epoch,
        transaction: Transaction,
        reply: oneshot::Sender<Result<(), NotCommitted>>,
    ) -> Round<'a> {
        match self.admit(producer, &transaction) {
            Err(refusal) => drop(reply.send(Err(refusal))),
            Ok(standing) => {
                for record in &transaction.records {
                    // Admitted, so that only the store can fail, and that fails the round.
                    if self.append(&mut round, record).is_err() {
                        break;
                    }
                }
                if let Some(standing) = standing {
                    round.commit(standing.group(), transaction.positions);
                }
                round.durable.push(Reply::Transact(reply));
            }
        }
        round
    }

    /// Whether every part of `transaction` can be written, now.
    fn admit(
        &mut self,
        producer: &Epoch,
        transaction: &Transaction,
    ) -> Result<Option<Standing>, NotCommitted> {
        if self.epochs.get(&producer.id) != Some(&producer.number) {
            let message = "a newer producer of this id was opened";
            return Err(NotCommitted::Fenced(Error::new(
                Class::Fenced,
                &producer.id,
                message,
            )));
        }
        let never = |message: &str| Error::new(Class::Never, &producer.id, message);
        self.turn = self.turn.wrapping_add(1);
        let mut refused = Vec::new();
        for (index, record) in transaction.records.iter().enumerate() {
            let topic = self
                .shared
                .topics
                .get(&record.topic)
                .ok_or(NotWritten::Invalid);
            let placed = topic.and_then(|topic| topic.place(record, self.turn).map(|_| ()));
            refused.extend(placed.err().map(|reason| (index, reason)));
        }
        if !refused.is_empty() {
            let cause = never("records cannot be written");
            return Err(NotCommitted::Aborted { cause, refused });
        }
        if transaction.positions.is_empty() {
            return Ok(None);
        }
        let group = transaction.group.as_ref();
        let standing = group
            .and_then(|group| group.get::<Standing>())
            .ok_or_else(|| {
                let cause = never("positions need a membership of this log");
                NotCommitted::Aborted {
                    cause,
                    refused: Vec::new(),
                }
            })?;
        match self.check(standing, &transaction.positions) {
            Ok(()) => Ok(Some(standing.clone())),
            Err(error) if standing.stands() => Err(NotCommitted::Aborted {
                cause: error,
                refused: Vec::new(),
            }),
            Err(error) => Err(NotCommitted::NotMember(error)),
        }
    }

    fn open_transactions(&mut self, id: String) -> Epoch {
        let number = self.epochs.entry(id.clone()).or_default();
        *number += 1;
        Epoch {
            id,
            number: *number,
        }
    }

    fn committed(
        &self,
        group: &str,
        partitions: Vec<Partition>,
    ) -> Vec<(Partition, Option<Committed>)> {
        let known = self.groups.get(group);
        let pair = |partition| {
            let committed = known.and_then(|known| known.get(&partition)).cloned();
            (partition, committed)
        };
        partitions.into_iter().map(pair).collect()
    }

    fn create_topics(&mut self, wanted: &[TopicSettings]) -> Result<Vec<TopicName>, Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let mut id = self
            .shared
            .topics
            .all()
            .iter()
            .map(|topic| topic.row.id)
            .max()
            .unwrap_or(0);
        let mut made: Vec<(TopicName, TopicRow)> = Vec::new();
        for settings in wanted {
            let known = made.iter().any(|(name, _)| *name == settings.name);
            if known || self.shared.topics.get(&settings.name).is_some() {
                continue;
            }
            if settings.partitions == 0 {
                return Err(Error::new(
                    Class::Never,
                    &settings.name,
                    "a topic needs a partition",
                ));
            }
            id += 1;
            made.push((settings.name.clone(), TopicRow::new(id, settings)));
        }
        let store = &self.shared.store;
        let mut writes = store.batch();
        for (name, row) in &made {
            writes.topic(name, row)?;
        }
        writes.commit().and_then(|()| store.sync())?;
        for (name, row) in &made {
            let topic = Topic::recover(store, name, row.clone())?;
            self.shared.topics.insert(name.clone(), topic);
        }
        if let Some(coordinator) = self.coordinator.upgrade() {
            // A coordinator that is gone has no members to tell.
            drop(coordinator.send(Ask::TopicsChanged));
        }
        Ok(made.into_iter().map(|(name, _)| name).collect())
    }

    /// Writes the round, shows it, syncs for those who wait for that.
    fn finish(&mut self, mut round: Round<'_>) {
        if let Some(error) = &self.failure {
            round.ordered.append(&mut round.durable);
            for reply in round.ordered {
                reply.unknown(error);
            }
            return;
        }
        match round.write() {
            Ok(mut written) => {
                self.sync_by
                    .get_or_insert_with(|| Instant::now() + SYNC_WITHIN);
                written.publish(&mut self.groups, &mut self.tail);
                if !written.durable.is_empty() {
                    self.sync(written.durable);
                }
            }
            Err((error, replies)) => {
                for reply in replies {
                    reply.unknown(&error);
                }
                self.fail(error);
            }
        }
    }

    /// One sync for all of `waiting`.
    fn sync(&mut self, waiting: Vec<Reply>) {
        match self.shared.store.sync() {
            Ok(()) => {
                self.sync_by = None;
                waiting.into_iter().for_each(Reply::done);
            }
            Err(error) => {
                for reply in waiting {
                    reply.unknown(&error);
                }
                self.fail(error);
            }
        }
    }

    fn keep(&mut self) {
        if self.failure.is_none()
            && let Err(error) = self.keeper.keep(&self.shared)
        {
            self.fail(error);
        }
    }

    /// The store failed: nothing more is written, and whoever owns partitions learns it.
    fn fail(&mut self, error: Error) {
        if self.failure.is_none() {
            tracing::error!(%error, "embedded log stopped writing");
            if let Some(coordinator) = self.coordinator.upgrade() {
                // As above.
                drop(coordinator.send(Ask::Failed(error.clone())));
            }
            self.sync_by = None;
            self.failure = Some(error);
        }
    }
}
