//! Owns one tenant's subscriptions: which rule each has, and where it is listed.
//!
//! It must never look at a rule that asks for other types than the event's. The surprise: only the
//! entries can be held beside a change; what finds them is patched in place.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use schemas::event::Event;
use schemas::filter::{Decisive, Filters, Subject};
use schemas::ids::SubscriptionId;

use super::bucket::Listed;
use super::buckets::{Buckets, Home, homes};
use super::entries::{Entries, Entry, Place};
use super::hits::Scratch;
use super::keys::RuleId;
use super::layouts::{Layouts, Looks};
use super::lines::Lines;
use super::lists::Lists;
use super::operands::Operands;
use super::rules::{Rule, Rules};
use super::wanted::Wanted;

/// Filters that would be listed by more texts of more types are looked at instead.
const LISTS_MAX: usize = 16;

/// One tenant's active subscriptions.
#[derive(Debug, Default)]
pub struct TenantIndex {
    entries: Entries,
    looks: Looks,
    rules: Rules,
    buckets: Buckets,
    places: Box<Places>,
}

/// Where each subscription is, which no event asks.
#[derive(Debug, Default)]
struct Places {
    taken: HashMap<SubscriptionId, (Place, RuleId), RandomState>,
    free: Vec<Place>,
}

/// What the indexes of all tenants share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) layouts: Layouts,
    pub(super) operands: Operands,
    pub(super) lists: Lists,
    pub(super) lines: Lines,
    pub(super) wanted: Wanted,
}

/// What decides about these filters in each of their homes, where they need not be looked at.
fn decisive<'a>(filters: &'a Filters, homes: &[Home]) -> Option<Decisive<'a>> {
    let decisive = filters.decisive()?;
    let texts = match &decisive {
        Decisive::Nothing => 1,
        Decisive::Text(_, texts) => texts.len(),
    };
    (homes.len().saturating_mul(texts) <= LISTS_MAX).then_some(decisive)
}

impl TenantIndex {
    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.taken.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.taken.is_empty()
    }

    /// The entries as they are now; a clone stays so.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The places of the subscriptions that want `event`, each once. The event is taken to be of
    /// this tenant.
    pub(super) fn matches<'a>(
        &mut self,
        event: &Event,
        shared: &mut Shared,
        scratch: &'a mut Scratch,
    ) -> &'a [Place] {
        let Scratch {
            found,
            hits,
            places,
        } = scratch;
        places.clear();
        hits.clear();
        let mut subject = Subject::new(event, self.looks.paths(&mut shared.layouts), found);
        for bucket in self.buckets.of(event.ty()) {
            bucket.decided.find(event, shared, places);
            bucket.find(&mut subject, shared, hits);
        }
        let hits = hits.sorted();
        shared.lines.touch(hits);
        for id in hits {
            self.rules.find_passed(*id, &mut subject, shared, places);
        }
        places
    }

    pub(super) fn insert(&mut self, entry: Entry, filters: &Filters, shared: &mut Shared) {
        let Some(place) = self
            .places
            .free
            .pop()
            .or_else(|| Place::try_from(self.places.taken.len()).ok())
        else {
            // Four thousand million subscriptions of one tenant: memory ends before.
            return;
        };
        let homes = homes(filters);
        let decisive = decisive(filters, &homes);
        let known = self.rules.find(filters, shared);
        let id = known.or_else(|| self.add_rule(filters, shared));
        let Some(id) = id else {
            self.places.free.push(place);
            return;
        };
        if known.is_none() && decisive.is_none() {
            self.list(id, &homes, shared);
        }
        self.rules.add(id, place, shared);
        if let Some(decisive) = decisive {
            for home in &homes {
                self.buckets.change(home, |bucket| {
                    bucket.decided.insert(&decisive, place, shared)
                });
            }
        }
        self.places.taken.insert(entry.subscription, (place, id));
        self.entries.set(place, Some(entry));
    }

    pub(super) fn remove(&mut self, id: SubscriptionId, shared: &mut Shared) {
        let Some((place, rule)) = self.places.taken.remove(&id) else {
            return;
        };
        self.entries.set(place, None);
        self.places.free.push(place);
        let is_last = self.rules.take(rule, place, shared);
        let Some(known) = self.rules.get(rule) else {
            return;
        };
        let homes = homes(&known.filters);
        match decisive(&known.filters, &homes) {
            Some(decisive) => {
                for home in &homes {
                    self.buckets.change(home, |bucket| {
                        bucket.decided.remove(&decisive, place, shared)
                    });
                }
            }
            None if is_last => self.unlist(rule, &homes, shared),
            None => {}
        }
        if is_last && let Some(rule) = self.rules.remove(rule, shared) {
            self.looks.release(&rule.slots, &mut shared.layouts);
        }
    }

    fn add_rule(&mut self, filters: &Filters, shared: &mut Shared) -> Option<RuleId> {
        let slots = self.looks.retain(&filters.pointers(), &mut shared.layouts);
        let rule = Rule::of(filters.clone(), slots);
        self.rules.insert(rule, shared)
    }

    /// Lists a rule by its conditions.
    fn list(&mut self, id: RuleId, homes: &[Home], shared: &mut Shared) {
        let line = self.rules.write_line(id, &mut shared.lines);
        let Some((rule, line)) = self.rules.get_mut(id).zip(line) else {
            return;
        };
        let alternatives = rule.filters.alternatives();
        let mut choices = Vec::with_capacity(homes.len());
        for home in homes {
            let listed = Listed {
                line,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            choices.push(
                self.buckets
                    .change(home, |bucket| bucket.insert(listed, shared)),
            );
        }
        drop(alternatives);
        rule.choices = choices.into();
    }

    fn unlist(&mut self, id: RuleId, homes: &[Home], shared: &mut Shared) {
        let Some(rule) = self.rules.get(id) else {
            return;
        };
        let Some(line) = rule.line else {
            return;
        };
        let alternatives = rule.filters.alternatives();
        for (home, choice) in homes.iter().zip(&rule.choices) {
            let listed = Listed {
                line,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            self.buckets
                .change(home, |bucket| bucket.remove(listed, *choice, shared));
        }
    }
}
