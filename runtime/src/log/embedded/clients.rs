//! Owns the handles that services hold: producers, transactional producers and members. Each turns
//! a call into a message to the writer or the coordinator and waits for the answer.
//!
//! They must never touch the store. The surprise: dropping a member's handle is leaving its group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::groups::{Ask, MemberId, Standing};
use super::writer::{Command, Epoch, Produce};
use crate::log::{
    Acknowledge, Acks, Class, Committed, Error, GroupMetadata, Member, NotCommitted, NotWritten,
    Partition, Position, Producer, ProducerOptions, Record, TopicName, Transaction, Transactions,
};

/// Said to services that work by a session's length; nothing here ever times out.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer where the writer or the coordinator is gone.
pub(super) fn closed() -> Error {
    Error::new(Class::Unknown, "embedded log", "the log is closed")
}

/// Writes records. There is no linger: while one round is written the next one gathers.
#[derive(Debug)]
pub(super) struct EmbeddedProducer {
    writer: Sender<Command>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    durable: bool,
    purged: Arc<AtomicBool>,
}

impl EmbeddedProducer {
    /// A producer with the room that `options` give it.
    pub(super) fn new(writer: Sender<Command>, options: &ProducerOptions) -> Self {
        let room_bytes = u32::try_from(options.buffer_bytes)
            .unwrap_or(u32::MAX)
            .max(1);
        let permits = usize::try_from(room_bytes).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            writer,
            room: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            room_bytes,
            durable: options.acknowledge == Acknowledge::Durable,
            purged: Arc::default(),
        }
    }

    /// More than the whole room waits for all of it.
    fn permits(&self, records: &[Record]) -> u32 {
        let bytes = records.iter().map(Record::len_bytes).sum::<usize>().max(1);
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.room_bytes)
    }

    fn hand_over(&self, records: Vec<Record>, room: OwnedSemaphorePermit) -> Acks {
        let (reply, acks) = Acks::channel();
        let produce = Produce {
            records,
            purged: Arc::clone(&self.purged),
            durable: self.durable,
            reply,
            room,
        };
        if let Err(lost) = self.writer.send(Command::Produce(produce)) {
            unsent(lost.0);
        }
        acks
    }
}

fn unsent(command: Command) {
    if let Command::Produce(Produce { records, reply, .. }) = command {
        drop(reply.send(vec![Err(NotWritten::Unknown); records.len()]));
    }
}

#[async_trait]
impl Producer for EmbeddedProducer {
    // cancel-safe: the room is given back if the wait is dropped, and nothing follows the wait.
    async fn send(&self, records: Vec<Record>) -> Acks {
        let permits = self.permits(&records);
        match Arc::clone(&self.room).acquire_many_owned(permits).await {
            Ok(room) => self.hand_over(records, room),
            Err(_) => refused(records.len()),
        }
    }

    fn try_send(&self, records: Vec<Record>) -> Result<Acks, Vec<Record>> {
        match Arc::clone(&self.room).try_acquire_many_owned(self.permits(&records)) {
            Ok(room) => Ok(self.hand_over(records, room)),
            Err(_) => Err(records),
        }
    }

    fn purge(&self) {
        self.purged.store(true, Ordering::Release);
        self.room.close();
    }
}

/// The acks of a producer that takes nothing.
fn refused(count: usize) -> Acks {
    let (reply, acks) = Acks::channel();
    drop(reply.send(vec![Err(NotWritten::Unknown); count]));
    acks
}

/// Writes whole transactions, durable when they are answered.
#[derive(Debug)]
pub(super) struct EmbeddedTransactions {
    writer: Sender<Command>,
    producer: Epoch,
}

impl EmbeddedTransactions {
    /// Fences every earlier producer named `id`.
    pub(super) async fn open(writer: Sender<Command>, id: String) -> Result<Self, Error> {
        let (reply, opened) = oneshot::channel();
        writer
            .send(Command::OpenTransactions { id, reply })
            .map_err(|_| closed())?;
        Ok(Self {
            writer,
            producer: opened.await.map_err(|_| closed())?,
        })
    }
}

#[async_trait]
impl Transactions for EmbeddedTransactions {
    async fn commit(&mut self, transaction: Transaction) -> Result<(), NotCommitted> {
        let (reply, committed) = oneshot::channel();
        let producer = self.producer.clone();
        let unknown = |()| NotCommitted::Unknown(closed());
        let command = Command::Transact {
            producer,
            transaction,
            reply,
        };
        self.writer.send(command).map_err(|_| unknown(()))?;
        committed.await.map_err(|_| unknown(()))?
    }
}

/// Holds a membership.
#[derive(Debug)]
pub(super) struct EmbeddedMember {
    writer: Sender<Command>,
    coordinator: mpsc::UnboundedSender<Ask>,
    member: MemberId,
    standing: Standing,
}

impl EmbeddedMember {
    /// The handle of `member`.
    pub(super) fn new(
        writer: Sender<Command>,
        coordinator: mpsc::UnboundedSender<Ask>,
        (member, standing): (MemberId, Standing),
    ) -> Self {
        Self {
            writer,
            coordinator,
            member,
            standing,
        }
    }

    fn leave(&self, done: Option<oneshot::Sender<()>>) {
        self.standing.end();
        let leave = Ask::Leave {
            standing: self.standing.clone(),
            member: self.member,
            done,
        };
        // A coordinator that is gone has no members.
        drop(self.coordinator.send(leave));
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.leave(None);
    }
}

#[async_trait]
impl Member for EmbeddedMember {
    async fn commit(&self, positions: Vec<Position>) -> Result<(), Error> {
        let (reply, committed) = oneshot::channel();
        let standing = self.standing.clone();
        let command = Command::Commit {
            standing,
            positions,
            reply,
        };
        self.writer.send(command).map_err(|_| closed())?;
        committed.await.map_err(|_| closed())?
    }

    async fn committed(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        committed(&self.writer, self.standing.group(), partitions).await
    }

    fn subscribe(&self, topics: Vec<TopicName>) {
        let ask = Ask::Subscribe {
            standing: self.standing.clone(),
            member: self.member,
            topics,
        };
        // A coordinator that is gone has no members.
        drop(self.coordinator.send(ask));
    }

    fn group_metadata(&self) -> Result<GroupMetadata, Error> {
        if self.standing.stands() {
            Ok(GroupMetadata::new(self.standing.clone()))
        } else {
            let message = "the member is no longer in the group";
            Err(Error::new(Class::Fenced, self.standing.group(), message))
        }
    }

    fn session_timeout(&self) -> Duration {
        SESSION_TIMEOUT
    }

    async fn close(&self) {
        let (done, left) = oneshot::channel();
        self.leave(Some(done));
        // Ends when the coordinator has dropped its end: nothing is ever sent.
        drop(left.await);
    }
}

/// What `group` has committed, behind everything that was asked of the writer before.
pub(super) async fn committed(
    writer: &Sender<Command>,
    group: &str,
    partitions: &[Partition],
) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
    let (reply, answer) = oneshot::channel();
    let (group, partitions) = (group.to_owned(), partitions.to_vec());
    writer
        .send(Command::Committed {
            group,
            partitions,
            reply,
        })
        .map_err(|_| closed())?;
    answer.await.map_err(|_| closed())
}
