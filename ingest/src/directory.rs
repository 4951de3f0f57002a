//! Owns the tenants and API keys as `control` has them, and each tenant's rates and fair share.
//!
//! It must never hold a key in the clear. The surprise: a tenant that is changed keeps its rates'
//! state unless the rates themselves change, so that renaming one grants nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use runtime::auth::Keys;
use runtime::view::Change;
use schemas::ids::{KeyId, TenantId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{ApiKey, Tenant};

use crate::admit::{Rates, Share, ShareRates};
use crate::options::Options;
use crate::ordered::{OrderedCount, OrderedSubscriptions};

/// A tenant that may send.
#[derive(Debug)]
pub(crate) struct TenantEntry {
    pub(crate) id: TenantId,
    pub(crate) rates: Arc<Rates>,
    pub(crate) share: Arc<Share>,
    /// Its ordered subscriptions: with one it is never moved to `events.bulk`.
    pub(crate) ordered: OrderedCount,
    quota: Quota,
}

/// Events and bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    events: u64,
    bytes: u64,
}

/// Tenants by name and keys by id.
#[derive(Debug)]
pub(crate) struct Directory {
    defaults: Quota,
    default_share: ShareRates,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<TenantId, Arc<TenantEntry>>,
    keys: HashMap<KeyId, Arc<ApiKey>>,
    ordered: OrderedSubscriptions,
}

impl Keys for Directory {
    fn key(&self, id: KeyId) -> Option<Arc<ApiKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.keys.get(&id).cloned()
    }
}

impl Directory {
    pub(crate) fn new(options: &Options) -> Self {
        let defaults = Quota {
            events: options.tenant_events_per_second,
            bytes: options.tenant_bytes_per_second,
        };
        Self {
            defaults,
            default_share: ShareRates {
                events: some(options.fair_share_events_per_second),
                bytes: some(options.fair_share_bytes_per_second),
            },
            known: RwLock::default(),
        }
    }

    /// The tenant of that name.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<Arc<TenantEntry>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.tenants.get(id).cloned()
    }

    /// Takes over what changed, in order.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for Change { key, object } in changes {
            match (key, object) {
                (ControlKey::Tenant(id), Some(ControlObject::Tenant(tenant))) => {
                    let ordered = known.ordered.of(&id);
                    let before = known.tenants.get(&id);
                    let entry = self.entry(&tenant, ordered, before);
                    known.tenants.insert(id, entry);
                }
                (ControlKey::Tenant(id), _) => {
                    known.tenants.remove(&id);
                    known.ordered.forget(&id);
                }
                (ControlKey::Subscription(id), Some(ControlObject::Subscription(subscription))) => {
                    known.ordered.apply(id, Some(&subscription));
                }
                (ControlKey::Subscription(id), _) => known.ordered.apply(id, None),
                (ControlKey::ApiKey(id), Some(ControlObject::ApiKey(key))) => {
                    known.keys.insert(id, Arc::new(key));
                }
                (ControlKey::ApiKey(id), _) => drop(known.keys.remove(&id)),
                (
                    ControlKey::Installation
                    | ControlKey::Endpoint(_)
                    | ControlKey::Redrive(_)
                    | ControlKey::Cohort(_)
                    | ControlKey::Sync(_)
                    | ControlKey::Source(_),
                    _,
                ) => {}
            }
        }
    }

    fn entry(
        &self,
        tenant: &Tenant,
        ordered: OrderedCount,
        before: Option<&Arc<TenantEntry>>,
    ) -> Arc<TenantEntry> {
        let quota = Quota {
            events: tenant
                .events_per_second
                .map_or(self.defaults.events, |n| n.get().into()),
            bytes: tenant
                .bytes_per_second
                .map_or(self.defaults.bytes, |n| n.get().into()),
        };
        let own = tenant.fair_share;
        let share = ShareRates {
            events: own.events_per_second.map(|n| n.get().into()),
            bytes: own.bytes_per_second.map(|n| n.get().into()),
        }
        .or(self.default_share);
        let rates = before
            .filter(|before| before.quota == quota)
            .map(|before| Arc::clone(&before.rates));
        let kept = before
            .filter(|before| before.share.rates() == share)
            .map(|before| Arc::clone(&before.share));
        Arc::new(TenantEntry {
            id: tenant.id.clone(),
            rates: rates.unwrap_or_else(|| Arc::new(Rates::new(quota.events, quota.bytes))),
            share: kept.unwrap_or_else(|| Arc::new(Share::new(share))),
            ordered,
            quota,
        })
    }
}

/// A rate; 0 is none.
fn some(rate: u64) -> Option<u64> {
    (rate > 0).then_some(rate)
}
