//! Reads what is in the log after a simulation and says what must not be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use runtime::log::{Partition, StoredRecord};
use schemas::codec;
use schemas::event::{Event, Limits};
use schemas::ids::{Mark, SubscriptionId};
use schemas::records::{DeadLetter, DeadReason, DeliveryRecord, MAX_TARGETS};
use schemas::resources::SubscriptionState;

use super::{Cluster, PARTITIONS};

/// How long a dispatcher remembers marks below the position last carried: rule 3's budget, taken
/// to be small.
const OLDER_MARKS_KEPT_MS: i64 = 60_000;
/// How many marks of records without a position it remembers, whatever their age: those of past
/// events, which whoever takes a replay over writes again when their turn has come.
const PAST_MARKS_KEPT: u64 = 2_000;

/// An event's place and whom it is for.
type TargetKey = (u32, i64, SubscriptionId);

/// What the log holds.
pub(super) struct Audit {
    /// Each target, with the places on `deliveries` where it is.
    pub(super) written: BTreeMap<TargetKey, Vec<(u32, i64)>>,
    /// Dead letters by source place.
    pub(super) dead: Vec<DeadLetter>,
    deliveries: BTreeMap<u32, Vec<(i64, i64, DeliveryRecord)>>,
}

impl Audit {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut audit = Self {
            written: BTreeMap::new(),
            dead: Vec::new(),
            deliveries: BTreeMap::new(),
        };
        for number in 0..PARTITIONS {
            for record in cluster
                .sim
                .records(&cluster.topics.deliveries.partition(number))
            {
                audit.take(number, &record);
            }
            for record in cluster.sim.records(&cluster.topics.dead.partition(number)) {
                let headers: Vec<_> = record.headers.iter().collect();
                let (letter, _) =
                    DeadLetter::decode(headers.into_iter(), record.value.as_ref()).unwrap();
                audit.dead.push(letter);
            }
        }
        audit
    }

    fn take(&mut self, number: u32, record: &StoredRecord) {
        let value = record.value.as_ref().unwrap();
        let decoded = DeliveryRecord::decode(record.headers.iter(), value).unwrap();
        assert!((1..=MAX_TARGETS).contains(&decoded.targets.len()), "rule 2");
        for target in &decoded.targets {
            let key = (
                decoded.origin.partition,
                decoded.origin.offset,
                target.subscription,
            );
            self.written
                .entry(key)
                .or_default()
                .push((number, record.offset));
        }
        let records = self.deliveries.entry(number).or_default();
        records.push((record.offset, record.timestamp, decoded));
    }

    /// Everything that must hold at the end, whatever went wrong.
    pub(super) fn check(&self, cluster: &Cluster) {
        self.check_targets(cluster);
        self.check_positions(cluster);
        self.check_commits(cluster);
        self.check_repeats();
    }

    /// Rules 2 and 3: every target is written at least once or is a dead letter, and none that
    /// nobody wants.
    fn check_targets(&self, cluster: &Cluster) {
        let dead = self.dead_targets();
        let undecodable: BTreeSet<(u32, i64)> = self
            .dead
            .iter()
            .filter(|letter| letter.reason == DeadReason::Undecodable)
            .map(|letter| (letter.origin.1, letter.origin.2))
            .collect();
        let mut allowed = BTreeSet::new();
        for source in cluster.sources() {
            for record in cluster.sim.records(&source) {
                let place = (source.number, record.offset);
                let Some(event) = read(&record) else {
                    assert!(
                        undecodable.contains(&place),
                        "{place:?} left no dead letter, rule 16"
                    );
                    continue;
                };
                for (key, must) in targets(cluster, place, &event) {
                    let is_there = self.written.contains_key(&key) || dead.contains(&key);
                    assert!(is_there || !must, "{key:?} is lost");
                    allowed.insert(key);
                }
            }
        }
        for key in self.written.keys() {
            assert!(allowed.contains(key), "{key:?} was wanted by nobody");
        }
    }

    pub(super) fn dead_targets(&self) -> BTreeSet<TargetKey> {
        let key =
            |letter: &DeadLetter| Some((letter.origin.1, letter.origin.2, letter.subscription?));
        self.dead.iter().filter_map(key).collect()
    }

    /// Rule 3: a record carries a position that was committed before it was written, at or below
    /// its origin.
    fn check_positions(&self, cluster: &Cluster) {
        let history = History::of(cluster);
        for (number, offset, _, decoded) in self.all() {
            let Some(position) = decoded.router_position else {
                continue;
            };
            assert!(position <= decoded.origin.offset, "{number}/{offset}");
            let source = cluster.topics.events.partition(decoded.origin.partition);
            let at = history.commits.get(&(source.clone(), position)).copied();
            let written = history.appended_at(cluster, number, offset);
            assert!(
                at.is_some_and(|at| at < written),
                "{source} at {position} was not committed"
            );
        }
    }

    /// Rule 3: when a position was committed, everything below it was written.
    fn check_commits(&self, cluster: &Cluster) {
        let history = History::of(cluster);
        // What was a dead letter at first may be written by a router that was stopped since.
        let dead = self.dead_targets();
        for source in cluster.sources() {
            let mut first_written: BTreeMap<i64, usize> = BTreeMap::new();
            for record in cluster.sim.records(&source) {
                let Some(event) = read(&record) else { continue };
                for (key, must) in targets(cluster, (source.number, record.offset), &event) {
                    let Some(copies) = self
                        .written
                        .get(&key)
                        .filter(|_| must && !dead.contains(&key))
                    else {
                        continue;
                    };
                    let first = copies
                        .iter()
                        .map(|(number, offset)| history.appended_at(cluster, *number, *offset))
                        .min()
                        .unwrap();
                    let known = first_written.entry(record.offset).or_insert(first);
                    *known = first.max(*known);
                }
            }
            for ((partition, position), at) in &history.commits {
                if *partition != source {
                    continue;
                }
                for (offset, written) in first_written.range(..position) {
                    assert!(
                        written < at,
                        "{source}: {position} committed before {offset} is there"
                    );
                }
            }
        }
    }

    /// Rule 3: what a dispatcher that drops by marks would send is each target once, and repeats
    /// are equal.
    pub(super) fn check_repeats(&self) {
        let mut sent: HashMap<TargetKey, usize> = HashMap::new();
        for records in self.deliveries.values() {
            let mut memory = Memory::default();
            for (_, timestamp, decoded) in records {
                for (mark, target) in decoded.marks().zip(&decoded.targets) {
                    let key = (
                        decoded.origin.partition,
                        decoded.origin.offset,
                        target.subscription,
                    );
                    if memory.is_new(mark, decoded, *timestamp) {
                        *sent.entry(key).or_default() += 1;
                    }
                }
                memory.forget(decoded, *timestamp);
            }
        }
        for key in self.written.keys() {
            assert_eq!(
                sent.get(key),
                Some(&1),
                "{key:?} is sent so often: {:?}",
                self.copies(key)
            );
        }
        let mut events: HashMap<(u32, i64), (&Event, i64)> = HashMap::new();
        // Past events are accepted anew.
        let live = self
            .all()
            .filter(|(_, _, _, decoded)| decoded.router_position.is_some());
        for (_, _, _, decoded) in live {
            let place = (decoded.origin.partition, decoded.origin.offset);
            let same = events
                .entry(place)
                .or_insert((&decoded.event, decoded.accepted_at));
            assert_eq!(
                *same,
                (&decoded.event, decoded.accepted_at),
                "repeats differ"
            );
        }
    }

    /// Where and when the copies of a target were written, and the position that each carries.
    fn copies(&self, key: &TargetKey) -> Vec<(u32, i64, i64, Option<i64>)> {
        let places = self.written.get(key).into_iter().flatten();
        let copies = places.filter_map(|(number, offset)| {
            let records = self.deliveries.get(number)?;
            let found = records.iter().find(|(at, ..)| at == offset);
            let (_, at, record) = found?;
            Some((*number, *offset, *at, record.router_position))
        });
        copies.collect()
    }

    /// The source places of what a dispatcher would send for a subscription, in the order of each
    /// partition of `deliveries`.
    pub(super) fn sent(&self, subscription: SubscriptionId) -> Vec<(u32, i64, &Event)> {
        let mut sent = Vec::new();
        for records in self.deliveries.values() {
            let mut memory = Memory::default();
            for (_, timestamp, decoded) in records {
                for (mark, target) in decoded.marks().zip(&decoded.targets) {
                    let is_new = memory.is_new(mark, decoded, *timestamp);
                    if is_new && target.subscription == subscription {
                        let origin = &decoded.origin;
                        sent.push((origin.partition, origin.offset, &decoded.event));
                    }
                }
                memory.forget(decoded, *timestamp);
            }
        }
        sent
    }

    fn all(&self) -> impl Iterator<Item = (u32, i64, i64, &DeliveryRecord)> {
        self.deliveries.iter().flat_map(|(number, records)| {
            records
                .iter()
                .map(|(offset, at, decoded)| (*number, *offset, *at, decoded))
        })
    }

    /// When the records of one source partition were appended, first and last, unix milliseconds.
    pub(super) fn appended(&self, source: u32) -> (i64, i64) {
        let of_source = |(_, _, at, decoded): (_, _, i64, &DeliveryRecord)| {
            (decoded.origin.partition == source).then_some(at)
        };
        let times: Vec<i64> = self.all().filter_map(of_source).collect();
        (
            times.iter().copied().min().unwrap(),
            times.into_iter().max().unwrap(),
        )
    }

    /// How many copies of targets are on `deliveries` beyond one each.
    pub(super) fn repeats(&self) -> usize {
        self.written.values().map(|copies| copies.len() - 1).sum()
    }
}

