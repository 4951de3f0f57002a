//! Owns the syncs' routes: what is sent where, and when. How a run fares, the cohorts service says.
//!
//! A sync and its subscription are made and deleted in one transaction. The surprise: the
//! subscription is hidden, so that its deliveries have ids and requests, and nobody can change it.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::filter::Filters;
use schemas::ids::{SubscriptionId, SyncId, TenantId};
use schemas::profile::{AuthenticationKind, Profile};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::input::SyncInput;
use schemas::resources::{
    Cohort, Endpoint, Overlap, RateWindow, Schedule, Subscription, SubscriptionState, Sync,
    SyncState,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{self, Paging};
use super::auth::Principal;
use super::fitting;
use super::kind::{self, Changing, Kind, Place};
use super::quotas::followers;
use super::request::{IdempotencyKey, JsonBody, Order, Params, Segments, Waiting, invalid};
use super::schema::{SyncBody, SyncPatch};
use super::tenants::known as known_tenant;
use super::view::{pages, time};
use super::{App, conflict, later, other_body};
use crate::members::Members;
use crate::store::{State as Objects, Table};

/// A tenant's syncs: each holds a profile.
const SYNCS_MAX: usize = 1_000;

/// What a sync takes its profile for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileView {
    /// Its id.
    id: String,
    /// Which version of it the sync holds.
    version: u32,
    /// A name for people.
    title: String,
    /// When the version of the partner's API that it speaks ends.
    sunset: Option<String>,
}

/// A sync.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SyncView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// A name for people.
    name: Option<String>,
    /// Whom it sends.
    cohort: String,
    /// Where they go.
    endpoint: String,
    /// The hidden subscription that its deliveries are of.
    subscription: String,
    /// What the partner takes and how it answers.
    profile: ProfileView,
    /// The profile's settings.
    #[schema(value_type = Object)]
    variables: Map<String, Value>,
    /// The partner's list by its id there, where it existed before; null where a run makes it.
    list: Option<String>,
    /// When it runs by itself: `cron` and `time_zone`; null for when it is told to.
    #[schema(value_type = Option<Object>)]
    schedule: Option<Schedule>,
    /// `replace`, `finish` or `skip`.
    #[schema(value_type = String)]
    overlap: Overlap,
    /// The share of the list that a run may remove without approval, in per cent.
    removals_max_percent: u8,
    /// `active` or `paused`.
    #[schema(value_type = String)]
    state: SyncState,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

pages! {
    /// A page of syncs.
    pub(crate) SyncPage of SyncView;
}

/// A sync that is to be made.
#[derive(Debug)]
struct NewSync {
    id: SyncId,
    subscription: SubscriptionId,
    tenant: TenantId,
    input: SyncInput,
    members: Members,
    now: i64,
}

