//! Owns the different filters of a tenant: subscriptions that say the same are one rule, so that it
//! is looked at once.
//!
//! It must never take two filters for one because they share a hash.

use schemas::filter::{Filters, Slot, Subject};

use super::bucket::Choice;
use super::entries::Place;
use super::keys::{Keys, RuleId};
use super::operands::Operands;

/// Filters, and who has them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) filters: Filters,
    /// The slots of the paths that they look at.
    pub(super) slots: Box<[Slot]>,
    /// The subscriptions that have them.
    pub(super) places: Vec<Place>,
    /// Where it is listed, in the order of its types.
    pub(super) choices: Box<[Choice]>,
    /// Whether the filters ask for more than the type.
    residual: bool,
}

/// The rules of one tenant.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Option<Rule>>,
    free: Vec<RuleId>,
    by_hash: Keys,
}

impl Rule {
    pub(super) fn of(filters: Filters, slots: Box<[Slot]>) -> Self {
        Self {
            residual: !asks_for_types_alone(&filters),
            filters,
            slots,
            places: Vec::new(),
            choices: Box::default(),
        }
    }

    /// Whether the event passes, which is of a type that the filters ask for.
    pub(super) fn passes(&self, subject: &mut Subject<'_>) -> bool {
        !self.residual || self.filters.passes(subject, &self.slots)
    }
}

fn asks_for_types_alone(filters: &Filters) -> bool {
    filters.required_types().map_or_else(
        || filters.is_empty(),
        |types| !types.is_empty() && Filters::of_types(&types).as_ref() == Ok(filters),
    )
}

impl Rules {
    /// More than the number of any rule.
    pub(super) fn bound(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn get(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::try_from(id).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: RuleId) -> Option<&mut Rule> {
        self.rules.get_mut(usize::try_from(id).ok()?)?.as_mut()
    }

    /// The rule with these filters.
    pub(super) fn find(&self, filters: &Filters, operands: &Operands) -> Option<RuleId> {
        let mut found = None;
        self.by_hash.each(operands.hashes.of(filters), |id| {
            if self.get(id).is_some_and(|rule| rule.filters == *filters) {
                found = Some(id);
            }
        });
        found
    }

    pub(super) fn insert(&mut self, rule: Rule, operands: &Operands) -> Option<RuleId> {
        let free = self.free.pop();
        let id = free.or_else(|| RuleId::try_from(self.rules.len()).ok())?;
        self.by_hash.insert(operands.hashes.of(&rule.filters), id);
        let place = usize::try_from(id).ok();
        match place.and_then(|place| self.rules.get_mut(place)) {
            Some(slot) => *slot = Some(rule),
            None => self.rules.push(Some(rule)),
        }
        Some(id)
    }

    pub(super) fn remove(&mut self, id: RuleId, operands: &Operands) -> Option<Rule> {
        let slot = self.rules.get_mut(usize::try_from(id).ok()?)?;
        let rule = slot.take()?;
        self.by_hash.remove(operands.hashes.of(&rule.filters), id);
        self.free.push(id);
        Some(rule)
    }
}
