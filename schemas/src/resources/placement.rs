//! Owns where an endpoint lives: the partition whose owner attempts it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{EndpointId, TenantId};

/// What endpoints of one account spend together. All endpoints of a quota share a placement.
/// Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quota(Arc<str>);

impl Quota {
    /// The quota of an endpoint that shares with nobody.
    pub fn of_endpoint(endpoint: EndpointId) -> Self {
        Self(endpoint.to_string().into())
    }

    /// The quota that a tenant's endpoints share under `name`.
    pub fn shared(tenant: &TenantId, name: &str) -> Self {
        Self(format!("{tenant}/{name}").into())
    }

    /// The quota whose text a record's key holds.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The quota's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition of `deliveries` and of every delay topic, fixed when an endpoint is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placement(u32);

impl Placement {
    /// hash(quota) mod the partition count recorded in `control`.
    pub fn of(quota: &Quota, partitions: NonZeroU32) -> Self {
        let hash = Sha256::digest(quota.as_str().as_bytes());
        let bits = hash
            .iter()
            .take(8)
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let partition = bits % u64::from(partitions.get());
        Self(u32::try_from(partition).unwrap_or(0))
    }

    /// The partition's number.
    pub const fn partition(self) -> u32 {
        self.0
    }
}
