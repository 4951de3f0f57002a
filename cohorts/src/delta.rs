//! Owns the changes to a cohort between snapshots: members added (or changed) and removed, each
//! batch a small run with a sequence number. Never changes a delta: many are folded into a wider
//! one, which hides them.
//!
//! The surprise: a delta that was taken while a snapshot was being uploaded applies to that
//! snapshot too, as the upload may not have it; applied twice, it does what it did once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::member::{ROW_BYTES_MAX, check_id, content_hash};
use crate::run::{Entry, Merge, PartSink, RunManifest, RunReader, TAG_GONE, write_merged};
use crate::scan::Scan;
use crate::sealed::{seal, unseal};
use crate::snapshot::{Cohort, View};
use crate::sort::Buffer;
use crate::{Error, Progress, Store};

pub(crate) const MANIFEST: &str = "manifest.json";

const FOLDER: &str = "deltas";

/// Where the parts of all deltas are.
pub(crate) const DELTA_PARTS: &str = "delta-parts";

/// What one delta may hold, in bytes of memory.
const CHANGES_BYTES_MAX: usize = 32 << 20;

/// How often a sequence number that somebody else took at the same moment is given up for the next.
const TRIES_MAX: u32 = 16;

/// Changes that were taken together, or several such folded into one: its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// Its sequence number; the first of those that were folded.
    pub first: u64,
    /// Its sequence number; the last of those that were folded.
    pub last: u64,
    /// When it was taken.
    pub created: Timestamp,
    /// Its entries, sorted: members, and ids that are gone.
    pub run: RunManifest,
}

impl Delta {
    /// The name of one of its objects.
    pub(crate) fn name(&self, object: &str) -> String {
        format!("{FOLDER}/{:016}-{:016}/{object}", self.first, self.last)
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        covers((self.first, self.last), (other.first, other.last))
    }
}

/// The first and the last number of a delta, and the name of its manifest.
type Named = ((u64, u64), String);

/// Whether the first has all that the second has, and more.
fn covers(wide: (u64, u64), narrow: (u64, u64)) -> bool {
    wide.0 <= narrow.0 && narrow.1 <= wide.1 && wide != narrow
}

/// The numbers of the delta whose manifest has this name.
fn numbers(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix(FOLDER)?.strip_prefix('/')?;
    let (numbers, object) = rest.split_once('/')?;
    let (first, last) = numbers.split_once('-')?;
    let numbers = (first.parse().ok()?, last.parse().ok()?);
    (object == MANIFEST).then_some(numbers)
}

/// Changes being collected for a delta. Of several to one id the last counts.
#[derive(Debug)]
pub struct Changes {
    buffer: Buffer,
    bytes: usize,
    scan: Scan,
    id: Vec<u8>,
    body: Vec<u8>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            buffer: Buffer::new(CHANGES_BYTES_MAX),
            bytes: 0,
            scan: Scan::default(),
            id: Vec::new(),
            body: Vec::new(),
        }
    }
}

impl Changes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Adds a member, or changes it: a JSON object with an `id`.
    ///
    /// # Errors
    /// [`Error::Input`] says what is wrong with it, [`Error::Limit`] that these are too many.
    pub fn add(&mut self, row: &[u8]) -> Result<(), Error> {
        self.read(row)
            .map_err(|reason| Error::Input(reason.to_owned()))?;
        let (id, body) = (std::mem::take(&mut self.id), std::mem::take(&mut self.body));
        let entry = Entry {
            id: &id,
            tag: 0,
            hash: content_hash(&body),
            body: &body,
        };
        let pushed = self.push(&entry);
        (self.id, self.body) = (id, body);
        pushed
    }

    /// Removes a member.
    ///
    /// # Errors
    /// As [`Changes::add`].
    pub fn remove(&mut self, id: &str) -> Result<(), Error> {
        check_id(id.as_bytes()).map_err(|reason| Error::Input(reason.to_owned()))?;
        self.push(&Entry {
            id: id.as_bytes(),
            tag: TAG_GONE,
            hash: 0,
            body: &[],
        })
    }

    fn read(&mut self, row: &[u8]) -> Result<(), &'static str> {
        if row.len() > ROW_BYTES_MAX {
            return Err("the row is longer than 64 KiB");
        }
        std::str::from_utf8(row).map_err(|_| "not UTF-8")?;
        self.scan.object(row)?;
        let id = self.scan.get(row, b"id").ok_or("there is no id")?;
        self.id.clear();
        id.write_id(&mut self.id)?;
        check_id(&self.id)?;
        self.body.clear();
        self.scan
            .write_canonical(row, |name| name != b"id", &mut self.body);
        Ok(())
    }

    fn push(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        self.bytes += entry.id.len() + entry.body.len() + 32;
        if self.bytes > CHANGES_BYTES_MAX {
            let limit = format!("{CHANGES_BYTES_MAX} bytes");
            return Err(Error::Limit {
                what: "one delta".to_owned(),
                limit,
            });
        }
        self.buffer.push(entry);
        Ok(())
    }
}

