//! Owns the admin port (`/livez`, `/readyz`, `/metrics`) and the HTTP server that ingest and
//! control stand on too.
//!
//! The admin port must never carry anything that needs a key. The surprise: a gate that its owner
//! dropped stays closed, so a part that died keeps the process unready.

mod readiness;
mod server;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::net::TcpListener;

use crate::problem::{self, Problem, ProblemType};
use crate::task::{TaskKind, Tasks};
use crate::telemetry::Metrics;

pub use readiness::{Gate, Readiness};
pub use server::{ConnectionMetrics, ServerLimits, ServerName, serve};

/// A scraper and a few probes: more connections than this are not the admin port's.
const CONNECTIONS_MAX: usize = 64;

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: Metrics,
}

/// The routes of the admin port.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Admin { readiness, metrics })
}

/// Binds the admin port and serves it until `tasks` is cancelled. Returns the address it got.
///
/// # Errors
/// The system's, where the address cannot be bound.
pub async fn start(
    bind: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    tasks: &Tasks,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(bind).await?;
    let address = listener.local_addr()?;
    let connections = ConnectionMetrics::new(&metrics, ServerName::Admin);
    let limits = ServerLimits {
        max_connections: CONNECTIONS_MAX,
        // Probes are short; nobody waits for a scrape at the end.
        drain_deadline: Duration::from_secs(1),
        ..ServerLimits::default()
    };
    let app = router(readiness, metrics);
    let server = serve(listener, app, limits, connections, tasks.clone());
    tasks.spawn(TaskKind::AdminServer, server);
    Ok(address)
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let waiting = admin.readiness.waiting();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let problem = Problem::new(ProblemType::Unavailable).retry_after(Duration::from_secs(1));
    let problem = problem.detail(format!("not ready: {}", waiting.join(", ")));
    let each = |problem: Problem, name| problem.error(format!("/{name}"), "not ready");
    waiting.into_iter().fold(problem, each).into_response()
}

async fn render(State(admin): State<Admin>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, admin.metrics.render()).into_response()
}

#[cfg(test)]
mod tests;
