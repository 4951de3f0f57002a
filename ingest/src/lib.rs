//! HTTP in: takes events from producers, checks who sends them and what they are, and answers once
//! they are in the log (rule 1).
//!
//! It must never buffer without a bound, nor answer 202 before the log has acknowledged. The
//! surprise: a 503 says nothing about whether an event was written; sending it again with the same
//! id is safe.

mod admit;
mod auth;
mod directory;
mod http;
mod options;
mod ordered;
mod publish;
mod telemetry;

use std::sync::Arc;

use runtime::admin::{ConnectionMetrics, ServerName, serve};
use runtime::log;
use runtime::service::Environment;
use runtime::task::{TaskKind, Tasks};
use runtime::view::Follower;
use tokio::net::TcpListener;

use crate::admit::Budget;
use crate::auth::Auth;
use crate::directory::Directory;
use crate::http::App;
use crate::publish::Publisher;
use crate::telemetry::Telemetry;

pub use crate::options::Options;

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be used.
    #[error("ingest: {0}")]
    Log(#[from] log::Error),
    /// The server ended.
    #[error("ingest: server: {0}")]
    Server(#[from] std::io::Error),
}

/// Runs the service on `listener` until the tasks are cancelled: reads `control` to its end, takes
/// requests, and at the end lets those under way finish within the drain deadline.
///
/// # Errors
/// Where the log cannot be reached at the start.
pub async fn run(
    options: Options,
    environment: Environment,
    listener: TcpListener,
) -> Result<(), Error> {
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
    let directory = Arc::new(Directory::new(&options));
    let mut follower = Follower::start(&log, &topics.control, "ingest").await?;
    follower
        .catch_up(|update| {
            telemetry.control_offset.set(update.applied);
            directory.apply(update.changes);
        })
        .await?;
    let publisher = Publisher::open(log, &topics, &options, telemetry.clone()).await?;
    follow(follower, &directory, &telemetry, &tasks);

    let limits = options.server_limits();
    let app = App {
        auth: Auth::new(Arc::clone(&directory), options.operator_key.as_ref()),
        budget: Budget::new(
            options.max_in_flight_bytes,
            options.room_timeout,
            &telemetry,
        ),
        publisher,
        clock,
        entropy,
        telemetry,
        options,
    };
    let connections = ConnectionMetrics::new(&metrics, ServerName::Ingest);
    let server = serve(
        listener,
        http::router(app),
        limits,
        connections,
        tasks.child("http"),
    );
    Ok(gate.open_while(tasks.token(), server).await?)
}

/// Keeps tenants and keys as `control` has them: a deleted key is refused from then on.
fn follow(
    mut follower: Follower,
    directory: &Arc<Directory>,
    telemetry: &Telemetry,
    tasks: &Tasks,
) {
    let (directory, telemetry) = (Arc::clone(directory), telemetry.clone());
    tasks.spawn(TaskKind::ViewFollower, async move {
        loop {
            match follower.next().await {
                Ok(update) => {
                    directory.apply(update.changes);
                    telemetry.control_offset.set(update.applied);
                }
                Err(error) => return Err::<(), _>(error),
            }
        }
    });
}

#[cfg(test)]
mod tests;
