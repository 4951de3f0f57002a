//! Owns rosters: what a partner's list is known to hold, one for each sync. Outcomes are written as
//! small runs over the older ones, which are merged from time to time; each state of it is a
//! *generation*, a manifest that names its runs and is never changed.
//!
//! Never half-changed: a generation is there with its manifest, or not at all. Never changed by
//! two: the second to write a generation fails with [`Error::Conflict`], and must give the sync up.
//!
//! The surprise: older generations stay readable until [`Roster::sweep`], so that a run that began
//! with one can be compared again, chunk for chunk, while outcomes make newer ones.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::item::{Held, Item, Operation, Verdict, settle};
use crate::run::{Entry, Merge, PartSink, RunManifest, RunReader, TAG_GONE, write_merged};
use crate::sealed::{seal, unseal};
use crate::sort::Buffer;
use crate::{Error, Progress, Store};

/// What outcomes may hold in memory before they should be applied.
const OUTCOMES_BYTES: usize = 16 << 20;

/// A roster of more runs merges its newest ones.
const RUNS_MAX: usize = 8;

const PARTS: &str = "parts";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generation {
    generation: u64,
    /// Whose it is: no two writers write the same generation alike, so that one of them learns.
    writer: String,
    /// The fields that partners know members by, beside the id; never changed.
    identity: Vec<String>,
    /// The newest first.
    runs: Vec<RunManifest>,
    /// How many members the partner holds, or may hold; not known of one that older versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    note: Value,
}

/// A roster at one generation.
///
/// All calls block.
#[derive(Debug, Clone)]
pub struct Roster {
    folder: Store,
    state: Generation,
}

impl Roster {
    /// The newest generation of the roster in `folder`; a new one, empty, when there is none.
    /// `identity` names the fields by which the partner knows members where it is not the id alone,
    /// and without which it could not be told to let one go; it is fixed for the roster's life.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`]; [`Error::Input`] for another identity than the roster's.
    pub fn open(folder: Store, identity: &[String]) -> Result<Self, Error> {
        let newest = generations(&folder)?.pop().unwrap_or(0);
        Self::open_at(folder, newest, identity)
    }

    /// One generation; 0 is the empty roster that every sync begins with.
    ///
    /// # Errors
    /// As [`Roster::open`], and [`Error::Missing`] for a generation that was swept.
    pub fn open_at(folder: Store, generation: u64, identity: &[String]) -> Result<Self, Error> {
        if generation == 0 {
            let (identity, note) = (identity.to_vec(), Value::Null);
            let state = Generation {
                generation,
                writer: String::new(),
                identity,
                runs: Vec::new(),
                held: Some(0),
                note,
            };
            return Ok(Self { folder, state });
        }
        let name = manifest(generation);
        let state: Generation = unseal(&folder.path_of(&name), &folder.get(&name)?)?;
        if state.identity != identity {
            let (own, other) = (state.identity.join(", "), identity.join(", "));
            let why = format!("the roster knows members by `{own}`, not by `{other}`");
            return Err(Error::Input(why));
        }
        Ok(Self { folder, state })
    }

    /// Which generation this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// What was written together with this generation: the caller's own state, such as how far the
    /// results were read.
    #[must_use]
    pub fn note(&self) -> &Value {
        &self.state.note
    }

    /// The fields that the partner knows members by, beside the id.
    #[must_use]
    pub fn identity(&self) -> &[String] {
        &self.state.identity
    }

    /// At most how many members it says something of.
    #[must_use]
    pub fn entries_max(&self) -> u64 {
        self.state.runs.iter().map(RunManifest::entries).sum()
    }

    /// How many members the partner holds, or may hold.
    ///
    /// # Errors
    /// The store's, where older versions have not counted them.
    pub fn held(&self) -> Result<u64, Error> {
        self.state.held.map_or_else(|| self.count_held(), Ok)
    }

    /// The same where it need not be counted.
    pub(crate) fn held_known(&self) -> Option<u64> {
        self.state.held
    }

