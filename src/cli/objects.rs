//! Owns the flags of the commands about tenants, keys, endpoints, subscriptions and webhooks.
//!
//! It must never check a value that the API checks: the API names the member, and so the flag.

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `anabranch tenant`.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant
    Create {
        /// Its slug: a-z, 0-9 and `-`
        id: String,
        #[command(flatten)]
        fields: TenantFields,
        #[command(flatten)]
        common: Common,
    },
    /// List them, one JSON object a line
    List(Common),
    /// Show one
    Show {
        /// Its slug
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change one; what is not said stays
    Update {
        /// Its slug
        id: String,
        #[command(flatten)]
        fields: TenantFields,
        #[command(flatten)]
        common: Common,
    },
    /// Delete one that has no objects left
    Delete {
        /// Its slug
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What is said of a tenant.
#[derive(Debug, Args)]
pub(crate) struct TenantFields {
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Events a second that ingest takes
    #[arg(long, value_name = "N")]
    pub(crate) events_per_second: Option<u32>,
    /// Bytes a second that ingest takes
    #[arg(long, value_name = "N")]
    pub(crate) bytes_per_second: Option<u32>,
}

/// `anabranch key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; its text is shown once
    Create {
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// Only for this endpoint's owner: see, pause, resume, rotate
        #[arg(long, value_name = "ID")]
        endpoint: Option<String>,
        #[command(flatten)]
        tenant: Tenant,
        #[command(flatten)]
        common: Common,
    },
    /// List them, one JSON object a line
    List(OfTenant),
    /// Delete one: from then on it is refused
    Delete(One),
}

/// `anabranch endpoint`.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    pub(crate) command: EndpointCommand,
}

/// What to do with endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Make an endpoint; a signing secret that is made for it is shown once
    Create {
        #[command(flatten)]
        fields: EndpointFields,
        #[command(flatten)]
        new: NewEndpoint,
        #[command(flatten)]
        tenant: Tenant,
        #[command(flatten)]
        common: Common,
    },
    /// List them, one JSON object a line
    List(OfTenant),
    /// Show one
    Show(One),
    /// Change one; what is not said stays
    Update {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        fields: EndpointFields,
    },
    /// Delete one, and its subscriptions
    Delete(One),
    /// Hold its deliveries
    Pause(One),
    /// Deliver again
    Resume(One),
    /// Replace its signing secret; the old one signs too for a while
    RotateSecret {
        #[command(flatten)]
        one: One,
        /// The new secret (`whsec_…`); else one is made and shown once
        #[arg(long)]
        secret: Option<String>,
        /// Seconds for which the old one still signs; a day where absent
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u32>,
    },
    /// Send it a test event
    Test(One),
}

/// What is said of an endpoint, and may be changed.
#[derive(Debug, Args)]
pub(crate) struct EndpointFields {
    /// Where requests go
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How events are written: structured, binary, `standard_webhooks`, data or form
    #[arg(long, value_name = "MODE")]
    pub(crate) body: Option<String>,
    /// A rate window, e.g. `50/1s`, `5000/1m,sliding` or `100000/1d,fixed,items,offset=9h`; may be
    /// repeated, all hold. `burst=N` lets N come at once
    #[arg(long = "limit", value_name = "COUNT/TIME")]
    pub(crate) limits: Vec<String>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// An attempt's total deadline in milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u32>,
    /// Other members, as a JSON object; see `/v1/openapi.json`
    #[arg(long, value_name = "OBJECT")]
    pub(crate) json: Option<String>,
}

/// What is said of an endpoint when it is made.
#[derive(Debug, Args)]
pub(crate) struct NewEndpoint {
    /// The signing secret (`whsec_…`); else one is made
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// The quota that it shares with other endpoints of the tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) quota: Option<String>,
}

/// `anabranch subscription`.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionArgs {
    #[command(subcommand)]
    pub(crate) command: SubscriptionCommand,
}

/// What to do with subscriptions.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Make a subscription
    Create {
        /// The endpoint that matching events go to
        #[arg(long, value_name = "ID")]
        endpoint: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        events: WhichEvents,
        #[command(flatten)]
        tenant: Tenant,
        #[command(flatten)]
        common: Common,
    },
    /// List them, one JSON object a line
    List(OfTenant),
    /// Show one
    Show(One),
    /// Change one; what is not said stays
    Update {
        #[command(flatten)]
        one: One,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        events: WhichEvents,
    },
    /// Delete one
    Delete(One),
    /// Let events pass it by
    Pause(One),
    /// Route to it again
    Resume(One),
}

/// Which events a subscription wants; all where nothing is said.
#[derive(Debug, Args)]
pub(crate) struct WhichEvents {
    /// An event type; may be repeated, any of them matches
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "filters")]
    pub(crate) types: Vec<String>,
    /// Filters as a JSON array, e.g. `[{"prefix":{"type":"com.acme."}}]`; all must match
    #[arg(long, value_name = "ARRAY")]
    pub(crate) filters: Option<String>,
}

/// `anabranch webhook`.
#[derive(Debug, Args)]
pub(crate) struct WebhookArgs {
    #[command(subcommand)]
    pub(crate) command: WebhookCommand,
}

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Make an endpoint and a subscription to it in one call
    Create {
        #[command(flatten)]
        fields: EndpointFields,
        #[command(flatten)]
        new: NewEndpoint,
        #[command(flatten)]
        events: WhichEvents,
        #[command(flatten)]
        tenant: Tenant,
        #[command(flatten)]
        common: Common,
    },
}

/// Whose objects.
#[derive(Debug, Args)]
pub(crate) struct Tenant {
    /// The tenant
    #[arg(long, env = "ANABRANCH_TENANT")]
    pub(crate) tenant: String,
}

/// One object of a tenant.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) tenant: Tenant,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// All objects of a tenant.
#[derive(Debug, Args)]
pub(crate) struct OfTenant {
    #[command(flatten)]
    pub(crate) tenant: Tenant,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every one of these commands takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Do not wait until routers and dispatchers have applied the change
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
