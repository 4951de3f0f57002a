//! Owns the routes that say what filters do: why subscriptions match an event or do not, and what
//! filters would have matched of the newest events.
//!
//! It must never look at another tenant's objects or events, nor change anything. The surprise: the
//! event is read from the body's own bytes, because a number that goes through a number type is not
//! what a filter on data would have seen.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use runtime::problem::{Problem, ProblemType};
use schemas::codec;
use schemas::event::{Event, Limits};
use schemas::filter::{CLAUSES_MAX, Explanation, Filters};
use schemas::ids::{SubscriptionId, TenantId};
use schemas::resources::input::Fault;
use schemas::resources::{Subscription, SubscriptionState};
use schemas::transform::{Compiled, Transform};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::App;
use super::answer::{self, Page, Paging};
use super::auth::{Principal, not_found};
use super::kind::{self, known};
use super::request::{JsonBody, JsonText, Params, Segments, not_json};
use super::tenants::known as known_tenant;
use super::transforms::TransformView;
use super::view::{pages, time};
use crate::dry_run::{Ended, LAST_MAX, NotTried, Seen, Tried};

/// Clauses in one answer: a page with more ends early.
const PAGE_CLAUSES_MAX: usize = 4 * CLAUSES_MAX;
/// What a transform counts for among them.
const TRANSFORM_CLAUSES: usize = CLAUSES_MAX / 8;
/// Events of a dry run that does not say how many.
const LAST_DEFAULT: usize = 1_000;

/// The event that is to be explained.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainBody {
    /// A CloudEvent in its JSON form.
    #[schema(value_type = Object)]
    event: Box<RawValue>,
    /// This subscription alone.
    subscription: Option<String>,
}

/// Why a subscription matches an event or does not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationView {
    /// The subscription.
    subscription: String,
    /// Where matching events go.
    endpoint: String,
    /// Its name for people.
    name: Option<String>,
    /// `active` or `paused`; a paused one gets nothing, whatever it matches.
    #[schema(value_type = String)]
    state: SubscriptionState,
    /// Whether its filters match.
    matched: bool,
    /// Each clause: `pointer` into the filters, `clause`, `matched` (null where it is neither true
    /// nor false), `wanted`, `seen`, `why` it did not match, and its `parts`.
    #[schema(value_type = Object)]
    explanation: Explanation,
    /// What its transform makes of the event, where they match and it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    transform: Option<TransformView>,
}

pages! {
    /// A page of explanations, in the order of the subscriptions.
    pub(super) ExplanationPage of ExplanationView;
}

/// Filters to try.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it is read member by member, to tell every fault")]
pub(super) struct DryRunBody {
    /// Which events, as in a subscription; an empty list for all.
    #[schema(value_type = Vec<Object>)]
    filters: Value,
    /// On how many of the newest events; 1,000 where absent.
    #[schema(minimum = 1, maximum = 10_000)]
    last: Option<usize>,
    /// A transform to try on those of the matching events that are shown.
    #[schema(value_type = Option<Object>)]
    transform: Option<Value>,
}

/// What filters would have matched.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DryRunView {
    /// The tenant's events that they were tried on.
    events: usize,
    /// How many of them matched.
    matched: usize,
    /// How many did not.
    not_matched: usize,
    /// The newest that matched, at most 20.
    matching: Vec<SeenView>,
    /// The newest that did not, at most 20.
    not_matching: Vec<SeenView>,
    /// Records of the log that were read for it, other tenants' included.
    records: usize,
    /// `found` where there were as many events as asked for, `beginning` where the log has no more,
    /// `limit` where a dry run may read no more.
    #[schema(value_type = String)]
    ended: &'static str,
}

/// An event of a dry run.
#[derive(Debug, Serialize, ToSchema)]
struct SeenView {
    /// When it was written; RFC 3339.
    at: String,
    /// Its id.
    id: String,
    /// Its source.
    source: String,
    /// Its type.
    #[serde(rename = "type")]
    ty: String,
    /// What the transform makes of it, where one is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    transform: Option<TransformView>,
}

