//! Owns the log of a single process: durable on the local disk, nothing beside it to run. It is for
//! a laptop and a small installation; whoever outgrows one machine uses Kafka.
//!
//! It must never let a position, or a record written because of another, reach the disk before what
//! it depends on: all of it follows one journal, and a crash loses only a suffix of that. The
//! surprise: an acknowledgement that is [`Ordered`](super::Acknowledge::Ordered) waits for no disk
//! at all (it survives `kill -9`, not a power cut within 50 ms), and loses nothing by it.
//!
//! The store is fjall, chosen by measuring: records of 300 bytes, a sync for each batch, the stores
//! in turn for seven rounds of 300 batches, medians of the rounds' p50. The two cores and the disk
//! were busy with other work (load 6), and from batches of 10 on the rounds of one store differ by
//! up to nine times, so that only the order of the columns is to be read from it:
//!
//! | batch | bare write and fdatasync | fjall, a record a key | fjall, a block a batch | redb 4.5 |
//! |---|---|---|---|---|
//! | 1 | 0.14 ms | 0.15 ms | 0.14 ms | 0.21 ms |
//! | 10 | 0.17 ms | 0.22 ms | 0.22 ms | 0.25 ms |
//! | 100 | 0.64 ms | 0.84 ms | 0.50 ms | 1.65 ms |
//! | 1,000 | 2.02 ms | 2.99 ms | 2.17 ms | 4.00 ms |
//!
//! So records are kept in blocks, one value of the store for each partition and round. The whole log
//! in two runs on the same busy machine, six partitions: a durable record at 200/s is with its
//! reader after 0.13 and 0.14 ms (p50; p99 0.3 and 4.0) and acknowledged after 0.26 and 0.31 ms (p99
//! 7.0 and 4.0); batches of 100, each synced, 50,000 and 89,000 records/s from one producer that
//! waits for each, 240,000 and 370,000/s from eight; acknowledged in order alone, 640,000 and
//! 880,000/s from one; read from the start 1,300,000/s.

mod block;
mod clients;
mod groups;
mod keeping;
mod mend;
mod reader;
mod round;
mod slots;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::clients::{EmbeddedMember, EmbeddedProducer, EmbeddedTransactions, closed};
use self::groups::{Ask, Coordinator};
use self::reader::{EmbeddedReader, Fetcher};
use self::slots::{Slot, Topic, Topics};
use self::store::{Store, failed};
use self::writer::{Command, Writer};
use super::{
    Bounds, Class, Committed, Error, Fetched, Log, Member, MemberOptions, Membership, Partition,
    Position, Producer, ProducerOptions, Reader, ReaderOptions, TopicName, TopicSettings,
    TopicShape, TransactionOptions, Transactions,
};
use crate::clock::Clock;

/// Where the log is and what it keeps.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The folder; made if it is missing.
    pub dir: PathBuf,
    /// Nothing is kept longer than this, whatever its topic says; compacted topics excepted.
    pub retention: Duration,
    /// The records of all topics together, compacted ones excepted, take no more than this: the
    /// oldest go first. Journals (256 MiB) and what is not compacted yet come on top: at most 850
    /// MiB on disk were measured for a limit of 200, written at full speed.
    pub retention_bytes: u64,
    /// Stamps records and tells their age.
    pub clock: Clock,
}

impl EmbeddedOptions {
    /// A log in `dir` that keeps what its topics say, up to 8 GiB.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention: Duration::MAX,
            retention_bytes: 8 << 30,
            clock: Clock::system(),
        }
    }
}

/// What the threads and handles share.
#[derive(Debug)]
struct Shared {
    topics: Topics,
    options: EmbeddedOptions,
    // Last: the folder is let go when everything else is.
    store: Store,
}

/// The log in a folder, open. It closes when this and every handle made by it are dropped.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Sender<Command>,
    coordinator: mpsc::UnboundedSender<Ask>,
}

/// Tells when a log's folder is free again.
#[derive(Debug)]
pub struct Closed(oneshot::Receiver<()>);

impl Closed {
    /// Ends when the log and every handle made by it are gone, and all is on the disk.
    pub async fn wait(self) {
        // Nothing is ever sent: the sender is dropped with the folder's lock.
        drop(self.0.await);
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("dir", &self.shared.options.dir)
            .finish()
    }
}

impl EmbeddedLog {
    /// Opens the log, and recovers where every partition ends.
    ///
    /// # Errors
    /// [`Class::Never`] where the folder cannot be used; where another process has it, its number
    /// is in the message.
    pub async fn open(options: EmbeddedOptions) -> Result<(Self, Closed), Error> {
        let (released, closed) = oneshot::channel();
        let open = move || Self::open_blocking(options, released);
        let log = tokio::task::spawn_blocking(open).await.map_err(failed)??;
        Ok((log, Closed(closed)))
    }

    fn open_blocking(
        options: EmbeddedOptions,
        released: oneshot::Sender<()>,
    ) -> Result<Self, Error> {
        let store = Store::open(&options.dir, released)?;
        let topics = Topics::default();
        for (name, row) in store.topics()? {
            let topic = Topic::recover(&store, &name, row)?;
            topics.insert(name, topic);
        }
        let disk_bytes = store.disk_bytes()?;
        tracing::info!(dir = %options.dir.display(), disk_bytes, "embedded log opened");
        let shared = Arc::new(Shared {
            topics,
            options,
            store,
        });
        let (commands, queue) = std::sync::mpsc::channel();
        let (asks, asked) = mpsc::unbounded_channel();
        let writer = Writer::new(Arc::clone(&shared), queue, asks.downgrade())?;
        let coordinator = Coordinator::new(Arc::clone(&shared), asked, commands.clone());
        thread("log-writer", move || writer.run())?;
        async_thread("log-groups", coordinator.run())?;
        Ok(Self {
            shared,
            writer: commands,
            coordinator: asks,
        })
    }

