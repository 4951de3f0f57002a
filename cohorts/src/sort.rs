//! Owns putting entries in the order of their ids with a bounded memory, the last of an id winning:
//! buffers are sorted and spilled to scratch files, which are then read as one.
//!
//! The surprise: scratch files have no names (they are unlinked when made), so that nothing is left
//! of them however the process ends.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::run::{BlockBuilder, Entry, FileSink, Input, Merge, RunReader, Sink, write_merged};
use crate::{Error, Progress};

/// The most scratch runs that are read as one; each takes about 320 KiB while it is.
const RUNS_MAX: usize = 64;

/// What one run takes while it is merged.
const RUN_BYTES: usize = 320 << 10;

/// Bounds of a sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortOptions {
    /// What the sort may hold in memory, in bytes; between 1 MiB and 2 GiB.
    pub memory_bytes: usize,
    /// The folder of the scratch files, on a local disk.
    pub scratch: PathBuf,
    /// What the scratch files may take at once, in bytes.
    pub scratch_bytes_max: u64,
}

impl Default for SortOptions {
    /// 128 MiB of memory sort 10 million members of 100 bytes in about twenty runs; 64 GiB of
    /// scratch are a billion members.
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            scratch: std::env::temp_dir(),
            scratch_bytes_max: 64 << 30,
        }
    }
}

impl SortOptions {
    fn memory(&self) -> usize {
        self.memory_bytes.clamp(1 << 20, 2 << 30)
    }

    /// How many runs fit in memory when they are read as one.
    fn fan_in(&self) -> usize {
        (self.memory() / 2 / RUN_BYTES).clamp(2, RUNS_MAX)
    }

    fn folder(&self) -> String {
        self.scratch.display().to_string()
    }

    /// A scratch file without a name.
    pub(crate) fn file(&self) -> Result<std::fs::File, Error> {
        #[cfg(test)]
        if let Some(file) = crate::doubles::on_full_disk(&self.scratch) {
            return Ok(file);
        }
        tempfile::tempfile_in(&self.scratch).map_err(|source| self.scratch_error(source))
    }

    pub(crate) fn scratch_error(&self, source: std::io::Error) -> Error {
        Error::Scratch {
            folder: self.folder(),
            source,
        }
    }

    pub(crate) fn check_scratch(&self, used: u64) -> Result<(), Error> {
        if used <= self.scratch_bytes_max {
            return Ok(());
        }
        let limit = format!("{} bytes", self.scratch_bytes_max);
        Err(Error::Limit {
            what: format!("the scratch space in `{}`", self.folder()),
            limit,
        })
    }
}

// === Buffer ===

/// Entries in memory, in the order they came and then in the order of their ids.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Entries, one behind the other: lengths of id and body, hash, tag, id, body.
    arena: Vec<u8>,
    slots: Vec<Slot>,
    arena_max: usize,
    slots_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The eight bytes of the id after what all ids share: most comparisons end here.
    key: u64,
    at: u32,
}

const FIXED_BYTES: usize = 15;

impl Buffer {
    /// A buffer of at most `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        // A slot takes 16 bytes, and the usual member far more than 64.
        let slots_max = bytes / 5 / size_of::<Slot>();
        let (arena, slots) = (Vec::new(), Vec::new());
        Self {
            arena,
            slots,
            arena_max: bytes / 5 * 4,
            slots_max: slots_max.max(1),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether another entry of such sizes is too much.
    fn is_full(&self, entry: &Entry<'_>) -> bool {
        let more = FIXED_BYTES + entry.id.len() + entry.body.len();
        self.slots.len() >= self.slots_max
            || (self.arena.len() + more > self.arena_max && !self.is_empty())
    }

    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        if self.arena.capacity() == 0 {
            self.arena.reserve_exact(self.arena_max.min(1 << 20));
        }
        // Beyond the first MiB a buffer is likely to fill: growing by doubling would hold it twice.
        if self.arena.len() > (1 << 20) - FIXED_BYTES && self.arena.capacity() < self.arena_max {
            self.arena.reserve_exact(self.arena_max - self.arena.len());
            self.slots.reserve_exact(self.slots_max - self.slots.len());
        }
        let at = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        let id_bytes = u16::try_from(entry.id.len()).unwrap_or(u16::MAX);
        let body_bytes = u32::try_from(entry.body.len()).unwrap_or(u32::MAX);
        self.arena.extend_from_slice(&id_bytes.to_le_bytes());
        self.arena.extend_from_slice(&body_bytes.to_le_bytes());
        self.arena.extend_from_slice(&entry.hash.to_le_bytes());
        self.arena.push(entry.tag);
        self.arena.extend_from_slice(entry.id);
        self.arena.extend_from_slice(entry.body);
        self.slots.push(Slot { key: 0, at });
    }

