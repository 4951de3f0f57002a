//! Owns which chunks of a pass were made and which of them have no outcome yet, and what of that
//! is stored. Pure.
//!
//! Never forgets a piece of a chunk before its outcome. The surprise: it holds no members: after a
//! restart the comparison is made again from the lowest open number, and the ledger says which
//! pieces of it are still to be sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Chunk, Operation, Position};

/// Which chunks have no outcome yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Every chunk of a lower number was made.
    made: Position,
    /// Pieces without an outcome, of chunks that were made.
    open: BTreeMap<(Operation, u64), BTreeSet<String>>,
}

/// A ledger as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LedgerState {
    made: Position,
    /// Operation, number, and the open pieces of that chunk.
    open: Vec<(String, u64, Vec<String>)>,
}

impl Ledger {
    /// As it was stored.
    pub(crate) fn restore(state: &LedgerState) -> Self {
        let operation = |name: &str| {
            Operation::ALL
                .into_iter()
                .find(|operation| operation.name() == name)
        };
        let open = state.open.iter().filter_map(|(name, number, paths)| {
            Some(((operation(name)?, *number), paths.iter().cloned().collect()))
        });
        Self {
            made: state.made,
            open: open.collect(),
        }
    }

    pub(crate) fn state(&self) -> LedgerState {
        let open = self.open.iter().map(|((operation, number), paths)| {
            let paths = paths.iter().cloned().collect();
            (operation.name().to_owned(), *number, paths)
        });
        LedgerState {
            made: self.made,
            open: open.collect(),
        }
    }

    /// How far chunks were made.
    pub(crate) fn made(&self) -> Position {
        self.made
    }

    /// How many pieces have no outcome.
    pub(crate) fn open_pieces(&self) -> usize {
        self.open.values().map(BTreeSet::len).sum()
    }

    /// From where the comparison must be made again.
    pub(crate) fn lowest(&self) -> Position {
        let mut lowest = self.made;
        for operation in Operation::ALL {
            let first = self
                .open
                .range((operation, 0)..=(operation, u64::MAX))
                .next();
            if let Some(((_, number), _)) = first {
                lowest.set(operation, (*number).min(lowest.of(operation)));
            }
        }
        lowest
    }

    /// Takes a chunk of the comparison: gives the pieces of it that have no outcome yet.
    pub(crate) fn take(&mut self, chunk: Chunk) -> Vec<Chunk> {
        let place = (chunk.operation(), chunk.number());
        if place.1 >= self.made.of(place.0) {
            self.made.pass(&chunk);
            self.open.insert(place, BTreeSet::from([String::new()]));
            return vec![chunk];
        }
        let Some(paths) = self.open.get(&place) else {
            return Vec::new();
        };
        paths
            .iter()
            .filter_map(|path| piece(&chunk, path))
            .collect()
    }

    /// A piece was refused as a whole: its halves are open in its place.
    pub(crate) fn split(&mut self, piece: &Chunk) {
        let paths = self.open.entry((piece.operation(), piece.number()));
        let paths = paths.or_default();
        paths.remove(piece.path());
        paths.extend(["0", "1"].map(|step| format!("{}{step}", piece.path())));
    }

    /// A piece has its outcome.
    pub(crate) fn settle(&mut self, piece: &Chunk) {
        let place = (piece.operation(), piece.number());
        if let Some(paths) = self.open.get_mut(&place) {
            paths.remove(piece.path());
            if paths.is_empty() {
                self.open.remove(&place);
            }
        }
    }
}

/// The piece of a whole chunk at a path.
fn piece(whole: &Chunk, path: &str) -> Option<Chunk> {
    path.bytes().try_fold(whole.clone(), |chunk, step| {
        let (front, behind) = chunk.split()?;
        Some(if step == b'0' { front } else { behind })
    })
}
