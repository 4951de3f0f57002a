//! Owns how answers are made: pages and their links, and changes with the offset they are at.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, LINK, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use runtime::problem::{Problem, ProblemType};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::App;
use super::request::{Wait, Waiting};
use crate::store::Written;

/// Where in `control` a change is.
const OFFSET: HeaderName = HeaderName::from_static("anabranch-control-offset");
/// Who had not applied a change when `?wait=applied` was over.
const NOT_APPLIED: HeaderName = HeaderName::from_static("anabranch-not-applied");

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Where the page begins: `next` of the page before. Opaque.
    pub(crate) cursor: Option<String>,
    /// How many at most, 1 to 100; 50 where absent.
    #[param(minimum = 1, maximum = 100)]
    pub(crate) limit: Option<usize>,
}

/// A page of objects and where the next begins.
#[derive(Debug)]
pub(crate) struct Page<T> {
    /// The objects.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub(crate) next: Option<String>,
}

impl Paging {
    /// How many objects the page has at most.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if (1..=LIMIT_MAX).contains(&limit) {
            return Ok(limit);
        }
        let detail = format!("query: limit must be from 1 to {LIMIT_MAX}");
        Err(Problem::new(ProblemType::Malformed).detail(detail))
    }

    /// The id behind which the page begins.
    pub(crate) fn after<I: std::str::FromStr>(&self) -> Result<Option<I>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        let wrong =
            || Problem::new(ProblemType::Malformed).detail("query: cursor is not one of ours");
        id.map(Some).ok_or_else(wrong)
    }
}

/// The cursor that [`Paging::after`] reads back as `place`.
pub(crate) fn cursor(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

impl<T> Page<T> {
    /// The first `limit` of `rows`, which may go on.
    pub(crate) fn of<R>(
        rows: impl Iterator<Item = R>,
        limit: usize,
        id: impl Fn(&R) -> String,
        view: impl Fn(&R) -> T,
    ) -> Self {
        let mut rows = rows.peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < limit
            && let Some(row) = rows.next()
        {
            items.push(view(&row));
            last = Some(id(&row));
        }
        let more = rows.peek().is_some();
        Self {
            items,
            next: last.filter(|_| more).map(|id| cursor(&id)),
        }
    }
}

/// The answer with a page shown as `B`: the body, and `Link: <…>; rel="next"` (HT-6).
pub(crate) fn page<B, T>(page: Page<T>, limit: usize) -> Response
where
    B: Serialize + From<Page<T>>,
{
    // Relative: it resolves against the request, whatever stands before us.
    let link = |next: &String| format!("<?limit={limit}&cursor={next}>; rel=\"next\"");
    let link = page.next.as_ref().map(link);
    let mut response = Json(B::from(page)).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// A change's answer: what it made, and whether it made anything.
#[derive(Debug)]
pub(crate) struct Made<T> {
    /// The body.
    pub(crate) body: T,
    /// The new object's path; `None` where a repeat found it made already.
    pub(crate) location: Option<String>,
}

/// 201 with the new object, or 200 with the one that a repeat found.
pub(crate) async fn made<T: Serialize>(
    app: &App,
    waiting: Waiting,
    written: Written<Made<T>>,
) -> Response {
    let Written {
        answer: Made { body, location },
        offset,
    } = written;
    let status = if location.is_some() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = (status, Json(body)).into_response();
    if let Some(location) = location.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    // It may hold a secret that is shown once.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    applied(app, waiting, offset, response).await
}

/// 200 with the changed object.
pub(crate) async fn changed<T: Serialize>(
    app: &App,
    waiting: Waiting,
    written: Written<T>,
) -> Response {
    let mut response = Json(written.answer).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    applied(app, waiting, written.offset, response).await
}

/// 204.
pub(crate) async fn deleted(app: &App, waiting: Waiting, written: Written<()>) -> Response {
    applied(
        app,
        waiting,
        written.offset,
        StatusCode::NO_CONTENT.into_response(),
    )
    .await
}

/// Adds where the change is, and who has not applied it where that was asked for.
async fn applied(app: &App, waiting: Waiting, offset: i64, mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(OFFSET, HeaderValue::from(offset));
    match waiting.wait {
        Some(Wait::Applied) => {
            let missing = app.replicas.missing(offset).await;
            if !missing.is_empty()
                && let Ok(names) = HeaderValue::try_from(missing.join(", "))
            {
                response.headers_mut().insert(NOT_APPLIED, names);
            }
        }
        None => {}
    }
    response
}
