//! Owns writing runs: blocks into parts of a few MiB, each put as a whole, or into a scratch file.
//! What was begun and fails is taken away again by whoever began it ([`PartSink::abandon`]).

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::thread;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::block::RawBlock;
use super::{BlockBuilder, Input, Merge, RunReader};
use crate::{Error, Progress, Store};

/// A part is put once it has so many bytes: few enough to hold, enough to be worth a request.
const PART_BYTES: usize = 8 << 20;

/// Raw blocks between the thread that merges and the one that packs.
const BLOCKS_AHEAD: usize = 8;

/// One object of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name under the run's folder.
    pub name: String,
    /// How many entries it has.
    pub entries: u64,
    /// Its size.
    pub bytes: u64,
    /// The xxh3 of its bytes, 16 hexadecimal digits.
    pub checksum: String,
}

/// A run in the store: its parts, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// The parts.
    pub parts: Vec<Part>,
}

impl RunManifest {
    /// How many entries the run has.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.parts.iter().map(|part| part.entries).sum()
    }

    /// How many bytes it takes in the store.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// A reader of the run, whose parts are in `folder`.
    #[must_use]
    pub fn reader(&self, folder: &Store) -> RunReader {
        let input = |part: &Part| Input::Part {
            store: folder.clone(),
            part: part.clone(),
        };
        RunReader::new(self.parts.iter().map(input).collect())
    }
}

pub(crate) fn hex(checksum: u64) -> String {
    format!("{checksum:016x}")
}

/// Where blocks go.
pub(crate) trait Sink: Send {
    /// Takes the next block.
    fn block(&mut self, block: &RawBlock) -> Result<(), Error>;
}

/// Puts blocks into parts of a folder in the store.
#[derive(Debug)]
pub(crate) struct PartSink {
    folder: Store,
    prefix: String,
    buffer: Vec<u8>,
    entries: u64,
    parts: Vec<Part>,
}

impl PartSink {
    /// A sink of a run in `folder`. Its parts' names are its own, whoever else writes there: no
    /// two writers overwrite each other, or take away what is not theirs.
    pub(crate) fn new(folder: Store) -> Self {
        let prefix = format!("run-{}", Uuid::now_v7().simple());
        Self {
            folder,
            prefix,
            buffer: Vec::new(),
            entries: 0,
            parts: Vec::new(),
        }
    }

    fn put(&mut self) -> Result<(), Error> {
        let buffer = std::mem::take(&mut self.buffer);
        let checksum = hex(xxh3_64(&buffer));
        let part = Part {
            name: format!("{}-{:04}", self.prefix, self.parts.len()),
            entries: std::mem::take(&mut self.entries),
            bytes: buffer.len() as u64,
            checksum,
        };
        self.parts.push(part.clone());
        self.folder.put(&part.name, buffer)
    }

    /// Puts what is left, and says what the run is.
    pub(crate) fn finish(&mut self) -> Result<RunManifest, Error> {
        if self.entries > 0 {
            self.put()?;
        }
        Ok(RunManifest {
            parts: self.parts.clone(),
        })
    }

    /// Writes the manifest that names this run. When its fate is unknown (a request may be carried
    /// out after its answer was given up) the parts stay, to be swept or not.
    pub(crate) fn publish(&mut self, at: &Store, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let created = at.create(name, bytes);
        if matches!(created, Err(Error::Store { .. })) {
            self.parts.clear();
        }
        created
    }

    /// Takes away what was put. What cannot be taken away now is swept later, as no manifest names
    /// it.
    pub(crate) fn abandon(&mut self) {
        for part in std::mem::take(&mut self.parts) {
            drop(self.folder.delete(&part.name));
        }
    }
}

impl Sink for PartSink {
    fn block(&mut self, block: &RawBlock) -> Result<(), Error> {
        block.seal(&mut self.buffer);
        self.entries += u64::from(block.entries);
        if self.buffer.len() >= PART_BYTES {
            self.put()
        } else {
            Ok(())
        }
    }
}

/// Puts blocks into a scratch file.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: File,
    folder: String,
    buffer: Vec<u8>,
    written: Written,
}

/// How much was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl FileSink {
    pub(crate) fn new(file: File, folder: String) -> Self {
        Self {
            file,
            folder,
            buffer: Vec::new(),
            written: Written::default(),
        }
    }

    pub(crate) fn written(&self) -> Written {
        self.written
    }

    pub(crate) fn into_input(self) -> Input {
        let Written { entries, bytes } = self.written;
        Input::Scratch {
            file: self.file,
            bytes,
            entries,
        }
    }
}

impl Sink for FileSink {
    fn block(&mut self, block: &RawBlock) -> Result<(), Error> {
        self.buffer.clear();
        block.seal(&mut self.buffer);
        let written = self.file.write_all(&self.buffer);
        written.map_err(|source| Error::Scratch {
            folder: self.folder.clone(),
            source,
        })?;
        self.written.bytes += self.buffer.len() as u64;
        self.written.entries += u64::from(block.entries);
        Ok(())
    }
}

/// Writes all that `merge` still has. Merging and packing run on two threads: each is about half of
/// the work.
pub(crate) fn write_merged(
    merge: &mut Merge,
    sink: &mut dyn Sink,
    progress: &Progress,
) -> Result<(), Error> {
    thread::scope(|scope| {
        let (sender, blocks) = sync_channel::<RawBlock>(BLOCKS_AHEAD);
        let packing = scope.spawn(move || -> Result<(), Error> {
            for block in blocks {
                sink.block(&block)?;
            }
            Ok(())
        });
        let merged = merge_into(merge, progress, |block| sender.send(block).is_ok());
        drop(sender);
        match packing.join() {
            Ok(packed) => packed.and(merged),
            Err(_) => Err(Error::Worker("packing a run".to_owned())),
        }
    })
}

/// Makes blocks until the end, or until `take` wants no more (its side has failed and says why).
fn merge_into(
    merge: &mut Merge,
    progress: &Progress,
    mut take: impl FnMut(RawBlock) -> bool,
) -> Result<(), Error> {
    let mut builder = BlockBuilder::default();
    while merge.advance()? {
        let Some(entry) = merge.entry() else { break };
        builder.push(&entry);
        if builder.is_full() {
            progress.check()?;
            if !take(builder.take()) {
                return Ok(());
            }
        }
    }
    if !builder.is_empty() {
        take(builder.take());
    }
    Ok(())
}
