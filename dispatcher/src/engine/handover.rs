//! Owns the writing and the reading of `progress`: lanes' state goes with the transactions, under a
//! position of its placement; a new owner reads it up to a mark of its own before its first attempt
//! (rule 5).
//!
//! It must never let a lane spend what it has reserved before the log has it. The surprise: the
//! mark is written without a transaction, so that a reader of committed records meets it only when
//! every transaction that began before it is over.

use bytes::Bytes;
use runtime::log::{Assignment, Batch, Headers, Partition, Record, StoredRecord};
use schemas::records::{OwnerProgress, ProgressKey};
use schemas::resources::Quota;
use tracing::error;

use super::Engine;
use super::ordering::progress_key;
use crate::delivery::Transport;
use crate::handover::Reading;
use crate::order::Key;
use crate::owned::{DELIVERIES, Phase, Tenure};
use crate::planted::{self, Bug};

/// The most bytes of lanes' state in one transaction; the rest goes with the next.
const STATE_BYTES_MAX: usize = 2 << 20;

/// State that goes with a transaction.
#[derive(Debug)]
pub(super) struct Saving {
    tenure: Tenure,
    what: Saved,
}

#[derive(Debug)]
enum Saved {
    /// A lane's, or that there is none: a new lane has none.
    Lane(Quota, bool),
    /// That nothing is left of a line.
    Line(Key),
}

impl<T: Transport> Engine<T> {
    /// The state of a lane has changed in a way that a successor must know; `urgent` where it waits
    /// for no other reason to write.
    pub(super) fn mark_unsaved(&mut self, tenure: Tenure, quota: &Quota, urgent: bool) {
        if let Some(owned) = self.tenant_of(tenure) {
            owned.handover.mark(quota, urgent);
        }
    }

    /// Whether a transaction is to be opened for lanes' state alone.
    pub(super) fn wants_saving(&self) -> bool {
        let mut owned = self.owned.values();
        owned.any(|owned| owned.handover.is_urgent())
    }

    /// Adds the state of every lane that has changed to a transaction's records, and the placements'
    /// sources whose positions go along, so that a former owner is fenced.
    pub(super) fn gather_progress(
        &mut self,
        records: &mut Vec<Record>,
        touched: &mut Vec<(Tenure, usize)>,
    ) -> Vec<Saving> {
        let now = self.now();
        let progress = self.parts.topics.progress.clone();
        let mut savings = Vec::new();
        let mut bytes = 0;
        for owned in self.owned.values_mut() {
            let goes_on = owned.is_serving();
            let before = savings.len();
            for quota in owned.handover.take_unsaved() {
                if bytes >= STATE_BYTES_MAX {
                    owned.handover.mark(&quota, true);
                    continue;
                }
                let lane = owned.lanes.get_mut(&quota);
                let state = lane.map(|lane| lane.save(&quota, now, goes_on));
                let value = state.filter(|state| !state.is_new());
                let is_state = value.is_some();
                if !is_state && !owned.handover.is_kept(&quota) {
                    continue;
                }
                let record = Record {
                    topic: progress.clone(),
                    partition: Some(owned.tenure.placement),
                    key: Some(Bytes::from(ProgressKey::Lane(quota.clone()).to_string())),
                    value: value.map(|state| Bytes::from(state.encode())),
                    headers: Headers::default(),
                };
                bytes += record.len_bytes();
                records.push(record);
                savings.push(Saving {
                    tenure: owned.tenure,
                    what: Saved::Lane(quota, is_state),
                });
            }
            for key in owned.handover.take_freed() {
                // It may have come to life again.
                if owned.orders.has(|line| *line == key) {
                    continue;
                }
                records.push(Record {
                    topic: progress.clone(),
                    partition: Some(owned.tenure.placement),
                    key: Some(Bytes::from(progress_key(&key).to_string())),
                    value: None,
                    headers: Headers::default(),
                });
                savings.push(Saving {
                    tenure: owned.tenure,
                    what: Saved::Line(key),
                });
            }
            if savings.len() > before {
                touched.push((owned.tenure, DELIVERIES));
            }
        }
        savings
    }

    /// The transaction that carried these lanes' state is over.
    pub(super) fn on_saved(&mut self, savings: Vec<Saving>, is_written: bool) {
        for saving in savings {
            let Saving { tenure, what } = saving;
            let Some(owned) = self.tenant_of(tenure) else {
                continue;
            };
            let (quota, is_state) = match what {
                Saved::Lane(quota, is_state) => (quota, is_state),
                Saved::Line(_) if is_written => continue,
                Saved::Line(key) => {
                    owned.handover.free([key]);
                    continue;
                }
            };
            let goes_on = is_written || planted::is(Bug::EarlyBlock);
            if let Some(lane) = owned.lanes.get_mut(&quota) {
                lane.saved(goes_on);
            }
            if is_written {
                owned.handover.written(quota.clone(), is_state);
                if is_state && !owned.lanes.contains_key(&quota) {
                    // The lane was dropped meanwhile: so is what was written.
                    owned.handover.mark(&quota, true);
                }
            } else {
                owned.handover.mark(&quota, true);
            }
            if goes_on {
                self.enlist(tenure, quota);
            }
        }
    }

