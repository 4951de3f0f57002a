//! Owns the way of an activation: what is on record is looked up, what is owed is decided, and
//! what is decided is written before the partition goes on.
//!
//! It must never let a record begin while an offset that was chosen is not on record. The surprise:
//! an offset that was chosen stays chosen until it is, however often that is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtime::log::{Bounds, Partition, Producer};
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, OwnerMark};

use super::super::Router;
use super::super::source::{Phase, mark_in};
use super::book::{Book, Known};
use super::saving::{SAVE_EVERY, Saved};
use super::starts::{self, Facts, Owed};
use super::{Event, LookedUp, Stage, idle};

/// Activations that are written at once.
const AT_ONCE: usize = 500;

impl Router {
    /// Asks how far `control` goes, for partitions that were just taken over.
    pub(in crate::routing) fn survey(&mut self) {
        let unasked = self
            .replays
            .asides
            .iter_mut()
            .filter(|(_, aside)| !aside.is_asked);
        let asked: Vec<_> = unasked
            .map(|(partition, aside)| {
                aside.is_asked = true;
                (partition.clone(), aside.tenure)
            })
            .collect();
        if asked.is_empty() {
            return;
        }
        let (means, control) = (self.replays.means.clone(), self.topics.control.partition(0));
        let known = self.index.control_offset();
        self.aside(async move { Event::ControlEnd(asked, means.end(&control, known).await) });
    }

    pub(super) fn on_control_end(&mut self, asked: &[(Partition, u64)], end: i64) {
        for (partition, tenure) in asked {
            let aside = self.replays.asides.get_mut(partition);
            if let Some(aside) = aside.filter(|aside| aside.tenure == *tenure) {
                aside.control_end = Some(end);
                self.tend(partition);
            }
        }
    }

    /// Looks up the activations of every partition that waits for that, each place by itself: one
    /// that cannot be read holds up nobody whose activations are elsewhere.
    pub(super) fn look_up(&mut self) {
        let mut waiting: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
        for (partition, aside) in &self.replays.asides {
            if aside.stage == Stage::LookingUp && !self.replays.looking.contains(&aside.place) {
                let of_place = waiting.entry(aside.place.clone()).or_default();
                of_place.push((partition.clone(), aside.tenure));
            }
        }
        for (place, waiting) in waiting {
            self.replays.looking.insert(place.clone());
            let (means, member) = (self.replays.means.clone(), Arc::clone(&self.member));
            self.aside(async move {
                let partitions: Vec<_> = waiting.iter().map(|(one, _)| one.clone()).collect();
                let mut texts = means.metadata(&*member, &partitions).await;
                let found = means.read(&BTreeSet::from([place.clone()])).await;
                let found = found.into_values().next().unwrap_or_default();
                let found = Arc::new(found);
                let looked_up = waiting.into_iter().map(|(partition, tenure)| LookedUp {
                    metadata: texts.remove(&partition).unwrap_or_default(),
                    found: Arc::clone(&found),
                    partition,
                    tenure,
                });
                let looked_up = looked_up.collect();
                Event::LookedUp(place, looked_up)
            });
        }
    }

    pub(super) fn on_looked_up(&mut self, place: &Partition, found: Vec<LookedUp>) {
        self.replays.looking.remove(place);
        for looked_up in found {
            self.adopt(&looked_up);
        }
        self.look_up();
    }

    /// Takes over what earlier owners left. What is not done is written anew; only then may a commit
    /// say that all of it is known. What is void is taken back once one has: who cannot commit is no
    /// owner, and takes nothing back.
    fn adopt(&mut self, looked_up: &LookedUp) {
        let LookedUp {
            partition,
            tenure,
            metadata,
            found,
        } = looked_up;
        let aside = self.replays.asides.get_mut(partition);
        let Some(aside) = aside.filter(|aside| aside.tenure == *tenure) else {
            return;
        };
        let mark = mark_in(metadata).filter(|_| !aside.is_late && !aside.is_anew);
        let (book, void) = Book::read(partition, mark.as_ref(), found.records.values());
        let copies = book.taken_over_by(&aside.writer);
        aside.book = book;
        let own = OwnerMark::new(aside.writer.clone(), found.end);
        aside.mark = Some(own.clone());
        aside.first_mark = if void.is_empty() {
            Some(own)
        } else {
            Some(own.behind(mark.as_ref()))
        };
        aside.void = void;
        aside.stage = Stage::Adopting;
        for copy in &copies {
            aside.book.note(copy);
        }
        let (means, place) = (self.replays.means.clone(), &aside.place);
        let copies: Vec<_> = copies
            .iter()
            .map(|copy| means.record(place, copy))
            .collect();
        if copies.is_empty() {
            return self.on_adopted(partition, *tenure);
        }
        let (producer, partition, tenure) = (Arc::clone(&self.reports), partition.clone(), *tenure);
        self.aside(async move {
            match means.write_once(&*producer, copies).await {
                Ok(()) => Event::Adopted(partition, tenure),
                Err(other) => Event::Unwritten(partition, tenure, other),
            }
        });
    }

