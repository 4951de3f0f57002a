//! Owns the cohort as it is stored: its name, and nothing of its members.
//!
//! Members lie in snapshots, which are data and never pass through `control`.

use serde::{Deserialize, Serialize};

use crate::ids::{CohortId, TenantId};

/// A named set of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    /// Its id.
    pub id: CohortId,
    /// Its tenant.
    pub tenant: TenantId,
    /// A name for people.
    pub name: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}
