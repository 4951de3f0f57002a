//! Owns the subscriptions' routes.

use std::num::NonZeroU32;

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::filter::Filters;
use schemas::ids::SubscriptionId;
use schemas::resources::input::SubscriptionInput;
use schemas::resources::{
    Endpoint, EndpointState, StartFrom, StartPosition, Subscription, SubscriptionState,
};
use schemas::transform::Transform;

use super::answer::{self, Paging};
use super::auth::Principal;
use super::kind::{self, Changing as _, Place};
use super::request::{IdempotencyKey, JsonBody, Order, Params, Segments, Waiting, invalid};
use super::schema::{SubscriptionBody, SubscriptionPatch};
use super::tenants::known as known_tenant;
use super::view::{ReplayState, ReplayView, SubscriptionPage, SubscriptionView};
use super::{App, conflict, other_body};
use crate::store::State as Objects;

/// A tenant's subscriptions.
const SUBSCRIPTIONS_MAX: usize = 1_000_000;
/// An endpoint's subscriptions: they are deleted with it in one transaction.
const OF_ENDPOINT_MAX: usize = 10_000;

/// A subscription that is to be made.
#[derive(Debug)]
pub(super) struct NewSubscription {
    pub(super) id: SubscriptionId,
    pub(super) name: Option<String>,
    pub(super) filters: Filters,
    pub(super) ordered: bool,
    pub(super) start: Option<StartFrom>,
    pub(super) transform: Option<Box<Transform>>,
    pub(super) now: i64,
}

