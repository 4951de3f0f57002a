//! Owns whether a sync's schedule can be kept: by what a run would send now, and how long that takes
//! at the endpoint's limits, which the cohorts service says.
//!
//! It must never leave a sync behind that was refused. The surprise: a sync is made without its
//! schedule first, as nobody can plan for one that is not there.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Named;
use super::told::Plan;
use crate::cohort::{APPLIED, member};

/// A new sync is known to the cohorts service in less.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Gives a new sync its schedule, or deletes it where that cannot be kept; the sync.
///
/// # Errors
/// Where it cannot be kept, and what the APIs refuse.
pub(super) async fn schedule(named: &Named, schedule: &Value) -> anyhow::Result<Value> {
    let set = async {
        check(named, schedule).await?;
        let (path, body) = (named.path(None), json!({ "schedule": schedule }));
        let set = named
            .service
            .control(Method::PATCH, &path, &APPLIED, Some(&body));
        set.await?.json()
    };
    match set.await {
        Ok(sync) => Ok(sync),
        Err(refused) => {
            let path = named.path(None);
            let deleted = named
                .service
                .control(Method::DELETE, &path, &APPLIED, None)
                .await;
            let left = || format!("and {} is left without a schedule", named.id);
            deleted.with_context(left)?;
            Err(refused)
        }
    }
}

/// Whether a run of what is to be sent now takes no longer than a schedule leaves between two.
///
/// # Errors
/// With the numbers where it does not, and what the service refuses.
pub(super) async fn check(named: &Named, schedule: &Value) -> anyhow::Result<()> {
    let (Some(cron), Some(zone)) = (member(schedule, "cron"), member(schedule, "time_zone")) else {
        return Ok(());
    };
    let (path, query) = (
        named.path(Some("plan")),
        [("cron", cron), ("time_zone", zone)],
    );
    let until = Instant::now() + PATIENCE;
    let plan = loop {
        let answer = named.service.look(&path, &query).await?;
        // The service follows `control` a little behind.
        if answer.status != StatusCode::NOT_FOUND || Instant::now() >= until {
            break answer.accepted()?.json()?;
        }
        sleep(LOOK_EVERY).await;
    };
    let plan: Plan = serde_json::from_value(plan)?;
    match plan.misfit() {
        None => Ok(()),
        Some(misfit) => anyhow::bail!("{misfit}; `--anyway` takes it as it is"),
    }
}
