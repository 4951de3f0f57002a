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
mod front;
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

use runtime::admin::{ConnectionMetrics, ServerName};
use runtime::log::{self, Class};
use runtime::service::Environment;
use runtime::task::{TaskKind, Tasks};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use leader::NotLeader;
pub use options::{BadOptions, Options};
pub use store::Ended;

use api::{App, OperatorKey, TestEvents};
use applied::Replicas;
use dead::DeadLetters;
use disabling::Disabling;
use dry_run::DryRuns;
use front::Front;
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

impl Error {
    /// Whether it may lead again: nobody has taken its place for good, as far as this says.
    fn passes(&self) -> bool {
        match self {
            Self::NotLeader(NotLeader::Lost { .. }) | Self::Writer(Ended::Fenced(_)) => true,
            Self::NotLeader(NotLeader::Log(error))
            | Self::Writer(Ended::Log(error))
            | Self::Log(error) => matches!(error.class(), Class::Retry | Class::Unknown),
            Self::NotLeader(NotLeader::Taken { .. })
            | Self::Writer(Ended::Installation(_))
            | Self::Server(_) => false,
        }
    }
}

/// Runs the service on `listener` until the tasks are cancelled: takes the leadership, reads
/// `control` to its end, serves; at the end lets requests under way finish, then leaves the group.
/// Where the leadership is lost, as by a log that was away, requests are refused until it is taken
/// again.
///
/// # Errors
/// Where another replica serves, or the log cannot be used.
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
    let http = environment.tasks.child("http");
    let connections = ConnectionMetrics::new(&environment.metrics, ServerName::Control);
    let limits = options.limits();
    let service = Service {
        options,
        environment,
        metrics,
        front: Front::default(),
        stop_writing: CancellationToken::new(),
    };
    // What requests under way have asked for is written before the writer ends.
    let serving = async {
        let served = service
            .front
            .serve(listener, limits, connections, http.clone());
        let served = served.await;
        service.stop_writing.cancel();
        served
    };
    let leading = async {
        let ended = Box::pin(service.lead_on(&mut leader, &http)).await;
        http.cancel();
        ended
    };
    let (served, led) = tokio::join!(serving, leading);
    leader.close().await;
    led?;
    Ok(served?)
}

/// Fences the writer before, reads everything, and starts to follow, in `tasks`, who has applied
/// what.
async fn open(
    options: &Options,
    environment: &Environment,
    metrics: &ControlMetrics,
    leader: &Leader,
    tasks: &Tasks,
) -> Result<(App, Writer, Redrives), Error> {
    let Environment {
        log,
        topics,
        clock,
        entropy,
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

/// What lasts beyond a leadership.
struct Service {
    options: Options,
    environment: Environment,
    metrics: ControlMetrics,
    front: Front,
    /// No request is under way any more.
    stop_writing: CancellationToken,
}

impl Service {
    /// Leads until `http` is cancelled; again where the leadership was lost and nobody else took
    /// it.
    async fn lead_on(&self, leader: &mut Leader, http: &Tasks) -> Result<(), Error> {
        loop {
            let tasks = http.child("leadership");
            let ended = self.lead(leader, &tasks).await;
            // Who is not the leader answers nothing more.
            self.front.put(None);
            self.metrics.leader.set(0);
            tasks.cancel();
            tasks.finished().await;
            let Err(error) = ended else { return Ok(()) };
            if !error.passes() {
                return Err(error);
            }
            warn!(%error, "control does not lead, and waits until it does again");
            tokio::select! {
                biased;
                () = http.token().cancelled() => return Ok(()),
                again = leader.again() => again?,
            }
        }
    }

    /// Serves as long as this process is the leader and is not asked to stop. Work beside the
    /// writing ends with `tasks`.
    async fn lead(&self, leader: &mut Leader, tasks: &Tasks) -> Result<(), Error> {
        let (options, environment) = (&self.options, &self.environment);
        info!(instance = options.instance, "control is the leader");
        let opening = open(options, environment, &self.metrics, leader, tasks);
        let (app, writer, redrives) = tokio::select! {
            biased;
            () = tasks.token().cancelled() => return Ok(()),
            opened = opening => opened?,
        };
        self.metrics.leader.set(1);
        let routes = api::router(app.clone(), options.max_body_bytes);
        self.front.put(Some(routes));
        let writing = async {
            let ended = tokio::select! {
                lost = leader.lost() => Err(Error::from(lost)),
                ended = writer.run(&self.stop_writing) => ended.map_err(Error::from),
            };
            tasks.cancel();
            ended
        };
        let rewrapping = async {
            tokio::select! {
                () = tasks.token().cancelled() => {}
                () = api::rewrap(&app) => {}
            }
        };
        let redriving = async {
            tokio::select! {
                () = tasks.token().cancelled() => {}
                () = redrives.run() => {}
            }
        };
        let all = Box::pin(async { tokio::join!(writing, rewrapping, redriving) });
        let (written, (), ()) = environment.gate.open_while(tasks.token(), all).await;
        written
    }
}

#[cfg(test)]
mod tests;
