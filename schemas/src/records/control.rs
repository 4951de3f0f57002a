//! Owns the records of `control`: the current state of one object under its id, `null` when it is
//! deleted; and what replicas report of it on `progress`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::ids::{
    CohortId, EndpointId, KeyId, RedriveId, SourceId, SubscriptionId, SyncId, TenantId,
};
use crate::resources::{ApiKey, Cohort, Endpoint, Redrive, Source, Subscription, Sync, Tenant};

/// Facts about the whole installation that must not change by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// The partition count that placements are computed with, never the count that Kafka reports.
    pub partitions: u32,
}

/// The key of a record on `control`: `kind/id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ControlKey {
    /// The one [`Installation`].
    Installation,
    /// A tenant.
    Tenant(TenantId),
    /// An API key.
    ApiKey(KeyId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A subscription.
    Subscription(SubscriptionId),
    /// A redrive.
    Redrive(RedriveId),
    /// A cohort.
    Cohort(CohortId),
    /// A sync.
    Sync(SyncId),
    /// A source.
    Source(SourceId),
}

impl fmt::Display for ControlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("installation/this"),
            Self::Tenant(id) => write!(f, "tenant/{id}"),
            Self::ApiKey(id) => write!(f, "key/{id}"),
            Self::Endpoint(id) => write!(f, "endpoint/{id}"),
            Self::Subscription(id) => write!(f, "subscription/{id}"),
            Self::Redrive(id) => write!(f, "redrive/{id}"),
            Self::Cohort(id) => write!(f, "cohort/{id}"),
            Self::Sync(id) => write!(f, "sync/{id}"),
            Self::Source(id) => write!(f, "source/{id}"),
        }
    }
}

impl FromStr for ControlKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        fn id<T: FromStr>(text: &str) -> Result<T, Error> {
            text.parse().map_err(|_| Error::Invalid("control key"))
        }
        match text.split_once('/') {
            Some(("installation", "this")) => Ok(Self::Installation),
            Some(("tenant", rest)) => id(rest).map(Self::Tenant),
            Some(("key", rest)) => id(rest).map(Self::ApiKey),
            Some(("endpoint", rest)) => id(rest).map(Self::Endpoint),
            Some(("subscription", rest)) => id(rest).map(Self::Subscription),
            Some(("redrive", rest)) => id(rest).map(Self::Redrive),
            Some(("cohort", rest)) => id(rest).map(Self::Cohort),
            Some(("sync", rest)) => id(rest).map(Self::Sync),
            Some(("source", rest)) => id(rest).map(Self::Source),
            Some(_) | None => Err(Error::Invalid("control key")),
        }
    }
}

/// The value of a record on `control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlObject {
    /// The installation's facts.
    Installation(Installation),
    /// A tenant.
    Tenant(Tenant),
    /// An API key (its hash, never the key).
    ApiKey(ApiKey),
    /// An endpoint, its secrets sealed.
    Endpoint(Box<Endpoint>),
    /// A subscription.
    Subscription(Box<Subscription>),
    /// A redrive.
    Redrive(Box<Redrive>),
    /// A cohort, without its members.
    Cohort(Cohort),
    /// A sync.
    Sync(Box<Sync>),
    /// A source.
    Source(Box<Source>),
}

impl ControlObject {
    /// The key it is stored under.
    pub fn key(&self) -> ControlKey {
        match self {
            Self::Installation(_) => ControlKey::Installation,
            Self::Tenant(tenant) => ControlKey::Tenant(tenant.id.clone()),
            Self::ApiKey(key) => ControlKey::ApiKey(key.id),
            Self::Endpoint(endpoint) => ControlKey::Endpoint(endpoint.id),
            Self::Subscription(subscription) => ControlKey::Subscription(subscription.id),
            Self::Redrive(redrive) => ControlKey::Redrive(redrive.id),
            Self::Cohort(cohort) => ControlKey::Cohort(cohort.id),
            Self::Sync(sync) => ControlKey::Sync(sync.id),
            Self::Source(source) => ControlKey::Source(source.id),
        }
    }

    /// The record's value: `{"version":1,"kind":…}`.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Versioned<'a> {
            version: u8,
            #[serde(flatten)]
            object: &'a ControlObject,
        }
        // Maps have text keys and numbers are finite: writing cannot fail.
        serde_json::to_vec(&Versioned {
            version: 1,
            object: self,
        })
        .unwrap_or_default()
    }

    /// Reads a value back. Members that a later version added are ignored.
    ///
    /// # Errors
    /// An unknown version or kind, or JSON that does not fit.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        super::decode_json(value)
    }
}

/// How much of `control` a replica has applied; on `progress` under `applied/<service>/<instance>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The version of this record's form: 1.
    pub version: u8,
    /// `router` or `dispatcher`.
    pub service: String,
    /// The replica's instance name.
    pub instance: String,
    /// The offset behind the last record of `control` that it has applied.
    pub control_offset: i64,
    /// When it said so, unix milliseconds.
    pub at: i64,
}

impl Applied {
    /// The key on `progress`.
    pub fn key(&self) -> String {
        format!("applied/{}/{}", self.service, self.instance)
    }
}
