//! Owns one topic's consumer inside a reader: its partitions, where each stands, and the batches
//! being filled.
//!
//! It must never hand over a record twice under one assignment, nor one from before it. The
//! surprise: there is one librdkafka consumer a topic, since librdkafka names only the partition's
//! number when it reports an end, and puts all partitions of a consumer into every fetch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use hashbrown::HashMap;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;

use super::ask::Extent;
use super::context::Lines;
use super::{KafkaOptions, copy, errors, list};
use crate::log::{
    Assignment, Batch, Error, Fetched, Partition, ReaderOptions, StoredRecord, TopicName,
};

/// Messages taken from librdkafka before what they filled is handed on.
const BURST: usize = 4_096;

/// One topic of a reader.
pub(super) struct Source {
    topic: TopicName,
    consumer: BaseConsumer<Lines>,
    ready: Arc<AtomicBool>,
    partitions: HashMap<i32, Tracked>,
    batch_bytes: usize,
    burst_bytes: usize,
    scratch: Vec<u8>,
    failing: Option<Code>,
}

/// A partition that is read.
struct Tracked {
    assignment: Assignment,
    /// The offset behind the last record taken from librdkafka.
    next: i64,
    /// Whether anything came since the assignment.
    fresh: bool,
    paused: bool,
    records: Vec<StoredRecord>,
    bytes: usize,
}

/// A partition and where its reading stood when a question about it was asked.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) partition: Partition,
    pub(super) assignment: Assignment,
    pub(super) next: i64,
}

/// What a drain found beside records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// librdkafka has no more for now, or its turn is over.
    Served,
    /// Some partition's offset is outside the log; librdkafka does not say which.
    OutOfRange,
}

impl Source {
    /// Opens a consumer for `topic`; `thread` is woken when there is something to take.
    pub(super) fn open(
        kafka: &KafkaOptions,
        options: &ReaderOptions,
        group: &str,
        topic: &TopicName,
        thread: &Thread,
    ) -> Result<Self, KafkaError> {
        let config = kafka.client(&options.name, &settings(options, group));
        let mut consumer = BaseConsumer::from_config_and_context(&config, Lines)?;
        let ready = Arc::new(AtomicBool::new(true));
        consumer.set_nonempty_callback({
            let (ready, thread) = (Arc::clone(&ready), thread.clone());
            move || {
                ready.store(true, Ordering::Release);
                thread.unpark();
            }
        });
        Ok(Self {
            topic: topic.clone(),
            consumer,
            ready,
            partitions: HashMap::new(),
            batch_bytes: options.batch_bytes.max(1),
            burst_bytes: (options.queue_bytes / 8).max(options.batch_bytes),
            scratch: Vec::new(),
            failing: None,
        })
    }

    /// Starts reading `number` at `offset`, anew if it was read before.
    pub(super) fn assign(
        &mut self,
        number: i32,
        assignment: Assignment,
        offset: i64,
    ) -> Result<(), KafkaError> {
        let was_paused = self.unassign(number)?;
        let mut place = list::at([], Offset::Invalid)?;
        place
            .add_partition(self.topic.as_str(), number)
            .set_offset(Offset::Offset(offset))?;
        self.consumer.incremental_assign(&place)?;
        if was_paused {
            self.consumer.resume(&place)?;
        }
        let tracked = Tracked {
            assignment,
            next: offset,
            fresh: true,
            paused: false,
            records: Vec::new(),
            bytes: 0,
        };
        self.partitions.insert(number, tracked);
        Ok(())
    }

    /// Stops reading `number`; says whether it was paused. What librdkafka still holds of it is
    /// outdated from here on: it is not handed out any more.
    pub(super) fn unassign(&mut self, number: i32) -> Result<bool, KafkaError> {
        let Some(tracked) = self.partitions.remove(&number) else {
            return Ok(false);
        };
        let mut place = list::at([], Offset::Invalid)?;
        place.add_partition(self.topic.as_str(), number);
        self.consumer.incremental_unassign(&place)?;
        Ok(tracked.paused)
    }

