//! Owns the endpoints' routes.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::{Problem, ProblemType};
use schemas::ids::{EndpointId, TenantId};
use schemas::records::ControlKey;
use schemas::resources::input::EndpointInput;
use schemas::resources::{Endpoint, EndpointState, KeyScope, Placement, Quota, SealedSecret};

use super::answer::{self, Paging};
use super::auth::Principal;
use super::credentials::{Credentials, is_like};
use super::kind::{self, Changing as _};
use super::quotas::{followers, joined, says_nothing};
use super::redrives;
use super::request::{IdempotencyKey, JsonBody, Order, Params, Segments, Waiting, invalid};
use super::schema::{EndpointBody, EndpointPatch};
use super::secrets::NewSecret;
use super::tenants::known as known_tenant;
use super::view::{EndpointPage, EndpointView};
use super::{App, conflict, later, other_body, put};
use crate::store::{Plan, State as Objects};

/// A tenant's endpoints.
const ENDPOINTS_MAX: usize = 100_000;

/// An endpoint that is to be made.
#[derive(Debug)]
pub(super) struct NewEndpoint {
    pub(super) id: EndpointId,
    pub(super) tenant: TenantId,
    pub(super) input: EndpointInput,
    pub(super) secret: NewSecret,
    pub(super) credentials: Credentials,
    pub(super) now: i64,
}

impl NewEndpoint {
    /// What `input` says, with a secret where it brings none.
    pub(super) fn of(
        app: &App,
        (tenant, id): (TenantId, EndpointId),
        mut input: EndpointInput,
    ) -> Result<Self, Problem> {
        let given = input.secret.take();
        let secret = NewSecret::make(app, id, given.as_ref(), (input.signature, app.fresh_bits()))?;
        let credentials = Credentials::seal(app, id, &mut input, None)?;
        Ok(Self {
            id,
            tenant,
            input,
            secret,
            credentials,
            now: app.clock.now(),
        })
    }

    /// The endpoint, and whether a request with the same idempotency key made it before.
    pub(super) fn decide(self, objects: &Objects) -> Result<(Endpoint, bool), Problem> {
        known_tenant(objects, &self.tenant)?;
        let old = objects.endpoints.get(self.id).cloned();
        let full = objects.endpoints.count(&self.tenant) >= ENDPOINTS_MAX;
        let made = self.build(objects)?;
        match old {
            Some(old) => {
                let (like, joins) = (is_like(&made, &old), says_nothing(&made));
                let mut same = Endpoint {
                    state: old.state,
                    disabled: old.disabled,
                    secrets: old.secrets.clone(),
                    created_at: old.created_at,
                    updated_at: old.updated_at,
                    ..made
                };
                if like {
                    same.authentication.clone_from(&old.authentication);
                    same.client_certificate.clone_from(&old.client_certificate);
                }
                if joins {
                    same.limits.clone_from(&old.limits);
                    same.concurrency = old.concurrency;
                }
                if *old == same {
                    Ok((same, true))
                } else {
                    Err(other_body())
                }
            }
            None if full => Err(conflict(format!(
                "a tenant has at most {ENDPOINTS_MAX} endpoints"
            ))),
            None => Ok((joined(objects, made)?, false)),
        }
    }

    fn build(self, objects: &Objects) -> Result<Endpoint, Problem> {
        // Recorded before anything is served.
        let partitions = objects
            .partitions()
            .ok_or_else(|| Problem::new(ProblemType::Internal))?;
        let quota = match &self.input.quota {
            Some(name) => Quota::shared(&self.tenant, name),
            None => Quota::of_endpoint(self.id),
        };
        let placement = Placement::of(&quota, partitions);
        let base = Endpoint {
            secrets: vec![self.secret.stored],
            created_at: self.now,
            updated_at: self.now,
            ..Endpoint::new(self.id, self.tenant, quota, placement)
        };
        Ok(self.credentials.put(with_input(base, self.input)))
    }
}

/// The endpoint as its owner says it should be.
fn with_input(endpoint: Endpoint, input: EndpointInput) -> Endpoint {
    Endpoint {
        name: input.name,
        url: input.url,
        body: input.body,
        limits: input.limits,
        concurrency: input.concurrency,
        timeout_ms: input.timeout_ms,
        retry_schedule_ms: input.retry_schedule_ms,
        retry_jitter: input.retry_jitter,
        max_age_ms: input.max_age_ms,
        batch: input.batch,
        grammar: input.grammar,
        disable_after_ms: input.disable_after_ms,
        reenable: input.reenable,
        headers: input.headers,
        header_case: input.header_case,
        compress: input.compress,
        ..endpoint
    }
}