    pub(crate) fn count_held(&self) -> Result<u64, Error> {
        let (mut items, mut held) = (Items::new(self), 0);
        while items.advance()? {
            let item = items.item()?;
            held += u64::from(item.is_some_and(|(_, item)| item.held != Held::No));
        }
        Ok(held)
    }

    /// What it takes in the store, in bytes, older generations apart.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.runs.iter().map(RunManifest::bytes).sum()
    }

    pub(crate) fn merge(&self) -> Merge {
        Merge::new(self.readers(self.state.runs.len()))
    }

    /// Readers of the `newest` runs.
    fn readers(&self, newest: usize) -> Vec<RunReader> {
        let parts = self.folder.folder(PARTS);
        self.state
            .runs
            .iter()
            .take(newest)
            .map(|run| run.reader(&parts))
            .collect()
    }

    /// Writes outcomes and the caller's note as the next generation, and empties `outcomes`. Of
    /// several outcomes of one member the last counts. Merges runs when there are many.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another process wrote that generation: this one owns the roster no
    /// longer. After any other error the roster must be opened again, and is at the old generation
    /// or the new one, as its note tells; `outcomes` are kept unless it is the new one for sure.
    pub fn apply(&mut self, outcomes: &mut Outcomes, note: Value) -> Result<(), Error> {
        let mut next = self.next(note);
        let mut sink = PartSink::new(self.folder.folder(PARTS));
        if !outcomes.is_empty() {
            let written = outcomes
                .buffer
                .write(&mut sink)
                .and_then(|()| sink.finish());
            let run = written.inspect_err(|_| sink.abandon())?;
            next.runs.insert(0, run);
            let change = outcomes.held;
            next.held = next.held.map(|held| held.saturating_add_signed(change));
        }
        self.become_next(next, &mut sink)?;
        outcomes.clear();
        if self.state.runs.len() > RUNS_MAX {
            self.compact()
        } else {
            Ok(())
        }
    }

    fn next(&self, note: Value) -> Generation {
        let (identity, runs) = (self.state.identity.clone(), self.state.runs.clone());
        Generation {
            generation: self.state.generation + 1,
            writer: Uuid::now_v7().simple().to_string(),
            identity,
            runs,
            held: self.state.held,
            note,
        }
    }

    fn become_next(&mut self, next: Generation, sink: &mut PartSink) -> Result<(), Error> {
        let name = manifest(next.generation);
        let bytes = seal(&self.folder.path_of(&name), &next)?;
        sink.publish(&self.folder, &name, bytes)
            .inspect_err(|_| sink.abandon())?;
        self.state = next;
        Ok(())
    }

    /// Merges the newest runs, as many as are not much smaller than the next older one, so that an
    /// entry is rewritten a few times in all, not each time.
    fn compact(&mut self) -> Result<(), Error> {
        let count = self.due();
        let mut merge = Merge::new(self.readers(count));
        if count < self.state.runs.len() {
            merge = merge.keeping_gone();
        }
        let mut sink = PartSink::new(self.folder.folder(PARTS));
        let written = write_merged(&mut merge, &mut sink, &Progress::default());
        let run = written
            .and_then(|()| sink.finish())
            .inspect_err(|_| sink.abandon())?;
        let mut next = self.next(self.state.note.clone());
        next.runs
            .splice(..count, (run.entries() > 0).then_some(run));
        self.become_next(next, &mut sink)
    }

    /// How many of the newest runs to merge: at least half of what is allowed.
    fn due(&self) -> usize {
        let (mut count, mut entries) = (0, 0);
        for run in &self.state.runs {
            if count > RUNS_MAX / 2 && run.entries() > 2 * entries {
                break;
            }
            entries += run.entries();
            count += 1;
        }
        count
    }

    /// Removes the generations before this one but for those in `pinned`, and the parts that none
    /// of the rest names. Writes a generation of its own first: whoever else believes to own the
    /// roster can then write none that names removed parts.
    ///
    /// # Errors
    /// As [`Roster::apply`].
    pub fn sweep(&mut self, pinned: &[u64]) -> Result<(), Error> {
        let note = self.state.note.clone();
        self.apply(&mut Outcomes::default(), note)?;
        let mut named: HashSet<String> = part_names(&self.state);
        for generation in generations(&self.folder)? {
            if pinned.contains(&generation) {
                let kept = Self::open_at(self.folder.clone(), generation, self.identity())?;
                named.extend(part_names(&kept.state));
            } else if generation < self.state.generation {
                self.folder.delete(&manifest(generation))?;
            }
        }
        for name in self.folder.list(PARTS)? {
            if !named.contains(&name) {
                self.folder.delete(&name)?;
            }
        }
        Ok(())
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// The store's.
    pub fn delete(folder: &Store) -> Result<(), Error> {
        for name in folder.list("")?.iter().rev() {
            folder.delete(name)?;
        }
        Ok(())
    }
}

