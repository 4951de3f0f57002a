use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::doubles::{Faulty, upload};
use crate::{Cohort, ReadOptions, Roster, Scope, View};

type Members = BTreeMap<String, u32>;

fn limits(items: usize, bytes: usize) -> ChunkLimits {
    let of = |number| NonZeroUsize::new(number).unwrap();
    ChunkLimits {
        items: of(items),
        update_items: None,
        remove_items: None,
        bytes: of(bytes),
    }
}

/// A sync of one cohort: what a run has at hand.
struct Sync {
    cohort: Cohort,
    roster: Roster,
    view: View,
    uploads: i64,
}

impl Sync {
    fn new() -> Self {
        let store = Faulty::new().store();
        let cohort = Cohort::new(&store, "t1", "c1");
        let roster = Roster::open(store.folder("roster"), &[]).unwrap();
        Self {
            cohort,
            roster,
            view: View::default(),
            uploads: 0,
        }
    }

    fn upload(&mut self, members: &Members) {
        self.uploads += 1;
        let row = |(id, v): (&String, &u32)| format!("{{\"id\":\"{id}\",\"v\":{v}}}\n");
        let rows: String = members.iter().map(row).collect();
        let id = format!("s{}", self.uploads);
        upload(
            &self.cohort,
            &id,
            self.uploads,
            rows.as_bytes(),
            ReadOptions::default(),
        )
        .unwrap();
        self.view = self.cohort.view().unwrap();
    }

    fn chunks(&self, roster: &Roster, limits: ChunkLimits, from: Position) -> Chunks {
        let diff = Diff::new(self.cohort.members(&self.view), roster, Scope::Whole);
        Chunks::new(diff, limits, from)
    }

    fn all(&self, limits: ChunkLimits, from: Position) -> Vec<Chunk> {
        let mut chunks = self.chunks(&self.roster, limits, from);
        std::iter::from_fn(|| chunks.next_chunk().unwrap()).collect()
    }

    fn settle(&mut self, chunks: &[Chunk], verdict: Verdict<'_>) {
        let mut outcomes = Outcomes::default();
        for chunk in chunks {
            chunk.settle_all(verdict, &mut outcomes);
        }
        self.roster.apply(&mut outcomes, Value::Null).unwrap();
    }
}

fn json_of(chunk: &Chunk) -> Value {
    let mut json = Vec::new();
    chunk.write_members(&mut json);
    serde_json::from_slice(&json).unwrap()
}

fn numbered(count: u32) -> Members {
    (0..count)
        .map(|number| (format!("m{number:04}"), number))
        .collect()
}

/// Everything that a chunk says.
fn said(chunk: &Chunk) -> (Operation, u64, String, u128, Value) {
    let id = chunk.id("sync", "run");
    (
        chunk.operation(),
        chunk.number(),
        chunk.path().to_owned(),
        id,
        json_of(chunk),
    )
}

#[test]
fn chunks_are_cut_by_items_and_by_bytes() {
    let mut sync = Sync::new();
    sync.upload(&numbered(10));
    let sizes = |limits| {
        sync.all(limits, Position::default())
            .iter()
            .map(Chunk::len)
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(limits(4, 1 << 20)), [4, 4, 2]);
    assert_eq!(sizes(limits(100, 1 << 20)), [10]);
    // A member is 22 bytes; one that is larger than the limit goes alone.
    assert_eq!(sizes(limits(100, 70)), [3, 3, 3, 1]);
    assert_eq!(sizes(limits(100, 1)), [1; 10]);
    for chunk in sync.all(limits(100, 70), Position::default()) {
        assert!(json_of(&chunk).to_string().len() <= 70 + 2);
        assert!(chunk.held_bytes() > chunk.len() * 20);
    }
    let first = &sync.all(limits(2, 1 << 20), Position::default())[0];
    assert_eq!(
        json_of(first),
        json!([{"id": "m0000", "v": 0}, {"id": "m0001", "v": 1}])
    );
}

