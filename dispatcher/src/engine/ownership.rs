//! Owns the coming and going of placements: taking over what a predecessor left, draining before a
//! revoke is acknowledged, dropping at once what is lost (rule 5).

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use runtime::log::{
    Assignment, Bounds, Class, Committed, Error, Member, Membership, Partition, Producer, Record,
    Revocation, SharedLog,
};
use schemas::records::DeadReason;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::moves::{Move, What};
use super::{Drain, Engine};
use crate::delivery::Transport;
use crate::handover::Handover;
use crate::ledger::{Inherited, Ledger, Place};
use crate::marks::Marks;
use crate::metrics::Deferred;
use crate::owned::{DELIVERIES, Owned, Phase, Tenure};
use crate::planted::{self, Bug};
use crate::{Stopped, dead_letter};

/// The wait before a take-over that failed is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// What a predecessor left, for each source in order.
pub(super) struct TakenOver {
    tenure: Tenure,
    found: Vec<(Option<Committed>, Bounds)>,
    /// Where `progress` begins, and the mark of this take-over in it.
    progress: (i64, i64),
}

/// Where the log begins and ends of a source whose reading went beyond.
pub(super) struct Overtaken {
    tenure: Tenure,
    index: usize,
    assignment: Option<Assignment>,
    bounds: Bounds,
}

impl<T: Transport> Engine<T> {
    pub(super) fn on_membership(&mut self, message: Membership) -> Result<(), Stopped> {
        match message {
            // What comes while this process leaves is given up with the membership.
            Membership::Assigned(partitions) if self.stopping => {
                info!(?partitions, "placements assigned while leaving");
            }
            Membership::Assigned(partitions) => {
                info!(?partitions, "placements assigned");
                for partition in partitions {
                    self.take_over(partition.number);
                }
            }
            Membership::Revoked(revocation) => {
                let placements: Vec<u32> = revocation
                    .partitions()
                    .iter()
                    .map(|partition| partition.number)
                    .collect();
                info!(?placements, "placements revoked");
                self.begin_drain(placements, Some(revocation));
            }
            Membership::Lost(partitions) => {
                warn!(?partitions, "placements lost");
                for partition in partitions {
                    self.forget(partition.number);
                }
            }
            Membership::Fenced(error) => {
                error!(%error, "membership was fenced");
                return Err(Stopped::SameName(self.parts.options.instance.clone()));
            }
            Membership::Failed(error) => return Err(Stopped::Log(error)),
        }
        Ok(())
    }

    pub(super) fn take_over(&mut self, placement: u32) {
        self.forget(placement);
        self.tenures += 1;
        let tenure = Tenure {
            placement,
            number: self.tenures,
        };
        let handover = Handover::new(self.now(), self.wall());
        let owned = Owned::new(tenure, &self.parts.topics, handover, &self.read_ahead);
        let partitions: Vec<Partition> = owned
            .sources
            .iter()
            .map(|source| source.partition.clone())
            .collect();
        self.owned.insert(placement, owned);
        let search = Search {
            log: self.parts.log.clone(),
            member: Arc::clone(&self.parts.member),
            producer: Arc::clone(&self.parts.producer),
            partitions,
            progress: self.parts.topics.progress.partition(placement),
            mark: self.owner_mark(placement),
        };
        self.takeovers.push(find(tenure, search).boxed());
    }

    /// Begins a new tenure of a placement whose state can no longer be trusted.
    pub(super) fn take_over_again(&mut self, tenure: Tenure) {
        if self
            .tenant_of(tenure)
            .is_some_and(|owned| owned.is_serving())
        {
            warn!(placement = tenure.placement, "placement is taken over anew");
            self.take_over(tenure.placement);
        }
    }

    /// Ends a tenure of which nobody knows what is committed: it begins anew, or with its next
    /// owner where it is being drained.
    pub(super) fn let_go(&mut self, tenure: Tenure) {
        let drains = self
            .tenant_of(tenure)
            .is_some_and(|owned| matches!(owned.phase, Phase::Draining { .. }));
        if drains {
            self.forget(tenure.placement);
        } else {
            self.take_over_again(tenure);
        }
    }

    pub(super) fn on_taken_over(&mut self, taken: TakenOver) -> Result<(), Stopped> {
        self.read_progress(taken.tenure, taken.progress, taken.found);
        Ok(())
    }

