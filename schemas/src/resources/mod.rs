//! Owns the objects that users make: tenant, API key, endpoint, subscription, in the form in which
//! they are stored.
//!
//! They never hold a secret in the clear: secrets are sealed before they get here (rule 17).

pub mod input;
pub mod key;
mod placement;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::filter::Filters;
use crate::ids::{EndpointId, KeyId, SubscriptionId, TenantId};

pub use placement::{Placement, Quota};

/// The unit of isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its slug.
    pub id: TenantId,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Events a second that ingest takes; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// Bytes a second that ingest takes; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU32>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Everything of its tenant: objects and events.
    Tenant,
    /// One endpoint: see, pause, resume, rotate.
    Endpoint(EndpointId),
}

/// An API key of a tenant, or of one endpoint's owner. The operator's key is configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id, which the key's text begins with.
    pub id: KeyId,
    /// The tenant it names.
    pub tenant: TenantId,
    /// What it may do.
    pub scope: KeyScope,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the key's secret part, in lower-case hexadecimal.
    pub hash: String,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// How an event is written as a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyMode {
    /// The whole event as JSON (`application/cloudevents+json`).
    #[default]
    Structured,
    /// The data as the body, the attributes as `ce-` headers.
    Binary,
    /// `{"type":…,"timestamp":…,"data":…}` as Standard Webhooks recommends (WH-9).
    StandardWebhooks,
    /// The data alone.
    Data,
    /// `payload=` and the data, form-encoded.
    Form,
}

/// Whether an endpoint is attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// Attempted.
    #[default]
    Active,
    /// Held by its owner: deliveries wait.
    Paused,
    /// Not attempted any more: deliveries are dead letters.
    Disabled,
}

/// Requests in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many requests.
    pub requests: NonZeroU32,
    /// In how many milliseconds.
    pub per_ms: NonZeroU32,
    /// How many may come at once; `None` for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
}

/// A signing secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Names the secret within its endpoint: the `field` of the associated data.
    pub id: String,
    /// The sealed text.
    pub sealed: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Signs until then (unix milliseconds); `None` for the current secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// A URL owned by somebody else, with its limits and policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Its tenant.
    pub tenant: TenantId,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where requests go.
    pub url: String,
    /// What it spends together with others; by default it is its own.
    pub quota: Quota,
    /// Its partition, fixed when it was made.
    pub placement: Placement,
    /// Whether it is attempted.
    #[serde(default)]
    pub state: EndpointState,
    /// How events are written.
    #[serde(default)]
    pub body: BodyMode,
    /// Signing secrets, the current one first; an attempt is signed by all that have not expired.
    pub secrets: Vec<SealedSecret>,
    /// The rate it allows; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Requests at once; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// An attempt's total deadline in milliseconds; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<NonZeroU32>,
    /// Waits between attempts in milliseconds; `None` for the default schedule (WH-15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_schedule_ms: Option<Vec<u64>>,
    /// A delivery older than this ends, in milliseconds; `None` for the default (76 h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// Whether a subscription matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Events are routed to its endpoint.
    #[default]
    Active,
    /// Events pass it by.
    Paused,
}

/// A tenant's wish: events that match go to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Where events go; never changes.
    pub endpoint: EndpointId,
    /// The endpoint's partition, repeated here so that a router needs no endpoints.
    pub placement: Placement,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which events (SB-2); absent or empty for all of the tenant.
    #[serde(default)]
    pub filters: Filters,
    /// Whether it matches.
    #[serde(default)]
    pub state: SubscriptionState,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}
