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
use super::operands::Operands;
use super::rules::{Rule, Rules};

/// Filters that would be listed by more texts of more types are looked at instead.
const LISTS_MAX: usize = 16;

/// One tenant's active subscriptions.
#[derive(Debug, Default)]
pub struct TenantIndex {
    entries: Entries,
    places: HashMap<SubscriptionId, (Place, RuleId), RandomState>,
    free: Vec<Place>,
    operands: Operands,
    looks: Looks,
    rules: Rules,
    buckets: Buckets,
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
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
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
        layouts: &mut Layouts,
        scratch: &'a mut Scratch,
    ) -> &'a [Place] {
        let Scratch {
            found,
            hits,
            places,
        } = scratch;
        places.clear();
        hits.clear();
        let mut subject = Subject::new(event, self.looks.paths(layouts), found);
        for bucket in self.buckets.of(event.ty()) {
            bucket.decided.find(event, places);
            bucket.find(&mut subject, &self.operands, hits);
        }
        let hits = hits.sorted();
        self.rules.touch(hits);
        for id in hits {
            self.rules.find_passed(*id, &mut subject, places);
        }
        places
    }

    pub(super) fn insert(&mut self, entry: Entry, filters: &Filters, layouts: &mut Layouts) {
        let Some(place) = self
            .free
            .pop()
            .or_else(|| Place::try_from(self.places.len()).ok())
        else {
            // Four thousand million subscriptions of one tenant: memory ends before.
            return;
        };
        let homes = homes(filters);
        let decisive = decisive(filters, &homes);
        let known = self.rules.find(filters, &self.operands);
        let id = known.or_else(|| self.add_rule(filters, layouts));
        let Some(id) = id else {
            self.free.push(place);
            return;
        };
        if known.is_none() && decisive.is_none() {
            self.list(id, &homes);
        }
        self.rules.add(id, place);
        if let Some(decisive) = decisive {
            for home in &homes {
                self.buckets
                    .change(home, |bucket| bucket.decided.insert(&decisive, place));
            }
        }
        self.places.insert(entry.subscription, (place, id));
        self.entries.set(place, Some(entry));
    }

    pub(super) fn remove(&mut self, id: SubscriptionId, layouts: &mut Layouts) {
        let Some((place, rule)) = self.places.remove(&id) else {
            return;
        };
        self.entries.set(place, None);
        self.free.push(place);
        let is_last = self.rules.take(rule, place);
        let Some(known) = self.rules.get(rule) else {
            return;
        };
        let homes = homes(&known.filters);
        match decisive(&known.filters, &homes) {
            Some(decisive) => {
                for home in &homes {
                    self.buckets
                        .change(home, |bucket| bucket.decided.remove(&decisive, place));
                }
            }
            None if is_last => self.unlist(rule, &homes),
            None => {}
        }
        if is_last && let Some(rule) = self.rules.remove(rule, &self.operands) {
            self.looks.release(&rule.slots, layouts);
        }
    }

    fn add_rule(&mut self, filters: &Filters, layouts: &mut Layouts) -> Option<RuleId> {
        let slots = self.looks.retain(&filters.pointers(), layouts);
        let rule = Rule::of(filters.clone(), slots);
        self.rules.insert(rule, &self.operands)
    }

    /// Lists a rule by its conditions.
    fn list(&mut self, id: RuleId, homes: &[Home]) {
        let Some(rule) = self.rules.get_mut(id) else {
            return;
        };
        let alternatives = rule.filters.alternatives();
        let mut choices = Vec::with_capacity(homes.len());
        for home in homes {
            let listed = Listed {
                rule: id,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            let operands = &mut self.operands;
            choices.push(
                self.buckets
                    .change(home, |bucket| bucket.insert(listed, operands)),
            );
        }
        drop(alternatives);
        rule.choices = choices.into();
        self.rules.write_line(id);
    }

    fn unlist(&mut self, id: RuleId, homes: &[Home]) {
        let Some(rule) = self.rules.get(id) else {
            return;
        };
        let alternatives = rule.filters.alternatives();
        for (home, choice) in homes.iter().zip(&rule.choices) {
            let listed = Listed {
                rule: id,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            let operands = &mut self.operands;
            self.buckets
                .change(home, |bucket| bucket.remove(listed, *choice, operands));
        }
    }
}