    pub(super) fn resume(
        &mut self,
        tenure: Tenure,
        index: usize,
        committed: Option<Committed>,
        bounds: Bounds,
    ) {
        let reader = Arc::clone(&self.parts.reader);
        let missing = committed.is_none();
        let committed = committed.unwrap_or(Committed {
            offset: bounds.start,
            metadata: String::new(),
        });
        let inside = (bounds.start..=bounds.stable_end).contains(&committed.offset);
        let position = if inside {
            committed.offset
        } else {
            bounds.start
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let Some(source) = owned.sources.get_mut(index) else {
            return;
        };
        let metadata = if inside {
            committed.metadata.as_str()
        } else {
            ""
        };
        let inherited = Inherited::decode(position, metadata).unwrap_or_else(|error| {
            warn!(partition = %source.partition, %error, "completed targets are not known");
            Inherited::default()
        });
        let from = inherited
            .marks_from()
            .filter(|_| !planted::is(Bug::MarksForgotten))
            .unwrap_or(position)
            .clamp(bounds.start, position);
        if index == DELIVERIES {
            owned.marks = Marks::resume(from, position);
        }
        let lost = match (missing, inside) {
            (false, true) => position..position,
            (true, _) => 0..bounds.start,
            (false, false) => committed.offset.min(bounds.start)..bounds.start,
        };
        source.ledger = Ledger::resume(lost.start, inherited);
        source.committed = position;
        source.sent = None;
        source.dirty = true;
        source.assignment = Some(reader.assign(source.partition.clone(), from));
        if (!missing && inside) || (missing && bounds.start == 0) {
            return;
        }
        let partition = source.partition.clone();
        self.parts.metrics.incidents.inc();
        error!(%partition, position = committed.offset, start = bounds.start,
            end = bounds.stable_end, "position is missing or outside the log");
        self.record_lost(tenure, index, &partition, lost);
    }

    /// Records that a range of offsets was never seen (rule 16).
    fn record_lost(
        &mut self,
        tenure: Tenure,
        source: usize,
        partition: &Partition,
        lost: std::ops::Range<i64>,
    ) {
        let reason = DeadReason::RetentionLost;
        let mut letter = dead_letter::of_place(reason, self.wall(), partition, lost.start);
        letter.through = Some((lost.end - 1).max(lost.start));
        letter.detail = Some("position missing or outside the log".to_owned());
        // An open place of its own, so that no position passes before the record is written. Where
        // nothing is known to be lost it lies below the window, and completing it changes nothing.
        let mut place = Place {
            offset: lost.start - 1,
            index: 0,
        };
        if let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(source))
            .filter(|_| !lost.is_empty())
        {
            place.offset = lost.start;
            source.ledger.admit(lost.start, 1);
            source.ledger.skip_to(lost.end);
            source.dirty = true;
        }
        let what = What::Dead {
            letter: Box::new(letter),
            delivery: None,
            poison: None,
        };
        self.push_move(Move {
            tenure,
            source,
            place,
            order: None,
            what,
        });
    }

