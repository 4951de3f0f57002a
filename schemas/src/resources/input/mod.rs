//! Owns what clients may say when they make or change an object: every member, its rule, and the
//! checked values.
//!
//! Never stops at the first fault, and refuses members that it does not know. The surprise: each
//! body is a table of [`Member`]s, from which the checks and the API's document are both made; and
//! a patch is merged into the object's own body and checked as a whole (RFC 7396).

mod authenticating;
mod check;
mod members;
mod relations;
mod sourcing;
mod syncing;
mod text;
mod url;

use std::num::NonZeroU32;

use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    Batch, BodyMode, Endpoint, FairShare, HeaderCase, RateWindow, RetryJitter, SecretKind,
    StartFrom, StaticHeader, Subscription, Tenant,
};
use crate::filter::Filters;
use crate::ids::{EndpointId, TenantId};
use crate::profile::ResponseGrammar;
use crate::transform::Transform;

pub use self::authenticating::{AuthenticationInput, ClientCertificateInput};
pub use self::members::{
    COHORT, CREDENTIAL, ENDPOINT, KEY, Kind, Member, Members, ROTATION, SOURCE, SUBSCRIPTION, SYNC,
    TENANT, Variants, WEBHOOK,
};
pub use self::sourcing::SourceInput;
pub use self::syncing::{CohortInput, SyncInput};
pub(crate) use self::text::header_name;
pub use self::url::UrlPolicy;

/// The most faults that are reported of one body.
pub const FAULTS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the member; empty for the whole body.
    pub pointer: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// Everything that is wrong with a body; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// One fault.
    #[must_use]
    pub fn one(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(vec![Fault {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }
}

/// What is said of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInput {
    /// Its slug.
    pub id: TenantId,
    /// A name for people.
    pub name: Option<String>,
    /// Events a second that ingest takes.
    pub events_per_second: Option<NonZeroU32>,
    /// Bytes a second that ingest takes.
    pub bytes_per_second: Option<NonZeroU32>,
    /// What it may send before it makes way for others.
    pub fair_share: FairShare,
}

/// What is said of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInput {
    /// A name for people.
    pub name: Option<String>,
    /// The one endpoint that it is for; else it is the tenant's.
    pub endpoint: Option<EndpointId>,
}

/// What is said of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointInput {
    /// Where requests go.
    pub url: String,
    /// A name for people.
    pub name: Option<String>,
    /// The signing secret, where the client brings one (WH-5, WH-6).
    pub secret: Option<SecretString>,
    /// What a secret that is made here is; the secret that the client brings says it itself.
    pub signature: SecretKind,
    /// The name of the quota that it shares with other endpoints of its tenant.
    pub quota: Option<String>,
    /// How events are written.
    pub body: BodyMode,
    /// The windows it allows.
    pub limits: Vec<RateWindow>,
    /// Requests at once.
    pub concurrency: Option<NonZeroU32>,
    /// An attempt's total deadline in milliseconds.
    pub timeout_ms: Option<NonZeroU32>,
    /// Waits between attempts in milliseconds.
    pub retry_schedule_ms: Option<Vec<u64>>,
    /// How those waits are spread.
    pub retry_jitter: RetryJitter,
    /// A delivery older than this ends, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// Several events in one request.
    pub batch: Option<Batch>,
    /// How its answers are read.
    pub grammar: Option<Box<ResponseGrammar>>,
    /// Failing for longer than that disables it, in milliseconds; 0 for never.
    pub disable_after_ms: Option<u64>,
    /// Whether a probe that succeeds enables it again.
    pub reenable: bool,
    /// How requests say on whose behalf they come.
    pub authentication: Option<AuthenticationInput>,
    /// Headers of its own.
    pub headers: Vec<StaticHeader>,
    /// In which case our headers' names are sent.
    pub header_case: HeaderCase,
    /// Whether bodies are sent compressed.
    pub compress: bool,
    /// What the client shows in the TLS handshake.
    pub client_certificate: Option<ClientCertificateInput>,
}

/// What is said of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionInput {
    /// Where events go.
    pub endpoint: EndpointId,
    /// A name for people.
    pub name: Option<String>,
    /// Which events.
    pub filters: Filters,
    /// Whether events of one key are delivered one after another.
    pub ordered: bool,
    /// Where it starts.
    pub start: Option<StartFrom>,
    /// What becomes of events on their way.
    pub transform: Option<Box<Transform>>,
}

