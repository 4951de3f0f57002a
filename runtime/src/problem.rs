//! Owns what an error looks like to the outside: RFC 9457 problem details (HT-3 to HT-5).
//!
//! Nothing else builds an error answer. It must never show an internal error's text: callers log
//! that and give a `detail` that helps the client. The surprise: a problem's type is a closed list,
//! and each has a page under `docs/problems/`.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// What a problem type's URI begins with; its last part is the page's name.
pub const TYPE_BASE: &str = "https://anabranch.dev/problems/";

/// The content type of every error answer.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

macro_rules! types {
    ($($(#[doc = $doc:literal])+ $kind:ident => $slug:literal, $title:literal, $status:ident;)+) => {
        /// The kinds of problems, each with a page under `docs/problems/` (HT-5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemType {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ProblemType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The last part of the type's URI, and the name of its page.
            #[must_use]
            pub fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)+ }
            }

            /// The title, the same for every problem of the type (HT-3).
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)+ }
            }
        }
    };
}

types! {
    /// The request was read, and some of its fields are not acceptable (HT-4).
    Validation => "validation", "Some fields are not valid", UNPROCESSABLE_ENTITY;
    /// The request cannot be read: bad JSON, a bad header, a missing part.
    Malformed => "malformed", "The request cannot be read", BAD_REQUEST;
    /// There is no key, or one that is not known.
    Unauthorized => "unauthorized", "A valid key is needed", UNAUTHORIZED;
    /// The key is known and does not allow this.
    Forbidden => "forbidden", "The key does not allow this", FORBIDDEN;
    /// There is no such object, or none that the key may see.
    NotFound => "not-found", "There is no such thing here", NOT_FOUND;
    /// The path exists, the method does not.
    MethodNotAllowed => "method-not-allowed", "The method is not allowed here", METHOD_NOT_ALLOWED;
    /// The client took too long to send its request, or the answer took too long to make.
    Timeout => "timeout", "The request took too long", REQUEST_TIMEOUT;
    /// The object's state does not allow this, or it exists already.
    Conflict => "conflict", "The request conflicts with what exists", CONFLICT;
    /// The body, an event or a batch is beyond a limit.
    TooLarge => "too-large", "The request is too large", PAYLOAD_TOO_LARGE;
    /// The request's line and headers are beyond a limit.
    HeadTooLarge => "head-too-large", "The request's head is too large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The content type is not one that is taken here.
    UnsupportedMediaType => "unsupported-media-type", "The media type is not supported", UNSUPPORTED_MEDIA_TYPE;
    /// A limit per time was reached; `violated-policies` names it (HT-11).
    RateLimited => "rate-limited", "A rate limit was reached", TOO_MANY_REQUESTS;
    /// The service cannot do this now, and may soon.
    Unavailable => "unavailable", "The service is not available now", SERVICE_UNAVAILABLE;
    /// Our own fault.
    Internal => "internal", "Something went wrong here", INTERNAL_SERVER_ERROR;
}

