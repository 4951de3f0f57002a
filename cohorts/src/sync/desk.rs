//! Owns the blocking side of a pass: the comparison, read chunk by chunk, and each chunk written as
//! a record. Lent to a blocking thread for a few chunks at a time.

use std::sync::Arc;

use super::note::RunScope;
use super::record::{Made, Maker};
use crate::{
    Chunk, ChunkLimits, Chunks, Cohort, Counts, Diff, Error, Merge, Position, Roster, Scope, View,
};

/// A comparison, and what writes its chunks.
#[derive(Debug)]
pub(super) struct Desk {
    chunks: Chunks,
    maker: Arc<Maker>,
}

/// Chunks that were read.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) chunks: Vec<(Chunk, Made)>,
    /// Whether there are no more.
    pub(super) ended: bool,
}

impl Desk {
    /// The chunks of a comparison from a position on.
    pub(super) fn open(
        (members, scope): (Merge, Scope),
        (roster, holds_back): (&Roster, bool),
        (limits, from): (ChunkLimits, Position),
        maker: Arc<Maker>,
    ) -> Self {
        let diff = Diff::new(members, roster, scope).holding_back(holds_back);
        Self {
            chunks: Chunks::new(diff, limits, from),
            maker,
        }
    }

    /// The next chunks, at most so many and about so many bytes of them.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn next(
        &mut self,
        (most, bytes_max): (usize, usize),
        at: (i64, i64),
    ) -> Result<Batch, Error> {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while chunks.len() < most && (bytes < bytes_max || chunks.is_empty()) {
            let Some(chunk) = self.chunks.next_chunk()? else {
                return Ok(Batch {
                    chunks,
                    ended: true,
                });
            };
            bytes += chunk.held_bytes();
            let made = self.maker.chunk(&chunk, at)?;
            chunks.push((chunk, made));
        }
        Ok(Batch {
            chunks,
            ended: false,
        })
    }
}

/// The members that a run is about.
pub(super) fn members(cohort: &Cohort, view: &View, scope: &RunScope) -> (Merge, Scope) {
    match scope {
        RunScope::Whole => (cohort.members(view), Scope::Whole),
        RunScope::Deltas(deltas) => (cohort.changes(deltas), Scope::Named),
    }
}

/// What a run would do.
///
/// # Errors
/// The store's.
pub(crate) fn plan(
    cohort: &Cohort,
    (view, scope): (&View, &RunScope),
    (roster, holds_back): (&Roster, bool),
) -> Result<Counts, Error> {
    let (members, named) = members(cohort, view, scope);
    Diff::new(members, roster, named)
        .holding_back(holds_back)
        .plan()
}
