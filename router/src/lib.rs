//! The router: reads each event once, finds the subscriptions that want it, and writes one record
//! per partition with all its targets there (rules 2 and 3).
//!
//! It must never deliver anything, keep state of its own beside the group's positions, or know
//! which log it runs on. The surprise: it uses no transactions. A restart may write a target
//! again, and the dispatcher drops the repeat by its mark.

pub mod index;
pub mod matching;
mod routing;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use runtime::admin::Gate;
use runtime::clock::{Clock, Entropy};
use runtime::log::topics::Topics;
use runtime::log::{Error as LogError, SharedLog, TopicName};
use runtime::telemetry::Metrics;
use schemas::records::Incarnation;
use tokio_util::sync::CancellationToken;

use routing::Router;
use routing::metrics::RouterMetrics;

pub use routing::window::Limits as Window;

/// How the router behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's stable instance name.
    pub instance: String,
    /// The consumer group; see [`group`].
    pub group: String,
    /// The topics that events are read from.
    pub sources: Vec<TopicName>,
    /// Positions are committed at most so far apart (rule 3: 250 ms).
    pub commit_interval: Duration,
    /// What each source partition may have outstanding.
    pub window: Window,
    /// Deliveries a second of past events, for each source partition; 0 holds all replays.
    pub replay_rate: u32,
    /// How long a partition that is given up may wait for what is in flight.
    pub drain_deadline: Duration,
}

impl Options {
    /// The defaults of the design for one instance.
    #[must_use]
    pub fn named(instance: impl Into<String>, prefix: &str, topics: &Topics) -> Self {
        Self {
            instance: instance.into(),
            group: group(prefix),
            sources: vec![topics.events.clone(), topics.bulk.clone()],
            commit_interval: Duration::from_millis(250),
            window: Window {
                targets: 64_000,
                bytes: 8 << 20,
                age: Duration::from_secs(10),
            },
            replay_rate: 1_000,
            drain_deadline: Duration::from_secs(5),
        }
    }
}

/// The routers' group under the topics' prefix.
#[must_use]
pub fn group(prefix: &str) -> String {
    format!("{prefix}router")
}

/// Why a router ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log refuses something for good.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another live process has this instance's name.
    #[error("router {instance}: another live process has this instance name: {error}")]
    Fenced {
        /// The name.
        instance: String,
        /// What the log says.
        error: LogError,
    },
    /// A newer live process has this instance's name; a router opens no transaction that would
    /// have told so.
    #[error(
        "router: instance `{0}`: another live process has this name; give each its own \
         (`instance` in the configuration)"
    )]
    SameName(String),
    /// The log ended the membership.
    #[error("router's membership has failed: {0}")]
    Membership(LogError),
    /// The membership ended without a word.
    #[error("router's membership has ended")]
    MembershipEnded,
    /// The reader ended without a word.
    #[error("router's reader has ended")]
    ReaderEnded,
}

/// What the router is given by its process.
#[derive(Debug)]
pub struct Context {
    /// The log.
    pub log: SharedLog,
    /// The topics' names.
    pub topics: Topics,
    /// The time.
    pub clock: Clock,
    /// Chance, which tells two processes of one name apart.
    pub entropy: Entropy,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Opened when `control` is read to its end and the group is joined.
    pub gate: Gate,
}

/// Reads `control` to its end, joins the group and routes until `token` is cancelled. Then, in this
/// order: reading stops, what is in flight is acknowledged, positions are committed, the group is
/// left.
///
/// # Errors
/// When the router cannot go on; nothing is lost, the next owner repeats what was not committed.
pub async fn run(
    context: Context,
    options: Options,
    token: CancellationToken,
) -> Result<(), Error> {
    let Context {
        log,
        topics,
        clock,
        entropy,
        metrics,
        gate,
    } = context;
    let incarnation = Incarnation::from_uuid_v7(entropy.uuid_v7(&clock));
    let metrics = RouterMetrics::new(&metrics);
    let router = tokio::select! {
        biased;
        () = token.cancelled() => return Ok(()),
        router = Router::open(log, topics, options, clock, (metrics, incarnation)) => router?,
    };
    gate.open();
    let ended = router.run(token).await;
    gate.close();
    ended
}
