//! Owns the idempotent producer: its settings and its budget of bytes.
//!
//! It must never hand over more than its budget. The surprise: a batch larger than the whole
//! budget is taken when nothing else is in flight, else it could never be sent.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::KafkaOptions;
use super::gate::{BESIDE, Burst};
use super::report::answer_as_results;
use super::writer::{Limits, MAX_MESSAGE_BYTES, Writer};
use crate::log::{Acks, Error, Producer, ProducerOptions, Record};

/// The most that one request carries of a partition (librdkafka's own default).
const BATCH_BYTES: usize = 1_000_000;

/// What a record costs in librdkafka and here beside its bytes.
const RECORD_OVERHEAD: usize = 256;

/// See [`Producer`].
#[derive(Debug)]
pub(super) struct KafkaProducer {
    writer: Writer,
    budget: Arc<Semaphore>,
    budget_bytes: u32,
    single: bool,
}

impl KafkaProducer {
    /// Opens the producer. Does not wait for a broker.
    pub(super) fn open(kafka: &KafkaOptions, options: &ProducerOptions) -> Result<Self, Error> {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX >> 1);
        let budget_bytes = u32::try_from(options.buffer_bytes)
            .unwrap_or(most)
            .clamp(1, most);
        Ok(Self {
            writer: Writer::open(&settings(kafka, options), limits(options), &options.name)?,
            budget: Arc::new(Semaphore::new(budget_bytes as usize)),
            budget_bytes,
            single: options.single_record_batches,
        })
    }

    fn cost(&self, records: &[Record]) -> u32 {
        let bytes: usize = records
            .iter()
            .map(|record| record.len_bytes() + RECORD_OVERHEAD)
            .sum();
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.budget_bytes)
    }

    fn hand_over(&self, records: &[Record], room: Option<OwnedSemaphorePermit>) -> Acks {
        let (sender, acks) = Acks::channel();
        self.writer
            .write(records, answer_as_results(sender, self.single), room);
        acks
    }
}

/// The acks of records that a purged producer does not take.
fn not_taken(records: &[Record]) -> Acks {
    let (sender, acks) = Acks::channel();
    let reports = vec![Err(crate::log::NotWritten::Unknown); records.len()];
    // The receiver is in `acks`, alive.
    drop(sender.send(reports));
    acks
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&self, records: Vec<Record>) -> Acks {
        let room = Arc::clone(&self.budget)
            .acquire_many_owned(self.cost(&records))
            .await;
        match room {
            Ok(room) => self.hand_over(&records, Some(room)),
            Err(_purged) => not_taken(&records),
        }
    }

    fn try_send(&self, records: Vec<Record>) -> Result<Acks, Vec<Record>> {
        let room = Arc::clone(&self.budget).try_acquire_many_owned(self.cost(&records));
        match room {
            Ok(room) => Ok(self.hand_over(&records, Some(room))),
            Err(TryAcquireError::NoPermits) => Err(records),
            Err(TryAcquireError::Closed) => Ok(not_taken(&records)),
        }
    }

    fn purge(&self) {
        self.budget.close();
        self.writer.purge();
    }
}

/// What every producer is set to: acks=all, idempotent (rule 1).
pub(super) fn durable(kafka: &KafkaOptions) -> Vec<(&'static str, String)> {
    vec![
        ("acks", "all".to_owned()),
        ("enable.idempotence", "true".to_owned()),
        ("compression.type", kafka.compression()),
        // Java's partitioner: producers of both kinds agree on a key's partition.
        ("partitioner", "murmur2_random".to_owned()),
        ("message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
        // The bound is the budget in bytes; these only must not be lower.
        ("queue.buffering.max.messages", "10000000".to_owned()),
        ("queue.buffering.max.kbytes", "2097151".to_owned()),
    ]
}

fn settings(kafka: &KafkaOptions, options: &ProducerOptions) -> ClientConfig {
    let mut own = durable(kafka);
    let timeout = options
        .delivery_timeout
        .map_or(0, |timeout| timeout.as_millis().max(1));
    own.push((
        "linger.ms",
        format!("{}", options.linger.as_secs_f64() * 1_000.0),
    ));
    own.push(("message.timeout.ms", timeout.to_string()));
    own.push(("batch.size", BATCH_BYTES.to_string()));
    if options.gapless {
        own.push(("enable.gapless.guarantee", "true".to_owned()));
    }
    if options.single_record_batches {
        own.push(("batch.num.messages", "1".to_owned()));
    }
    kafka.client(&options.name, &own)
}

fn limits(options: &ProducerOptions) -> Limits {
    let burst = Burst {
        bytes: BATCH_BYTES,
        records: if options.single_record_batches {
            BESIDE
        } else {
            usize::MAX
        },
    };
    Limits {
        burst: (!options.linger.is_zero()).then_some(burst),
        timeout: options.delivery_timeout,
    }
}
