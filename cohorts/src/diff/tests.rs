use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::doubles::{Faulty, at, ndjson, upload};
use crate::item::settle;
use crate::{Changes, Cohort, Outcomes, ReadOptions, Verdict};

/// A member's content: a number, and the mail address that the partner may know it by.
type Content = (u32, u8);
type Members = BTreeMap<String, Content>;

fn row(id: &str, (v, mail): Content) -> String {
    format!("{{\"id\":\"{id}\",\"mail\":\"m{mail}\",\"v\":{v}}}")
}

fn put(cohort: &Cohort, id: &str, second: i64, members: &Members) {
    let rows: Vec<_> = members
        .iter()
        .map(|(id, content)| row(id, *content))
        .collect();
    upload(
        cohort,
        id,
        second,
        rows.join("\n").as_bytes(),
        ReadOptions::default(),
    )
    .unwrap();
}

/// Something that the partner answered for what was sent.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Yes,
    Never,
    NotNow,
    Silence,
}

impl Answer {
    fn verdict(self) -> Verdict<'static> {
        match self {
            Self::Yes => Verdict::Confirmed,
            Self::Never => Verdict::Rejected("never"),
            Self::NotNow => Verdict::Retry("not now"),
            Self::Silence => Verdict::Unknown,
        }
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Yes),
        1 => Just(Answer::Never),
        1 => Just(Answer::NotNow),
        1 => Just(Answer::Silence),
    ]
}

fn members() -> impl Strategy<Value = Members> {
    prop::collection::btree_map("[a-d]{1,2}", (0..2u32, 0..2u8), 0..12)
}

/// What the naive comparison keeps of one key at the partner: operation and held of the last time.
#[derive(Debug, Clone)]
struct Known {
    content: Content,
    standing: Standing,
    held: Held,
    leaving: bool,
}

/// The key that the oracle knows members by.
type Key = (String, Option<u8>);

fn key(id: &str, (_, mail): Content, by_mail: bool) -> Key {
    (id.to_owned(), by_mail.then_some(mail))
}

/// What a naive comparison would say, with both sides in memory.
fn naive(
    cohort: &Members,
    known: &BTreeMap<Key, Known>,
    by_mail: bool,
    scope: Option<&BTreeSet<String>>,
) -> BTreeMap<Key, Decision> {
    let mut decisions = BTreeMap::new();
    for (id, content) in cohort {
        let key = key(id, *content, by_mail);
        let decision = match known.get(&key) {
            None => Decision::Send(Operation::Add),
            Some(known) if known.leaving => Decision::Send(Operation::Add),
            Some(known) if known.content == *content && known.standing == Standing::Confirmed => {
                Decision::Keep
            }
            Some(known)
                if known.content == *content
                    && known.standing == (Standing::Rejected { again: false }) =>
            {
                Decision::Refused
            }
            Some(known) if known.held == Held::Yes => Decision::Send(Operation::Update),
            Some(_) => Decision::Send(Operation::Add),
        };
        decisions.insert(key, decision);
    }
    for (key, known) in known {
        let left = !decisions.contains_key(key);
        let refused = known.leaving && known.standing == (Standing::Rejected { again: false });
        let decision = match known.held {
            Held::No => Decision::Absent,
            Held::Maybe | Held::Yes if refused => Decision::RefusedRemoval,
            Held::Maybe | Held::Yes => Decision::Send(Operation::Remove),
        };
        if left {
            decisions.insert(key.clone(), decision);
        }
    }
    decisions.retain(|(id, _), _| scope.is_none_or(|scope| scope.contains(id)));
    decisions
}

/// Leaves out whoever is unknown.
fn hold_back(decisions: &mut BTreeMap<Key, Decision>, known: &BTreeMap<Key, Known>) {
    for (key, decision) in decisions {
        let is_open = known
            .get(key)
            .is_some_and(|known| known.standing == Standing::Unknown);
        if is_open && matches!(decision, Decision::Send(_)) {
            *decision = Decision::HeldBack;
        }
    }
}

