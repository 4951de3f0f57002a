//! Cohorts as data: what a cohort is ([`Cohort`]: snapshots and deltas), what a partner's list is
//! known to hold ([`Roster`]), and what differs between them ([`Diff`]), cut into the members of
//! single requests ([`Chunks`]).
//!
//! The data side of it never talks to a partner, a log or a clock: it reads and writes objects of a
//! [`Store`], and scratch files. [`sync`] runs syncs over it, [`service`] is the process role.
//!
//! A run of a sync, from end to end:
//!
//! ```text
//! view   = cohort.view()                        what the cohort is: snapshot + deltas, fixed
//! roster = Roster::open(folder, identity)       what the partner holds: a generation, fixed
//! plan   = Diff::new(cohort.members(&view), &roster, Scope::Whole).plan()
//! chunks = Chunks::new(Diff::new(…), limits, position)
//! each chunk: send it; when heard: chunk.settle(index, verdict, &mut outcomes)
//! now and then: roster.apply(&mut outcomes, note)   the next generation, note with it
//! resume: Roster::open_at(first generation), the same view and limits, Chunks from the position
//! ```
//!
//! Between sending a chunk and hearing of it a member is unknown. That need not be written chunk by
//! chunk: it is enough to keep durably, ahead of sending, the [`Position`] that sending may have
//! reached. After a crash the chunks below it that nothing was heard of are made again from the
//! same view and generation, and settled as [`Verdict::Unknown`]: so nobody who may have been added
//! is forgotten when he leaves (rule 14). Pin the view ([`Cohort::retain`]) and the generation
//! ([`Roster::sweep`]) until a run has ended.
//!
//! The surprise: everything but [`Cohort::upload`] blocks, and is to be called on a blocking
//! thread: a pass over millions of members then costs no await a member. [`Diff`] and [`Chunks`]
//! are `Send`, so that they can move to such a thread for a few chunks and come back.

mod chunk;
mod delta;
mod diff;
mod error;
mod fold;
mod item;
pub mod member;
mod progress;
mod read;
mod roster;
mod run;
mod scan;
mod sealed;
pub mod service;
mod snapshot;
mod sort;
mod staged;
mod store;
pub mod sync;

#[cfg(test)]
mod doubles;

pub use chunk::{Chunk, ChunkLimits, ChunkMember, Chunks, Position};
pub use delta::{Changes, Delta};
pub use diff::{Counts, Diff, Row, Scope};
pub use error::Error;
pub use fold::DELTAS_MAX;
pub use item::{
    CODE_BYTES_MAX, Decision, Held, Item, Operation, Standing, Verdict, decide, settle,
};
pub use progress::{Progress, Reached};
pub use read::{Compression, Format, REJECTS_KEPT_MAX, ReadOptions, Reject, Rejects};
pub use roster::{Outcomes, Roster};
pub use run::{Entry, Merge, Part, RunManifest, RunReader, TAG_GONE};
pub use snapshot::{Cohort, Listing, NewSnapshot, Snapshot, UploadOptions, Uploaded, View};
pub use sort::SortOptions;
pub use store::Store;
