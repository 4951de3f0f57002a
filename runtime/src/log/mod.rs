//! Owns the event log as every service sees it: topics of partitions, producers, transactions,
//! group members and readers, behind the trait [`Log`].
//!
//! It must never know what a record means. The surprise: membership and reading are apart. A
//! [`Member`] joins, commits and leaves, and never fetches; a [`Reader`] fetches what it is told
//! to and never commits. So a revoke of some partitions never stops the reading of others.
//!
//! Three implementations hold the same contract (the suite in `contract`): Kafka, embedded and
//! simulated. Nothing outside this module knows which one it has.

mod headers;
mod types;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod embedded;
pub mod kafka;
pub mod patience;
pub mod ranges;
pub mod simulated;
pub mod topics;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

pub use headers::{Headers, HeadersBuilder};
pub use types::{
    Batch, Bounds, Class, Committed, Error, GroupMetadata, NotCommitted, NotWritten, Partition,
    Position, Record, StoredRecord, TopicName, TopicSettings, TopicShape, Transaction,
};

/// A log that a service can be handed without knowing which one it is.
pub type SharedLog = Arc<dyn Log>;

/// The event log: what a service may ask of Kafka, of the embedded log or of the simulation.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Creates the topics that are missing; returns the names of those it made. Existing topics
    /// are left as they are.
    async fn create_topics(&self, topics: &[TopicSettings]) -> Result<Vec<TopicName>, Error>;

    /// The shape of `topic` as it is, `None` where it does not exist.
    async fn describe_topic(&self, topic: &TopicName) -> Result<Option<TopicShape>, Error>;

    /// The first offset kept and the stable end (the offset behind the last one that a
    /// `read_committed` reader may see).
    async fn bounds(&self, partition: &Partition) -> Result<Bounds, Error>;

    /// The first offset whose timestamp is at or after `at` (unix milliseconds); `None` when every
    /// record is older.
    async fn offset_at(&self, partition: &Partition, at: i64) -> Result<Option<i64>, Error>;

    /// What `group` has committed, asked from outside the group.
    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error>;

    /// Commits for a group that has no members; refused with [`Class::Retry`] while it has some.
    async fn commit_for_empty_group(
        &self,
        group: &str,
        positions: &[Position],
    ) -> Result<(), Error>;

    /// Opens an idempotent producer (acks=all).
    async fn producer(&self, options: ProducerOptions) -> Result<Arc<dyn Producer>, Error>;

    /// Opens the transactional producer named `options.id`, fences every earlier one of that id and
    /// finishes or aborts what it left open: when this returns, the outcome of the predecessor's
    /// last transaction can be read from the committed positions.
    async fn transactions(
        &self,
        options: TransactionOptions,
    ) -> Result<Box<dyn Transactions>, Error>;

    /// Joins `options.group`. Membership arrives on the receiver, in order.
    async fn member(
        &self,
        options: MemberOptions,
    ) -> Result<(Arc<dyn Member>, mpsc::UnboundedReceiver<Membership>), Error>;

    /// Opens a reader with nothing assigned. It reads committed records only. The receiver is
    /// bounded: a reader that is not drained stops fetching.
    async fn reader(
        &self,
        options: ReaderOptions,
    ) -> Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), Error>;
}

/// How a producer behaves.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// Names the client in logs and metrics.
    pub name: String,
    /// How long a record may wait for company. Zero sends at once; under load batches form anyway.
    pub linger: Duration,
    /// The bytes that may be unacknowledged; [`Producer::send`] waits beyond it.
    pub buffer_bytes: usize,
    /// Fail everything behind a failed record rather than leave a gap (the router's setting).
    pub gapless: bool,
    /// One record a batch, so that a refusal for size or form names its record.
    pub single_record_batches: bool,
    /// How long a record is tried; `None` for ever.
    pub delivery_timeout: Option<Duration>,
    /// What an acknowledgement means on a log that syncs a local disk.
    pub acknowledge: Acknowledge,
}

impl ProducerOptions {
    /// Options that suit a service writing what must not be lost: no linger, 16 MiB in flight,
    /// tried for ever, acknowledged when durable.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            linger: Duration::ZERO,
            buffer_bytes: 16 << 20,
            gapless: false,
            single_record_batches: false,
            delivery_timeout: None,
            acknowledge: Acknowledge::Durable,
        }
    }
}

/// What an acknowledgement promises. Kafka answers both with acks=all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// The record survives the loss of the process: what a 202 needs.
    Durable,
    /// The record is durable before anything that is written or committed after its
    /// acknowledgement; enough where its source would be read again.
    Ordered,
}

/// How a transactional producer behaves.
#[derive(Debug, Clone)]
pub struct TransactionOptions {
    /// The stable name: a restart fences its predecessor at once.
    pub id: String,
    /// After this the log aborts a transaction whose producer is silent.
    pub timeout: Duration,
}

/// How a member joins.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// The group.
    pub group: String,
    /// The topics whose partitions the group shares.
    pub topics: Vec<TopicName>,
    /// This process's stable instance name.
    pub instance: String,
}

/// How a reader fetches.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Names the client in logs and metrics.
    pub name: String,
    /// Bytes that may be fetched and not yet taken from the receiver, all partitions together.
    pub queue_bytes: usize,
    /// The most bytes in one [`Batch`], one larger record excepted.
    pub batch_bytes: usize,
}

