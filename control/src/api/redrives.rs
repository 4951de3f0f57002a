//! Owns the routes of redrives: dead letters that are sent again.
//!
//! No handler sends anything: what is stored as running is run. The surprise: a redrive asked for
//! with an endpoint's key is of that endpoint, whatever is not said.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use runtime::problem::Problem;
use runtime::view::Change;
use schemas::ids::{EndpointId, RedriveId, TenantId};
use schemas::records::{ControlKey, ControlObject, DeadReason};
use schemas::resources::{
    DeadFilter, Endpoint, EndpointState, LETTERS_MAX, LetterId, Redrive, RedriveCounts,
    RedriveState,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{self, Made, Page, Paging};
use super::auth::{Principal, not_found};
use super::dead::{endpoint_for, reason};
use super::request::{IdempotencyKey, Order, Params, Segments, Waiting};
use super::tenants::known;
use super::view::{EndpointView, pages, time};
use super::{App, conflict, later, other_body, put, remove};
use crate::redrive::of_reenabled;
use crate::store::{Plan, State as Objects};

/// Redrives of a tenant that are not over.
const RUNNING_MAX: usize = 20;
/// Redrives of a tenant that are kept; the oldest that is over makes room.
const KEPT_MAX: usize = 100;

/// Which dead letters are to be sent again; all of the tenant's where nothing is said.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body to the document; it is read by hand"
)]
pub(super) struct RedriveBody {
    /// Of this endpoint.
    endpoint: Option<String>,
    /// For one of these reasons.
    reasons: Option<Vec<String>>,
    /// Dead at this time (RFC 3339) or later.
    since: Option<String>,
    /// Dead before this time (RFC 3339).
    until: Option<String>,
    /// These letters alone, 100 at most.
    letters: Option<Vec<String>>,
}

/// What became of the letters that a redrive took.
#[derive(Debug, Serialize, ToSchema)]
struct CountsView {
    /// Letters taken.
    matched: u64,
    /// Sent again.
    sent: u64,
    /// Delivered.
    delivered: u64,
    /// Dead again.
    dead: u64,
    /// Sent, and not heard of within the delivery's maximum age.
    unknown: u64,
    /// Sent, and not heard of yet.
    unreported: u64,
    /// Not sent, because an earlier redrive had delivered them or this one has them already.
    settled: u64,
    /// Not sent, because there is nothing to send or nobody to send it to.
    skipped: u64,
}

impl CountsView {
    fn of(counts: RedriveCounts) -> Self {
        let ended = counts.delivered + counts.dead + counts.unknown;
        Self {
            matched: counts.matched,
            sent: counts.sent,
            delivered: counts.delivered,
            dead: counts.dead,
            unknown: counts.unknown,
            unreported: counts.sent.saturating_sub(ended),
            settled: counts.settled,
            skipped: counts.skipped,
        }
    }
}

/// A redrive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RedriveView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// `running`, `done` or `cancelled`.
    #[schema(value_type = String)]
    state: RedriveState,
    /// Of this endpoint.
    endpoint: Option<String>,
    /// For one of these reasons; empty for any.
    #[schema(value_type = Vec<String>)]
    reasons: Vec<DeadReason>,
    /// RFC 3339.
    since: Option<String>,
    /// RFC 3339.
    until: Option<String>,
    /// These letters alone; empty for all.
    letters: Vec<String>,
    /// What became of them so far.
    counts: CountsView,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

pages! {
    /// A page of redrives.
    pub(super) RedrivePage of RedriveView;
}

impl RedriveView {
    fn of(app: &App, redrive: &Redrive) -> Self {
        let filter = &redrive.filter;
        Self {
            id: redrive.id.to_string(),
            tenant: redrive.tenant.to_string(),
            state: redrive.state,
            endpoint: filter.endpoint.map(|id| id.to_string()),
            reasons: filter.reasons.clone(),
            since: filter.since.map(time),
            until: filter.until.map(time),
            letters: filter.letters.iter().map(ToString::to_string).collect(),
            counts: CountsView::of(app.live.counts(redrive)),
            created_at: time(redrive.created_at),
            updated_at: time(redrive.updated_at),
        }
    }
}

/// Collects what is wrong with a body, member by member (HT-4).
#[derive(Debug, Default)]
struct Faults(Vec<(String, String)>);

