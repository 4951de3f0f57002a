//! Owns lists of rules by hash.
//!
//! It must never forget a rule; it may name one that only shares its hash, so whoever asks looks
//! at the rule itself. The surprise: few keys are a list, which is one line of memory to search,
//! and of which half a hash is kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::lists::{List, Lists};

/// The number of a rule in its tenant's index.
pub(super) type RuleId = u32;

/// The number of the line of a rule that is listed.
pub(super) type LineId = u32;

/// More keys than this are a map.
const FEW: usize = 24;
/// So many lie beside what else is read of their bucket.
const NEAR: usize = 12;

/// Rules by the hash of what they are found by.
#[derive(Debug)]
pub(super) enum Keys {
    Few(Few),
    Many(HashMap<u32, List, RandomState>),
}

/// A list, and which keys may be in it.
#[derive(Debug, Default)]
pub(super) struct Few {
    /// A bit for each key, told by its lowest bits: most that are asked for have none.
    bits: u64,
    list: SmallVec<[(u32, RuleId); NEAR]>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Few {
    fn push(&mut self, key: u32, rule: RuleId) {
        self.bits |= bit(key);
        self.list.push((key, rule));
    }

    fn remove(&mut self, key: u32, rule: RuleId) {
        let place = self.list.iter().position(|item| *item == (key, rule));
        place.map(|place| self.list.swap_remove(place));
        let bits = self.list.iter().map(|(key, _)| bit(*key));
        self.bits = bits.fold(0, |all, bit| all | bit);
    }

    /// The rules of a key.
    #[inline]
    fn of(&self, key: u32) -> impl Iterator<Item = RuleId> {
        let may_be = self.bits & bit(key) != 0;
        let list = if may_be { &*self.list } else { &[] };
        list.iter()
            .filter(move |(other, _)| *other == key)
            .map(|(_, rule)| *rule)
    }
}

#[inline]
fn bit(key: u32) -> u64 {
    1 << (key & 63)
}

impl Keys {
    pub(super) fn insert(&mut self, key: u64, rule: RuleId, lists: &mut Lists) {
        if let Self::Few(few) = self
            && few.list.len() >= FEW
        {
            let mut map: HashMap<u32, List, RandomState> = HashMap::default();
            few.list
                .drain(..)
                .for_each(|(key, rule)| map.entry(key).or_default().add(rule, lists));
            *self = Self::Many(map);
        }
        let key = half(key);
        match self {
            Self::Few(few) => few.push(key, rule),
            Self::Many(map) => map.entry(key).or_default().add(rule, lists),
        }
    }

    pub(super) fn remove(&mut self, key: u64, rule: RuleId, lists: &mut Lists) {
        let key = half(key);
        match self {
            Self::Few(few) => few.remove(key, rule),
            Self::Many(map) => {
                if let Entry::Occupied(mut rules) = map.entry(key) {
                    rules.get_mut().remove(rule, lists);
                    if rules.get().is_empty() {
                        rules.remove();
                    }
                }
                if map.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    /// How many rules a key has.
    pub(super) fn count(&self, key: u64) -> usize {
        let key = half(key);
        match self {
            Self::Few(few) => few.of(key).count(),
            Self::Many(map) => map.get(&key).map_or(0, |rules| rules.len()),
        }
    }

    /// Calls `visit` with each rule of a key.
    #[inline]
    pub(super) fn each(&self, key: u64, lists: &Lists, visit: impl FnMut(RuleId)) {
        let key = half(key);
        match self {
            Self::Few(few) => few.of(key).for_each(visit),
            Self::Many(map) => {
                if let Some(rules) = map.get(&key) {
                    rules.of(lists).iter().copied().for_each(visit);
                }
            }
        }
    }
}

/// What is kept of a hash: enough, since rules that only share it are looked at and left out.
#[inline]
fn half(key: u64) -> u32 {
    // Of 64 bits, 32 are left.
    u32::try_from(key >> 32).unwrap_or(u32::MAX)
}
