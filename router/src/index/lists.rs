//! Owns short lists of numbers, of all tenants in one piece of memory: a list is where it begins
//! and how long it is, so that whoever finds one finds its numbers in the next read.
//!
//! It must never move a number while somebody reads it, which the borrow checker sees to. The
//! surprise: a list is not freed by being forgotten; who has one takes its numbers back one by one.

/// A list has room for so many at least.
const ROOM_MIN: u32 = 4;

/// The memory of lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    memory: Vec<u32>,
    /// Where there is room for so many numbers, by the binary exponent of that.
    free: [Vec<u32>; 32],
}

/// Numbers, each once, in no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct List {
    length: u32,
    /// Where they are; the only one itself.
    start: u32,
}

impl List {
    /// The numbers.
    #[inline]
    pub(super) fn of<'a>(&'a self, lists: &'a Lists) -> &'a [u32] {
        match self.length {
            0 => &[],
            1 => std::slice::from_ref(&self.start),
            _ => lists.get(*self),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The number that is alone in it.
    pub(super) fn only(self) -> Option<u32> {
        (self.length == 1).then_some(self.start)
    }

    /// How many there are.
    pub(super) fn len(self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Adds a number.
    pub(super) fn add(&mut self, number: u32, lists: &mut Lists) {
        let length = self.length.saturating_add(1);
        if length == 1 {
            self.start = number;
        } else if room(length) == room(self.length) {
            lists.set(index(self.start) + self.len(), number);
        } else {
            let start = lists.take(length);
            let moved = lists.copy(self.of(lists).to_vec(), start);
            lists.set(moved, number);
            self.give_back(lists);
            self.start = start;
        }
        self.length = length;
    }

    /// Takes a number away, if it is there.
    pub(super) fn remove(&mut self, number: u32, lists: &mut Lists) {
        let mut numbers = self.of(lists).to_vec();
        let Some(at) = numbers.iter().position(|other| *other == number) else {
            return;
        };
        numbers.swap_remove(at);
        let length = self.length - 1;
        match *numbers {
            [] => {}
            [only] => {
                self.give_back(lists);
                self.start = only;
            }
            _ if room(length) == room(self.length) => {
                let moved = numbers.get(at).copied().unwrap_or(number);
                lists.set(index(self.start) + at, moved);
            }
            _ => {
                self.give_back(lists);
                self.start = lists.take(length);
                lists.copy(numbers, self.start);
            }
        }
        self.length = length;
    }

    fn give_back(self, lists: &mut Lists) {
        let room = room(self.length);
        if room > 0
            && let Some(free) = lists.free.get_mut(index(room.trailing_zeros()))
        {
            free.push(self.start);
        }
    }
}

impl Lists {
    #[inline]
    fn get(&self, list: List) -> &[u32] {
        let start = index(list.start);
        let numbers = self.memory.get(start..start + list.len());
        numbers.unwrap_or_default()
    }

    /// Finds room for a list of this length.
    fn take(&mut self, length: u32) -> u32 {
        let room = room(length);
        let free = self.free.get_mut(index(room.trailing_zeros()));
        free.and_then(Vec::pop).unwrap_or_else(|| {
            // Four thousand million numbers: memory ends before.
            let start = u32::try_from(self.memory.len()).unwrap_or(u32::MAX);
            self.memory.resize(self.memory.len() + index(room), 0);
            start
        })
    }

    /// Writes the numbers; says where the next one goes.
    fn copy(&mut self, numbers: Vec<u32>, start: u32) -> usize {
        let mut at = index(start);
        for number in numbers {
            self.set(at, number);
            at += 1;
        }
        at
    }

    fn set(&mut self, at: usize, number: u32) {
        if let Some(place) = self.memory.get_mut(at) {
            *place = number;
        }
    }
}

/// How many numbers a list of this length has room for; none where it needs no memory.
fn room(length: u32) -> u32 {
    match length {
        0 | 1 => 0,
        _ => length.next_power_of_two().max(ROOM_MIN),
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Several lists against sets.
        #[test]
        fn a_list_holds_what_was_added_and_not_taken_away(
            steps in prop::collection::vec((0..3_usize, any::<bool>(), 0..40_u32), 1..300),
        ) {
            let mut lists = Lists::default();
            let mut all = [List::default(); 3];
            let mut expected: [BTreeSet<u32>; 3] = Default::default();
            for (which, is_new, number) in steps {
                if !is_new {
                    all[which].remove(number, &mut lists);
                    expected[which].remove(&number);
                } else if expected[which].insert(number) {
                    all[which].add(number, &mut lists);
                }
                for (list, expected) in all.iter().zip(&expected) {
                    let numbers = list.of(&lists);
                    prop_assert_eq!(&numbers.iter().copied().collect::<BTreeSet<_>>(), expected);
                    prop_assert_eq!((numbers.len(), list.len()), (expected.len(), expected.len()));
                    prop_assert_eq!(list.is_empty(), expected.is_empty());
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut lists = Lists::default();
        for _ in 0..100 {
            let mut list = List::default();
            (0..100).for_each(|number| list.add(number, &mut lists));
            (0..100).for_each(|number| list.remove(number, &mut lists));
        }
        assert_eq!(lists.memory.len(), 4 + 8 + 16 + 32 + 64 + 128);
    }
}
