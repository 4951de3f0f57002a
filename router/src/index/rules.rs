//! Owns the different filters of a tenant: subscriptions that say the same are one rule, so that it
//! is looked at once.
//!
//! It must never take two filters for one because they share a hash.

use std::hint::black_box;

use schemas::filter::{Brief, Filters, Slot, Subject};

use super::bucket::Choice;
use super::entries::Place;
use super::keys::{Keys, RuleId};
use super::operands::Operands;

/// Rules that are fetched together; more would push each other out again.
const TOGETHER: usize = 64;

/// Filters, and who has them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) filters: Filters,
    /// The slots of the paths that they look at.
    pub(super) slots: Box<[Slot]>,
    /// The subscriptions that have them.
    pub(super) places: Places,
    /// Where it is listed, in the order of its types.
    pub(super) choices: Box<[Choice]>,
    /// Which of the filters ask for more than the type.
    beside_types: u64,
}

/// Places of subscriptions: mostly one, which needs no memory elsewhere.
#[derive(Debug)]
pub(super) enum Places {
    One([Place; 1]),
    Several(Vec<Place>),
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
            places: Places::Several(Vec::new()),
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

impl Line {
    /// Of a rule of which only is known who has it.
    fn of(places: &Places) -> Self {
        let only = match places.as_slice() {
            [only] => *only,
            _ => SEVERAL,
        };
        Self {
            only,
            ..Self::default()
        }
    }
}

impl Places {
    pub(super) fn as_slice(&self) -> &[Place] {
        match self {
            Self::One(one) => one,
            Self::Several(several) => several,
        }
    }

    pub(super) fn add(&mut self, place: Place) {
        match self {
            Self::Several(several) if several.is_empty() => *self = Self::One([place]),
            Self::Several(several) => several.push(place),
            Self::One([first]) => *self = Self::Several(vec![*first, place]),
        }
    }

    pub(super) fn remove(&mut self, place: Place) {
        match self {
            Self::One([only]) if *only == place => *self = Self::Several(Vec::new()),
            Self::One(_) => {}
            Self::Several(several) => {
                let at = several.iter().position(|other| *other == place);
                at.map(|at| several.swap_remove(at));
            }
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
            places.extend_from_slice(rule.places.as_slice());
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
            ..Line::of(&rule.places)
        };
        if at >= self.lines.len() {
            self.lines.resize(at + 1, Line::default());
        }
        if let Some(known) = self.lines.get_mut(at) {
            *known = line;
        }
    }

    /// Adds a subscription to a rule.
    pub(super) fn add(&mut self, id: RuleId, place: Place) {
        self.change(id, |places| places.add(place));
    }

    /// Takes a subscription away from a rule; says whether it was the last.
    pub(super) fn take(&mut self, id: RuleId, place: Place) -> bool {
        self.change(id, |places| places.remove(place))
    }

    /// Changes who has a rule; says whether nobody has it then.
    fn change(&mut self, id: RuleId, change: impl FnOnce(&mut Places)) -> bool {
        let Some(rule) = self.get_mut(id) else {
            return false;
        };
        change(&mut rule.places);
        let Line { only, .. } = Line::of(&rule.places);
        let is_last = rule.places.as_slice().is_empty();
        let at = usize::try_from(id).ok();
        if let Some(line) = at.and_then(|at| self.lines.get_mut(at)) {
            line.only = only;
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