fn part_names(state: &Generation) -> HashSet<String> {
    let parts = state.runs.iter().flat_map(|run| &run.parts);
    parts.map(|part| format!("{PARTS}/{}", part.name)).collect()
}

fn manifest(generation: u64) -> String {
    format!("generations/{generation:020}.json")
}

/// The generations that are there, the oldest first.
fn generations(folder: &Store) -> Result<Vec<u64>, Error> {
    let names = folder.list("generations")?;
    let number = |name: &String| {
        name.strip_prefix("generations/")?
            .strip_suffix(".json")?
            .parse::<u64>()
            .ok()
    };
    Ok(names.iter().filter_map(number).collect())
}

/// Outcomes being collected, to be applied together.
#[derive(Debug)]
pub struct Outcomes {
    buffer: Buffer,
    bytes: usize,
    body: Vec<u8>,
    /// By how many more members the partner holds, or may hold.
    held: i64,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            buffer: Buffer::new(2 * OUTCOMES_BYTES),
            bytes: 0,
            body: Vec::new(),
            held: 0,
        }
    }
}

impl Outcomes {
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

    /// Forgets them, and frees their memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether they hold so much memory (16 MiB) that they should be applied now.
    #[must_use]
    pub fn are_many(&self) -> bool {
        self.bytes >= OUTCOMES_BYTES
    }

    /// Records what became of a member that was sent; `key` is its key in the roster.
    pub(crate) fn record(
        &mut self,
        key: &[u8],
        (operation, held): (Operation, Held),
        sent: (u64, &[u8]),
        verdict: Verdict<'_>,
    ) {
        self.body.clear();
        let settled = settle(operation, held, sent, verdict);
        let is_held = settled.is_some_and(|item| item.held != Held::No);
        self.held += i64::from(is_held) - i64::from(held != Held::No);
        let (tag, hash) = match settled {
            None => (TAG_GONE, 0),
            Some(item) => {
                item.write_body(&mut self.body);
                (item.tag(), item.hash)
            }
        };
        self.buffer.push(&Entry {
            id: key,
            tag,
            hash,
            body: &self.body,
        });
        self.bytes += key.len() + self.body.len() + 32;
    }
}

/// What a roster says, member for member, in the order of their keys.
#[derive(Debug)]
pub(crate) struct Items {
    merge: Merge,
}

impl Items {
    pub(crate) fn new(roster: &Roster) -> Self {
        Self {
            merge: roster.merge(),
        }
    }

    /// The key and the item that it is at.
    pub(crate) fn item(&self) -> Result<Option<(&[u8], Item<'_>)>, Error> {
        let Some(entry) = self.merge.entry() else {
            return Ok(None);
        };
        let item = Item::read(entry).map_err(|reason| Error::damaged("roster", reason))?;
        Ok(Some((entry.id, item)))
    }

    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        self.merge.advance()
    }
}

#[cfg(test)]
mod tests;
