//! Owns what a router is held against and looked at with: a bare consume → produce loop, events at
//! a steady rate past ingest, and a look at what arrives.
//!
//! It must never do less than a router must: acks=all, idempotent, every header kept, a record at a
//! time. The surprise: an event's number is when it was meant to be sent, so that whoever sees it
//! knows its age.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, POLL, Record, blocking, client, each, finish, producer, producer_with};
use crate::events::ID_PREFIX;
use crate::pace::{self, wall_us};

/// The header that says which event a record is.
const ID: &str = "ce_id";
const LOOK: Duration = Duration::from_millis(20);
/// Reports are looked at after so many records.
const REPORTS: u64 = 256;
/// What a loop may have read and not written: librdkafka's default, and about what a router's
/// windows hold. With room for the whole topic it would be a reader first and a writer afterwards.
const UNWRITTEN: &str = "100000";

/// The end of each partition of a topic.
pub(crate) type Ends = Vec<(i32, i64)>;

/// Where the partitions of `topic` end now.
///
/// # Errors
/// Where the broker cannot be asked.
pub(crate) async fn ends(brokers: &str, topic: &str) -> anyhow::Result<Ends> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || ends_of(&reader(&brokers)?, &topic)).await
}

fn ends_of(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Ends> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let end = |number: i32| -> anyhow::Result<(i32, i64)> {
        let (_, end) = consumer.fetch_watermarks(topic, number, PATIENCE)?;
        Ok((number, end))
    };
    partitions.map(|partition| end(partition.id())).collect()
}

/// When each record behind `from` on a topic was written, by the broker's time in milliseconds, in
/// order; waits until `records` are there.
///
/// # Errors
/// How many came, where nothing comes any more.
pub(crate) async fn written_at(
    brokers: &str,
    topic: &str,
    from: Ends,
    records: u64,
) -> anyhow::Result<Vec<i64>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = assigned(&brokers, &topic, &from)?;
        let mut times = Vec::with_capacity(usize::try_from(records)?);
        each(&consumer, &topic, records, |message| {
            times.extend(message.timestamp().to_millis());
        })?;
        times.sort_unstable();
        Ok(times)
    })
    .await
}

fn reader(brokers: &str) -> anyhow::Result<BaseConsumer> {
    let consumer = client(brokers)
        .set("group.id", "load")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        // A queue that was full must not keep the next fetch waiting for a second.
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    Ok(consumer)
}

fn assigned(brokers: &str, topic: &str, from: &Ends) -> anyhow::Result<BaseConsumer> {
    let consumer = reader(brokers)?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Copies `count` records behind `from` to another topic: one consumer and one producer on one
/// thread, which looks at each record and its headers and hands them on, 5 ms in company.
///
/// # Errors
/// Where one is not acknowledged.
pub(crate) async fn copy(
    brokers: &str,
    (from_topic, from): (&str, Ends),
    to: &str,
    count: u64,
) -> anyhow::Result<()> {
    let (brokers, from_topic, to) = (brokers.to_owned(), from_topic.to_owned(), to.to_owned());
    blocking(move || {
        let relay = Loop::open(&brokers, (&from_topic, &from), to, "5")?;
        let start = Instant::now();
        relay.run(|done| {
            ensure!(start.elapsed() < PATIENCE, "{done} of {count} are copied");
            Ok(done < count)
        })
    })
    .await
}

/// A loop that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Relay {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Relay {
    /// Copies what comes on one topic to another, at once.
    ///
    /// # Errors
    /// Where the broker cannot be used.
    pub(crate) async fn start(brokers: &str, from: &str, to: &str) -> anyhow::Result<Self> {
        let ends = ends(brokers, from).await?;
        let (brokers, from, to) = (brokers.to_owned(), from.to_owned(), to.to_owned());
        let relay = blocking(move || Loop::open(&brokers, (&from, &ends), to, "0")).await?;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || relay.run(|_| Ok(!seen.load(Ordering::Relaxed))));
        Ok(Self { is_over, thread })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        join(self.thread, "the bare loop").await
    }
}

struct Loop {
    consumer: BaseConsumer,
    producer: BaseProducer,
    to: String,
}

impl Loop {
    fn open(
        brokers: &str,
        (from, ends): (&str, &Ends),
        to: String,
        linger_ms: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            consumer: assigned(brokers, from, ends)?,
            producer: producer_with(brokers, linger_ms, UNWRITTEN)?,
            to,
        })
    }

    /// Copies while `goes_on` says so of how many are done.
    fn run(&self, goes_on: impl Fn(u64) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let mut done = 0;
        while goes_on(done)? {
            match self.consumer.poll(POLL) {
                Some(message) => {
                    self.hand_on(&message?)?;
                    done += 1;
                    if done.is_multiple_of(REPORTS) {
                        self.producer.poll(Duration::ZERO);
                    }
                }
                None => {
                    self.producer.poll(Duration::ZERO);
                }
            }
        }
        finish(&self.producer)
    }

    fn hand_on(&self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let headers = message
            .headers()
            .map(rdkafka::message::BorrowedHeaders::detach);
        let mut next = BaseRecord::<[u8], [u8]>::to(&self.to)
            .payload(message.payload().unwrap_or_default())
            .partition(message.partition())
            .headers(headers.unwrap_or_default());
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    next = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

/// A record of an event that arrived on a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The event's number.
    pub(crate) number: u64,
    /// By [`wall_us`].
    pub(crate) at_us: i64,
}

