//! Owns how objects are shown. No form here has room for a stored secret (rule 17): what is shown
//! once is a member of its own, filled by the request that made it and by no other.

use jiff::Timestamp;
use schemas::profile::ResponseGrammar;
use schemas::resources::{
    ApiKey, Batch, BodyMode, DisabledReason, Endpoint, EndpointState, FairShare, HeaderCase,
    KeyScope, RateWindow, RetryJitter, StaticHeader, Subscription, SubscriptionState, Tenant,
};
use schemas::transform::Transform;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::credentials;

/// Unix milliseconds as RFC 3339.
pub(crate) fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Its slug.
    id: String,
    /// A name for people.
    name: Option<String>,
    /// Events a second that ingest takes; null for the configured default.
    events_per_second: Option<u32>,
    /// Bytes a second that ingest takes; null for the configured default.
    bytes_per_second: Option<u32>,
    /// What it may send before it makes way for others; what is absent is the configured default.
    #[schema(value_type = Object)]
    fair_share: FairShare,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

impl TenantView {
    pub(crate) fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            events_per_second: tenant.events_per_second.map(Into::into),
            bytes_per_second: tenant.bytes_per_second.map(Into::into),
            fair_share: tenant.fair_share,
            created_at: time(tenant.created_at),
            updated_at: time(tenant.updated_at),
        }
    }
}

/// An API key. Its text is shown once, by the answer that makes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// A name for people.
    name: Option<String>,
    /// The one endpoint that it is for; null for a key to everything of its tenant.
    endpoint: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// The key itself: keep it, it is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
}

impl KeyView {
    pub(crate) fn of(key: &ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            tenant: key.tenant.to_string(),
            name: key.name.clone(),
            endpoint: match &key.scope {
                KeyScope::Tenant => None,
                KeyScope::Endpoint(endpoint) => Some(endpoint.to_string()),
            },
            created_at: time(key.created_at),
            key: None,
        }
    }

    /// The same with the key's text.
    pub(crate) fn with_text(self, text: String) -> Self {
        Self {
            key: Some(text),
            ..self
        }
    }
}

/// That a secret exists; never the secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretView {
    /// Names the secret within its endpoint.
    id: String,
    /// RFC 3339.
    created_at: String,
    /// Signs until then; null for the current one.
    expires_at: Option<String>,
    /// The key that verifies what it signs with `v1a` (`whpk_…`); null where it signs with `v1`.
    public_key: Option<String>,
}

/// What a client shows in the TLS handshake; never its key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientCertificateView {
    /// The certificates, as PEM.
    certificate_pem: String,
}

/// Why the pipeline disabled an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DisabledView {
    /// `failing` or `gone`.
    #[schema(value_type = String)]
    reason: DisabledReason,
    /// RFC 3339.
    at: String,
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// A name for people.
    name: Option<String>,
    /// Where requests go.
    url: String,
    /// `active`, `paused` or `disabled`.
    #[schema(value_type = String)]
    state: EndpointState,
    /// How an event is written as a request's body.
    #[schema(value_type = String)]
    body: BodyMode,
    /// What it spends together with others.
    quota: String,
    /// The windows it allows.
    #[schema(value_type = Vec<Object>)]
    limits: Vec<RateWindow>,
    /// Requests at once.
    concurrency: Option<u32>,
    /// An attempt's total deadline.
    timeout_ms: Option<u32>,
    /// Waits between attempts.
    retry_schedule_ms: Option<Vec<u64>>,
    /// How those waits are spread: `small` or `full`.
    #[schema(value_type = String)]
    retry_jitter: RetryJitter,
    /// A delivery older than this ends.
    max_age_ms: Option<u64>,
    /// Several events in one request.
    #[schema(value_type = Option<Object>)]
    batch: Option<Batch>,
    /// How its answers are read where their status does not say all.
    #[schema(value_type = Option<Object>)]
    grammar: Option<Box<ResponseGrammar>>,
    /// Failing for longer than that disables it; null for 5 days, 0 for never.
    disable_after_ms: Option<u64>,
    /// Whether a probe that succeeds enables it again.
    reenable: bool,
    /// Why it is disabled, where the pipeline did it.
    disabled: Option<DisabledView>,
    /// How requests authenticate, without what is secret in it.
    #[schema(value_type = Option<Object>)]
    authentication: Option<Map<String, Value>>,
    /// Headers of its own.
    #[schema(value_type = Vec<Object>)]
    headers: Vec<StaticHeader>,
    /// In which case the names of our headers are sent.
    #[schema(value_type = String)]
    header_case: HeaderCase,
    /// Whether bodies are sent compressed.
    compress: bool,
    /// What the client shows in the TLS handshake.
    client_certificate: Option<ClientCertificateView>,
    /// Its signing secrets, the current one first.
    secrets: Vec<SecretView>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    /// The signing secret that was made: keep it, it is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
}

