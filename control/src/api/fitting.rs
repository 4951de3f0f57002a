//! Owns whether a sync's schedule can be kept at the endpoint's limits.
//!
//! It must never refuse one that a run could keep. The surprise: who has changed is known to the
//! cohorts service alone, whose `plan` is exact; here a run sends at least as many members as the
//! cohort has more, or fewer, than the partner.

use runtime::problem::Problem;
use schemas::profile::OperationKind;
use schemas::resources::{RateWindow, Sync, least_seconds};

use crate::members::Members;

/// Refuses a sync whose next run takes longer than its schedule leaves between two.
pub(super) fn check(
    sync: &Sync,
    windows: &[RateWindow],
    members: &Members,
    now: i64,
) -> Result<(), Problem> {
    let gap = sync
        .schedule
        .as_ref()
        .and_then(|schedule| schedule.shortest_gap(now));
    let (Some(gap), Some(wanted)) = (gap, members.of_cohort(sync.cohort)) else {
        return Ok(());
    };
    let held = members.at_partner(sync.id);
    let sent = [
        (OperationKind::Add, wanted.saturating_sub(held)),
        (OperationKind::Remove, held.saturating_sub(wanted)),
    ];
    let requests = sent
        .iter()
        .map(|(kind, members)| members.div_ceil(u64::from(sync.profile.items_max(*kind).get())));
    let (requests, items): (u64, u64) = (requests.sum(), sent.iter().map(|(_, sent)| sent).sum());
    let seconds = least_seconds(windows, (requests, items));
    let gap = u64::try_from(gap / 1_000).unwrap_or(0);
    if seconds <= gap {
        return Ok(());
    }
    let detail = format!(
        "cannot be kept: a run sends {items} members at least, in {requests} requests, which takes \
         {seconds} s at the endpoint's limits, and the schedule leaves {gap} s between two; with \
         `schedule_must_fit` false it is taken as it is"
    );
    Err(Problem::validation([("/schedule", detail)]))
}
