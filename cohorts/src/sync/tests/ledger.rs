//! What is open of a pass is what was open before a restart.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use crate::doubles::{Faulty, ndjson, upload};
use crate::sync::ledger::Ledger;
use crate::{Chunk, ChunkLimits, Chunks, Cohort, Diff, Position, Roster, Scope};

const MEMBERS: usize = 90;

/// A comparison that can be made again and again.
struct Source {
    cohort: Cohort,
    roster: Roster,
}

impl Source {
    fn new() -> Self {
        let store = Faulty::new().store();
        let cohort = Cohort::new(&store, "acme", "c");
        let rows: Vec<String> = ids().collect();
        let rows = ndjson(rows.iter().map(|id| (id.as_str(), 1)));
        upload(&cohort, "s", 1, rows.as_bytes(), Default::default()).unwrap();
        let roster = Roster::open(store.folder("r"), &[]).unwrap();
        Self { cohort, roster }
    }

    fn chunks(&self, from: Position) -> Chunks {
        let members = self.cohort.members(&self.cohort.view().unwrap());
        let limits = ChunkLimits {
            items: NonZeroUsize::new(8).unwrap(),
            update_items: None,
            remove_items: None,
            bytes: NonZeroUsize::new(9_999).unwrap(),
        };
        Chunks::new(Diff::new(members, &self.roster, Scope::Whole), limits, from)
    }
}

fn ids() -> impl Iterator<Item = String> {
    (0..MEMBERS).map(|id| format!("m{id:02}"))
}

fn members_of(chunk: &Chunk) -> Vec<String> {
    chunk.members().map(|member| member.id.to_owned()).collect()
}

fn key(chunk: &Chunk) -> String {
    format!("{}{}", chunk.number(), chunk.path())
}

/// A pass without a log.
struct Walk<'s> {
    source: &'s Source,
    chunks: Chunks,
    ledger: Ledger,
    open: Vec<Chunk>,
    settled: Vec<String>,
}

impl Walk<'_> {
    fn make(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.next_chunk().unwrap()?;
        self.open.extend(self.ledger.take(chunk.clone()));
        Some(chunk)
    }

    fn settle(&mut self) {
        if !self.open.is_empty() {
            let chunk = self.open.remove(self.open.len() / 2);
            self.ledger.settle(&chunk);
            self.settled.extend(members_of(&chunk));
        }
    }

    fn split(&mut self) {
        let Some(chunk) = self.open.pop() else { return };
        match chunk.split() {
            Some((front, behind)) => {
                self.ledger.split(&chunk);
                self.open.extend([front, behind]);
            }
            None => self.open.push(chunk),
        }
    }

    /// What is open is made again, and nothing else of what was made.
    fn crash(&mut self) {
        let stored = serde_json::to_string(&self.ledger.state()).unwrap();
        let made = self.ledger.made();
        self.ledger = Ledger::restore(&serde_json::from_str(&stored).unwrap());
        self.chunks = self.source.chunks(self.ledger.lowest());
        let mut expected: Vec<String> = self.open.drain(..).map(|chunk| key(&chunk)).collect();
        while self.ledger.lowest() != Position::default() || !expected.is_empty() {
            match self.make() {
                Some(chunk) if chunk.number() + 1 < made.add => {}
                Some(_) | None => break,
            }
        }
        let mut found: Vec<String> = self.open.iter().map(key).collect();
        expected.sort();
        found.sort();
        found.retain(|key| expected.contains(key));
        assert_eq!(found, expected, "what was open is");
    }
}

proptest! {
    #[test]
    fn a_ledger_that_is_stored_and_read_gives_what_is_open(
        steps in proptest::collection::vec(0_u8..4, 1..40),
    ) {
        let source = Source::new();
        let mut walk = Walk {
            source: &source,
            chunks: source.chunks(Position::default()),
            ledger: Ledger::default(),
            open: Vec::new(),
            settled: Vec::new(),
        };
        for step in steps {
            match step {
                0 => drop(walk.make()),
                1 => walk.settle(),
                2 => walk.split(),
                _ => walk.crash(),
            }
        }
        while walk.make().is_some() {}
        let mut all = walk.settled;
        all.extend(walk.open.iter().flat_map(members_of));
        all.sort();
        prop_assert_eq!(all, ids().collect::<Vec<_>>(), "each member once");
    }
}