    /// Stops or starts fetching `number`; librdkafka goes on behind the last record taken.
    pub(super) fn set_paused(&mut self, number: i32, paused: bool) -> Result<(), KafkaError> {
        let Some(tracked) = self.partitions.get_mut(&number) else {
            return Ok(());
        };
        if tracked.paused == paused {
            return Ok(());
        }
        tracked.paused = paused;
        let mut place = list::at([], Offset::Invalid)?;
        place.add_partition(self.topic.as_str(), number);
        if paused {
            self.consumer.pause(&place)
        } else {
            self.consumer.resume(&place)
        }
    }

    /// Looks for messages at the next drain whether librdkafka called or not.
    pub(super) fn nudge(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether librdkafka may have something.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Takes what librdkafka has, up to a burst.
    pub(super) fn drain(&mut self, out: &mut VecDeque<Fetched>) -> Drained {
        // Cleared before looking: what arrives from here on sets it again.
        self.ready.store(false, Ordering::Release);
        let Self {
            consumer,
            partitions,
            scratch,
            ..
        } = self;
        let mut filling = Filling {
            topic: &self.topic,
            partitions,
            touched: Vec::new(),
            scratch,
            batch_bytes: self.batch_bytes,
            taken_bytes: 0,
            out,
        };
        let (mut drained, mut failure, mut quiet, mut taken) = (Drained::Served, None, 0, 0);
        // One empty answer may be a log line in front of the rest.
        while quiet < 2 && taken < BURST && filling.taken_bytes < self.burst_bytes {
            taken += 1;
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    filling.take(&message);
                    self.failing = None;
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    filling.end(number);
                    self.failing = None;
                }
                Some(Err(error)) if errors::code(&error) == Code::AutoOffsetReset => {
                    drained = Drained::OutOfRange;
                }
                Some(Err(error)) => failure = Some(error),
                None => quiet += 1,
            }
        }
        filling.flush_touched();
        if quiet < 2 {
            self.nudge();
        }
        if let Some(error) = failure {
            self.fail(&error, out);
        }
        drained
    }

    /// Reports an error once, until something is read again.
    fn fail(&mut self, error: &KafkaError, out: &mut VecDeque<Fetched>) {
        let code = errors::code(error);
        if self.failing.replace(code) != Some(code) {
            out.push_back(Fetched::Failed(
                self.only(),
                errors::asking(&self.topic, error),
            ));
        }
    }

    /// The partition, where only one is read.
    fn only(&self) -> Option<Partition> {
        let mut numbers = self.partitions.keys();
        let first = numbers.next()?;
        let partition = list::partition(self.topic.as_str(), *first)?;
        numbers.next().is_none().then_some(partition)
    }

    /// Where every partition stands.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let of = |(number, tracked): (&i32, &Tracked)| {
            Some(Standing {
                partition: list::partition(self.topic.as_str(), *number)?,
                assignment: tracked.assignment,
                next: tracked.next,
            })
        };
        self.partitions.iter().filter_map(of).collect()
    }

    /// Says [`Fetched::End`] where nothing came since the assignment, which was at `end`.
    pub(super) fn at_end(&self, standing: Standing, end: i64, out: &mut VecDeque<Fetched>) {
        let untouched = self
            .partitions
            .get(&list::number(&standing.partition))
            .is_some_and(|tracked| tracked.assignment == standing.assignment && tracked.fresh);
        if untouched && standing.next == end {
            out.push_back(Fetched::End(standing.assignment, standing.partition));
        }
    }

    /// Ends the partitions that stand outside of what the log holds. Where none does, the log has
    /// changed in the meantime, and reading starts again where it stood.
    pub(super) fn judge(
        &mut self,
        judged: Vec<(Standing, Extent)>,
        out: &mut VecDeque<Fetched>,
    ) -> Result<(), KafkaError> {
        let mut inside = Vec::new();
        let mut found = false;
        for (standing, extent) in judged {
            let number = list::number(&standing.partition);
            let current = self.partitions.get(&number).is_some_and(|tracked| {
                tracked.assignment == standing.assignment && tracked.next == standing.next
            });
            if !current {
                continue;
            }
            if (extent.start..=extent.end).contains(&standing.next) {
                inside.push((number, standing));
            } else {
                found = true;
                self.unassign(number)?;
                out.push_back(Fetched::OutOfRange(standing.assignment, standing.partition));
            }
        }
        if found {
            return Ok(());
        }
        for (number, standing) in inside {
            self.assign(number, standing.assignment, standing.next)?;
        }
        Ok(())
    }
}