impl ExplanationView {
    fn of(subscription: &Subscription, event: &Event, url: Option<&str>) -> Self {
        let explanation = subscription.filters.explain(event);
        let transform = subscription.transform.as_deref();
        let transform = transform.filter(|_| explanation.matched == Some(true));
        Self {
            subscription: subscription.id.to_string(),
            endpoint: subscription.endpoint.to_string(),
            name: subscription.name.clone(),
            state: subscription.state,
            matched: explanation.matched == Some(true),
            explanation,
            transform: transform.map(|transform| TransformView::of(transform, event, url)),
        }
    }
}

impl From<&Seen> for SeenView {
    fn from(seen: &Seen) -> Self {
        Self {
            at: time(seen.at),
            id: seen.id.clone(),
            source: seen.source.clone(),
            ty: seen.ty.clone(),
            transform: None,
        }
    }
}

impl From<Tried> for DryRunView {
    fn from(tried: Tried) -> Self {
        let matched = tried.matched();
        Self {
            events: tried.events.len(),
            matched,
            not_matched: tried.events.len() - matched,
            matching: tried.shown(true).map(SeenView::from).collect(),
            not_matching: tried.shown(false).map(SeenView::from).collect(),
            records: tried.records,
            ended: match tried.ended {
                Ended::Found => "found",
                Ended::Beginning => "beginning",
                Ended::Limit => "limit",
            },
        }
    }
}

impl ExplainBody {
    fn read(text: &[u8]) -> Result<Self, Problem> {
        let text = if text.is_empty() { b"{}" } else { text };
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            Category::Data => Problem::validation([("", error.to_string())]),
            Category::Io | Category::Syntax | Category::Eof => not_json(&error),
        })
    }

    /// The event as ingest would have taken it from this tenant.
    fn event(&self, tenant: &TenantId) -> Result<Event, Problem> {
        let wrong = |error: &dyn ToString| Problem::validation([("/event", error.to_string())]);
        let bytes = Bytes::copy_from_slice(self.event.get().as_bytes());
        let event = codec::json::decode(&bytes, &Limits::default());
        let mut event = event.map_err(|error| wrong(&error))?;
        let named = event.set_tenant(tenant.as_str());
        named.map_err(|error| wrong(&error))?;
        Ok(event)
    }
}

/// Says why each subscription matches an event or does not, clause by clause, and what its transform
/// makes of it; or so of one.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/explain", operation_id = "explain",
    tag = "filters",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    request_body = ExplainBody,
    responses((status = 200, body = ExplanationPage, description = "A page.")))]
pub(super) async fn explain(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
    JsonText(text): JsonText,
) -> Result<Response, Problem> {
    let tenant = principal.tenant(&tenant)?;
    let asked = ExplainBody::read(&text)?;
    let event = asked.event(&tenant)?;
    let (found, mut more) = match &asked.subscription {
        Some(id) => (vec![one(&app, &tenant, id)?], false),
        None => several(&app, &tenant, &paging)?,
    };
    let (mut items, mut clauses, mut last) = (Vec::new(), 0, None);
    let count = found.len();
    for subscription in found {
        let url = url_of(&app, &subscription)?;
        let view = ExplanationView::of(&subscription, &event, url.as_deref());
        clauses += view.explanation.count();
        clauses += view.transform.as_ref().map_or(0, |_| TRANSFORM_CLAUSES);
        items.push(view);
        last = Some(subscription.id);
        if clauses > PAGE_CLAUSES_MAX {
            more |= items.len() < count;
            break;
        }
        // Others are served between two explanations.
        tokio::task::yield_now().await;
    }
    let next = last.filter(|_| more);
    let page = Page {
        items,
        next: next.map(|id| answer::cursor(&id.to_string())),
    };
    Ok(answer::page::<ExplanationPage, _>(page, paging.limit()?))
}

/// Where the requests of its endpoint go, where a transform makes them.
fn url_of(app: &App, subscription: &Subscription) -> Result<Option<String>, Problem> {
    if subscription.transform.is_none() {
        return Ok(None);
    }
    app.store.read(|objects| {
        let endpoint = objects.endpoints.get(subscription.endpoint);
        Ok(endpoint.map(|endpoint| endpoint.url.clone()))
    })
}

fn one(app: &App, tenant: &TenantId, id: &str) -> Result<Arc<Subscription>, Problem> {
    let place = (tenant.clone(), kind::id::<Subscription>(id)?);
    let found = app
        .store
        .read(|objects| known::<Subscription>(objects, &place).cloned())?;
    if found.hidden {
        return Err(not_found("subscription"));
    }
    Ok(found)
}

