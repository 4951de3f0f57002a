//! The admin API and the state behind it: tenants, API keys, endpoints, subscriptions, cohorts,
//! syncs; and redrives, which send dead letters again.
//!
//! One replica at a time serves and writes; a second says so and ends. It must never answer a
//! change before it is in the log, nor show a secret twice. The surprise: there is no database: the
//! compacted `control` topic is the state, and this process reads it to its end before it serves.

mod api;
mod applied;
mod dead;
mod disabling;
mod dry_run;
mod leader;
mod members;
mod metrics;
mod options;
mod progress;
mod redrive;
mod replays;
mod store;

use std::io;
use std::sync::Arc;

use runtime::admin::{ConnectionMetrics, ServerName, serve};
use runtime::log;
use runtime::service::Environment;
use runtime::task::TaskKind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use leader::NotLeader;
pub use options::{BadOptions, Options};
pub use store::Ended;

use api::{App, OperatorKey, TestEvents};
use applied::Replicas;
use dead::DeadLetters;
use disabling::Disabling;
use dry_run::DryRuns;
use leader::Leader;
use members::Members;
use metrics::ControlMetrics;
use redrive::Redrives;
use replays::Replays;
use store::{Store, Writer, WriterOptions};

/// Why the service ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not, or no longer, the one replica that serves.
    #[error("control: {0}")]
    NotLeader(#[from] NotLeader),
    /// It cannot write.
    #[error("control: {0}")]
    Writer(#[from] Ended),
    /// The log cannot be used.
    #[error("control: {0}")]
    Log(#[from] log::Error),
    /// The server ended.
    #[error("control: server: {0}")]
    Server(#[from] io::Error),
}

/// Runs the service on `listener` until the tasks are cancelled: takes the leadership, reads
/// `control` to its end, serves; at the end lets requests under way finish, then leaves the group.
///
/// # Errors
/// Where another replica serves, the leadership is lost, or the log cannot be used.
pub async fn run(
    options: Options,
    environment: Environment,
    listener: TcpListener,
) -> Result<(), Error> {
    let metrics = ControlMetrics::new(&environment.metrics);
    let token = environment.tasks.token().clone();
    let partition = environment.topics.control.partition(0);
    let joining = Leader::take(
        &environment.log,
        &options.group,
        partition,
        &options.instance,
    );
    let mut leader = tokio::select! {
        biased;
        () = token.cancelled() => return Ok(()),
        taken = joining => taken?,
    };
    info!(instance = options.instance, "control is the leader");
    metrics.leader.set(1);
    let led = tokio::select! {
        biased;
        () = token.cancelled() => Ok(None),
        opened = open(&options, &environment, &metrics, &leader) => opened.map(Some),
    };
    let ended = match led {
        Ok(Some(opened)) => {
            Box::pin(lead(&options, &environment, listener, &mut leader, opened)).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    metrics.leader.set(0);
    environment.gate.close();
    leader.close().await;
    ended
}

/// Fences the writer before, reads everything, and starts to follow who has applied what.
async fn open(
    options: &Options,
    environment: &Environment,
    metrics: &ControlMetrics,
    leader: &Leader,
) -> Result<(App, Writer, Redrives), Error> {
    let Environment {
        log,
        topics,
        clock,
        entropy,
        tasks,
        ..
    } = environment;
    let (store, writer): (Store, Writer) = Writer::open(WriterOptions {
        log: log.clone(),
        control: topics.control.clone(),
        transactional_id: options.transactional_id.clone(),
        partitions: options.partitions,
        clock: clock.clone(),
        metrics: metrics.clone(),
    })
    .await?;
    let session = leader.session_timeout();
    let (replicas, reporter) =
        Replicas::new(log.clone(), topics.progress.clone(), session, clock.clone());
    tasks.spawn(TaskKind::ViewFollower, reporter.run());
    let disabling = Disabling {
        log: log.clone(),
        progress: topics.progress.clone(),
        store: store.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
    };
    tasks.spawn(TaskKind::Reporter, disabling.run());
    let (replays, following) = Replays::new(log.clone(), topics.progress.clone(), store.clone());
    tasks.spawn(TaskKind::ViewFollower, following.run());
    let (members, counting) = Members::new(log.clone(), topics.progress.clone());
    tasks.spawn(TaskKind::ViewFollower, counting.run());
    let seen = (store.clone(), replicas.clone());
    let redrives = Redrives::open(log, topics, seen, clock.clone()).await?;
    let app = App {
        store,
        replicas,
        topics: Arc::new(topics.clone()),
        tests: TestEvents::open(log, topics).await?,
        dead: DeadLetters::new(log.clone(), topics.dead.clone()),
        dry_runs: DryRuns::new(log.clone(), topics.events.clone()),
        live: redrives.live(),
        replays,
        members,
        sealer: Arc::clone(&options.sealer),
        operator: OperatorKey::new(&options.operator_key),
        urls: Arc::new(options.urls.clone()),
        clock: clock.clone(),
        entropy: entropy.clone(),
        metrics: metrics.clone(),
    };
    Ok((app, writer, redrives))
}

/// Serves as long as this process is the leader and is not asked to stop.
async fn lead(
    options: &Options,
    environment: &Environment,
    listener: TcpListener,
    leader: &mut Leader,
    (app, writer, redrives): (App, Writer, Redrives),
) -> Result<(), Error> {
    let http = environment.tasks.child("http");
    let stop_writing = CancellationToken::new();
    let connections = ConnectionMetrics::new(&environment.metrics, ServerName::Control);
    let router = api::router(app.clone(), options.max_body_bytes);
    // What requests under way have asked for is written before the writer ends.
    let serving = async {
        let limits = options.limits();
        let served = serve(listener, router, limits, connections, http.clone()).await;
        stop_writing.cancel();
        served
    };
    let serving = environment.gate.open_while(http.token(), serving);
    // Who is not the leader answers nothing more.
    let writing = async {
        let ended = tokio::select! {
            lost = leader.lost() => Err(Error::from(lost)),
            ended = writer.run(&stop_writing) => ended.map_err(Error::from),
        };
        http.cancel();
        ended
    };
    let rewrapping = async {
        tokio::select! {
            () = http.token().cancelled() => {}
            () = api::rewrap(&app) => {}
        }
    };
    let redriving = async {
        tokio::select! {
            () = http.token().cancelled() => {}
            () = redrives.run() => {}
        }
    };
    let (served, written, (), ()) = tokio::join!(serving, writing, rewrapping, redriving);
    written?;
    Ok(served?)
}

#[cfg(test)]
mod tests;
