//! Owns the tenants' routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::TenantId;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::Tenant;
use schemas::resources::input::TenantInput;

use super::answer::{self, Made, Page, Paging};
use super::auth::{Principal, not_found};
use super::request::{JsonBody, Params, Segments, Waiting, invalid};
use super::schema::{TenantBody, TenantPatch};
use super::view::{TenantPage, TenantView};
use super::{App, conflict, later, put, remove};
use crate::store::{Plan, State as Objects};

/// The tenant `id`, or 404.
pub(super) fn known<'a>(objects: &'a Objects, id: &TenantId) -> Result<&'a Arc<Tenant>, Problem> {
    objects.tenant(id).ok_or_else(|| not_found("tenant"))
}

fn build(input: TenantInput, created_at: i64, updated_at: i64) -> Tenant {
    Tenant {
        id: input.id,
        name: input.name,
        events_per_second: input.events_per_second,
        bytes_per_second: input.bytes_per_second,
        fair_share: input.fair_share,
        created_at,
        updated_at,
    }
}

/// Makes a tenant. Repeating it with the same body changes nothing.
#[utoipa::path(post, path = "/v1/tenants", operation_id = "create_tenant", tag = "tenants",
    params(Waiting), request_body = TenantBody,
    responses((status = 201, body = TenantView, description = "Made."),
        (status = 200, body = TenantView, description = "It was there, and the same.")))]
pub(super) async fn create(
    State(app): State<App>,
    principal: Principal,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    principal.operator()?;
    let input = TenantInput::read(&body).map_err(invalid)?;
    let now = app.clock.now();
    let written = app
        .store
        .write(move |objects| {
            let old = objects.tenant(&input.id);
            let (created, updated) = old.map_or((now, now), |old| (old.created_at, old.updated_at));
            let tenant = build(input, created, updated);
            let body = TenantView::of(&tenant);
            match old {
                Some(old) if **old == tenant => Ok(Plan {
                    changes: Vec::new(),
                    answer: Made {
                        body,
                        location: None,
                    },
                }),
                Some(_) => Err(conflict("a tenant of this id exists and differs")),
                None => {
                    let location = Some(format!("/v1/tenants/{}", tenant.id));
                    let changes = vec![put(ControlObject::Tenant(tenant))];
                    Ok(Plan {
                        changes,
                        answer: Made { body, location },
                    })
                }
            }
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// Lists tenants in the order of their ids.
#[utoipa::path(get, path = "/v1/tenants", operation_id = "list_tenants", tag = "tenants",
    params(Paging), responses((status = 200, body = TenantPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    principal.operator()?;
    let (after, limit) = (paging.after::<TenantId>()?, paging.limit()?);
    let page = app.store.read(|objects| {
        let rows = objects.tenants(after.as_ref());
        Page::of(
            rows,
            limit,
            |row| row.id.to_string(),
            |row| TenantView::of(row),
        )
    });
    Ok(answer::page::<TenantPage, _>(page, limit))
}

/// Reads a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", operation_id = "read_tenant", tag = "tenants",
    params(("tenant" = String, Path, description = "The tenant's id.")),
    responses((status = 200, body = TenantView, description = "The tenant.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
) -> Result<axum::Json<TenantView>, Problem> {
    let id = principal.tenant(&tenant)?;
    app.store
        .read(|objects| Ok(axum::Json(TenantView::of(known(objects, &id)?))))
}

/// Changes a tenant by a merge patch.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", operation_id = "patch_tenant",
    tag = "tenants", params(("tenant" = String, Path, description = "The tenant's id."), Waiting),
    request_body(content = TenantPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = TenantView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    principal.operator()?;
    let (id, now) = (principal.tenant(&tenant)?, app.clock.now());
    let written = app
        .store
        .write(move |objects| {
            let old = known(objects, &id)?;
            let input = TenantInput::patched(old, &body).map_err(invalid)?;
            let same = build(input, old.created_at, old.updated_at);
            if **old == same {
                return Ok(Plan {
                    changes: Vec::new(),
                    answer: TenantView::of(old),
                });
            }
            let tenant = Tenant {
                updated_at: later(now, old.updated_at),
                ..same
            };
            let answer = TenantView::of(&tenant);
            Ok(Plan {
                changes: vec![put(ControlObject::Tenant(tenant))],
                answer,
            })
        })
        .await?;
    Ok(answer::changed(&app, waiting, written).await)
}

/// Deletes a tenant that has no endpoints, no subscriptions, no cohorts and no sources; its keys and
/// redrives go with it.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", operation_id = "delete_tenant",
    tag = "tenants", params(("tenant" = String, Path, description = "The tenant's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    principal.operator()?;
    let id = principal.tenant(&tenant)?;
    let written = app
        .store
        .write(move |objects| {
            known(objects, &id)?;
            if objects.endpoints.count(&id) + objects.subscriptions.count(&id) > 0 {
                return Err(conflict("the tenant still has endpoints or subscriptions"));
            }
            if objects.cohorts.count(&id) > 0 {
                return Err(conflict("the tenant still has cohorts"));
            }
            if objects.sources.count(&id) > 0 {
                return Err(conflict("the tenant still has sources"));
            }
            let keys = objects.keys.page(&id, None);
            let mut changes: Vec<_> = keys
                .map(|(key, _)| remove(ControlKey::ApiKey(key)))
                .collect();
            let redrives = objects.redrives.page(&id, None);
            changes.extend(redrives.map(|(redrive, _)| remove(ControlKey::Redrive(redrive))));
            changes.push(remove(ControlKey::Tenant(id)));
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await?;
    Ok(answer::deleted(&app, waiting, written).await)
}