/// A page of them, and whether there are more.
fn several(
    app: &App,
    tenant: &TenantId,
    paging: &Paging,
) -> Result<(Vec<Arc<Subscription>>, bool), Problem> {
    let (after, limit) = (paging.after::<SubscriptionId>()?, paging.limit()?);
    app.store.read(|objects| {
        known_tenant(objects, tenant)?;
        let rows = objects.subscriptions.page(tenant, after);
        let mut shown = rows.filter(|(_, subscription)| !subscription.hidden);
        let page = shown.by_ref().take(limit);
        let page = page
            .map(|(_, subscription)| Arc::clone(subscription))
            .collect();
        Ok((page, shown.next().is_some()))
    })
}

/// Tries filters on the newest events of the tenant, as they are on the log.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/filters/dry-run",
    operation_id = "dry_run_filters", tag = "filters",
    params(("tenant" = String, Path, description = "The tenant's id.")),
    request_body = DryRunBody,
    responses((status = 200, body = DryRunView, description = "What they would have matched.")))]
pub(super) async fn dry_run(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<DryRunView>, Problem> {
    let tenant = principal.tenant(&tenant)?;
    app.store
        .read(|objects| known_tenant(objects, &tenant).map(drop))?;
    let Wanted {
        filters,
        last,
        transform,
    } = Wanted::read(&body)?;
    let keep = transform.is_some();
    let tried = app.dry_runs.run(&tenant, (&filters, keep), last).await;
    let tried = tried.map_err(|error| untried(&error))?;
    let mut outcomes = Vec::new();
    if let Some(transform) = &transform {
        for event in tried.shown(true).filter_map(|seen| seen.event.as_ref()) {
            outcomes.push(TransformView::by(transform, event, None));
            // Others are served between two of them.
            tokio::task::yield_now().await;
        }
    }
    let mut view = DryRunView::from(tried);
    for (seen, outcome) in view.matching.iter_mut().zip(outcomes) {
        seen.transform = Some(outcome);
    }
    Ok(Json(view))
}

/// What is asked of a dry run.
struct Wanted {
    filters: Filters,
    last: usize,
    transform: Option<Compiled>,
}

impl Wanted {
    /// Reads the body of a dry run, or says every fault of it.
    fn read(body: &Value) -> Result<Self, Problem> {
        let mut faults = Vec::new();
        let known = ["filters", "last", "transform"];
        let members = body.as_object().into_iter().flatten();
        for (name, _) in members.filter(|(name, _)| !known.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            faults.push((
                format!("/{name}"),
                "is not a member of a dry run".to_owned(),
            ));
        }
        let filters = body.get("filters").unwrap_or(&Value::Null);
        let filters = Filters::parse_all(filters).map_err(|wrong| {
            let fault = |error: &schemas::filter::Error| {
                (
                    format!("/filters{}", error.pointer()),
                    error.fault().to_string(),
                )
            };
            faults.extend(wrong.iter().map(fault));
        });
        let last = match body.get("last") {
            None | Some(Value::Null) => Some(LAST_DEFAULT),
            Some(last) => last.as_u64().and_then(|last| usize::try_from(last).ok()),
        };
        let last = last.filter(|last| (1..=LAST_MAX).contains(last));
        if last.is_none() {
            let wanted = format!("must be an integer from 1 to {LAST_MAX}");
            faults.push(("/last".to_owned(), wanted));
        }
        let transform = body
            .get("transform")
            .filter(|transform| !transform.is_null());
        let transform = transform.map(Transform::read);
        let transform = transform.map(|read| read.and_then(|read| Compiled::new(&read)));
        let transform = transform.transpose().map_err(|wrong| {
            let fault = |fault: Fault| (format!("/transform{}", fault.pointer), fault.detail);
            faults.extend(wrong.0.into_iter().map(fault));
        });
        match (filters, last, transform) {
            (Ok(filters), Some(last), Ok(transform)) if faults.is_empty() => Ok(Self {
                filters,
                last,
                transform,
            }),
            _ => Err(Problem::validation(faults)),
        }
    }
}

fn untried(error: &NotTried) -> Problem {
    tracing::warn!(%error, "filters were not tried");
    Problem::new(ProblemType::Unavailable)
        .detail(error.to_string())
        .retry_after(Duration::from_secs(1))
}