/// An endpoint and a subscription to it, said in one body.
#[derive(Debug, Clone)]
pub struct WebhookInput {
    /// The endpoint.
    pub endpoint: EndpointInput,
    /// Which events.
    pub filters: Filters,
    /// Whether events of one key are delivered one after another.
    pub ordered: bool,
    /// Where the subscription starts.
    pub start: Option<StartFrom>,
    /// What becomes of events on their way.
    pub transform: Option<Box<Transform>>,
}

/// How a secret is replaced.
#[derive(Debug, Clone)]
pub struct RotationInput {
    /// The new secret, where the client brings one.
    pub secret: Option<SecretString>,
    /// What a secret that is made here is; `None` for what the current one is.
    pub signature: Option<SecretKind>,
    /// How long the old one still signs, in seconds.
    pub expires_in: u32,
}

/// What replaces a secret that requests authenticate with.
#[derive(Debug, Clone)]
pub struct CredentialInput {
    /// The new password, token, API key or client secret.
    pub value: SecretString,
}

impl TenantInput {
    /// Reads the body of a tenant.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(TENANT, body, &UrlPolicy::default())?;
        let id: Option<TenantId> = fields.value("id");
        Ok(Self::of(&fields, id.ok_or_else(unreadable)?))
    }

    /// What `tenant` becomes by a merge patch.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(tenant: &Tenant, patch: &Value) -> Result<Self, Faults> {
        let fields = check::patch(
            TENANT,
            document(TENANT, tenant),
            patch,
            &UrlPolicy::default(),
        )?;
        Ok(Self::of(&fields, tenant.id.clone()))
    }

    fn of(fields: &Fields, id: TenantId) -> Self {
        Self {
            id,
            name: fields.value("name"),
            events_per_second: fields.value("events_per_second"),
            bytes_per_second: fields.value("bytes_per_second"),
            fair_share: fields.value("fair_share").unwrap_or_default(),
        }
    }
}

impl KeyInput {
    /// Reads the body of a key.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(KEY, body, &UrlPolicy::default())?;
        Ok(Self {
            name: fields.value("name"),
            endpoint: fields.value("endpoint"),
        })
    }
}

impl EndpointInput {
    /// Reads the body of an endpoint.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value, policy: &UrlPolicy) -> Result<Self, Faults> {
        Self::of(&check::create(ENDPOINT, body, policy)?)
    }

    /// What `endpoint` becomes by a merge patch. Secret and quota are not in it.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(endpoint: &Endpoint, patch: &Value, policy: &UrlPolicy) -> Result<Self, Faults> {
        let mut document = document(ENDPOINT, endpoint);
        authenticating::hide(&mut document, endpoint, patch);
        let input = Self::of(&check::patch(ENDPOINT, document, patch, policy)?)?;
        authenticating::kept(endpoint, &input)?;
        Ok(input)
    }

    fn of(fields: &Fields) -> Result<Self, Faults> {
        let secret: Option<String> = fields.value("secret");
        Ok(Self {
            url: fields.value("url").ok_or_else(unreadable)?,
            name: fields.value("name"),
            secret: secret.map(SecretString::from),
            signature: signature(fields).unwrap_or_default(),
            quota: fields.value("quota"),
            body: fields.value("body").unwrap_or_default(),
            limits: fields.value("limits").unwrap_or_default(),
            concurrency: fields.value("concurrency"),
            timeout_ms: fields.value("timeout_ms"),
            retry_schedule_ms: fields.value("retry_schedule_ms"),
            retry_jitter: fields.value("retry_jitter").unwrap_or_default(),
            max_age_ms: fields.value("max_age_ms"),
            batch: fields.value("batch"),
            grammar: fields.value("grammar"),
            disable_after_ms: fields.value("disable_after_ms"),
            reenable: fields.value("reenable").unwrap_or_default(),
            authentication: authenticating::authentication(fields),
            headers: fields.value("headers").unwrap_or_default(),
            header_case: fields.value("header_case").unwrap_or_default(),
            compress: fields.value("compress").unwrap_or_default(),
            client_certificate: authenticating::client_certificate(fields),
        })
    }
}