/// When and of what a mark was seen last.
struct Remembered {
    origin: (u32, i64),
    at: i64,
    /// Its number among those of past events, where it is one.
    past: Option<u64>,
}

/// A dispatcher's memory of marks in one partition.
#[derive(Default)]
struct Memory {
    marks: HashMap<Mark, Remembered>,
    /// Marks of past events so far.
    past: u64,
    /// The position last carried, by source partition.
    positions: HashMap<u32, i64>,
}

impl Memory {
    fn is_new(&mut self, mark: Mark, record: &DeliveryRecord, now: i64) -> bool {
        let is_past = record.router_position.is_none();
        self.past += u64::from(is_past);
        let remembered = Remembered {
            origin: (record.origin.partition, record.origin.offset),
            at: now,
            past: is_past.then_some(self.past),
        };
        self.marks.insert(mark, remembered).is_none()
    }

    fn forget(&mut self, record: &DeliveryRecord, now: i64) {
        if let Some(position) = record.router_position {
            self.positions.insert(record.origin.partition, position);
        }
        let (positions, past) = (&self.positions, self.past);
        self.marks.retain(|_, mark| {
            let (partition, offset) = mark.origin;
            let position = positions.get(&partition).copied().unwrap_or(i64::MIN);
            offset >= position
                || now - mark.at < OLDER_MARKS_KEPT_MS
                || mark
                    .past
                    .is_some_and(|number| number + PAST_MARKS_KEPT > past)
        });
    }
}

