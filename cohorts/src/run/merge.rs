//! Owns reading several runs as one, in which the newest entry of an id hides the older ones.

use super::{Entry, RunReader};
use crate::Error;

/// Several runs, read as one.
///
/// The surprise: `readers` are a heap of their own, because its order depends on where each reader
/// is, which no borrowed key could follow.
#[derive(Debug)]
pub struct Merge {
    /// A binary heap, the smallest id first; of equal ids, the newest run first.
    heap: Vec<Ranked>,
    started: bool,
    keep_gone: bool,
    hidden: u64,
}

#[derive(Debug)]
struct Ranked {
    /// Lower is newer.
    age: usize,
    /// Boxed, as the heap swaps.
    reader: Box<RunReader>,
}

impl Ranked {
    fn is_before(&self, other: &Self) -> bool {
        let (own, others) = (self.reader.entry().id, other.reader.entry().id);
        match own.cmp(others) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => self.age < other.age,
            std::cmp::Ordering::Greater => false,
        }
    }
}

impl Merge {
    /// A merge of `runs`, the newest first. Entries that say "gone" are left out.
    #[must_use]
    pub fn new(runs: Vec<RunReader>) -> Self {
        let heap = runs.into_iter().enumerate().map(|(age, reader)| Ranked {
            age,
            reader: Box::new(reader),
        });
        Self {
            heap: heap.collect(),
            started: false,
            keep_gone: false,
            hidden: 0,
        }
    }

    /// Gives the entries that say "gone" too: for a merge whose result hides older runs.
    #[must_use]
    pub fn keeping_gone(mut self) -> Self {
        self.keep_gone = true;
        self
    }

    /// How many entries were hidden by newer ones so far.
    #[must_use]
    pub fn hidden(&self) -> u64 {
        self.hidden
    }

    /// The entry that the merge is at, after [`Merge::advance`] said true; none at the end.
    #[must_use]
    pub fn entry(&self) -> Option<Entry<'_>> {
        self.heap.first().map(|top| top.reader.entry())
    }

    /// Goes to the next entry; false at the end.
    ///
    /// # Errors
    /// The store's, or [`Error::Damaged`].
    pub fn advance(&mut self) -> Result<bool, Error> {
        loop {
            if self.started {
                self.step(0)?;
            } else {
                self.start()?;
            }
            self.hide_older()?;
            match self.heap.first() {
                None => return Ok(false),
                Some(top) if self.keep_gone || !top.reader.entry().is_gone() => return Ok(true),
                Some(_) => {}
            }
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        self.started = true;
        let mut readers = Vec::with_capacity(self.heap.len());
        for mut ranked in self.heap.drain(..) {
            if ranked.reader.advance()? {
                readers.push(ranked);
            }
        }
        self.heap = readers;
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        Ok(())
    }

    /// Moves the reader at `at` on, and puts it where it belongs.
    fn step(&mut self, at: usize) -> Result<(), Error> {
        let Some(ranked) = self.heap.get_mut(at) else {
            return Ok(());
        };
        if !ranked.reader.advance()? {
            // `at` is the root or one of its children, so what takes its place is never above what
            // is there: sifting down is enough.
            self.heap.swap_remove(at);
        }
        self.sift_down(at);
        Ok(())
    }

    /// Moves on whatever stands at the same id as the top: an equal one is always below an equal
    /// one, so the root's children are all that need a look.
    fn hide_older(&mut self) -> Result<(), Error> {
        for child in [1, 2] {
            while self.is_equal_to_top(child) {
                self.hidden += 1;
                self.step(child)?;
            }
        }
        Ok(())
    }

    fn is_equal_to_top(&self, child: usize) -> bool {
        match (self.heap.first(), self.heap.get(child)) {
            (Some(top), Some(other)) => top.reader.entry().id == other.reader.entry().id,
            _ => false,
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut first = at;
            for child in [left, right] {
                if let (Some(one), Some(best)) = (self.heap.get(child), self.heap.get(first))
                    && one.is_before(best)
                {
                    first = child;
                }
            }
            if first == at {
                return;
            }
            self.heap.swap(at, first);
            at = first;
        }
    }
}