/// Goes through a comparison, answers what it sends, and says what it decided. Keys are checked to
/// come once each.
fn run(
    mut diff: Diff,
    known: &mut BTreeMap<Key, Known>,
    cohort: &Members,
    (by_mail, answers): (bool, &[Answer]),
) -> (BTreeMap<Key, Decision>, Outcomes, Counts) {
    let (mut decisions, mut outcomes) = (BTreeMap::new(), Outcomes::default());
    let before = known.clone();
    let mut answers = answers.iter().cycle();
    while let Some(row) = diff.next_row().unwrap() {
        // Whom a row is about, in the oracle's words: the body tells by which address.
        let body: serde_json::Value = serde_json::from_slice(row.body).unwrap_or_default();
        let mail = body["mail"]
            .as_str()
            .and_then(|mail| mail.strip_prefix('m')?.parse::<u8>().ok());
        let key = (row.id.to_owned(), mail.filter(|_| by_mail));
        assert!(
            decisions.insert(key.clone(), row.decision).is_none(),
            "{key:?} came twice"
        );
        let Decision::Send(operation) = row.decision else {
            continue;
        };
        let held = row.item.map_or(Held::No, |item| item.held);
        assert_eq!(held, before.get(&key).map_or(Held::No, |known| known.held));
        let verdict = answers.next().unwrap().verdict();
        let fields = if by_mail {
            format!("{{\"mail\":\"m{}\"}}", mail.unwrap())
        } else {
            String::new()
        };
        let sent = (row.hash, fields.as_bytes());
        outcomes.record(row.key, (operation, held), sent, verdict);
        match settle(operation, held, sent, verdict) {
            None => drop(known.remove(&key)),
            Some(item) => {
                let content = match operation {
                    Operation::Remove => before[&key].content,
                    Operation::Add | Operation::Update => cohort[row.id],
                };
                let (standing, held, leaving) = (item.standing, item.held, item.leaving);

                known.insert(
                    key,
                    Known {
                        content,
                        standing,
                        held,
                        leaving,
                    },
                );
            }
        }
    }
    (decisions, outcomes, *diff.counts())
}