    /// What a drained placement leaves: everything that differs from a new lane's.
    pub(super) fn leave_everything(&mut self, placement: u32) {
        if let Some(owned) = self.owned.get_mut(&placement) {
            for quota in owned.lanes.keys() {
                owned.handover.mark(quota, true);
            }
        }
    }

    /// Begins to read what others left of a placement.
    pub(super) fn read_progress(
        &mut self,
        tenure: Tenure,
        (start, until): (i64, i64),
        found: Vec<(Option<runtime::log::Committed>, runtime::log::Bounds)>,
    ) {
        let partition = self.parts.topics.progress.partition(tenure.placement);
        let reader = std::sync::Arc::clone(&self.parts.reader);
        if let Some(owned) = self.tenant_of(tenure) {
            owned.handover.reading = Some(Reading {
                assignment: reader.assign(partition, start),
                until,
                found,
            });
        }
    }

    /// Takes in what is read of `progress`; at the mark the placement is owned.
    pub(super) fn on_progress(&mut self, assignment: Assignment, batch: &Batch) {
        let Some(owned) = self.owned.get_mut(&batch.partition.number) else {
            return;
        };
        let tenure = owned.tenure;
        let Some(until) = owned
            .handover
            .reading
            .as_ref()
            .filter(|reading| reading.assignment == assignment)
            .map(|reading| reading.until)
        else {
            return;
        };
        let mut is_whole = false;
        for StoredRecord {
            offset, key, value, ..
        } in &batch.records
        {
            let key = key.as_deref().unwrap_or_default();
            let (lane, order) = (
                owned.handover.learn(key, value.as_deref()),
                owned.learn_order(key, value.as_deref()),
            );
            if let Err(error) = lane.and(order) {
                self.parts.metrics.incidents.inc();
                error!(partition = %batch.partition, offset, %error, "state of a lane is not known");
            }
            is_whole |= *offset >= until;
        }
        if is_whole {
            self.own(tenure);
        }
    }

    /// Everything that was left is known: reading begins, and attempts.
    fn own(&mut self, tenure: Tenure) {
        let (now, wall) = (self.now(), self.wall());
        self.unassign_progress(tenure.placement);
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let Some(reading) = owned.handover.reading.take() else {
            return;
        };
        owned.handover.begin(now, wall);
        let marks = owned.handover.marks();
        self.inherit_given_up(marks.disabled);
        self.inherit_enabled(marks.enabled);
        self.inherit_probation(marks.probation);
        for (index, (committed, bounds)) in reading.found.into_iter().enumerate() {
            self.resume(tenure, index, committed, bounds);
        }
        if let Some(owned) = self.tenant_of(tenure) {
            owned.phase = Phase::Serving;
        }
        // All positions are committed anew: Kafka forgets those of topics that the group is not
        // subscribed to, and the lease begins with an acknowledged commit.
        self.timers.commit_now(now);
    }

    /// Where `progress` was compacted under its reader, everything is looked up again.
    pub(super) fn progress_out_of_range(&mut self, assignment: Assignment, partition: &Partition) {
        let is_read = self.owned.get(&partition.number).is_some_and(|owned| {
            let reading = owned.handover.reading.as_ref();
            reading.is_some_and(|reading| reading.assignment == assignment)
        });
        if is_read {
            self.take_over(partition.number);
        }
    }

    pub(super) fn unassign_progress(&self, placement: u32) {
        let owned = self.owned.get(&placement);
        if owned.is_some_and(|owned| owned.handover.reading.is_some()) {
            let partition = self.parts.topics.progress.partition(placement);
            self.parts.reader.unassign(partition);
        }
    }

    /// The mark of a take-over, for the end of what others left.
    pub(super) fn owner_mark(&self, placement: u32) -> Record {
        let mark = OwnerProgress {
            version: 1,
            placement,
            instance: self.parts.options.instance.clone(),
            at: self.wall(),
        };
        Record {
            topic: self.parts.topics.progress.clone(),
            partition: Some(placement),
            key: Some(Bytes::from(mark.key().to_string())),
            value: Some(Bytes::from(mark.encode())),
            headers: Headers::default(),
        }
    }
}
