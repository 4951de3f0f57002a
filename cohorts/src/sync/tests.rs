//! Syncs on the simulated log, in paused time, with a partner in memory: a test's own hands stand
//! for the dispatcher.

mod access;
mod deltas;
mod failing;
mod http;
mod jobs;
mod ledger;
mod owning;
mod partner;
mod refusals;
mod rig;
mod stopping;

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::resources::{Overlap, SyncState};

use self::partner::Temper;
use self::rig::{Yard, paused, seeds};
use super::Ask;

const RUN: Ask = Ask::Run {
    approve_removals: false,
};
const APPROVED: Ask = Ask::Run {
    approve_removals: true,
};

fn members(ids: std::ops::Range<u32>, v: u32) -> BTreeMap<String, u32> {
    ids.map(|id| (format!("m{id:04}"), v)).collect()
}

#[test]
fn the_partners_list_becomes_the_cohort_and_each_member_is_sent_once() {
    // rules 14 and 15
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..300, 1)).await;
        assert_eq!(yard.partner.list, members(0..300, 1));
        assert!(yard.partner.sends.values().all(|sends| *sends == 1));
        let last = yard.note().await.last.unwrap();
        assert_eq!(
            (last.outcome.as_str(), last.counts.confirmed),
            ("done", 300)
        );
        assert_eq!(yard.partner.lists_made, 1);
        // Some change, some leave, some come: nothing else is sent.
        yard.partner.sends.clear();
        let mut next = members(20..290, 1);
        next.extend(members(290..310, 2));
        yard.upload(&next).await;
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, next);
        assert_eq!(yard.partner.sends.len(), 20 + 20);
        assert_eq!(yard.partner.lists_made, 1);
    });
}

#[test]
fn a_refused_member_is_reported_and_not_sent_again() {
    paused(async {
        let temper = Temper {
            refused: 7,
            poison: 31,
            ..Temper::calm(0)
        };
        let mut yard = Yard::synced(temper, &members(0..200, 1)).await;
        assert_eq!(yard.partner.list, yard.taken(&members(0..200, 1)));
        let counts = yard.note().await.last.unwrap().counts;
        let refused = 200 - yard.partner.list.len() as u64;
        assert_eq!(
            (counts.rejected, counts.unknown, counts.retry),
            (refused, 0, 0)
        );
        assert!(counts.halved > 0);
        yard.partner.sends.clear();
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.sends.len(), 0, "a batch is not poisoned twice");
    });
}

#[test]
fn a_run_that_removes_too_much_waits_for_approval() {
    // rule 14
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..100, 1)).await;
        yard.upload(&BTreeMap::new()).await;
        yard.ask(RUN).await;
        yard.pass(Duration::from_secs(30)).await;
        assert!(yard.note().await.run.unwrap().waits);
        assert_eq!(yard.partner.list.len(), 100);
        // Cancelled, it changes nothing; planned anew and approved, it empties the list.
        yard.ask(Ask::Cancel).await;
        yard.until_idle().await;
        assert_eq!(yard.note().await.last.unwrap().outcome, "cancelled");
        assert_eq!(yard.partner.list.len(), 100);
        yard.ask(APPROVED).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list.len(), 0);
    });
}

#[test]
fn changes_reach_the_partner_within_seconds() {
    paused(async {
        let mut yard = Yard::synced(Temper::calm(0), &members(0..100, 1)).await;
        yard.partner.sends.clear();
        let began = tokio::time::Instant::now();
        yard.change(&members(98..103, 5), &["m0001"]).await;
        while yard.partner.list.contains_key("m0001") || !yard.partner.list.contains_key("m0102") {
            yard.pass(Duration::from_millis(100)).await;
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        yard.until_idle().await;
        assert_eq!(yard.partner.sends.len(), 6, "nobody else is sent");
        assert_eq!(yard.partner.list["m0098"], 5);
    });
}

#[test]
fn a_paused_sync_sends_nothing_and_a_cancelled_run_ends() {
    paused(async {
        let mut yard = Yard::new(Temper {
            answers: 0.05,
            ..Temper::calm(0)
        })
        .await;
        yard.start().await;
        yard.upload(&members(0..2_000, 1)).await;
        yard.ask(RUN).await;
        yard.until_taken(100).await;
        yard.change_sync(|sync| sync.state = SyncState::Paused)
            .await;
        yard.pass(Duration::from_secs(120)).await;
        let (held, sent) = (yard.partner.list.len(), yard.partner.sends.len());
        assert!(held > 0 && held < 2_000, "{held}");
        yard.pass(Duration::from_secs(600)).await;
        assert_eq!(yard.partner.sends.len(), sent);
        yard.change_sync(|sync| sync.state = SyncState::Active)
            .await;
        yard.ask(Ask::Cancel).await;
        yard.until_idle().await;
        assert_eq!(yard.note().await.last.unwrap().outcome, "cancelled");
        assert!(yard.partner.list.len() < 2_000);
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, members(0..2_000, 1));
    });
}

