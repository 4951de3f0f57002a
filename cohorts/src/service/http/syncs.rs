//! Owns what is asked of a sync and shown of it: plan, run, cancel, status, report.

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, StatusCode};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use runtime::problem::{Problem, ProblemType};
use schemas::resources::{Schedule, Sync, SyncState, least_seconds};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::warn;

use super::{App, blocking, json, roster};
use crate::sync::{Ask, Note, Status, limits, needs_approval};
use crate::{Cohort, Counts, Decision, Diff, Error, Operation, Roster, Scope, View};

/// Bytes of a report that are handed over at once.
const REPORT_BYTES: usize = 64 << 10;
/// Such pieces that wait for a slow client.
const REPORT_PIECES: usize = 4;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Plan {
    #[serde(flatten)]
    counts: Counts,
    /// Members that the partner holds and that would be removed, in per cent.
    removed_percent: f64,
    /// Whether it would wait for approval of its removals.
    needs_approval: bool,
    requests: u64,
    /// At least so long, at the endpoint's limits.
    seconds: u64,
    /// Between two runs of the schedule at least; none without a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_seconds: Option<u64>,
    /// Whether the one fits in the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    fits_schedule: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
}

/// A schedule to plan for in place of the sync's own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    cron: Option<String>,
    time_zone: Option<String>,
}

pub(super) async fn plan(
    State(app): State<Arc<App>>,
    Path((tenant, sync)): Path<(String, String)>,
    query: Result<Query<PlanQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sync = app.sync(&headers, (&tenant, &sync))?;
    let Query(query) =
        query.map_err(|error| Problem::new(ProblemType::Malformed).detail(error.body_text()))?;
    let schedule = match query.cron {
        None => sync.schedule.clone(),
        Some(cron) => {
            let zone = query.time_zone.as_deref().unwrap_or("UTC");
            let schedule = Schedule::new(&cron, zone);
            Some(schedule.map_err(|error| {
                Problem::validation([(format!("?{}", error.member()), error.to_string())])
            })?)
        }
    };
    let own = Arc::clone(&app);
    let plan = blocking(move || make_plan(&own, &sync, schedule.as_ref())).await?;
    Ok(json(StatusCode::OK, &plan))
}

fn make_plan(app: &App, sync: &Sync, schedule: Option<&Schedule>) -> Result<Plan, Error> {
    let cohort = cohort_of(app, sync);
    let view = cohort.view()?;
    let roster = roster(&app.root, sync)?;
    let is_late = !Note::read(roster.note())?.late.is_empty();
    let diff = Diff::new(cohort.members(&view), &roster, Scope::Whole);
    let counts = diff.holding_back(is_late).plan()?;
    let limits = limits(sync);
    let requests = Operation::ALL.into_iter().map(|operation| {
        let items = u64::try_from(limits.items(operation)).unwrap_or(u64::MAX);
        counts.of(operation).div_ceil(items)
    });
    let requests = requests.sum();
    let facts = app.directory.endpoint(sync.endpoint);
    let windows = facts.map(|facts| facts.windows).unwrap_or_default();
    let sent = counts.add + counts.update + counts.remove;
    let seconds = least_seconds(&windows, (requests, sent));
    let now = app.clock.now();
    let gap = schedule.and_then(|schedule| schedule.shortest_gap(now));
    let interval = gap.map(|gap| u64::try_from(gap / 1_000).unwrap_or(0));
    Ok(Plan {
        counts,
        removed_percent: counts.removed_percent(),
        needs_approval: needs_approval(sync, &counts),
        requests,
        seconds,
        interval_seconds: interval,
        fits_schedule: interval.map(|interval| seconds <= interval),
        snapshot: view.snapshot.map(|snapshot| snapshot.id),
    })
}

fn cohort_of(app: &App, sync: &Sync) -> Cohort {
    Cohort::new(&app.root, sync.tenant.as_str(), &sync.cohort.to_string())
}