    /// Reading went beyond the log's ends. What is in flight goes on: only this source looks for
    /// where the log begins now.
    pub(super) fn out_of_range(&mut self, tenure: Tenure, index: usize) {
        let Some(source) = self
            .tenant_of(tenure)
            .filter(|owned| owned.is_serving())
            .and_then(|owned| owned.sources.get(index))
        else {
            return;
        };
        let (partition, assignment) = (source.partition.clone(), source.assignment);
        error!(%partition, "reading is outside the log");
        let log = self.parts.log.clone();
        self.overtaken.push(
            async move {
                loop {
                    match log.bounds(&partition).await {
                        Ok(bounds) => {
                            return Overtaken {
                                tenure,
                                index,
                                assignment,
                                bounds,
                            };
                        }
                        Err(error) => warn!(%partition, %error, "bounds cannot be read now"),
                    }
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
            .boxed(),
        );
    }

    pub(super) fn on_overtaken(&mut self, found: &Overtaken) {
        let Overtaken {
            tenure,
            index,
            assignment,
            bounds,
        } = *found;
        let Some(source) = self
            .tenant_of(tenure)
            .filter(|owned| owned.is_serving())
            .and_then(|owned| owned.sources.get_mut(index))
            .filter(|source| source.assignment == assignment)
        else {
            return;
        };
        if source.ledger.next() > bounds.stable_end {
            // The log ends before what was read: nothing known of it holds any more.
            return self.take_over_again(tenure);
        }
        // What was read before is taken in first, in order.
        source.overtaken_by = Some(bounds.start);
        self.unread.insert((Reverse(index), tenure));
    }

    /// Goes on where the log begins now, and records what was deleted unread (rule 16).
    pub(super) fn go_on_behind(&mut self, tenure: Tenure, index: usize, start: i64) {
        let reader = Arc::clone(&self.parts.reader);
        let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(index))
        else {
            return;
        };
        let next = source.ledger.next();
        let partition = source.partition.clone();
        // Below the committed position only marks are read.
        let from = if next > source.committed {
            next.max(start)
        } else {
            start
        };
        reader.unassign(partition.clone());
        source.paused = false;
        source.assignment = Some(reader.assign(partition.clone(), from));
        if start > next {
            self.parts.metrics.incidents.inc();
            self.record_lost(tenure, index, &partition, next..start);
        }
    }

    /// Starts nothing new of `placements`; what runs may end until the drain deadline.
    fn begin_drain(&mut self, placements: Vec<u32>, revocation: Option<Revocation>) {
        let now = self.now();
        let deadline = now + self.parts.options.drain_deadline;
        for placement in &placements {
            match self.owned.get(placement).map(|owned| owned.phase) {
                Some(Phase::Serving) => self.drain(*placement, deadline),
                Some(Phase::TakingOver) => self.forget(*placement),
                // It is being drained already: this revoke waits for the same end.
                Some(Phase::Draining { .. }) | None => {}
            }
        }
        self.timers.commit_now(now);
        self.drains.push(Drain {
            placements,
            _revocation: revocation,
        });
    }

    fn drain(&mut self, placement: u32, deadline: Instant) {
        let Some(owned) = self.owned.get_mut(&placement) else {
            return;
        };
        owned.phase = Phase::Draining { deadline };
        let tenure = owned.tenure;
        for source in &mut owned.sources {
            self.parts.reader.unassign(source.partition.clone());
            source.pending.clear();
            source.dirty = true;
        }
        let mut left: Vec<_> = owned
            .lanes
            .values_mut()
            .flat_map(|lane| lane.drain())
            .flat_map(|(unit, due)| unit.into_items().into_iter().map(move |item| (item, due)))
            .collect();
        // As they were read: the order of the lanes is none.
        left.sort_by_key(|(delivery, _)| (delivery.source, delivery.place));
        for (delivery, due) in left {
            // What was attempted since it was read takes its history along; the rest is read again.
            let was_attempted = delivery.state != delivery.target.state.unwrap_or_default();
            if was_attempted && !planted::is(Bug::WaitingDroppedAtDrain) {
                let due_at = due.map_or(delivery.state.due_at, |due| self.parts.clock.wall_at(due));
                self.defer(tenure, delivery, due_at, Deferred::Drain);
            }
        }
        self.leave_everything(placement);
    }

    /// Lets go of what is drained, and acknowledges revokes that are done.
    pub(super) fn finish_drains(&mut self, now: Instant) {
        let commits = self.commit.is_some() && !planted::is(Bug::LateCommitAfterRevoke);
        if self.drains.is_empty() || commits {
            return;
        }
        // A transaction is over when its time is, and its next owner waits for that.
        let transaction = self.parts.options.transaction_timeout;
        let mut done = Vec::new();
        for owned in self.owned.values() {
            if let Phase::Draining { deadline } = owned.phase
                && (owned.is_drained()
                    || (now >= deadline && !owned.is_frozen())
                    || now >= deadline + transaction)
            {
                done.push(owned.tenure.placement);
            } else if matches!(owned.phase, Phase::Draining { .. }) {
                self.timers.commit_now(now + Duration::from_millis(5));
            }
        }
        for placement in done {
            self.forget(placement);
        }
        let owned = &self.owned;
        self.drains.retain_mut(|drain| {
            drain.placements.retain(|placement| {
                owned
                    .get(placement)
                    .is_some_and(|owned| !owned.is_serving())
            });
            !drain.placements.is_empty()
        });
    }

    /// Drops everything of a placement: attempts that still run are of no account any more.
    fn forget(&mut self, placement: u32) {
        self.unassign_progress(placement);
        let Some(owned) = self.owned.remove(&placement) else {
            return;
        };
        owned.ended.store(true, Ordering::Relaxed);
        for source in owned
            .sources
            .iter()
            .filter(|source| source.assignment.is_some())
        {
            self.parts.reader.unassign(source.partition.clone());
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        let placements: Vec<u32> = self.owned.keys().copied().collect();
        info!(?placements, "dispatcher drains");
        self.begin_drain(placements, None);
    }
}

/// What a search for what a predecessor left is made with.
struct Search {
    log: SharedLog,
    member: Arc<dyn Member>,
    producer: Arc<dyn Producer>,
    partitions: Vec<Partition>,
    progress: Partition,
    mark: Record,
}

async fn find(tenure: Tenure, search: Search) -> TakenOver {
    loop {
        match try_find(&search).await {
            Ok((found, progress)) => {
                return TakenOver {
                    tenure,
                    found,
                    progress,
                };
            }
            Err(error) => {
                warn!(placement = tenure.placement, %error, "positions cannot be read now");
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    }
}

/// What a predecessor left of each source, and where `progress` begins and is marked.
type Found = (Vec<(Option<Committed>, Bounds)>, (i64, i64));

async fn try_find(search: &Search) -> Result<Found, Error> {
    let log = &search.log;
    let partitions = &search.partitions;
    let committed = search.member.committed(partitions).await?;
    let bounds = join_all(partitions.iter().map(|partition| log.bounds(partition))).await;
    let found = partitions
        .iter()
        .zip(bounds)
        .map(|(partition, bounds)| {
            let position = committed.iter().find(|(of, _)| of == partition);
            Ok((position.and_then(|(_, position)| position.clone()), bounds?))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let start = log.bounds(&search.progress).await?.start;
    let acks = search.producer.send(vec![search.mark.clone()]).await;
    match acks.wait().await.first() {
        Some(Ok(marked)) => Ok((found, (start, *marked))),
        Some(Err(_)) | None => Err(Error::new(
            Class::Retry,
            &search.progress,
            "take-over could not be marked",
        )),
    }
}