#[test]
fn the_newest_snapshot_takes_over_at_the_next_chunk() {
    for (overlap, expected) in [
        (Overlap::Replace, "replaced"),
        (Overlap::Finish, "done"),
        (Overlap::Skip, "done"),
    ] {
        paused(async move {
            let mut yard = Yard::new(Temper {
                answers: 0.05,
                ..Temper::calm(0)
            })
            .await;
            yard.start().await;
            yard.change_sync(|sync| sync.overlap = overlap).await;
            yard.upload(&members(0..1_000, 1)).await;
            yard.ask(RUN).await;
            yard.until_taken(50).await;
            yard.upload(&members(0..1_000, 2)).await;
            yard.ask(RUN).await;
            let first = yard.until_run_ends(1).await;
            assert_eq!(first.outcome, expected, "{overlap:?}");
            yard.until_idle().await;
            let v = if overlap == Overlap::Skip { 1 } else { 2 };
            assert_eq!(yard.partner.list, members(0..1_000, v), "{overlap:?}");
        });
    }
}

#[test]
fn missed_runs_of_a_schedule_run_once() {
    paused(async {
        let mut yard = Yard::new(Temper::calm(0)).await;
        yard.change_sync(|sync| {
            sync.schedule = schemas::resources::Schedule::new("0 * * * *", "Europe/Zurich").ok();
        })
        .await;
        yard.upload(&members(0..50, 1)).await;
        yard.start().await;
        yard.pass(Duration::from_secs(3_700)).await;
        yard.until_idle().await;
        assert_eq!(yard.note().await.runs, 1);
        assert_eq!(yard.partner.list.len(), 50);
        yard.crash();
        yard.pass(Duration::from_secs(10 * 3_600)).await;
        yard.start().await;
        yard.pass(Duration::from_secs(60)).await;
        assert_eq!(yard.note().await.runs, 2, "once for all that were missed");
    });
}

#[test]
fn whatever_is_never_reported_is_unknown_and_sent_again() {
    paused(async {
        let mut yard = Yard::new(Temper {
            silent: 1.0,
            ..Temper::calm(0)
        })
        .await;
        yard.start().await;
        yard.upload(&members(0..30, 1)).await;
        yard.ask(RUN).await;
        yard.pass(Duration::from_secs(60)).await;
        yard.partner.temper.silent = 0.0;
        yard.pass(Duration::from_secs(80 * 3_600)).await;
        yard.until_idle().await;
        let last = yard.note().await.last.unwrap();
        assert_eq!((last.counts.unknown, last.counts.confirmed), (30, 30));
        assert_eq!(yard.partner.list, members(0..30, 1));
    });
}

/// Any mix of snapshots, changes, rejections, partial answers, silence, pauses and crashes: in the
/// end the partner's list is the cohort less who was refused.
async fn storm(seed: u64) {
    let mut yard = Yard::new(Temper::wild(seed)).await;
    yard.start().await;
    for round in 0..6 {
        let from = yard.draw(60);
        let count = 40 + yard.draw(160);
        let v = yard.draw(3);
        yard.upload(&members(from..from + count, v)).await;
        for _ in 0..yard.draw(4) {
            match yard.draw(6) {
                0 | 1 => yard.ask(APPROVED).await,
                2 => yard.ask(Ask::Cancel).await,
                3 => {
                    let first = yard.draw(200);
                    yard.change(&members(first..first + 9, round + 5), &["m0050", "m0070"])
                        .await;
                }
                4 => {
                    yard.crash();
                    yard.start().await;
                }
                _ => {}
            }
            let wait = u64::from(yard.draw(3_000));
            yard.pass(Duration::from_millis(wait)).await;
        }
    }
    yard.partner.temper = Temper {
        refused: yard.partner.temper.refused,
        poison: yard.partner.temper.poison,
        ..Temper::calm(seed)
    };
    yard.until_idle().await;
    yard.ask(APPROVED).await;
    yard.until_idle().await;
    let cohort = yard.cohort_now().await;
    assert_eq!(yard.partner.list, yard.taken(&cohort), "seed {seed}");
    assert!(
        yard.partner.unreported_max <= rig::CHUNKS_AHEAD,
        "credit, seed {seed}"
    );
}

#[test]
fn the_list_is_the_cohort_less_who_was_refused_whatever_happens() {
    // rules 13, 14 and 15
    seeds(12, |seed| paused(storm(seed)));
}
