use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ReadOptions;
use crate::doubles::{Fault, Faulty, all, at, ndjson, upload};

fn cohort(faulty: &Arc<Faulty>) -> Cohort {
    Cohort::new(&faulty.store(), "t1", "buyers")
}

fn changes(of: &[(&str, Option<u32>)]) -> Changes {
    let mut changes = Changes::default();
    for (id, v) in of {
        match v {
            Some(v) => changes
                .add(ndjson([(*id, *v)]).trim_end().as_bytes())
                .unwrap(),
            None => changes.remove(id).unwrap(),
        }
    }
    changes
}

fn members(cohort: &Cohort, view: &View) -> Vec<String> {
    all(&mut cohort.members(view)).unwrap()
}

/// One thing that happens to a cohort.
#[derive(Debug, Clone)]
enum Event {
    Snapshot(BTreeMap<String, u32>),
    Delta(Vec<(String, Option<u32>)>),
    Fold,
    Retain,
}

fn event() -> impl Strategy<Value = Event> {
    let id = "[a-e]{1,2}";
    prop_oneof![
        1 => prop::collection::btree_map(id, 0..9u32, 0..6).prop_map(Event::Snapshot),
        4 => prop::collection::vec((id, prop::option::of(0..9u32)), 1..5).prop_map(Event::Delta),
        1 => Just(Event::Fold),
        1 => Just(Event::Retain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cohort_is_its_snapshot_and_what_changed_since(
        events in prop::collection::vec(event(), 1..12),
        pinned_after in 0..12usize,
    ) {
        let cohort = cohort(&Faulty::new());
        let mut model = BTreeMap::new();
        let mut pinned: Option<(View, Vec<String>)> = None;
        for (step, event) in events.into_iter().enumerate() {
            let second = i64::try_from(step).unwrap();
            match event {
                Event::Snapshot(whole) => {
                    let rows = ndjson(whole.iter().map(|(id, v)| (id.as_str(), *v)));
                    upload(&cohort, &format!("s{step}"), second, rows.as_bytes(), ReadOptions::default()).unwrap();
                    model = whole;
                }
                Event::Delta(batch) => {
                    let named: Vec<_> = batch.iter().map(|(id, v)| (id.as_str(), *v)).collect();
                    cohort.add_delta(changes(&named), at(second)).unwrap();
                    for (id, v) in batch {
                        match v {
                            Some(v) => drop(model.insert(id, v)),
                            None => drop(model.remove(&id)),
                        }
                    }
                }
                Event::Fold => drop(cohort.fold_deltas(&cohort.view().unwrap(), at(second)).unwrap()),
                Event::Retain => {
                    let views: Vec<_> = pinned.iter().map(|(view, _)| view.clone()).collect();
                    cohort.retain(1, &views).unwrap();
                }
            }
            let view = cohort.view().unwrap();
            let expected: Vec<_> = model.iter().map(|(id, v)| format!("{id}={{\"v\":{v}}}")).collect();
            prop_assert_eq!(&members(&cohort, &view), &expected);
            if step == pinned_after {
                pinned = Some((view, expected));
            }
        }
        if let Some((view, expected)) = pinned {
            prop_assert_eq!(members(&cohort, &view), expected, "a view never changes");
        }
    }
}

#[test]
fn deltas_are_numbered_and_a_number_is_never_given_again() {
    let cohort = cohort(&Faulty::new());
    for expected in 1..4 {
        let delta = cohort.add_delta(changes(&[("a", Some(1))]), at(1)).unwrap();
        assert_eq!((delta.first, delta.last), (expected, expected));
    }
    upload(&cohort, "s1", 2, b"", ReadOptions::default()).unwrap();
    assert_eq!(cohort.view().unwrap().last_delta(), 3);
    cohort.retain(1, &[]).unwrap();
    assert_eq!(
        cohort
            .add_delta(changes(&[("a", None)]), at(3))
            .unwrap()
            .first,
        4
    );
    assert_eq!(cohort.view().unwrap().last_delta(), 4);
}

#[test]
fn changes_say_what_is_wrong_with_them() {
    let mut changes = Changes::default();
    for bad in [
        &b"{}"[..],
        b"x",
        b"{\"id\":\"\"}",
        b"{\"id\":\"\xff\"}",
        &[b' '; ROW_BYTES_MAX + 1],
    ] {
        assert!(matches!(changes.add(bad), Err(Error::Input(_))), "{bad:?}");
    }
    assert!(matches!(changes.remove(""), Err(Error::Input(_))));
    assert!(changes.is_empty());
    let large = format!("{{\"id\":\"a\",\"x\":\"{}\"}}", "x".repeat(60 << 10));
    let full = (0..1_000).find_map(|_| changes.add(large.as_bytes()).err());
    assert!(matches!(full, Some(Error::Limit { .. })));
}

/// Takes a delta with this fault: whether the fault was reached.
fn delta_with(fault: Fault, number: u64) -> Option<()> {
    let faulty = Faulty::new();
    let cohort = cohort(&faulty);
    cohort.add_delta(changes(&[("a", Some(1))]), at(1)).unwrap();
    let requests = faulty.requests();
    faulty.fail_at(number, fault);
    let taken = cohort.add_delta(changes(&[("a", Some(2)), ("b", Some(1))]), at(2));
    let requests = faulty.requests() - requests;
    faulty.recover();
    let found = members(&cohort, &cohort.view().unwrap());
    let old = found == [r#"a={"v":1}"#];
    let new = found == [r#"a={"v":2}"#, r#"b={"v":1}"#];
    assert!(
        if taken.is_ok() { new } else { old || new },
        "{fault:?} {number}: {found:?}"
    );
    cohort.sweep(Timestamp::MAX).unwrap();
    assert_eq!(members(&cohort, &cohort.view().unwrap()), found);
    (requests > number).then_some(())
}

#[test]
fn a_delta_is_taken_whole_or_not_at_all() {
    for fault in Fault::ALL {
        let reached = (0..)
            .take_while(|number| delta_with(fault, *number).is_some())
            .count();
        assert!(
            reached >= 3,
            "{fault:?} was tried at {reached} requests only"
        );
    }
}

/// Folds and removes with this fault: whether the fault was reached.
fn tidy_with(fault: Fault, number: u64) -> Option<()> {
    let faulty = Faulty::new();
    let cohort = cohort(&faulty);
    for id in ["s1", "s2"] {
        upload(
            &cohort,
            id,
            1,
            ndjson([("old", 1)]).as_bytes(),
            ReadOptions::default(),
        )
        .unwrap();
        for v in 0..3 {
            cohort
                .add_delta(changes(&[("a", Some(v)), (id, None)]), at(2))
                .unwrap();
        }
    }
    let view = cohort.view().unwrap();
    let before = members(&cohort, &view);
    let requests = faulty.requests();
    faulty.fail_at(number, fault);
    // Whether this succeeds is not the question.
    drop(cohort.fold_deltas(&view, at(3)));
    drop(cohort.retain(1, std::slice::from_ref(&view)));
    drop(cohort.retain(1, &[]));
    let requests = faulty.requests() - requests;
    faulty.recover();
    assert_eq!(
        members(&cohort, &cohort.view().unwrap()),
        before,
        "{fault:?} {number}"
    );
    cohort.retain(1, &[]).unwrap();
    cohort.sweep(Timestamp::MAX).unwrap();
    assert_eq!(
        members(&cohort, &cohort.view().unwrap()),
        before,
        "{fault:?} {number}"
    );
    (requests > number).then_some(())
}

#[test]
fn tidying_up_never_changes_what_a_cohort_is() {
    for fault in Fault::ALL {
        let reached = (0..)
            .take_while(|number| tidy_with(fault, *number).is_some())
            .count();
        assert!(
            reached >= 20,
            "{fault:?} was tried at {reached} requests only"
        );
    }
}
