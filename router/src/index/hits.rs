//! Owns the memory of matching one event: rules that may want it, each once, and what was found in
//! its payload.
//!
//! The surprise: it is used again for the next event without being cleared; a number says which
//! event a rule was last found for.

use schemas::filter::Found;

use super::entries::Place;
use super::keys::RuleId;

/// Memory for matching, one event after another.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) found: Found,
    pub(super) hits: Hits,
    pub(super) places: Vec<Place>,
}

/// Rules, each once.
#[derive(Debug, Default)]
pub(super) struct Hits {
    rules: Vec<RuleId>,
    seen: Vec<u32>,
    mark: u32,
}

impl Hits {
    /// Forgets what was found; `rules` is more than every number of a rule.
    pub(super) fn begin(&mut self, rules: usize) {
        self.rules.clear();
        if self.mark == u32::MAX {
            self.seen.clear();
            self.mark = 0;
        }
        self.mark += 1;
        if self.seen.len() < rules {
            self.seen.resize(rules, 0);
        }
    }

    #[inline]
    pub(super) fn add(&mut self, rule: RuleId) {
        let seen = usize::try_from(rule)
            .ok()
            .and_then(|rule| self.seen.get_mut(rule));
        if let Some(seen) = seen
            && *seen != self.mark
        {
            *seen = self.mark;
            self.rules.push(rule);
        }
    }

    pub(super) fn rules(&self) -> &[RuleId] {
        &self.rules
    }
}
