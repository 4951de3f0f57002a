//! Owns the routes that show dead letters.
//!
//! It never shows bytes as anything but text or base 64, and no more than a part of them. The
//! surprise: a page may be empty and have a next one, because what a request may read is bounded,
//! not what it may find.

use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use runtime::problem::{Problem, ProblemType};
use schemas::ids::{EndpointId, RedriveId, TenantId};
use schemas::records::{DeadReason, LastAttempt};
use schemas::resources::{DeadFilter, LetterId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::answer::{self, Page, Paging};
use super::auth::{Principal, not_found};
use super::request::{Params, Segments};
use super::view::{pages, time};
use crate::dead::{Letter, NotRead, Query};

/// The most bytes of a payload, or of a record that cannot be read, that are shown.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// The most that is shown of a text of somebody else's.
const SHOWN_CHARS_MAX: usize = 1_024;

/// Which dead letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Of this endpoint.
    endpoint: Option<String>,
    /// For one of these reasons, with commas between them.
    reason: Option<String>,
    /// Dead at this time (RFC 3339) or later.
    since: Option<String>,
    /// Dead before this time (RFC 3339).
    until: Option<String>,
    /// Where the page begins: `next` of the page before. Opaque.
    cursor: Option<String>,
    /// How many at most, 1 to 100; 50 where absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadView {
    /// Its id.
    id: String,
    /// Why it is dead.
    #[schema(value_type = String)]
    reason: DeadReason,
    /// More words on it.
    detail: Option<String>,
    /// RFC 3339.
    at: String,
    /// Its tenant, where known.
    tenant: Option<String>,
    /// Its endpoint, where known.
    endpoint: Option<String>,
    /// Its subscription, where known.
    subscription: Option<String>,
    /// The delivery's id (`webhook-id`), where known.
    delivery: Option<String>,
    /// Attempts that counted.
    attempts: u32,
    /// The last attempt, where there was one.
    #[schema(value_type = Option<Object>)]
    last_attempt: Option<LastAttempt>,
    /// The redrive that had sent it, where one had.
    redrive: Option<String>,
    /// The topic, partition, offset and index of the record that it came from.
    #[schema(value_type = Vec<Object>)]
    origin: (String, u32, i64, u32),
    /// The last offset of a lost range.
    through: Option<i64>,
    /// What the letter holds: `delivery`, `bytes` (they cannot be read) or `reference` (it is with
    /// its origin).
    holds: Holds,
    /// The event's attributes, where the letter holds a delivery.
    #[schema(value_type = Option<Object>)]
    event: Option<Map<String, Value>>,
    /// The beginning of the payload, where one letter is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content: Option<ContentView>,
}

/// What a letter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Holds {
    Delivery,
    Bytes,
    Reference,
}

/// A payload, or a record that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
struct ContentView {
    /// How many bytes there are.
    bytes: usize,
    /// Whether more follow.
    cut: bool,
    /// What is shown of them as text, where they are.
    text: Option<String>,
    /// Else in base 64.
    base64: Option<String>,
}

pages! {
    /// A page of dead letters, those of one endpoint from the oldest on. It may be empty and have a
    /// next one.
    pub(super) DeadPage of DeadView;
}

impl ContentView {
    fn of(bytes: &[u8]) -> Self {
        let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
        let cut = shown.len() < bytes.len();
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // The end may be within a character.
            Err(error) if cut && error.error_len().is_none() => {
                let whole = shown.get(..error.valid_up_to()).unwrap_or_default();
                std::str::from_utf8(whole).ok()
            }
            Err(_) => None,
        };
        Self {
            bytes: bytes.len(),
            cut,
            base64: text.is_none().then(|| STANDARD.encode(shown)),
            text: text.map(str::to_owned),
        }
    }
}

impl DeadView {
    fn of(found: &Letter) -> Self {
        let letter = &found.letter;
        let event = found.delivery.as_ref().map(|delivery| {
            let attributes = delivery.headers().into_iter();
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            attributes
                .map(|(name, value)| {
                    let name = name.strip_prefix("ce_").unwrap_or(&name).to_owned();
                    (name, Value::String(text(value.as_ref())))
                })
                .collect()
        });
        Self {
            id: found.id.to_string(),
            reason: letter.reason,
            detail: letter.detail.as_deref().map(cut),
            at: time(letter.at),
            tenant: letter.tenant.as_ref().map(ToString::to_string),
            endpoint: letter.endpoint.map(|id| id.to_string()),
            subscription: letter.subscription.map(|id| id.to_string()),
            delivery: letter.delivery.map(|id| id.to_string()),
            attempts: letter.attempts,
            last_attempt: letter.last_attempt.clone(),
            redrive: letter
                .bulk
                .map(|bulk| RedriveId::from_bits(bulk).to_string()),
            origin: letter.origin.clone(),
            through: letter.through,
            holds: match (&found.delivery, &found.stored.value) {
                (Some(_), _) => Holds::Delivery,
                (None, Some(_)) => Holds::Bytes,
                (None, None) => Holds::Reference,
            },
            event,
            content: None,
        }
    }

