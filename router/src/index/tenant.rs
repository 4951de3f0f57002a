//! Owns one tenant's subscriptions: which rule each has, and which rules an event's type leads to.
//!
//! It must never look at a rule that asks for other types than the event's. The surprise: only the
//! entries can be held beside a change; what finds them is patched in place.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use schemas::event::Event;
use schemas::filter::{Filters, Subject};
use schemas::ids::SubscriptionId;

use super::bucket::{Bucket, Choice, Listed};
use super::entries::{Entries, Entry, Place};
use super::hits::Scratch;
use super::keys::RuleId;
use super::layouts::{Layouts, Looks};
use super::operands::Operands;
use super::rules::{Rule, Rules};

/// Types are told apart by so many bytes of what they begin with.
const PREFIX_BYTES_MAX: usize = 64;

/// One tenant's active subscriptions.
#[derive(Debug, Default)]
pub struct TenantIndex {
    entries: Entries,
    places: HashMap<SubscriptionId, (Place, RuleId), RandomState>,
    free: Vec<Place>,
    operands: Operands,
    looks: Looks,
    rules: Rules,
    by_type: HashMap<Box<str>, Bucket, RandomState>,
    by_prefix: HashMap<Box<str>, Bucket, RandomState>,
    /// How long the prefixes are, each with how many there are of it.
    prefix_lengths: Vec<(usize, usize)>,
    any_type: Bucket,
}

/// Where a rule is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    Type(Box<str>),
    Prefix(Box<str>),
    Any,
}

/// Where a rule with these filters is listed: no event comes to two of its homes.
fn homes(filters: &Filters) -> Vec<Home> {
    if let Some(types) = filters.required_types() {
        return types.into_iter().map(|ty| Home::Type(ty.into())).collect();
    }
    let cut = |prefix: &str| {
        let end = prefix.floor_char_boundary(PREFIX_BYTES_MAX);
        prefix.get(..end).unwrap_or_default().into()
    };
    let prefix = filters.required_type_prefix();
    vec![prefix.map_or(Home::Any, |prefix| Home::Prefix(cut(prefix)))]
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
        let ty = event.ty();
        let prefixes = self.prefix_lengths.iter();
        let prefixes = prefixes.filter_map(|(length, _)| self.by_prefix.get(ty.get(..*length)?));
        let any = (!self.any_type.is_empty()).then_some(&self.any_type);
        let typed = self.by_type.get(ty);
        for bucket in typed.into_iter().chain(prefixes).chain(any) {
            bucket.find(&mut subject, &self.operands, hits);
        }
        let hits = hits.sorted();
        self.rules.touch(hits);
        for rule in hits.iter().filter_map(|id| self.rules.get(*id)) {
            if rule.passes(&mut subject) {
                places.extend_from_slice(rule.places.as_slice());
            }
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
        let known = self.rules.find(filters, &self.operands);
        let Some(id) = known.or_else(|| self.add_rule(filters, layouts)) else {
            self.free.push(place);
            return;
        };
        if let Some(rule) = self.rules.get_mut(id) {
            rule.places.add(place);
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
        let Some(known) = self.rules.get_mut(rule) else {
            return;
        };
        known.places.remove(place);
        if known.places.as_slice().is_empty() {
            self.remove_rule(rule, layouts);
        }
    }

    fn add_rule(&mut self, filters: &Filters, layouts: &mut Layouts) -> Option<RuleId> {
        let slots = self.looks.retain(&filters.pointers(), layouts);
        let rule = Rule::of(filters.clone(), slots);
        let id = self.rules.insert(rule, &self.operands)?;
        let rule = self.rules.get(id)?;
        let alternatives = rule.filters.alternatives();
        let mut choices = Vec::new();
        for home in homes(&rule.filters) {
            let listed = Listed {
                rule: id,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            let bucket = match home {
                Home::Type(ty) => self.by_type.entry(ty).or_default(),
                Home::Any => &mut self.any_type,
                Home::Prefix(prefix) => {
                    if !self.by_prefix.contains_key(&prefix) {
                        count_up(&mut self.prefix_lengths, prefix.len());
                    }
                    self.by_prefix.entry(prefix).or_default()
                }
            };
            choices.push(bucket.insert(listed, &mut self.operands));
        }
        drop(alternatives);
        if let Some(rule) = self.rules.get_mut(id) {
            rule.choices = choices.into();
        }
        Some(id)
    }

    fn remove_rule(&mut self, id: RuleId, layouts: &mut Layouts) {
        let Some(rule) = self.rules.remove(id, &self.operands) else {
            return;
        };
        let alternatives = rule.filters.alternatives();
        for (home, choice) in homes(&rule.filters).into_iter().zip(&rule.choices) {
            let listed = Listed {
                rule: id,
                alternatives: &alternatives,
                slots: &rule.slots,
                is_typed: matches!(home, Home::Type(_)),
            };
            self.unlist(&home, listed, *choice);
        }
        self.looks.release(&rule.slots, layouts);
    }

    fn unlist(&mut self, home: &Home, listed: Listed<'_>, choice: Choice) {
        let operands = &mut self.operands;
        match home {
            Home::Any => self.any_type.remove(listed, choice, operands),
            Home::Type(ty) => {
                if remove_in(&mut self.by_type, ty, |bucket| {
                    bucket.remove(listed, choice, operands);
                }) {
                    self.by_type.remove(ty);
                }
            }
            Home::Prefix(prefix) => {
                if remove_in(&mut self.by_prefix, prefix, |bucket| {
                    bucket.remove(listed, choice, operands);
                }) {
                    self.by_prefix.remove(prefix);
                    count_down(&mut self.prefix_lengths, prefix.len());
                }
            }
        }
    }
}

/// Changes a bucket; says whether it is empty then.
fn remove_in(
    buckets: &mut HashMap<Box<str>, Bucket, RandomState>,
    name: &str,
    remove: impl FnOnce(&mut Bucket),
) -> bool {
    buckets.get_mut(name).is_some_and(|bucket| {
        remove(bucket);
        bucket.is_empty()
    })
}

fn count_up(lengths: &mut Vec<(usize, usize)>, length: usize) {
    match lengths.iter_mut().find(|(known, _)| *known == length) {
        Some((_, count)) => *count += 1,
        None => lengths.push((length, 1)),
    }
}

fn count_down(lengths: &mut Vec<(usize, usize)>, length: usize) {
    if let Some((_, count)) = lengths.iter_mut().find(|(known, _)| *known == length) {
        *count -= 1;
    }
    lengths.retain(|(_, count)| *count > 0);
}
