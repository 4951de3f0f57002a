//! Owns the short way in: an endpoint and a subscription to it in one call and one transaction.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::ControlObject;
use schemas::resources::input::WebhookInput;

use super::answer::{self, Made};
use super::auth::Principal;
use super::endpoints::NewEndpoint;
use super::request::{IdempotencyKey, Order, Segments, Waiting, invalid};
use super::schema::WebhookBody;
use super::secrets::NewSecret;
use super::subscriptions::NewSubscription;
use super::view::{EndpointView, SubscriptionView, WebhookView};
use super::{App, other_body, put};
use crate::store::Plan;

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
        endpoint: mut input,
        filters,
        ordered,
    } = WebhookInput::read(&body, &app.urls).map_err(invalid)?;
    let bits = |kind| repeat.bits(kind, tenant.as_str(), || app.fresh_bits());
    let id = EndpointId::from_bits(bits("webhook endpoint"));
    let subscription = SubscriptionId::from_bits(bits("webhook subscription"));
    let secret = NewSecret::make(&app, id, input.secret.take().as_ref(), app.fresh_bits())?;
    let (shown, now) = (secret.shown.clone(), app.clock.now());
    let subscription = NewSubscription {
        id: subscription,
        name: input.name.clone(),
        filters,
        ordered,
        now,
    };
    let endpoint = NewEndpoint {
        id,
        tenant,
        input,
        secret,
        now,
    };
    let written = app
        .store
        .write(move |objects| {
            let (endpoint, repeated) = endpoint.decide(objects)?;
            let (subscription, both) = subscription.decide(objects, &endpoint)?;
            // One of the two was deleted since: making the other again would not be the same.
            if repeated != both {
                return Err(other_body());
            }
            let endpoint_view = EndpointView::of(&endpoint);
            let subscription_view = SubscriptionView::of(&subscription);
            let view = |endpoint| WebhookView {
                endpoint,
                subscription: subscription_view,
            };
            if repeated {
                let answer = Made {
                    body: view(endpoint_view),
                    location: None,
                };
                return Ok(Plan {
                    changes: Vec::new(),
                    answer,
                });
            }
            let location = Some(format!("/v1/tenants/{}/endpoints/{id}", endpoint.tenant));
            let changes = vec![
                put(ControlObject::Endpoint(Box::new(endpoint))),
                put(ControlObject::Subscription(Box::new(subscription))),
            ];
            let body = view(endpoint_view.with_secret(shown));
            Ok(Plan {
                changes,
                answer: Made { body, location },
            })
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}