/// A look at a topic from its end on.
#[derive(Debug)]
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Arrival>>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    /// Begins to look.
    ///
    /// # Errors
    /// Where the broker cannot be used.
    pub(crate) async fn start(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let ends = ends(brokers, topic).await?;
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let consumer = blocking(move || assigned(&brokers, &topic, &ends)).await?;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (ended, found) = (Arc::clone(&is_over), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Some(message) = consumer.poll(POLL) {
                    let number = number_of(&message?)?;
                    let at_us = wall_us();
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push(Arrival { number, at_us });
                }
            }
            Ok(())
        });
        Ok(Self {
            is_over,
            seen,
            thread,
        })
    }

    /// Waits until `count` records were seen; meanwhile `look` is called now and then.
    ///
    /// # Errors
    /// How many there are, where nothing comes any more.
    pub(crate) async fn wait(
        &self,
        count: usize,
        mut look: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            look()?;
            let seen = self
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len();
            if seen >= count {
                return Ok(());
            }
            if seen > before {
                (before, since) = (seen, Instant::now());
            }
            ensure!(
                since.elapsed() < PATIENCE && !self.thread.is_finished(),
                "{seen} of {count} records arrived"
            );
            sleep(LOOK).await;
        }
    }

    /// Ends it; what was seen.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Arrival>> {
        self.is_over.store(true, Ordering::Relaxed);
        join(self.thread, "the look at a topic").await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *seen))
    }
}

fn number_of(message: &BorrowedMessage<'_>) -> anyhow::Result<u64> {
    let headers = message.headers().context("a record without headers")?;
    let id = headers.iter().find(|header| header.key == ID);
    let id = id.and_then(|header| header.value).context("no id")?;
    let number = std::str::from_utf8(id)?.strip_prefix(ID_PREFIX);
    Ok(number.context("an id of somebody else's")?.parse()?)
}

/// Events that are written past ingest, at a steady rate.
#[derive(Debug, Clone)]
pub(crate) struct Paced {
    /// What they are like; each has its own id.
    pub(crate) example: Record,
    pub(crate) per_second: u64,
    pub(crate) count: u64,
    /// They go to these partitions in turn.
    pub(crate) partitions: std::ops::Range<i32>,
    /// Their numbers are so much less than when they are due: what tells them from others.
    pub(crate) less: i64,
}

impl Paced {
    /// Writes them to `topic`, each when it is due, and waits for their acknowledgements.
    ///
    /// # Errors
    /// Where one is not acknowledged.
    pub(crate) async fn write(self, brokers: &str, topic: &str) -> anyhow::Result<()> {
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        blocking(move || self.write_now(&brokers, &topic)).await
    }

    fn write_now(&self, brokers: &str, topic: &str) -> anyhow::Result<()> {
        let producer = producer(brokers, "0")?;
        let width = u64::try_from(self.partitions.len())?.max(1);
        let mut sent = Ok(());
        pace::each(self.per_second, self.count, |tick| {
            let turn = i32::try_from(tick.number % width).unwrap_or(0);
            let headers = numbered(&self.example.headers, tick.due_us - self.less);
            let record = BaseRecord::<[u8], [u8]>::to(topic)
                .payload(self.example.value.as_ref())
                .headers(headers)
                .partition(self.partitions.start + turn);
            if let Err((error, _)) = producer.send(record) {
                sent = Err(error);
            }
            producer.poll(Duration::ZERO);
        });
        sent?;
        finish(&producer)
    }
}

/// The headers with another event's id.
fn numbered(headers: &OwnedHeaders, number: i64) -> OwnedHeaders {
    let id = Bytes::from(format!("{ID_PREFIX}{number:09}"));
    let mut owned = OwnedHeaders::new_with_capacity(headers.count());
    for header in headers.iter() {
        let value = if header.key == ID {
            Some(id.as_ref())
        } else {
            header.value
        };
        owned = owned.insert(Header {
            key: header.key,
            value,
        });
    }
    owned
}

async fn join(thread: JoinHandle<anyhow::Result<()>>, what: &'static str) -> anyhow::Result<()> {
    blocking(move || match thread.join() {
        Ok(ended) => ended,
        Err(_) => bail!("{what} has ended"),
    })
    .await
}
