//! Owns a librdkafka producer and the thread that serves its reports; the plain and the
//! transactional producer both write through it.
//!
//! It must never drop a report, nor block a caller. The surprise: the thread outlives the handle
//! until what was handed over is reported, for a while at most.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::time::Instant;

use super::report::{Answer, Outcome, Reports};
use super::{context, errors, wake};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::log::{Error, Headers, NotWritten, Record};
use tokio::sync::OwnedSemaphorePermit;

/// What the broker adds around a record must fit too.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// The thread looks this often whether its handle is gone. Reports wake it at once.
const SERVE: Duration = Duration::from_millis(500);

/// A handle that is gone leaves its records this long to be reported.
const GRACE: Duration = Duration::from_secs(10);

/// A librdkafka producer whose reports are served.
pub(super) struct Writer {
    producer: Arc<BaseProducer<ReportContext>>,
    released: Arc<AtomicBool>,
}

impl Writer {
    /// Opens the producer and starts its thread.
    pub(super) fn open(config: &ClientConfig, name: &str) -> Result<Self, Error> {
        let producer = BaseProducer::from_config_and_context(config, ReportContext)
            .map_err(|error| errors::building(format!("producer {name}"), &error))?;
        let producer = Arc::new(producer);
        let released = Arc::new(AtomicBool::new(false));
        let (served, until) = (Arc::clone(&producer), Arc::clone(&released));
        wake::start("kafka-producer", move || serve(&served, &until))?;
        Ok(Self { producer, released })
    }

    /// librdkafka's producer, for its transactions.
    pub(super) fn raw(&self) -> &BaseProducer<ReportContext> {
        &self.producer
    }

    /// Hands `records` over in order; `answer` is called once, with every outcome.
    pub(super) fn write(
        &self,
        records: &[Record],
        answer: Answer,
        room: Option<OwnedSemaphorePermit>,
    ) {
        let reports = Reports::new(records.len(), answer, room);
        for (index, record) in records.iter().enumerate() {
            if let Err(outcome) = self.write_one(
                record,
                Slot {
                    reports: Arc::clone(&reports),
                    index,
                },
            ) {
                reports.set(index, outcome);
            }
        }
        reports.handed_over();
    }

    fn write_one(&self, record: &Record, slot: Slot) -> Result<(), Outcome> {
        // librdkafka's own check leaves the headers out.
        if record.len_bytes() > MAX_RECORD_BYTES {
            return Err(Outcome::Refused(NotWritten::TooLarge));
        }
        let mut message = BaseRecord::with_opaque_to(record.topic.as_str(), Box::new(slot));
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = native_headers(&record.headers);
        message.partition = match record.partition.map(i32::try_from) {
            None => None,
            Some(Ok(partition)) => Some(partition),
            Some(Err(_)) => return Err(Outcome::Refused(NotWritten::Invalid)),
        };
        self.producer
            .send(message)
            .map_err(|(error, _)| Outcome::of_refusal(&error))
    }

    /// Gives up what is not acknowledged.
    pub(super) fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("in_flight", &self.producer.in_flight_count())
            .finish()
    }
}

fn serve(producer: &BaseProducer<ReportContext>, released: &AtomicBool) {
    while !released.load(Ordering::Acquire) {
        producer.poll(SERVE);
    }
    let end = Instant::now() + GRACE;
    while producer.in_flight_count() > 0 && Instant::now() < end {
        producer.poll(wake::DOZE);
    }
}

fn native_headers(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let native = OwnedHeaders::new_with_capacity(8);
    Some(headers.iter().fold(native, |native, (key, value)| {
        native.insert(Header {
            key,
            value: Some(value),
        })
    }))
}

/// A record's place in its batch; librdkafka carries it to the report.
pub(super) struct Slot {
    reports: Arc<Reports>,
    index: usize,
}

/// Brings reports to their batches.
pub(super) struct ReportContext;

impl ClientContext for ReportContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_error(&error, reason);
    }
}

impl ProducerContext for ReportContext {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, report: &DeliveryResult<'_>, slot: Box<Slot>) {
        let outcome = match report {
            Ok(message) => Outcome::Written(message.offset()),
            Err((error, _)) => Outcome::of_report(error),
        };
        slot.reports.set(slot.index, outcome);
    }
}