/// Writes records with acks=all and idempotence, in the order given per partition.
#[async_trait]
pub trait Producer: fmt::Debug + Send + Sync {
    /// Hands `records` over in order and returns when the producer has room for them all, which it
    /// takes whole: cancelling this future before it is ready hands nothing over.
    async fn send(&self, records: Vec<Record>) -> Acks;

    /// As [`Producer::send`], but gives the records back when there is no room now.
    ///
    /// # Errors
    /// The records themselves, untouched.
    fn try_send(&self, records: Vec<Record>) -> Result<Acks, Vec<Record>>;

    /// Gives up everything unacknowledged: its reports come as [`NotWritten::Unknown`]. The
    /// producer takes nothing after this.
    fn purge(&self);
}

/// The reports of one [`Producer::send`], resolved when the last of them is known.
#[derive(Debug)]
pub struct Acks(oneshot::Receiver<Vec<Result<i64, NotWritten>>>);

impl Acks {
    /// The pair of a sender for an implementation and the acks it resolves.
    pub fn channel() -> (oneshot::Sender<Vec<Result<i64, NotWritten>>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// The offset of each record, or why it was not written, in the order of the records.
    /// cancel-safe: the reports are lost with the future, the writing goes on.
    pub async fn wait(self) -> Vec<Result<i64, NotWritten>> {
        // A sender dropped without a report is an outcome nobody knows.
        self.0
            .await
            .unwrap_or_else(|_| vec![Err(NotWritten::Unknown)])
    }
}

/// Writes records and commits positions together, or neither.
#[async_trait]
pub trait Transactions: fmt::Debug + Send {
    /// Runs one whole transaction. After [`NotCommitted::Unknown`] or [`NotCommitted::Fenced`] this
    /// value is spent: open another and compare the committed positions.
    async fn commit(&mut self, transaction: Transaction) -> Result<(), NotCommitted>;
}

/// Holds membership of a group and commits for it. Never fetches.
#[async_trait]
pub trait Member: fmt::Debug + Send + Sync {
    /// Commits `positions` (any topic) under the membership; returns when the log has acknowledged
    /// it. [`Class::Retry`] when refused for a rebalance, [`Class::Fenced`] when this member is out.
    async fn commit(&self, positions: Vec<Position>) -> Result<(), Error>;

    /// What the group has committed, metadata included, for any partitions. Waits for open
    /// transactions on them.
    async fn committed(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error>;

    /// Changes the topics whose partitions this member shares: those of topics that are not named
    /// any more are revoked, those of new ones come as the group settles. A topic that does not
    /// exist is waited for. Returns at once; what is asked for happens in order.
    fn subscribe(&self, topics: Vec<TopicName>);

    /// What a [`Transaction`] needs to commit under this membership; read anew for each.
    fn group_metadata(&self) -> Result<GroupMetadata, Error>;

    /// After this long without a sign of life the log gives the partitions to another member.
    fn session_timeout(&self) -> Duration;

    /// Leaves the group. Partitions still owned are given up without another message.
    async fn close(&self);
}

/// What happens to a member, in order.
#[derive(Debug)]
pub enum Membership {
    /// These partitions are owned from now on, beside those owned before.
    Assigned(Vec<Partition>),
    /// These partitions are to be given up; they are still owned until [`Revocation::acknowledge`].
    Revoked(Revocation),
    /// These partitions are owned by somebody else already; nothing may be committed for them.
    Lost(Vec<Partition>),
    /// Another live process has this member's name; the membership is over.
    Fenced(Error),
    /// The log cannot serve this member; the membership is over.
    Failed(Error),
}

/// Partitions to give up. Dropping it acknowledges, so that a task that dies blocks nobody.
#[derive(Debug)]
pub struct Revocation {
    partitions: Vec<Partition>,
    // Held for its drop: the receiver's end sees the channel close.
    _acknowledged: oneshot::Sender<()>,
}

impl Revocation {
    /// The revocation of `partitions`, and the receiver that ends when it is acknowledged.
    pub fn new(partitions: Vec<Partition>) -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (
            Self {
                partitions,
                _acknowledged: sender,
            },
            receiver,
        )
    }

    /// The partitions to give up.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Says that nothing more will be done for these partitions: the next owner may start.
    pub fn acknowledge(self) {
        drop(self);
    }
}

/// Fetches the partitions it is assigned, from the offsets it is told, committed records only.
/// All methods return at once; what they ask for happens in order.
pub trait Reader: fmt::Debug + Send + Sync {
    /// Starts reading `partition` at `offset`. The returned number comes back on everything fetched
    /// under this assignment, so that what was on its way before a re-assignment can be told apart.
    fn assign(&self, partition: Partition, offset: i64) -> Assignment;

    /// Stops reading `partition`.
    fn unassign(&self, partition: Partition);

    /// Stops fetching until [`Reader::resume`]. Batches already fetched may still arrive.
    fn pause(&self, partition: Partition);

    /// Fetches again from where the last batch handed over ended.
    fn resume(&self, partition: Partition);
}

/// Numbers the assignments of one reader, growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

/// What a reader found.
#[derive(Debug)]
pub enum Fetched {
    /// Records of one partition, in offset order, offsets with gaps.
    Records(Assignment, Batch),
    /// Everything up to the stable end, as it stood at some moment after the assignment and after
    /// the last message about this partition, has been handed over. Sent at least once after an
    /// assignment, and again whenever the end is reached anew.
    End(Assignment, Partition),
    /// The offset asked for is outside the log; nothing more comes until it is assigned anew.
    OutOfRange(Assignment, Partition),
    /// The partition cannot be read now; the reader goes on trying by itself.
    Failed(Option<Partition>, Error),
}
