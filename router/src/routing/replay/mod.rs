//! Owns subscriptions with a start: from which offset of each source partition on they are live,
//! and the replay of the events before that.
//!
//! A router that owns a source partition *activates* such a subscription in it: it begins no record
//! until it is written on `progress` from which offset on the subscription is live. Below that the
//! live router leaves it out, and what lies between the start and there is replayed, once, paced,
//! beside the live events; how far that is, is on `progress` too. An ordered subscription is
//! activated only where its replay meets the live position, so that its order has no seam
//! (rule 12).
//!
//! It must never let a live event wait for a past one, open a transaction, or carry a position with
//! a past event (rule 3). The surprise: a router that was stopped may write an activation when the
//! partition is somebody else's already. What counts is said by a mark in the metadata of the
//! committed position, which only the owner can commit; see `book`.

mod book;
mod look_up;
mod meeting;
pub(super) mod metrics;
mod pace;
mod pass;
mod passing;
mod registering;
mod saving;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use runtime::log::{
    Bounds, Error as LogError, Fetched, NotWritten, Partition, Producer, Reader, SharedLog,
    TopicName,
};
use runtime::view::Update;
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, ActivationKey, Incarnation, OwnerMark, Writer};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::source::{Load, Phase, Source};
use super::{Done, Router};
use crate::Error;
use crate::index::Index;
use book::Book;
use look_up::{Found, Means};
use pace::Pace;
use pass::Pass;
use saving::Saved;
pub(super) use starts::Starts;

/// Work for replays that has ended.
#[derive(Debug)]
pub(super) enum Event {
    /// The end of `control`, asked for after these partitions were taken over.
    ControlEnd(Vec<(Partition, u64)>, i64),
    /// What is on record in this place, and the text of the partitions' committed positions.
    LookedUp(Partition, Vec<LookedUp>),
    /// What was left by others is written anew, and what is void is taken back.
    Adopted(Partition, u64),
    /// What an activation needs to know.
    Facts {
        partition: Partition,
        tenure: u64,
        asked: Vec<SubscriptionId>,
        facts: (Bounds, BTreeMap<i64, Option<i64>>),
    },
    /// Activations are on record.
    Noted {
        partition: Partition,
        tenure: u64,
        notes: Vec<Activation>,
        saved: Option<Saved>,
    },
    /// Activations may not be on record; there is another producer for those to come.
    Unwritten(Partition, u64, Arc<dyn Producer>),
    /// Records were taken back.
    Forgotten(Partition, u64),
    /// The reader of past events is open.
    Reader(Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), LogError>),
    /// A producer of past events is open.
    Opened {
        partition: Partition,
        generation: u64,
        producer: Result<Arc<dyn Producer>, LogError>,
    },
    /// The reports of a flight of past events are in.
    Written {
        partition: Partition,
        generation: u64,
        flight: u64,
        load: Load,
        reports: Vec<Result<i64, NotWritten>>,
    },
}

/// What was found of one source partition.
#[derive(Debug)]
pub(super) struct LookedUp {
    partition: Partition,
    tenure: u64,
    metadata: String,
    found: Arc<Found>,
}

/// What is known of one source partition's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing, or nothing is needed.
    Unknown,
    /// They are being read.
    LookingUp,
    /// What others left is being put in order.
    Adopting,
    /// Everything.
    Known,
}

/// What replays keep of one source partition that this router owns.
#[derive(Debug)]
struct Aside {
    tenure: u64,
    writer: Writer,
    /// Where its activations are, on `progress`.
    place: Partition,
    /// As much of `control` has to be applied before a record is begun: its last owner may have
    /// activated what this router does not know yet.
    control_end: Option<i64>,
    is_asked: bool,
    stage: Stage,
    /// Routing began before anything was looked up: whatever is on record is not of its owners.
    is_late: bool,
    /// The log was made anew: whatever is on record is of its predecessor.
    is_anew: bool,
    /// It was just taken over, and a subscription that starts at the latest is not activated: what
    /// came since that was made would be passed over by records that are begun before.
    is_fresh: bool,
    /// The source partition has a start, and is not given up.
    is_routing: bool,
    /// What to commit once all that others left is in order, …
    mark: Option<OwnerMark>,
    /// … and until then.
    first_mark: Option<OwnerMark>,
    /// Records that do not count.
    void: Vec<ActivationKey>,
    book: Book,
    /// Subscriptions that are, or may be, owed something.
    open: BTreeSet<SubscriptionId>,
    /// Records to take back.
    litter: Vec<ActivationKey>,
    /// Something is being asked for or written.
    is_busy: bool,
    /// Offsets are being written: no record is begun.
    is_deciding: bool,
    /// Until when an ordered replay may hold the partition to meet its live position.
    meeting: Option<Instant>,
    meet_again_at: Option<Instant>,
    /// Retention has overtaken a replay.
    is_overtaken: bool,
    pass: Option<Pass>,
    /// The producer of the last pass, and since when it is idle.
    spare: Option<(Arc<dyn Producer>, Instant)>,
    pace: Option<Pace>,
    saved_at: Instant,
}

