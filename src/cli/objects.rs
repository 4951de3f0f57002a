//! Owns the flags of the commands about tenants, keys, endpoints, subscriptions and webhooks.
//!
//! It must never check a value that the API checks: the API names the member, and so the flag.

use std::path::PathBuf;

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
    /// Events a second that it may send before it makes way for others
    #[arg(long, value_name = "N")]
    pub(crate) fair_share_events: Option<u32>,
    /// Bytes a second that it may send before it makes way for others
    #[arg(long, value_name = "N")]
    pub(crate) fair_share_bytes: Option<u32>,
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
        /// What the new secret signs with: v1 or v1a; as the old one where absent
        #[arg(long, value_name = "VERSION")]
        signature: Option<String>,
    },
    /// Replace the password, token, API key or client secret that its requests authenticate with
    RotateCredential {
        #[command(flatten)]
        one: One,
        /// The new one; `@FILE` reads it from a file
        #[arg(long)]
        value: String,
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
    #[command(flatten)]
    pub(crate) sending: Sending,
    /// Other members, as a JSON object; see `/v1/openapi.json`
    #[arg(long, value_name = "OBJECT")]
    pub(crate) json: Option<String>,
}

/// How requests to an endpoint are made up.
#[derive(Debug, Default, Args)]
pub(crate) struct Sending {
    /// Events in one request: `ITEMS[,bytes=N][,wait=TIME][,format=array]`
    #[arg(long, value_name = "ITEMS")]
    pub(crate) batch: Option<String>,
    /// How answers are read: a response grammar, as a JSON object; `@FILE` reads it from a file
    #[arg(long, value_name = "@FILE")]
    pub(crate) grammar: Option<String>,
    /// Disable it when it has failed for so long: `5d`, or `never`
    #[arg(long, value_name = "TIME")]
    pub(crate) disable_after: Option<String>,
    /// Enable it by itself when it answers again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) reenable: Option<bool>,
    /// A header on every request, `NAME: VALUE`; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Case of our headers' names over HTTP/1.1: lower or title
    #[arg(long, value_name = "CASE")]
    pub(crate) header_case: Option<String>,
    /// Compress bodies (gzip)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) compress: Option<bool>,
    /// Basic authentication; `USER:@FILE` reads the password from a file
    #[arg(long, value_name = "USER:PASSWORD", group = "authentication")]
    pub(crate) basic: Option<String>,
    /// Bearer token; `@FILE` reads it from a file
    #[arg(long, value_name = "TOKEN", group = "authentication")]
    pub(crate) bearer: Option<String>,
    /// A key in a header; `HEADER:@FILE` reads it from a file
    #[arg(long, value_name = "HEADER:VALUE", group = "authentication")]
    pub(crate) api_key: Option<String>,
    /// OAuth 2.0 client credentials:
    /// `TOKEN_URL,CLIENT_ID:SECRET[,scope=…][,audience=…][,client_in=body]`; the secret may be
    /// `@FILE`
    #[arg(long, value_name = "TOKEN_URL,ID:SECRET", group = "authentication")]
    pub(crate) oauth2: Option<String>,
    /// File with the client's certificate and its chain, for mutual TLS
    #[arg(long, value_name = "FILE")]
    pub(crate) client_certificate: Option<String>,
    /// File with the certificate's private key
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key: Option<String>,
}

/// What is said of an endpoint when it is made.
#[derive(Debug, Args)]
pub(crate) struct NewEndpoint {
    /// The signing secret (`whsec_…`); else one is made
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// What the secret that is made signs with: v1 (HMAC) or v1a (ed25519; its public key is shown)
    #[arg(long, value_name = "VERSION")]
    pub(crate) signature: Option<String>,
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
        start: WhereFrom,
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
    /// Deliver events of one key (`partitionkey`, else `subject`, else `source`) one after another
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) ordered: Option<bool>,
    /// What becomes of events on their way: a transform as JSON in a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) transform: Option<PathBuf>,
    /// Send events as they are
    #[arg(long, conflicts_with = "transform")]
    pub(crate) no_transform: bool,
}

/// Where a new subscription starts.
#[derive(Debug, Args)]
pub(crate) struct WhereFrom {
    /// Which events of the past it gets: `latest` for none, or those since a time, e.g.
    /// `2026-11-22T08:00:00Z`; where routing is when nothing is said
    #[arg(long, value_name = "latest|TIME")]
    pub(crate) start: Option<String>,
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
        start: WhereFrom,
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
