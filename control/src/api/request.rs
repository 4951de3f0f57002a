//! Owns the reading of requests: JSON bodies, paths, queries, idempotency keys; and what is said
//! where they cannot be read.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use runtime::problem::{Problem, ProblemType};
use schemas::resources::input::Faults;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::App;

/// The longest idempotency key.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// A JSON body. An empty one is an empty object, so that an action needs none.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let JsonText(bytes) = JsonText::from_request(request, app).await?;
        if bytes.is_empty() {
            return Ok(Self(Value::Object(Map::new())));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| not_json(&error))?;
        Ok(Self(value))
    }
}

/// A body that says it is JSON, as it came: for members whose numbers must stay as they are.
#[derive(Debug)]
pub(crate) struct JsonText(pub(crate) Bytes);

impl FromRequest<App> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, app)
            .await
            .map_err(|rejection| unread(&rejection))?;
        if !is_json && !bytes.is_empty() {
            return Err(Problem::new(ProblemType::UnsupportedMediaType)
                .detail("send `application/json` or `application/merge-patch+json`"));
        }
        Ok(Self(bytes))
    }
}

/// The answer to a body that cannot be read.
pub(crate) fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(ProblemType::Malformed).detail(format!("body is not json: {error}"))
}

fn unread(rejection: &BytesRejection) -> Problem {
    if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(ProblemType::TooLarge).detail("the body is larger than this service takes")
    } else {
        Problem::new(ProblemType::Malformed).detail("the body did not arrive whole")
    }
}

/// Without a content type it is taken for JSON: there is nothing else that it could be.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let essence = content_type
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The parameters in the path.
#[derive(Debug)]
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            // Not UTF-8: no id is.
            Err(_) => Err(Problem::new(ProblemType::NotFound).detail("there is no such path")),
        }
    }
}

/// The parameters in the query.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let detail = format!("query: {}", rejection.body_text());
                Err(Problem::new(ProblemType::Malformed).detail(detail))
            }
        }
    }
}

/// What a change can be asked to wait for.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Waiting {
    /// `applied`: answer when every router and dispatcher has applied the change, at most 10 s
    /// later. Who has not is named in `Anabranch-Not-Applied`. One that has not reported for a
    /// session (10 s by default) is neither waited for nor named: it has ended, or others have its
    /// partitions, and it makes no attempts.
    #[param(value_type = Option<String>)]
    pub(crate) wait: Option<Wait>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wait {
    /// Every router and dispatcher.
    Applied,
}

/// The `Idempotency-Key` of a request that makes something (HT-7): the same key makes the same ids,
/// so that a repeat finds what the first made.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        // A structured-field string has quotes; keys without are common.
        let key = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        if (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) {
            Ok(Self(Some(key.to_owned())))
        } else {
            Err(Problem::new(ProblemType::Malformed).detail(format!(
                "idempotency-key must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible characters"
            )))
        }
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(IDEMPOTENCY_KEY_CHARS_MAX));
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "A repeat with the same key and body makes nothing a second time.",
            ))
            .schema(Some(text));
        vec![key.build()]
    }
}

impl IdempotencyKey {
    /// 128 bits for the new object of `kind` in `scope`: derived from the key, else `fresh`.
    pub(crate) fn bits(&self, kind: &str, scope: &str, fresh: impl FnOnce() -> u128) -> u128 {
        let Some(key) = &self.0 else {
            return fresh();
        };
        let mut hash = Sha256::new();
        hash.update(b"anabranch idempotency 1");
        for part in [kind, scope, key.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize()
            .iter()
            .take(16)
            .fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }
}

/// All that a request which makes something carries beside its path.
#[derive(Debug)]
pub(crate) struct Order {
    /// What to wait for.
    pub(crate) waiting: Waiting,
    /// Whether it may be a repeat.
    pub(crate) repeat: IdempotencyKey,
    /// The body.
    pub(crate) body: Value,
}

impl FromRequest<App> for Order {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Params(waiting) = Params::from_request_parts(&mut parts, app).await?;
        let repeat = IdempotencyKey::from_request_parts(&mut parts, app).await?;
        let request = Request::from_parts(parts, body);
        let JsonBody(body) = JsonBody::from_request(request, app).await?;
        Ok(Self {
            waiting,
            repeat,
            body,
        })
    }
}

/// The answer to a body that is wrong (HT-4).
pub(crate) fn invalid(faults: Faults) -> Problem {
    Problem::validation(
        faults
            .0
            .into_iter()
            .map(|fault| (fault.pointer, fault.detail)),
    )
}
