//! Runs that are to end before their time: how long they wait, and what becomes of what they have
//! left on its way.

use std::time::Duration;

use schemas::resources::SyncState;

use super::partner::Temper;
use super::rig::{CHUNKS_AHEAD, ITEMS, Yard, paused};
use super::{RUN, members};
use crate::sync::Ask;

/// A partner that has everybody up to 400, and does not answer a run that brings thirty more.
async fn unanswered() -> Yard {
    let mut yard = Yard::new(Temper::calm(0)).await;
    yard.start().await;
    yard.upload(&members(0..400, 1)).await;
    yard.ask(RUN).await;
    yard.until_idle().await;
    yard.partner.temper.answers = 0.0;
    yard.upload(&members(0..430, 1)).await;
    yard.ask(RUN).await;
    yard.pass(Duration::from_secs(5)).await;
    assert_eq!(yard.partner.waiting.len(), 3);
    yard
}

#[test]
fn a_cancelled_run_waits_for_what_is_on_its_way_as_long_as_stated() {
    paused(async {
        let mut yard = unanswered().await;
        yard.ask(Ask::Cancel).await;
        yard.pass(Duration::from_secs(45)).await;
        let run = yard.note().await.run.unwrap();
        assert!(run.stop_until.is_some());
        let (_, status) = yard.status().await;
        assert_eq!(status["state"], "stopping");
        assert_eq!(status["stopping_until"], run.stop_until.unwrap());
        // A crash does not make it wait anew.
        yard.crash();
        yard.start().await;
        yard.pass(Duration::from_secs(25)).await;
        let note = yard.note().await;
        assert!(note.run.is_none(), "{note:?}");
        let last = note.last.unwrap();
        assert_eq!(
            (last.outcome.as_str(), last.counts.unknown),
            ("cancelled", 30)
        );
        assert_eq!(yard.status().await.1["late"], 3);
    });
}

#[test]
fn what_was_never_written_is_not_waited_for_after_a_crash() {
    // rule 14
    paused(async {
        let mut yard = unanswered().await;
        yard.upload(&members(0..900, 1)).await;
        yard.ask(Ask::Cancel).await;
        yard.partner.temper.answers = 1.0;
        yard.until_run_ends(2).await;
        yard.partner.temper.answers = 0.0;
        yard.ask(RUN).await;
        yard.pass(Duration::from_secs(5)).await;
        // As many as credit allows: fifty would be sent.
        assert_eq!(yard.partner.waiting.len(), CHUNKS_AHEAD);
        yard.ask(Ask::Cancel).await;
        yard.pass(Duration::from_secs(10)).await;
        yard.crash();
        yard.pass(Duration::from_secs(100)).await;
        yard.start().await;
        let last = yard.until_run_ends(3).await;
        let unknown = u64::from(ITEMS) * CHUNKS_AHEAD as u64;
        assert_eq!(
            (last.outcome.as_str(), last.counts.unknown),
            ("cancelled", unknown)
        );
        assert_eq!(yard.status().await.1["late"], CHUNKS_AHEAD);
        yard.partner.temper.answers = 1.0;
        let heard = tokio::time::Instant::now();
        yard.until_idle().await;
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, members(0..900, 1));
        assert!(
            heard.elapsed() < Duration::from_secs(600),
            "not the longest life"
        );
    });
}

#[test]
fn what_arrives_late_never_undoes_what_a_newer_run_did() {
    // rule 14
    paused(async {
        let mut yard = unanswered().await;
        let mut next = members(0..405, 1);
        next.extend(members(500..510, 1));
        yard.upload(&next).await;
        // It takes the other's place, and runs while the other's requests hang.
        yard.ask(RUN).await;
        yard.pass(Duration::from_secs(65)).await;
        let late: Vec<_> = yard.partner.waiting.drain(..3).collect();
        yard.partner.temper.answers = 1.0;
        yard.pass(Duration::from_secs(60)).await;
        let note = yard.note().await;
        assert!(note.run.is_none() && note.held_back, "{note:?}");
        assert_eq!(note.last.unwrap().outcome, "done");
        let mut held = members(0..400, 1);
        held.extend(members(500..510, 1));
        assert_eq!(yard.partner.list, held, "whoever is unknown is left alone");
        yard.partner.waiting.extend(late);
        yard.until_idle().await;
        assert_eq!(yard.partner.list, next);
    });
}

#[test]
fn what_never_arrives_is_given_up_in_the_end() {
    paused(async {
        let mut yard = unanswered().await;
        yard.partner.waiting.clear();
        yard.change_sync(|sync| sync.state = SyncState::Paused)
            .await;
        yard.ask(Ask::Cancel).await;
        yard.pass(Duration::from_secs(120)).await;
        assert!(yard.note().await.run.is_none(), "a paused one ends too");
        yard.partner.temper.answers = 1.0;
        yard.change_sync(|sync| sync.state = SyncState::Active)
            .await;
        yard.ask(RUN).await;
        yard.until_run_ends(3).await;
        assert_eq!(yard.partner.list, members(0..400, 1));
        yard.pass(Duration::from_secs(80 * 3_600)).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, members(0..430, 1));
    });
}
