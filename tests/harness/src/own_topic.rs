//! Owns a topic of the user's own: one that no service made, with records as its producers write
//! them.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

const PATIENCE: Duration = Duration::from_secs(20);

/// A topic's name, and where it is or will be.
#[derive(Debug, Clone)]
pub struct OwnTopic {
    brokers: String,
    name: String,
}

impl OwnTopic {
    /// The topic `name` at `brokers`, which need not exist.
    pub fn named(brokers: &str, name: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn create(&self, partitions: i32) {
        let client: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .expect("a client");
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        let made = client.create_topics(&[topic], &AdminOptions::new()).await;
        for made in made.expect("an answer") {
            made.expect("a topic");
        }
    }

    /// Writes a record.
    ///
    /// # Panics
    /// When it is not acknowledged.
    pub async fn write(
        &self,
        key: Option<&str>,
        headers: &[(String, String)],
        value: Option<&str>,
    ) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("acks", "all")
            .create()
            .expect("a producer");
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut record = FutureRecord::<str, str>::to(&self.name).headers(owned);
        record.key = key;
        record.payload = value;
        let sent = producer.send(record, PATIENCE).await;
        sent.map_err(|(error, _)| error)
            .expect("an acknowledgement");
    }
}
