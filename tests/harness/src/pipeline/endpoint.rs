//! Owns the endpoints of a pipeline's tenant, each with the server behind its URL, and what they are
//! subscribed to.
//!
//! The surprise: an endpoint retries after 200 ms, twenty times, unless a test asks otherwise.

use serde_json::{Map, Value, json};

use super::Pipeline;
use crate::event::Event;
use crate::sink::{Arrival, Behaviour, Sink};

/// Short, so that a test sees many attempts: 20 of them.
const WAIT_MS: u64 = 200;
const WAITS: usize = 20;

impl Pipeline {
    /// Makes an endpoint that behaves so.
    pub async fn endpoint(&self, behaviour: Behaviour) -> Endpoint {
        self.endpoint_with(behaviour, json!({})).await
    }

    /// Makes an endpoint with these members beside its URL.
    pub async fn endpoint_with(&self, behaviour: Behaviour, members: Value) -> Endpoint {
        let sink = Sink::start(behaviour);
        let mut body = Map::new();
        body.insert("url".to_owned(), sink.url().into());
        body.insert("retry_schedule_ms".to_owned(), vec![WAIT_MS; WAITS].into());
        body.extend(members.as_object().cloned().unwrap_or_default());
        let path = self.path("/endpoints?wait=applied");
        let made = self.control.make(&path, &Value::Object(body)).await;
        let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
        Endpoint {
            id: text("id").to_owned(),
            secret: text("secret").to_owned(),
            sink,
        }
    }

    /// Subscribes an endpoint to events of these types; to all events where there are none.
    pub async fn subscription(&self, endpoint: &Endpoint, types: &[&str]) -> String {
        let mut body = json!({ "endpoint": endpoint.id });
        if !types.is_empty() {
            body = json!({ "endpoint": endpoint.id, "types": types });
        }
        let made = self
            .control
            .make(&self.path("/subscriptions?wait=applied"), &body)
            .await;
        made.get("id")
            .and_then(Value::as_str)
            .expect("an id")
            .to_owned()
    }

    /// An endpoint that behaves so, subscribed to everything.
    pub async fn subscribed(&self, behaviour: Behaviour) -> Endpoint {
        let endpoint = self.endpoint(behaviour).await;
        self.subscription(&endpoint, &[]).await;
        endpoint
    }
}

/// An endpoint: the object, and the sink behind its URL.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The server.
    pub sink: Sink,
}

impl Endpoint {
    /// Waits until the event was taken, signed by this endpoint's secret.
    ///
    /// # Panics
    /// When it does not come, or not signed.
    pub async fn expect_delivered(&self, event: &Event) -> Arrival {
        let arrival = self.sink.expect_event(&event.id).await;
        assert!(
            arrival.is_signed_by(&self.secret),
            "signature of {arrival:?}"
        );
        arrival
    }

    /// The same, with exactly so many attempts.
    ///
    /// # Panics
    /// When it takes more or fewer.
    pub async fn expect_delivered_after(&self, event: &Event, attempts: u32) -> Arrival {
        let arrival = self.expect_delivered(event).await;
        assert_eq!(arrival.attempt, attempts, "attempts of {}", event.id);
        arrival
    }
}
