//! Owns how events get in: one by one, several in a request, as a load, or past ingest.

use reqwest::Method;

use super::{Pipeline, TENANT};
use crate::api::Answer;
use crate::direct::Direct;
use crate::event::{Event, event};
use crate::load::Load;
use crate::poll::{DEADLINE, eventually};
use crate::topic;

impl Pipeline {
    /// Publishes an event in structured mode.
    ///
    /// # Panics
    /// When it is not taken.
    pub async fn publish(&self, event: &Event) {
        let answer = self.try_publish(event).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Publishes an event in structured mode, whatever is answered.
    ///
    /// # Panics
    /// When nothing is answered.
    pub async fn try_publish(&self, event: &Event) -> Answer {
        let json = "application/cloudevents+json".to_owned();
        let headers = [("content-type".to_owned(), json)];
        let path = self.path("/events");
        let sent = self
            .ingest
            .send(Method::POST, &path, &headers, event.structured())
            .await;
        sent.expect("an answer from ingest")
    }

    /// Publishes events in one request, in this order.
    ///
    /// # Panics
    /// When they are not taken.
    pub async fn publish_all(&self, events: &[Event]) {
        let events: Vec<String> = events.iter().map(Event::structured).collect();
        let json = "application/cloudevents-batch+json".to_owned();
        let headers = [("content-type".to_owned(), json)];
        let body = format!("[{}]", events.join(","));
        let path = self.path("/events");
        let sent = self.ingest.send(Method::POST, &path, &headers, body).await;
        let answer = sent.expect("an answer from ingest");
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Writes a record to the topic `events`, past ingest.
    pub async fn produce(&self, headers: &[(String, String)], value: &str) {
        self.produce_to(&self.topic("events"), headers, value).await;
    }

    /// Writes a record to a topic.
    pub async fn produce_to(&self, topic: &str, headers: &[(String, String)], value: &str) {
        topic::produce_with(self.brokers(), topic, "none", (headers, value)).await;
    }

    /// The same for a record that only compression makes fit.
    pub async fn produce_compressed(&self, headers: &[(String, String)], value: &str) {
        let topic = self.topic("events");
        topic::produce_with(self.brokers(), &topic, "zstd", (headers, value)).await;
    }

    /// A steady load of events of type `ty`, with ids from `load-000000` on.
    pub fn load(&self, ty: &str, per_second: u64) -> Load {
        let ty = ty.to_owned();
        self.load_of(per_second, move |number| {
            event(&ty, format!("load-{number:06}"))
        })
    }

    /// A steady load of the events that `make` makes from their numbers, from 0.
    pub fn load_of(&self, per_second: u64, make: impl Fn(u64) -> Event + Send + 'static) -> Load {
        let path = self.path("/events");
        Load::start(&self.ingest, path, per_second, Box::new(make))
    }

    /// A steady stream of the events that `make` makes from their numbers, from 0, written to the
    /// topic `events`, past ingest. Such writers name the tenant themselves.
    pub fn direct_load(
        &self,
        per_second: u32,
        make: impl Fn(u64) -> Event + Send + 'static,
    ) -> Direct {
        let make = move |number| make(number).attribute("anabranchtenant", TENANT);
        Direct::start(self.brokers(), self.topic("events"), per_second, make)
    }

    pub(super) async fn ingest_knows_the_key(&self) {
        // A change is waited for by routers and dispatchers; ingest follows by itself.
        let headers = [(
            "content-type".to_owned(),
            "application/cloudevents-batch+json".to_owned(),
        )];
        let path = self.path("/events");
        eventually("the key known to ingest", DEADLINE, async || {
            let sent = self.ingest.send(Method::POST, &path, &headers, "[]").await;
            sent.is_ok_and(|answer| ![401, 403, 404].contains(&answer.status))
                .then_some(())
        })
        .await;
    }
}
