//! Partners that refuse requests as a whole.

use super::partner::Temper;
use super::rig::{ITEMS, Yard, paused};
use super::{RUN, members};

#[test]
fn a_partner_that_refuses_everyone_ends_the_run_and_nobody_is_given_up() {
    paused(async {
        let poison = Temper {
            poison: 1,
            ..Temper::calm(0)
        };
        let mut yard = Yard::new(poison).await;
        yard.chunks_ahead = 64;
        yard.start().await;
        yard.upload(&members(0..5_000, 1)).await;
        yard.ask(RUN).await;
        yard.until_idle().await;
        let last = yard.note().await.last.unwrap();
        assert_eq!(last.outcome, "failed");
        assert_eq!(
            last.reason.as_deref(),
            Some("the partner refuses every member: 400: poison")
        );
        assert!(yard.partner.requests < 150, "{}", yard.partner.requests);
        assert_eq!(last.counts.rejected, 0, "it says nothing of single members");
        yard.partner.temper.poison = 0;
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, members(0..5_000, 1));
    });
}

#[test]
fn a_partner_that_refuses_every_request_but_not_every_member_gets_the_others() {
    paused(async {
        let poison = Temper {
            poison: 3,
            ..Temper::calm(0)
        };
        let yard = Yard::synced(poison, &members(0..2_000, 1)).await;
        let last = yard.note().await.last.unwrap();
        assert_eq!((last.outcome.as_str(), last.counts.rejected), ("done", 667));
        assert_eq!(yard.partner.list, yard.taken(&members(0..2_000, 1)));
    });
}

#[test]
fn the_partners_words_are_in_the_report() {
    paused(async {
        let poison = Temper {
            poison: 31,
            ..Temper::calm(0)
        };
        let yard = Yard::synced(poison, &members(30..40, 1)).await;
        let report = yard.report().await;
        let expected = "{\"id\":\"m0031\",\"state\":\"rejected\",\"operation\":\"add\",\"code\":\"400: poison\"}\n";
        assert_eq!(report, expected);
    });
}

#[test]
fn each_operation_has_requests_of_its_own_size() {
    paused(async {
        let mut yard = Yard::new(Temper::calm(0)).await;
        yard.change_sync(|sync| {
            let remove = sync.profile.operations.remove.as_mut().unwrap();
            remove.items = Some(3.try_into().unwrap());
        })
        .await;
        yard.start().await;
        yard.upload(&members(0..100, 1)).await;
        yard.ask(RUN).await;
        yard.until_idle().await;
        yard.upload(&members(15..100, 2)).await;
        let (_, plan) = yard.plan().await;
        assert_eq!(plan["requests"], 9 + 5, "{plan}");
        yard.ask(RUN).await;
        yard.until_idle().await;
        assert_eq!(yard.partner.list, members(15..100, 2));
        let sizes: Vec<u32> = yard.partner.largest.values().copied().collect();
        assert_eq!(sizes, [ITEMS, ITEMS, 3], "added, updated, removed");
    });
}