/// What a router keeps for replays.
#[derive(Debug)]
pub(super) struct Replays {
    means: Means,
    incarnation: Incarnation,
    rate: Option<NonZeroU32>,
    starts: Starts,
    asides: BTreeMap<Partition, Aside>,
    /// Subscriptions whose past events are being read, and in how many source partitions.
    index: Index,
    users: BTreeMap<SubscriptionId, usize>,
    /// Places that are being read.
    looking: BTreeSet<Partition>,
    reader: Option<Arc<dyn Reader>>,
    is_opening: bool,
    fetched: Option<mpsc::Receiver<Fetched>>,
    last_turn: Option<Partition>,
    turn_at: Instant,
    /// The control offset that was reported last.
    reported: i64,
}

// === impl Aside ===

impl Aside {
    fn new(
        partition: &Partition,
        tenure: u64,
        writer: Writer,
        place: Partition,
        now: Instant,
    ) -> Self {
        Self {
            tenure,
            writer,
            place,
            control_end: None,
            is_asked: false,
            stage: Stage::Unknown,
            is_late: false,
            is_anew: false,
            is_fresh: false,
            is_routing: false,
            mark: None,
            first_mark: None,
            void: Vec::new(),
            book: Book::new(partition),
            open: BTreeSet::new(),
            litter: Vec::new(),
            is_busy: false,
            is_deciding: false,
            meeting: None,
            meet_again_at: None,
            is_overtaken: false,
            pass: None,
            spare: None,
            pace: None,
            saved_at: now,
        }
    }

    /// Whether no record may be begun now.
    fn holds(&self) -> bool {
        match self.stage {
            Stage::Unknown | Stage::LookingUp | Stage::Adopting => !self.is_late,
            Stage::Known => self.is_fresh || self.is_deciding || self.meeting.is_some(),
        }
    }
}

/// What is kept of `partition`, unless something is being asked for or written.
fn idle<'a>(
    asides: &'a mut BTreeMap<Partition, Aside>,
    partition: &Partition,
) -> Option<&'a mut Aside> {
    let aside = asides.get_mut(partition);
    aside.filter(|aside| !aside.is_busy)
}

// === impl Replays ===

impl Replays {
    pub(super) fn new(
        (log, progress): (SharedLog, TopicName),
        instance: &str,
        incarnation: Incarnation,
        rate: u32,
        (starts, now): (Starts, Instant),
    ) -> Self {
        let mut index = Index::new();
        // Past events say by how much of `control` they were matched, from the first on.
        index.set_control_offset(starts.applied);
        Self {
            means: Means {
                log,
                instance: instance.to_owned(),
                progress,
            },
            incarnation,
            rate: NonZeroU32::new(rate),
            starts,
            asides: BTreeMap::new(),
            index,
            users: BTreeMap::new(),
            looking: BTreeSet::new(),
            reader: None,
            is_opening: false,
            fetched: None,
            last_turn: None,
            turn_at: now,
            reported: 0,
        }
    }

