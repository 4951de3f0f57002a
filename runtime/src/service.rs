//! Owns what a service that answers HTTP is given by its process.
//!
//! It must never know which service that is.

use crate::admin::Gate;
use crate::clock::{Clock, Entropy};
use crate::log::SharedLog;
use crate::log::topics::Topics;
use crate::task::Tasks;
use crate::telemetry::Metrics;

/// What a service works with.
#[derive(Debug)]
pub struct Environment {
    /// The event log.
    pub log: SharedLog,
    /// The names of the topics.
    pub topics: Topics,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// The group that the service's tasks belong to; cancelled when it must end.
    pub tasks: Tasks,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Opened when it takes requests, closed when it stops.
    pub gate: Gate,
}
