//! Owns the test event: one delivery to one endpoint, whatever its subscriptions.
//!
//! It is written straight to `deliveries`, since no router knows an event that is for an endpoint.
//! The surprise: its target has the subscription of 128 zero bits, which means "none": a dispatcher
//! asks for no subscription before it attempts it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use runtime::log::topics::Topics;
use runtime::log::{Error, NotWritten, Producer, ProducerOptions, Record, SharedLog, TopicName};
use runtime::problem::{Problem, ProblemType};
use schemas::event::{self, Event};
use schemas::ids::SubscriptionId;
use schemas::records::{DeliveryRecord, Origin, Target};
use schemas::resources::Endpoint;
use serde_json::json;

use super::App;
use super::auth::Principal;
use super::kind::known;
use super::request::Segments;
use super::view::{TestView, time};

/// The type of a test event.
const EVENT_TYPE: &str = "anabranch.test";
/// How long a client waits for the log.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes test events.
#[derive(Debug, Clone)]
pub(crate) struct TestEvents {
    producer: Arc<dyn Producer>,
    deliveries: TopicName,
    control: Arc<str>,
}

impl TestEvents {
    /// Opens their producer.
    pub(crate) async fn open(log: &SharedLog, topics: &Topics) -> Result<Self, Error> {
        let options = ProducerOptions {
            delivery_timeout: Some(WRITE_TIMEOUT),
            buffer_bytes: 1 << 20,
            ..ProducerOptions::named("control-test-events")
        };
        Ok(Self {
            producer: log.producer(options).await?,
            deliveries: topics.deliveries.clone(),
            control: topics.control.as_str().into(),
        })
    }

    async fn send(&self, delivery: &DeliveryRecord, partition: u32) -> Result<(), NotWritten> {
        let record = Record {
            topic: self.deliveries.clone(),
            partition: Some(partition),
            key: None,
            value: Some(delivery.value_for(&delivery.targets)),
            headers: delivery.headers().into_iter().collect(),
        };
        let reports = self.producer.send(vec![record]).await.wait().await;
        reports
            .into_iter()
            .next()
            .unwrap_or(Err(NotWritten::Unknown))
            .map(drop)
    }
}

/// Sends a test event of type `anabranch.test` to this endpoint alone.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/test",
    operation_id = "test_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id.")),
    responses((status = 202, body = TestView, description = "On its way.")))]
pub(super) async fn test(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
) -> Result<(StatusCode, Json<TestView>), Problem> {
    principal.tenant(&tenant)?;
    let place = principal.endpoint(&tenant, &endpoint)?;
    let id = place.1;
    let (endpoint, applied) = app.store.read(|objects| {
        known::<Endpoint>(objects, &place).map(|endpoint| (Arc::clone(endpoint), objects.applied()))
    })?;
    let delivery = delivery(&app, &endpoint, applied).map_err(|error| {
        tracing::error!(%error, "test event cannot be made");
        Problem::new(ProblemType::Internal)
    })?;
    let partition = endpoint.placement.partition();
    app.tests
        .send(&delivery, partition)
        .await
        .map_err(|error| {
            tracing::warn!(%error, endpoint = %id, "test event was not written");
            Problem::new(ProblemType::Unavailable)
                .detail("the test event could not be written")
                .retry_after(Duration::from_secs(1))
        })?;
    let target = Target::new(NO_SUBSCRIPTION, id);
    let view = TestView {
        event_id: delivery.event.id().to_owned(),
        delivery_id: delivery.delivery_id(&target).to_string(),
    };
    Ok((StatusCode::ACCEPTED, Json(view)))
}

const NO_SUBSCRIPTION: SubscriptionId = SubscriptionId::from_bits(0);

fn delivery(app: &App, endpoint: &Endpoint, applied: i64) -> Result<DeliveryRecord, event::Error> {
    let now = app.clock.now();
    let data = json!({
        "message": "this is a test: if you can read it, deliveries reach you",
        "endpoint": endpoint.id.to_string(),
    });
    let id = format!("{:032x}", app.fresh_bits());
    let event = Event::builder(&id, "/anabranch/control", EVENT_TYPE)
        .time(&time(now))
        .data("application/json", data.to_string())
        .attribute(event::TENANT, endpoint.tenant.as_str())
        .build()?;
    Ok(DeliveryRecord {
        // No record of `events`: the place in `control` that it was made at; the event's id keeps
        // its mark apart from every other.
        origin: Origin {
            topic: Arc::clone(&app.tests.control),
            partition: 0,
            offset: applied,
            index: 0,
        },
        router_position: None,
        accepted_at: now,
        control_offset: applied,
        event,
        targets: vec![Target::new(NO_SUBSCRIPTION, endpoint.id)],
    })
}
