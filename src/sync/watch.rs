//! Owns the waiting for a run, and the bar that shows it.
//!
//! It must never ask faster than a person can read. The surprise: a run that was asked for is known
//! by its request, which the sync's owner takes up when it comes to it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use tokio::time::Instant;

use super::Named;
use super::told::Status;
use crate::output;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so long without anybody who takes a request up, somebody is told.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a sync fares now.
pub(super) async fn look(named: &Named) -> anyhow::Result<Status> {
    let status = named.ask(Method::GET, None, None).await?;
    serde_json::from_value(status).context("answer is not the status of a sync")
}

/// Shows a run until it is over, and then what it came to.
pub(super) async fn live(named: &Named) -> anyhow::Result<ExitCode> {
    let bar = bar();
    loop {
        let status = look(named).await?;
        if status.run.is_none() {
            bar.finish_and_clear();
            for line in status.lines() {
                output::line(line)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        show(&bar, &status);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the run that `request` asked for is over.
pub(super) async fn until_over(named: &Named, request: &str) -> anyhow::Result<ExitCode> {
    let bar = bar();
    let mut patience = Some(Instant::now() + PATIENCE);
    let mut idle = 0;
    loop {
        let status = look(named).await?;
        let is_taken = status.has_handled(request);
        if is_taken && let Some(advice) = status.advice().filter(|_| status.run.is_some()) {
            bar.finish_and_clear();
            anyhow::bail!("the run is not over: {advice}");
        }
        // Taken up and begun are two steps: nothing under way counts when it is seen twice.
        idle = if is_taken && status.run.is_none() {
            idle + 1
        } else {
            0
        };
        if idle > 1 {
            bar.finish_and_clear();
            return ended(&status);
        }
        if !is_taken && patience.is_some_and(|until| Instant::now() >= until) {
            patience = None;
            bar.suspend(|| {
                output::note(
                    "nobody has taken it up yet: is a cohorts service running and ready? Still \
                     waiting",
                );
            });
        }
        show(&bar, &status);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn ended(status: &Status) -> anyhow::Result<ExitCode> {
    let Some(last) = status.ended() else {
        output::note("there was nothing to be done");
        return Ok(ExitCode::SUCCESS);
    };
    output::line(last.line())?;
    if last.unconfirmed() > 0 {
        output::note("`anabranch sync report` names every member that is not confirmed, and why");
    }
    Ok(if last.is_done() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A bar on a terminal; nothing where nobody looks.
fn bar() -> ProgressBar {
    let template = "{bar:40} {human_pos}/{human_len} {msg}";
    match ProgressStyle::with_template(template) {
        Ok(style) => ProgressBar::new(0).with_style(style),
        Err(_) => ProgressBar::new(0),
    }
}

fn show(bar: &ProgressBar, status: &Status) {
    let (all, settled) = status.reached();
    bar.set_length(all);
    bar.set_position(settled);
    bar.set_message(match status.run {
        Some(_) => status.aside(),
        None => "waits for its turn".to_owned(),
    });
}
