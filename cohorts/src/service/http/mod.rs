//! Owns the routes of cohorts and syncs: what is uploaded, what is asked, what is shown.
//!
//! Never changes a run by itself: it leaves a request in the store, which the sync's owner takes
//! up. The surprise: an answer of 202 says that the request will be taken up, by whatever process
//! owns the sync then.

mod cohorts;
mod source;
mod syncs;

use std::io::ErrorKind;
use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use runtime::auth::not_found;
use runtime::clock::{Clock, Entropy};
use runtime::problem::{self, Problem, ProblemType};
use schemas::ids::{CohortId, SyncId, TenantId};
use schemas::resources::Sync;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use super::auth::Auth;
use super::{Directory, Options, Telemetry};
use crate::sync::{Ask, Live, Means, Request, Requests, Teller, identity, roster_folder};
use crate::{Cohort, Error, Roster, Store};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    auth: Auth,
    directory: Arc<Directory>,
    root: Store,
    requests: Requests,
    nudge: Arc<Notify>,
    clock: Clock,
    entropy: Entropy,
    live: Live,
    teller: Teller,
    telemetry: Telemetry,
    uploads: Arc<Semaphore>,
    options: Options,
}

/// The routes.
pub(crate) fn router(app: App) -> Router {
    let max_body = app.options.max_body_bytes;
    let tenant = Router::new()
        .route(
            "/cohorts/{cohort}/snapshots",
            get(cohorts::snapshots)
                .post(cohorts::upload)
                .layer(DefaultBodyLimit::disable()),
        )
        .route(
            "/cohorts/{cohort}/snapshots/{snapshot}/rejects",
            get(cohorts::rejects),
        )
        .route("/cohorts/{cohort}/members", patch(cohorts::change))
        .route("/syncs/{sync}", get(syncs::status))
        .route("/syncs/{sync}/plan", get(syncs::plan))
        .route("/syncs/{sync}/runs", post(syncs::run))
        .route("/syncs/{sync}/cancel", post(syncs::cancel))
        .route("/syncs/{sync}/report", get(syncs::report))
        .layer(DefaultBodyLimit::max(max_body));
    Router::new()
        .nest("/v1/tenants/{tenant}", tenant)
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Arc::new(app))
}

impl App {
    pub(crate) fn new(
        options: &Options,
        means: &Means,
        entropy: Entropy,
        nudge: Arc<Notify>,
    ) -> Self {
        let directory = Arc::clone(&means.directory);
        Self {
            auth: Auth::new(Arc::clone(&directory), options.operator_key.as_ref()),
            directory,
            root: means.root.clone(),
            requests: Requests::new(&means.root),
            nudge,
            clock: means.clock.clone(),
            entropy,
            live: means.live.clone(),
            teller: means.teller.clone(),
            telemetry: means.telemetry.clone(),
            uploads: Arc::new(Semaphore::new(options.uploads_max)),
            options: options.clone(),
        }
    }

    /// What runs in this process.
    #[cfg(test)]
    pub(crate) fn live(&self) -> Live {
        self.live.clone()
    }

    /// The members of the tenant's cohort of that id, and the id.
    fn cohort(
        &self,
        headers: &HeaderMap,
        (tenant, cohort): (&str, &str),
    ) -> Result<(CohortId, Cohort), Problem> {
        let tenant = self.auth.authorize(headers, tenant)?;
        let id = cohort.parse::<CohortId>().ok();
        let found = id.and_then(|id| self.directory.cohort(id));
        let found = found.filter(|cohort| cohort.tenant == tenant);
        let found = found.ok_or_else(|| not_found("cohort"))?;
        let members = Cohort::new(&self.root, tenant.as_str(), &found.id.to_string());
        Ok((found.id, members))
    }

    /// The tenant's sync of that id.
    fn sync(
        &self,
        headers: &HeaderMap,
        (tenant, sync): (&str, &str),
    ) -> Result<Arc<Sync>, Problem> {
        let tenant: TenantId = self.auth.authorize(headers, tenant)?;
        let id = sync.parse::<SyncId>().ok();
        let found = id.and_then(|id| self.directory.sync(id));
        let found = found.filter(|sync| sync.tenant == tenant);
        found.ok_or_else(|| not_found("sync"))
    }

    /// Leaves requests for the owners of syncs, of which this process may be one.
    async fn leave(&self, asked: Vec<(SyncId, Ask)>) -> Result<Vec<String>, Problem> {
        let made: Vec<Request> = asked
            .into_iter()
            .map(|(sync, ask)| Request::new(sync, ask, (&self.clock, &self.entropy)))
            .collect();
        let ids = made.iter().map(|request| request.id.clone()).collect();
        let requests = self.requests.clone();
        blocking(move || made.iter().try_for_each(|request| requests.leave(request))).await?;
        self.nudge.notify_one();
        Ok(ids)
    }

    /// Tells the syncs of a cohort that it has changed.
    async fn tell(&self, cohort: CohortId) -> Result<(), Problem> {
        let syncs = self.directory.syncs_of(cohort);
        let asked = syncs.iter().map(|sync| (sync.id, Ask::Look)).collect();
        self.leave(asked).await.map(drop)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.clock.now()).unwrap_or_default()
    }
}

/// The newest generation of a sync's roster. Blocks.
fn roster(root: &Store, sync: &Sync) -> Result<Roster, Error> {
    Roster::open(roster_folder(root, sync.id), &identity(sync))
}

/// Runs blocking work and words its error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(worked) => worked.map_err(|error| problem_of(&error)),
        Err(error) => Err(problem_of(&Error::Worker(error.to_string()))),
    }
}

/// What a client is told of an error: everything of its own input, nothing of our store.
fn problem_of(error: &Error) -> Problem {
    match error {
        Error::Input(_) | Error::TooManyRejects { .. } => {
            Problem::new(ProblemType::Validation).detail(error.to_string())
        }
        Error::Limit { .. } => Problem::new(ProblemType::TooLarge).detail(error.to_string()),
        Error::Missing(_) => not_found("snapshot"),
        Error::Reading(_) => Problem::new(ProblemType::Malformed).detail("the body broke off"),
        Error::Conflict(_) => {
            Problem::new(ProblemType::Conflict).detail("it was changed at the same moment")
        }
        Error::Scratch { source, .. } if source.kind() == ErrorKind::StorageFull => {
            warn!(error = %runtime::task::chain(error), "no room to sort an upload");
            let problem = Problem::new(ProblemType::Unavailable);
            problem.detail("the disk that uploads are sorted on is full; nothing was changed")
        }
        Error::Scratch { .. } | Error::Store { .. } | Error::Stopped => {
            warn!(error = %runtime::task::chain(error), "store of cohorts failed");
            Problem::new(ProblemType::Unavailable).detail("the store failed; try again")
        }
        Error::Damaged { .. } | Error::Worker(_) => {
            warn!(%error, "store of cohorts is not as it should be");
            Problem::new(ProblemType::Internal)
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    (status, axum::Json(body)).into_response()
}
