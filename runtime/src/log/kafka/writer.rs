//! Owns a librdkafka producer and the thread that serves its reports; the plain and the
//! transactional producer both write through it.
//!
//! It must never drop a report, nor block a caller. The surprises: the thread outlives the handle
//! until what was handed over is reported, for a while at most; and where a linger makes batches, a
//! record whose partition is named may wait in its partition's gate before librdkafka sees it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::time::Instant;

use super::gate::{Burst, Gate};
use super::report::{Answer, Outcome, Reports};
use super::{context, errors, wake};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::log::{Error, Headers, NotWritten, Partition, Record};
use tokio::sync::OwnedSemaphorePermit;

/// What the broker adds around a record must fit too.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// The thread looks this often whether its handle is gone. Reports wake it at once.
const SERVE: Duration = Duration::from_millis(500);

/// A handle that is gone leaves its records this long to be reported.
const GRACE: Duration = Duration::from_secs(10);

/// What librdkafka adds to a record in a batch, headers aside; rather too much.
const RECORD_OVERHEAD: usize = 32;

/// A librdkafka producer whose reports are served.
pub(super) struct Writer {
    producer: Arc<BaseProducer<ReportContext>>,
    gates: Mutex<HashMap<Partition, Arc<Entrance>>>,
    limits: Limits,
    released: Arc<AtomicBool>,
}

/// What its settings say of one request, and of how long a record is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// One request's records. `None` lets them pass the gates: without a linger the first of a
    /// burst would be sent alone, and the rest behind it, which halves what a router writes.
    pub(super) burst: Option<Burst>,
    /// `message.timeout.ms`, for which a record may wait here as well; `None` for ever.
    pub(super) timeout: Option<Duration>,
}

impl Writer {
    /// Opens the producer and starts its thread.
    pub(super) fn open(config: &ClientConfig, limits: Limits, name: &str) -> Result<Self, Error> {
        let producer = BaseProducer::from_config_and_context(config, ReportContext)
            .map_err(|error| errors::building(format!("producer {name}"), &error))?;
        let producer = Arc::new(producer);
        let released = Arc::new(AtomicBool::new(false));
        let (served, until) = (Arc::clone(&producer), Arc::clone(&released));
        wake::start("kafka-producer", move || serve(&served, &until))?;
        Ok(Self {
            producer,
            gates: Mutex::default(),
            limits,
            released,
        })
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
            // librdkafka's own check leaves the headers out.
            if record.len_bytes() > MAX_RECORD_BYTES {
                reports.set(index, Outcome::Refused(NotWritten::TooLarge));
                continue;
            }
            let slot = |entrance| Slot {
                reports: Arc::clone(&reports),
                index,
                entrance,
            };
            let Some(entrance) = self.entrance(record) else {
                produce(&self.producer, record, slot(None));
                continue;
            };
            let waiting = Waiting {
                record: record.clone(),
                slot: slot(Some(Arc::clone(&entrance))),
                since: Instant::now(),
            };
            let bytes = record.len_bytes() + RECORD_OVERHEAD;
            entrance
                .gate
                .enter(waiting, bytes, |waiting| waiting.produce(&self.producer));
        }
        reports.handed_over();
    }

    fn entrance(&self, record: &Record) -> Option<Arc<Entrance>> {
        let burst = self.limits.burst?;
        let partition = record.topic.partition(record.partition?);
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let entrance = gates.entry(partition).or_insert_with(|| {
            Arc::new(Entrance {
                gate: Gate::new(burst),
                producer: Arc::downgrade(&self.producer),
                timeout: self.limits.timeout,
            })
        });
        Some(Arc::clone(entrance))
    }

    /// Gives up what is not acknowledged.
    pub(super) fn purge(&self) {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // First what waits: the reports of the rest would call for it.
        for entrance in gates.values() {
            for waiting in entrance.gate.clear() {
                waiting.slot.end(Outcome::Unknown);
            }
        }
        drop(gates);
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }
}

