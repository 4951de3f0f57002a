//! Owns reading one run from its beginning to its end: fetching bytes in pieces, checking blocks,
//! giving entries. Holds one piece and one block, whatever the run's size.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use xxhash_rust::xxh3::Xxh3;

use super::block::{BlockCursor, HEADER_BYTES, Header};
use super::writer::hex;
use super::{Entry, Part};
use crate::{Error, Store};

/// Where a piece of a run is.
#[derive(Debug)]
pub(crate) enum Input {
    /// A part in the store.
    Part { store: Store, part: Part },
    /// A scratch file, of so many bytes and entries.
    Scratch {
        file: File,
        bytes: u64,
        entries: u64,
    },
}

impl Input {
    fn bytes(&self) -> u64 {
        match self {
            Self::Part { part, .. } => part.bytes,
            Self::Scratch { bytes, .. } => *bytes,
        }
    }

    fn entries(&self) -> u64 {
        match self {
            Self::Part { part, .. } => part.entries,
            Self::Scratch { entries, .. } => *entries,
        }
    }

    fn checksum(&self) -> Option<&str> {
        match self {
            Self::Part { part, .. } => Some(&part.checksum),
            Self::Scratch { .. } => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Part { store, part } => store.path_of(&part.name),
            Self::Scratch { .. } => "scratch run".to_owned(),
        }
    }

    fn piece_bytes(&self) -> u64 {
        match self {
            Self::Part { store, .. } => store.read_bytes(),
            Self::Scratch { .. } => 256 << 10,
        }
    }

    /// Appends the bytes from `from` to `to`.
    fn read(&mut self, from: u64, to: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Part { store, part } => {
                out.extend_from_slice(&store.get_range(&part.name, from..to)?);
                Ok(())
            }
            Self::Scratch { file, .. } => {
                let scratch = |source| Error::Scratch {
                    folder: "scratch run".to_owned(),
                    source,
                };
                file.seek(SeekFrom::Start(from)).map_err(scratch)?;
                file.take(to - from)
                    .read_to_end(out)
                    .map(|_| ())
                    .map_err(scratch)
            }
        }
    }
}

/// Reads the entries of one run, in order.
pub struct RunReader {
    /// What is still to be read, the next one last.
    inputs: Vec<Input>,
    /// Bytes of the current input that were fetched, and where in them the next block is.
    piece: Vec<u8>,
    piece_at: usize,
    fetched: u64,
    read_entries: u64,
    checksum: Xxh3,
    cursor: BlockCursor,
}

impl fmt::Debug for RunReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunReader")
            .field("inputs_left", &self.inputs.len())
            .field("fetched", &self.fetched)
            .finish_non_exhaustive()
    }
}

impl RunReader {
    pub(crate) fn new(mut inputs: Vec<Input>) -> Self {
        inputs.reverse();
        Self {
            inputs,
            piece: Vec::new(),
            piece_at: 0,
            fetched: 0,
            read_entries: 0,
            checksum: Xxh3::new(),
            cursor: BlockCursor::default(),
        }
    }

    /// The entry that the reader is at; meaningful after [`RunReader::advance`] said true.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        self.cursor.entry()
    }

    /// Goes to the next entry; false at the end.
    ///
    /// # Errors
    /// The store's, or [`Error::Damaged`].
    pub fn advance(&mut self) -> Result<bool, Error> {
        loop {
            match self.cursor.advance() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(reason) => return Err(self.damaged(reason)),
            }
            if !self.next_block()? {
                return Ok(false);
            }
        }
    }

    /// Opens the next block; false when all inputs are at their end.
    fn next_block(&mut self) -> Result<bool, Error> {
        while let Some(input) = self.inputs.last() {
            let (bytes, entries) = (input.bytes(), input.entries());
            if self.piece_at < self.piece.len() || self.fetched < bytes {
                return self.open_block().map(|()| true);
            }
            if self.read_entries != entries {
                return Err(self.damaged("there are fewer or more entries than the manifest says"));
            }
            if input
                .checksum()
                .is_some_and(|sum| sum != hex(self.checksum.digest()))
            {
                return Err(self.damaged("its checksum is not the manifest's"));
            }
            self.checksum.reset();
            self.inputs.pop();
            self.piece.clear();
            (self.piece_at, self.fetched, self.read_entries) = (0, 0, 0);
        }
        Ok(false)
    }

    fn open_block(&mut self) -> Result<(), Error> {
        self.have(HEADER_BYTES)?;
        let header = self.piece.get(self.piece_at..).unwrap_or_default();
        let header = Header::read(header).map_err(|reason| self.damaged(reason))?;
        let whole = HEADER_BYTES + header.stored;
        self.have(whole)?;
        let stored = self
            .piece
            .get(self.piece_at + HEADER_BYTES..self.piece_at + whole);
        let opened = header.open(stored.unwrap_or_default(), &mut self.cursor.raw);
        opened.map_err(|reason| self.damaged(reason))?;
        self.piece_at += whole;
        self.read_entries += u64::from(header.entries);
        self.cursor.begin(header.entries);
        Ok(())
    }

    /// Fetches until `bytes` are there from the next block on.
    fn have(&mut self, bytes: usize) -> Result<(), Error> {
        if self.piece.len() - self.piece_at >= bytes {
            return Ok(());
        }
        self.piece.drain(..self.piece_at);
        self.piece_at = 0;
        let Some(input) = self.inputs.last_mut() else {
            return Ok(());
        };
        let wanted = u64::try_from(bytes - self.piece.len()).unwrap_or(u64::MAX);
        let to = (self.fetched + wanted.max(input.piece_bytes())).min(input.bytes());
        let before = self.piece.len();
        input.read(self.fetched, to, &mut self.piece)?;
        let got = u64::try_from(self.piece.len() - before).unwrap_or(u64::MAX);
        if got != to - self.fetched || self.piece.len() < bytes {
            return Err(self.damaged("it is shorter than the manifest says"));
        }
        self.checksum
            .update(self.piece.get(before..).unwrap_or_default());
        self.fetched = to;
        Ok(())
    }

    fn damaged(&self, reason: &str) -> Error {
        let name = self
            .inputs
            .last()
            .map_or_else(|| "run".to_owned(), Input::name);
        Error::damaged(name, reason)
    }
}