impl SubscriptionInput {
    /// Reads the body of a subscription.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(SUBSCRIPTION, body, &UrlPolicy::default())?;
        let endpoint: Option<EndpointId> = fields.value("endpoint");
        Self::of(&fields, endpoint.ok_or_else(unreadable)?)
    }

    /// What `subscription` becomes by a merge patch. `types` in it replaces the filters, and
    /// `transform` the whole of the one before; the endpoint never changes.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(subscription: &Subscription, patch: &Value) -> Result<Self, Faults> {
        let mut document = document(SUBSCRIPTION, subscription);
        if patch.get("types").is_some() {
            document.remove("filters");
        }
        // Steps and templates belong together: what is left of the old ones would surprise.
        if patch.get("transform").is_some() {
            document.remove("transform");
        }
        let fields = check::patch(SUBSCRIPTION, document, patch, &UrlPolicy::default())?;
        Self::of(&fields, subscription.endpoint)
    }

    fn of(fields: &Fields, endpoint: EndpointId) -> Result<Self, Faults> {
        Ok(Self {
            endpoint,
            name: fields.value("name"),
            filters: filters(fields)?,
            ordered: fields.value("ordered").unwrap_or_default(),
            start: start(fields),
            transform: fields.value("transform"),
        })
    }
}

impl WebhookInput {
    /// Reads the body of a webhook: an endpoint's, and which events.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value, policy: &UrlPolicy) -> Result<Self, Faults> {
        let fields = check::create(WEBHOOK, body, policy)?;
        Ok(Self {
            endpoint: EndpointInput::of(&fields)?,
            filters: filters(&fields)?,
            ordered: fields.value("ordered").unwrap_or_default(),
            start: start(&fields),
            transform: fields.value("transform"),
        })
    }
}

impl RotationInput {
    /// Reads the body of a rotation.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        const DAY_SECONDS: u32 = 86_400;
        let fields = check::create(ROTATION, body, &UrlPolicy::default())?;
        let secret: Option<String> = fields.value("secret");
        Ok(Self {
            secret: secret.map(SecretString::from),
            signature: signature(&fields),
            expires_in: fields.value("expires_in").unwrap_or(DAY_SECONDS),
        })
    }
}

impl CredentialInput {
    /// Reads the body.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(CREDENTIAL, body, &UrlPolicy::default())?;
        let value: Option<String> = fields.value("value");
        Ok(Self {
            value: SecretString::from(value.ok_or_else(unreadable)?),
        })
    }
}

/// A body that passed every check of its table.
#[derive(Debug)]
struct Fields(Map<String, Value>);

impl Fields {
    /// The member's value; `None` where it is absent or null.
    fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let value = self.0.get(name)?;
        serde_json::from_value(value.clone()).ok()
    }
}

/// Only where a table admits what its type does not: our fault, said rather than hidden.
fn unreadable() -> Faults {
    Faults::one("", "cannot be read")
}

fn signature(fields: &Fields) -> Option<SecretKind> {
    match fields.value::<String>("signature")?.as_str() {
        "v1a" => Some(SecretKind::Ed25519),
        _ => Some(SecretKind::Symmetric),
    }
}

fn start(fields: &Fields) -> Option<StartFrom> {
    fields.value::<String>("start")?.parse().ok()
}

/// `types` is short for an `any` of exact types.
fn filters(fields: &Fields) -> Result<Filters, Faults> {
    if let Some(types) = fields.value::<Vec<String>>("types") {
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        return Filters::of_types(&types)
            .map_err(|error| Faults::one("/types", error.fault().to_string()));
    }
    let Some(value) = fields.0.get("filters").filter(|value| !value.is_null()) else {
        return Ok(Filters::default());
    };
    Filters::parse(value).map_err(|error| {
        Faults::one(
            format!("/filters{}", error.pointer()),
            error.fault().to_string(),
        )
    })
}

/// The body that would make `object` again: its members that a client may change.
fn document(members: Members, object: &impl Serialize) -> Map<String, Value> {
    let Ok(Value::Object(mut document)) = serde_json::to_value(object) else {
        return Map::new();
    };
    let changeable = |name: &str| {
        let member = members::find(members, name);
        member.is_some_and(|member| member.fixed.is_none())
    };
    document.retain(|name, value| changeable(name) && !value.is_null());
    document
}

#[cfg(test)]
mod tests;