    pub(super) fn on_adopted(&mut self, partition: &Partition, tenure: u64) {
        let replays = &mut self.replays;
        let aside = replays.asides.get_mut(partition);
        let Some(aside) = aside.filter(|aside| aside.tenure == tenure) else {
            return;
        };
        aside.stage = Stage::Known;
        aside.is_fresh = !aside.is_late;
        aside.open.extend(replays.starts.ids());
        // Of deleted ones: their records are taken back.
        aside.open.extend(aside.book.ids());
        if let (Some(mark), Some(source)) = (&aside.first_mark, self.sources.get_mut(partition)) {
            source.put_mark(mark.to_string());
            *source.gates() = aside.book.gates();
        }
        self.tend(partition);
    }

    /// Asks for what the activations need that are owed, where any are.
    pub(super) fn register(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let replays = &mut self.replays;
        let Some(aside) = idle(&mut replays.asides, partition) else {
            return;
        };
        let (starts, book) = (&replays.starts, &aside.book);
        let is_owed = |id: &SubscriptionId| {
            let subscription = starts.get(*id);
            let owed = subscription.map(|one| starts::owed(one, book.get(*id)));
            owed == Some(Owed::Activation)
        };
        let asked = aside.open.iter().copied().filter(is_owed).take(AT_ONCE);
        let asked: Vec<_> = asked.collect();
        // Not at once: a log that is made anew would be asked for ever.
        let is_overtaken =
            aside.is_overtaken && aside.pass.is_none() && now >= aside.saved_at + SAVE_EVERY;
        if asked.is_empty() && !is_overtaken {
            return;
        }
        aside.is_busy = true;
        if is_overtaken {
            aside.saved_at = now;
        }
        let times = asked
            .iter()
            .filter_map(|id| starts::time_of(starts.get(*id)?));
        let times: BTreeSet<i64> = times.collect();
        let (means, partition, tenure) = (replays.means.clone(), partition.clone(), aside.tenure);
        self.aside(async move {
            let facts = means.facts(&partition, &times).await;
            Event::Facts {
                partition,
                tenure,
                asked,
                facts,
            }
        });
    }

    pub(super) fn on_facts(
        &mut self,
        partition: &Partition,
        tenure: u64,
        asked: Vec<SubscriptionId>,
        (bounds, times): (Bounds, BTreeMap<i64, Option<i64>>),
    ) {
        let next = self
            .sources
            .get(partition)
            .map(super::super::Source::next_offset);
        let replays = &mut self.replays;
        let aside = replays.asides.get_mut(partition);
        let Some((aside, next)) = aside.filter(|aside| aside.tenure == tenure).zip(next) else {
            return;
        };
        aside.is_busy = false;
        let mut decided = Vec::new();
        for id in asked {
            let known = aside.book.get(id);
            let Some(subscription) = replays.starts.get(id) else {
                continue;
            };
            if starts::owed(subscription, known) != Owed::Activation {
                continue;
            }
            let start = starts::time_of(subscription);
            let facts = Facts {
                next,
                bounds,
                start: start.and_then(|at| times.get(&at).copied().flatten()),
            };
            // A start that changed meanwhile is asked for anew.
            if known.is_some() || start.is_none_or(|at| times.contains_key(&at)) {
                decided.push((id, starts::activate(subscription, known, &facts)));
            }
        }
        if aside.is_overtaken && aside.pass.is_none() {
            aside.is_overtaken = false;
            decided.extend(cut(&aside.book, &aside.open, bounds));
        }
        self.decide(partition, decided);
        self.tend(partition);
    }

    /// Writes what was decided; until it is there the partition begins nothing.
    pub(super) fn decide(&mut self, partition: &Partition, decided: Vec<(SubscriptionId, Known)>) {
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        if decided.is_empty() {
            return;
        }
        for (id, known) in &decided {
            let was_said = aside.book.get(*id).and_then(|known| known.log_start);
            if let Some(at) = known.log_start.filter(|at| Some(*at) != was_said) {
                self.metrics.replay.lost.inc();
                tracing::info!(
                    subscription = %id, %partition, at,
                    "replay begins where the log does: older events may be gone"
                );
            }
        }
        let (book, writer) = (&aside.book, &aside.writer);
        let is_live = |id| {
            book.get(id)
                .is_some_and(|known: &Known| known.offset.is_some())
        };
        let is_new = |(id, known): &(_, Known)| known.offset.is_some() && !is_live(*id);
        let is_deciding = decided.iter().any(is_new);
        let notes = decided
            .into_iter()
            .map(|(id, known)| book.record(id, known, writer));
        let notes: Vec<_> = notes.collect();
        aside.is_deciding = is_deciding;
        self.note(partition, notes, None);
    }

    /// Writes `notes`, and says afterwards how far that saved a pass.
    pub(super) fn note(
        &mut self,
        partition: &Partition,
        notes: Vec<Activation>,
        saved: Option<Saved>,
    ) {
        let replays = &mut self.replays;
        let Some(aside) = replays.asides.get_mut(partition) else {
            return;
        };
        aside.is_busy = true;
        let (means, place) = (replays.means.clone(), aside.place.clone());
        let (producer, partition) = (Arc::clone(&self.reports), partition.clone());
        let tenure = aside.tenure;
        self.aside(async move {
            let records = notes.iter().map(|note| means.record(&place, note));
            match means.write_once(&*producer, records.collect()).await {
                Ok(()) => Event::Noted {
                    partition,
                    tenure,
                    notes,
                    saved,
                },
                Err(other) => Event::Unwritten(partition, tenure, other),
            }
        });
    }