/// Makes an endpoint. Where it brings no secret, one is made and shown once.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints", operation_id = "create_endpoint",
    tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = EndpointBody,
    responses((status = 201, body = EndpointView, description = "Made; `secret` is not shown again."),
        (status = 200, body = EndpointView, description = "A repeat: it was made before.")))]
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
    let input = EndpointInput::read(&body, &app.urls).map_err(invalid)?;
    let id = EndpointId::from_bits(repeat.bits("endpoint", tenant.as_str(), || app.fresh_bits()));
    let new = NewEndpoint::of(&app, (tenant, id), input)?;
    let shown = new.secret.shown.clone();
    let written = app
        .store
        .write(move |objects| {
            let (endpoint, repeated) = new.decide(objects)?;
            let location = kind::location::<Endpoint>(&(endpoint.tenant.clone(), id));
            let view = EndpointView::of(&endpoint).with_secret(shown.filter(|_| !repeated));
            Ok(kind::made(
                vec![endpoint.stored()],
                repeated,
                location,
                view,
            ))
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// Lists a tenant's endpoints.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/endpoints", operation_id = "list_endpoints",
    tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = EndpointPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    kind::list::<Endpoint>(&app, &principal.tenant(&tenant)?, &paging)
}

/// Reads an endpoint.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "read_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id.")),
    responses((status = 200, body = EndpointView, description = "The endpoint.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
) -> Result<axum::Json<EndpointView>, Problem> {
    kind::read::<Endpoint>(&app, &principal.endpoint(&tenant, &endpoint)?)
}

/// Changes an endpoint by a merge patch. `limits` and `concurrency` change for all endpoints of its
/// quota.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "patch_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting),
    request_body(content = EndpointPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = EndpointView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    // Not for the endpoint's own key: its limits and its URL are the tenant's to say.
    principal.tenant(&tenant)?;
    let place = principal.endpoint(&tenant, &endpoint)?;
    let (then, now) = (app.clone(), app.clock.now());
    let written = app
        .store
        .write(move |objects| {
            let old = kind::known::<Endpoint>(objects, &place)?;
            let mut input = EndpointInput::patched(old, &body, &then.urls).map_err(invalid)?;
            let credentials = Credentials::seal(&then, old.id, &mut input, Some(old))?;
            let new = credentials.put(with_input(old.as_ref().clone(), input));
            Ok(with_followers(objects, old, new, now))
        })
        .await?;
    Ok(answer::changed(&app, waiting, written).await)
}

/// The plan that puts `new` in the place of `old`, and what it changes of others of its quota.
fn with_followers(
    objects: &Objects,
    old: &Endpoint,
    new: Endpoint,
    now: i64,
) -> Plan<EndpointView> {
    if *old == new {
        return Plan {
            changes: Vec::new(),
            answer: EndpointView::of(old),
        };
    }
    let followers = followers(objects, old, &new);
    let mut plan = kind::replaced(old, new, now);
    let changed = |other: Endpoint| Endpoint {
        updated_at: later(now, other.updated_at),
        ..other
    };
    let followers = followers.into_iter().map(changed);
    plan.changes
        .extend(followers.map(|other| put(other.stored())));
    plan
}

/// Deletes an endpoint with its subscriptions, its syncs and its own keys.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "delete_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    principal.tenant(&tenant)?;
    let (tenant, id) = principal.endpoint(&tenant, &endpoint)?;
    kind::delete::<Endpoint>(&app, waiting, (tenant.clone(), id), move |objects| {
        let subscriptions = objects.subscriptions_of(id).map(ControlKey::Subscription);
        let own_keys = objects
            .keys
            .page(&tenant, None)
            .filter(|(_, key)| key.scope == KeyScope::Endpoint(id))
            .map(|(key, _)| ControlKey::ApiKey(key));
        let syncs = objects.syncs.page(&tenant, None);
        let syncs = syncs
            .filter(|(_, sync)| sync.endpoint == id)
            .map(|(sync, _)| ControlKey::Sync(sync));
        Ok(subscriptions.chain(syncs).chain(own_keys).collect())
    })
    .await
}

/// Holds an endpoint: its deliveries wait.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/pause",
    operation_id = "pause_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting),
    responses((status = 200, body = EndpointView, description = "It is paused.")))]
pub(super) async fn pause(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = principal.endpoint(&tenant, &endpoint)?;
    // That it was disabled is kept: enabling it sends again what was held since.
    kind::change(&app, waiting, place, |old: &Endpoint| {
        Ok(Endpoint {
            state: EndpointState::Paused,
            ..old.clone()
        })
    })
    .await
}

/// Attempts an endpoint again that was paused or disabled. What was held while it was disabled is
/// sent again by a redrive.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/resume",
    operation_id = "resume_endpoint", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting),
    responses((status = 200, body = EndpointView, description = "It is active.")))]
pub(super) async fn resume(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = principal.endpoint(&tenant, &endpoint)?;
    redrives::enable(&app, waiting, place).await
}

/// The first of an endpoint's secrets signs; those behind it sign along until they expire.
pub(super) fn rotated(old: &Endpoint, new: SealedSecret, expires_at: i64, now: i64) -> Endpoint {
    let still = old.secrets.iter().cloned().map(|secret| SealedSecret {
        expires_at: Some(
            secret
                .expires_at
                .map_or(expires_at, |own| own.min(expires_at)),
        ),
        ..secret
    });
    let still = still.filter(|secret| secret.expires_at.is_some_and(|at| at > now));
    Endpoint {
        secrets: std::iter::once(new).chain(still).collect(),
        ..old.clone()
    }
}
