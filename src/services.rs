//! Owns how each service is put together from the configuration and what the process shares.
//!
//! It must never hold a rule of delivery. The surprise: a service that runs alone checks its topics
//! first, so that what is missing is said at the start and not by the first event.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use dispatcher::delivery::address::{Nat64, Policy, SystemResolver};
use dispatcher::delivery::client::{ClientSettings, HttpTransport};
use runtime::config::{self, Config};
use runtime::secret::Sealer;
use runtime::task::TaskKind;

use crate::process::{Part, Process, bind};
use crate::settings::Settings;
use crate::{output, topics};

/// `anabranch ingest`.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub(crate) async fn run_ingest(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut process = alone(settings.loaded.config).await?;
    let address = start_ingest(&mut process).await?;
    announce(&process, &format!("ingest on http://{address}"));
    process.run().await
}

/// `anabranch router`.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub(crate) async fn run_router(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut process = alone(settings.loaded.config).await?;
    start_router(&mut process);
    announce(&process, "router");
    process.run().await
}

/// `anabranch dispatcher`.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub(crate) async fn run_dispatcher(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut process = alone(settings.loaded.config).await?;
    start_dispatcher(&mut process)?;
    announce(&process, "dispatcher");
    process.run().await
}

/// `anabranch control`.
///
/// # Errors
/// Where it cannot start, or cannot go on; another replica that writes is a reason.
pub(crate) async fn run_control(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut process = alone(settings.loaded.config).await?;
    let address = start_control(&mut process).await?;
    announce(&process, &format!("control on http://{address}"));
    process.run().await
}

/// `anabranch cohorts`.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub(crate) async fn run_cohorts(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut process = alone(settings.loaded.config).await?;
    let address = start_cohorts(&mut process).await?;
    announce(&process, &format!("cohorts on http://{address}"));
    process.run().await
}

async fn alone(config: Config) -> anyhow::Result<Process> {
    let mut process = Process::start(config).await?;
    let (log, config) = (process.log.clone(), process.config.clone());
    tokio::select! {
        checked = topics::must_exist(&log, &config) => checked?,
        cause = process.stopping() => anyhow::bail!("{cause}"),
    }
    Ok(process)
}

fn announce(process: &Process, what: &str) {
    process.started();
    let name = process.config.instance();
    output::note(format_args!(
        "{what}, instance {name}, admin on http://{}",
        process.admin
    ));
}

/// Starts ingest within `process`; returns where it listens.
///
/// # Errors
/// Where its address cannot be bound.
pub(crate) async fn start_ingest(process: &mut Process) -> anyhow::Result<SocketAddr> {
    let listener = bind(Part::Ingest, process.config.ingest.bind).await?;
    let address = listener.local_addr()?;
    let environment = process.environment(Part::Ingest);
    let tasks = environment.tasks.clone();
    let options = ingest::Options::from_config(&process.config);
    tasks.spawn(
        TaskKind::Service,
        ingest::run(options, environment, listener),
    );
    Ok(address)
}

/// Starts a router within `process`.
pub(crate) fn start_router(process: &mut Process) {
    let config = &process.config;
    let options = router::Options {
        commit_interval: config.router.commit_interval,
        window: router::Window {
            targets: config.router.window_targets,
            bytes: config.router.window_bytes.as_usize(),
            age: config.router.window_age,
        },
        replay_rate: config.router.replay_rate,
        drain_deadline: config.dispatcher.drain_deadline,
        ..router::Options::named(config.instance(), &config.topics.prefix, &process.topics)
    };
    let context = router::Context {
        log: process.log.clone(),
        topics: process.topics.clone(),
        clock: process.clock.clone(),
        entropy: process.entropy.fork("router"),
        metrics: process.metrics.clone(),
        gate: process.readiness.gate("router"),
    };
    let tasks = process.part(Part::Router);
    let token = tasks.token().clone();
    tasks.spawn(TaskKind::Service, router::run(context, options, token));
}

/// Starts a dispatcher within `process`.
///
/// # Errors
/// Where its keys cannot be read, or TLS cannot be set up.
pub(crate) fn start_dispatcher(process: &mut Process) -> anyhow::Result<()> {
    let config = &process.config;
    let transport = transport(&config.dispatcher)?;
    let context = dispatcher::Context {
        log: process.log.clone(),
        topics: process.topics.clone(),
        options: dispatcher::Options::from_config(config, &process.topics),
        clock: process.clock.clone(),
        entropy: process.entropy.fork("dispatcher"),
        sealer: Arc::new(Sealer::parse(&config.secrets.keys).context("`secrets.keys`")?),
        transport: Arc::new(transport),
        registry: process.metrics.clone(),
        ready: process.readiness.gate("dispatcher"),
    };
    let tasks = process.part(Part::Dispatcher);
    let token = tasks.token().clone();
    tasks.spawn(TaskKind::Service, dispatcher::run(context, token));
    Ok(())
}

fn transport(options: &config::Dispatcher) -> anyhow::Result<HttpTransport> {
    let policy = Policy {
        allow_loopback: options.allow_loopback,
        allow_http: options.allow_http,
        allowed_ports: options.allowed_ports.clone(),
        nat64: match options.nat64 {
            config::Nat64::Refuse => Nat64::Refuse,
            config::Nat64::Embedded => Nat64::Embedded,
        },
        ..Policy::default()
    };
    let settings = ClientSettings {
        policy,
        connect_timeout: options.connect_timeout,
        lookup_timeout: options.dns_timeout,
        body_kept_bytes: options.response_kept.as_usize(),
        body_read_bytes: options.response_read.as_u64(),
        // As many as there may be in flight: all of it may go to endpoints of one host, and fewer
        // would close and open all the time.
        pool_idle_per_host_max: options.max_in_flight,
        ..ClientSettings::default()
    };
    HttpTransport::new(settings, Arc::new(SystemResolver::default())).context("dispatcher")
}

/// Starts control within `process`; returns where it listens.
///
/// # Errors
/// Where its address cannot be bound, or its keys cannot be used.
pub(crate) async fn start_control(process: &mut Process) -> anyhow::Result<SocketAddr> {
    let listener = bind(Part::Control, process.config.control.bind).await?;
    let address = listener.local_addr()?;
    let options = control::Options::from_config(&process.config)?;
    let environment = process.environment(Part::Control);
    let tasks = environment.tasks.clone();
    tasks.spawn(
        TaskKind::Service,
        control::run(options, environment, listener),
    );
    Ok(address)
}

/// Starts cohorts within `process`; returns where they listen.
///
/// # Errors
/// Where their address cannot be bound.
pub(crate) async fn start_cohorts(process: &mut Process) -> anyhow::Result<SocketAddr> {
    let listener = bind(Part::Cohorts, process.config.cohorts.bind).await?;
    let address = listener.local_addr()?;
    let options = cohorts::service::Options::from_config(&process.config);
    let environment = process.environment(Part::Cohorts);
    let tasks = environment.tasks.clone();
    let service = cohorts::service::run(options, environment, listener);
    tasks.spawn(TaskKind::Service, service);
    Ok(address)
}
