//! The `anabranch` command: one service, all of them in one process, or a client of their API.
//!
//! This page is the life story: parse, validate, build the runtime, run the command, end. It must
//! never do a service's work. The surprise: nothing here exits by itself; a command's code is
//! returned, so that everything made on the way is dropped in order.

mod api;
mod attempts;
mod cli;
mod cohort;
mod config;
mod dead;
mod demo;
mod explain;
mod filter;
mod keyring;
mod listen;
mod objects;
mod open;
mod output;
mod process;
mod profile;
mod publish;
mod services;
mod settings;
mod simulate;
mod source;
mod sync;
mod tail;
mod topics;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::settings::{Settings, Usage};

/// Deliveries are many small pieces that one thread makes and another frees: a quarter of the
/// dispatcher's time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line or the configuration cannot be meant.
const EXIT_USAGE: u8 = 64;
/// It was meant, and could not be done.
const EXIT_FAILURE: u8 = 1;
/// For threads that still wait for a broker when everything else has ended.
const LINGER: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => story(cli).unwrap_or_else(|error| fail(&error)),
        // Help and the version come this way too, and are no mistakes.
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // A terminal that has gone needs no help.
            error.print().ok();
            ExitCode::from(code)
        }
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if output::is_closed(error) {
        // `| head` has seen enough.
        return ExitCode::SUCCESS;
    }
    output::error(&runtime::task::chain(&**error));
    ExitCode::from(if error.is::<Usage>() {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    })
}

fn story(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&cli.global, cli.command.role())?;
    if cli.global.print_config {
        output::text(&settings.loaded.print())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (name, needs) = cli.command.needs();
    settings.require(name, needs)?;
    if cli.global.check_config {
        output::line("configuration is valid")?;
        return Ok(ExitCode::SUCCESS);
    }
    let telemetry = &settings.loaded.config.telemetry;
    runtime::telemetry::init(telemetry.format, &telemetry.filter)?;
    let threads = match settings.loaded.config.general.threads {
        0 => cli.command.threads(),
        threads => usize::from(threads),
    };
    let tokio = tokio_runtime(threads)?;
    let code = tokio.block_on(Box::pin(run(cli.command, settings)));
    tokio.shutdown_timeout(LINGER);
    code
}

async fn run(command: Command, settings: Settings) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up => up::run(settings).await,
        Command::Demo(args) => demo::run(args, settings).await,
        Command::Ingest => services::run_ingest(settings).await,
        Command::Router => services::run_router(settings).await,
        Command::Dispatcher => services::run_dispatcher(settings).await,
        Command::Control => services::run_control(settings).await,
        Command::Cohorts => services::run_cohorts(settings).await,
        Command::Topics { command } => topics::run(command, settings).await,
        Command::Tenant(args) => objects::run(args.try_into()?, &settings).await,
        Command::Key(args) => objects::run(args.try_into()?, &settings).await,
        Command::Endpoint(args) => objects::run(args.try_into()?, &settings).await,
        Command::Subscription(args) => objects::run(args.try_into()?, &settings).await,
        Command::Webhook(args) => objects::run(args.try_into()?, &settings).await,
        Command::Publish(args) => publish::run(args, &settings).await,
        Command::Listen(args) => listen::run(args).await,
        Command::Deliveries { command } => tail::run(command, settings).await,
        Command::Dead { command } => dead::run(command, &settings).await,
        Command::Explain(args) => explain::run(&args, &settings).await,
        Command::Filter { command } => filter::run(command, &settings).await,
        Command::Source { command } => source::run(command, &settings).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Cohort { command } => cohort::run(command, &settings).await,
        Command::Sync { command } => sync::run(command, &settings).await,
        Command::Profile { command } => profile::run(&command),
        Command::Config { command } => config::run(&command),
    }
}

fn tokio_runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    // A runtime on the main thread alone ignores the number.
    builder.worker_threads(threads).enable_all().build()
}
