//! Owns the different filters of a tenant: subscriptions that say the same are one rule, so that it
//! is looked at once.
//!
//! It must never take two filters for one because they share a hash.

use std::hint::black_box;

use schemas::filter::{Brief, Filters, Slot, Subject};

use super::bucket::Choice;
use super::entries::Place;
use super::keys::{Keys, RuleId};
use super::lists::{List, Lists};
use super::tenant::Shared;

/// Rules that are fetched together; more would push each other out again.
const TOGETHER: usize = 64;

/// Filters, and who has them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) filters: Filters,
    /// The slots of the paths that they look at.
    pub(super) slots: Box<[Slot]>,
    /// The subscriptions that have them.
    places: List,
    /// Where it is listed, in the order of its types.
    pub(super) choices: Box<[Choice]>,
    /// Which of the filters ask for more than the type.
    beside_types: u64,
}

/// What is looked at of a rule first, and mostly alone: one line of memory.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line {
    /// The subscription that has it; [`SEVERAL`] where it is not one.
    only: Place,
    brief: Brief,
}

/// No place, or several.
const SEVERAL: Place = Place::MAX;

/// The rules of one tenant.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Option<Rule>>,
    /// By the same numbers, as far as they are listed.
    lines: Vec<Line>,
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
            choices: Box::default(),
        }
    }

    /// Whether the event passes, which is of a type that the filters ask for.
    pub(super) fn passes(&self, subject: &mut Subject<'_>) -> bool {
        let bits = self.beside_types;
        self.filters.passes_those(bits, subject, &self.slots)
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            only: SEVERAL,
            brief: Brief::default(),
        }
    }
}

impl Rules {
    /// Reads what looking at these rules will read first. Each of them is far from the others in
    /// memory, and one after another would be waited for; here nothing depends on an answer, so the
    /// processor fetches several at once.
    pub(super) fn touch(&self, ids: &[RuleId]) {
        if ids.len() > 1 {
            let lines = ids.iter().take(TOGETHER).filter_map(|id| self.line(*id));
            black_box(lines.fold(0, |all, line| all ^ line.only));
        }
    }

    /// Adds the subscriptions of a rule if the event passes, which is of a type that it asks for.
    #[inline]
    pub(super) fn find_passed(
        &self,
        id: RuleId,
        subject: &mut Subject<'_>,
        lists: &Lists,
        places: &mut Vec<Place>,
    ) {
        let Some(line) = self.line(id) else {
            return;
        };
        let known = line.brief.passes(subject);
        if known == Some(true) && line.only != SEVERAL {
            places.push(line.only);
        } else if known != Some(false)
            && let Some(rule) = self.get(id)
            && (known == Some(true) || rule.passes(subject))
        {
            places.extend_from_slice(rule.places.of(lists));
        }
    }

    #[inline]
    fn line(&self, id: RuleId) -> Option<&Line> {
        self.lines.get(usize::try_from(id).ok()?)
    }

    /// Writes the line of a rule that is listed, as it is now.
    pub(super) fn write_line(&mut self, id: RuleId) {
        let Some((rule, at)) = self.get(id).zip(usize::try_from(id).ok()) else {
            return;
        };
        let line = Line {
            brief: rule.filters.brief(&rule.slots),
            only: rule.places.only().unwrap_or(SEVERAL),
        };
        if at >= self.lines.len() {
            self.lines.resize(at + 1, Line::default());
        }
        if let Some(known) = self.lines.get_mut(at) {
            *known = line;
        }
    }

    /// Adds a subscription to a rule.
    pub(super) fn add(&mut self, id: RuleId, place: Place, lists: &mut Lists) {
        self.change(id, |places| places.add(place, lists));
    }

    /// Takes a subscription away from a rule; says whether it was the last.
    pub(super) fn take(&mut self, id: RuleId, place: Place, lists: &mut Lists) -> bool {
        self.change(id, |places| places.remove(place, lists))
    }

    /// Changes who has a rule; says whether nobody has it then.
    fn change(&mut self, id: RuleId, change: impl FnOnce(&mut List)) -> bool {
        let Some(rule) = self.get_mut(id) else {
            return false;
        };
        change(&mut rule.places);
        let (only, is_last) = (rule.places.only(), rule.places.is_empty());
        let at = usize::try_from(id).ok();
        if let Some(line) = at.and_then(|at| self.lines.get_mut(at)) {
            line.only = only.unwrap_or(SEVERAL);
        }
        is_last
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
        self.free.push(id);
        Some(rule)
    }
}
