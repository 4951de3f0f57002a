//! Owns what a process says about itself: logs on standard error, metrics, and the trace context
//! that it carries along.
//!
//! It must never hold a secret, a payload or a URL in a label. The surprise: metrics live in a
//! registry that is passed in, not in the process, so that several services in one process (or one
//! test) can share one or have their own.

mod lint;
mod metrics;
mod process;
mod trace;

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

pub use lint::faults as metric_faults;
pub use metrics::{
    BATCH_BUCKETS, Family, LATENCY_BUCKETS, Label, Metric, Metrics, SEMCONV_BUCKETS,
};
pub use process::add_process_metrics;
pub use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
pub use trace::TraceParent;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's text is not one.
    #[error("`telemetry.filter`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logs go somewhere already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sends the process's logs to standard error. Call it once, in `main`.
///
/// # Errors
/// Where the filter cannot be parsed, or logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say so by a panic where standard error is a file on a full disk.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let set = match format {
        LogFormat::Text => {
            let terminal = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(terminal).finish().try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    set.map_err(|_| Error::AlreadySet)
}

/// Whether `filter` is one that [`init`] takes.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), Error> {
    EnvFilter::try_new(filter)?;
    Ok(())
}
