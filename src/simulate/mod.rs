//! Owns `anabranch simulate`: a partner made from its profile, which speaks the API, enforces its
//! limits, goes wrong as it is told to, and keeps what it holds.
//!
//! It must never know a partner by name: what it does, a profile says. The surprise: operations are
//! recognised by rendering their templates with marked values, so that a profile says nothing twice.

mod answer;
mod faults;
mod jobs;
mod limits;
mod lists;
mod partner;
mod pattern;
mod routes;
mod scan;
mod server;
mod shape;
mod stats;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use runtime::task::{Signals, Tasks};
use schemas::profile::{PROFILE_BYTES_MAX, Profile, READY, ready};
use schemas::resources::input::Faults as Wrong;

pub(crate) use self::faults::{Faults, Share};
pub(crate) use self::partner::{Ask, ONLY_LIST, Outcome, Partner, Reply};
use self::server::Server;
use crate::output;
use crate::settings::Usage;

/// Flags of `anabranch simulate`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch simulate generic-50 --listen 127.0.0.1:9050
  anabranch simulate braze-users-track --reject 1% --partial 5% --drop 1% --seed 7
  anabranch simulate my-profile.yaml --no-limits --slow 20

What it holds, and what it counted:
  curl http://127.0.0.1:9050/_simulator/lists
  curl http://127.0.0.1:9050/_simulator/lists/1000001?members=1
  curl http://127.0.0.1:9050/_simulator/stats")]
pub(crate) struct SimulateArgs {
    /// A profile that comes with the program, or a file
    profile: String,
    /// The address; port 0 is a free one. Others than this machine's can reach more than you may want
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Refuse this share of members for good, always the same ones
    #[arg(long, default_value = "0", value_name = "SHARE")]
    reject: Share,
    /// Take only a part of this share of requests
    #[arg(long, default_value = "0", value_name = "SHARE")]
    partial: Share,
    /// Close the connection on this share of requests, half of them carried out
    #[arg(long, default_value = "0", value_name = "SHARE")]
    drop: Share,
    /// Wait before each answer
    #[arg(long, default_value_t = 0, value_name = "MS")]
    slow: u64,
    /// Let jobs take so long, whatever the profile says
    #[arg(long, value_name = "S")]
    delay_jobs: Option<u32>,
    /// Enforce no rates and no concurrency
    #[arg(long)]
    no_limits: bool,
    /// What all choices come from
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Keep hashes of members alone: ten million take half a gigabyte, and cannot be listed
    #[arg(long)]
    compact: bool,
    /// Have this list from the start; may be repeated
    #[arg(long = "list", value_name = "ID")]
    lists: Vec<String>,
}

/// `anabranch simulate`.
///
/// # Errors
/// Where there is no such profile, or the address cannot be bound.
pub(crate) async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let faults = Faults {
        reject: args.reject,
        partial: args.partial,
        drop: args.drop,
        slow_ms: args.slow,
        job_seconds: args.delay_jobs,
        no_limits: args.no_limits,
        seed: args.seed,
    };
    let (_, text) = source(&args.profile)?;
    let profile = Profile::from_yaml(&text).map_err(|wrong| told(&args.profile, &wrong))?;
    let mut partner = Partner::new(profile, faults, !args.compact)
        .with_context(|| format!("profile {}", args.profile))?;
    for list in &args.lists {
        partner.make_list(list);
    }
    let routes: Vec<String> = partner
        .routes()
        .all()
        .map(|route| format!("  {:<12} {}", route.kind.as_str(), route.shown()))
        .collect();
    let title = partner.profile().title.clone();
    let server = Server::bind(args.listen, partner).await?;
    output::note(format_args!(
        "{title}: simulated at http://{}\n{}",
        server.address()?,
        routes.join("\n")
    ));
    let tasks = Tasks::new("simulate");
    let stats = server.serve(&tasks);
    signals.recv().await;
    tasks.cancel();
    tasks.finished().await;
    output::line(serde_json::to_string_pretty(&stats())?)?;
    Ok(ExitCode::SUCCESS)
}

/// The name and the text of a profile: one that comes with the program, or a file.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub(crate) fn source(name: &str) -> anyhow::Result<(String, String)> {
    if let Some(text) = ready(name) {
        return Ok((name.to_owned(), text.to_owned()));
    }
    let path = Path::new(name);
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(_) if !name.contains(['/', '.']) => {
            let known: Vec<&str> = READY.iter().map(|(id, _)| *id).collect();
            let known = known.join(", ");
            let words = format!("there is no profile `{name}`: name a file, or one of {known}");
            return Err(Usage(words).into());
        }
        Err(error) => return Err(Usage(format!("{name}: {error}")).into()),
    };
    if length > PROFILE_BYTES_MAX as u64 {
        return Err(Usage(format!("{name}: has more than {PROFILE_BYTES_MAX} bytes")).into());
    }
    let text = std::fs::read_to_string(path).with_context(|| name.to_owned())?;
    Ok((name.to_owned(), text))
}

/// Everything that is wrong with a profile.
pub(crate) fn told(name: &str, wrong: &Wrong) -> Usage {
    let lines = wrong.0.iter().map(|fault| {
        let at = match fault.pointer.as_str() {
            "" => "the file",
            pointer => pointer,
        };
        format!("{name}: {at} {}", fault.detail)
    });
    Usage(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests;