/// The order in which the simulation appended and committed.
struct History {
    /// The first time that each position was committed.
    commits: BTreeMap<(Partition, i64), usize>,
    /// The first offset of each append, with its time, in order.
    appends: HashMap<String, Vec<(i64, usize)>>,
}

impl History {
    /// Reads the simulation's trace.
    fn of(cluster: &Cluster) -> Self {
        let trace = cluster.sim.trace();
        assert_eq!(trace.forgotten, 0);
        let mut history = Self {
            commits: BTreeMap::new(),
            appends: HashMap::new(),
        };
        let sources: HashMap<String, Partition> = cluster
            .sources()
            .into_iter()
            .map(|source| (source.to_string(), source))
            .collect();
        for (at, (_, line)) in trace.lines.iter().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["group", _, "commits", partition, "at", offset] => {
                    if let Some(source) = sources.get(partition) {
                        let key = (source.clone(), offset.parse().unwrap());
                        history.commits.entry(key).or_insert(at);
                    }
                }
                [partition, "takes", _, "from", first] => {
                    let appends = history.appends.entry(partition.to_owned()).or_default();
                    appends.push((first.parse().unwrap(), at));
                }
                _ => {}
            }
        }
        history
    }

    fn appended_at(&self, cluster: &Cluster, number: u32, offset: i64) -> usize {
        let partition = cluster.topics.deliveries.partition(number).to_string();
        let appends = &self.appends[&partition];
        let place = appends.partition_point(|(first, _)| *first <= offset);
        appends[place - 1].1
    }
}

pub(super) fn read(record: &StoredRecord) -> Option<Event> {
    let limits = Limits {
        max_data_bytes: usize::MAX,
        ..Limits::default()
    };
    let event = codec::kafka::decode(record.headers.iter(), record.value.clone(), &limits).ok()?;
    event.tenant()?.parse::<schemas::ids::TenantId>().ok()?;
    Some(event)
}

/// The targets of an event, and whether each must be there: a subscription that was changed on the
/// way may have been either.
fn targets(
    cluster: &Cluster,
    (partition, offset): (u32, i64),
    event: &Event,
) -> Vec<(TargetKey, bool)> {
    let wanted = cluster.subscriptions.values().filter(|subscription| {
        Some(subscription.tenant.as_str()) == event.tenant() && subscription.filters.matches(event)
    });
    wanted
        .map(|subscription| {
            let must =
                subscription.state == SubscriptionState::Active && subscription.updated_at == 0;
            // From where on one with a start must have it, only its scenario knows.
            let must = must && subscription.start.is_none();
            ((partition, offset, subscription.id), must)
        })
        .collect()
}