    /// The next message about past events. cancel-safe: nothing is taken before it is returned.
    pub(super) async fn next_fetched(&mut self) -> Option<Fetched> {
        match &mut self.fetched {
            Some(fetched) => fetched.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Whether every subscription with a start is activated that has none to wait for. A partition
    /// without a start is not waited for: one that never gets any would hold up the answers of all,
    /// and it is activated from the same record on whenever it is.
    fn is_settled(&self) -> bool {
        let settled = |aside: &Aside| match aside.stage {
            Stage::Unknown => aside.is_late,
            Stage::LookingUp | Stage::Adopting => false,
            Stage::Known => {
                let owes = |id: &SubscriptionId| {
                    let subscription = self.starts.get(*id);
                    subscription.is_some_and(|subscription| {
                        starts::owed(subscription, aside.book.get(*id)) == starts::Owed::Activation
                    })
                };
                !aside.is_deciding && !aside.open.iter().any(owes)
            }
        };
        let mut routing = self.asides.values().filter(|aside| aside.is_routing);
        self.starts.is_empty() || routing.all(settled)
    }

    /// How much of `control` is applied, activations included, when `applied` is without them.
    pub(super) fn applied(&mut self, applied: i64) -> i64 {
        if self.is_settled() {
            self.reported = applied;
        }
        self.reported
    }

    /// Whether nothing of `partition` is in flight or unsaved.
    pub(super) fn is_drained(&self, partition: &Partition) -> bool {
        let Some(aside) = self.asides.get(partition) else {
            return true;
        };
        let pass = aside.pass.as_ref();
        pass.is_none_or(|pass| pass.source.window.is_settled() && !pass.is_unsaved())
    }
}

/// Takes over what changes in `control` of subscriptions with a start.
pub(super) fn apply(starts: &mut Starts, update: &Update) -> Vec<SubscriptionId> {
    starts.applied = update.applied;
    let changes = update.changes.iter();
    changes
        .filter_map(|change| starts.apply(&change.key, change.object.as_ref()))
        .collect()
}

// === impl Router ===

impl Router {
    /// A partition is owned from now on.
    pub(super) fn begin_aside(&mut self, partition: &Partition, tenure: u64) {
        let recorded = self.index.recorded_partitions().and_then(NonZeroU32::new);
        let topic = partition.topic.as_str();
        let place = Activation::place(topic, partition.number, recorded.unwrap_or(NonZeroU32::MIN));
        let place = self.topics.progress.partition(place);
        let writer = Writer::new(&self.replays.incarnation, tenure);
        self.end_aside(partition);
        let aside = Aside::new(partition, tenure, writer, place, self.clock.instant());
        self.replays.asides.insert(partition.clone(), aside);
    }

    /// A partition is not owned any more: nothing is written from now on.
    pub(super) fn end_aside(&mut self, partition: &Partition) {
        self.drop_pass(partition);
        if let Some(aside) = self.replays.asides.remove(partition)
            && let Some((producer, _)) = aside.spare
        {
            producer.purge();
        }
    }

    /// A partition is to be given up: what is in flight is awaited.
    pub(super) fn drain_aside(&mut self, partition: &Partition) {
        let Replays { asides, reader, .. } = &mut self.replays;
        if let Some(pass) = asides
            .get_mut(partition)
            .and_then(|aside| aside.pass.as_mut())
        {
            if let Some(reader) = reader {
                reader.unassign(partition.clone());
            }
            pass.source.drain();
        }
        self.tend(partition);
    }

    /// Takes over a change of `control`.
    pub(super) fn on_starts(&mut self, update: &Update) {
        let before = self.replays.starts.is_empty();
        let changed = apply(&mut self.replays.starts, update);
        self.replays.index.set_control_offset(update.applied);
        for id in &changed {
            self.refresh_user(*id);
            for aside in self.replays.asides.values_mut() {
                aside.open.insert(*id);
            }
        }
        let waits = self
            .replays
            .asides
            .values()
            .any(|aside| aside.stage == Stage::Unknown);
        // An endpoint may have changed without a subscription.
        let passes = self
            .replays
            .asides
            .values()
            .any(|aside| !aside.open.is_empty());
        if waits || passes || before != self.replays.starts.is_empty() {
            self.tend_all();
        }
    }

    /// Looks after every partition.
    pub(super) fn tend_all(&mut self) {
        let partitions: Vec<Partition> = self.replays.asides.keys().cloned().collect();
        for partition in &partitions {
            self.tend(partition);
        }
    }

    /// Voids what is on record where the log was made anew, or restored shorter: its offsets say
    /// nothing of this log, and would leave out what it has below them (rule 16).
    fn begin_anew(&mut self, partition: &Partition) {
        let is_anew = self.sources.get(partition).is_some_and(Source::is_anew);
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        let was_anew = std::mem::replace(&mut aside.is_anew, is_anew);
        if !is_anew || was_anew || aside.stage == Stage::Unknown {
            return;
        }
        tracing::warn!(%partition, "activations are void: the log was made anew");
        // Another writer's: the keys that are taken back are not those that are written.
        let tenure = self.next_number();
        self.begin_aside(partition, tenure);
        if let Some(aside) = self.replays.asides.get_mut(partition) {
            aside.is_anew = true;
        }
        if let Some(source) = self.sources.get_mut(partition) {
            source.forget_mark();
        }
        self.survey();
    }

    /// Does for a partition whatever is to be done next.
    pub(super) fn tend(&mut self, partition: &Partition) {
        let applied = self.index.control_offset();
        let Some(source) = self.sources.get(partition) else {
            return;
        };
        let phase = source.phase;
        let is_routing = matches!(phase, Phase::Opening | Phase::Routing);
        if is_routing {
            self.begin_anew(partition);
        }
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        aside.is_routing = is_routing;
        match phase {
            Phase::Starting => return,
            Phase::Draining => {
                self.save(partition);
                return;
            }
            Phase::Opening | Phase::Routing => {}
        }
        match aside.stage {
            Stage::Unknown if aside.control_end.is_none_or(|end| end > applied) => {}
            Stage::Unknown if self.replays.starts.is_empty() => {
                aside.is_late = true;
                if let Some(source) = self.sources.get_mut(partition) {
                    source.put_mark(String::new());
                }
            }
            Stage::Unknown => {
                aside.stage = Stage::LookingUp;
                self.look_up();
            }
            Stage::LookingUp | Stage::Adopting => {}
            Stage::Known => {
                let (starts, book) = (&self.replays.starts, &aside.book);
                let mut owed = aside
                    .open
                    .iter()
                    .filter_map(|id| Some((id, starts.get(*id)?)));
                aside.is_fresh &= owed.any(|(id, one)| starts::owes_latest(one, book.get(*id)));
                self.save(partition);
                // Whoever comes next believes what this owner decides only behind its mark.
                if self.sources.get(partition).is_some_and(Source::is_marked) {
                    self.register(partition);
                    self.go_on(partition);
                }
                self.forget(partition);
            }
        }
        self.hold(partition);
    }

    /// Holds the partition, or lets it go on.
    fn hold(&mut self, partition: &Partition) {
        let Some(aside) = self.replays.asides.get(partition) else {
            return;
        };
        let holds = aside.holds();
        if let Some(source) = self.sources.get_mut(partition) {
            source.ready |= source.held && !holds;
            source.held = holds;
        }
    }

    /// Takes in work that has ended.
    pub(super) fn on_aside(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::ControlEnd(asked, end) => self.on_control_end(&asked, end),
            Event::LookedUp(place, found) => self.on_looked_up(&place, found),
            Event::Adopted(partition, tenure) => self.on_adopted(&partition, tenure),
            Event::Facts {
                partition,
                tenure,
                asked,
                facts,
            } => self.on_facts(&partition, tenure, asked, facts),
            Event::Noted {
                partition,
                tenure,
                notes,
                saved,
            } => self.on_noted(&partition, tenure, &notes, saved),
            Event::Unwritten(partition, tenure, producer) => {
                self.on_unwritten(&partition, tenure, producer);
            }
            Event::Forgotten(partition, tenure) => {
                if let Some(aside) = self.replays.asides.get_mut(&partition)
                    && aside.tenure == tenure
                {
                    aside.is_busy = false;
                    self.tend(&partition);
                }
            }
            Event::Reader(opened) => self.on_aside_reader(opened)?,
            Event::Opened {
                partition,
                generation,
                producer,
            } => self.on_pass_opened(&partition, generation, producer)?,
            Event::Written {
                partition,
                generation,
                flight,
                load,
                reports,
            } => self.on_pass_written(&partition, generation, flight, (&load, &reports)),
        }
        Ok(())
    }

    /// Looks at what changes with time alone, and shows the gauges.
    pub(super) fn on_aside_tick(&mut self, now: Instant) {
        self.tend_all();
        let (mut open, mut left, mut held) = (0_usize, 0_i64, 0_usize);
        let starts = &self.replays.starts;
        for (partition, aside) in &mut self.replays.asides {
            aside
                .spare
                .take_if(|(_, since)| now >= *since + passing::IDLE_PRODUCER);
            let owed = aside.open.iter().filter_map(|id| {
                let subscription = starts.get(*id)?;
                Some(starts::owed(subscription, aside.book.get(*id)))
            });
            let mut from = None;
            // What is not known yet may be anything.
            open += usize::from(aside.stage != Stage::Known && !starts.is_empty());
            for owed in owed {
                let start = match owed {
                    starts::Owed::Nothing => continue,
                    starts::Owed::Activation => None,
                    starts::Owed::Past(range) => Some(range.start),
                    starts::Owed::Meeting(start) => Some(start),
                };
                open += 1;
                from = from.into_iter().chain(start).min();
            }
            let holds = aside.holds();
            held += usize::from(holds);
            if let (Some(from), Some(source)) = (from, self.sources.get(partition)) {
                left += source.next_offset().saturating_sub(from).max(0);
            }
            if let Some(pass) = &mut aside.pass {
                // A producer without room is asked again although no report came.
                pass.source.ready = true;
            }
        }
        let metrics = &self.metrics.replay;
        metrics.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        metrics.left.set(left);
        metrics.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Adds work whose end is told as `event`.
    fn aside(&self, work: impl Future<Output = Event> + Send + 'static) {
        self.work.push(Box::pin(async { Done::Aside(work.await) }));
    }
}

#[cfg(test)]
mod tests;
