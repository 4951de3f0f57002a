//! Owns a cohort's snapshots: making one from an upload, listing, opening, keeping the newest. A
//! snapshot is visible only when it is whole: its manifest is written last, and names every part
//! with its checksum. Never changes a snapshot.
//!
//! The surprise: what has no manifest is not there, so a failed upload leaves the last good
//! snapshot as it was; what it had put already is taken away at once, or by [`Cohort::sweep`].

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use crate::delta::{DELTA_PARTS, Delta};
use crate::fold::upload_of;
use crate::member::content_hash;
use crate::read::{self, ReadOptions, Rejects};
use crate::run::{Entry, Merge, PartSink, RunManifest, write_merged};
use crate::sealed::{seal, unseal};
use crate::sort::{SortOptions, Sorter};
use crate::{Error, Progress, Store};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const REJECTS: &str = "rejects.json";

/// What has no manifest for so long is being written by nobody.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// One whole version of a cohort: its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its id, unique within the cohort.
    pub id: String,
    /// When its upload began.
    pub created: Timestamp,
    /// Members it has.
    pub members: u64,
    /// Rows of the upload, bad ones and duplicates included.
    pub rows: u64,
    /// Rows that a later row of the same id replaced.
    pub duplicates: u64,
    /// Rows that were refused; see [`Cohort::rejects`].
    pub rejected: u64,
    /// The last delta that had been taken when the upload began: only later ones apply to it.
    pub deltas_after: u64,
    /// Its members, sorted.
    pub run: RunManifest,
}

/// What a cohort is at one moment: a snapshot, if there is any, and the deltas since. To be kept
/// with whatever must see the same members again: a view never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The deltas after it, the oldest first.
    pub deltas: Vec<Delta>,
}

impl View {
    /// The last delta that the view has, or that its snapshot makes unnecessary.
    #[must_use]
    pub fn last_delta(&self) -> u64 {
        let before = self
            .snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.deltas_after);
        self.deltas.last().map_or(before, |delta| delta.last)
    }
}

/// How to take an upload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UploadOptions {
    /// How to read it.
    pub read: ReadOptions,
    /// How to sort it.
    pub sort: SortOptions,
}

/// What is known of a new snapshot before its upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its id, unique within the cohort.
    pub id: String,
    /// When the upload began.
    pub created: Timestamp,
}

/// A snapshot that was made, and the rows that were refused for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The rows that were refused.
    pub rejects: Rejects,
}

/// A cohort's snapshots, as they were found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The whole ones, the newest first.
    pub snapshots: Vec<Snapshot>,
    /// What is wrong with the manifests that could not be read.
    pub damaged: Vec<Error>,
}

/// The snapshots and deltas of one cohort.
///
/// All calls but [`Cohort::upload`] block.
#[derive(Debug, Clone)]
pub struct Cohort {
    pub(crate) folder: Store,
}

impl Cohort {
    /// The cohort's place under the root of all.
    #[must_use]
    pub fn new(root: &Store, tenant: &str, cohort: &str) -> Self {
        Self {
            folder: root.folder(&format!("cohorts/{tenant}/{cohort}")),
        }
    }

