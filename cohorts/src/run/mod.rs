//! Owns runs: sorted, compressed, checksummed files of entries, and reading several as one.
//!
//! An entry is an id, a tag byte, a 64-bit hash and a body; snapshots, deltas, rosters and the
//! sort's scratch files differ only in what those mean. A run is a row of parts (objects of a few
//! MiB, each written as a whole), a part is a row of blocks, a block is about 64 KiB of entries
//! whose ids are written as what differs from the id before.
//!
//! Never random access: a run is read from its beginning to its end, once.

mod block;
mod merge;
mod reader;
mod writer;

pub use merge::Merge;
pub(crate) use reader::Input;
pub use reader::RunReader;
pub(crate) use writer::{FileSink, PartSink, Sink, hex, write_merged};
pub use writer::{Part, RunManifest};

pub(crate) use block::BlockBuilder;

/// The bit of a tag that says: what this id named in older runs is gone.
pub const TAG_GONE: u8 = 0x80;

/// One entry of a run, borrowed from its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The id; ids of a run rise strictly, by their bytes.
    pub id: &'a [u8],
    /// What kind of entry this is; see [`TAG_GONE`].
    pub tag: u8,
    /// A hash of the content.
    pub hash: u64,
    /// Everything else.
    pub body: &'a [u8],
}

impl Entry<'_> {
    /// Whether the entry says that its id is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.tag & TAG_GONE != 0
    }
}

#[cfg(test)]
mod tests;
