//! Owns the objects in memory: what the compacted topic says, with the indexes that listing needs.
//!
//! Never changes by itself: only changes read from the log are applied to it. The surprise: an
//! object whose tenant is gone is kept and listed nowhere; only a hand-written topic has one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;

use runtime::view::{Change, Update};
use schemas::ids::{
    CohortId, EndpointId, KeyId, RedriveId, SourceId, SubscriptionId, SyncId, TenantId,
};
use schemas::records::{ControlKey, ControlObject, Installation};
use schemas::resources::{
    ApiKey, Cohort, Endpoint, Redrive, RedriveState, Source, Subscription, Sync, Tenant,
};

/// Everything that control knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    installation: Option<Installation>,
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// API keys.
    pub(crate) keys: Table<KeyId, ApiKey>,
    /// Endpoints.
    pub(crate) endpoints: Table<EndpointId, Endpoint>,
    /// Subscriptions.
    pub(crate) subscriptions: Table<SubscriptionId, Subscription>,
    /// Redrives, those that are over too.
    pub(crate) redrives: Table<RedriveId, Redrive>,
    /// Cohorts.
    pub(crate) cohorts: Table<CohortId, Cohort>,
    /// Syncs.
    pub(crate) syncs: Table<SyncId, Sync>,
    /// Sources.
    pub(crate) sources: Table<SourceId, Source>,
    running: BTreeSet<RedriveId>,
    by_endpoint: BTreeMap<EndpointId, BTreeSet<SubscriptionId>>,
    applied: i64,
}

/// Belongs to a tenant.
pub(crate) trait Owned {
    /// The tenant.
    fn tenant(&self) -> &TenantId;
}

/// Objects of one kind, by id and by tenant.
#[derive(Debug)]
pub(crate) struct Table<I, T> {
    rows: HashMap<I, Arc<T>>,
    by_tenant: BTreeMap<TenantId, BTreeSet<I>>,
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            by_tenant: BTreeMap::new(),
        }
    }
}

impl<I: Copy + Ord + Hash, T: Owned> Table<I, T> {
    /// The object `id`, whatever its tenant.
    pub(crate) fn get(&self, id: I) -> Option<&Arc<T>> {
        self.rows.get(&id)
    }

    /// The object `id` of `tenant`.
    pub(crate) fn of(&self, tenant: &TenantId, id: I) -> Option<&Arc<T>> {
        self.get(id).filter(|row| row.tenant() == tenant)
    }

    /// A tenant's objects behind `after`, in the order of their ids.
    pub(crate) fn page<'a>(
        &'a self,
        tenant: &TenantId,
        after: Option<I>,
    ) -> impl Iterator<Item = (I, &'a Arc<T>)> + use<'a, I, T> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        let ids = self.by_tenant.get(tenant).into_iter();
        ids.flat_map(move |ids| ids.range((start, Unbounded)))
            .filter_map(|id| self.rows.get(id).map(|row| (*id, row)))
    }

    /// All of every tenant, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (I, &Arc<T>)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// How many a tenant has.
    pub(crate) fn count(&self, tenant: &TenantId) -> usize {
        self.by_tenant.get(tenant).map_or(0, BTreeSet::len)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn put(&mut self, id: I, row: T) {
        self.remove(id);
        self.by_tenant
            .entry(row.tenant().clone())
            .or_default()
            .insert(id);
        self.rows.insert(id, Arc::new(row));
    }

    fn remove(&mut self, id: I) -> Option<Arc<T>> {
        let row = self.rows.remove(&id)?;
        if let Some(ids) = self.by_tenant.get_mut(row.tenant()) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_tenant.remove(row.tenant());
            }
        }
        Some(row)
    }
}

impl State {
    /// Applies changes that the log holds.
    pub(super) fn apply(&mut self, update: Update) {
        self.applied = update.applied;
        for change in update.changes {
            match change.object {
                Some(object) => self.put(object),
                None => self.remove(&change.key),
            }
        }
    }

    /// The offset behind the last record of `control` that this comes from.
    pub(crate) fn applied(&self) -> i64 {
        self.applied
    }