impl Faults {
    fn text<T: FromStr>(&mut self, pointer: &str, value: &Value) -> Option<T>
    where
        T::Err: Display,
    {
        let read = match value.as_str() {
            Some(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            None => Err("must be a string".to_owned()),
        };
        read.map_err(|why| self.0.push((pointer.to_owned(), why)))
            .ok()
    }

    fn instant(&mut self, pointer: &str, value: &Value) -> Option<i64> {
        self.text::<Timestamp>(pointer, value)
            .map(Timestamp::as_millisecond)
    }

    fn list<T>(
        &mut self,
        pointer: &str,
        value: &Value,
        mut read: impl FnMut(&mut Self, &str, &Value) -> Option<T>,
    ) -> Vec<T> {
        let items = value.as_array().map(Vec::as_slice);
        let Some(items) = items.filter(|items| items.len() <= LETTERS_MAX) else {
            let why = format!("must be an array of at most {LETTERS_MAX}");
            self.0.push((pointer.to_owned(), why));
            return Vec::new();
        };
        let numbered = items.iter().enumerate();
        numbered
            .filter_map(|(at, item)| read(self, &format!("{pointer}/{at}"), item))
            .collect()
    }
}

fn read_filter(body: &Value) -> Result<DeadFilter, Problem> {
    let mut faults = Faults::default();
    let mut filter = DeadFilter::default();
    let Some(members) = body.as_object() else {
        return Err(Problem::validation([("", "must be an object")]));
    };
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        match name.as_str() {
            "endpoint" => filter.endpoint = faults.text::<EndpointId>(&pointer, value),
            "since" => filter.since = faults.instant(&pointer, value),
            "until" => filter.until = faults.instant(&pointer, value),
            "letters" => {
                filter.letters = faults.list(&pointer, value, Faults::text::<LetterId>);
            }
            "reasons" => {
                filter.reasons = faults.list(&pointer, value, |faults, pointer, value| {
                    let found = value.as_str().and_then(reason);
                    if found.is_none() {
                        let why = "is no reason of a dead letter".to_owned();
                        faults.0.push((pointer.to_owned(), why));
                    }
                    found
                });
            }
            _ => faults.0.push((pointer, "is not known".to_owned())),
        }
    }
    if faults.0.is_empty() {
        Ok(filter)
    } else {
        Err(Problem::validation(faults.0))
    }
}

/// What makes room for one more redrive of `tenant`.
fn room(objects: &Objects, tenant: &TenantId) -> Result<Vec<Change>, Problem> {
    let mut over = Vec::new();
    let mut running = 0;
    for (_, redrive) in objects.redrives.page(tenant, None) {
        match redrive.state {
            RedriveState::Running => running += 1,
            RedriveState::Done | RedriveState::Cancelled => over.push(redrive),
        }
    }
    if running >= RUNNING_MAX {
        let why = format!("a tenant has at most {RUNNING_MAX} redrives that are not over");
        return Err(conflict(why));
    }
    over.sort_by_key(|redrive| redrive.updated_at);
    let surplus = (running + over.len() + 1).saturating_sub(KEPT_MAX);
    let oldest = over.into_iter().take(surplus);
    Ok(oldest
        .map(|redrive| remove(ControlKey::Redrive(redrive.id)))
        .collect())
}

/// Whether letters can go to the endpoint that is named.
fn reachable(objects: &Objects, redrive: &Redrive) -> Result<(), Problem> {
    let Some(id) = redrive.filter.endpoint else {
        return Ok(());
    };
    let fault = match objects.endpoints.of(&redrive.tenant, id) {
        None => "does not exist",
        Some(endpoint) if endpoint.state == EndpointState::Disabled => {
            return Err(conflict(
                "the endpoint is disabled: resume it, which sends again what it was held for",
            ));
        }
        Some(_) => return Ok(()),
    };
    Err(Problem::validation([("/endpoint", fault)]))
}

