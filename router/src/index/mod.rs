//! Owns which subscriptions an event is for: an index of every active subscription, by tenant,
//! event type, and what their filters ask for, that stands for one position of `control`.
//!
//! It must never name a subscription of another tenant than the event's, and never panic, whatever
//! the event. The surprise: it is patched in place between two events; who needs its answer for
//! longer holds the tenant's [`Entries`], of which a change copies a small piece.

mod bucket;
mod buckets;
mod decided;
mod entries;
mod hits;
mod keys;
mod layouts;
mod lines;
mod lists;
mod operands;
mod ranges;
mod rules;
mod tenant;
mod texts;
mod wanted;

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use schemas::event::Event;
use schemas::filter::Text;
use schemas::ids::{SubscriptionId, TenantId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{Subscription, SubscriptionState};

pub use entries::{Entries, Entry, Place};
pub use tenant::TenantIndex;

use hits::Scratch;
use tenant::Shared;

/// Every active subscription, as far as `control` has been applied.
#[derive(Debug, Default)]
pub struct Index {
    tenants: HashMap<Text, TenantIndex, RandomState>,
    /// A deletion names the subscription alone.
    homes: HashMap<SubscriptionId, TenantId, RandomState>,
    /// Those with a start.
    gated: HashSet<SubscriptionId, RandomState>,
    control_offset: i64,
    partitions: Option<u32>,
    shared: Shared,
    scratch: Scratch,
}

/// The subscriptions that want one event, each once.
#[derive(Debug, Clone, Copy)]
pub struct Matches<'a> {
    /// The entries of the event's tenant.
    pub entries: &'a Entries,
    /// The places of those that want it.
    pub places: &'a [Place],
}

impl<'a> Matches<'a> {
    /// The entries of those that want it.
    pub fn iter(self) -> impl Iterator<Item = &'a Entry> {
        self.places
            .iter()
            .filter_map(|place| self.entries.get(*place))
    }
}

impl Index {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over one object of `control` as it is from now on; `None` when it was deleted.
    pub fn apply(&mut self, key: &ControlKey, object: Option<&ControlObject>) {
        match (key, object) {
            (ControlKey::Subscription(id), None) => self.remove(*id),
            (ControlKey::Subscription(_), Some(ControlObject::Subscription(subscription))) => {
                self.put(subscription);
            }
            (ControlKey::Installation, Some(ControlObject::Installation(installation))) => {
                self.partitions = Some(installation.partitions);
            }
            // A tenant's subscriptions are deleted one by one; nothing else routes anything.
            (
                ControlKey::Subscription(_)
                | ControlKey::Installation
                | ControlKey::Tenant(_)
                | ControlKey::ApiKey(_)
                | ControlKey::Endpoint(_)
                | ControlKey::Redrive(_)
                | ControlKey::Cohort(_)
                | ControlKey::Sync(_)
                | ControlKey::Source(_),
                _,
            ) => {}
        }
    }

    /// Says how much of `control` this index stands for: the offset behind the last record applied.
    pub fn set_control_offset(&mut self, offset: i64) {
        self.control_offset = offset;
    }

    /// The offset behind the last record of `control` that was applied.
    #[must_use]
    pub fn control_offset(&self) -> i64 {
        self.control_offset
    }

    /// The partition count that the installation was made with, once `control` has said so.
    #[must_use]
    pub fn recorded_partitions(&self) -> Option<u32> {
        self.partitions
    }

    /// How many subscriptions are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether any subscription is live only from its activation on.
    #[must_use]
    pub fn has_gated(&self) -> bool {
        !self.gated.is_empty()
    }

    /// Whether nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// One tenant's part, as it is now.
    #[must_use]
    pub fn tenant(&self, tenant: &str) -> Option<&TenantIndex> {
        self.tenants.get(tenant.as_bytes())
    }

    /// The subscriptions that want `event`: those of its tenant whose filters pass. `None` where
    /// nobody of its tenant has any.
    pub fn matches(&mut self, event: &Event) -> Option<Matches<'_>> {
        let tenant = event.tenant()?;
        let tenant = self.tenants.get_mut(tenant.as_bytes())?;
        let places = tenant.matches(event, &mut self.shared, &mut self.scratch);
        let entries = tenant.entries();
        Some(Matches { entries, places })
    }

    fn put(&mut self, subscription: &Subscription) {
        // A change of filters, state or placement replaces the entry whole.
        self.remove(subscription.id);
        match subscription.state {
            // A sync's own: its chunks are made for it, and no event matches it.
            SubscriptionState::Active if subscription.hidden => {}
            SubscriptionState::Paused => {}
            SubscriptionState::Active => {
                let tenant = self
                    .tenants
                    .entry(subscription.tenant.as_str().into())
                    .or_default();
                let entry = Entry::of(subscription);
                if entry.gated {
                    self.gated.insert(subscription.id);
                }
                tenant.insert(entry, &subscription.filters, &mut self.shared);
                self.homes
                    .insert(subscription.id, subscription.tenant.clone());
            }
        }
    }

    fn remove(&mut self, id: SubscriptionId) {
        self.gated.remove(&id);
        let Some(home) = self.homes.remove(&id) else {
            return;
        };
        let Some(tenant) = self.tenants.get_mut(home.as_str().as_bytes()) else {
            return;
        };
        tenant.remove(id, &mut self.shared);
        if tenant.is_empty() {
            self.tenants.remove(home.as_str().as_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
