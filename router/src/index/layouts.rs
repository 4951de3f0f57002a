//! Owns the numbers of the places in data that anybody looks at, and for each set of them the tree
//! that finds them: tenants that look at the same places share one.
//!
//! It must never give a number to another place while somebody looks at the first. The surprise:
//! trees are kept by those who use them; here they are only known.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use schemas::filter::{Paths, Slot};

/// Tenants with more places than this have a tree of their own.
const SHARED_MAX: usize = 256;

/// Places in data, of all tenants.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    slots: HashMap<Arc<str>, Slot, RandomState>,
    pointers: Vec<Option<Known>>,
    free: Vec<Slot>,
    /// Trees by their slots, in order.
    trees: HashMap<Box<[Slot]>, Weak<Paths>, RandomState>,
    /// How many trees are known when those that nobody uses are forgotten.
    sweep_at: usize,
}

#[derive(Debug)]
struct Known {
    pointer: Arc<str>,
    uses: usize,
}

/// The places that one tenant looks at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// In order, each with how many rules look there.
    slots: Vec<(Slot, u32)>,
    /// Made when it is first needed after a change.
    paths: Option<Arc<Paths>>,
}

impl Layouts {
    /// The number of `pointer`, counting a use.
    fn retain(&mut self, pointer: &str) -> Slot {
        if let Some(slot) = self.slots.get(pointer) {
            let slot = *slot;
            if let Some(known) = self.known_mut(slot) {
                known.uses += 1;
            }
            return slot;
        }
        let pointer: Arc<str> = pointer.into();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pointers.push(None);
            // One for each pointer of a filter: memory ends before.
            Slot::try_from(self.pointers.len() - 1).unwrap_or(Slot::MAX)
        });
        self.slots.insert(pointer.clone(), slot);
        if let Some(place) = index(slot).and_then(|at| self.pointers.get_mut(at)) {
            *place = Some(Known { pointer, uses: 1 });
        }
        slot
    }

    fn release(&mut self, slot: Slot) {
        let Some(known) = self.known_mut(slot) else {
            return;
        };
        known.uses -= 1;
        if known.uses > 0 {
            return;
        }
        let place = index(slot).and_then(|at| self.pointers.get_mut(at));
        if let Some(known) = place.and_then(Option::take) {
            self.slots.remove(&known.pointer);
            self.free.push(slot);
        }
    }

    fn known_mut(&mut self, slot: Slot) -> Option<&mut Known> {
        self.pointers.get_mut(index(slot)?)?.as_mut()
    }

    fn tree(&mut self, slots: &[(Slot, u32)]) -> Arc<Paths> {
        let key: Box<[Slot]> = slots.iter().map(|(slot, _)| *slot).collect();
        if let Some(tree) = self.trees.get(&key).and_then(Weak::upgrade) {
            return tree;
        }
        let pointer = |slot: &Slot| {
            let known = self.pointers.get(index(*slot)?)?.as_ref()?;
            Some((&*known.pointer, *slot))
        };
        let tree = Arc::new(key.iter().filter_map(pointer).collect::<Paths>());
        if key.len() <= SHARED_MAX {
            if self.trees.len() >= self.sweep_at {
                self.trees.retain(|_, tree| tree.strong_count() > 0);
                self.sweep_at = 2 * self.trees.len() + 64;
            }
            self.trees.insert(key, Arc::downgrade(&tree));
        }
        tree
    }
}

impl Looks {
    /// The numbers of these places, counting a use of each.
    pub(super) fn retain(&mut self, pointers: &[&str], layouts: &mut Layouts) -> Box<[Slot]> {
        let slot = |pointer: &&str| {
            let slot = layouts.retain(pointer);
            match self.slots.binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) => {
                    if let Some((_, uses)) = self.slots.get_mut(at) {
                        *uses += 1;
                    }
                }
                Err(at) => {
                    self.slots.insert(at, (slot, 1));
                    self.paths = None;
                }
            }
            slot
        };
        pointers.iter().map(slot).collect()
    }

    /// Takes a use of each of these places back.
    pub(super) fn release(&mut self, slots: &[Slot], layouts: &mut Layouts) {
        for slot in slots {
            if let Ok(at) = self.slots.binary_search_by_key(slot, |(slot, _)| *slot)
                && let Some((_, uses)) = self.slots.get_mut(at)
            {
                *uses -= 1;
                if *uses == 0 {
                    self.slots.remove(at);
                    // Before the number can be another place's.
                    self.paths = None;
                }
            }
            layouts.release(*slot);
        }
    }

    /// The tree that finds them.
    #[inline]
    pub(super) fn paths(&mut self, layouts: &mut Layouts) -> &Paths {
        let slots = &self.slots;
        self.paths.get_or_insert_with(|| layouts.tree(slots))
    }
}

fn index(slot: Slot) -> Option<usize> {
    usize::try_from(slot).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_that_look_at_the_same_places_share_a_tree() {
        let mut layouts = Layouts::default();
        let (mut one, mut other) = (Looks::default(), Looks::default());
        let slots = one.retain(&["/a", "/b"], &mut layouts);
        let same = other.retain(&["/b", "/a"], &mut layouts);
        assert_eq!((slots[0], slots[1]), (same[1], same[0]));
        one.paths(&mut layouts);
        other.paths(&mut layouts);
        let shared = |one: &Looks, other: &Looks| {
            Arc::ptr_eq(one.paths.as_ref().unwrap(), other.paths.as_ref().unwrap())
        };
        assert!(shared(&one, &other));
        let more = other.retain(&["/c", "/a"], &mut layouts);
        other.paths(&mut layouts);
        assert!(!shared(&one, &other));
        other.release(&more, &mut layouts);
        other.paths(&mut layouts);
        assert!(shared(&one, &other));
    }

    #[test]
    fn a_number_is_used_again_only_when_nobody_looks_there() {
        let mut layouts = Layouts::default();
        let (mut one, mut other) = (Looks::default(), Looks::default());
        let first = one.retain(&["/a"], &mut layouts);
        let second = other.retain(&["/a", "/b"], &mut layouts);
        one.paths(&mut layouts);
        one.release(&first, &mut layouts);
        assert!(one.paths.is_none());
        let third = one.retain(&["/c"], &mut layouts);
        assert!(!second.contains(&third[0]));
        other.release(&second, &mut layouts);
        one.release(&third, &mut layouts);
        let again = one.retain(&["/d", "/e"], &mut layouts);
        assert!(again.iter().all(|slot| *slot < 3));
        assert_eq!(layouts.pointers.len(), 3);
        // Trees that nobody uses are forgotten.
        for number in 0..1_000 {
            let slots = other.retain(&[&*format!("/{number}")], &mut layouts);
            other.paths(&mut layouts);
            other.release(&slots, &mut layouts);
        }
        assert!(layouts.trees.len() < 100);
    }
}
