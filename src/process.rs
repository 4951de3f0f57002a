//! Owns a process that runs services: what they share, how it starts, and the order in which it
//! ends.
//!
//! It must never know what a service does. The surprise: a signal only asks; the services are then
//! cancelled one after another, those that take work in before those that carry it out.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use runtime::admin::{self, Gate, Readiness};
use runtime::clock::{Clock, Entropy};
use runtime::config::Config;
use runtime::log::SharedLog;
use runtime::log::embedded::Closed;
use runtime::log::topics::Topics;
use runtime::service::Environment;
use runtime::task::{Cause, Ended, Shutdown, Signals, Tasks};
use runtime::telemetry::{Metrics, add_process_metrics};
use tokio::net::TcpListener;

use crate::{open, output};

/// For the admin port, which answers probes until everything else has ended.
const ADMIN_END: Duration = Duration::from_secs(1);

/// A part of the process, in the order in which they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Those who look on.
    Attempts,
    /// Takes events: from its end on, clients go elsewhere.
    Ingest,
    /// Takes changes.
    Control,
    /// Makes chunks of cohorts.
    Cohorts,
    /// Routes what was taken.
    Router,
    /// Delivers what was routed, and commits.
    Dispatcher,
}

impl Part {
    /// Its name in logs, gates and task groups.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Ingest => "ingest",
            Self::Control => "control",
            Self::Cohorts => "cohorts",
            Self::Router => "router",
            Self::Dispatcher => "dispatcher",
        }
    }
}

/// What the services of one process share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) log: SharedLog,
    pub(crate) topics: Topics,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    /// Where the admin port listens.
    pub(crate) admin: SocketAddr,
    starting: Gate,
    tasks: Tasks,
    admin_tasks: Tasks,
    parts: Vec<(Part, Tasks)>,
    signals: Signals,
    closed: Option<Closed>,
}

impl Process {
    /// Opens the log and the admin port.
    ///
    /// # Errors
    /// Where one of them cannot be opened.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        let signals = Signals::install().context("signals")?;
        let clock = Clock::system();
        let metrics = Metrics::new();
        add_process_metrics(&metrics);
        let readiness = Readiness::new();
        // Until every part has opened its own gate.
        let starting = readiness.gate("start");
        let tasks = Tasks::new("anabranch");
        let admin_tasks = tasks.child("admin");
        let bind = config.admin.bind;
        let admin = admin::start(bind, readiness.clone(), metrics.clone(), &admin_tasks)
            .await
            .with_context(|| format!("admin port {bind} (option `admin.bind`)"))?;
        let (log, closed) = open::open(&config, &clock).await?;
        Ok(Self {
            topics: Topics::with_prefix(&config.topics.prefix),
            config,
            log,
            clock,
            entropy: Entropy::system(),
            metrics,
            readiness,
            admin,
            starting,
            tasks,
            admin_tasks,
            parts: Vec::new(),
            signals,
            closed,
        })
    }

    /// The task group of a new part.
    pub(crate) fn part(&mut self, part: Part) -> Tasks {
        let tasks = self.tasks.child(part.name());
        self.parts.push((part, tasks.clone()));
        tasks
    }

    /// What a new part that answers HTTP works with.
    pub(crate) fn environment(&mut self, part: Part) -> Environment {
        let name = part.name();
        Environment {
            log: self.log.clone(),
            topics: self.topics.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.fork(name),
            tasks: self.part(part),
            metrics: self.metrics.clone(),
            gate: self.readiness.gate(name),
        }
    }

    /// Says that every part has its own gate: from here on they decide.
    pub(crate) fn started(&self) {
        self.starting.open();
    }

    /// Waits until every gate is open.
    ///
    /// # Errors
    /// Where the process is to stop before.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let readiness = self.readiness.clone();
        tokio::select! {
            () = readiness.ready() => Ok(()),
            cause = self.stopping() => Err(anyhow::anyhow!("{cause}")),
        }
    }

    /// Waits for a signal, or for a task without which the process is nothing. Cancel-safe.
    pub(crate) async fn stopping(&mut self) -> Cause {
        tokio::select! {
            cause = self.tasks.stopping() => cause,
            signal = self.signals.recv() => {
                self.tasks.stop(signal);
                self.tasks.stopping().await
            }
        }
    }

    /// Waits until it is to stop, then ends in order.
    ///
    /// # Errors
    /// What made it stop, unless somebody asked.
    pub(crate) async fn run(mut self) -> anyhow::Result<ExitCode> {
        let cause = self.stopping().await;
        self.end(cause).await
    }

    /// Ends the parts in order, under the deadline; a second signal ends everything at once.
    ///
    /// # Errors
    /// What made it stop, unless somebody asked.
    pub(crate) async fn end(mut self, cause: Cause) -> anyhow::Result<ExitCode> {
        tracing::info!(%cause, "stopping");
        self.parts.sort_by_key(|(part, _)| *part);
        let mut shutdown = Shutdown::new(self.config.shutdown.deadline);
        for (part, tasks) in std::mem::take(&mut self.parts) {
            shutdown = shutdown.step(part.name(), async move {
                tasks.cancel();
                tasks.finished().await;
            });
        }
        let Self {
            log,
            closed,
            tasks,
            admin_tasks,
            mut signals,
            ..
        } = self;
        let shutdown = shutdown
            .step("log", async move {
                // The last handle: what it still has to write is written.
                drop(log);
                if let Some(closed) = closed {
                    closed.wait().await;
                }
            })
            .step_within("admin port", ADMIN_END, async move {
                admin_tasks.cancel();
                admin_tasks.finished().await;
            });
        let ended = shutdown.run(async { _ = signals.recv().await }).await;
        tasks.cancel();
        conclude(&cause, &ended)
    }
}

fn conclude(cause: &Cause, ended: &Ended) -> anyhow::Result<ExitCode> {
    if cause.is_failure() {
        anyhow::bail!("{cause}");
    }
    match ended {
        Ended::Clean => return Ok(ExitCode::SUCCESS),
        Ended::Late(steps) => output::note(format_args!("not ended in time: {}", steps.join(", "))),
        Ended::Interrupted(step) => output::note(format_args!("interrupted during: {step}")),
    }
    Ok(ExitCode::FAILURE)
}

/// Binds the address of a service.
///
/// # Errors
/// Names the service, the address and its option.
pub(crate) async fn bind(part: Part, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let name = part.name();
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{name}: address {address} (option `{name}.bind`)"))
}
