//! Owns the places that are listed by a text of an attribute, of all tenants in one map: a list is
//! one look-up away from its bucket, in memory that is next to itself.
//!
//! It must never find a list by a text that only shares its hash. The surprise: whose a text is, is
//! part of the key.

use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use hashbrown::hash_map::Entry;
use hashbrown::{Equivalent, HashMap};
use schemas::filter::Text;

use super::entries::Place;
use super::lists::{List, Lists};

/// The number of one bucket's texts of one attribute.
pub(super) type TableId = u32;

/// Places by text.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    lists: HashMap<Key, List, RandomState>,
    /// How many numbers there have been at once.
    tables: TableId,
    free: Vec<TableId>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    table: TableId,
    text: Text,
}

/// A key that is looked for.
#[derive(Debug, Clone, Copy)]
struct Sought<'a> {
    table: TableId,
    text: &'a [u8],
}

impl Hash for Sought<'_> {
    /// As [`Key`] is hashed.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.table.hash(state);
        self.text.hash(state);
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.table == key.table && self.text == key.text.as_bytes()
    }
}

impl Wanted {
    /// A number for a new table.
    pub(super) fn take_table(&mut self) -> TableId {
        self.free.pop().unwrap_or_else(|| {
            let table = self.tables;
            // One for each attribute of a bucket: memory ends before.
            self.tables = table.saturating_add(1);
            table
        })
    }

    /// The table is empty, and nobody asks for it any more.
    pub(super) fn give_back(&mut self, table: TableId) {
        self.free.push(table);
    }

    #[inline]
    pub(super) fn get(&self, table: TableId, text: &str) -> Option<&List> {
        let text = text.as_bytes();
        self.lists.get(&Sought { table, text })
    }

    /// Lists a place; says whether the text is new.
    pub(super) fn add(
        &mut self,
        (table, text): (TableId, &str),
        place: Place,
        lists: &mut Lists,
    ) -> bool {
        let text = Text::from(text);
        let list = self.lists.entry(Key { table, text }).or_default();
        list.add(place, lists);
        list.len() == 1
    }

    /// Takes a place back; says whether the text is gone with it.
    pub(super) fn remove(
        &mut self,
        (table, text): (TableId, &str),
        place: Place,
        lists: &mut Lists,
    ) -> bool {
        let text = Text::from(text);
        let Entry::Occupied(mut list) = self.lists.entry(Key { table, text }) else {
            return false;
        };
        list.get_mut().remove(place, lists);
        let is_empty = list.get().is_empty();
        if is_empty {
            list.remove();
        }
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_two_tables_are_told_apart() {
        let (mut wanted, mut lists) = (Wanted::default(), Lists::default());
        let (one, other) = (wanted.take_table(), wanted.take_table());
        let long = "x".repeat(100);
        for text in ["", "a", &long] {
            assert!(wanted.add((one, text), 1, &mut lists), "{text}");
            assert!(!wanted.add((one, text), 2, &mut lists), "{text}");
            assert_eq!(wanted.get(other, text), None);
            assert!(!wanted.remove((other, text), 1, &mut lists));
            assert_eq!(wanted.get(one, text).unwrap().of(&lists), [1, 2]);
            assert!(!wanted.remove((one, text), 1, &mut lists));
            assert_eq!(wanted.get(one, text).unwrap().of(&lists), [2]);
            assert!(wanted.remove((one, text), 2, &mut lists));
            assert_eq!(wanted.get(one, text), None);
        }
        wanted.give_back(other);
        assert_eq!(wanted.take_table(), other);
    }
}