    /// Makes a snapshot of what `input` gives, on a blocking thread.
    ///
    /// # Errors
    /// See [`Error`]; whatever it is, the cohort's other snapshots stay as they are.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn upload<R>(
        &self,
        new: NewSnapshot,
        input: R,
        options: UploadOptions,
        progress: Arc<Progress>,
    ) -> Result<Uploaded, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let cohort = self.clone();
        let mut input = SyncIoBridge::new(input);
        let work = move || cohort.make(&new, &mut input, &options, &progress);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Error::Worker(error.to_string()))?
    }

    /// Makes a snapshot of what `input` gives: [`Cohort::upload`] for callers that block already.
    ///
    /// # Errors
    /// See [`Cohort::upload`].
    pub fn make(
        &self,
        new: &NewSnapshot,
        input: &mut dyn Read,
        options: &UploadOptions,
        progress: &Progress,
    ) -> Result<Uploaded, Error> {
        let folder = self.snapshot_folder(&new.id);
        let deltas_after = self.last_delta()?;
        let mut sorter = Sorter::new(options.sort.clone());
        let counts = read::read(
            input,
            &options.read,
            &options.sort,
            progress,
            &mut |id, body| {
                sorter.push(&Entry {
                    id,
                    tag: 0,
                    hash: content_hash(body),
                    body,
                })
            },
        );
        let counts = match counts {
            Ok(counts) => counts,
            // The sort's other thread knows why it would take no more.
            Err(Error::Stopped) => return Err(sorter.failure()),
            Err(error) => return Err(error),
        };
        let sorted = sorter.finish()?;
        let mut snapshot = Snapshot {
            id: new.id.clone(),
            created: new.created,
            members: 0,
            rows: counts.rows,
            duplicates: sorted.pushed,
            rejected: counts.rejects.total,
            deltas_after,
            run: RunManifest::default(),
        };
        let mut sink = PartSink::new(folder.clone());
        let mut merge = sorted.merge;
        let written = write_merged(&mut merge, &mut sink, progress)
            .and_then(|()| sink.finish())
            .and_then(|run| {
                snapshot.members = run.entries();
                snapshot.duplicates -= run.entries();
                snapshot.run = run;
                folder.put(REJECTS, seal(REJECTS, &counts.rejects)?)
            });
        let made =
            written.and_then(|()| sink.publish(&folder, MANIFEST, seal(MANIFEST, &snapshot)?));
        if made.is_err() {
            sink.abandon();
        }
        made.map(|()| Uploaded {
            snapshot,
            rejects: counts.rejects,
        })
    }

    pub(crate) fn snapshot_folder(&self, id: &str) -> Store {
        self.folder.folder("snapshots").folder(id)
    }

    /// All whole snapshots, the newest first.
    ///
    /// # Errors
    /// The store's.
    pub fn snapshots(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for name in self.folder.list("snapshots")? {
            if !name.ends_with(&format!("/{MANIFEST}")) {
                continue;
            }
            match self
                .folder
                .get(&name)
                .and_then(|bytes| unseal(&name, &bytes))
            {
                Ok(snapshot) => listing.snapshots.push(snapshot),
                // Deleted since it was listed.
                Err(Error::Missing(_)) => {}
                Err(error @ Error::Damaged { .. }) => listing.damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        listing
            .snapshots
            .sort_by(|one, other| (other.created, &other.id).cmp(&(one.created, &one.id)));
        Ok(listing)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`], the store's.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot, Error> {
        unseal(id, &self.snapshot_folder(id).get(MANIFEST)?)
    }

    /// The rows that were refused for a snapshot.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`], the store's.
    pub fn rejects(&self, id: &str) -> Result<Rejects, Error> {
        unseal(id, &self.snapshot_folder(id).get(REJECTS)?)
    }

    /// What the cohort is now.
    ///
    /// # Errors
    /// The store's; [`Error::Damaged`] when the newest manifest cannot be read, as what is older
    /// may lack members that the partner must keep.
    pub fn view(&self) -> Result<View, Error> {
        let mut listing = self.snapshots()?;
        if let Some(damaged) = listing.damaged.pop() {
            return Err(damaged);
        }
        let snapshot = (!listing.snapshots.is_empty()).then(|| listing.snapshots.swap_remove(0));
        let after = snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.deltas_after);
        Ok(View {
            snapshot,
            deltas: self.deltas(after)?,
        })
    }

    /// The members of a view, in the order of their ids: entries whose body is the canonical
    /// fields and whose hash is their content's.
    #[must_use]
    pub fn members(&self, view: &View) -> Merge {
        let mut runs: Vec<_> = view
            .deltas
            .iter()
            .rev()
            .map(|delta| self.delta_reader(delta))
            .collect();
        if let Some(snapshot) = &view.snapshot {
            runs.push(snapshot.run.reader(&self.snapshot_folder(&snapshot.id)));
        }
        Merge::new(runs)
    }

    /// Removes a snapshot: it is gone with its manifest, which goes first.
    ///
    /// # Errors
    /// The store's.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        let folder = self.snapshot_folder(id);
        folder.delete(MANIFEST)?;
        for name in folder.list("")? {
            folder.delete(&name)?;
        }
        Ok(())
    }

    /// Keeps the snapshots of the `newest` uploads and all that the views in `pinned` need; removes other
    /// snapshots, and the deltas that no snapshot and no view needs any more. Gives the removed
    /// snapshots' ids.
    ///
    /// # Errors
    /// The store's.
    pub fn retain(&self, newest: usize, pinned: &[View]) -> Result<Vec<String>, Error> {
        let held: HashSet<&str> = pinned
            .iter()
            .filter_map(|view| Some(view.snapshot.as_ref()?.id.as_str()))
            .collect();
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        let mut uploads: Vec<String> = Vec::new();
        for snapshot in self.snapshots()?.snapshots {
            let upload = upload_of(&snapshot.id);
            if uploads.last().is_none_or(|last| last != upload) {
                uploads.push(upload.to_owned());
            }
            if uploads.len() <= newest.max(1) || held.contains(snapshot.id.as_str()) {
                kept.push(snapshot.deltas_after);
            } else {
                self.delete(&snapshot.id)?;
                removed.push(snapshot.id);
            }
        }
        self.retain_deltas(kept.into_iter().min().unwrap_or(0), pinned)?;
        Ok(removed)
    }

    /// Removes what uploads and deltas that never ended have left, and were written more than a
    /// day before `now`. Says how many objects went.
    ///
    /// # Errors
    /// The store's.
    pub fn sweep(&self, now: Timestamp) -> Result<usize, Error> {
        let before = now.checked_sub(SWEEP_AFTER).unwrap_or(Timestamp::MIN);
        let names = self.folder.list("snapshots")?;
        let whole: HashSet<&str> = names
            .iter()
            .filter_map(|name| name.strip_suffix(&format!("/{MANIFEST}")))
            .collect();
        let deltas = self.all_deltas()?;
        let parts: HashSet<String> = deltas
            .iter()
            .flat_map(|delta| &delta.run.parts)
            .map(|part| format!("{DELTA_PARTS}/{}", part.name))
            .collect();
        let mut left = self.folder.list_before("snapshots", Some(before))?;
        left.retain(|name| {
            name.rsplit_once('/')
                .is_none_or(|(folder, _)| !whole.contains(folder))
        });
        let mut unnamed = self.folder.list_before(DELTA_PARTS, Some(before))?;
        unnamed.retain(|name| !parts.contains(name));
        left.append(&mut unnamed);
        for name in &left {
            self.folder.delete(name)?;
        }
        Ok(left.len())
    }
}

#[cfg(test)]
mod tests;
