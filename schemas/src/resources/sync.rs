//! Owns the sync as it is stored: which cohort an endpoint's list is made equal to, and how.
//!
//! How far a run is lies beside the roster and never here. The surprise: a sync holds its profile
//! whole, so that a new version of the profile changes nothing under a run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Placement, Schedule};
use crate::ids::{CohortId, EndpointId, SubscriptionId, SyncId, TenantId};
use crate::profile::Profile;

/// The share of a list in per cent that a run may remove without approval, where nothing else is
/// said.
pub const REMOVALS_MAX_PERCENT: u8 = 20;

/// Makes an endpoint's copy of a cohort equal to the cohort, whenever it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Its id.
    pub id: SyncId,
    /// Its tenant.
    pub tenant: TenantId,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whom it sends; never changes.
    pub cohort: CohortId,
    /// Where they go; never changes.
    pub endpoint: EndpointId,
    /// Its own subscription, hidden, so that its chunks have delivery ids (rule 4).
    pub subscription: SubscriptionId,
    /// The endpoint's partition, repeated here so that whoever writes chunks needs no endpoints.
    pub placement: Placement,
    /// What the partner takes and how it answers, as it was when the sync was made.
    pub profile: Box<Profile>,
    /// What its templates are told beside the members.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
    /// The partner's list by its id there, where it existed before the sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// When it runs by itself; `None` for when it is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What becomes of a run that is not over when the next is due.
    #[serde(default)]
    pub overlap: Overlap,
    /// A run that removes a larger share of the list than that waits for approval; 100 for never.
    #[serde(default = "removals")]
    pub removals_max_percent: u8,
    /// Whether it runs.
    #[serde(default)]
    pub state: SyncState,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// What becomes of a run that is not over when the next is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It goes on with the newest snapshot from its next chunk on.
    #[default]
    Replace,
    /// It is finished, and the next begins then.
    Finish,
    /// It is finished, and the next is left out.
    Skip,
}

/// Whether a sync runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It runs when it is due or told to.
    #[default]
    Active,
    /// Held by its owner: nothing new is sent.
    Paused,
}

impl Sync {
    /// The source of the events that its chunks are.
    #[must_use]
    pub fn source(&self) -> String {
        format!("/syncs/{}", self.id)
    }
}

fn removals() -> u8 {
    REMOVALS_MAX_PERCENT
}
