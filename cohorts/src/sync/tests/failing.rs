//! A store that fails, at every request of a whole sync: what was to be done is done when it is back.

use std::time::Duration;

use super::partner::Temper;
use super::rig::{Yard, paused};
use super::{RUN, members};
use crate::doubles::Fault;

/// Longer than a sync of so few members takes.
const LONG: Duration = Duration::from_secs(9);

/// Adds, changes and removes members while the store fails at one request; whether it came to that.
async fn sync_with(fault: Fault, number: u64) -> bool {
    let temper = Temper {
        refused: 7,
        ..Temper::calm(number)
    };
    let mut yard = Yard::synced(temper, &members(0..60, 1)).await;
    let mut next = members(5..40, 1);
    next.extend(members(40..70, 2));
    yard.upload(&next).await;
    yard.ask(RUN).await;
    let before = yard.store.requests();
    yard.store.fail_at(number, fault);
    yard.pass(LONG).await;
    let is_reached = yard.store.requests() - before > number;
    yard.store.recover();
    yard.until_idle().await;
    let last = yard.note().await.last.unwrap();
    assert_eq!(last.outcome, "done", "{fault:?} {number}: {last:?}");
    assert_eq!(yard.partner.list, yard.taken(&next), "{fault:?} {number}");
    is_reached
}

#[test]
fn a_store_that_fails_at_any_request_of_a_sync_delays_it_and_no_more() {
    // rule 13
    for fault in Fault::ALL {
        let mut reached = 0;
        paused(async {
            while sync_with(fault, reached).await {
                reached += 1;
            }
        });
        assert!(
            reached >= 30,
            "{fault:?} was tried at {reached} requests only"
        );
    }
}
