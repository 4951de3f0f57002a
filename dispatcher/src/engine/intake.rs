//! Owns the way from records read to deliveries in lanes: bounds, marks, control's progress, due
//! times, and what cannot be attempted here.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Fetched, StoredRecord};
use runtime::view::Update;
use schemas::records::{AttemptState, DeadReason, DeliveryRecord};
use schemas::resources::EndpointState;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Engine;
use super::control_end::{AHEAD_OF_CONTROL_MAX, ControlEnd};
use super::disabling::is_about;
use super::moves::{Move, What};
use crate::dead_letter;
use crate::delivery::Transport;
use crate::endpoints;
use crate::ledger::Place;
use crate::metrics::Deferred;
use crate::owned::{DELIVERIES, Recall, Tenure, WINDOW_RECORDS_MAX};
use crate::planted::{self, Bug};
use crate::schedule::{self, tier_for};
use crate::work::{Delivery, Loaded};

/// Bytes of records read and not yet taken in, of one partition; beyond it the partition pauses.
const PENDING_BYTES_MAX: usize = 64 << 10;
/// Bytes at which a partition pauses though its head will be ready soon.
const PENDING_BYTES_HARD_MAX: usize = 1 << 20;
/// The same for `deliveries`, where a process has memory for it.
const PENDING_DELIVERIES_BYTES_MAX: usize = 4 << 20;
/// The share of the budget at which all partitions together have read far enough ahead: from there
/// on each holds the least that it may.
const READ_AHEAD_CROWDED: usize = 8;
/// The share of the budget that what is read ahead takes from what is taken in, at most.
const READ_AHEAD_COUNTED: usize = 4;
/// A delay partition whose head is ready within this is not paused: pausing throws fetched records
/// away.
const NOT_WORTH_A_PAUSE: Duration = Duration::from_secs(1);
/// An event with so many ancestors that the pipeline made ends here (rule 19).
const LOOPS_MAX: u32 = 3;
/// How long a delivery that finds its lane full is deferred at least.
const FULL_WAIT: Duration = Duration::from_secs(5);

/// Whether the head of a source may be taken in.
enum Gate {
    Open,
    /// Not before this time.
    Until(Instant),
    /// Not before something else happens.
    Blocked,
}

