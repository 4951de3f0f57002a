//! Owns the way of events into the log: their records, their topic, and how long an acknowledgement
//! may take.
//!
//! It must never say "written" before the log has (rule 1). The surprise: after a write whose
//! outcome is unknown the producer is replaced, because one that has lost its place in the
//! sequence would fail for ever; what it still holds is left to end by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use runtime::log::topics::Topics;
use runtime::log::{
    self, Acknowledge, Headers, HeadersBuilder, NotWritten, Producer, ProducerOptions, Record,
    SharedLog, TopicName,
};
use schemas::codec::kafka;
use schemas::event::Event;
use tokio::time::Instant;

use crate::options::Options;
use crate::telemetry::{EventClass, Telemetry};

/// The producer's room beside the bodies in flight: keys and headers.
const BUFFER_BYTES_MIN: usize = 16 << 20;
/// What one event's headers usually take.
const HEADER_BYTES: usize = 384;
/// A producer is not replaced again sooner.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// Writes events.
#[derive(Debug)]
pub(crate) struct Publisher {
    log: SharedLog,
    live: TopicName,
    bulk: TopicName,
    options: ProducerOptions,
    write_timeout: Duration,
    current: RwLock<Current>,
    replacing: AtomicBool,
    telemetry: Telemetry,
}

#[derive(Debug, Clone)]
struct Current {
    producer: Arc<dyn Producer>,
    since: Instant,
}

impl Publisher {
    /// Opens a producer.
    ///
    /// # Errors
    /// Where the log cannot.
    pub(crate) async fn open(
        log: SharedLog,
        topics: &Topics,
        options: &Options,
        telemetry: Telemetry,
    ) -> Result<Self, log::Error> {
        let producer_options = ProducerOptions {
            buffer_bytes: options.max_in_flight_bytes.max(BUFFER_BYTES_MIN),
            // Nobody waits for it longer: the client has been told to repeat.
            delivery_timeout: Some(options.write_timeout),
            acknowledge: Acknowledge::Durable,
            ..ProducerOptions::named("ingest")
        };
        let producer = log.producer(producer_options.clone()).await?;
        Ok(Self {
            log,
            live: topics.events.clone(),
            bulk: topics.bulk.clone(),
            options: producer_options,
            write_timeout: options.write_timeout,
            current: RwLock::new(Current {
                producer,
                since: Instant::now(),
            }),
            replacing: AtomicBool::new(false),
            telemetry,
        })
    }