/// A drain under way.
struct Filling<'d> {
    topic: &'d TopicName,
    partitions: &'d mut HashMap<i32, Tracked>,
    touched: Vec<i32>,
    scratch: &'d mut Vec<u8>,
    batch_bytes: usize,
    taken_bytes: usize,
    out: &'d mut VecDeque<Fetched>,
}

impl Filling<'_> {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let number = message.partition();
        let Some(tracked) = self.partitions.get_mut(&number) else {
            return;
        };
        if message.offset() < tracked.next {
            return;
        }
        let record = copy::record(message, self.scratch);
        let bytes = record.len_bytes() + size_of::<StoredRecord>();
        self.taken_bytes += bytes;
        tracked.next = record.offset + 1;
        tracked.fresh = false;
        if !tracked.records.is_empty() && tracked.bytes + bytes > self.batch_bytes {
            hand_over(self.topic, number, tracked, self.out);
        }
        if tracked.records.is_empty() {
            self.touched.push(number);
        }
        tracked.bytes += bytes;
        tracked.records.push(record);
    }

    fn end(&mut self, number: i32) {
        let Some(tracked) = self.partitions.get_mut(&number) else {
            return;
        };
        hand_over(self.topic, number, tracked, self.out);
        if let Some(partition) = list::partition(self.topic.as_str(), number) {
            self.out
                .push_back(Fetched::End(tracked.assignment, partition));
        }
    }

    fn flush_touched(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            if let Some(tracked) = self.partitions.get_mut(&number) {
                hand_over(self.topic, number, tracked, self.out);
            }
        }
    }
}

fn hand_over(topic: &TopicName, number: i32, tracked: &mut Tracked, out: &mut VecDeque<Fetched>) {
    let records = std::mem::take(&mut tracked.records);
    tracked.bytes = 0;
    let Ok(number) = u32::try_from(number) else {
        return;
    };
    if !records.is_empty() {
        let batch = Batch {
            partition: topic.partition(number),
            records,
        };
        out.push_back(Fetched::Records(tracked.assignment, batch));
    }
}

/// The error of a call that named `partition`.
pub(super) fn failed(partition: Partition, result: KafkaResult<()>) -> Option<Fetched> {
    let error: Error = errors::asking(&partition, &result.err()?);
    Some(Fetched::Failed(Some(partition), error))
}

fn settings(options: &ReaderOptions, group: &str) -> Vec<(&'static str, String)> {
    // A quarter waits in librdkafka, half on the way to the owner (see `reader`).
    let queue = (options.queue_bytes / 4).clamp(64 << 10, 64 << 20);
    let partition = queue.min(1 << 20);
    vec![
        // `assign` wants a group; this one is never joined and never committed for.
        ("group.id", group.to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", "error".to_owned()),
        ("isolation.level", "read_committed".to_owned()),
        ("enable.partition.eof", "true".to_owned()),
        ("allow.auto.create.topics", "false".to_owned()),
        ("check.crcs", "false".to_owned()),
        // Trap 8: a second by default, whenever the queue was full.
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("fetch.error.backoff.ms", "100".to_owned()),
        ("fetch.min.bytes", "1".to_owned()),
        // A partition that was paused or full waits for the fetch under way, which waits
        // this long for the others; ten times as long halved the rate of one busy partition.
        ("fetch.wait.max.ms", "50".to_owned()),
        ("queued.max.messages.kbytes", (queue >> 10).to_string()),
        ("max.partition.fetch.bytes", partition.to_string()),
        ("fetch.max.bytes", queue.to_string()),
        // Only a lower bound of the two above; larger batches are still delivered.
        ("message.max.bytes", (64 << 10).to_string()),
    ]
}