/// Hands `record` to librdkafka, or ends its `slot`. Whether it was taken.
fn produce(producer: &BaseProducer<ReportContext>, record: &Record, slot: Slot) -> bool {
    let mut message = BaseRecord::with_opaque_to(record.topic.as_str(), Box::new(slot));
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.headers = native_headers(&record.headers);
    message.partition = match record.partition.map(i32::try_from) {
        None => None,
        Some(Ok(partition)) => Some(partition),
        Some(Err(_)) => {
            let slot = message.delivery_opaque;
            slot.end(Outcome::Refused(NotWritten::Invalid));
            return false;
        }
    };
    let Err((error, back)) = producer.send(message) else {
        return true;
    };
    back.delivery_opaque.end(Outcome::of_refusal(&error));
    false
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

/// A partition's gate, and what hands over behind it.
struct Entrance {
    gate: Gate<Waiting>,
    // Weak: librdkafka holds the slots, and they hold this.
    producer: Weak<BaseProducer<ReportContext>>,
    timeout: Option<Duration>,
}

impl Entrance {
    /// A record that passed was reported.
    fn leave(&self) {
        let producer = self.producer.upgrade();
        self.gate.leave(|waiting| {
            let is_late = self
                .timeout
                .is_some_and(|timeout| waiting.since.elapsed() >= timeout);
            match &producer {
                Some(producer) if !is_late => waiting.produce(producer),
                // As librdkafka reports what it had no time or nobody to send for.
                Some(_) | None => {
                    waiting.slot.end(Outcome::Unknown);
                    false
                }
            }
        });
    }
}

/// A record in a gate.
struct Waiting {
    record: Record,
    slot: Slot,
    since: Instant,
}

impl Waiting {
    fn produce(self, producer: &BaseProducer<ReportContext>) -> bool {
        produce(producer, &self.record, self.slot)
    }
}

/// A record's place in its batch; librdkafka carries it to the report.
pub(super) struct Slot {
    reports: Arc<Reports>,
    index: usize,
    entrance: Option<Arc<Entrance>>,
}

impl Slot {
    fn end(&self, outcome: Outcome) {
        self.reports.set(self.index, outcome);
    }
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
        slot.end(outcome);
        if let Some(entrance) = &slot.entrance {
            entrance.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use tokio::sync::oneshot;

    use super::super::KafkaOptions;
    use super::super::gate::BESIDE;
    use super::*;
    use crate::log::TopicName;

    const SLOW: Duration = Duration::from_millis(300);

    fn open(brokers: &MockCluster<'_, impl ClientContext>, timeout: Option<Duration>) -> Writer {
        let burst = Burst {
            bytes: 1_000_000,
            records: usize::MAX,
        };
        let millis = timeout.map_or(0, |timeout| timeout.as_millis());
        let own = [
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("message.timeout.ms", millis.to_string()),
        ];
        let config = KafkaOptions::new(brokers.bootstrap_servers()).client("w", &own);
        let limits = Limits {
            burst: Some(burst),
            timeout,
        };
        Writer::open(&config, limits, "w").unwrap()
    }

    fn records(partition: u32, count: usize) -> Vec<Record> {
        let record = Record {
            topic: TopicName::new("t"),
            partition: Some(partition),
            key: None,
            value: Some("x".into()),
            headers: Headers::default(),
        };
        vec![record; count]
    }

    fn write(writer: &Writer, records: &[Record]) -> oneshot::Receiver<Vec<Outcome>> {
        let (sender, outcomes) = oneshot::channel();
        let answer = Box::new(move |outcomes| drop(sender.send(outcomes)));
        writer.write(records, answer, None);
        outcomes
    }

    async fn outcomes(reports: oneshot::Receiver<Vec<Outcome>>) -> Vec<Outcome> {
        let patience = Duration::from_secs(30);
        let outcomes = tokio::time::timeout(patience, reports).await;
        outcomes.expect("no reports").unwrap()
    }

    #[tokio::test]
    async fn what_cannot_be_sent_yet_is_not_handed_over_and_comes_in_order() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 2, 1).unwrap();
        let writer = open(&brokers, None);
        // The broker is known and connected from here on.
        outcomes(write(&writer, &records(0, 1))).await;
        brokers.broker_round_trip_time(1, SLOW).unwrap();
        let of_one = write(&writer, &records(0, 1_000));
        let in_flight = || usize::try_from(writer.raw().in_flight_count());
        assert_eq!(in_flight(), Ok(BESIDE));
        // Partitions do not wait for each other.
        let of_other = write(&writer, &records(1, 1_000));
        assert_eq!(in_flight(), Ok(2 * BESIDE));
        let in_order = |first| (first..first + 1_000).map(Outcome::Written);
        assert!(outcomes(of_one).await.into_iter().eq(in_order(1)));
        assert!(outcomes(of_other).await.into_iter().eq(in_order(0)));
    }

    #[tokio::test]
    async fn what_waits_is_given_up_by_a_purge_and_after_its_time() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let unknown = vec![Outcome::Unknown; 100];
        for timeout in [None, Some(SLOW)] {
            let writer = open(&brokers, timeout);
            outcomes(write(&writer, &records(0, 1))).await;
            brokers.broker_down(1).unwrap();
            let reports = write(&writer, &records(0, 100));
            if timeout.is_none() {
                writer.purge();
            }
            assert_eq!(outcomes(reports).await, unknown, "{timeout:?}");
            brokers.broker_up(1).unwrap();
        }
    }

    #[tokio::test]
    async fn a_record_without_a_place_ends_alone() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let writer = open(&brokers, None);
        let mut some = records(0, 20);
        some[3].partition = Some(7);
        some[9].partition = Some(u32::MAX);
        let outcomes = outcomes(write(&writer, &some)).await;
        for (index, outcome) in outcomes.iter().enumerate() {
            let is_lost = [3, 9].contains(&index);
            let refused = Outcome::Refused(NotWritten::Invalid);
            assert_eq!(*outcome == refused, is_lost, "{index}: {outcome:?}");
        }
    }
}
