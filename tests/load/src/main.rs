//! Benchmarks of Anabranch, each beside the limit that it is held against.
//!
//! Owns what is measured and how. It must never reach into a service: everything goes through the
//! binary, its public API and the topics, but for `matching`, which is the router's index alone. The
//! surprise: the program runs itself again as the
//! endpoint (`load sink`), so that the endpoint has one thread in a process of its own.

mod bare;
mod bench;
mod child;
mod client;
mod crowd;
mod events;
mod matching;
mod members;
mod pace;
mod partner;
mod report;
mod sink;
mod stack;
mod traffic;
mod written;
mod wrk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{Bench, Plan};
use crate::report::Report;

const USAGE: u8 = 64;

/// Runs one benchmark of Anabranch.
#[derive(Debug, Parser)]
#[command(name = "load", max_term_width = 100)]
struct Args {
    /// The benchmark.
    name: Option<Bench>,
    /// List the benchmarks.
    #[arg(long)]
    list: bool,
    /// Print what a benchmark needs beside the binary: `kafka`, `wrk`.
    #[arg(long, value_name = "NAME")]
    needs: Option<Bench>,
    /// Print one JSON object a figure.
    #[arg(long)]
    json: bool,
    /// Rounds; figures are their medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Fewer events and a shorter warm-up than the bars ask for; the figures say so.
    #[arg(long)]
    quick: bool,
    /// Members of a cohort, where that is what is measured.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    members: Option<u64>,
    /// A setting for every process under test.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Be the endpoint, at this address.
    #[arg(long, hide = true)]
    sink: Option<SocketAddr>,
    /// As the endpoint, remember when each event arrived.
    #[arg(long, hide = true)]
    times: bool,
    /// Print what the index of some subscriptions weighs.
    #[arg(long, hide = true, value_name = "MIX:SUBSCRIPTIONS:TENANTS")]
    weigh: Option<String>,
    /// The binary under test.
    #[arg(
        long,
        env = "ANABRANCH_BIN",
        default_value = "target/release/anabranch"
    )]
    bin: PathBuf,
    /// Kafka's brokers.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "")]
    brokers: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            report::note(format_args!("load: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Everything here waits most of the time: one thread leaves the rest to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(address) = args.sink {
        runtime.block_on(sink::serve(address, args.times))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(bench) = args.needs {
        report::line(bench.needs().join(" "))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(world) = args.weigh {
        bench::weigh(&world)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list {
        bench::list()?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(bench) = args.name else {
        report::note(format_args!("load: name a benchmark; --list lists them"));
        return Ok(ExitCode::from(USAGE));
    };
    let report = Report::new(bench.name(), args.json);
    let plan = Plan {
        bin: args.bin,
        brokers: args.brokers,
        rounds: usize::from(args.rounds),
        settings: args.set,
        quick: args.quick,
        members: args.members,
    };
    let result = runtime.block_on(until_signal(Box::pin(bench.run(plan, report))));
    // A thread of a bare client may still be busy; nothing of it matters any more.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// A signal drops the benchmark, and its processes with it.
async fn until_signal(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    tokio::select! {
        result = bench => result,
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    }
}
