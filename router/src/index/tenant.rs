//! Owns one tenant's subscriptions: a list by event type, and the list of those that want any type.
//!
//! It must never evaluate a filter of a subscription that pins other types than the event's. The
//! surprise: a subscription whose filters say nothing but the type has none left to evaluate.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::resources::Subscription;

/// Where an entry is in its tenant's index.
pub type Place = u32;

/// What routing needs of one active subscription.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// The partition of `deliveries` that the endpoint is placed in.
    pub placement: u32,
    /// Whether events of one key are delivered one after another (rule 12).
    pub ordered: bool,
    filters: Arc<Filters>,
    /// Whether the filters ask for more than the type.
    residual: bool,
}

impl Entry {
    /// The entry of an active subscription.
    pub(super) fn of(subscription: &Subscription) -> Self {
        Self {
            subscription: subscription.id,
            endpoint: subscription.endpoint,
            placement: subscription.placement.partition(),
            ordered: subscription.ordered,
            residual: !asks_for_types_alone(&subscription.filters),
            filters: Arc::new(subscription.filters.clone()),
        }
    }

    fn passes(&self, event: &Event) -> bool {
        !self.residual || self.filters.matches(event)
    }
}

fn asks_for_types_alone(filters: &Filters) -> bool {
    filters.required_types().map_or_else(
        || filters.is_empty(),
        |types| !types.is_empty() && Filters::of_types(&types).as_ref() == Ok(filters),
    )
}

/// One tenant's active subscriptions.
#[derive(Debug, Clone, Default)]
pub struct TenantIndex {
    entries: Vec<Option<Entry>>,
    free: Vec<Place>,
    places: HashMap<SubscriptionId, Place, RandomState>,
    by_type: HashMap<Box<str>, Vec<Place>, RandomState>,
    any_type: Vec<Place>,
}

impl TenantIndex {
    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The entry at `place`, while it is there.
    #[must_use]
    pub fn entry(&self, place: Place) -> Option<&Entry> {
        self.entries.get(usize::try_from(place).ok()?)?.as_ref()
    }

    /// The places of the subscriptions that want `event`, each once. The event is taken to be of
    /// this tenant.
    pub fn matches<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = Place> + 'a {
        // A subscription is in lists by type or in the other one, and once in each.
        let typed = self.by_type.get(event.ty()).map_or(&[][..], Vec::as_slice);
        typed
            .iter()
            .chain(&self.any_type)
            .copied()
            .filter(move |place| self.entry(*place).is_some_and(|entry| entry.passes(event)))
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let Some(place) = self
            .free
            .pop()
            .or_else(|| Place::try_from(self.entries.len()).ok())
        else {
            // Four thousand million subscriptions of one tenant: memory ends before.
            return;
        };
        match entry.filters.required_types() {
            None => self.any_type.push(place),
            Some(types) => {
                for ty in types {
                    self.by_type.entry(ty.into()).or_default().push(place);
                }
            }
        }
        self.places.insert(entry.subscription, place);
        match usize::try_from(place)
            .ok()
            .and_then(|place| self.entries.get_mut(place))
        {
            Some(slot) => *slot = Some(entry),
            None => self.entries.push(Some(entry)),
        }
    }

    pub(super) fn remove(&mut self, id: SubscriptionId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let slot = usize::try_from(place)
            .ok()
            .and_then(|place| self.entries.get_mut(place));
        let Some(entry) = slot.and_then(Option::take) else {
            return;
        };
        self.free.push(place);
        match entry.filters.required_types() {
            None => self.any_type.retain(|other| *other != place),
            Some(types) => types.into_iter().for_each(|ty| self.unlist(ty, place)),
        }
    }

    fn unlist(&mut self, ty: &str, place: Place) {
        let Some(list) = self.by_type.get_mut(ty) else {
            return;
        };
        list.retain(|other| *other != place);
        if list.is_empty() {
            self.by_type.remove(ty);
        }
    }
}