/// Makes a sync. Nothing is sent before its first run.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs", operation_id = "create_sync",
    tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = SyncBody,
    responses((status = 201, body = SyncView, description = "Made."),
        (status = 200, body = SyncView, description = "A repeat: it was made before.")))]
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
    let input = SyncInput::read(&body).map_err(invalid)?;
    let bits = |what| repeat.bits(what, tenant.as_str(), || app.fresh_bits());
    let new = NewSync {
        id: SyncId::from_bits(bits("sync")),
        subscription: SubscriptionId::from_bits(bits("subscription of a sync")),
        tenant: tenant.clone(),
        input,
        members: app.members.clone(),
        now: app.clock.now(),
    };
    let written = app
        .store
        .write(move |objects| {
            let (made, repeated) = new.decide(objects)?;
            let location = kind::location::<Sync>(&(made.sync.tenant.clone(), made.sync.id));
            let view = made.sync.view();
            Ok(kind::made(made.stored(), repeated, location, view))
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// All that making a sync writes.
struct MadeSync {
    sync: Sync,
    subscription: Subscription,
    /// The endpoint and those of its quota, where they get limits.
    endpoints: Vec<Endpoint>,
}

impl MadeSync {
    fn stored(self) -> Vec<ControlObject> {
        let endpoints = self.endpoints.into_iter().map(Changing::stored);
        let own = [self.subscription.stored(), self.sync.stored()];
        endpoints.chain(own).collect()
    }
}

impl NewSync {
    /// What is made, and whether a request with the same idempotency key made it before.
    fn decide(self, objects: &Objects) -> Result<(MadeSync, bool), Problem> {
        known_tenant(objects, &self.tenant)?;
        let (now, apply_limits) = (self.now, self.input.apply_limits);
        let (must_fit, members) = (self.input.schedule_must_fit, self.members.clone());
        let missing = |pointer, what| {
            let detail = format!("there is no such {what}");
            Problem::validation([(pointer, detail)])
        };
        let cohort = objects.cohorts.of(&self.tenant, self.input.cohort);
        let cohort = cohort.ok_or_else(|| missing("/cohort", Cohort::NAME))?;
        let endpoint = objects.endpoints.of(&self.tenant, self.input.endpoint);
        let endpoint = endpoint.ok_or_else(|| missing("/endpoint", Endpoint::NAME))?;
        suits(endpoint, &self.input.profile)?;
        let made = self.build(cohort, endpoint)?;
        let subscription = subscription(&made);
        if let Some(old) = objects.syncs.get(made.id) {
            return repeat_of(old, made, subscription);
        }
        if objects.syncs.count(&made.tenant) >= SYNCS_MAX {
            return Err(conflict(format!("a tenant has at most {SYNCS_MAX} syncs")));
        }
        let endpoints = match apply_limits {
            true => limited(objects, endpoint, &made.profile, now),
            false => Vec::new(),
        };
        let limited = endpoints.first().unwrap_or(endpoint);
        if must_fit {
            fitting::check(&made, &limited.limits, &members, now)?;
        }
        let made = MadeSync {
            sync: made,
            subscription,
            endpoints,
        };
        Ok((made, false))
    }

    fn build(self, cohort: &Cohort, endpoint: &Endpoint) -> Result<Sync, Problem> {
        let input = self.input.settle(cohort).map_err(invalid)?;
        Ok(Sync {
            id: self.id,
            tenant: self.tenant,
            name: input.name,
            cohort: input.cohort,
            endpoint: input.endpoint,
            subscription: self.subscription,
            placement: endpoint.placement,
            profile: input.profile,
            variables: input.variables,
            list: input.list,
            schedule: input.schedule,
            overlap: input.overlap,
            removals_max_percent: input.removals_max_percent,
            state: SyncState::Active,
            created_at: self.now,
            updated_at: self.now,
        })
    }
}

/// The sync that a repeat finds, if it is what it asks for.
fn repeat_of(
    old: &Sync,
    made: Sync,
    subscription: Subscription,
) -> Result<(MadeSync, bool), Problem> {
    let sync = Sync {
        state: old.state,
        created_at: old.created_at,
        updated_at: old.updated_at,
        ..made
    };
    if *old != sync {
        return Err(other_body());
    }
    let made = MadeSync {
        sync,
        subscription,
        endpoints: Vec::new(),
    };
    Ok((made, true))
}

/// The subscription of a sync: no event matches it, and its deliveries become requests by the
/// profile's templates.
fn subscription(sync: &Sync) -> Subscription {
    Subscription {
        id: sync.subscription,
        tenant: sync.tenant.clone(),
        endpoint: sync.endpoint,
        placement: sync.placement,
        name: None,
        filters: Filters::default(),
        state: SubscriptionState::Active,
        ordered: false,
        start: None,
        transform: None,
        request: Some(Box::new(sync.profile.operations.clone())),
        hidden: true,
        created_at: sync.created_at,
        updated_at: sync.updated_at,
    }
}

/// Whether requests of the profile can go to the endpoint.
fn suits(endpoint: &Endpoint, profile: &Profile) -> Result<(), Problem> {
    let kind = endpoint.authentication.as_ref().map(AuthenticationKind::of);
    let wanted = &profile.authentication;
    if wanted.is_empty() || kind.is_some_and(|kind| wanted.contains(&kind)) {
        return Ok(());
    }
    let wanted: Vec<&str> = wanted.iter().map(|kind| kind.as_str()).collect();
    let detail = format!(
        "its `authentication` is {}, and {} takes {}: patch the endpoint, or choose another",
        kind.map_or("none", AuthenticationKind::as_str),
        profile.profile,
        wanted.join(" or "),
    );
    Err(Problem::validation([("/endpoint", detail)]))
}

/// The endpoint with the profile's limits where it has none of its own, and the others of its quota
/// that change with it; nothing where nothing changes.
fn limited(objects: &Objects, old: &Endpoint, profile: &Profile, now: i64) -> Vec<Endpoint> {
    let mut new = old.clone();
    if new.limits.is_empty() {
        new.limits = profile.limits.rate_windows();
    }
    new.concurrency = new.concurrency.or(profile.limits.concurrency);
    if new == *old {
        return Vec::new();
    }
    let followers = followers(objects, old, &new);
    let mut all: Vec<Endpoint> = std::iter::once(new).chain(followers).collect();
    for endpoint in &mut all {
        endpoint.updated_at = later(now, endpoint.updated_at);
    }
    all
}

/// Lists a tenant's syncs.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs", operation_id = "list_syncs",
    tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = SyncPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    kind::list::<Sync>(&app, &principal.tenant(&tenant)?, &paging)
}

/// Reads a sync as it was made; how its runs fare, the cohorts service says.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs/{sync}", operation_id = "read_sync",
    tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("sync" = String, Path, description = "The sync's id.")),
    responses((status = 200, body = SyncView, description = "The sync.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
) -> Result<axum::Json<SyncView>, Problem> {
    kind::read::<Sync>(&app, &kind::place::<Sync>(&principal, &path)?)
}

/// Changes a sync by a merge patch: when it runs, and what a run may remove. What it sends where
/// never changes.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/syncs/{sync}", operation_id = "patch_sync",
    tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("sync" = String, Path, description = "The sync's id."), Waiting),
    request_body(content = SyncPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = SyncView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let place = kind::place::<Sync>(&principal, &path)?;
    let windows = windows_of(&app, place.1);
    let (members, now) = (app.members.clone(), app.clock.now());
    kind::change(&app, waiting, place, move |old: &Sync| {
        let input = SyncInput::patched(old, &body).map_err(invalid)?;
        let must_fit = input.schedule_must_fit && input.schedule != old.schedule;
        let new = Sync {
            name: input.name,
            variables: input.variables,
            schedule: input.schedule,
            overlap: input.overlap,
            removals_max_percent: input.removals_max_percent,
            ..old.clone()
        };
        if must_fit {
            fitting::check(&new, &windows, &members, now)?;
        }
        Ok(new)
    })
    .await
}