    fn put(&mut self, object: ControlObject) {
        match object {
            ControlObject::Installation(installation) => self.installation = Some(installation),
            ControlObject::Tenant(tenant) => {
                self.tenants.insert(tenant.id.clone(), Arc::new(tenant));
            }
            ControlObject::ApiKey(key) => self.keys.put(key.id, key),
            ControlObject::Endpoint(endpoint) => self.endpoints.put(endpoint.id, *endpoint),
            ControlObject::Subscription(subscription) => {
                let (endpoint, id) = (subscription.endpoint, subscription.id);
                self.by_endpoint.entry(endpoint).or_default().insert(id);
                self.subscriptions.put(id, *subscription);
            }
            ControlObject::Redrive(redrive) => {
                if redrive.state == RedriveState::Running {
                    self.running.insert(redrive.id);
                } else {
                    self.running.remove(&redrive.id);
                }
                self.redrives.put(redrive.id, *redrive);
            }
            ControlObject::Cohort(cohort) => self.cohorts.put(cohort.id, cohort),
            ControlObject::Sync(sync) => self.syncs.put(sync.id, *sync),
            ControlObject::Source(source) => self.sources.put(source.id, *source),
        }
    }

    fn remove(&mut self, key: &ControlKey) {
        match key {
            ControlKey::Installation => self.installation = None,
            ControlKey::Tenant(id) => {
                self.tenants.remove(id);
            }
            ControlKey::ApiKey(id) => {
                self.keys.remove(*id);
            }
            ControlKey::Endpoint(id) => {
                self.endpoints.remove(*id);
            }
            ControlKey::Subscription(id) => {
                if let Some(row) = self.subscriptions.remove(*id)
                    && let Some(ids) = self.by_endpoint.get_mut(&row.endpoint)
                {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.by_endpoint.remove(&row.endpoint);
                    }
                }
            }
            ControlKey::Redrive(id) => {
                self.running.remove(id);
                self.redrives.remove(*id);
            }
            ControlKey::Cohort(id) => {
                self.cohorts.remove(*id);
            }
            ControlKey::Sync(id) => {
                self.syncs.remove(*id);
            }
            ControlKey::Source(id) => {
                self.sources.remove(*id);
            }
        }
    }

    /// Whether `change` is what the state says already.
    pub(super) fn holds(&self, change: &Change) -> bool {
        self.object(&change.key) == change.object
    }

    /// The object under `key`, as it is stored.
    fn object(&self, key: &ControlKey) -> Option<ControlObject> {
        match key {
            ControlKey::Installation => self.installation.clone().map(ControlObject::Installation),
            ControlKey::Tenant(id) => self
                .tenant(id)
                .map(|row| ControlObject::Tenant(row.as_ref().clone())),
            ControlKey::ApiKey(id) => self
                .keys
                .get(*id)
                .map(|row| ControlObject::ApiKey(row.as_ref().clone())),
            ControlKey::Endpoint(id) => {
                let row = self.endpoints.get(*id)?;
                Some(ControlObject::Endpoint(Box::new(row.as_ref().clone())))
            }
            ControlKey::Subscription(id) => {
                let row = self.subscriptions.get(*id)?;
                Some(ControlObject::Subscription(Box::new(row.as_ref().clone())))
            }
            ControlKey::Redrive(id) => {
                let row = self.redrives.get(*id)?;
                Some(ControlObject::Redrive(Box::new(row.as_ref().clone())))
            }
            ControlKey::Cohort(id) => {
                let row = self.cohorts.get(*id)?;
                Some(ControlObject::Cohort(row.as_ref().clone()))
            }
            ControlKey::Sync(id) => {
                let row = self.syncs.get(*id)?;
                Some(ControlObject::Sync(Box::new(row.as_ref().clone())))
            }
            ControlKey::Source(id) => {
                let row = self.sources.get(*id)?;
                Some(ControlObject::Source(Box::new(row.as_ref().clone())))
            }
        }
    }

    /// The partition count that placements are computed with.
    pub(crate) fn partitions(&self) -> Option<NonZeroU32> {
        self.installation
            .as_ref()
            .and_then(|facts| NonZeroU32::new(facts.partitions))
    }

    /// The tenant `id`.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// Tenants behind `after`, in the order of their ids.
    pub(crate) fn tenants(&self, after: Option<&TenantId>) -> impl Iterator<Item = &Arc<Tenant>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        self.tenants
            .range::<TenantId, _>((start, Unbounded))
            .map(|(_, tenant)| tenant)
    }

    /// How many tenants there are.
    pub(crate) fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// The redrives that are not over, the oldest first.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Arc<Redrive>> {
        self.running.iter().filter_map(|id| self.redrives.get(*id))
    }

    /// The subscriptions of an endpoint.
    pub(crate) fn subscriptions_of(
        &self,
        endpoint: EndpointId,
    ) -> impl Iterator<Item = SubscriptionId> {
        self.by_endpoint
            .get(&endpoint)
            .into_iter()
            .flatten()
            .copied()
    }
}

impl Owned for ApiKey {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Endpoint {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Redrive {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Subscription {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Cohort {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Sync {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Owned for Source {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}
