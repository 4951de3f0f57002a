//! Owns the API under `/v1`: routes, what they ask of the store, and the document about them.
//!
//! No handler writes to the log itself. The surprise: a change is a closure handed to the store,
//! which decides on the state as it is when the change's turn has come.

mod answer;
mod auth;
mod cohorts;
mod credentials;
mod dead;
mod endpoints;
mod explain;
mod fitting;
mod keys;
mod kind;
mod quotas;
mod redrives;
mod request;
mod schema;
mod secrets;
mod sources;
mod subscriptions;
mod syncs;
mod tenants;
mod test_event;
mod transforms;
mod view;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use runtime::clock::{Clock, Entropy};
use runtime::log::topics::Topics;
use runtime::problem::{self, CONTENT_TYPE_PROBLEM, Problem, ProblemType};
use runtime::secret::Sealer;
use runtime::view::Change;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::input::UrlPolicy;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::applied::Replicas;
use crate::dead::DeadLetters;
use crate::dry_run::DryRuns;
use crate::members::Members;
use crate::metrics::{ControlMetrics, RouteClass};
use crate::redrive::Live;
use crate::replays::Replays;
use crate::store::Store;

pub(crate) use auth::OperatorKey;
pub(crate) use secrets::rewrap;
pub(crate) use test_event::TestEvents;

/// What handlers share. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// The state.
    pub(crate) store: Store,
    /// Who has applied what.
    pub(crate) replicas: Replicas,
    /// The installation's own topics.
    pub(crate) topics: Arc<Topics>,
    /// Sends test events.
    pub(crate) tests: TestEvents,
    /// Reads dead letters.
    pub(crate) dead: DeadLetters,
    /// Tries filters on past events.
    pub(crate) dry_runs: DryRuns,
    /// How redrives are getting on.
    pub(crate) live: Live,
    /// How replays are getting on.
    pub(crate) replays: Replays,
    /// How many members there are.
    pub(crate) members: Members,
    /// Seals secrets.
    pub(crate) sealer: Arc<Sealer>,
    /// The operator's key.
    pub(crate) operator: OperatorKey,
    /// Which URLs endpoints may have.
    pub(crate) urls: Arc<UrlPolicy>,
    /// Time.
    pub(crate) clock: Clock,
    /// Randomness, for ids, keys and secrets.
    pub(crate) entropy: Entropy,
    /// What is counted.
    pub(crate) metrics: ControlMetrics,
}

impl App {
    /// The bits of a new id.
    fn fresh_bits(&self) -> u128 {
        u128::from_be_bytes(self.entropy.uuid_v7(&self.clock))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Anabranch control API",
        description = "Tenants, API keys, endpoints, subscriptions, cohorts, syncs and sources. \
            Every request but the one for this document needs a key. Changes are durable when they are \
            answered. Members of cohorts and runs of syncs are the cohorts service's."
    ),
    components(schemas(view::ProblemView))
)]
struct Base;

/// The routes, with at most `max_body_bytes` in a request.
pub(crate) fn router(app: App, max_body_bytes: usize) -> Router {
    let (routes, document) = described();
    let document: Arc<str> = document.to_json().unwrap_or_default().into();
    routes
        .route(
            DOCUMENT_PATH,
            axum::routing::get(move || serve_document(Arc::clone(&document))),
        )
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

const DOCUMENT_PATH: &str = "/v1/openapi.json";

/// Every route with its description, and the document made of them.
pub(crate) fn described() -> (Router<App>, Document) {
    let (routes, mut document) = OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::read, tenants::patch, tenants::delete))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::delete))
        .routes(routes!(endpoints::create, endpoints::list))
        .routes(routes!(
            endpoints::read,
            endpoints::patch,
            endpoints::delete
        ))
        .routes(routes!(endpoints::pause))
        .routes(routes!(endpoints::resume))
        .routes(routes!(secrets::rotate))
        .routes(routes!(credentials::rotate))
        .routes(routes!(test_event::test))
        .routes(routes!(subscriptions::create, subscriptions::list))
        .routes(routes!(
            subscriptions::read,
            subscriptions::patch,
            subscriptions::delete
        ))
        .routes(routes!(subscriptions::pause))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(webhooks::create))
        .routes(routes!(cohorts::create, cohorts::list))
        .routes(routes!(cohorts::read, cohorts::patch, cohorts::delete))
        .routes(routes!(syncs::create, syncs::list))
        .routes(routes!(syncs::read, syncs::patch, syncs::delete))
        .routes(routes!(syncs::pause))
        .routes(routes!(syncs::resume))
        .routes(routes!(sources::create, sources::list))
        .routes(routes!(sources::read, sources::patch, sources::delete))
        .routes(routes!(dead::list_all))
        .routes(routes!(dead::read_any))
        .routes(routes!(dead::list))
        .routes(routes!(dead::read_one))
        .routes(routes!(redrives::create, redrives::list))
        .routes(routes!(redrives::read))
        .routes(routes!(redrives::cancel))
        .routes(routes!(explain::explain))
        .routes(routes!(explain::dry_run))
        .split_for_parts();
    describe_common(&mut document);
    (routes, document)
}

/// What every operation has: a key is needed, and anything but success is a problem.
fn describe_common(document: &mut Document) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("key", [""; 0])]);
    let schema = Ref::from_schema_name("ProblemView");
    let problem = ResponseBuilder::new()
        .description("A problem (RFC 9457).")
        .content(
            CONTENT_TYPE_PROBLEM,
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), RefOr::T(problem.clone()));
        }
    }
}

async fn serve_document(document: Arc<str>) -> Response {
    ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get()
        .map_or(RouteClass::Other, route_class);
    let response = next.run(request).await;
    app.metrics.answered(route, response.status());
    response
}

fn route_class(path: &MatchedPath) -> RouteClass {
    let noun = |noun| path.as_str().split('/').any(|part| part == noun);
    [
        ("keys", RouteClass::Keys),
        ("endpoints", RouteClass::Endpoints),
        ("subscriptions", RouteClass::Subscriptions),
        ("webhooks", RouteClass::Webhooks),
        ("cohorts", RouteClass::Cohorts),
        ("syncs", RouteClass::Syncs),
        ("sources", RouteClass::Sources),
        ("dead", RouteClass::Dead),
        ("redrives", RouteClass::Redrives),
        ("explain", RouteClass::Explain),
        ("filters", RouteClass::Explain),
        ("tenants", RouteClass::Tenants),
    ]
    .into_iter()
    .find(|(name, _)| noun(*name))
    .map_or(RouteClass::Other, |(_, class)| class)
}

/// A change that stores `object`.
pub(crate) fn put(object: ControlObject) -> Change {
    Change {
        key: object.key(),
        object: Some(object),
    }
}

/// A change that deletes what is under `key`.
fn remove(key: ControlKey) -> Change {
    Change { key, object: None }
}

/// The state of things does not allow it.
fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::Conflict).detail(detail)
}

/// When an object is changed: now, and never a time that it had before.
pub(crate) fn later(now: i64, before: i64) -> i64 {
    now.max(before.saturating_add(1))
}

/// An idempotency key that comes with another body than before (HT-8).
fn other_body() -> Problem {
    Problem::validation([("", "idempotency-key was used with another body before")])
}
