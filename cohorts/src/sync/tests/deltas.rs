//! Changes between snapshots: what a run of them may remove, and how many there ever are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::partner::Temper;
use super::rig::{OPERATOR, Yard, paused};
use super::{APPROVED, members};
use crate::DELTAS_MAX;
use crate::sync::Ask;

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    members(range, 0).into_keys().collect()
}

impl Yard {
    async fn remove(&mut self, range: std::ops::Range<u32>) {
        let ids = ids(range);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.change(&BTreeMap::new(), &ids).await;
    }
}

#[test]
fn changes_say_what_they_add_and_what_they_remove() {
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..100, 1)).await;
        yard.change(&members(98..103, 2), &["m0001", "m0002"]).await;
        yard.until_idle().await;
        let last = yard.note().await.last.unwrap();
        let planned = (last.planned.add, last.planned.remove);
        assert_eq!(planned, (5, 2));
        assert_eq!((last.counts.confirmed, last.counts.removed), (7, 2));
    });
}

#[test]
fn changes_that_remove_too_much_wait_for_approval() {
    // rule 14
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..100, 1)).await;
        yard.remove(0..20).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list.len(), 80, "a fifth is allowed");
        yard.remove(20..50).await;
        yard.pass(Duration::from_secs(30)).await;
        let run = yard.note().await.run.unwrap();
        assert!(run.waits);
        assert_eq!((run.planned.remove, run.planned.held), (30, 80));
        assert_eq!(yard.partner.list.len(), 80);
        // Most of them come back: what is left is no more than is allowed.
        yard.change(&members(20..45, 1), &[]).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list.len(), 75);
        yard.remove(0..200).await;
        yard.pass(Duration::from_secs(30)).await;
        yard.ask(Ask::Cancel).await;
        yard.until_run_ends(5).await;
        assert_eq!(
            yard.partner.list.len(),
            75,
            "nobody is emptied out by deltas"
        );
        yard.ask(APPROVED).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list.len(), 0);
    });
}

#[test]
fn removals_of_who_is_not_there_need_no_approval() {
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..10, 1)).await;
        yard.remove(1_000..1_050).await;
        yard.until_idle().await;
        assert_eq!(yard.note().await.last.unwrap().outcome, "done");
        assert_eq!(yard.partner.list.len(), 10);
    });
}

#[test]
fn a_cohort_is_never_more_than_so_many_runs() {
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..100, 1)).await;
        let patch = "PATCH /v1/tenants/acme/cohorts/{cohort}/members";
        let mut expected = members(0..100, 1);
        for number in 0..u32::try_from(3 * DELTAS_MAX).unwrap() {
            let body = format!(r#"{{"add":[{{"id":"m{:04}","v":2}}]}}"#, 500 + number);
            assert_eq!(yard.call(patch, OPERATOR, &body).await.0, 200);
            expected.extend(members(500 + number..501 + number, 2));
            yard.pass(Duration::from_millis(50)).await;
        }
        yard.until_idle().await;
        assert_eq!(yard.partner.list, expected);
        let deltas = yard.cohort_view().await.deltas.len();
        assert!(deltas <= DELTAS_MAX + 16, "{deltas}");
    });
}
