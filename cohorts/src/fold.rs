//! Owns the folding of deltas into snapshots, so that a cohort is never more than so many runs, and
//! the removal of what that makes unnecessary. Never changes what the cohort is.
//!
//! The surprise: a folded snapshot has the time of the upload that it is made of, and its id with
//! the last delta's number behind it: so it is found right above that upload and below any later
//! one, and two processes that fold the same make one name, which one of them gives up.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::delta::MANIFEST as DELTA_MANIFEST;
use crate::run::{PartSink, RunManifest, write_merged};
use crate::sealed::seal;
use crate::snapshot::{Cohort, MANIFEST, REJECTS, Snapshot, View};
use crate::{Delta, Error, Progress};

/// More deltas than these on top of a snapshot are folded into it.
pub const DELTAS_MAX: usize = 64;

/// What was folded stays so long: a run may just be beginning with it.
const RETIRE_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What comes between an upload's id and the number of the last delta in it.
const FOLDED: char = '.';

/// The id of the upload that a snapshot is made of.
pub(crate) fn upload_of(id: &str) -> &str {
    id.split(FOLDED).next().unwrap_or(id)
}

impl Cohort {
    /// Folds the deltas since the newest snapshot into it, where they are more than
    /// [`DELTAS_MAX`]. Says whether anything was done.
    ///
    /// # Errors
    /// The store's; the cohort is as it was then, whatever they are.
    pub fn fold(&self, created: Timestamp) -> Result<bool, Error> {
        let view = self.view()?;
        if view.deltas.len() <= DELTAS_MAX {
            return Ok(false);
        }
        let folded = match &view.snapshot {
            Some(base) => self.fold_into(base, &view),
            None => self.fold_deltas(&view, created).map(drop),
        };
        match folded {
            Ok(()) => Ok(true),
            // Somebody else has done so.
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn fold_into(&self, base: &Snapshot, view: &View) -> Result<(), Error> {
        let last = view.last_delta();
        let id = format!("{}{FOLDED}{last:016}", upload_of(&base.id));
        let rejects = match self.rejects(&base.id) {
            Err(Error::Missing(_)) => Default::default(),
            found => found?,
        };
        let folder = self.snapshot_folder(&id);
        let mut sink = PartSink::new(folder.clone());
        let mut members = self.members(view);
        let made = write_merged(&mut members, &mut sink, &Progress::default())
            .and_then(|()| sink.finish())
            .and_then(|run: RunManifest| {
                let snapshot = Snapshot {
                    id,
                    members: run.entries(),
                    deltas_after: last,
                    run,
                    ..base.clone()
                };
                folder.put(REJECTS, seal(REJECTS, &rejects)?)?;
                sink.publish(&folder, MANIFEST, seal(MANIFEST, &snapshot)?)
            });
        if made.is_err() {
            sink.abandon();
        }
        made
    }

    /// Removes snapshots whose deltas were folded into another more than an hour before `now`, and
    /// those deltas, but for what the views in `pinned` need. Says how many went.
    ///
    /// # Errors
    /// The store's.
    pub fn retire(&self, now: Timestamp, pinned: &[View]) -> Result<usize, Error> {
        let before = now.checked_sub(RETIRE_AFTER).unwrap_or(Timestamp::MIN);
        let old = |folder: &str| -> Result<HashSet<String>, Error> {
            let names = self.folder.list_before(folder, Some(before))?;
            Ok(names.into_iter().collect())
        };
        let listing = self.snapshots()?;
        if !listing.damaged.is_empty() {
            // Which one is the newest cannot be said.
            return Ok(0);
        }
        let old_snapshots = old("snapshots")?;
        let is_old = |snapshot: &&Snapshot| {
            old_snapshots.contains(&format!("snapshots/{}/{MANIFEST}", snapshot.id))
        };
        // The newest that nobody can have begun without.
        let Some(settled) = listing.snapshots.iter().find(is_old) else {
            let old_deltas = old("deltas")?;
            let is_old = |delta: &Delta| old_deltas.contains(&delta.name(DELTA_MANIFEST));
            return self.retire_deltas((0, &is_old), pinned);
        };
        let mut removed = 0;
        for snapshot in &listing.snapshots {
            let is_replaced = upload_of(&snapshot.id) == upload_of(&settled.id)
                && snapshot.deltas_after < settled.deltas_after;
            let is_used = |view: &View| view.snapshot.as_ref() == Some(snapshot);
            if is_replaced && !pinned.iter().any(is_used) {
                self.delete(&snapshot.id)?;
                removed += 1;
            }
        }
        let never = |_: &Delta| false;
        Ok(removed + self.retire_deltas((settled.deltas_after, &never), pinned)?)
    }

    /// Removes the deltas up to number `after`, and those that one of which `can_hide` is true
    /// covers.
    fn retire_deltas(
        &self,
        (after, can_hide): (u64, &dyn Fn(&Delta) -> bool),
        pinned: &[View],
    ) -> Result<usize, Error> {
        let all = self.all_deltas()?;
        let newest = all.iter().map(|delta| delta.last).max().unwrap_or(0);
        let mut removed = 0;
        for delta in &all {
            let is_hidden = all.iter().any(|wide| wide.covers(delta) && can_hide(wide));
            let is_used = pinned.iter().any(|view| view.deltas.contains(delta));
            // The last number stays, so that it is never given again.
            if !is_used && (is_hidden || (delta.last <= after && delta.last < newest)) {
                self.delete_delta(delta)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::doubles::{Fault, Faulty, all, at, ndjson, upload};
    use crate::{Changes, ReadOptions};

    fn cohort(faulty: &Arc<Faulty>) -> Cohort {
        Cohort::new(&faulty.store(), "t1", "buyers")
    }

    fn change(cohort: &Cohort, number: usize) {
        let mut changes = Changes::default();
        let (id, gone) = (format!("n{number:03}"), format!("m{number:03}"));
        let row = ndjson([(id.as_str(), 2)]);
        changes.add(row.trim_end().as_bytes()).unwrap();
        changes.remove(&gone).unwrap();
        cohort.add_delta(changes, at(2)).unwrap();
    }

    fn base(cohort: &Cohort) {
        let ids: Vec<String> = (0..200).map(|number| format!("m{number:03}")).collect();
        let rows = ndjson(ids.iter().map(|id| (id.as_str(), 1)));
        upload(cohort, "s1", 1, rows.as_bytes(), ReadOptions::default()).unwrap();
    }

    fn members(cohort: &Cohort) -> Vec<String> {
        all(&mut cohort.members(&cohort.view().unwrap())).unwrap()
    }

    #[test]
    fn a_view_never_has_many_deltas_and_what_was_folded_goes() {
        let cohort = cohort(&Faulty::new());
        base(&cohort);
        let first = cohort.view().unwrap();
        for number in 0..3 * DELTAS_MAX {
            change(&cohort, number);
            let before = members(&cohort);
            cohort.fold(at(3)).unwrap();
            assert_eq!(members(&cohort), before);
            assert!(cohort.view().unwrap().deltas.len() <= DELTAS_MAX);
        }
        let newest = cohort.view().unwrap();
        let id = &newest.snapshot.as_ref().unwrap().id;
        assert!(id.starts_with("s1."), "{id}");
        // A run may have begun with what was there a moment ago.
        assert_eq!(cohort.retire(Timestamp::now(), &[]).unwrap(), 0);
        let pinned = std::slice::from_ref(&first);
        let before = members(&cohort);
        assert!(cohort.retire(Timestamp::MAX, pinned).unwrap() > 2 * DELTAS_MAX);
        assert_eq!(all(&mut cohort.members(&first)).unwrap().len(), 200);
        cohort.retire(Timestamp::MAX, &[]).unwrap();
        assert_eq!(cohort.snapshots().unwrap().snapshots.len(), 1);
        assert_eq!(members(&cohort), before);
        assert!(cohort.all_deltas().unwrap().len() <= DELTAS_MAX + 1);
    }

    #[test]
    fn an_upload_is_newer_than_what_is_folded_into_the_one_before() {
        let cohort = cohort(&Faulty::new());
        base(&cohort);
        (0..=DELTAS_MAX).for_each(|number| change(&cohort, number));
        let view = cohort.view().unwrap();
        let rows = ndjson([("only", 1)]);
        upload(&cohort, "s2", 2, rows.as_bytes(), ReadOptions::default()).unwrap();
        // Somebody was folding meanwhile.
        let base = view.snapshot.as_ref().unwrap();
        cohort.fold_into(base, &view).unwrap();
        let twice = cohort.fold_into(base, &view);
        assert!(matches!(twice, Err(Error::Conflict(_))), "{twice:?}");
        assert_eq!(members(&cohort), [r#"only={"v":1}"#]);
        // Both are one upload where the newest are kept.
        cohort.retain(2, &[]).unwrap();
        assert_eq!(cohort.snapshots().unwrap().snapshots.len(), 3);
        cohort.retain(1, &[]).unwrap();
        assert_eq!(cohort.snapshots().unwrap().snapshots.len(), 1);
    }

    #[test]
    fn deltas_without_a_snapshot_are_folded_into_one() {
        let cohort = cohort(&Faulty::new());
        (0..=DELTAS_MAX).for_each(|number| change(&cohort, number));
        let before = members(&cohort);
        assert!(cohort.fold(at(3)).unwrap());
        assert_eq!(cohort.view().unwrap().deltas.len(), 1);
        assert_eq!(cohort.retire(Timestamp::now(), &[]).unwrap(), 0);
        assert_eq!(cohort.retire(Timestamp::MAX, &[]).unwrap(), DELTAS_MAX + 1);
        assert_eq!(members(&cohort), before);
    }

    /// Folds and retires with this fault: whether the fault was reached.
    fn fold_with(fault: Fault, number: u64) -> Option<()> {
        let faulty = Faulty::new();
        let cohort = cohort(&faulty);
        base(&cohort);
        (0..=DELTAS_MAX).for_each(|number| change(&cohort, number));
        let before = members(&cohort);
        let requests = faulty.requests();
        faulty.fail_at(number, fault);
        // Whether this succeeds is not the question.
        drop(cohort.fold(at(3)));
        drop(cohort.retire(Timestamp::MAX, &[]));
        let requests = faulty.requests() - requests;
        faulty.recover();
        assert_eq!(members(&cohort), before, "{fault:?} {number}");
        cohort.fold(at(4)).unwrap();
        cohort.retire(Timestamp::MAX, &[]).unwrap();
        cohort.sweep(Timestamp::MAX).unwrap();
        assert_eq!(members(&cohort), before, "{fault:?} {number}");
        (requests > number).then_some(())
    }

    #[test]
    fn folding_never_changes_what_a_cohort_is() {
        for fault in Fault::ALL {
            // One delta is like another: every 17th request stands for those between.
            let reached = (0..)
                .step_by(17)
                .take_while(|number| fold_with(fault, *number).is_some())
                .count();
            assert!(reached >= 20, "{fault:?} at {reached} requests only");
        }
    }
}
