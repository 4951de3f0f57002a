//! Owns the objects that users make: tenant, API key, endpoint, subscription, cohort, sync, source,
//! in the form in which they are stored.
//!
//! They never hold a secret in the clear: secrets are sealed before they get here (rule 17).

mod cohort;
pub mod input;
pub mod key;
mod limits;
mod placement;
mod position;
mod redrive;
mod schedule;
mod sending;
mod source;
mod sync;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::filter::Filters;
use crate::ids::{EndpointId, KeyId, SubscriptionId, TenantId};
use crate::profile::{RequestTemplates, ResponseGrammar};
use crate::transform::Transform;

pub use cohort::Cohort;
pub use limits::{
    Batch, BatchFormat, DISABLE_AFTER_MS, Disabled, DisabledReason, LimitUnit, RateWindow,
    RetryJitter, WINDOWS_MAX, WindowKind, least_seconds,
};
pub use placement::{Placement, Quota};
pub use position::{NotAStart, StartFrom, StartPosition};
pub use redrive::{
    DeadFilter, LETTERS_MAX, LetterId, NotALetter, Redrive, RedriveCounts, RedriveState,
};
pub use schedule::{CRON_CHARS_MAX, NotASchedule, Schedule};
pub use sending::{
    Authentication, ClientCertificate, ClientCredentials, ClientIn, HEADERS_MAX, HeaderCase,
    SealedSecret, SealedText, SecretKind, StaticHeader,
};
pub use source::{
    EventExpressions, Expression, NotAnExpression, SOURCE_WEIGHT, SOURCE_WEIGHT_MAX, Source,
    SourceFormat, SourceStart,
};
pub use sync::{Overlap, REMOVALS_MAX_PERCENT, Sync, SyncState};

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
    /// What it may send before it makes way for others.
    #[serde(default, skip_serializing_if = "FairShare::is_empty")]
    pub fair_share: FairShare,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// What a tenant may send before its events go to `events.bulk`, which routers read with a lower
/// weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FairShare {
    /// Events a second; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// Bytes a second; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU32>,
}

impl FairShare {
    /// Whether it says nothing.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// The windows it allows, all of which hold; empty for no limit.
    #[serde(
        default,
        alias = "rate",
        deserialize_with = "limits::windows",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub limits: Vec<RateWindow>,
    /// Requests at once; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// An attempt's total deadline in milliseconds; `None` for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<NonZeroU32>,
    /// Waits between attempts in milliseconds; `None` for the default schedule (WH-15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_schedule_ms: Option<Vec<u64>>,
    /// How those waits are spread.
    #[serde(default, skip_serializing_if = "RetryJitter::is_small")]
    pub retry_jitter: RetryJitter,
    /// A delivery older than this ends, in milliseconds; `None` for the default (76 h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Several events in one request; `None` for one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// How its answers are read (rule 15); `None` where the status says all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<Box<ResponseGrammar>>,
    /// Failing for longer than that disables it, in milliseconds; 0 for never, `None` for
    /// [`DISABLE_AFTER_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_after_ms: Option<u64>,
    /// Whether a probe that succeeds enables it again by itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reenable: bool,
    /// Why it is disabled, where the pipeline did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// How requests say on whose behalf they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// Headers of its own, on every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<StaticHeader>,
    /// In which case the names of our headers are sent.
    #[serde(default)]
    pub header_case: HeaderCase,
    /// Whether bodies are sent compressed (`Content-Encoding: gzip`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress: bool,
    /// What the client shows in the TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

impl Endpoint {
    /// An endpoint that says nothing but where it is.
    pub fn new(id: EndpointId, tenant: TenantId, quota: Quota, placement: Placement) -> Self {
        Self {
            id,
            tenant,
            name: None,
            url: String::new(),
            quota,
            placement,
            state: EndpointState::default(),
            body: BodyMode::default(),
            secrets: Vec::new(),
            limits: Vec::new(),
            concurrency: None,
            timeout_ms: None,
            retry_schedule_ms: None,
            retry_jitter: RetryJitter::default(),
            max_age_ms: None,
            batch: None,
            grammar: None,
            disable_after_ms: None,
            reenable: false,
            disabled: None,
            authentication: None,
            headers: Vec::new(),
            header_case: HeaderCase::default(),
            compress: false,
            client_certificate: None,
            created_at: 0,
            updated_at: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
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
    /// Whether events of one key (`partitionkey`, else `subject`, else `source`) are delivered one
    /// after another (rule 12).
    #[serde(default, skip_serializing_if = "is_false")]
    pub ordered: bool,
    /// Where it starts; `None` for where routers are when they hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartPosition>,
    /// How its deliveries become requests; `None` where the endpoint says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RequestTemplates>>,
    /// What becomes of events on their way; `None` where they go as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Box<Transform>>,
    /// Whether it is a sync's own: no event is routed by it, and it is not listed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}