impl NewSubscription {
    /// The subscription to `endpoint`, and whether a request with the same idempotency key made it
    /// before.
    pub(super) fn decide(
        self,
        objects: &Objects,
        endpoint: &Endpoint,
    ) -> Result<(Subscription, bool), Problem> {
        let made = Subscription {
            id: self.id,
            tenant: endpoint.tenant.clone(),
            endpoint: endpoint.id,
            placement: endpoint.placement,
            name: self.name,
            filters: self.filters,
            state: SubscriptionState::Active,
            ordered: self.ordered,
            start: self.start.map(StartPosition::new),
            request: None,
            transform: self.transform,
            hidden: false,
            created_at: self.now,
            updated_at: self.now,
        };
        if let Some(old) = objects.subscriptions.get(self.id) {
            let start = made.start.map(|start| StartPosition {
                ended: old.start.is_some_and(|old| old.ended),
                ..start
            });
            let same = Subscription {
                state: old.state,
                start,
                created_at: old.created_at,
                updated_at: old.updated_at,
                ..made
            };
            return if **old == same {
                Ok((same, true))
            } else {
                Err(other_body())
            };
        }
        // Looked at where it is made: a repeat asks for what was right then.
        if let Some(StartFrom::At(at)) = self.start
            && at > self.now
        {
            return Err(Problem::validation([(
                "/start",
                "must not be in the future",
            )]));
        }
        if objects.subscriptions.count(&made.tenant) >= SUBSCRIPTIONS_MAX {
            let limit = format!("a tenant has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(conflict(limit));
        }
        if objects.subscriptions_of(endpoint.id).count() >= OF_ENDPOINT_MAX {
            let limit = format!("an endpoint has at most {OF_ENDPOINT_MAX} subscriptions");
            return Err(conflict(limit));
        }
        Ok((made, false))
    }
}

/// Makes a subscription: events that match go to its endpoint, for as long as it lives.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/subscriptions",
    operation_id = "create_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = SubscriptionBody,
    responses((status = 201, body = SubscriptionView, description = "Made."),
        (status = 200, body = SubscriptionView, description = "A repeat: it was made before.")))]
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
    let input = SubscriptionInput::read(&body).map_err(invalid)?;
    let bits = repeat.bits("subscription", tenant.as_str(), || app.fresh_bits());
    let SubscriptionInput {
        endpoint,
        name,
        filters,
        ordered,
        start,
        transform,
    } = input;
    let id = SubscriptionId::from_bits(bits);
    let new = NewSubscription {
        id,
        name,
        filters,
        ordered,
        start,
        transform,
        now: app.clock.now(),
    };
    let written = app
        .store
        .write(move |objects| {
            known_tenant(objects, &tenant)?;
            let unknown = || Problem::validation([("/endpoint", "there is no such endpoint")]);
            let endpoint = objects
                .endpoints
                .of(&tenant, endpoint)
                .ok_or_else(unknown)?;
            let (subscription, repeated) = new.decide(objects, endpoint)?;
            let view = SubscriptionView::of(&subscription);
            let location = kind::location::<Subscription>(&(tenant, id));
            Ok(kind::made(
                vec![subscription.stored()],
                repeated,
                location,
                view,
            ))
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// Lists a tenant's subscriptions.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/subscriptions",
    operation_id = "list_subscriptions", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = SubscriptionPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    kind::list::<Subscription>(&app, &principal.tenant(&tenant)?, &paging)
}

/// Reads a subscription: what it is, and how far its replay of past events is.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/subscriptions/{subscription}",
    operation_id = "read_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("subscription" = String, Path, description = "The subscription's id.")),
    responses((status = 200, body = SubscriptionView, description = "The subscription.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
) -> Result<axum::Json<SubscriptionView>, Problem> {
    let place = kind::place::<Subscription>(&principal, &path)?;
    let axum::Json(view) = kind::read::<Subscription>(&app, &place)?;
    Ok(axum::Json(view.with_replay(replay(&app, place.1).await)))
}

/// How far the replay of past events is, where there is one.
async fn replay(app: &App, id: SubscriptionId) -> Option<ReplayView> {
    let (start, is_waiting, events) = app.store.read(|objects| {
        let subscription = objects.subscriptions.get(id)?;
        let endpoint = objects.endpoints.get(subscription.endpoint);
        let is_waiting = endpoint.is_none_or(|endpoint| endpoint.state != EndpointState::Active);
        let events = objects.partitions().map_or(0, NonZeroU32::get);
        Some((subscription.start?, is_waiting, events))
    })?;
    let from = match start.from {
        StartFrom::At(_) => start.from.to_string(),
        StartFrom::Latest => return None,
    };
    let standing = app.replays.standing(id).await;
    // Routers have `events` and `events.bulk`, and the partitions of sources that they tell of.
    let own = usize::try_from(events).unwrap_or(usize::MAX);
    let partitions = standing.partitions.max(own.saturating_mul(2));
    let state = if standing.done == partitions {
        ReplayState::Done
    } else if start.ended {
        ReplayState::Ended
    } else if is_waiting {
        ReplayState::Waiting
    } else {
        ReplayState::Running
    };
    Some(ReplayView {
        from,
        state,
        partitions,
        partitions_done: standing.done,
        left: standing.left,
    })
}

/// Changes a subscription by a merge patch; `types` in it replaces the filters, and `transform` all
/// of the one before.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/subscriptions/{subscription}",
    operation_id = "patch_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("subscription" = String, Path, description = "The subscription's id."), Waiting),
    request_body(content = SubscriptionPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = SubscriptionView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let place = kind::place::<Subscription>(&principal, &path)?;
    kind::change(&app, waiting, place, move |old: &Subscription| {
        let input = SubscriptionInput::patched(old, &body).map_err(invalid)?;
        Ok(Subscription {
            name: input.name,
            filters: input.filters,
            ordered: input.ordered,
            transform: input.transform,
            ..old.clone()
        })
    })
    .await
}

/// Deletes a subscription.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/subscriptions/{subscription}",
    operation_id = "delete_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("subscription" = String, Path, description = "The subscription's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Subscription>(&principal, &path)?;
    kind::delete::<Subscription>(&app, waiting, place, |_| Ok(Vec::new())).await
}

/// Holds a subscription: events pass it by. A replay of past events ends for good.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/subscriptions/{subscription}/pause",
    operation_id = "pause_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("subscription" = String, Path, description = "The subscription's id."), Waiting),
    responses((status = 200, body = SubscriptionView, description = "It is paused.")))]
pub(super) async fn pause(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Subscription>(&principal, &path)?;
    set_state(&app, waiting, place, SubscriptionState::Paused).await
}

/// Lets a paused subscription match again.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/subscriptions/{subscription}/resume",
    operation_id = "resume_subscription", tag = "subscriptions",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("subscription" = String, Path, description = "The subscription's id."), Waiting),
    responses((status = 200, body = SubscriptionView, description = "It is active.")))]
pub(super) async fn resume(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Subscription>(&principal, &path)?;
    set_state(&app, waiting, place, SubscriptionState::Active).await
}

async fn set_state(
    app: &App,
    waiting: Waiting,
    place: Place<Subscription>,
    state: SubscriptionState,
) -> Result<Response, Problem> {
    kind::change(app, waiting, place, move |old: &Subscription| {
        // A pause ends the replay of past events: what it left out is not made up for.
        let start = old.start.map(|start| StartPosition {
            ended: start.ended || state == SubscriptionState::Paused,
            ..start
        });
        Ok(Subscription {
            state,
            start,
            ..old.clone()
        })
    })
    .await
}
