use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::doubles::{Fault, Faulty};
use crate::{Held, Standing};

type Model = BTreeMap<String, u64>;

fn open(faulty: &Arc<Faulty>) -> Roster {
    Roster::open(faulty.store().folder("syncs/s1/roster"), &[]).unwrap()
}

/// What a roster says: the hash of each member that it has.
fn read(roster: &Roster) -> Result<Model, Error> {
    let (mut items, mut found) = (Items::new(roster), Model::new());
    while items.advance()? {
        let (key, item) = items.item()?.unwrap();
        assert_eq!((item.standing, item.held), (Standing::Confirmed, Held::Yes));
        found.insert(String::from_utf8(key.to_vec()).unwrap(), item.hash);
    }
    Ok(found)
}

/// Outcomes: confirmed with this hash, or confirmed to be removed.
fn outcomes(of: &[(String, Option<u64>)]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (id, hash) in of {
        let operation = if hash.is_some() {
            Operation::Add
        } else {
            Operation::Remove
        };
        let sent = (hash.unwrap_or(0), &b""[..]);
        outcomes.record(
            id.as_bytes(),
            (operation, Held::No),
            sent,
            Verdict::Confirmed,
        );
    }
    outcomes
}

fn change(model: &mut Model, batch: &[(String, Option<u64>)]) {
    for (id, hash) in batch {
        match hash {
            Some(hash) => drop(model.insert(id.clone(), *hash)),
            None => drop(model.remove(id)),
        }
    }
}