#[test]
fn a_removal_names_whom_it_was_told_to_keep() {
    let mut sync = Sync::new();
    let store = Faulty::new().store();
    sync.roster = Roster::open(store, &["v".to_owned()]).unwrap();
    sync.upload(&Members::from([("a".to_owned(), 7)]));
    let chunks = sync.all(limits(9, 999), Position::default());
    sync.settle(&chunks, Verdict::Confirmed);
    sync.upload(&Members::new());
    let chunks = sync.all(limits(9, 999), Position::default());
    assert_eq!(chunks[0].operation(), Operation::Remove);
    assert_eq!(json_of(&chunks[0]), json!([{"id": "a", "v": 7}]));
    // The fields stay as long as the partner may hold the member.
    sync.settle(&chunks, Verdict::Unknown);
    let again = sync.all(limits(9, 999), Position::default());
    assert_eq!(json_of(&again[0]), json!([{"id": "a", "v": 7}]));
    sync.settle(&again, Verdict::Confirmed);
    assert!(sync.all(limits(9, 999), Position::default()).is_empty());
}

#[test]
fn halves_have_all_members_and_names_of_their_own() {
    let mut sync = Sync::new();
    sync.upload(&numbered(7));
    let whole = sync.all(limits(99, 9_999), Position::default()).remove(0);
    let (one, two) = whole.split().unwrap();
    let (left, right) = two.split().unwrap();
    assert_eq!((one.len(), left.len(), right.len()), (3, 2, 2));
    assert_eq!((one.path(), left.path(), right.path()), ("0", "10", "11"));
    let members: Vec<Value> = [&one, &left, &right]
        .into_iter()
        .flat_map(|part| json_of(part).as_array().unwrap().clone())
        .collect();
    assert_eq!(Value::from(members), json_of(&whole));
    let mut ids: Vec<u128> = [&whole, &one, &two, &left, &right]
        .map(|part| part.id("s", "r"))
        .to_vec();
    ids.extend([whole.id("s", "r2"), whole.id("s2", "r"), whole.id("sr", "")]);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    let single = left.split().unwrap().0;
    assert!(single.split().is_none());
}

/// What a partner does with one member of a chunk.
#[derive(Debug, Clone, Copy)]
enum Does {
    Takes,
    TakesInSilence,
    DropsInSilence,
    RefusesNow,
    RefusesForGood,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => Just(Does::Takes),
        1 => Just(Does::TakesInSilence),
        1 => Just(Does::DropsInSilence),
        1 => Just(Does::RefusesNow),
        1 => Just(Does::RefusesForGood),
    ]
}

/// A partner: its list.
#[derive(Default)]
struct Partner {
    list: BTreeMap<String, Value>,
}

impl Partner {
    fn take(&mut self, operation: Operation, member: &Value) {
        let id = member["id"].as_str().unwrap().to_owned();
        match operation {
            Operation::Add | Operation::Update => drop(self.list.insert(id, member.clone())),
            Operation::Remove => drop(self.list.remove(&id)),
        }
    }

