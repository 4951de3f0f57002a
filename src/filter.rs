//! Owns `anabranch filter`: filters tried on what is already there.
//!
//! It must never change anything, nor print what is in an event as it is: control characters are
//! escaped.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::{ApiArgs, Tenant};
use crate::explain::{input, transformed};
use crate::output;
use crate::settings::{Settings, Usage};

/// About filters.
#[derive(Debug, Subcommand)]
pub(crate) enum FilterCommand {
    /// Try filters on the newest events of a tenant
    DryRun(DryRunArgs),
}

/// Flags of `anabranch filter dry-run`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch filter dry-run --tenant acme --sql \"type LIKE 'order.%'\"
  anabranch filter dry-run --tenant acme --last 10000 --filters '[{\"prefix\":{\"type\":\"order.\"}}]'
  anabranch filter dry-run --tenant acme --file filters.json --json | jq .matched
  anabranch filter dry-run --tenant acme --sql \"type = 'lead.created'\" --transform contact.json")]
pub(crate) struct DryRunArgs {
    #[command(flatten)]
    which: Which,
    /// On so many of the newest events, at most 10,000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    last: u64,
    /// A transform as JSON in a file, tried on those of the matching events that are shown
    #[arg(long, value_name = "FILE")]
    transform: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    api: ApiArgs,
}

/// What is tried.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Filters as a JSON array, as a subscription has them
    #[arg(long, value_name = "ARRAY")]
    filters: Option<String>,
    /// The same in a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One expression (CESQL)
    #[arg(long, value_name = "EXPRESSION")]
    sql: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(command: FilterCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    let FilterCommand::DryRun(args) = command;
    let api = Api::new(&args.api, &settings.config().general.data_dir)?;
    let mut body = json!({ "filters": filters(&args.which)?, "last": args.last });
    if let (Some(file), Value::Object(body)) = (&args.transform, &mut body) {
        let transform = json_in(&file.display().to_string(), &input(file)?)?;
        body.insert("transform".to_owned(), transform);
    }
    let path = ["tenants", args.tenant.tenant.as_str(), "filters", "dry-run"];
    let answer = api.control(Method::POST, &path, &[], Some(&body)).await?;
    let answer = answer.json()?;
    if args.json {
        output::line(serde_json::to_string_pretty(&answer)?)?;
    } else {
        output::line(lines(&answer).join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn filters(which: &Which) -> anyhow::Result<Value> {
    match (&which.filters, &which.file, &which.sql) {
        (Some(filters), _, _) => json_in("--filters", filters),
        (_, Some(file), _) => json_in(&file.display().to_string(), &input(file)?),
        (_, _, sql) => Ok(json!([{ "sql": sql }])),
    }
}

fn json_in(name: &str, text: &str) -> anyhow::Result<Value> {
    let wrong = |error| Usage(format!("{name}: is not json: {error}"));
    Ok(serde_json::from_str(text).map_err(wrong)?)
}

fn lines(answer: &Value) -> Vec<String> {
    let count = |name: &str| {
        let number = answer.get(name).and_then(Value::as_u64).unwrap_or(0);
        output::thousands(number)
    };
    let why = match answer.get("ended").and_then(Value::as_str) {
        Some("beginning") => "; the log has no more",
        Some("limit") => "; no more may be read for one dry run",
        Some(_) | None => "",
    };
    let mut lines = vec![format!(
        "{} of {} events match{why}",
        count("matched"),
        count("events")
    )];
    for (mark, name) in [("✓", "matching"), ("✗", "not_matching")] {
        let events = answer.get(name).and_then(Value::as_array);
        for event in events.into_iter().flatten() {
            let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("-");
            let [at, ty, id, source] = ["at", "type", "id", "source"].map(text);
            lines.push(output::plain(&format!("{mark} {at}  {ty}  {id}  {source}")));
            if let Some(outcome) = event.get("transform") {
                lines.extend(transformed(outcome));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_reads_with_its_events() {
        let event = json!({ "at": "2026-01-31T08:00:00Z", "type": "t\u{7}", "id": "1", "source": "/s",
            "transform": { "outcome": "dropped", "pointer": "/steps/0" } });
        let answer = json!({
            "events": 1_200, "matched": 1_199, "not_matched": 1, "ended": "beginning",
            "matching": [event], "not_matching": [], "records": 2_000,
        });
        assert_eq!(
            lines(&answer),
            [
                "1,199 of 1,200 events match; the log has no more",
                "✓ 2026-01-31T08:00:00Z  t\\u{7}  1  /s",
                "    → dropped by /steps/0",
            ]
        );
    }
}
