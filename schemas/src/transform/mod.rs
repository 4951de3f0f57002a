//! Owns what a subscription's transform is: steps that make other data and attributes of an event,
//! and the request that carries them.
//!
//! Pure, and the same for the same event always, so that a delivery that is attempted again has the
//! same bytes (rule 9). It must never do more than its bounds allow, whatever event and transform
//! are. The surprise: templates see the event as it came, whatever the steps before have made of
//! it, so that a field may go into the path and out of the data.

mod compile;
mod compiled;
mod document;
mod entries;
mod read;
mod scope;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::event::Event;
use crate::profile::template::below;
use crate::profile::{Method, Pointer};

pub use compiled::Compiled;
pub use entries::Entries;

/// The most bytes of a transform as JSON.
pub const TRANSFORM_BYTES_MAX: usize = 64 << 10;
/// The most steps.
pub const STEPS_MAX: usize = 64;
/// The most places that all steps together name.
pub const PLACES_MAX: usize = 256;
/// The most steps down that a place may be.
pub const DEPTH_MAX: usize = 16;
/// The most templates and expressions.
pub const TEMPLATES_MAX: usize = 64;
/// The longest expression, and the longest template of a path, a query or a header.
pub const LINE_BYTES_MAX: usize = 4 << 10;
/// The longest template of a value.
pub const TEMPLATE_BYTES_MAX: usize = 16 << 10;
/// The most headers, and the most parameters of the query.
pub const HEADERS_MAX: usize = 16;
/// The most bytes of data that a transform makes, and of what its templates make for it.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Steps of the template language that all templates of a transform may take together; the last
/// one may take as many again.
pub const FUEL: u64 = 100_000;
/// Bytes that the filters of all templates may read and make.
pub const WORK_BYTES_MAX: usize = 16 << 20;

/// What becomes of an event on its way to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// One after another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The request, where it is not a POST to the endpoint's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// One change of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Keeps these places of the data, and nothing else.
    Select(Vec<Pointer>),
    /// Removes these places.
    Strip(Vec<Pointer>),
    /// Moves what is at the first place to the second, all at once; what is not there is not moved.
    Rename(Entries<Pointer>),
    /// Puts constants there.
    Set(Entries<Value>),
    /// Puts there what templates make.
    Compute(Entries<Computed>),
    /// Sets attributes by templates; null removes one.
    Attributes(BTreeMap<String, Option<String>>),
    /// An expression; where it is true nothing is sent.
    Drop(String),
}

/// A value that is computed: exactly one of `value`, `text` and `json` is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Computed {
    /// An expression, whose value is put there with its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A template, whose text is put there as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A template, whose text is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// An expression; where it is false nothing is put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// The request of a transformed event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The method: POST, PUT, PATCH or DELETE. A DELETE has no body.
    #[serde(default)]
    pub method: Method,
    /// A template; what it makes is appended to the endpoint's URL. Each value in it is one segment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Templates of the query's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Templates of headers beside those that requests have by themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// What a transform makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A request.
    Made(Box<Made>),
    /// Nothing is sent: the step at this place (a JSON pointer into the transform) says so.
    Dropped(String),
}

/// A request without its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The event as it is sent; its id and source are those that it came with.
    pub event: Event,
    /// The method.
    pub method: Method,
    /// What is appended to the endpoint's URL: nothing, or a path, or a query.
    pub path: String,
    /// Headers beside those that requests have by themselves.
    pub headers: Vec<(String, String)>,
}

/// Why nothing can be made of an event; names no data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transform {pointer}: {detail}")]
pub struct Failure {
    /// Where in the transform, as a JSON pointer.
    pub pointer: String,
    /// What went wrong.
    pub detail: String,
}

impl Transform {
    /// Whether requests differ from those of other subscriptions in more than the body, so that no
    /// event shares one with others.
    #[must_use]
    pub fn has_request(&self) -> bool {
        self.request.is_some()
    }
}

impl Made {
    /// Whether the request has a body.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.method != Method::Delete
    }
}

/// Where the request of `made` goes that an endpoint with this URL gets; `None` where that would be
/// somewhere else (rule 10).
#[must_use]
pub fn url(endpoint: &str, made: &Made) -> Option<String> {
    let endpoint = Url::parse(endpoint).ok()?;
    below(&endpoint, &made.path).map(String::from)
}

impl Failure {
    fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