    fn answer(
        &mut self,
        chunk: &Chunk,
        does: &mut impl Iterator<Item = Does>,
        outcomes: &mut Outcomes,
    ) {
        let members = json_of(chunk);
        for (index, member) in members.as_array().unwrap().iter().enumerate() {
            let does = does.next().unwrap();
            if matches!(does, Does::Takes | Does::TakesInSilence) {
                self.take(chunk.operation(), member);
            }
            let verdict = match does {
                Does::Takes => Verdict::Confirmed,
                Does::TakesInSilence | Does::DropsInSilence => Verdict::Unknown,
                Does::RefusesNow => Verdict::Retry("busy"),
                Does::RefusesForGood => Verdict::Rejected("invalid"),
            };
            chunk.settle(index, verdict, outcomes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_run_resumes_at_any_chunk(
        old in prop::collection::btree_map("[a-f]{1,2}", 0..3u32, 0..20),
        new in prop::collection::btree_map("[a-f]{1,2}", 0..3u32, 0..20),
        items in 1..4usize,
    ) {
        let mut sync = Sync::new();
        sync.upload(&old);
        let sent = sync.all(limits(3, 999), Position::default());
        sync.settle(&sent, Verdict::Confirmed);
        sync.upload(&new);
        let limits = limits(items, 60);
        let all = sync.all(limits, Position::default());
        let mut position = Position::default();
        for (number, chunk) in all.iter().enumerate() {
            let rest: Vec<_> = sync.all(limits, position).iter().map(said).collect();
            let expected: Vec<_> = all[number..].iter().map(said).collect();
            prop_assert_eq!(rest, expected);
            prop_assert_eq!(chunk.number(), position.of(chunk.operation()));
            position.pass(chunk);
        }
        prop_assert!(sync.all(limits, position).is_empty());
        // Outcomes that are written meanwhile change nothing for the run that began before.
        let begun = sync.roster.clone();
        sync.settle(&all[..all.len() / 2], Verdict::Confirmed);
        let mut again = sync.chunks(&begun, limits, Position::default());
        let again: Vec<_> = std::iter::from_fn(|| again.next_chunk().unwrap()).collect();
        prop_assert_eq!(again.iter().map(said).collect::<Vec<_>>(), all.iter().map(said).collect::<Vec<_>>());
    }

    /// The partner's list ends as the cohort, less whom it refused: whatever it did on the way, and
    /// wherever runs were cut off and their outcomes lost (rules 14 and 15).
    #[test]
    fn a_partner_ends_with_the_cohort(
        versions in prop::collection::vec(
            (prop::collection::btree_map("[a-d]{1,2}", 0..3u32, 0..12), 0..9usize), 1..6,
        ),
        does in prop::collection::vec(does(), 1..50),
    ) {
        let (mut sync, mut partner) = (Sync::new(), Partner::default());
        let mut does = does.into_iter().cycle();
        for (version, cut_at) in &versions {
            sync.upload(version);
            let (mut outcomes, mut unheard) = (Outcomes::default(), Vec::new());
            for (number, chunk) in sync.all(limits(3, 999), Position::default()).iter().enumerate() {
                if number < *cut_at {
                    partner.answer(chunk, &mut does, &mut outcomes);
                } else if number == *cut_at {
                    // It was sent, and whoever waited for the answer died.
                    partner.answer(chunk, &mut does, &mut Outcomes::default());
                    unheard.push(chunk.clone());
                }
            }
            sync.roster.apply(&mut outcomes, Value::Null).unwrap();
            sync.settle(&unheard, Verdict::Unknown);
        }
        // Now the partner takes what it did not refuse for good, and says so.
        let last = &versions.last().unwrap().0;
        let mut outcomes = Outcomes::default();
        for chunk in &sync.all(limits(3, 999), Position::default()) {
            partner.answer(chunk, &mut std::iter::repeat(Does::Takes), &mut outcomes);
        }
        sync.roster.apply(&mut outcomes, Value::Null).unwrap();
        let mut diff = Diff::new(sync.cohort.members(&sync.view), &sync.roster, Scope::Whole);
        let mut told = BTreeSet::new();
        while let Some(row) = diff.next_row().unwrap() {
            let held = partner.list.get(row.id);
            if row.decision == Decision::RefusedRemoval {
                told.insert(row.id.to_owned());
            }
            match row.decision {
                Decision::Keep => prop_assert_eq!(held, Some(&json!({"id": row.id, "v": last[row.id]}))),
                // The partner's own words say why these are as they are.
                Decision::Refused | Decision::RefusedRemoval => {
                    prop_assert_eq!(row.item.unwrap().code, "invalid");
                }
                Decision::Absent => prop_assert_eq!(held, None),
                Decision::Send(_) | Decision::HeldBack => prop_assert!(false, "{} is left to be sent", row.id),
            }
        }
        for id in partner.list.keys().filter(|id| !last.contains_key(*id)) {
            prop_assert!(told.contains(id), "{} was left behind without a word", id);
        }
    }
}

#[test]
fn what_was_refused_for_good_is_not_sent_again_until_it_changes() {
    let mut sync = Sync::new();
    sync.upload(&Members::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
    let chunks = sync.all(limits(9, 999), Position::default());
    let mut outcomes = Outcomes::default();
    chunks[0].settle(0, Verdict::Rejected("bad"), &mut outcomes);
    chunks[0].settle(1, Verdict::Retry("busy"), &mut outcomes);
    chunks[0].settle(2, Verdict::Confirmed, &mut outcomes);
    assert_eq!(outcomes.len(), 2);
    sync.roster.apply(&mut outcomes, Value::Null).unwrap();
    let again = sync.all(limits(9, 999), Position::default());
    assert_eq!(json_of(&again[0]), json!([{"id": "b", "v": 1}]));
    sync.upload(&Members::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    let again = sync.all(limits(9, 999), Position::default());
    assert_eq!(
        json_of(&again[0]),
        json!([{"id": "a", "v": 2}, {"id": "b", "v": 1}])
    );
}
