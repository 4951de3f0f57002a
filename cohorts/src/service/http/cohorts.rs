//! Owns uploads of snapshots, changes between them, and lists of what there is.

use std::io;
use std::sync::Arc;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ::http::{HeaderMap, StatusCode};
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures_util::TryStreamExt;
use runtime::problem::{Problem, ProblemType};
use schemas::ids::CohortId;
use schemas::records::MemberCountKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::io::StreamReader;
use tracing::warn;

use super::{App, blocking, json, problem_of, roster};
use crate::service::telemetry::UploadResult;
use crate::sync::{Note, RunNote};
use crate::{
    Changes, Cohort, Compression, Error, Format, NewSnapshot, Progress, ReadOptions, Snapshot,
    UploadOptions, Uploaded, View,
};

/// After so many deltas it is looked whether they are to be folded.
const FOLD_EVERY: u64 = 16;

/// How an upload is to be read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    format: Option<String>,
    id_field: Option<String>,
    delimiter: Option<String>,
    rejects_max_percent: Option<f64>,
    /// What the service reads by itself, in place of a body.
    from: Option<String>,
}

/// A snapshot as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    created: jiff::Timestamp,
    members: u64,
    rows: u64,
    duplicates: u64,
    rejected: u64,
    bytes: u64,
}

impl From<&Snapshot> for Shown {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.clone(),
            created: snapshot.created,
            members: snapshot.members,
            rows: snapshot.rows,
            duplicates: snapshot.duplicates,
            rejected: snapshot.rejected,
            bytes: snapshot.run.bytes(),
        }
    }
}

pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Path((tenant, cohort)): Path<(String, String)>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, members) = app.cohort(&headers, (&tenant, &cohort))?;
    let Query(query) = query.map_err(|error| malformed(error.body_text()))?;
    let options = UploadOptions {
        read: read_options(&headers, &query)?,
        sort: app.options.sort.clone(),
    };
    let busy = || {
        let problem = Problem::new(ProblemType::Unavailable).detail("too many uploads at once");
        problem.retry_after(std::time::Duration::from_secs(5))
    };
    let slot = Arc::clone(&app.uploads)
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let now = app.clock.now().max(0);
    let new = NewSnapshot {
        id: format!("snap_{now:013x}{:08x}", app.entropy.u64() >> 32),
        created: app.now(),
    };
    let uploaded = match query.from {
        Some(_) if !app.auth.is_operator(&headers) => {
            let problem = Problem::new(ProblemType::Forbidden);
            return Err(problem.detail("only the operator may have the service read by itself"));
        }
        Some(place) => read_from(place, members.clone(), (new, options)).await,
        None => {
            let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
            let progress = Arc::new(Progress::default());
            members.upload(new, reader, options, progress).await
        }
    };
    drop(slot);
    let result = match &uploaded {
        Ok(_) => UploadResult::Taken,
        Err(error) if error.is_inputs_fault() => UploadResult::Refused,
        Err(_) => UploadResult::Failed,
    };
    app.telemetry.uploads.get(result).inc();
    let uploaded = uploaded.map_err(|error| refused(&error))?;
    tell_count(&app, id, &members).await;
    keep_newest(&app, id, members).await;
    app.tell(id).await?;
    let body = json!({
        "snapshot": Shown::from(&uploaded.snapshot),
        "rejects": uploaded.rejects,
    });
    Ok(json(StatusCode::CREATED, &body))
}

async fn read_from(
    place: String,
    members: Cohort,
    (new, options): (NewSnapshot, UploadOptions),
) -> Result<Uploaded, Error> {
    let handle = tokio::runtime::Handle::current();
    let work = move || {
        let mut reader = super::source::open(&place, handle)?;
        members.make(&new, &mut reader, &options, &Progress::default())
    };
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|error| Error::Worker(error.to_string()))?
}

/// What runs of a cohort's syncs need of it. Blocks.
fn pinned(app: &App, id: CohortId) -> Result<Vec<View>, Error> {
    let mut pinned = Vec::new();
    for sync in app.directory.syncs_of(id) {
        let note = Note::read(roster(&app.root, &sync)?.note())?;
        pinned.extend(note.run.into_iter().flat_map(RunNote::views));
    }
    Ok(pinned)
}

/// Folds a cohort's deltas, where they are many, beside all requests; what fails now is done after
/// later deltas.
fn fold(app: &Arc<App>, id: CohortId, members: Cohort) {
    // It sorts as much as an upload does, and so waits for its place.
    let Ok(slot) = Arc::clone(&app.uploads).try_acquire_owned() else {
        return;
    };
    let (own, now) = (Arc::clone(app), app.now());
    drop(tokio::task::spawn_blocking(move || {
        let folded = members.fold(now).and_then(|is_folded| {
            if is_folded {
                members.retire(now, &pinned(&own, id)?)?;
            }
            Ok(())
        });
        if let Err(error) = folded {
            warn!(cohort = %id, error = %runtime::task::chain(&error), "deltas were not folded");
        }
        drop(slot);
    }));
}

/// Removes snapshots that are kept no longer; what fails now is done after the next upload.
async fn keep_newest(app: &Arc<App>, id: CohortId, members: Cohort) {
    let (own, now) = (Arc::clone(app), app.now());
    let work = move || {
        let pinned = pinned(&own, id)?;
        members.retire(now, &pinned)?;
        members.retain(own.options.snapshots_kept, &pinned)?;
        members.sweep(now).map(drop)
    };
    // The upload itself is done; the error is logged where it is worded.
    drop(blocking(work).await);
}

