//! Owns the different filters of a tenant: subscriptions that say the same are one rule, so that it
//! is looked at once.
//!
//! It must never take two filters for one because they share a hash.

use schemas::filter::{Filters, Slot, Subject};

use super::bucket::Choice;
use super::entries::Place;
use super::keys::{Keys, LineId, RuleId};
use super::lines::Lines;
use super::lists::List;
use super::tenant::Shared;

/// Filters, and who has them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) filters: Filters,
    /// The slots of the paths that they look at.
    pub(super) slots: Box<[Slot]>,
    /// The subscriptions that have them.
    places: List,
    /// Where it is found, if it is listed.
    pub(super) line: Option<LineId>,
    /// Where it is listed, in the order of its types.
    pub(super) choices: Box<[Choice]>,
    /// Which of the filters ask for more than the type.
    beside_types: u64,
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
            beside_types: filters.beside_types(),
            filters,
            slots,
            places: List::default(),
            line: None,
            choices: Box::default(),
        }
    }

    /// Whether the event passes, which is of a type that the filters ask for.
    pub(super) fn passes(&self, subject: &mut Subject<'_>) -> bool {
        let bits = self.beside_types;
        self.filters.passes_those(bits, subject, &self.slots)
    }
}

impl Rules {
    /// Adds the subscriptions of the rule of a line if the event passes, which is of a type that it
    /// asks for.
    #[inline]
    pub(super) fn find_passed(
        &self,
        id: LineId,
        subject: &mut Subject<'_>,
        shared: &Shared,
        places: &mut Vec<Place>,
    ) {
        let Some(line) = shared.lines.get(id) else {
            return;
        };
        let known = line.brief.passes(subject);
        if known == Some(false) {
            return;
        }
        if let (Some(true), Some(only)) = (known, line.only()) {
            places.push(only);
            return;
        }
        let rule = shared.lines.rule(id).and_then(|rule| self.get(rule));
        if let Some(rule) = rule
            && (known == Some(true) || rule.passes(subject))
        {
            places.extend_from_slice(rule.places.of(&shared.lists));
        }
    }

    /// Gives a rule a line, if it has none.
    pub(super) fn write_line(&mut self, id: RuleId, lines: &mut Lines) -> Option<LineId> {
        let rule = self.get_mut(id)?;
        if rule.line.is_none() {
            rule.line = lines.take(id, rule.filters.brief(&rule.slots));
        }
        rule.line
    }

    /// Adds a subscription to a rule.
    pub(super) fn add(&mut self, id: RuleId, place: Place, shared: &mut Shared) {
        let Shared { lists, lines, .. } = shared;
        self.change(id, lines, |places| places.add(place, lists));
    }

    /// Takes a subscription away from a rule; says whether it was the last.
    pub(super) fn take(&mut self, id: RuleId, place: Place, shared: &mut Shared) -> bool {
        let Shared { lists, lines, .. } = shared;
        self.change(id, lines, |places| places.remove(place, lists))
    }

    /// Changes who has a rule; says whether nobody has it then.
    fn change(&mut self, id: RuleId, lines: &mut Lines, change: impl FnOnce(&mut List)) -> bool {
        let Some(rule) = self.get_mut(id) else {
            return false;
        };
        change(&mut rule.places);
        if let Some(line) = rule.line {
            lines.set_places(line, rule.places);
        }
        rule.places.is_empty()
    }

    pub(super) fn get(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::try_from(id).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: RuleId) -> Option<&mut Rule> {
        self.rules.get_mut(usize::try_from(id).ok()?)?.as_mut()
    }

    /// The rule with these filters.
    pub(super) fn find(&self, filters: &Filters, shared: &Shared) -> Option<RuleId> {
        let mut found = None;
        let hash = shared.operands.hashes.of(filters);
        self.by_hash.each(hash, &shared.lists, |id| {
            if self.get(id).is_some_and(|rule| rule.filters == *filters) {
                found = Some(id);
            }
        });
        found
    }

    pub(super) fn insert(&mut self, rule: Rule, shared: &mut Shared) -> Option<RuleId> {
        let free = self.free.pop();
        let id = free.or_else(|| RuleId::try_from(self.rules.len()).ok())?;
        let hash = shared.operands.hashes.of(&rule.filters);
        self.by_hash.insert(hash, id, &mut shared.lists);
        let place = usize::try_from(id).ok();
        match place.and_then(|place| self.rules.get_mut(place)) {
            Some(slot) => *slot = Some(rule),
            None => self.rules.push(Some(rule)),
        }
        Some(id)
    }

    pub(super) fn remove(&mut self, id: RuleId, shared: &mut Shared) -> Option<Rule> {
        let slot = self.rules.get_mut(usize::try_from(id).ok()?)?;
        let rule = slot.take()?;
        let hash = shared.operands.hashes.of(&rule.filters);
        self.by_hash.remove(hash, id, &mut shared.lists);
        if let Some(line) = rule.line {
            shared.lines.give_back(line);
        }
        self.free.push(id);
        Some(rule)
    }
}