fn counted(decisions: &BTreeMap<Key, Decision>, known: &BTreeMap<Key, Known>) -> Counts {
    let count = |wanted: Decision| decisions.values().filter(|one| **one == wanted).count() as u64;
    let of = |operation| count(Decision::Send(operation));
    let sent_again = |(key, decision): (&Key, &Decision)| {
        matches!(decision, Decision::Send(_))
            && known
                .get(key)
                .is_some_and(|known| known.standing != Standing::Confirmed)
    };
    let held = |key: &Key| known.get(key).is_some_and(|known| known.held != Held::No);
    Counts {
        add: of(Operation::Add),
        update: of(Operation::Update),
        remove: of(Operation::Remove),
        keep: count(Decision::Keep),
        refused: count(Decision::Refused),
        refused_removals: count(Decision::RefusedRemoval),
        absent: count(Decision::Absent),
        held_back: count(Decision::HeldBack),
        repairs: decisions.iter().filter(|one| sent_again(*one)).count() as u64,
        held: decisions.keys().filter(|key| held(key)).count() as u64,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_decides_as_a_naive_comparison_does(
        versions in prop::collection::vec(members(), 1..6),
        answers in prop::collection::vec(answer(), 1..40),
        by_mail: bool,
        holds_back: bool,
    ) {
        let faulty = Faulty::new();
        let cohort = Cohort::new(&faulty.store(), "t1", "c1");
        let identity: Vec<String> = by_mail.then(|| "mail".to_owned()).into_iter().collect();
        let mut roster = Roster::open(faulty.store().folder("roster"), &identity).unwrap();
        let mut known = BTreeMap::new();
        for (number, version) in versions.iter().enumerate() {
            put(&cohort, &format!("s{number}"), i64::try_from(number).unwrap(), version);
            let mut expected = naive(version, &known, by_mail, None);
            let holds_back = holds_back && number % 2 == 1;
            if holds_back {
                hold_back(&mut expected, &known);
            }
            let before = known.clone();
            let view = cohort.view().unwrap();
            let diff = || Diff::new(cohort.members(&view), &roster, Scope::Whole).holding_back(holds_back);
            let plan = diff().plan().unwrap();
            let part = answers.get(number * 7 % answers.len()..).unwrap_or(&answers);
            let (decisions, mut outcomes, counts) = run(diff(), &mut known, version, (by_mail, part));
            prop_assert_eq!(&decisions, &expected);
            prop_assert_eq!(counts, counted(&expected, &before));
            prop_assert_eq!(plan, counts);
            roster.apply(&mut outcomes, json!(number)).unwrap();
            let held = known.values().filter(|known| known.held != Held::No).count();
            prop_assert_eq!(roster.held().unwrap(), held as u64);
            prop_assert_eq!(roster.count_held().unwrap(), held as u64);
        }
    }

    #[test]
    fn of_named_members_it_decides_as_of_all(
        first in members(),
        changes in prop::collection::vec(("[a-d]{1,2}", prop::option::of((0..2u32, 0..2u8))), 0..8),
        answers in prop::collection::vec(answer(), 1..40),
        by_mail: bool,
    ) {
        let faulty = Faulty::new();
        let cohort = Cohort::new(&faulty.store(), "t1", "c1");
        let identity: Vec<String> = by_mail.then(|| "mail".to_owned()).into_iter().collect();
        let mut roster = Roster::open(faulty.store().folder("roster"), &identity).unwrap();
        let mut known = BTreeMap::new();
        put(&cohort, "s1", 1, &first);
        let view = cohort.view().unwrap();
        let diff = Diff::new(cohort.members(&view), &roster, Scope::Whole);
        let (_, mut outcomes, _) = run(diff, &mut known, &first, (by_mail, &answers));
        roster.apply(&mut outcomes, json!(1)).unwrap();

        let (mut model, mut delta) = (first, Changes::default());
        for (id, content) in &changes {
            match content {
                Some(content) => {
                    delta.add(row(id, *content).as_bytes()).unwrap();
                    model.insert(id.clone(), *content);
                }
                None => {
                    delta.remove(id).unwrap();
                    model.remove(id);
                }
            }
        }
        cohort.add_delta(delta, at(2)).unwrap();
        let named: BTreeSet<String> = changes.into_iter().map(|(id, _)| id).collect();
        let expected = naive(&model, &known, by_mail, Some(&named));
        let deltas = cohort.deltas(view.last_delta()).unwrap();
        let diff = Diff::new(cohort.changes(&deltas), &roster, Scope::Named);
        let (decisions, ..) = run(diff, &mut known, &model, (by_mail, &answers));
        prop_assert_eq!(decisions, expected);
    }
}

#[test]
fn a_member_whose_address_changes_is_removed_under_the_old_one() {
    let faulty = Faulty::new();
    let cohort = Cohort::new(&faulty.store(), "t1", "c1");
    let mut roster = Roster::open(faulty.store().folder("roster"), &["mail".to_owned()]).unwrap();
    let mut known = BTreeMap::new();
    let sent = |number: i64, mail: u8, roster: &Roster, known: &mut BTreeMap<Key, Known>| {
        let members = Members::from([("a".to_owned(), (1, mail))]);
        put(&cohort, &format!("s{number}"), number, &members);
        let diff = Diff::new(
            cohort.members(&cohort.view().unwrap()),
            roster,
            Scope::Whole,
        );
        run(diff, known, &members, (true, &[Answer::Yes]))
    };
    let (_, mut outcomes, _) = sent(1, 1, &roster, &mut known);
    roster.apply(&mut outcomes, json!(1)).unwrap();
    let (decisions, _, counts) = sent(2, 2, &roster, &mut known);
    let of = |mail| decisions[&("a".to_owned(), Some(mail))];
    assert_eq!(of(1), Decision::Send(Operation::Remove));
    assert_eq!(of(2), Decision::Send(Operation::Add));
    assert_eq!(counts.removed_percent(), 100.0);
}

#[test]
fn nothing_compared_with_nothing_is_nothing() {
    let faulty: Arc<Faulty> = Faulty::new();
    let cohort = Cohort::new(&faulty.store(), "t1", "c1");
    let roster = Roster::open(faulty.store().folder("roster"), &[]).unwrap();
    for scope in [Scope::Whole, Scope::Named] {
        let view = cohort.view().unwrap();
        let counts = Diff::new(cohort.members(&view), &roster, scope)
            .plan()
            .unwrap();
        assert_eq!(counts, Counts::default());
        assert_eq!(counts.removed_percent(), 0.0);
    }
    assert!(ndjson([]).is_empty());
}