    /// Sorts by id, the newest of equal ids first.
    fn sort(&mut self) {
        let arena = self.arena.as_slice();
        let first = self
            .slots
            .first()
            .map_or(&[][..], |slot| id_at(arena, slot.at));
        let mut shared = first.len();
        for slot in &self.slots {
            let id = id_at(arena, slot.at);
            if id.get(..shared) != first.get(..shared) {
                shared = id.iter().zip(first).take_while(|(a, b)| a == b).count();
            }
        }
        for slot in &mut self.slots {
            slot.key = key_of(id_at(arena, slot.at).get(shared..).unwrap_or_default());
        }
        self.slots.sort_unstable_by(|one, other| {
            one.key
                .cmp(&other.key)
                .then_with(|| id_at(arena, one.at).cmp(id_at(arena, other.at)))
                .then_with(|| other.at.cmp(&one.at))
        });
    }

    /// Sorts, and writes the newest of each id; what is in it stays until [`Buffer::clear`].
    pub(crate) fn write(&mut self, sink: &mut dyn Sink) -> Result<(), Error> {
        self.sort();
        let mut builder = BlockBuilder::default();
        let mut last: Option<&[u8]> = None;
        for slot in &self.slots {
            let entry = entry_at(&self.arena, slot.at);
            if last == Some(entry.id) {
                continue;
            }
            last = Some(entry.id);
            builder.push(&entry);
            if builder.is_full() {
                sink.block(&builder.take())?;
            }
        }
        if !builder.is_empty() {
            sink.block(&builder.take())?;
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.slots.clear();
    }
}

fn key_of(rest: &[u8]) -> u64 {
    // An id has no control characters, so a filling zero sorts below all that it may have.
    let mut key = [0; 8];
    for (to, from) in key.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(key)
}

fn id_at(arena: &[u8], at: u32) -> &[u8] {
    let bytes = arena.get(to_usize(at)..).unwrap_or_default();
    let length = bytes
        .first_chunk::<2>()
        .map_or(0, |two| u16::from_le_bytes(*two));
    bytes
        .get(FIXED_BYTES..FIXED_BYTES + usize::from(length))
        .unwrap_or_default()
}

fn entry_at(arena: &[u8], at: u32) -> Entry<'_> {
    let bytes = arena.get(to_usize(at)..).unwrap_or_default();
    let fixed = bytes
        .first_chunk::<FIXED_BYTES>()
        .copied()
        .unwrap_or_default();
    let [i0, i1, b0, b1, b2, b3, hash @ .., tag] = fixed;
    let id_end = FIXED_BYTES + usize::from(u16::from_le_bytes([i0, i1]));
    let body_end = id_end + to_usize(u32::from_le_bytes([b0, b1, b2, b3]));
    Entry {
        id: bytes.get(FIXED_BYTES..id_end).unwrap_or_default(),
        tag,
        hash: u64::from_le_bytes(hash),
        body: bytes.get(id_end..body_end).unwrap_or_default(),
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

// === Sorter ===

/// An external merge sort: entries in any order come in, one merge of scratch runs comes out.
///
/// Filling a buffer and spilling one run on two threads: the caller's, and one that ends with
/// [`Sorter::finish`] or when the sorter is dropped.
#[derive(Debug)]
pub(crate) struct Sorter {
    buffer: Buffer,
    full: SyncSender<Buffer>,
    empty: Receiver<Buffer>,
    spilling: JoinHandle<Result<Spilled, Error>>,
    pushed: u64,
}

/// What was sorted.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// All entries, in order.
    pub(crate) merge: Merge,
    /// How many came in.
    pub(crate) pushed: u64,
}

impl Sorter {
    pub(crate) fn new(options: SortOptions) -> Self {
        let bytes = options.memory() / 2;
        let (full, filled) = sync_channel(1);
        let (emptied, empty) = channel();
        // Two buffers in all: one is filled while the other is spilled.
        drop(emptied.send(Buffer::new(bytes)));
        let spilling = thread::spawn(move || Spilled::new(options).run(&filled, &emptied));
        Self {
            buffer: Buffer::new(bytes),
            full,
            empty,
            spilling,
            pushed: 0,
        }
    }