/// Sends dead letters again, as fast as their endpoints take them.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/redrives", operation_id = "create_redrive",
    tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = RedriveBody,
    responses((status = 201, body = RedriveView, description = "It begins."),
        (status = 200, body = RedriveView, description = "A repeat: it is this one.")))]
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
    let (tenant, own) = principal.reach(&tenant)?;
    let mut filter = read_filter(&body)?;
    filter.endpoint = endpoint_for(own, filter.endpoint)?;
    let bits = repeat.bits("redrive", tenant.as_str(), || app.fresh_bits());
    let redrive = Redrive::new(RedriveId::from_bits(bits), tenant, filter, app.clock.now());
    let view = app.clone();
    let written = app
        .store
        .write(move |objects| {
            known(objects, &redrive.tenant)?;
            if let Some(old) = objects.redrives.of(&redrive.tenant, redrive.id) {
                if old.filter != redrive.filter {
                    return Err(other_body());
                }
                let body = RedriveView::of(&view, old);
                let location = None;
                return Ok(Plan {
                    changes: Vec::new(),
                    answer: Made { body, location },
                });
            }
            reachable(objects, &redrive)?;
            let mut changes = room(objects, &redrive.tenant)?;
            let location = format!("/v1/tenants/{}/redrives/{}", redrive.tenant, redrive.id);
            let body = RedriveView::of(&view, &redrive);
            changes.push(put(ControlObject::Redrive(Box::new(redrive))));
            Ok(Plan {
                changes,
                answer: Made {
                    body,
                    location: Some(location),
                },
            })
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// Lists a tenant's redrives; with an endpoint's key those of the endpoint.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/redrives", operation_id = "list_redrives",
    tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = RedrivePage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    let (tenant, own) = principal.reach(&tenant)?;
    let (after, limit) = (paging.after()?, paging.limit()?);
    let page = app.store.read(|objects| {
        known(objects, &tenant)?;
        let rows = objects.redrives.page(&tenant, after);
        let rows = rows.filter(|(_, redrive)| is_of(redrive, own));
        Ok::<_, Problem>(Page::of(
            rows,
            limit,
            |row| row.0.to_string(),
            |row| RedriveView::of(&app, row.1),
        ))
    })?;
    Ok(answer::page::<RedrivePage, _>(page, limit))
}

fn is_of(redrive: &Redrive, own: Option<EndpointId>) -> bool {
    own.is_none_or(|own| redrive.filter.endpoint == Some(own))
}

fn found<'a>(
    objects: &'a Objects,
    (tenant, own): &(TenantId, Option<EndpointId>),
    redrive: &str,
) -> Result<&'a Arc<Redrive>, Problem> {
    let id = redrive.parse().ok();
    let found = id.and_then(|id| objects.redrives.of(tenant, id));
    found
        .filter(|redrive| is_of(redrive, *own))
        .ok_or_else(|| not_found("redrive"))
}

/// Reads a redrive: how far it is, and what became of the letters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/redrives/{redrive}",
    operation_id = "read_redrive", tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("redrive" = String, Path, description = "The redrive's id.")),
    responses((status = 200, body = RedriveView, description = "The redrive.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, redrive)): Segments<(String, String)>,
) -> Result<axum::Json<RedriveView>, Problem> {
    let who = principal.reach(&tenant)?;
    app.store.read(|objects| {
        let redrive = found(objects, &who, &redrive)?;
        Ok(axum::Json(RedriveView::of(&app, redrive)))
    })
}

/// Enables the endpoint at `place`; what was held while it was disabled is sent again.
pub(super) async fn enable(
    app: &App,
    waiting: Waiting,
    (tenant, id): (TenantId, EndpointId),
) -> Result<Response, Problem> {
    let (now, redrive) = (app.clock.now(), RedriveId::from_bits(app.fresh_bits()));
    let written = app
        .store
        .write(move |objects| {
            let old = objects.endpoints.of(&tenant, id);
            let old = old.ok_or_else(|| not_found("endpoint"))?;
            if old.state == EndpointState::Active {
                return Ok(Plan {
                    changes: Vec::new(),
                    answer: EndpointView::of(old),
                });
            }
            let new = Endpoint {
                state: EndpointState::Active,
                disabled: None,
                updated_at: later(now, old.updated_at),
                ..old.as_ref().clone()
            };
            let answer = EndpointView::of(&new);
            let held = of_reenabled(old, redrive, now);
            let endpoint = ControlObject::Endpoint(Box::new(new));
            let changes = std::iter::once(endpoint).chain(held).map(put).collect();
            Ok(Plan { changes, answer })
        })
        .await?;
    Ok(answer::changed(app, waiting, written).await)
}

/// Ends a redrive: it sends no more. What it has sent goes on.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/redrives/{redrive}/cancel",
    operation_id = "cancel_redrive", tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("redrive" = String, Path, description = "The redrive's id."), Waiting),
    responses((status = 200, body = RedriveView, description = "It is over.")))]
pub(super) async fn cancel(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, redrive)): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let (who, now, view) = (principal.reach(&tenant)?, app.clock.now(), app.clone());
    let written = app
        .store
        .write(move |objects| {
            let old = found(objects, &who, &redrive)?;
            let running = match old.state {
                RedriveState::Running => true,
                RedriveState::Done | RedriveState::Cancelled => false,
            };
            let new = Redrive {
                state: RedriveState::Cancelled,
                counts: view.live.counts(old),
                updated_at: later(now, old.updated_at),
                ..old.as_ref().clone()
            };
            Ok(Plan {
                answer: RedriveView::of(&view, if running { &new } else { old }),
                changes: running
                    .then(|| put(ControlObject::Redrive(Box::new(new))))
                    .into_iter()
                    .collect(),
            })
        })
        .await?;
    Ok(answer::changed(&app, waiting, written).await)
}