fn batches() -> impl Strategy<Value = Vec<Vec<(String, Option<u64>)>>> {
    let outcome = ("[a-f]{1,2}", prop::option::of(0..5u64));
    prop::collection::vec(prop::collection::vec(outcome, 0..12), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_roster_says_what_was_heard_last(batches in batches(), sweeps in 0..24usize, pins in 0..24usize) {
        let faulty = Faulty::new();
        let (mut roster, mut model) = (open(&faulty), Model::new());
        let mut pinned = (roster.generation(), Model::new());
        for (number, batch) in batches.iter().enumerate() {
            let note = json!({"results": number});
            roster.apply(&mut outcomes(batch), note.clone()).unwrap();
            change(&mut model, batch);
            prop_assert_eq!(&read(&roster).unwrap(), &model);
            if number == sweeps {
                roster.sweep(&[pinned.0]).unwrap();
            }
            let opened = open(&faulty);
            prop_assert_eq!(&read(&opened).unwrap(), &model);
            prop_assert_eq!((opened.generation(), opened.note()), (roster.generation(), &note));
            prop_assert!(opened.state.runs.len() <= RUNS_MAX);
            if number == pins {
                pinned = (roster.generation(), model.clone());
            }
        }
        // A pinned generation reads as it did, whatever came after it and was swept since.
        roster.sweep(&[pinned.0]).unwrap();
        let folder = faulty.store().folder("syncs/s1/roster");
        let old = Roster::open_at(folder.clone(), pinned.0, &[]).unwrap();
        prop_assert_eq!(&read(&old).unwrap(), &pinned.1);
        roster.sweep(&[]).unwrap();
        prop_assert_eq!(&read(&open(&faulty)).unwrap(), &model);
        let named: usize = roster.state.runs.iter().map(|run| run.parts.len()).sum();
        prop_assert_eq!(folder.list("").unwrap().len(), named + 1, "one manifest and its parts");
    }
}

/// Applies outcomes with this fault, when so many were applied before: whether it was reached.
fn apply_with(fault: Fault, number: u64, before: usize) -> bool {
    let faulty = Faulty::new();
    let mut roster = open(&faulty);
    let mut old = Model::new();
    for step in 0..before {
        let batch = [(format!("m{step}"), Some(1))];
        roster.apply(&mut outcomes(&batch), json!(step)).unwrap();
        change(&mut old, &batch);
    }
    let batch = [("m0".to_owned(), None), ("new".to_owned(), Some(2))];
    let mut new = old.clone();
    change(&mut new, &batch);
    let (requests, old_note) = (faulty.requests(), roster.note().clone());
    faulty.fail_at(number, fault);
    let mut kept = outcomes(&batch);
    let applied = roster.apply(&mut kept, json!("new"));
    let requests = faulty.requests() - requests;
    faulty.recover();
    let mut found = open(&faulty);
    let model = read(&found).unwrap();
    if applied.is_ok() {
        assert_eq!(model, new);
    }
    // What the note says is what the roster says.
    let is_new = found.note() == &json!("new");
    assert!(
        is_new || kept.len() == batch.len(),
        "outcomes are kept until they are applied"
    );
    assert!(is_new || found.note() == &old_note);
    assert_eq!(
        model,
        if is_new { new } else { old },
        "{fault:?} at {number} after {before}"
    );
    found.sweep(&[]).unwrap();
    assert_eq!(read(&open(&faulty)).unwrap(), model);
    requests > number
}

#[test]
fn a_crash_at_any_request_leaves_the_old_roster_or_the_new() {
    for fault in Fault::ALL {
        // The second merges runs too.
        for before in [1, RUNS_MAX] {
            let reached = (0..)
                .take_while(|number| apply_with(fault, *number, before))
                .count();
            assert!(
                reached >= 2 * before.min(2),
                "{fault:?}: {reached} requests"
            );
        }
    }
}

#[test]
fn of_two_owners_the_second_to_write_learns_it() {
    let faulty = Faulty::new();
    let (mut one, mut other) = (open(&faulty), open(&faulty));
    one.apply(&mut outcomes(&[("a".to_owned(), Some(1))]), json!(1))
        .unwrap();
    let lost = other.apply(&mut outcomes(&[("b".to_owned(), Some(1))]), json!(2));
    assert!(matches!(lost, Err(Error::Conflict(_))), "{lost:?}");
    assert_eq!(
        read(&open(&faulty)).unwrap(),
        Model::from([("a".to_owned(), 1)])
    );
    // A sweep cannot be undermined by somebody who opened the roster before it.
    let mut late = open(&faulty);
    one.sweep(&[]).unwrap();
    assert!(late.apply(&mut Outcomes::default(), json!(3)).is_err());
    let (mut one, mut other) = (open(&faulty), open(&faulty));
    one.sweep(&[]).unwrap();
    assert!(matches!(other.sweep(&[]), Err(Error::Conflict(_))));
    assert_eq!(
        read(&open(&faulty)).unwrap(),
        Model::from([("a".to_owned(), 1)])
    );
}

#[test]
fn a_roster_keeps_what_it_knows_members_by() {
    let folder = Faulty::new().store();
    let identity = ["email".to_owned()];
    let mut roster = Roster::open(folder.clone(), &identity).unwrap();
    roster.apply(&mut Outcomes::default(), json!(null)).unwrap();
    assert!(matches!(
        Roster::open(folder.clone(), &[]),
        Err(Error::Input(_))
    ));
    assert_eq!(
        Roster::open(folder.clone(), &identity)
            .unwrap()
            .generation(),
        1
    );
    assert!(matches!(
        Roster::open_at(folder.clone(), 9, &identity),
        Err(Error::Missing(_))
    ));
    Roster::delete(&folder).unwrap();
    assert_eq!(Roster::open(folder, &[]).unwrap().generation(), 0);
}

#[test]
fn a_damaged_roster_is_never_taken_for_an_older_one() {
    let folder = Faulty::new().store();
    let mut roster = Roster::open(folder.clone(), &[]).unwrap();
    for _ in 0..2 {
        roster
            .apply(&mut outcomes(&[("a".to_owned(), Some(1))]), json!(null))
            .unwrap();
    }
    folder.put(&manifest(2), b"{}".to_vec()).unwrap();
    assert!(matches!(
        Roster::open(folder, &[]),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn outcomes_say_when_they_are_many() {
    let mut many = Outcomes::default();
    for number in 0..700_000u32 {
        if many.are_many() {
            break;
        }
        let sent = (1, &b""[..]);
        many.record(
            &number.to_be_bytes(),
            (Operation::Add, Held::No),
            sent,
            Verdict::Unknown,
        );
    }
    assert!(many.are_many() && many.len() > 100_000);
    let mut roster = Roster::open(Faulty::new().store(), &[]).unwrap();
    roster.apply(&mut many, json!(null)).unwrap();
    assert!(many.is_empty() && !many.are_many());
}