impl EndpointView {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let secret = |secret: &schemas::resources::SealedSecret| SecretView {
            id: secret.id.clone(),
            created_at: time(secret.created_at),
            expires_at: secret.expires_at.map(time),
            public_key: secret.public_key.clone(),
        };
        let certificate = endpoint.client_certificate.as_ref();
        Self {
            id: endpoint.id.to_string(),
            tenant: endpoint.tenant.to_string(),
            name: endpoint.name.clone(),
            url: endpoint.url.clone(),
            state: endpoint.state,
            body: endpoint.body,
            quota: endpoint.quota.to_string(),
            limits: endpoint.limits.clone(),
            concurrency: endpoint.concurrency.map(Into::into),
            timeout_ms: endpoint.timeout_ms.map(Into::into),
            retry_schedule_ms: endpoint.retry_schedule_ms.clone(),
            retry_jitter: endpoint.retry_jitter,
            max_age_ms: endpoint.max_age_ms,
            batch: endpoint.batch,
            grammar: endpoint.grammar.clone(),
            disable_after_ms: endpoint.disable_after_ms,
            reenable: endpoint.reenable,
            disabled: endpoint.disabled.map(|disabled| DisabledView {
                reason: disabled.reason,
                at: time(disabled.at),
            }),
            authentication: endpoint.authentication.as_ref().map(credentials::shown),
            headers: endpoint.headers.clone(),
            header_case: endpoint.header_case,
            compress: endpoint.compress,
            client_certificate: certificate.map(|known| ClientCertificateView {
                certificate_pem: known.certificate_pem.clone(),
            }),
            secrets: endpoint.secrets.iter().map(secret).collect(),
            created_at: time(endpoint.created_at),
            updated_at: time(endpoint.updated_at),
            secret: None,
        }
    }

    /// The same with the secret that was made for it.
    pub(crate) fn with_secret(self, secret: Option<String>) -> Self {
        Self { secret, ..self }
    }
}

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionView {
    /// Its id.
    id: String,
    /// Its tenant.
    tenant: String,
    /// Where matching events go.
    endpoint: String,
    /// A name for people.
    name: Option<String>,
    /// Which events; empty for all of the tenant.
    #[schema(value_type = Vec<Object>)]
    filters: Value,
    /// `active` or `paused`.
    #[schema(value_type = String)]
    state: SubscriptionState,
    /// Whether events of one key are delivered one after another.
    ordered: bool,
    /// What becomes of events on their way.
    #[schema(value_type = Option<Object>)]
    transform: Option<Box<Transform>>,
    /// Where it starts: `latest` or a time (RFC 3339); null for wherever routing was.
    start: Option<String>,
    /// How far the replay of past events is, where one subscription is read; else null.
    replay: Option<ReplayView>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

impl SubscriptionView {
    pub(crate) fn of(subscription: &Subscription) -> Self {
        Self {
            id: subscription.id.to_string(),
            tenant: subscription.tenant.to_string(),
            endpoint: subscription.endpoint.to_string(),
            name: subscription.name.clone(),
            filters: subscription.filters.to_json(),
            state: subscription.state,
            ordered: subscription.ordered,
            transform: subscription.transform.clone(),
            start: subscription.start.map(|start| start.from.to_string()),
            replay: None,
            created_at: time(subscription.created_at),
            updated_at: time(subscription.updated_at),
        }
    }
}

impl SubscriptionView {
    /// The same with how far its replay is.
    pub(crate) fn with_replay(self, replay: Option<ReplayView>) -> Self {
        Self { replay, ..self }
    }
}

/// How far a replay of past events is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayView {
    /// Events written at this time (RFC 3339) or later are replayed.
    pub(crate) from: String,
    /// Whether it goes on, and why not.
    pub(crate) state: ReplayState,
    /// Source partitions that it is over.
    pub(crate) partitions: usize,
    /// Those in which it is done.
    pub(crate) partitions_done: usize,
    /// Records that are left to read in the partitions in which it has begun; null while that is
    /// not known.
    pub(crate) left: Option<u64>,
}

/// Whether a replay goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayState {
    /// It does.
    Running,
    /// Its endpoint is paused or disabled.
    Waiting,
    /// Everything is routed.
    Done,
    /// The subscription was paused.
    Ended,
}

/// An endpoint and the subscription to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookView {
    /// The endpoint; with its secret where one was made.
    pub(crate) endpoint: EndpointView,
    /// The subscription.
    pub(crate) subscription: SubscriptionView,
}

/// A test event on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestView {
    /// The event's id.
    pub(crate) event_id: String,
    /// The delivery's id, which the request carries as `webhook-id`.
    pub(crate) delivery_id: String,
}

/// How pages of objects are shown: a type a kind, because each has a name in the document.
macro_rules! pages {
    ($($(#[doc = $doc:literal])+ $vis:vis $name:ident of $view:ident;)+) => {
        $($(#[doc = $doc])+
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        $vis struct $name {
            /// The page's objects.
            items: Vec<$view>,
            /// The cursor of the next page; null at the end.
            next: Option<String>,
        }

        impl From<$crate::api::answer::Page<$view>> for $name {
            fn from(page: $crate::api::answer::Page<$view>) -> Self {
                Self {
                    items: page.items,
                    next: page.next,
                }
            }
        })+
    };
}

pub(super) use pages;

pages! {
    /// A page of tenants.
    pub(crate) TenantPage of TenantView;
    /// A page of keys.
    pub(crate) KeyPage of KeyView;
    /// A page of endpoints.
    pub(crate) EndpointPage of EndpointView;
    /// A page of subscriptions.
    pub(crate) SubscriptionPage of SubscriptionView;
}

/// An error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemView {
    /// Identifies the kind of problem; a page about it is at this address.
    #[serde(rename = "type")]
    kind: String,
    /// The kind's title.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: Option<String>,
    /// What is wrong with which member.
    errors: Option<Vec<FaultView>>,
}

/// One fault of one member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FaultView {
    /// What is wrong.
    detail: String,
    /// JSON pointer to the member.
    pointer: String,
}
