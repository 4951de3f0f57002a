//! Time of a sync at a partner's limit, over the time that the limit allows.
//!
//! The limit is Braze's: 3,000 requests in 3 s, 75 members a request. The surprise: the partner
//! enforces it in every span of 3 s, so one request too early is seen.

use super::super::Plan;
use super::{AT_ONCE, Ground, profile};
use crate::members::Members;
use crate::report::{Report, note};

const ITEMS: u32 = 75;
const WINDOW: (u32, u32) = (3_000, 3);
/// Thirty windows, and four: the first one's requests may go at once, which hides all in fewer.
const MEMBERS: u64 = 30 * 3_000 * 75;
const MEMBERS_QUICK: u64 = 4 * 3_000 * 75;
const RATIO: f64 = 1.05;

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or the partner does not hold the cohort.
pub(in crate::bench) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let wanted = plan.members.unwrap_or(plan.choose(MEMBERS, MEMBERS_QUICK));
    let count = wanted.max(MEMBERS_QUICK);
    if count > wanted {
        note(format_args!(
            "{count} members: fewer say nothing of the limit"
        ));
    }
    let (requests, seconds) = WINDOW;
    let needed = f64::from(u32::try_from(count.div_ceil(u64::from(ITEMS)))?);
    let allowed = needed * f64::from(seconds) / f64::from(requests);
    let (mut took, mut limited) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let profile = profile(ITEMS, AT_ONCE, Some(WINDOW))?;
        let mut ground = Ground::new(plan, &profile, &[], &[]).await?;
        ground
            .sync(Members {
                count,
                is_changed: false,
            })
            .await?;
        let counts = ground.partner.counts().await?;
        note(format_args!(
            "round {round}: {:.2} s of {allowed:.2} s, {} of 429",
            counts.seconds(),
            counts.limited
        ));
        took.push(counts.seconds());
        limited.push(f64::from(u32::try_from(counts.limited)?));
    }
    let took = report.figure("sync at the partner's limit", "s", &took);
    report.print(&took.of(allowed).at_most(RATIO))?;
    report.print(&report.figure("answers of 429", "", &limited).at_most(0.0))
}