    fn slot(&self, partition: &Partition) -> Result<Arc<Slot>, Error> {
        let missing = || Error::new(Class::Never, partition, "no such partition");
        self.shared.topics.slot(partition).ok_or_else(missing)
    }
}

/// The store blocks, so it is called on threads of its own and never on a worker of the runtime.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop).map_err(failed)
}

fn async_thread(name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    // No timers, no sockets: messages alone.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(failed)?;
    thread(name, move || runtime.block_on(work))
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn create_topics(&self, topics: &[TopicSettings]) -> Result<Vec<TopicName>, Error> {
        let (reply, made) = oneshot::channel();
        let command = Command::CreateTopics {
            topics: topics.to_vec(),
            reply,
        };
        self.writer.send(command).map_err(|_| closed())?;
        made.await.map_err(|_| closed())?
    }

    async fn describe_topic(&self, topic: &TopicName) -> Result<Option<TopicShape>, Error> {
        Ok(self.shared.topics.get(topic).map(|topic| shape(&topic)))
    }

    async fn bounds(&self, partition: &Partition) -> Result<Bounds, Error> {
        Ok(self.slot(partition)?.bounds())
    }

    async fn offset_at(&self, partition: &Partition, at: i64) -> Result<Option<i64>, Error> {
        let slot = self.slot(partition)?;
        let shared = Arc::clone(&self.shared);
        let search = move || offset_at(&shared.store, &slot, at);
        tokio::task::spawn_blocking(search).await.map_err(failed)?
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        clients::committed(&self.writer, group, partitions).await
    }

    async fn commit_for_empty_group(
        &self,
        group: &str,
        positions: &[Position],
    ) -> Result<(), Error> {
        let (reply, committed) = oneshot::channel();
        let (group, positions) = (group.to_owned(), positions.to_vec());
        let ask = Ask::CommitVacant {
            group,
            positions,
            reply,
        };
        self.coordinator.send(ask).map_err(|_| closed())?;
        committed.await.map_err(|_| closed())?
    }

    async fn producer(&self, options: ProducerOptions) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(EmbeddedProducer::new(
            self.writer.clone(),
            &options,
        )))
    }

    async fn transactions(
        &self,
        options: TransactionOptions,
    ) -> Result<Box<dyn Transactions>, Error> {
        // The timeout is for producers that fall silent in mid-transaction; here one is one message.
        Ok(Box::new(
            EmbeddedTransactions::open(self.writer.clone(), options.id).await?,
        ))
    }

    async fn member(
        &self,
        options: MemberOptions,
    ) -> Result<(Arc<dyn Member>, mpsc::UnboundedReceiver<Membership>), Error> {
        let (events, membership) = mpsc::unbounded_channel();
        let (reply, joined) = oneshot::channel();
        let ask = Ask::Join {
            options,
            events,
            reply,
        };
        self.coordinator.send(ask).map_err(|_| closed())?;
        let joined = joined.await.map_err(|_| closed())?;
        let member = EmbeddedMember::new(self.writer.clone(), self.coordinator.clone(), joined);
        Ok((Arc::new(member), membership))
    }

    async fn reader(
        &self,
        options: ReaderOptions,
    ) -> Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), Error> {
        let (reader, orders) = EmbeddedReader::new();
        let (fetcher, fetched) = Fetcher::new(Arc::clone(&self.shared), &options);
        async_thread("log-reader", fetcher.run(orders))?;
        Ok((Arc::new(reader), fetched))
    }
}

/// The settings under Kafka's names.
fn shape(topic: &Topic) -> TopicShape {
    let row = &topic.row;
    let time = if row.append_time {
        "LogAppendTime"
    } else {
        "CreateTime"
    };
    let settings = [
        (
            "cleanup.policy",
            if row.compact { "compact" } else { "delete" }.to_owned(),
        ),
        ("max.message.bytes", row.max_record_bytes.to_string()),
        ("message.timestamp.type", time.to_owned()),
        ("retention.ms", row.retention_ms.to_string()),
    ];
    TopicShape {
        partitions: row.partitions,
        replication: 1,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
    }
}

/// Halves the offsets until one block is left: no record has an earlier time than one before it.
fn offset_at(store: &Store, slot: &Slot, at: i64) -> Result<Option<i64>, Error> {
    let Bounds { start, stable_end } = slot.bounds();
    let (mut low, mut high) = (start, stable_end);
    while low < high {
        let middle = low + (high - low) / 2;
        match store.block_at(slot.id, middle)? {
            Some(block) if block.end() > low && block.last_timestamp >= at => {
                match block.first_at(at).map_err(failed)? {
                    // Earlier blocks may reach it too.
                    Some(offset) if offset > block.base => return Ok(Some(offset.max(start))),
                    _ => high = block.base.max(low),
                }
            }
            Some(block) => low = block.end().max(middle + 1),
            None => low = middle + 1,
        }
    }
    for block in store.blocks_from(slot.id, low).take(1) {
        let block = block?;
        if block.base < stable_end {
            return block.first_at(at).map_err(failed);
        }
    }
    Ok(None)
}
