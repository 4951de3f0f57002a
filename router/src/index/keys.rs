//! Owns lists of rules by hash.
//!
//! It must never forget a rule; it may name one that only shares its hash, so whoever asks looks
//! at the rule itself. The surprise: few keys are a list, which is one line of memory to search.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

/// The number of a rule in its tenant's index.
pub(super) type RuleId = u32;

/// More keys than this are a map.
const FEW: usize = 24;

/// Rules by the hash of what they are found by.
#[derive(Debug)]
pub(super) enum Keys {
    Few(Vec<(u64, RuleId)>),
    Many(HashMap<u64, Posting, RandomState>),
}

/// The rules of one key.
#[derive(Debug)]
pub(super) enum Posting {
    One(RuleId),
    Several(Vec<RuleId>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Keys {
    pub(super) fn insert(&mut self, key: u64, rule: RuleId) {
        if let Self::Few(list) = self
            && list.len() >= FEW
        {
            let mut map = HashMap::default();
            list.drain(..)
                .for_each(|(key, rule)| post(&mut map, key, rule));
            *self = Self::Many(map);
        }
        match self {
            Self::Few(list) => list.push((key, rule)),
            Self::Many(map) => post(map, key, rule),
        }
    }

    pub(super) fn remove(&mut self, key: u64, rule: RuleId) {
        match self {
            Self::Few(list) => {
                let place = list.iter().position(|item| *item == (key, rule));
                place.map(|place| list.swap_remove(place));
            }
            Self::Many(map) => {
                if let Entry::Occupied(mut posting) = map.entry(key)
                    && posting.get_mut().is_empty_without(rule)
                {
                    posting.remove();
                }
            }
        }
    }

    /// How many rules a key has.
    pub(super) fn count(&self, key: u64) -> usize {
        let mut count = 0;
        self.each(key, |_| count += 1);
        count
    }

    /// Calls `visit` with each rule of a key.
    #[inline]
    pub(super) fn each(&self, key: u64, mut visit: impl FnMut(RuleId)) {
        match self {
            Self::Few(list) => {
                for (other, rule) in list {
                    if *other == key {
                        visit(*rule);
                    }
                }
            }
            Self::Many(map) => match map.get(&key) {
                None => {}
                Some(Posting::One(rule)) => visit(*rule),
                Some(Posting::Several(rules)) => rules.iter().copied().for_each(visit),
            },
        }
    }
}

fn post(map: &mut HashMap<u64, Posting, RandomState>, key: u64, rule: RuleId) {
    match map.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(Posting::One(rule));
        }
        Entry::Occupied(mut occupied) => match occupied.get_mut() {
            Posting::Several(rules) => rules.push(rule),
            Posting::One(first) => {
                let several = vec![*first, rule];
                occupied.insert(Posting::Several(several));
            }
        },
    }
}

impl Posting {
    /// Takes the rule away; says whether nothing is left.
    fn is_empty_without(&mut self, rule: RuleId) -> bool {
        match self {
            Self::One(only) => *only == rule,
            Self::Several(rules) => {
                let place = rules.iter().position(|other| *other == rule);
                place.map(|place| rules.swap_remove(place));
                rules.is_empty()
            }
        }
    }
}
