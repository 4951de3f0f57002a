//! Owns the sources' routes: topics of the user's own that are read as events of a tenant.
//!
//! Only the operator has them: a source says whose events a topic holds, and everybody's topics are
//! in one Kafka. The surprise: they are under no tenant's path, since a tenant may not see them.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::{SourceId, TenantId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::input::SourceInput;
use schemas::resources::{EventExpressions, Source, SourceFormat, SourceStart};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{self, Page, Paging};
use super::auth::{Principal, not_found};
use super::kind::{self, Changing, Kind, Place};
use super::request::{IdempotencyKey, JsonBody, Order, Params, Segments, Waiting, invalid};
use super::schema::{SourceBody, SourcePatch};
use super::view::{pages, time};
use super::{App, conflict, other_body};
use crate::store::{State as Objects, Table};

/// Each is a topic that every router looks after.
const SOURCES_MAX: usize = 1_000;

/// A source.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceView {
    /// Its id.
    id: String,
    /// The tenant of every event in it.
    tenant: String,
    /// The topic's full name.
    topic: String,
    /// A name for people.
    name: Option<String>,
    /// What its records are.
    #[schema(value_type = String)]
    format: SourceFormat,
    /// Where the attributes of its events come from, where the format does not say it.
    #[schema(value_type = Object)]
    event: EventExpressions,
    /// JSON pointer to an array in each record, of which every item is an event.
    split: Option<String>,
    /// Where reading began.
    #[schema(value_type = String)]
    start: SourceStart,
    /// Its turns beside other sources.
    weight: u8,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

pages! {
    /// A page of sources.
    pub(crate) SourcePage of SourceView;
}

/// Makes a source: routers read the topic from then on. One that does not exist is waited for.
#[utoipa::path(post, path = "/v1/sources", operation_id = "create_source", tag = "sources",
    params(Waiting, IdempotencyKey), request_body = SourceBody,
    responses((status = 201, body = SourceView, description = "Made."),
        (status = 200, body = SourceView, description = "A repeat: it was made before.")))]
pub(super) async fn create(
    State(app): State<App>,
    principal: Principal,
    Order {
        waiting,
        repeat,
        body,
    }: Order,
) -> Result<Response, Problem> {
    principal.operator()?;
    let input = SourceInput::read(&body).map_err(invalid)?;
    if app.topics.is_own(&input.topic) {
        return Err(wrong("/topic", "is one of anabranch's own topics"));
    }
    let bits = repeat.bits("source", "", || app.fresh_bits());
    let now = app.clock.now();
    let new = input.build(SourceId::from_bits(bits), now, now);
    let written = app
        .store
        .write(move |objects| {
            let (source, repeated) = decide(objects, new)?;
            let location = format!("/v1/sources/{}", source.id);
            let view = source.view();
            Ok(kind::made(vec![source.stored()], repeated, location, view))
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// The source, and whether a request with the same idempotency key made it before.
fn decide(objects: &Objects, made: Source) -> Result<(Source, bool), Problem> {
    if let Some(old) = objects.sources.get(made.id) {
        let same = Source {
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
    if objects.tenant(&made.tenant).is_none() {
        return Err(wrong("/tenant", "there is no such tenant"));
    }
    let mut others = objects.sources.all();
    if let Some((other, _)) = others.find(|(_, other)| other.topic == made.topic) {
        return Err(conflict(format!("{other} is of this topic already")));
    }
    if objects.sources.len() >= SOURCES_MAX {
        return Err(conflict(format!("there are at most {SOURCES_MAX} sources")));
    }
    Ok((made, false))
}

fn wrong(pointer: &str, detail: &str) -> Problem {
    Problem::validation([(pointer.to_owned(), detail.to_owned())])
}

/// Lists sources of every tenant, the oldest first.
#[utoipa::path(get, path = "/v1/sources", operation_id = "list_sources", tag = "sources",
    params(Paging), responses((status = 200, body = SourcePage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    principal.operator()?;
    let (after, limit) = (paging.after::<SourceId>()?, paging.limit()?);
    let page = app.store.read(|objects| {
        let is_behind = |id: SourceId| after.is_none_or(|after| id > after);
        let rows = objects.sources.all().filter(|(id, _)| is_behind(*id));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(id, _)| *id);
        let id = |row: &(SourceId, _)| row.0.to_string();
        Page::of(rows.into_iter(), limit, id, |row| row.1.view())
    });
    Ok(answer::page::<SourcePage, _>(page, limit))
}

/// Reads a source.
#[utoipa::path(get, path = "/v1/sources/{source}", operation_id = "read_source", tag = "sources",
    params(("source" = String, Path, description = "The source's id.")),
    responses((status = 200, body = SourceView, description = "The source.")))]
pub(super) async fn read(
    State(app): State<App>,
    principal: Principal,
    Segments(source): Segments<String>,
) -> Result<axum::Json<SourceView>, Problem> {
    kind::read::<Source>(&app, &place(&app, &principal, &source)?)
}

/// Changes a source by a merge patch. It is for records that are not begun; what was routed stays.
#[utoipa::path(patch, path = "/v1/sources/{source}", operation_id = "patch_source",
    tag = "sources",
    params(("source" = String, Path, description = "The source's id."), Waiting),
    request_body(content = SourcePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = SourceView, description = "Changed.")))]
pub(super) async fn patch(
    State(app): State<App>,
    principal: Principal,
    Segments(source): Segments<String>,
    Params(waiting): Params<Waiting>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let place = place(&app, &principal, &source)?;
    kind::change(&app, waiting, place, move |old: &Source| {
        let input = SourceInput::patched(old, &body).map_err(invalid)?;
        Ok(input.build(old.id, old.created_at, old.updated_at))
    })
    .await
}

/// Deletes a source: its topic is read no more. Another source of the same topic starts where it
/// says itself.
#[utoipa::path(delete, path = "/v1/sources/{source}", operation_id = "delete_source",
    tag = "sources",
    params(("source" = String, Path, description = "The source's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(source): Segments<String>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = place(&app, &principal, &source)?;
    kind::delete::<Source>(&app, waiting, place, |_| Ok(Vec::new())).await
}

/// The source that a path names, which the operator alone may see.
fn place(app: &App, principal: &Principal, source: &str) -> Result<Place<Source>, Problem> {
    principal.operator()?;
    let id = kind::id::<Source>(source)?;
    let tenant = |objects: &Objects| Some(objects.sources.get(id)?.tenant.clone());
    let tenant: Option<TenantId> = app.store.read(tenant);
    Ok((tenant.ok_or_else(|| not_found(Source::NAME))?, id))
}

impl Kind for Source {
    type Id = SourceId;
    type View = SourceView;
    type Page = SourcePage;
    const NAME: &'static str = "source";
    const PATH: &'static str = "sources";

    fn table(objects: &Objects) -> &Table<SourceId, Self> {
        &objects.sources
    }

    fn view(&self) -> SourceView {
        SourceView {
            id: self.id.to_string(),
            tenant: self.tenant.to_string(),
            topic: self.topic.clone(),
            name: self.name.clone(),
            format: self.format,
            event: self.event.clone(),
            split: self.split.clone(),
            start: self.start,
            weight: self.weight,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
        }
    }

    fn key(id: SourceId) -> ControlKey {
        ControlKey::Source(id)
    }
}

impl Changing for Source {
    fn updated_at(&mut self) -> &mut i64 {
        &mut self.updated_at
    }

    fn stored(self) -> ControlObject {
        ControlObject::Source(Box::new(self))
    }
}