impl ProblemType {
    /// The absolute URI that identifies the type.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{TYPE_BASE}{}", self.slug())
    }
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// For humans: what is wrong.
    pub detail: String,
    /// JSON pointer (RFC 6901) to the field in the request's body; empty for the whole of it.
    pub pointer: String,
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemType,
    detail: Option<Box<str>>,
    instance: Option<Box<str>>,
    errors: Vec<FieldError>,
    violated_policies: Vec<&'static str>,
    retry_after: Option<Duration>,
    // Boxed: an error in a `Result` should stay small.
    members: Box<[(&'static str, Value)]>,
}

impl Problem {
    /// A problem of a type, with nothing more to say.
    #[must_use]
    pub fn new(kind: ProblemType) -> Self {
        Self {
            kind,
            detail: None,
            instance: None,
            errors: Vec::new(),
            violated_policies: Vec::new(),
            retry_after: None,
            members: Box::default(),
        }
    }

    /// A validation problem from `(pointer, detail)` pairs (HT-4).
    pub fn validation<P, D>(errors: impl IntoIterator<Item = (P, D)>) -> Self
    where
        P: Into<String>,
        D: Into<String>,
    {
        let problem = Self::new(ProblemType::Validation);
        errors
            .into_iter()
            .fold(problem, |problem, (pointer, detail)| {
                problem.error(pointer, detail)
            })
    }

    /// Adds what happened this time, for humans.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into_boxed_str());
        self
    }

    /// Adds which occurrence this is: a URI reference, such as the request's path.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into().into_boxed_str());
        self
    }

    /// Adds a fault of the field at a JSON pointer (HT-4).
    #[must_use]
    pub fn error(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError {
            detail: detail.into(),
            pointer: pointer.into(),
        });
        self
    }

    /// Adds the name of a limit that was reached (HT-11).
    #[must_use]
    pub fn violated(mut self, policy: &'static str) -> Self {
        self.violated_policies.push(policy);
        self
    }

    /// Asks the client to wait; sent as whole seconds, rounded up, in `Retry-After` (HT-1).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds an extension member of its own (HT-4), such as the results of a batch's events.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let mut members = self.members.into_vec();
        members.push((name, value.into()));
        self.members = members.into_boxed_slice();
        self
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The faults of its fields.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What happened this time.
    #[must_use]
    pub fn detail_text(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

/// The members of RFC 9457, then the extensions; empty ones are left out. Also the form in which a
/// batch's answer carries one event's problem.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind.uri())?;
        map.serialize_entry("title", self.kind.title())?;
        map.serialize_entry("status", &self.status().as_u16())?;
        if let Some(detail) = &self.detail {
            map.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = &self.instance {
            map.serialize_entry("instance", instance)?;
        }
        if !self.errors.is_empty() {
            map.serialize_entry("errors", &self.errors)?;
        }
        if !self.violated_policies.is_empty() {
            map.serialize_entry("violated-policies", &self.violated_policies)?;
        }
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and numbers alone: there is nothing here that JSON cannot hold.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.kind == ProblemType::Unauthorized {
            // RFC 9110 §11.6.1: a 401 names the scheme.
            headers.insert(
                http::header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}

/// The handler for paths that do not exist; give it to `Router::fallback`.
pub async fn not_found() -> Problem {
    Problem::new(ProblemType::NotFound).detail("there is no such path")
}

/// The handler for methods that a path does not take; give it to
/// `Router::method_not_allowed_fallback`.
pub async fn method_not_allowed() -> Problem {
    Problem::new(ProblemType::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;

    use super::*;

    async fn check(problem: Problem, headers: &[(&str, &str)], body: &str) {
        let status = problem.status();
        let response = problem.into_response();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        for (name, value) in headers {
            assert_eq!(response.headers()[*name], *value);
        }
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), body);
    }

    #[tokio::test]
    async fn problems_have_the_members_of_rfc_9457_and_the_extensions() {
        check(
            Problem::new(ProblemType::Internal),
            &[],
            r#"{"type":"https://anabranch.dev/problems/internal","title":"Something went wrong here","status":500}"#,
        )
        .await;
        check(
            Problem::validation([("/url", "must be https")]).detail("1 fault").instance("/v1/x"),
            &[],
            r#"{"type":"https://anabranch.dev/problems/validation","title":"Some fields are not valid","status":422,"detail":"1 fault","instance":"/v1/x","errors":[{"detail":"must be https","pointer":"/url"}]}"#,
        )
        .await;
        check(
            Problem::new(ProblemType::RateLimited)
                .violated("tenant-events")
                .retry_after(Duration::from_millis(1_200)),
            &[("retry-after", "2")],
            r#"{"type":"https://anabranch.dev/problems/rate-limited","title":"A rate limit was reached","status":429,"violated-policies":["tenant-events"]}"#,
        )
        .await;
        check(
            Problem::new(ProblemType::TooLarge).member("accepted", 0),
            &[],
            r#"{"type":"https://anabranch.dev/problems/too-large","title":"The request is too large","status":413,"accepted":0}"#,
        )
        .await;
        check(
            Problem::new(ProblemType::Unauthorized),
            &[("www-authenticate", "Bearer")],
            r#"{"type":"https://anabranch.dev/problems/unauthorized","title":"A valid key is needed","status":401}"#,
        )
        .await;
    }

    #[test]
    fn each_type_has_a_page_that_names_its_uri_title_and_status() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/problems");
        for kind in ProblemType::ALL {
            let page = pages.join(format!("{}.md", kind.slug()));
            let text = std::fs::read_to_string(&page).expect("a page for each type");
            for part in [
                kind.uri(),
                kind.title().into(),
                kind.status().as_u16().to_string(),
            ] {
                assert!(text.contains(&part), "{} lacks {part}", page.display());
            }
        }
        let files = std::fs::read_dir(&pages).unwrap().count();
        assert_eq!(files, ProblemType::ALL.len(), "a page without a type");
    }
}
