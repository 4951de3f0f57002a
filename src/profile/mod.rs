//! Owns `anabranch profile`: the profiles that come with the program, and whether one that somebody
//! writes works.
//!
//! It must never reach a partner. The surprise: a check sends what the profile makes to a partner
//! made from the same profile, in this process and in its own time.

mod check;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use schemas::profile::{Counted, Profile, READY, Window};

use crate::output;
use crate::simulate::{source, told};

/// About profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Those that come with the program
    List,
    /// Print the file of one, to read or to copy
    Show(ShowArgs),
    /// Validate one and try it out against its simulator
    Check(CheckArgs),
}

/// Flags of `anabranch profile show`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch profile show iterable
  anabranch profile show generic-50 > acme.yaml")]
pub(crate) struct ShowArgs {
    /// Which
    profile: String,
}

/// Flags of `anabranch profile check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reads the file, renders each request for the members in `sample`, and sends them to a partner
simulated from the same file: additions, removals, a member that is refused, a part that is not
taken, more members than a request may hold, and more requests than a window may. Each answer is
read by the profile's grammar, and must mean what the partner did.

Examples:
  anabranch profile check acme.yaml
  anabranch profile check braze-users-track")]
pub(crate) struct CheckArgs {
    /// A file, or a profile that comes with the program
    file: String,
}

/// Runs the command.
///
/// # Errors
/// Where there is no such profile, or it is none.
pub(crate) fn run(command: &ProfileCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProfileCommand::List => list(),
        ProfileCommand::Show(args) => {
            let (_, text) = source(&args.profile)?;
            output::text(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        ProfileCommand::Check(args) => {
            let (name, text) = source(&args.file)?;
            let profile = Profile::from_yaml(&text).map_err(|wrong| told(&name, &wrong))?;
            let findings = check::check(&profile)?;
            for finding in &findings {
                output::line(finding)?;
            }
            let is_good = findings.iter().all(check::Finding::is_good);
            output::line(if is_good {
                "the profile works against its simulator"
            } else {
                "the profile does not work"
            })?;
            Ok(if is_good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn list() -> anyhow::Result<ExitCode> {
    for (id, text) in READY {
        let profile = Profile::from_yaml(text).map_err(|wrong| told(id, &wrong))?;
        let windows: Vec<String> = profile.limits.windows.iter().filter_map(window).collect();
        let pace = match (windows.is_empty(), profile.limits.concurrency) {
            (false, _) => windows.join(", "),
            (true, Some(most)) => format!("{most} at once"),
            (true, None) => "no limit".to_owned(),
        };
        let sunset = profile.sunset.map(|date| format!(", until {date}"));
        output::line(format_args!(
            "{id:<26} v{}  {:>6} a request  {pace:<34} {}{}",
            profile.version,
            profile.limits.items,
            profile.title,
            sunset.unwrap_or_default()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A window for people.
fn window(window: &Window) -> Option<String> {
    let (count, what) = match (window.requests, window.items) {
        (Some(requests), _) => (requests, ""),
        (None, Some(items)) => (items, " members"),
        (None, None) => return None,
    };
    let seconds = match window.seconds.get() {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        3_600 => "an hour".to_owned(),
        seconds => format!("in {seconds} s"),
    };
    let how = match window.counted {
        Counted::Sliding => "",
        Counted::Fixed => " (fixed)",
        Counted::Spread => " (evenly)",
    };
    let count = output::thousands(u64::from(count.get()));
    Some(format!("{count}{what} {seconds}{how}"))
}