/// What is said with a request for a run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunBody {
    #[serde(default)]
    approve_removals: bool,
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path((tenant, sync)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let sync = app.sync(&headers, (&tenant, &sync))?;
    let body: RunBody = if body.is_empty() {
        RunBody::default()
    } else {
        let read = serde_json::from_slice(&body);
        read.map_err(|error| Problem::new(ProblemType::Malformed).detail(error.to_string()))?
    };
    if sync.state == SyncState::Paused {
        let problem = Problem::new(ProblemType::Conflict);
        return Err(problem.detail("the sync is paused: resume it first"));
    }
    let ask = Ask::Run {
        approve_removals: body.approve_removals,
    };
    asked(&app, &sync, ask).await
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path((tenant, sync)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sync = app.sync(&headers, (&tenant, &sync))?;
    asked(&app, &sync, Ask::Cancel).await
}

async fn asked(app: &App, sync: &Sync, ask: Ask) -> Result<Response, Problem> {
    let ids = app.leave(vec![(sync.id, ask)]).await?;
    let body = json!({ "sync": sync.id, "request": ids.first() });
    Ok(json(StatusCode::ACCEPTED, &body))
}

/// The status, and the requests that the owner has dealt with of late.
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Path((tenant, sync)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sync = app.sync(&headers, (&tenant, &sync))?;
    let own = Arc::clone(&app);
    let id = sync.id;
    let is_paused = sync.state == SyncState::Paused;
    let note = blocking(move || Note::read(roster(&own.root, &sync)?.note())).await?;
    let status = app
        .live
        .get(id)
        .unwrap_or_else(|| Status::stored(&note, is_paused, app.clock.now()));
    let mut body = serde_json::to_value(&status).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.insert("sync".to_owned(), json!(id));
        body.insert("requests_handled".to_owned(), json!(note.handled));
        body.insert("list".to_owned(), json!(note.list));
    }
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    Path((tenant, sync)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sync = app.sync(&headers, (&tenant, &sync))?;
    let own = Arc::clone(&app);
    let (cohort, view, roster) = blocking(move || {
        let cohort = cohort_of(&own, &sync);
        let view = cohort.view()?;
        Ok((cohort, view, roster(&own.root, &sync)?))
    })
    .await?;
    let (pieces, receiver) = mpsc::channel(REPORT_PIECES);
    // It ends with its work, or when the client is gone.
    drop(tokio::task::spawn_blocking(move || {
        if let Err(error) = write_report(&cohort, &view, &roster, &pieces) {
            warn!(%error, "report of a sync broke off");
            drop(pieces.blocking_send(Err(std::io::Error::other("the store failed"))));
        }
    }));
    let body = Body::from_stream(stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    }));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// One member that is not confirmed.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a str,
    state: &'static str,
    operation: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    code: &'a str,
}

type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

fn write_report(
    cohort: &Cohort,
    view: &View,
    roster: &Roster,
    pieces: &Pieces,
) -> Result<(), Error> {
    let mut diff = Diff::new(cohort.members(view), roster, Scope::Whole);
    let mut out = Vec::with_capacity(REPORT_BYTES);
    while let Some(row) = diff.next_row()? {
        let Some(line) = line(&row) else { continue };
        serde_json::to_writer(&mut out, &line)
            .map_err(|error| Error::damaged("report", error.to_string()))?;
        out.push(b'\n');
        if out.len() >= REPORT_BYTES - 2_048 {
            let full = std::mem::replace(&mut out, Vec::with_capacity(REPORT_BYTES));
            if pieces.blocking_send(Ok(Bytes::from(full))).is_err() {
                return Ok(());
            }
        }
    }
    // Whether the client is still there does not matter at the end.
    drop(pieces.blocking_send(Ok(Bytes::from(out))));
    Ok(())
}

fn line<'a>(row: &crate::Row<'a>) -> Option<Line<'a>> {
    use crate::Standing;
    let operation = match row.decision {
        Decision::Keep | Decision::Absent | Decision::HeldBack => return None,
        Decision::Send(operation) => operation.name(),
        Decision::RefusedRemoval => "remove",
        Decision::Refused => "add",
    };
    let (state, code) = match row.item.map(|item| (item.standing, item.code)) {
        None | Some((Standing::Confirmed, _)) => ("pending", ""),
        Some((Standing::Unknown, code)) => ("unknown", code),
        Some((Standing::Rejected { again: true }, code)) => ("retry", code),
        Some((Standing::Rejected { again: false }, code)) => ("rejected", code),
    };
    Some(Line {
        id: row.id,
        state,
        operation,
        code,
    })
}