    pub(crate) fn push(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        if self.buffer.is_full(entry) && !self.swap() {
            return Err(Error::Stopped);
        }
        self.buffer.push(entry);
        self.pushed += 1;
        Ok(())
    }

    /// Hands the buffer over for an empty one; false when the other thread has failed.
    fn swap(&mut self) -> bool {
        let Ok(empty) = self.empty.recv() else {
            return false;
        };
        self.full
            .send(std::mem::replace(&mut self.buffer, empty))
            .is_ok()
    }

    /// Spills what is left, and gives all as one.
    pub(crate) fn finish(mut self) -> Result<Sorted, Error> {
        if !self.buffer.is_empty() {
            self.swap();
        }
        drop(self.full);
        drop(self.buffer);
        let spilled = self
            .spilling
            .join()
            .map_err(|_| Error::Worker("spilling a sort".to_owned()))??;
        Ok(Sorted {
            merge: merge_of(spilled.runs),
            pushed: self.pushed,
        })
    }

    /// Why a push was refused: what the other thread failed with.
    pub(crate) fn failure(self) -> Error {
        match self.finish() {
            Ok(_) => Error::Stopped,
            Err(error) => error,
        }
    }
}

/// The scratch runs of a sort, the oldest first.
#[derive(Debug)]
struct Spilled {
    options: SortOptions,
    runs: Vec<Input>,
    bytes: u64,
}

impl Spilled {
    fn new(options: SortOptions) -> Self {
        Self {
            options,
            runs: Vec::new(),
            bytes: 0,
        }
    }

    fn run(mut self, filled: &Receiver<Buffer>, emptied: &Sender<Buffer>) -> Result<Self, Error> {
        for mut buffer in filled {
            self.spill(&mut buffer)?;
            // Nobody takes it when the sorter is ending.
            drop(emptied.send(buffer));
        }
        Ok(self)
    }

    fn spill(&mut self, buffer: &mut Buffer) -> Result<(), Error> {
        let mut sink = FileSink::new(self.options.file()?, self.options.folder());
        buffer.write(&mut sink)?;
        buffer.clear();
        self.keep(sink)?;
        if self.runs.len() < self.options.fan_in() {
            return Ok(());
        }
        let before = std::mem::take(&mut self.bytes);
        let mut sink = FileSink::new(self.options.file()?, self.options.folder());
        let mut merge = merge_of(std::mem::take(&mut self.runs));
        write_merged(&mut merge, &mut sink, &Progress::default())?;
        self.options.check_scratch(before + sink.written().bytes)?;
        self.keep(sink)
    }

    fn keep(&mut self, sink: FileSink) -> Result<(), Error> {
        self.bytes += sink.written().bytes;
        self.runs.push(sink.into_input());
        self.options.check_scratch(self.bytes)
    }
}

/// Reads runs, the oldest first, as one.
fn merge_of(runs: Vec<Input>) -> Merge {
    let readers = runs.into_iter().rev().map(|run| RunReader::new(vec![run]));
    Merge::new(readers.collect()).keeping_gone()
}

#[cfg(test)]
mod tests;