    /// Writes the events in order, all handed over at once; says of each what became of it.
    pub(crate) async fn publish(
        &self,
        events: &[&Event],
        class: EventClass,
    ) -> Vec<Result<(), NotWritten>> {
        if events.is_empty() {
            return Vec::new();
        }
        let records = self.records(events, class);
        let sizes: Vec<usize> = records.iter().map(Record::len_bytes).collect();
        let current = self.current();
        let started = Instant::now();
        let write = async { current.producer.send(records).await.wait().await };
        let reports = tokio::time::timeout(self.write_timeout, write).await;
        self.telemetry
            .write_seconds
            .observe(started.elapsed().as_secs_f64());
        let reports = reports.unwrap_or_default();
        if reports.contains(&Err(NotWritten::Unknown)) {
            self.replace(&current).await;
        }
        // A report that is missing is an outcome nobody knows.
        let unknown = std::iter::repeat(Err(NotWritten::Unknown));
        let reports = reports.into_iter().map(|report| report.map(|_offset| ()));
        let reports: Vec<_> = reports.chain(unknown).take(sizes.len()).collect();
        let written = reports
            .iter()
            .zip(&sizes)
            .filter(|(report, _)| report.is_ok());
        let (count, bytes) = written.fold((0, 0), |(count, bytes), (_, size)| {
            (count + 1, bytes + *size)
        });
        self.telemetry.accepted_events.get(class).inc_by(count);
        self.telemetry
            .accepted_bytes
            .inc_by(u64::try_from(bytes).unwrap_or(0));
        reports
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Opens another producer instead of `failed`, unless that has happened already.
    /// cancel-safe: the next failure tries again.
    async fn replace(&self, failed: &Current) {
        let newer = !Arc::ptr_eq(&self.current().producer, &failed.producer);
        if newer || failed.since.elapsed() < REPLACE_INTERVAL {
            return;
        }
        let Some(_turn) = Turn::take(&self.replacing) else {
            return;
        };
        match tokio::time::timeout(self.write_timeout, self.log.producer(self.options.clone()))
            .await
        {
            Ok(Ok(producer)) => {
                let next = Current {
                    producer,
                    since: Instant::now(),
                };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                self.telemetry.producers_replaced.inc();
                tracing::warn!(topic = %self.live, "producer replaced after an unknown outcome");
            }
            Ok(Err(error)) => tracing::error!(topic = %self.live, %error, "no new producer"),
            Err(_) => tracing::error!(topic = %self.live, "no new producer in time"),
        }
    }

    /// The records of `events`; their headers share one buffer.
    fn records(&self, events: &[&Event], class: EventClass) -> Vec<Record> {
        let topic = match class {
            EventClass::Live => &self.live,
            EventClass::Bulk => &self.bulk,
        };
        let mut headers = Headers::builder();
        headers.reserve(events.len().saturating_mul(HEADER_BYTES));
        events
            .iter()
            .map(|event| record(topic, event, &mut headers))
            .collect()
    }
}

/// Binary mode (CE-16, CE-20), keyed by `partitionkey` or `subject` (CE-18).
fn record(topic: &TopicName, event: &Event, headers: &mut HeadersBuilder) -> Record {
    kafka::write_binary(event, |name, value| headers.push(name, value));
    let key = kafka::partition_key(event);
    Record {
        topic: topic.clone(),
        partition: None,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: event.data().cloned(),
        headers: headers.take(),
    }
}

/// The right to replace the producer, given back when it is dropped.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then_some(Self(flag))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use runtime::config::Config;
    use runtime::log::simulated::{Fault, Operation, SimulatedLog, SimulationOptions};
    use runtime::log::topics::Shape;
    use runtime::telemetry::Metrics;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_producer_that_failed_is_replaced_once_and_not_at_once() {
        let log = SimulatedLog::new(SimulationOptions::default());
        let topics = Topics::with_prefix("t.");
        let shape = Shape {
            partitions: 1,
            replication: 1,
            retention: Duration::from_secs(60),
        };
        log.process("a")
            .create_topics(&topics.settings(shape))
            .await
            .unwrap();
        let options = Options::from_config(&Config::default());
        let telemetry = Telemetry::new(&Metrics::new());
        let opened = Publisher::open(log.process("a"), &topics, &options, telemetry.clone());
        let publisher = opened.await.unwrap();
        let event = Event::builder("1", "/s", "t").build().unwrap();
        let replaced = || telemetry.producers_replaced.get();

        log.faults()
            .fail_next(Operation::Produce, Fault::LostRequest);
        assert_eq!(
            publisher.publish(&[&event], EventClass::Live).await,
            [Err(NotWritten::Unknown)]
        );
        assert_eq!(replaced(), 0, "it is younger than the interval");
        tokio::time::advance(REPLACE_INTERVAL).await;
        let old = publisher.current();
        log.faults()
            .fail_next(Operation::Produce, Fault::LostRequest);
        assert_eq!(
            publisher.publish(&[&event], EventClass::Live).await,
            [Err(NotWritten::Unknown)]
        );
        assert_eq!(replaced(), 1);
        publisher.replace(&old).await;
        assert_eq!(replaced(), 1, "somebody else has done it");
        assert_eq!(
            publisher.publish(&[&event], EventClass::Live).await,
            [Ok(())]
        );
        assert_eq!(publisher.publish(&[], EventClass::Bulk).await, []);
    }
}
