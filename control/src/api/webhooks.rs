//! Owns the short way in: an endpoint and a subscription to it in one call and one transaction.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::resources::Endpoint;
use schemas::resources::input::WebhookInput;

use super::answer::{self, Made};
use super::auth::Principal;
use super::endpoints::NewEndpoint;
use super::kind::{self, Changing as _};
use super::request::{IdempotencyKey, Order, Segments, Waiting, invalid};
use super::schema::WebhookBody;
use super::subscriptions::NewSubscription;
use super::view::{EndpointView, SubscriptionView, WebhookView};
use super::{App, other_body};
use crate::store::{Plan, State as Objects};

/// Makes an endpoint and a subscription to it. Where it brings no secret, one is made and shown
/// once.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/webhooks", operation_id = "create_webhook",
    tag = "webhooks",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = WebhookBody,
    responses((status = 201, body = WebhookView, description = "Made; `secret` is not shown again."),
        (status = 200, body = WebhookView, description = "A repeat: it was made before.")))]
pub(super) async fn create(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Order {
        waiting,
        repeat,
        body,
    }: Order,
) -> Result<Response, Problem> {
    let tenant = principal.tenant(&tenant)?;
    let WebhookInput {
        endpoint: input,
        filters,
        ordered,
        start,
        transform,
    } = WebhookInput::read(&body, &app.urls).map_err(invalid)?;
    let bits = |kind| repeat.bits(kind, tenant.as_str(), || app.fresh_bits());
    let id = EndpointId::from_bits(bits("webhook endpoint"));
    let subscription = NewSubscription {
        id: SubscriptionId::from_bits(bits("webhook subscription")),
        name: input.name.clone(),
        filters,
        ordered,
        start,
        transform,
        now: app.clock.now(),
    };
    let endpoint = NewEndpoint::of(&app, (tenant, id), input)?;
    let written = app
        .store
        .write(move |objects| both(endpoint, subscription, objects))
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// The plan that makes the two together.
fn both(
    endpoint: NewEndpoint,
    subscription: NewSubscription,
    objects: &Objects,
) -> Result<Plan<Made<WebhookView>>, Problem> {
    let shown = endpoint.secret.shown.clone();
    let (endpoint, repeated) = endpoint.decide(objects)?;
    let (subscription, both) = subscription.decide(objects, &endpoint)?;
    // One of the two was deleted since: making the other again would not be the same.
    if repeated != both {
        return Err(other_body());
    }
    let view = WebhookView {
        endpoint: EndpointView::of(&endpoint).with_secret(shown.filter(|_| !repeated)),
        subscription: SubscriptionView::of(&subscription),
    };
    let location = kind::location::<Endpoint>(&(endpoint.tenant.clone(), endpoint.id));
    let made = vec![endpoint.stored(), subscription.stored()];
    Ok(kind::made(made, repeated, location, view))
}