    /// What could not be written may be there all the same, now or later, over what is written under
    /// its key then. So nothing more is: this owner takes over from itself, as another writer, by a
    /// mark under which what comes late does not count.
    pub(super) fn on_unwritten(
        &mut self,
        partition: &Partition,
        tenure: u64,
        producer: Arc<dyn Producer>,
    ) {
        self.reports = producer;
        let aside = self.replays.asides.get_mut(partition);
        let Some(aside) = aside.filter(|aside| aside.tenure == tenure) else {
            return;
        };
        let source = self.sources.get(partition);
        if source.is_none_or(|source| source.phase == Phase::Draining) {
            // The next owner is another writer.
            aside.is_busy = false;
            self.drop_pass(partition);
            return;
        }
        tracing::warn!(%partition, "activations were not written, looking them up anew");
        let tenure = self.next_number();
        self.begin_aside(partition, tenure);
        self.survey();
    }

    pub(super) fn on_noted(
        &mut self,
        partition: &Partition,
        tenure: u64,
        notes: &[Activation],
        saved: Option<Saved>,
    ) {
        let replays = &mut self.replays;
        let aside = replays.asides.get_mut(partition);
        let Some(aside) = aside.filter(|aside| aside.tenure == tenure) else {
            return;
        };
        aside.is_busy = false;
        let source = self.sources.get_mut(partition);
        let mut gates = source.map(super::super::Source::gates);
        for note in notes {
            aside.book.note(note);
            if let (Some(offset), Some(gates)) = (note.offset, gates.as_deref_mut()) {
                gates.insert(note.subscription, offset..i64::MAX);
            }
        }
        if aside.is_deciding {
            aside.is_deciding = false;
            aside.meeting = None;
            // What was held back of the report may be said now.
            self.report_at = self
                .report_at
                .min(self.reported_at + super::super::REPORT_GAP);
        }
        if let (Some(pass), Some(saved)) = (&mut aside.pass, saved) {
            pass.saved(saved);
        }
        self.tend(partition);
    }

    /// Takes back what is void, the records of deleted subscriptions, and those of others that this
    /// owner has written anew; none before a commit has shown that it is the owner.
    pub(super) fn forget(&mut self, partition: &Partition) {
        let is_marked = self
            .sources
            .get(partition)
            .is_some_and(super::super::Source::is_marked);
        let replays = &mut self.replays;
        let Some(aside) = replays.asides.get_mut(partition) else {
            return;
        };
        let (starts, book) = (&replays.starts, &mut aside.book);
        let litter = &mut aside.litter;
        let mut gone = Vec::new();
        let busy = aside.is_busy || !is_marked;
        aside.open.retain(|id| match starts.get(*id) {
            Some(subscription) => starts::owed(subscription, book.get(*id)) != Owed::Nothing,
            None if busy => true,
            None => {
                litter.extend(book.forget(*id));
                gone.push(*id);
                false
            }
        });
        if let Some(source) = self.sources.get_mut(partition).filter(|_| !gone.is_empty()) {
            let gates = source.gates();
            gates.retain(|id, _| !gone.contains(id));
        }
        if !busy {
            litter.extend(book.replaced_by(&aside.writer));
            litter.append(&mut aside.void);
        }
        if litter.is_empty()
            && !busy
            && let (Some(mark), Some(source)) = (&aside.mark, self.sources.get_mut(partition))
        {
            // All that is left counts: the mark of an owner alone says so.
            source.put_mark(mark.to_string());
        }
        if litter.is_empty() || busy {
            return;
        }
        let litter = std::mem::take(litter);
        aside.is_busy = true;
        let (means, place, tenure) = (replays.means.clone(), aside.place.clone(), aside.tenure);
        let (producer, partition) = (Arc::clone(&self.reports), partition.clone());
        self.aside(async move {
            let records = litter.iter().map(|key| means.tombstone(&place, key));
            means.write(producer, records.collect()).await;
            Event::Forgotten(partition, tenure)
        });
    }
}

/// Replays whose next events retention has taken: they go on where the log begins.
fn cut(
    book: &Book,
    open: &BTreeSet<SubscriptionId>,
    bounds: Bounds,
) -> Vec<(SubscriptionId, Known)> {
    let cut = open.iter().filter_map(|id| {
        let known = book.get(*id)?;
        let is_behind = !known.done && known.replayed_to < bounds.start;
        is_behind.then(|| {
            let to = known
                .offset
                .map_or(bounds.start, |offset| offset.min(bounds.start));
            let known = Known {
                replayed_to: to,
                done: known.offset == Some(to),
                log_start: Some(bounds.start),
                ..*known
            };
            (*id, known)
        })
    });
    cut.collect()
}