impl<T: Transport> Engine<T> {
    pub(super) fn on_fetched_all(&mut self, first: Fetched) {
        self.on_fetched(first);
        // The receiver is bounded in bytes, so this ends.
        while let Ok(fetched) = self.parts.fetched.try_recv() {
            self.on_fetched(fetched);
        }
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Records(assignment, batch)
                if batch.partition.topic == self.parts.topics.progress =>
            {
                self.on_progress(assignment, &batch);
            }
            Fetched::Records(assignment, batch) => {
                let Some(owned) = self.owned.get_mut(&batch.partition.number) else {
                    return;
                };
                let Some(index) = owned.source_of(&batch.partition, assignment) else {
                    return;
                };
                if let Some(source) = owned.sources.get_mut(index) {
                    source.pending.push(batch.records);
                    self.unread.insert((Reverse(index), owned.tenure));
                }
            }
            Fetched::End(..) => {}
            Fetched::OutOfRange(assignment, partition) => {
                self.progress_out_of_range(assignment, &partition);
                let owned = self.owned.get_mut(&partition.number);
                let lost = owned.and_then(|owned| {
                    owned
                        .source_of(&partition, assignment)
                        .map(|index| (owned.tenure, index))
                });
                if let Some((tenure, index)) = lost {
                    self.out_of_range(tenure, index);
                }
            }
            Fetched::Failed(partition, error) => {
                warn!(?partition, %error, "partition cannot be read now");
            }
        }
    }

    pub(super) fn on_update(&mut self, update: Update) {
        self.parts.endpoints.apply(update);
        self.report_applied();
    }

    /// Takes in what is read and may go on. Only sources that hold something are looked at, so that
    /// the number of partitions costs nothing.
    pub(super) fn take_in(&mut self, now: Instant) {
        self.timers.clear_head();
        // While our own network is down nothing more is taken in than there is to probe with.
        if self.unread.is_empty() || (self.outage.is_down() && !self.ring.is_empty()) {
            return;
        }
        // What has come due before what is fresh: the delay topics first.
        let unread: Vec<(Reverse<usize>, Tenure)> = self.unread.iter().copied().collect();
        for (Reverse(index), tenure) in unread {
            self.take_in_source(tenure, index, now);
            let source = self
                .tenant_of(tenure)
                .and_then(|owned| owned.sources.get(index));
            if source.is_none_or(|source| source.pending.is_empty() && !source.paused) {
                self.unread.remove(&(Reverse(index), tenure));
            }
        }
    }

    fn take_in_source(&mut self, tenure: Tenure, index: usize, now: Instant) {
        loop {
            let gate = self.gate(tenure, index, now);
            let Some(source) = self
                .tenant_of(tenure)
                .and_then(|owned| owned.sources.get_mut(index))
            else {
                return;
            };
            let ready_at = match gate {
                Gate::Open => {
                    let Some(record) = source.pending.pop() else {
                        if let Some(start) = source.overtaken_by.take() {
                            self.go_on_behind(tenure, index, start);
                        }
                        return self.balance(tenure, index, None);
                    };
                    self.take_in_record(tenure, index, record, now);
                    continue;
                }
                Gate::Until(at) => {
                    self.timers.wake_head(at);
                    Some(at)
                }
                Gate::Blocked => None,
            };
            return self.balance(tenure, index, ready_at);
        }
    }

    fn gate(&mut self, tenure: Tenure, index: usize, now: Instant) -> Gate {
        let budget = self.parts.options.memory_bytes;
        // What is read counts too, but never so much that what is taken in had no room: it could not
        // become less then.
        let total = self.meter.bytes() + self.read_ahead.bytes().min(budget / READ_AHEAD_COUNTED);
        let share = (budget / self.owned.len().max(1))
            .saturating_mul(2)
            .min(budget);
        // What has come due may use all of the budget, what is fresh leaves it an eighth.
        let (limit, own_limit) = if index == DELIVERIES {
            (budget - budget / 8, share)
        } else {
            (budget, budget)
        };
        let lane_bytes = self.parts.options.lane_memory_bytes;
        let long_enough = self.throughput.drain() > self.parts.options.horizon / 2;
        let (applied, end) = (self.parts.endpoints.applied(), self.control_end);
        let probe_after = end.map_or(now, ControlEnd::ask_again_at);
        let clock = self.parts.clock.clone();
        let Some(owned) = self.tenant_of(tenure) else {
            return Gate::Blocked;
        };
        let full = total >= limit
            || owned.meter.bytes() >= own_limit
            || owned.is_full()
            || owned.awaits_commit
            || (index == DELIVERIES && owned.waits_for_lane(now, lane_bytes));
        let waits = owned.waits_for_process && index == DELIVERIES;
        let Some(source) = owned.sources.get_mut(index) else {
            return Gate::Blocked;
        };
        let Some(head) = source.pending.head() else {
            return Gate::Open;
        };
        let full = full || (waits && (long_enough || source.is_crowded()));
        if head.offset >= source.committed && (full || source.ledger.len() >= WINDOW_RECORDS_MAX) {
            return Gate::Blocked;
        }
        if let Some(tier) = source.tier {
            let ready = head.timestamp.saturating_add(runtime::clock::millis(tier));
            if ready > clock.now() {
                return Gate::Until(clock.instant_at(ready).max(now + Duration::from_millis(1)));
            }
        }
        if source.recall == Recall::Asked {
            return Gate::Blocked;
        }
        if let Some((offset, since)) = source.waits_for_control {
            let passes = offset <= applied
                || end.is_some_and(|end| end.is_behind(offset, Some(since), head.timestamp));
            if !passes {
                let probe_at = (since + AHEAD_OF_CONTROL_MAX).max(probe_after);
                if now < probe_at {
                    return Gate::Until(probe_at);
                }
                self.probe_control(now);
                return Gate::Blocked;
            }
        }
        Gate::Open
    }

    /// Pauses a source that holds enough and cannot go on soon, and resumes one that has room.
    fn balance(&mut self, tenure: Tenure, index: usize, ready_at: Option<Instant>) {
        let now = self.now();
        let soon = ready_at.is_some_and(|at| at <= now + NOT_WORTH_A_PAUSE);
        let reader = Arc::clone(&self.parts.reader);
        let (memory, placements) = (self.parts.options.memory_bytes, self.owned.len().max(1));
        let crowded = self.read_ahead.bytes() >= memory / READ_AHEAD_CROWDED;
        let hard_max = if crowded {
            PENDING_BYTES_MAX
        } else {
            PENDING_BYTES_HARD_MAX
        };
        let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(index))
        else {
            return;
        };
        // A pause throws away what the log has fetched: `deliveries`, which is read at full speed,
        // gets room for many records between a pause and the next.
        let most = if index == DELIVERIES && !crowded {
            (memory / 16 / placements).clamp(PENDING_BYTES_MAX, PENDING_DELIVERIES_BYTES_MAX)
        } else {
            PENDING_BYTES_MAX
        };
        let held = source.pending.bytes();
        let full = held >= most && !soon;
        if !source.paused && (full || held >= hard_max.max(most)) {
            source.paused = true;
            reader.pause(source.partition.clone());
        } else if source.paused && held < most / 2 && !planted::is(Bug::NeverResumed) {
            source.paused = false;
            reader.resume(source.partition.clone());
        }
    }

    fn take_in_record(&mut self, tenure: Tenure, index: usize, stored: StoredRecord, now: Instant) {
        let decoded = match &stored.value {
            Some(value) => DeliveryRecord::decode(stored.headers.iter(), value),
            None => Err(schemas::records::Error::Empty),
        };
        let applied = self.parts.endpoints.applied();
        let end = self.control_end;
        let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(index))
        else {
            return;
        };
        let since = source.waits_for_control.take().map(|(_, since)| since);
        match decoded {
            Ok(record)
                if record.control_offset > applied && !planted::is(Bug::ControlOffsetIgnored) =>
            {
                let behind =
                    |end: ControlEnd| end.is_behind(record.control_offset, since, stored.timestamp);
                if end.is_some_and(behind) {
                    // Ahead of the topic itself: nothing will ever be applied for it.
                    self.parts.metrics.incidents.inc();
                    error!(
                        offset = stored.offset,
                        "record is ahead of control and goes on"
                    );
                    self.admit(tenure, index, record, &stored);
                } else {
                    source.waits_for_control = Some((record.control_offset, since.unwrap_or(now)));
                    source.pending.push_back_head(stored);
                }
            }
            Ok(record) => {
                if let Some(doubt) = self.doubt(tenure, index, &record, stored.offset) {
                    return self.recall(tenure, doubt, stored);
                }
                self.admit(tenure, index, record, &stored);
            }
            Err(error) => self.poison(tenure, index, stored, &error),
        }
    }

    fn admit(
        &mut self,
        tenure: Tenure,
        index: usize,
        record: DeliveryRecord,
        stored: &StoredRecord,
    ) {
        let total = self.meter.clone();
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let bytes = stored.len_bytes();
        let repeats = if index == DELIVERIES && !planted::is(Bug::MarksUnread) {
            owned
                .marks
                .admit(&record, stored.offset, stored.timestamp, bytes)
        } else {
            Vec::new()
        };
        let meter = owned.meter.clone();
        let Some(source) = owned.sources.get_mut(index) else {
            return;
        };
        if stored.offset < source.committed {
            return;
        }
        let place = |index| Place {
            offset: stored.offset,
            index,
        };
        let targets = u16::try_from(record.targets.len()).unwrap_or(u16::MAX);
        let open = source.ledger.admit(stored.offset, targets);
        source.dirty = true;
        let is_repeat = |at: &u16| repeats.get(usize::from(*at)) == Some(&true);
        let (repeated, fresh): (Vec<u16>, Vec<u16>) = open.into_iter().partition(is_repeat);
        for at in &repeated {
            source.ledger.complete(place(*at));
        }
        self.parts.metrics.repeats.inc_by(repeated.len() as u64);
        let loaded = Loaded::new(record, bytes, [total, meter]);
        for at in fresh {
            self.admit_target(tenure, index, &loaded, place(at));
        }
    }

    pub(super) fn admit_target(
        &mut self,
        tenure: Tenure,
        source: usize,
        loaded: &Arc<Loaded>,
        place: Place,
    ) {
        let now = self.now();
        let Some(target) = loaded.record.targets.get(usize::from(place.index)) else {
            return;
        };
        let delivery = Delivery {
            loaded: Arc::clone(loaded),
            source,
            place,
            target: target.clone(),
            state: target.state.unwrap_or_default(),
            queued_at: now,
            line: None,
            company: Vec::new(),
            is_piece: self.parts.endpoints.goes_alone(target),
            sent: None,
        };
        let endpoint = self.parts.endpoints.get(target.endpoint).cloned();
        let exists = self.parts.endpoints.has_subscription(target.subscription);
        // One that is ordered ends in its turn: those behind it wait for that.
        let is_taken = exists || delivery.target.order.is_some();
        let Some(endpoint) = endpoint.filter(|_| is_taken) else {
            return self.refuse(tenure, delivery);
        };
        let event = &loaded.record.event;
        if event.loop_count() >= LOOPS_MAX || is_about(event, endpoint.id) {
            return self.bury(tenure, delivery, DeadReason::Loop, None);
        }
        if endpoint.placement.partition() != tenure.placement {
            return self.reproduce(tenure, delivery, &endpoint);
        }
        let Some(delivery) = self.arrive(tenure, delivery, &endpoint) else {
            return;
        };
        if !exists {
            return self.refuse(tenure, delivery);
        }
        let due_at = delivery.state.due_at;
        let remaining = self
            .parts
            .clock
            .instant_at(due_at)
            .saturating_duration_since(now);
        if due_at == 0 || remaining.is_zero() || planted::is(Bug::DueUndershot) {
            self.queue(tenure, delivery, &endpoint, now);
        } else if tier_for(remaining, remaining).is_some() {
            self.defer(tenure, delivery, due_at, Deferred::NotDue);
        } else {
            self.retry(tenure, delivery, &endpoint, due_at);
        }
    }

    /// Puts a delivery into its lane, or into a delay topic where the lane is full.
    pub(super) fn queue(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        endpoint: &Arc<endpoints::Target>,
        now: Instant,
    ) {
        if !self.may_queue(tenure, endpoint, &delivery) {
            return self.refuse(tenure, delivery);
        }
        let concurrency = self.concurrency(endpoint);
        let (horizon, lane_bytes) = (
            self.parts.options.horizon,
            self.parts.options.lane_memory_bytes,
        );
        let Some(owned) = self.tenant_of(tenure).filter(|owned| owned.is_serving()) else {
            // The next owner reads it again, but would not know what was attempted since.
            for delivery in delivery.into_items() {
                if delivery.state != delivery.target.state.unwrap_or_default() {
                    let due_at = delivery.state.due_at;
                    self.defer(tenure, delivery, due_at, Deferred::Drain);
                }
            }
            return;
        };
        let lane = owned.lane(&endpoint.quota, now, concurrency);
        lane.configure(&endpoint.limits, concurrency, now);
        if lane.is_full(now, horizon, lane_bytes) {
            let reserved = lane.reserve(now, now + FULL_WAIT, delivery.source);
            return self.postpone(tenure, delivery, reserved, Deferred::Full);
        }
        delivery.queued_at = now;
        lane.push(delivery);
        if lane.is_busy(now, lane_bytes) {
            owned.busy = Some(endpoint.quota.clone());
        }
        self.enlist(tenure, endpoint.quota.clone());
    }

    /// Says what becomes of a delivery that may not be attempted as things are.
    pub(super) fn refuse(&mut self, tenure: Tenure, mut delivery: Delivery) {
        for other in std::mem::take(&mut delivery.company) {
            self.refuse(tenure, other);
        }
        let id = delivery.target.endpoint;
        let exists = self
            .parts
            .endpoints
            .has_subscription(delivery.target.subscription);
        let wall = self.wall();
        let age = self.age(&delivery);
        let dead = match self.parts.endpoints.get(id) {
            Some(_) if !exists => Some(DeadReason::Deleted),
            Some(target) if age > runtime::clock::millis(target.schedule.max_age) => {
                Some(DeadReason::MaxAge)
            }
            Some(target) => match target.state {
                EndpointState::Disabled => Some(DeadReason::EndpointDisabled),
                EndpointState::Paused => None,
                EndpointState::Active => self.given_up(target).or(Some(DeadReason::EndpointGone)),
            },
            None if self.parts.endpoints.is_unusable(id) => None,
            None => Some(DeadReason::Deleted),
        };
        match dead {
            Some(reason) => self.bury(tenure, delivery, reason, None),
            None => {
                let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
                let due_at = wall + runtime::clock::millis(schedule::paused_wait(age));
                self.defer(tenure, delivery, due_at, Deferred::Paused);
            }
        }
    }

    /// Sends a delivery to a delay topic.
    pub(super) fn defer(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        due_at: i64,
        reason: Deferred,
    ) {
        for other in std::mem::take(&mut delivery.company) {
            self.defer(tenure, other, due_at, reason);
        }
        self.parts.metrics.deferred.get(reason).inc();
        delivery.state = AttemptState {
            due_at,
            ..delivery.state
        };
        let order = self.step_deferred(tenure, &mut delivery, due_at);
        let (source, place, line) = (delivery.source, delivery.place, delivery.line.clone());
        self.push_move(Move {
            tenure,
            source,
            place,
            order,
            what: What::Defer(delivery),
        });
        if let Some(line) = line {
            self.spill(tenure, &line);
        }
    }

    fn poison(
        &mut self,
        tenure: Tenure,
        index: usize,
        stored: StoredRecord,
        error: &schemas::records::Error,
    ) {
        let wall = self.wall();
        let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(index))
        else {
            return;
        };
        if stored.offset < source.committed || source.ledger.admit(stored.offset, 1).is_empty() {
            return;
        }
        source.dirty = true;
        error!(partition = %source.partition, offset = stored.offset, %error, "poison record");
        let reason = DeadReason::Undecodable;
        let mut letter = dead_letter::of_place(reason, wall, &source.partition, stored.offset);
        letter.detail = Some(error.to_string());
        let place = Place {
            offset: stored.offset,
            index: 0,
        };
        let what = What::Dead {
            letter: Box::new(letter),
            delivery: None,
            poison: Some(Box::new(stored)),
        };
        self.push_move(Move {
            tenure,
            source: index,
            place,
            order: None,
            what,
        });
    }
}
