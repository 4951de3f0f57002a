//! Owns the part of `control` that syncs need: tenants, keys, cohorts, syncs, and of endpoints what
//! says whether they take anything.
//!
//! It must never hold a secret.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use runtime::auth::Keys;
use runtime::view::Change;
use schemas::ids::{CohortId, EndpointId, KeyId, SyncId, TenantId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{ApiKey, Cohort, EndpointState, Quota, RateWindow, Sync};

/// What a sync must know of its endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EndpointFacts {
    pub(crate) state: EndpointState,
    pub(crate) max_age_ms: Option<u64>,
    pub(crate) windows: Vec<RateWindow>,
    pub(crate) quota: Quota,
}

/// Objects by their ids.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: RwLock<Known>,
    applied: AtomicI64,
}

#[derive(Debug, Default)]
struct Known {
    tenants: HashSet<TenantId>,
    keys: HashMap<KeyId, Arc<ApiKey>>,
    cohorts: HashMap<CohortId, Arc<Cohort>>,
    syncs: HashMap<SyncId, Arc<Sync>>,
    endpoints: HashMap<EndpointId, EndpointFacts>,
}

impl Keys for Directory {
    fn key(&self, id: KeyId) -> Option<Arc<ApiKey>> {
        self.read(|known| known.keys.get(&id).cloned())
    }
}

impl Directory {
    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much of `control` this is.
    pub(crate) fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn has_tenant(&self, id: &TenantId) -> bool {
        self.read(|known| known.tenants.contains(id))
    }

    pub(crate) fn cohort(&self, id: CohortId) -> Option<Arc<Cohort>> {
        self.read(|known| known.cohorts.get(&id).cloned())
    }

    pub(crate) fn sync(&self, id: SyncId) -> Option<Arc<Sync>> {
        self.read(|known| known.syncs.get(&id).cloned())
    }

    pub(crate) fn syncs(&self) -> Vec<SyncId> {
        self.read(|known| known.syncs.keys().copied().collect())
    }

    /// The syncs of a cohort.
    pub(crate) fn syncs_of(&self, cohort: CohortId) -> Vec<Arc<Sync>> {
        let is_its = |sync: &&Arc<Sync>| sync.cohort == cohort;
        self.read(|known| known.syncs.values().filter(is_its).cloned().collect())
    }

    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<EndpointFacts> {
        self.read(|known| known.endpoints.get(&id).cloned())
    }

    /// Takes over what changed, in order.
    pub(crate) fn apply(&self, changes: Vec<Change>, applied: i64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            known.apply(change);
        }
        self.applied.store(applied, Ordering::Release);
    }
}

impl Known {
    fn apply(&mut self, Change { key, object }: Change) {
        match (key, object) {
            (ControlKey::Tenant(id), Some(_)) => drop(self.tenants.insert(id)),
            (ControlKey::Tenant(id), None) => drop(self.tenants.remove(&id)),
            (ControlKey::ApiKey(id), Some(ControlObject::ApiKey(key))) => {
                self.keys.insert(id, Arc::new(key));
            }
            (ControlKey::ApiKey(id), _) => drop(self.keys.remove(&id)),
            (ControlKey::Cohort(id), Some(ControlObject::Cohort(cohort))) => {
                self.cohorts.insert(id, Arc::new(cohort));
            }
            (ControlKey::Cohort(id), _) => drop(self.cohorts.remove(&id)),
            (ControlKey::Sync(id), Some(ControlObject::Sync(sync))) => {
                self.syncs.insert(id, Arc::from(sync));
            }
            (ControlKey::Sync(id), _) => drop(self.syncs.remove(&id)),
            (ControlKey::Endpoint(id), Some(ControlObject::Endpoint(endpoint))) => {
                let facts = EndpointFacts {
                    state: endpoint.state,
                    max_age_ms: endpoint.max_age_ms,
                    windows: endpoint.limits.clone(),
                    quota: endpoint.quota.clone(),
                };
                self.endpoints.insert(id, facts);
            }
            (ControlKey::Endpoint(id), _) => drop(self.endpoints.remove(&id)),
            (
                ControlKey::Installation
                | ControlKey::Subscription(_)
                | ControlKey::Redrive(_)
                | ControlKey::Source(_),
                _,
            ) => {}
        }
    }
}
