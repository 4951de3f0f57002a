//! Owns the list of benchmarks, and what each is told.

mod backlog;
mod batch;
mod cohort;
mod dispatcher;
mod embedded;
mod fanout;
mod hops;
mod ingest;
mod isolation;
mod latency;
mod matching;
mod publish;
mod routed;
mod routing;
mod scale;
mod wide;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::report::{Report, line};

pub(crate) use matching::weigh;
pub(crate) use publish::post;

/// What a benchmark is told.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The binary under test.
    pub(crate) bin: PathBuf,
    /// Kafka's brokers; empty for none.
    pub(crate) brokers: String,
    /// Rounds; figures are their medians.
    pub(crate) rounds: usize,
    /// Settings for every process under test, as `section.key=value`.
    pub(crate) settings: Vec<String>,
    /// Fewer events, shorter warm-up.
    pub(crate) quick: bool,
    /// Members of a cohort; none for what the benchmark says.
    pub(crate) members: Option<u64>,
}

impl Plan {
    /// `full` by the book, `quick` where that is asked for.
    fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Deliveries a second from a full topic to one endpoint.
    Dispatcher,
    /// Events a second over HTTP into Kafka.
    Ingest,
    /// Time from an event's intended sending to its arrival.
    Latency,
    /// One event to 10,000 endpoints, and 400 to 100.
    Fanout,
    /// Everything on the embedded log.
    Embedded,
    /// Deferring in transactions.
    Hops,
    /// Healthy endpoints beside hanging and refusing ones.
    Isolation,
    /// A million deliveries for one limited endpoint, and its neighbours.
    Backlog,
    /// 1, 2 and 4 dispatchers, and the death of one.
    Scale,
    /// Events a second in requests of 50 and of one.
    Batch,
    /// Events a second that the index matches on one core.
    Matching,
    /// Events and deliveries a second of a router alone.
    Routing,
    /// A cohort into a partner's list, and what changed of it.
    Cohort,
    /// A sync beside a client that sends one member a request.
    CohortNaive,
    /// A sync at a partner's limit.
    CohortLimit,
    /// Other endpoints while a sync runs.
    CohortBesideRealtime,
}

impl Bench {
    /// Its name on the command line and in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Ingest => "ingest",
            Self::Latency => "latency",
            Self::Fanout => "fanout",
            Self::Embedded => "embedded",
            Self::Hops => "hops",
            Self::Isolation => "isolation",
            Self::Backlog => "backlog",
            Self::Scale => "scale",
            Self::Batch => "batch",
            Self::Matching => "matching",
            Self::Routing => "routing",
            Self::Cohort => "cohort",
            Self::CohortNaive => "cohort-naive",
            Self::CohortLimit => "cohort-limit",
            Self::CohortBesideRealtime => "cohort-beside-realtime",
        }
    }

    /// What it needs beside the binary.
    pub(crate) fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Dispatcher => &["kafka", "wrk"],
            Self::Ingest
            | Self::Latency
            | Self::Fanout
            | Self::Hops
            | Self::Isolation
            | Self::Backlog
            | Self::Scale
            | Self::Batch
            | Self::Routing
            | Self::Cohort
            | Self::CohortNaive
            | Self::CohortLimit
            | Self::CohortBesideRealtime => &["kafka"],
            Self::Embedded | Self::Matching => &[],
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Dispatcher => "deliveries a second from a full topic to one endpoint, beside wrk",
            Self::Ingest => "events a second over HTTP into Kafka, beside a bare producer",
            Self::Latency => "intended sending to arrival, open loop, on Kafka and embedded",
            Self::Fanout => {
                "one event to 10,000 endpoints, and to 100,000 subscriptions; 400 to 100"
            }
            Self::Embedded => "events a second end to end on local disk; memory and disk",
            Self::Hops => "deliveries a second into a delay topic, beside plain commits",
            Self::Isolation => "latency of healthy endpoints beside hanging and refusing ones",
            Self::Backlog => "a million deliveries for one limited endpoint, and its neighbours",
            Self::Scale => "limits and their use with 1, 2 and 4 dispatchers, and one killed",
            Self::Batch => "deliveries a second in requests of 50 and of one, from a full topic",
            Self::Matching => "events a second that one core matches, beside sonic-rs and quamina",
            Self::Routing => "events a second of a router on a full topic, beside a bare loop",
            Self::Cohort => "seconds until a partner has a cohort, and what changed of it",
            Self::CohortNaive => "members a second of a sync, beside one member a request",
            Self::CohortLimit => "seconds of a sync at a partner's limit, beside what it allows",
            Self::CohortBesideRealtime => "latency of other endpoints beside a sync and without",
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Where it cannot be carried out; a bar that is missed is no error.
    pub(crate) async fn run(self, plan: Plan, report: Report) -> anyhow::Result<()> {
        match self {
            Self::Dispatcher => dispatcher::run(&plan, report).await,
            Self::Ingest => ingest::run(&plan, report).await,
            Self::Latency => latency::run(&plan, report).await,
            Self::Fanout => fanout::run(&plan, report).await,
            Self::Embedded => embedded::run(&plan, report).await,
            Self::Hops => hops::run(&plan, report).await,
            Self::Isolation => isolation::run(&plan, report).await,
            Self::Backlog => backlog::run(&plan, report).await,
            Self::Scale => scale::run(&plan, report).await,
            Self::Batch => batch::run(&plan, report).await,
            Self::Matching => matching::run(&plan, report).await,
            Self::Routing => routing::run(&plan, report).await,
            Self::Cohort => cohort::first(&plan, report).await,
            Self::CohortNaive => cohort::naive(&plan, report).await,
            Self::CohortLimit => cohort::limit(&plan, report).await,
            Self::CohortBesideRealtime => cohort::beside_realtime(&plan, report).await,
        }
    }
}

/// Prints the list.
///
/// # Errors
/// Where standard output is gone.
pub(crate) fn list() -> anyhow::Result<()> {
    for bench in Bench::value_variants() {
        line(format_args!("{:<22} {}", bench.name(), bench.about()))?;
    }
    Ok(())
}
