//! Owns the cohorts' routes. Members never come here: they are uploaded to the cohorts service.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::CohortId;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::Cohort;
use schemas::resources::input::CohortInput;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{self, Paging};
use super::auth::Principal;
use super::kind::{self, Changing, Kind};
use super::request::{IdempotencyKey, JsonBody, Order, Params, Segments, Waiting, invalid};
use super::schema::{CohortBody, CohortPatch};
use super::tenants::known as known_tenant;
use super::view::{pages, time};
use super::{App, conflict, other_body};
use crate::store::{State as Objects, Table};

/// A tenant's cohorts.
const COHORTS_MAX: usize = 10_000;

/// A cohort, without its members.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CohortView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// A name for people.
    name: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

pages! {
    /// A page of cohorts.
    pub(crate) CohortPage of CohortView;
}

/// Makes a cohort, with no members yet.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/cohorts", operation_id = "create_cohort",
    tag = "cohorts",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = CohortBody,
    responses((status = 201, body = CohortView, description = "Made."),
        (status = 200, body = CohortView, description = "A repeat: it was made before.")))]
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
    let CohortInput { name } = CohortInput::read(&body).map_err(invalid)?;
    let bits = repeat.bits("cohort", tenant.as_str(), || app.fresh_bits());
    let now = app.clock.now();
    let new = Cohort {
        id: CohortId::from_bits(bits),
        tenant,
        name,
        created_at: now,
        updated_at: now,
    };
    let written = app
        .store
        .write(move |objects| {
            let (cohort, repeated) = decide(objects, new)?;
            let location = kind::location::<Cohort>(&(cohort.tenant.clone(), cohort.id));
            let view = cohort.view();
            Ok(kind::made(vec![cohort.stored()], repeated, location, view))
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// The cohort, and whether a request with the same idempotency key made it before.
fn decide(objects: &Objects, made: Cohort) -> Result<(Cohort, bool), Problem> {
    known_tenant(objects, &made.tenant)?;
    if let Some(old) = objects.cohorts.get(made.id) {
        let same = old.name == made.name && old.tenant == made.tenant;
        return if same {
            Ok((old.as_ref().clone(), true))
        } else {
            Err(other_body())
        };
    }
    if objects.cohorts.count(&made.tenant) >= COHORTS_MAX {
        let limit = format!("a tenant has at most {COHORTS_MAX} cohorts");
        return Err(conflict(limit));
    }
    Ok((made, false))
}

/// Lists a tenant's cohorts.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/cohorts", operation_id = "list_cohorts",
    tag = "cohorts",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = CohortPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    kind::list::<Cohort>(&app, &principal.tenant(&tenant)?, &paging)
}

/// Reads a cohort.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/cohorts/{cohort}", operation_id = "read_cohort",
    tag = "cohorts",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("cohort" = String, Path, description = "The cohort's id.")),
    responses((status = 200, body = CohortView, description = "The cohort.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
) -> Result<axum::Json<CohortView>, Problem> {
    kind::read::<Cohort>(&app, &kind::place::<Cohort>(&principal, &path)?)
}

/// Changes a cohort by a merge patch.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/cohorts/{cohort}",
    operation_id = "patch_cohort", tag = "cohorts",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("cohort" = String, Path, description = "The cohort's id."), Waiting),
    request_body(content = CohortPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = CohortView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let place = kind::place::<Cohort>(&principal, &path)?;
    kind::change(&app, waiting, place, move |old: &Cohort| {
        let CohortInput { name } = CohortInput::patched(old, &body).map_err(invalid)?;
        Ok(Cohort {
            name,
            ..old.clone()
        })
    })
    .await
}

/// Deletes a cohort that no sync sends; its members go with it.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/cohorts/{cohort}",
    operation_id = "delete_cohort", tag = "cohorts",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("cohort" = String, Path, description = "The cohort's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<Cohort>(&principal, &path)?;
    let (tenant, cohort) = place.clone();
    kind::delete::<Cohort>(&app, waiting, place, move |objects| {
        let mut syncs = objects.syncs.page(&tenant, None);
        match syncs.find(|(_, sync)| sync.cohort == cohort) {
            Some((sync, _)) => {
                let detail = format!("the cohort is sent by {sync}: delete that sync first");
                Err(conflict(detail))
            }
            None => Ok(Vec::new()),
        }
    })
    .await
}

impl Kind for Cohort {
    type Id = CohortId;
    type View = CohortView;
    type Page = CohortPage;
    const NAME: &'static str = "cohort";
    const PATH: &'static str = "cohorts";

    fn table(objects: &Objects) -> &Table<CohortId, Self> {
        &objects.cohorts
    }

    fn view(&self) -> CohortView {
        CohortView {
            id: self.id.to_string(),
            tenant: self.tenant.to_string(),
            name: self.name.clone(),
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
        }
    }

    fn key(id: CohortId) -> ControlKey {
        ControlKey::Cohort(id)
    }
}

impl Changing for Cohort {
    fn updated_at(&mut self) -> &mut i64 {
        &mut self.updated_at
    }

    fn stored(self) -> ControlObject {
        ControlObject::Cohort(self)
    }
}
