//! Lanes, limits, offsets, delays, attempts, verdicts and dead letters: everything between a
//! record on `deliveries` and an endpoint's answer.
//!
//! Only [`delivery`] opens sockets to endpoints (rule 18); no offset completes before its work is
//! delivered or durably written elsewhere (rule 6).

pub mod delivery;
pub mod ledger;
pub mod limiter;
pub mod marks;
pub mod schedule;

mod batch;
mod breaker;
mod chunk;
mod concurrency;
mod dead_letter;
mod endpoints;
mod engine;
mod handover;
mod lane;
mod metrics;
mod order;
mod outage;
mod owned;
mod pending;
mod planted;
mod probation;
mod served;
#[cfg(test)]
mod simulation;
mod throughput;
mod uncommitted;
mod work;

use std::sync::Arc;
use std::time::Duration;

use runtime::admin::Gate;
use runtime::clock::{Clock, Entropy};
use runtime::config::Config;
use runtime::log::topics::Topics;
use runtime::log::{
    Acknowledge, Error, Member, MemberOptions, ProducerOptions, ReaderOptions, SharedLog,
    TransactionOptions, patience,
};
use runtime::secret::Sealer;
use runtime::telemetry::Metrics as Registry;
use runtime::view::Follower;
use tokio_util::sync::CancellationToken;

use crate::delivery::Transport;
use crate::endpoints::Endpoints;
use crate::engine::{Engine, Parts, group};

pub use crate::engine::Senders;
use crate::metrics::Metrics;

/// Fetched and not yet taken in, all partitions together; part of what rule 8 counts.
const READ_AHEAD_BYTES: usize = 16 << 20;
/// The most bytes that the reader hands over at once.
const BATCH_BYTES: usize = 64 << 10;
/// Attempt records that are written and not yet acknowledged.
const RECORDER_BYTES: usize = 16 << 20;

/// What the dispatcher is told. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's stable name: it fences its own predecessor.
    pub instance: String,
    /// Records in memory, in the whole process (rule 8).
    pub memory_bytes: usize,
    /// Deliveries that wait in one lane.
    pub lane_memory_bytes: usize,
    /// Attempts at once, in the whole process.
    pub max_in_flight: usize,
    /// Attempts at once to one quota, where its endpoint says nothing.
    pub endpoint_concurrency: u32,
    /// How long a delivery may wait for its turn.
    pub horizon: Duration,
    /// How often positions are committed.
    pub commit_interval: Duration,
    /// How long attempts may go on after a revoke or at shutdown.
    pub drain_deadline: Duration,
    /// After this the log aborts what a dead dispatcher left open.
    pub transaction_timeout: Duration,
    /// An attempt's total deadline, where its endpoint says nothing.
    pub attempt_timeout: Duration,
    /// Where attempts run.
    pub senders: Senders,
    transactional_id: String,
}

impl Options {
    /// The options that `config` holds, for topics named `topics`.
    pub fn from_config(config: &Config, topics: &Topics) -> Self {
        let dispatcher = &config.dispatcher;
        let instance = config.instance();
        Self {
            transactional_id: format!("{}.dispatcher.{instance}", topics.deliveries),
            instance,
            memory_bytes: dispatcher.memory.as_usize(),
            lane_memory_bytes: dispatcher.lane_memory.as_usize(),
            max_in_flight: dispatcher.max_in_flight,
            endpoint_concurrency: dispatcher.endpoint_concurrency,
            horizon: dispatcher.horizon,
            commit_interval: dispatcher.commit_interval,
            drain_deadline: dispatcher.drain_deadline,
            transaction_timeout: dispatcher.transaction_timeout,
            attempt_timeout: dispatcher.attempt_timeout,
            senders: Senders::of(dispatcher.sender_threads),
        }
    }

    fn transactional_id(&self) -> String {
        self.transactional_id.clone()
    }
}

/// What the dispatcher works with.
#[derive(Debug)]
pub struct Context<T> {
    /// The event log.
    pub log: SharedLog,
    /// The names of its topics.
    pub topics: Topics,
    /// What it is told.
    pub options: Options,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Opens endpoints' secrets.
    pub sealer: Arc<Sealer>,
    /// Makes attempts.
    pub transport: Arc<T>,
    /// Where its metrics are registered.
    pub registry: Registry,
    /// Opened when it has joined its group.
    pub ready: Gate,
}

/// Why the dispatcher cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The log says so.
    #[error("dispatcher: {0}")]
    Log(#[from] Error),
    /// Another live process has this instance name.
    #[error(
        "dispatcher: instance `{0}`: another live process has this name; give each its own \
         (`instance` in the configuration)"
    )]
    SameName(String),
    /// A sender ended before the engine; its own log line says why.
    #[error("dispatcher: a sender of attempts has ended")]
    Sender,
}

/// Runs a dispatcher until `token` is cancelled, then drains: no new attempts, attempts under way
/// awaited up to the drain deadline, positions committed, the group left.
///
/// # Errors
/// When the log cannot be used, or another live process has this instance's name.
pub async fn run<T: Transport>(
    context: Context<T>,
    token: CancellationToken,
) -> Result<(), Stopped> {
    let Started {
        engine,
        member,
        ready,
    } = tokio::select! {
        biased;
        () = token.cancelled() => return Ok(()),
        started = start(context) => started?,
    };
    ready.open();
    let result = engine.run(token).await;
    ready.close();
    member.close().await;
    result
}

/// A dispatcher that has joined its group.
struct Started<T> {
    engine: Engine<T>,
    member: Arc<dyn Member>,
    ready: Gate,
}

async fn start<T: Transport>(context: Context<T>) -> Result<Started<T>, Stopped> {
    let Context {
        log,
        topics,
        options,
        clock,
        entropy,
        sealer,
        transport,
        registry,
        ready,
    } = context;
    // `control` is read to its end before the group is joined: what is unknown then is deleted.
    let mut follower = Follower::start(&log, &topics.control, "dispatcher").await?;
    let mut endpoints = Endpoints::new(sealer);
    follower.catch_up(|update| endpoints.apply(update)).await?;
    let reader_options = ReaderOptions {
        name: "dispatcher".to_owned(),
        queue_bytes: READ_AHEAD_BYTES.min(options.memory_bytes / 4),
        batch_bytes: BATCH_BYTES,
    };
    let (reader, fetched) = log.reader(reader_options).await?;
    let producer = log.producer(ProducerOptions::named("dispatcher")).await?;
    let recorder = log
        .producer(ProducerOptions {
            buffer_bytes: RECORDER_BYTES,
            linger: Duration::from_millis(20),
            acknowledge: Acknowledge::Ordered,
            ..ProducerOptions::named("dispatcher-attempts")
        })
        .await?;
    let transactions = || {
        log.transactions(TransactionOptions {
            id: options.transactional_id(),
            timeout: options.transaction_timeout,
        })
    };
    let transactions = patience::at_start(transactions).await?;
    let member_options = MemberOptions {
        group: group(&topics),
        topics: vec![topics.deliveries.clone()],
        instance: options.instance.clone(),
    };
    let (member, membership) = log.member(member_options).await?;
    let parts = Parts {
        options,
        topics,
        log,
        member: Arc::clone(&member),
        membership,
        reader,
        fetched,
        producer,
        recorder,
        follower,
        endpoints,
        transport,
        clock,
        entropy,
        metrics: Metrics::register(&registry),
    };
    Ok(Started {
        engine: Engine::new(parts, transactions),
        member,
        ready,
    })
}

/// The group that dispatchers are members of: it holds their positions in every topic they own.
pub fn consumer_group(topics: &Topics) -> String {
    group(topics)
}