    fn with_content(self, found: &Letter) -> Self {
        let bytes = match (&found.delivery, &found.stored.value) {
            (Some(delivery), _) => delivery.event.data(),
            (None, value) => value.as_ref(),
        };
        Self {
            content: bytes.map(|bytes| ContentView::of(bytes)),
            ..self
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Which {
    /// What is asked for, of whom the key may see.
    fn query(self, tenant: Option<TenantId>, own: Option<EndpointId>) -> Result<Query, Problem> {
        let asked = self.endpoint.map(|id| read("endpoint", &id)).transpose()?;
        let endpoint = endpoint_for(own, asked)?;
        let reasons = self.reason.iter().flat_map(|all| all.split(','));
        let paging = Paging {
            cursor: self.cursor,
            limit: self.limit,
        };
        Ok(Query {
            tenant,
            filter: DeadFilter {
                endpoint,
                reasons: reasons
                    .map(|word| reason(word).ok_or_else(|| malformed("reason", "is not one")))
                    .collect::<Result<_, _>>()?,
                since: self.since.map(|at| instant("since", &at)).transpose()?,
                until: self.until.map(|at| instant("until", &at)).transpose()?,
                letters: Vec::new(),
            },
            after: paging.after()?,
            limit: paging.limit()?,
        })
    }
}

/// The endpoint that is asked for, by somebody who may see only `own`.
pub(super) fn endpoint_for(
    own: Option<EndpointId>,
    asked: Option<EndpointId>,
) -> Result<Option<EndpointId>, Problem> {
    match (own, asked) {
        (Some(own), Some(asked)) if own != asked => Err(Problem::new(ProblemType::Forbidden)),
        (own, asked) => Ok(own.or(asked)),
    }
}

/// The reason of this name.
pub(super) fn reason(word: &str) -> Option<DeadReason> {
    let mut all = DeadReason::ALL.into_iter();
    all.find(|reason| reason.as_str() == word)
}

fn read<T: FromStr>(name: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| malformed(name, &error.to_string()))
}

fn instant(name: &str, text: &str) -> Result<i64, Problem> {
    read::<Timestamp>(name, text).map(Timestamp::as_millisecond)
}

fn malformed(name: &str, why: &str) -> Problem {
    Problem::new(ProblemType::Malformed).detail(format!("query: {name} {why}"))
}

fn unread(error: &NotRead) -> Problem {
    tracing::warn!(%error, "dead letters were not read");
    Problem::new(ProblemType::Unavailable)
        .detail(error.to_string())
        .retry_after(Duration::from_secs(1))
}

async fn page(app: &App, query: Query) -> Result<Response, Problem> {
    let read = app.dead.page(&query).await;
    let (found, next) = read.map_err(|error| unread(&error))?;
    let page = Page {
        items: found.iter().map(DeadView::of).collect(),
        next: next.map(|place| answer::cursor(&place.to_string())),
    };
    Ok(answer::page::<DeadPage, _>(page, query.limit))
}

async fn one(app: &App, letter: &str) -> Result<Letter, Problem> {
    let id: LetterId = letter.parse().map_err(|_| not_found("dead letter"))?;
    let read = app.dead.one(id).await.map_err(|error| unread(&error))?;
    read.ok_or_else(|| not_found("dead letter"))
}

/// Lists everybody's dead letters, and those that are nobody's: records that could not be read.
#[utoipa::path(get, path = "/v1/dead", operation_id = "list_all_dead", tag = "dead letters",
    params(Which), responses((status = 200, body = DeadPage, description = "A page.")))]
pub(super) async fn list_all(
    State(app): State<App>,
    principal: Principal,
    Params(which): Params<Which>,
) -> Result<Response, Problem> {
    principal.operator()?;
    page(&app, which.query(None, None)?).await
}

/// Reads one dead letter, whoever's it is.
#[utoipa::path(get, path = "/v1/dead/{letter}", operation_id = "read_any_dead",
    tag = "dead letters",
    params(("letter" = String, Path, description = "The letter's id.")),
    responses((status = 200, body = DeadView, description = "The letter.")))]
pub(super) async fn read_any(
    State(app): State<App>,
    principal: Principal,
    Segments(letter): Segments<String>,
) -> Result<Json<DeadView>, Problem> {
    principal.operator()?;
    let found = one(&app, &letter).await?;
    Ok(Json(DeadView::of(&found).with_content(&found)))
}

/// Lists a tenant's dead letters; with an endpoint's key those of the endpoint.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/dead", operation_id = "list_dead",
    tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."), Which),
    responses((status = 200, body = DeadPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(which): Params<Which>,
) -> Result<Response, Problem> {
    let (tenant, own) = principal.reach(&tenant)?;
    page(&app, which.query(Some(tenant), own)?).await
}

/// Reads a dead letter with the beginning of its payload.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/dead/{letter}", operation_id = "read_dead",
    tag = "dead letters",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("letter" = String, Path, description = "The letter's id.")),
    responses((status = 200, body = DeadView, description = "The letter.")))]
pub(super) async fn read_one(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, letter)): Segments<(String, String)>,
) -> Result<Json<DeadView>, Problem> {
    let (tenant, own) = principal.reach(&tenant)?;
    let found = one(&app, &letter).await?;
    let is_own = found.letter.tenant.as_ref() == Some(&tenant)
        && own.is_none_or(|own| found.letter.endpoint == Some(own));
    if !is_own {
        return Err(not_found("dead letter"));
    }
    Ok(Json(DeadView::of(&found).with_content(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_or_in_base_64_and_cut() {
        let check = |bytes: &[u8], text: Option<&str>, base64: Option<&str>| {
            let view = ContentView::of(bytes);
            assert_eq!(
                (view.text.as_deref(), view.base64.as_deref()),
                (text, base64)
            );
            assert_eq!((view.bytes, view.cut), (bytes.len(), false));
        };
        check(b"", Some(""), None);
        check("ä\u{1b}".as_bytes(), Some("ä\u{1b}"), None);
        check(&[0xff, 0xfe], None, Some("//4="));
        let long = format!("{}ä", "x".repeat(SHOWN_BYTES_MAX - 1));
        let view = ContentView::of(long.as_bytes());
        assert_eq!(view.text.map(|text| text.len()), Some(SHOWN_BYTES_MAX - 1));
        assert!(view.cut);
    }
}
