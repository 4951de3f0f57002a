//! Owns how many ordered subscriptions each tenant has: the events of a tenant that has one are
//! never moved to `events.bulk` (rule 12).
//!
//! It must never know anything else of a subscription. The surprise: a paused one counts, since
//! what was published meanwhile is in the way of what comes when it is resumed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemas::ids::{SubscriptionId, TenantId};
use schemas::resources::Subscription;

/// The ordered subscriptions of all tenants.
#[derive(Debug, Default)]
pub(crate) struct OrderedSubscriptions {
    /// A deletion names the subscription alone.
    tenants: HashMap<SubscriptionId, TenantId>,
    counts: HashMap<TenantId, OrderedCount>,
}

/// How many a tenant has, as it is now.
#[derive(Debug, Clone, Default)]
pub(crate) struct OrderedCount(Arc<AtomicUsize>);

impl OrderedCount {
    /// Whether there is one.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl OrderedSubscriptions {
    /// Takes over a subscription as it is from now on; none where it was deleted.
    pub(crate) fn apply(&mut self, id: SubscriptionId, subscription: Option<&Subscription>) {
        if let Some(tenant) = self.tenants.remove(&id) {
            self.of(&tenant).0.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(subscription) = subscription.filter(|subscription| subscription.ordered) {
            self.tenants.insert(id, subscription.tenant.clone());
            let count = self.of(&subscription.tenant);
            count.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The count of a tenant, which goes on counting.
    pub(crate) fn of(&mut self, tenant: &TenantId) -> OrderedCount {
        match self.counts.get(tenant) {
            Some(count) => count.clone(),
            None => self.counts.entry(tenant.clone()).or_default().clone(),
        }
    }

    /// Forgets a tenant that was deleted.
    pub(crate) fn forget(&mut self, tenant: &TenantId) {
        if self.counts.get(tenant).is_some_and(|count| !count.is_any()) {
            self.counts.remove(tenant);
        }
    }
}
