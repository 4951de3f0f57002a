//! Owns what is looked at of a rule first, and mostly alone: one line of memory for each rule that
//! is listed, of all tenants one behind the other.
//!
//! It must never say that an event passes which the rule's filters would not let pass. The surprise:
//! rules are listed and found by the number of their line, which says whose it is.

use std::hint::black_box;

use schemas::filter::Brief;

use super::entries::Place;
use super::keys::{LineId, RuleId};
use super::lists::List;

/// Lines that are fetched together; more would push each other out again.
const TOGETHER: usize = 64;
/// No place, or several.
const SEVERAL: Place = Place::MAX;

/// A rule in a line of memory.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line {
    /// The subscription that has it; [`SEVERAL`] where it is not one.
    only: Place,
    pub(super) brief: Brief,
}

/// The lines of all rules that are listed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Whose each is, by its tenant's numbers.
    rules: Vec<RuleId>,
    free: Vec<LineId>,
}

impl Line {
    /// The only subscription that has the rule.
    #[inline]
    pub(super) fn only(&self) -> Option<Place> {
        (self.only != SEVERAL).then_some(self.only)
    }
}

impl Lines {
    /// Reads the first of each. They are far from each other in memory, and one after another would
    /// be waited for; here nothing depends on an answer, so the processor fetches several at once.
    pub(super) fn touch(&self, ids: &[LineId]) {
        if ids.len() > 1 {
            let lines = ids.iter().take(TOGETHER).filter_map(|id| self.get(*id));
            black_box(lines.fold(0, |all, line| all ^ line.only));
        }
    }

    #[inline]
    pub(super) fn get(&self, id: LineId) -> Option<&Line> {
        self.lines.get(usize::try_from(id).ok()?)
    }

    /// Whose line it is.
    pub(super) fn rule(&self, id: LineId) -> Option<RuleId> {
        self.rules.get(usize::try_from(id).ok()?).copied()
    }

    /// A line for a rule; `None` where there is no number left.
    pub(super) fn take(&mut self, rule: RuleId, brief: Brief) -> Option<LineId> {
        let only = SEVERAL;
        let line = Line { only, brief };
        let Some(id) = self.free.pop() else {
            let id = LineId::try_from(self.lines.len()).ok()?;
            self.lines.push(line);
            self.rules.push(rule);
            return Some(id);
        };
        let at = usize::try_from(id).ok()?;
        *self.lines.get_mut(at)? = line;
        *self.rules.get_mut(at)? = rule;
        Some(id)
    }

    /// Nobody is to find the line any more.
    pub(super) fn give_back(&mut self, id: LineId) {
        self.free.push(id);
    }

    /// Takes down who has the rule.
    pub(super) fn set_places(&mut self, id: LineId, places: List) {
        let at = usize::try_from(id).ok();
        if let Some(line) = at.and_then(|at| self.lines.get_mut(at)) {
            line.only = places.only().unwrap_or(SEVERAL);
        }
    }
}