/// Says how many members a cohort has, where its newest snapshot is all of it.
async fn tell_count(app: &App, id: CohortId, members: &Cohort) {
    let own = members.clone();
    let Ok(view) = blocking(move || own.view()).await else {
        return;
    };
    let whole = view.snapshot.filter(|_| view.deltas.is_empty());
    let count = whole.map(|snapshot| snapshot.members);
    app.teller.tell(MemberCountKey::Cohort(id), count);
}

fn refused(error: &Error) -> Problem {
    let problem = problem_of(error);
    if let Error::TooManyRejects { rejects, .. } = error {
        let rejects = serde_json::to_value(rejects).unwrap_or_default();
        return problem.member("rejects", rejects);
    }
    problem
}

fn read_options(headers: &HeaderMap, query: &UploadQuery) -> Result<ReadOptions, Problem> {
    let invalid = |name: &str, why: String| Problem::validation([(format!("?{name}"), why)]);
    let mut options = ReadOptions {
        format: format_of(headers),
        compression: compression_of(headers)?,
        ..ReadOptions::default()
    };
    if let Some(format) = &query.format {
        let parsed = format.parse().map_err(|why| invalid("format", why))?;
        options.format = Some(parsed);
    }
    if let Some(field) = &query.id_field {
        options.id_field.clone_from(field);
    }
    if let Some(delimiter) = &query.delimiter {
        let &[byte] = delimiter.as_bytes() else {
            return Err(invalid(
                "delimiter",
                "must be one ASCII character".to_owned(),
            ));
        };
        options.delimiter = byte;
    }
    if let Some(percent) = query.rejects_max_percent {
        if !(0.0..=100.0).contains(&percent) {
            let why = "must be from 0 to 100".to_owned();
            return Err(invalid("rejects_max_percent", why));
        }
        options.rejects_max_percent = percent;
    }
    Ok(options)
}

/// What a content type says; anything else is found out from the first bytes.
fn format_of(headers: &HeaderMap) -> Option<Format> {
    let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    match media.split(';').next().unwrap_or_default().trim() {
        "application/x-ndjson" | "application/jsonl" | "application/ndjson" => Some(Format::Ndjson),
        "text/csv" => Some(Format::Csv),
        "application/vnd.apache.parquet" | "application/x-parquet" => Some(Format::Parquet),
        _ => None,
    }
}

fn compression_of(headers: &HeaderMap) -> Result<Option<Compression>, Problem> {
    let Some(coding) = headers.get(CONTENT_ENCODING) else {
        return Ok(None);
    };
    match coding.to_str().unwrap_or_default() {
        "gzip" => Ok(Some(Compression::Gzip)),
        "zstd" => Ok(Some(Compression::Zstd)),
        "identity" => Ok(Some(Compression::Plain)),
        _ => {
            let problem = Problem::new(ProblemType::UnsupportedMediaType);
            Err(problem.detail("content-encoding must be gzip, zstd or identity"))
        }
    }
}

pub(super) async fn snapshots(
    State(app): State<Arc<App>>,
    Path((tenant, cohort)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, members) = app.cohort(&headers, (&tenant, &cohort))?;
    let listing = blocking(move || members.snapshots()).await?;
    let snapshots: Vec<Shown> = listing.snapshots.iter().map(Shown::from).collect();
    let body = json!({ "snapshots": snapshots, "damaged": listing.damaged.len() });
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn rejects(
    State(app): State<Arc<App>>,
    Path((tenant, cohort, snapshot)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, members) = app.cohort(&headers, (&tenant, &cohort))?;
    let rejects = blocking(move || members.rejects(&snapshot)).await?;
    Ok(json(StatusCode::OK, &rejects))
}

/// Changes of a cohort's members.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody<'a> {
    #[serde(default, borrow)]
    add: Vec<&'a RawValue>,
    #[serde(default)]
    remove: Vec<String>,
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    Path((tenant, cohort)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (id, members) = app.cohort(&headers, (&tenant, &cohort))?;
    let body = body.map_err(|error| {
        let limit = app.options.max_body_bytes;
        let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ProblemType::TooLarge
        } else {
            ProblemType::Malformed
        };
        Problem::new(kind).detail(format!("a body of at most {limit} bytes is taken"))
    })?;
    let changes = changes(&body)?;
    if changes.is_empty() {
        return Err(Problem::validation([("", "nobody is added or removed")]));
    }
    let (count, now) = (changes.len(), app.now());
    let to = members.clone();
    let delta = blocking(move || to.add_delta(changes, now)).await?;
    app.teller.tell(MemberCountKey::Cohort(id), None);
    app.tell(id).await?;
    if delta.last.is_multiple_of(FOLD_EVERY) {
        fold(&app, id, members);
    }
    let body = json!({ "delta": delta.last, "members": count });
    Ok(json(StatusCode::OK, &body))
}

fn changes(body: &[u8]) -> Result<Changes, Problem> {
    let body: ChangeBody<'_> =
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let mut changes = Changes::default();
    let worded = |pointer: String| {
        move |error: Error| {
            if let Error::Input(why) = error {
                return Problem::validation([(pointer, why)]);
            }
            problem_of(&error)
        }
    };
    for (index, row) in body.add.iter().enumerate() {
        let added = changes.add(row.get().as_bytes());
        added.map_err(worded(format!("/add/{index}")))?;
    }
    for (index, id) in body.remove.iter().enumerate() {
        let removed = changes.remove(id);
        removed.map_err(worded(format!("/remove/{index}")))?;
    }
    Ok(changes)
}

fn malformed(why: String) -> Problem {
    Problem::new(ProblemType::Malformed).detail(why)
}
