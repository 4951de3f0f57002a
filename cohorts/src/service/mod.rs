//! The service: takes snapshots and changes of cohorts over HTTP, and runs the syncs that it owns.
//!
//! A sync is owned by the process that owns its partition of `results`; what is asked of a sync is
//! left in the store, so that any replica may be asked. The surprise: the store decides between two
//! that believe to own a sync (the second to write a generation of its roster fails), so that a
//! slow membership costs repeats, never a roster.

mod auth;
mod directory;
pub(crate) mod http;
mod options;
mod owner;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use runtime::admin::{ConnectionMetrics, Gate, ServerName, serve};
use runtime::log::{self, ProducerOptions};
use runtime::service::Environment;
use runtime::task::TaskKind;
use runtime::view::Follower;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::Store;
use crate::sync::{Hub, Live, Means, Pace, Results, Teller};

pub(crate) use directory::Directory;
pub use options::Options;
pub(crate) use telemetry::Telemetry;

/// Chunks wait this long for company: what runs for minutes need not hurry, and a request a chunk
/// costs the brokers what they need for the events beside it.
const LINGER: Duration = Duration::from_millis(5);

/// Why the service could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The log cannot be used.
    #[error("cohorts: {0}")]
    Log(#[from] log::Error),
    /// The store cannot be used.
    #[error("cohorts: {0}")]
    Store(#[from] crate::Error),
    /// The server ended.
    #[error("cohorts: server: {0}")]
    Server(#[from] std::io::Error),
}

/// Runs the service on `listener` until the tasks are cancelled.
///
/// # Errors
/// Where the log or the store cannot be reached at the start, or the membership is lost for good.
pub async fn run(
    options: Options,
    environment: Environment,
    listener: TcpListener,
) -> Result<(), ServiceError> {
    let root = Store::open(&options.store, tokio::runtime::Handle::current())?;
    let limits = options.server_limits();
    let connections = ConnectionMetrics::new(&environment.metrics, ServerName::Cohorts);
    let tasks = environment.tasks.clone();
    let (app, owner, gate) = open(options, environment, root).await?;
    let server = serve(
        listener,
        http::router(app),
        limits,
        connections,
        tasks.child("http"),
    );
    let (served, owned) = tokio::join!(gate.open_while(tasks.token(), server), async {
        let owned = owner.run().await;
        if owned.is_err() {
            tasks.stop("cohorts own nothing any more");
            tasks.cancel();
        }
        owned
    });
    owned?;
    Ok(served?)
}

/// Opens everything but the socket.
pub(crate) async fn open(
    options: Options,
    environment: Environment,
    root: Store,
) -> Result<(http::App, owner::Owner, Gate), ServiceError> {
    let Environment {
        log,
        topics,
        clock,
        entropy,
        tasks,
        metrics,
        gate,
    } = environment;
    let telemetry = Telemetry::new(&metrics);
    let directory = Arc::new(Directory::default());
    let mut follower = Follower::start(&log, &topics.control, "cohorts").await?;
    follower
        .catch_up(|update| {
            telemetry.control_offset.set(update.applied);
            directory.apply(update.changes, update.applied);
        })
        .await?;
    let hub = Hub::default();
    let results = Results::open(&log, &topics.results, hub.clone()).await?;
    tasks.spawn(TaskKind::LogReader, results.run());
    let producer = ProducerOptions {
        buffer_bytes: options.producer_bytes,
        linger: LINGER,
        ..ProducerOptions::named("cohorts")
    };
    let producer = log.producer(producer).await?;
    let means = Means {
        teller: Teller::new(Arc::clone(&producer), &topics, clock.clone()),
        producer,
        hub,
        directory: Arc::clone(&directory),
        root,
        live: Live::default(),
        pace: Pace::default(),
        turns: Arc::new(Semaphore::new(options.bounds.readers.max(1))),
        bounds: options.bounds.clone(),
        telemetry: telemetry.clone(),
        log,
        topics,
        clock,
    };
    let nudge = Arc::new(Notify::new());
    let app = http::App::new(&options, &means, entropy, Arc::clone(&nudge));
    let owner = owner::Owner::join(&options, means, (follower, nudge), tasks).await?;
    Ok((app, owner, gate))
}
