//! Owns how the outcome of a transform is shown: the event as it would be sent, the request that
//! would carry it, or why there is none.
//!
//! It must never send anything, nor show our own attributes. The surprise: the body is shown as an
//! event, since its form is the endpoint's to say.

use std::collections::BTreeMap;

use schemas::codec::{self, Reserved};
use schemas::event::Event;
use schemas::profile::Method;
use schemas::transform::{self, Compiled, Made, Outcome, Transform};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A longer event is not shown.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// What a transform makes of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransformView {
    /// `request`, `dropped` or `failed`.
    #[schema(value_type = String)]
    outcome: &'static str,
    /// Of a request: its method.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// Of a request: what is appended to the endpoint's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Of a request: where it goes, where the endpoint is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Of a request: its headers beside those that every request has.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    /// Of a request that has a body: the event that is written in it, if it is not longer than 64
    /// KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<Box<RawValue>>,
    /// Where in the transform it is dropped or fails, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl TransformView {
    /// What `transform` makes of `event`, which would go to `endpoint`.
    pub(super) fn of(transform: &Transform, event: &Event, endpoint: Option<&str>) -> Self {
        match Compiled::new(transform) {
            Ok(compiled) => Self::by(&compiled, event, endpoint),
            Err(faults) => {
                let first = faults.0.into_iter().next();
                first.map_or_else(
                    || Self::failed(String::new(), String::new()),
                    |fault| Self::failed(fault.pointer, fault.detail),
                )
            }
        }
    }

    /// The same of one that is compiled.
    pub(super) fn by(compiled: &Compiled, event: &Event, endpoint: Option<&str>) -> Self {
        match compiled.run(event) {
            Ok(Outcome::Made(made)) => Self::made(*made, endpoint),
            Ok(Outcome::Dropped(pointer)) => Self {
                pointer: Some(pointer),
                ..Self::nothing("dropped")
            },
            Err(failure) => Self::failed(failure.pointer, failure.detail),
        }
    }

    fn made(made: Made, endpoint: Option<&str>) -> Self {
        const ELSEWHERE: &str = "leads to no place below the endpoint's URL";
        let url = endpoint.map(|endpoint| transform::url(endpoint, &made));
        if url == Some(None) {
            return Self::failed("/request/path".to_owned(), ELSEWHERE.to_owned());
        }
        Self {
            event: made.has_body().then(|| shown(&made.event)).flatten(),
            method: Some(made.method),
            path: Some(made.path),
            url: url.flatten(),
            headers: Some(made.headers.into_iter().collect()),
            ..Self::nothing("request")
        }
    }

    fn failed(pointer: String, detail: String) -> Self {
        Self {
            pointer: Some(pointer),
            detail: Some(detail),
            ..Self::nothing("failed")
        }
    }

    fn nothing(outcome: &'static str) -> Self {
        Self {
            outcome,
            method: None,
            path: None,
            url: None,
            headers: None,
            event: None,
            pointer: None,
            detail: None,
        }
    }
}

/// The event in its JSON form.
fn shown(event: &Event) -> Option<Box<RawValue>> {
    let mut json = Vec::new();
    codec::json::encode(event, Reserved::Omit, &mut json);
    let json = String::from_utf8(json).ok()?;
    let json = Some(json).filter(|json| json.len() <= SHOWN_BYTES_MAX)?;
    RawValue::from_string(json).ok()
}
