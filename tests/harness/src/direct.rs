//! Owns a steady stream of events that are written to the topic, past ingest, in both of Kafka's
//! modes, with and without keys.
//!
//! It must never write an event twice: its producer is idempotent, and waits as long as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use tokio::time::{MissedTickBehavior, interval};

use crate::event::Event;

/// A running stream.
#[derive(Debug)]
pub struct Direct {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Direct {
    /// Writes `per_second` events to `topic` until it is stopped, each made from its number.
    pub(crate) fn start(
        brokers: &str,
        topic: String,
        per_second: u32,
        make: impl Fn(u64) -> Event + Send + 'static,
    ) -> Self {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .create()
            .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let stream = async {
                let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let (mut sent, mut number) = (Vec::new(), 0);
                while !stopped.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let event = make(number);
                    write(&producer, &topic, (number, &event)).await;
                    sent.push(event.id);
                    number += 1;
                }
                sent
            };
            runtime.expect("a runtime").block_on(stream)
        });
        Self { stop, thread }
    }

    /// Stops it, and says which events are on the topic.
    ///
    /// # Panics
    /// When one was refused.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the stream's thread")
    }
}

/// Every second one in structured mode, every third with a key.
async fn write(producer: &FutureProducer, topic: &str, (number, event): (u64, &Event)) {
    let structured = [(
        "content-type".to_owned(),
        "application/cloudevents+json".to_owned(),
    )];
    let (headers, value) = if number.is_multiple_of(2) {
        (structured.to_vec(), event.structured())
    } else {
        (event.kafka_headers(), event.data.clone())
    };
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in &headers {
        owned = owned.insert(Header {
            key,
            value: Some(value),
        });
    }
    let key = format!("key-{}", number % 10);
    let mut record = FutureRecord::to(topic).payload(&value).headers(owned);
    if number.is_multiple_of(3) {
        record = record.key(&key);
    }
    let sent = producer.send(record, Timeout::Never).await;
    sent.map_err(|(error, _)| error)
        .expect("an acknowledgement");
}