/// What its endpoint takes.
fn windows_of(app: &App, sync: SyncId) -> Vec<RateWindow> {
    app.store.read(|objects| {
        let sync = objects.syncs.get(sync);
        let endpoint = sync.and_then(|sync| objects.endpoints.get(sync.endpoint));
        endpoint.map_or_else(Vec::new, |endpoint| endpoint.limits.clone())
    })
}

/// Deletes a sync. A run of it ends; what the partner holds stays there.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/syncs/{sync}", operation_id = "delete_sync",
    tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("sync" = String, Path, description = "The sync's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Sync>(&principal, &path)?;
    let id = place.1;
    kind::delete::<Sync>(&app, waiting, place, move |objects| {
        let sync = objects.syncs.get(id);
        let own = sync.map(|sync| ControlKey::Subscription(sync.subscription));
        Ok(own.into_iter().collect())
    })
    .await
}

/// Holds a sync: nothing new is sent.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs/{sync}/pause",
    operation_id = "pause_sync", tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("sync" = String, Path, description = "The sync's id."), Waiting),
    responses((status = 200, body = SyncView, description = "It is paused.")))]
pub(super) async fn pause(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Sync>(&principal, &path)?;
    set_state(&app, waiting, place, SyncState::Paused).await
}

/// Lets a paused sync go on, from where it was.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs/{sync}/resume",
    operation_id = "resume_sync", tag = "syncs",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("sync" = String, Path, description = "The sync's id."), Waiting),
    responses((status = 200, body = SyncView, description = "It is active.")))]
pub(super) async fn resume(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Sync>(&principal, &path)?;
    set_state(&app, waiting, place, SyncState::Active).await
}

async fn set_state(
    app: &App,
    waiting: Waiting,
    place: Place<Sync>,
    state: SyncState,
) -> Result<Response, Problem> {
    kind::change(app, waiting, place, move |old: &Sync| {
        Ok(Sync {
            state,
            ..old.clone()
        })
    })
    .await
}

impl Kind for Sync {
    type Id = SyncId;
    type View = SyncView;
    type Page = SyncPage;
    const NAME: &'static str = "sync";
    const PATH: &'static str = "syncs";

    fn table(objects: &Objects) -> &Table<SyncId, Self> {
        &objects.syncs
    }

    fn view(&self) -> SyncView {
        SyncView {
            id: self.id.to_string(),
            tenant: self.tenant.to_string(),
            name: self.name.clone(),
            cohort: self.cohort.to_string(),
            endpoint: self.endpoint.to_string(),
            subscription: self.subscription.to_string(),
            profile: ProfileView {
                id: self.profile.profile.clone(),
                version: self.profile.version.get(),
                title: self.profile.title.clone(),
                sunset: self.profile.sunset.map(|date| date.to_string()),
            },
            variables: self.variables.clone(),
            list: self.list.clone(),
            schedule: self.schedule.clone(),
            overlap: self.overlap,
            removals_max_percent: self.removals_max_percent,
            state: self.state,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
        }
    }

    fn key(id: SyncId) -> ControlKey {
        ControlKey::Sync(id)
    }
}

impl Changing for Sync {
    fn updated_at(&mut self) -> &mut i64 {
        &mut self.updated_at
    }

    fn stored(self) -> ControlObject {
        ControlObject::Sync(Box::new(self))
    }
}