impl Cohort {
    /// Takes changes as the cohort's next delta; once this answers they are kept.
    ///
    /// # Errors
    /// The store's; nothing was taken then, or all of it.
    pub fn add_delta(&self, mut changes: Changes, created: Timestamp) -> Result<Delta, Error> {
        let mut sink = PartSink::new(self.parts());
        let written = changes.buffer.write(&mut sink).and_then(|()| sink.finish());
        let taken = written.and_then(|run| {
            let sequence = self.last_delta()? + 1;
            let delta = Delta {
                first: sequence,
                last: sequence,
                created,
                run,
            };
            self.number_delta(&mut sink, delta)
        });
        if taken.is_err() {
            sink.abandon();
        }
        taken
    }

    /// Writes a delta's manifest under the next free number.
    fn number_delta(&self, sink: &mut PartSink, mut delta: Delta) -> Result<Delta, Error> {
        for _ in 0..TRIES_MAX {
            match self.put_delta(sink, &delta) {
                Ok(()) => return Ok(delta),
                Err(Error::Conflict(_)) => {
                    delta.first += 1;
                    delta.last += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict(self.folder.path_of(&delta.name(MANIFEST))))
    }

    fn put_delta(&self, sink: &mut PartSink, delta: &Delta) -> Result<(), Error> {
        let name = delta.name(MANIFEST);
        sink.publish(&self.folder, &name, seal(&name, delta)?)
    }

    /// The deltas after number `after`, the oldest first; of those folded, the widest alone.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`].
    pub fn deltas(&self, after: u64) -> Result<Vec<Delta>, Error> {
        let mut names = self.delta_names()?;
        names.retain(|(numbers, _)| numbers.0 > after);
        let all: Vec<(u64, u64)> = names.iter().map(|(numbers, _)| *numbers).collect();
        names.retain(|(numbers, _)| !all.iter().any(|wide| covers(*wide, *numbers)));
        self.read_deltas(&names)
    }

    pub(crate) fn all_deltas(&self) -> Result<Vec<Delta>, Error> {
        self.read_deltas(&self.delta_names()?)
    }

    /// The highest number that was given.
    pub(crate) fn last_delta(&self) -> Result<u64, Error> {
        let names = self.delta_names()?;
        Ok(names
            .iter()
            .map(|(numbers, _)| numbers.1)
            .max()
            .unwrap_or(0))
    }

    /// The numbers of all deltas and the names of their manifests, in order.
    fn delta_names(&self) -> Result<Vec<Named>, Error> {
        let names = self.folder.list(FOLDER)?.into_iter();
        let mut named: Vec<_> = names
            .filter_map(|name| Some((numbers(&name)?, name)))
            .collect();
        named.sort_unstable();
        Ok(named)
    }

    fn read_deltas(&self, names: &[Named]) -> Result<Vec<Delta>, Error> {
        let mut deltas = Vec::with_capacity(names.len());
        for (_, name) in names {
            match self.folder.get(name) {
                Ok(bytes) => deltas.push(unseal(name, &bytes)?),
                // Removed since it was listed.
                Err(Error::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deltas)
    }

    pub(crate) fn delta_reader(&self, delta: &Delta) -> RunReader {
        delta.run.reader(&self.parts())
    }

    fn parts(&self) -> Store {
        self.folder.folder(DELTA_PARTS)
    }

    /// What `deltas` change, in the order of ids, with the ids that are gone among them: for a
    /// [`crate::Diff`] of scope [`crate::Scope::Named`].
    #[must_use]
    pub fn changes(&self, deltas: &[Delta]) -> Merge {
        Merge::new(
            deltas
                .iter()
                .rev()
                .map(|delta| self.delta_reader(delta))
                .collect(),
        )
        .keeping_gone()
    }

    /// Folds the deltas of a view into one, so that reading the cohort opens fewer runs. The
    /// narrow ones stay until [`Cohort::retain`], as a view may be using them.
    ///
    /// # Errors
    /// The store's.
    pub fn fold_deltas(&self, view: &View, created: Timestamp) -> Result<Option<Delta>, Error> {
        let (Some(first), Some(last)) = (view.deltas.first(), view.deltas.last()) else {
            return Ok(None);
        };
        if view.deltas.len() < 2 {
            return Ok(None);
        }
        let mut sink = PartSink::new(self.parts());
        let mut merge = self.changes(&view.deltas);
        let folded = write_merged(&mut merge, &mut sink, &Progress::default())
            .and_then(|()| sink.finish())
            .and_then(|run| {
                let delta = Delta {
                    first: first.first,
                    last: last.last,
                    created,
                    run,
                };
                self.put_delta(&mut sink, &delta).map(|()| Some(delta))
            });
        if folded.is_err() {
            sink.abandon();
        }
        folded
    }

    /// Removes the deltas up to number `after` and those that a wider one hides, but for what
    /// `pinned` views use; then the parts that no delta names.
    pub(crate) fn retain_deltas(&self, after: u64, pinned: &[View]) -> Result<(), Error> {
        let all = self.all_deltas()?;
        let newest = all.iter().map(|delta| delta.last).max().unwrap_or(0);
        for delta in &all {
            let used = pinned.iter().any(|view| view.deltas.contains(delta));
            let hidden = all.iter().any(|wide| wide.covers(delta));
            // The last number stays, so that it is never given again.
            if !used && (hidden || (delta.last <= after && delta.last < newest)) {
                self.delete_delta(delta)?;
            }
        }
        Ok(())
    }

    pub(crate) fn delete_delta(&self, delta: &Delta) -> Result<(), Error> {
        self.folder.delete(&delta.name(MANIFEST))?;
        for part in &delta.run.parts {
            self.parts().delete(&part.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
