//! Members a second through a sync, over those of a plain client that sends one a request.
//!
//! The same partner and the same number of requests at once. The surprise: the partner takes its
//! time, as partners do, or the two would measure processors alone.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Plan;
use super::{AT_ONCE, Ground, profile};
use crate::client::Connection;
use crate::members::Members;
use crate::partner::Partner;
use crate::report::{Report, median, note};

/// Milliseconds that the partner takes for an answer.
const SLOW_MS: &str = "20";
const MEMBERS: u64 = 2_000_000;
const MEMBERS_QUICK: u64 = 400_000;
/// Of those, one in so many is sent by the plain client.
const SAMPLE: u64 = 50;
const RATIO: f64 = 50.0;

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or the partner does not hold the cohort.
pub(in crate::bench) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.members.unwrap_or(plan.choose(MEMBERS, MEMBERS_QUICK));
    let args = ["--no-limits", "--slow", SLOW_MS];
    let profile = profile(50, AT_ONCE, None)?;
    let (mut synced, mut naive) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let members = Members {
            count,
            is_changed: false,
        };
        let mut ground = Ground::new(plan, &profile, &args, &[]).await?;
        let took = ground.sync(members).await?;
        synced.push(f64::from(u32::try_from(count)?) / took.run);
        let dir = tempfile::tempdir()?;
        let partner = Partner::start(&plan.bin, dir.path(), &profile, &args).await?;
        naive.push(one_by_one(partner, members, count / SAMPLE).await?);
        note(format_args!(
            "round {round}: {:?}/s synced, {:?}/s one by one",
            synced.last(),
            naive.last()
        ));
    }
    report.print(&report.figure("members one by one", "1/s", &naive))?;
    let synced = report.figure("members through a sync", "1/s", &synced);
    report.print(&synced.of(median(&naive)).at_least(RATIO))
}

/// Members a second of a plain client.
async fn one_by_one(mut partner: Partner, members: Members, count: u64) -> anyhow::Result<f64> {
    let mut first = Connection::open(partner.address(), "").await?;
    let made = first
        .json(Method::POST, "/lists", Some(&json!({ "name": "load" })))
        .await?;
    let list = made.get("id").and_then(Value::as_str).context("no list")?;
    let path = format!("/lists/{list}/members");
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let clients = (0..AT_ONCE).map(async |_| -> anyhow::Result<()> {
        let mut connection = Connection::open(partner.address(), "").await?;
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count {
                return Ok(());
            }
            let body = format!(r#"{{"members":[{}]}}"#, members.json(place));
            let asked = (Method::POST, path.as_str());
            let answer = connection
                .send(asked, "application/json", Bytes::from(body))
                .await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
        }
    });
    try_join_all(clients).await?;
    let seconds = began.elapsed().as_secs_f64();
    let added = partner.counts().await?.added;
    ensure!(added == count, "{added} of {count} arrived");
    Ok(f64::from(u32::try_from(count)?) / seconds)
}
