//! Rule 3 against a naive model: every record read, and what of it is remembered.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use schemas::event::Event;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::Target;

use super::*;

/// What a router wrote: the event at `origin.1` of source partition `origin.0`, for `targets`.
#[derive(Debug, Clone)]
struct Written {
    origin: (u32, i64),
    position: Option<i64>,
    targets: Vec<(u8, Option<u8>)>,
    /// Milliseconds of append time and offsets since the record before.
    passed_ms: i64,
    gap: i64,
}

impl Written {
    fn record(&self) -> DeliveryRecord {
        let id = self.origin.1.to_string();
        let target = |(subscription, bulk): &(u8, Option<u8>)| Target {
            bulk: bulk.map(u128::from),
            ..Target::new(
                SubscriptionId::from_bits(u128::from(*subscription)),
                EndpointId::from_bits(1),
            )
        };
        DeliveryRecord {
            origin: schemas::records::Origin {
                topic: "events".into(),
                partition: self.origin.0,
                offset: self.origin.1,
                index: 0,
            },
            router_position: self.position,
            accepted_at: 0,
            control_offset: 0,
            event: Event::builder(&id, "/s", "t")
                .untyped_data(Bytes::new())
                .build()
                .unwrap(),
            targets: self.targets.iter().map(target).collect(),
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    let passed = prop_oneof![6 => 0_i64..300, 2 => 10_000_i64..70_000, 1 => Just(700_000_i64)];
    let targets = vec((0_u8..4, of(0_u8..2)), 0..4);
    let gap = prop_oneof![4 => Just(0_i64), 1 => 1_i64..3];
    ((0_u32..2, 0_i64..12), of(0_i64..12), targets, passed, gap).prop_map(
        |(origin, position, targets, passed_ms, gap)| Written {
            origin,
            position,
            targets,
            passed_ms,
            gap,
        },
    )
}

/// A record in the deliveries partition.
#[derive(Debug, Clone)]
struct Stored {
    offset: i64,
    appended_at: i64,
    record: DeliveryRecord,
}

impl Stored {
    fn read_by(&self, marks: &mut Marks) -> Vec<bool> {
        marks.admit(&self.record, self.offset, self.appended_at, 100)
    }
}

fn store(written: &[Written]) -> Vec<Stored> {
    let (mut offset, mut appended_at) = (0, 1_000_000);
    let mut log = Vec::new();
    for one in written {
        offset += one.gap;
        appended_at += one.passed_ms;
        let record = one.record();
        log.push(Stored {
            offset,
            appended_at,
            record,
        });
        offset += 1;
    }
    log
}

#[derive(Debug, Clone)]
struct Remembered {
    mark: Mark,
    offset: i64,
    appended_at: i64,
    origin: (u32, i64),
}

#[derive(Debug, Default)]
struct Model {
    remembered: Vec<Remembered>,
    /// The position last carried, by source partition.
    positions: [Option<i64>; 2],
    newest_append: i64,
}

impl Model {
    fn admit(&mut self, stored: &Stored) -> Vec<bool> {
        let Stored {
            offset,
            appended_at,
            record,
        } = stored;
        let partition = record.origin.partition;
        if record.router_position.is_some() {
            self.positions[partition as usize] = record.router_position;
        }
        self.newest_append = self.newest_append.max(*appended_at);
        let repeat = |mark: Mark| {
            let known = self.remembered.iter().find(|known| known.mark == mark);
            if let Some(known) = known {
                return known.offset < *offset;
            }
            self.remembered.push(Remembered {
                mark,
                offset: *offset,
                appended_at: *appended_at,
                origin: (partition, record.origin.offset),
            });
            false
        };
        record.marks().map(repeat).collect()
    }

    fn is_mandatory(&self, known: &Remembered) -> bool {
        let position = self.positions[known.origin.0 as usize];
        position.is_some_and(|position| known.origin.1 >= position)
            && known.appended_at >= self.newest_append - 600_000
    }

    fn shrink_to(&mut self, allowed: usize) {
        let optional = |known: &&Remembered| !self.is_mandatory(known);
        let excess = self
            .remembered
            .iter()
            .filter(optional)
            .count()
            .saturating_sub(allowed);
        let oldest = self.remembered.iter().filter(optional).take(excess);
        let forgotten: Vec<Mark> = oldest.map(|known| known.mark).collect();
        self.remembered
            .retain(|known| !forgotten.contains(&known.mark));
    }
}

fn check_memory(marks: &Marks, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(marks.first_seen.len(), model.remembered.len());
    for known in &model.remembered {
        prop_assert_eq!(marks.first_seen.get(&known.mark), Some(&known.offset));
    }
    prop_assert_eq!(marks.bytes(), model.remembered.len() * MARK_BYTES);
    let oldest = model.remembered.first().map(|known| known.appended_at);
    prop_assert_eq!(marks.oldest(), oldest);
    Ok(())
}

/// A new owner at `position` that reads what it is told to knows what is mandatory.
fn check_replay(
    marks: &Marks,
    model: &Model,
    read: &[Stored],
    position: i64,
) -> Result<(), TestCaseError> {
    let from = marks.replay_from(position);
    let Some(last) = read.iter().rev().find(|stored| stored.offset < position) else {
        prop_assert_eq!(from, None);
        return Ok(());
    };
    let start = from.unwrap_or(position);
    prop_assert!(start <= position);
    let mut fresh = Marks::resume(start, position);
    let again = read
        .iter()
        .filter(|stored| (start..position).contains(&stored.offset));
    for stored in again {
        stored.read_by(&mut fresh);
        // At most 60 s before the last record below the position, to within a checkpoint.
        prop_assert!(stored.appended_at >= last.appended_at - REPLAY_MS - CHECKPOINT_MS);
    }
    let in_reach = last.appended_at - REPLAY_MS + CHECKPOINT_MS;
    for known in &model.remembered {
        let due = known.offset < position && known.appended_at >= in_reach;
        if due && model.is_mandatory(known) {
            let first = fresh.first_seen.get(&known.mark).copied();
            prop_assert!(
                first.is_some_and(|first| first <= known.offset),
                "{known:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_marks_say_what_the_model_says(
        written in vec(written(), 1..40),
        budgets in vec(of(0_usize..20), 40),
        behind in vec(0_i64..6, 40),
    ) {
        let log = store(&written);
        let (mut marks, mut model) = (Marks::default(), Model::default());
        for (at, stored) in log.iter().enumerate() {
            prop_assert_eq!(stored.read_by(&mut marks), model.admit(stored));
            if let Some(allowed) = budgets[at] {
                marks.shrink_to(allowed * MARK_BYTES + at);
                model.shrink_to(allowed);
            }
            check_memory(&marks, &model)?;
            let (read, _) = log.split_at(at + 1);
            check_replay(&marks, &model, read, stored.offset + 1 - behind[at])?;
        }
    }

    #[test]
    fn a_record_read_again_at_its_own_offset_is_no_repeat(written in vec(written(), 1..20)) {
        let log = store(&written);
        let mut marks = Marks::default();
        let first: Vec<_> = log.iter().map(|stored| stored.read_by(&mut marks)).collect();
        let bytes = marks.bytes();
        let again: Vec<_> = log.iter().map(|stored| stored.read_by(&mut marks)).collect();
        prop_assert_eq!(first, again);
        prop_assert_eq!(marks.bytes(), bytes);
    }

    #[test]
    fn nothing_is_dropped_that_was_not_there_before(written in vec(written(), 1..40)) {
        // Identity alone: with all memory, exactly the places of equal marks are dropped.
        let log = store(&written);
        let mut marks = Marks::default();
        let mut before: Vec<Mark> = Vec::new();
        for stored in &log {
            let expected: Vec<bool> =
                stored.record.marks().map(|mark| before.contains(&mark)).collect();
            prop_assert_eq!(stored.read_by(&mut marks), expected);
            before.extend(stored.record.marks());
        }
    }
}

fn one(origin_offset: i64, position: Option<i64>, passed_ms: i64) -> Written {
    Written {
        origin: (0, origin_offset),
        position,
        targets: vec![(1, None)],
        passed_ms,
        gap: 0,
    }
}

#[test]
fn the_position_last_carried_counts_and_not_the_highest() {
    // A router that goes back to its watermark with a new producer carries a lower one.
    let log = store(&[one(5, Some(5), 1), one(8, Some(8), 1), one(9, Some(4), 1)]);
    let mut marks = Marks::default();
    let known = |marks: &Marks| marks.first_seen.len();
    let (first, last) = log.split_at(2);
    for stored in first {
        stored.read_by(&mut marks);
    }
    assert_eq!(marks.replay_from(2), Some(1), "5 is below 8");
    last[0].read_by(&mut marks);
    assert_eq!(marks.replay_from(2), Some(0), "5 is above 4");
    marks.shrink_to(0);
    assert_eq!(known(&marks), 3, "all are mandatory again");
}

#[test]
fn mandatory_marks_are_forgotten_after_ten_minutes_of_append_time() {
    let log = store(&[
        one(5, Some(5), 1),
        one(6, Some(5), KEPT_MS),
        one(7, None, 1),
    ]);
    let mut marks = Marks::default();
    let (two, third) = log.split_at(2);
    for stored in two {
        stored.read_by(&mut marks);
    }
    marks.shrink_to(0);
    assert_eq!(marks.first_seen.len(), 2);
    third[0].read_by(&mut marks);
    marks.shrink_to(0);
    assert_eq!(marks.first_seen.len(), 2, "the first is too old now");
}

#[test]
fn an_owner_that_dies_while_it_reads_again_hands_on_what_it_was_told() {
    let log = store(&[
        one(5, Some(5), 1),
        one(6, Some(5), 1),
        one(7, Some(5), 1),
        one(8, Some(5), 1),
    ]);
    let mut first = Marks::default();
    for stored in &log {
        stored.read_by(&mut first);
    }
    let from = first.replay_from(3).unwrap();
    assert_eq!(from, 0);
    let mut second = Marks::resume(from, 3);
    assert_eq!(
        second.replay_from(3),
        Some(0),
        "before it has read anything"
    );
    log[0].read_by(&mut second);
    assert_eq!(second.replay_from(3), Some(0), "in the middle");
    for stored in &log[1..] {
        stored.read_by(&mut second);
    }
    assert_eq!(second.replay_from(4), Some(0), "by what it knows itself");
    assert_eq!(Marks::resume(3, 3).replay_from(3), None);
}

#[test]
fn no_more_than_64_mib_are_read_again() {
    let log: Vec<Written> = (0..200).map(|at| one(at, Some(0), 1)).collect();
    let mut marks = Marks::default();
    for stored in store(&log) {
        marks.admit(&stored.record, stored.offset, stored.appended_at, 1 << 20);
    }
    assert_eq!(marks.replay_from(200), Some(199 - 64));
    assert_eq!(marks.replay_from(10), Some(0));
}
