//! Owns `anabranch explain`: why the subscriptions of a tenant match an event or do not.
//!
//! It must never print what is in an event as it is: control characters are escaped. The surprise:
//! the event is sent as it was written, since a number that is read and written again may be
//! another.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::Api;
use crate::cli::{ApiArgs, Tenant};
use crate::output;
use crate::settings::{Settings, Usage};

/// The largest event or filter that is read.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// Flags of `anabranch explain`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch explain --tenant acme --event event.json
  anabranch explain --tenant acme --event event.json --subscription sub_…
  generate | anabranch explain --tenant acme --event - --json | jq 'select(.matched)'

The event is a CloudEvent in its JSON form. Each subscription is a line, and below it what its filters
wanted and what they saw, and what its transform makes of the event.")]
pub(crate) struct ExplainArgs {
    /// The event, as a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// This subscription alone
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// Only those that match
    #[arg(long)]
    matched: bool,
    /// Print the explanations as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    event: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<&'a str>,
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(args: &ExplainArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, &settings.config().general.data_dir)?;
    let text = input(&args.event)?;
    let event: &RawValue = serde_json::from_str(&text)
        .map_err(|error| Usage(format!("{}: is not json: {error}", args.event.display())))?;
    let subscription = args.subscription.as_deref();
    let body = Bytes::from(serde_json::to_vec(&Body {
        event,
        subscription,
    })?);
    let path = ["tenants", args.tenant.tenant.as_str(), "explain"];
    let mut cursor: Option<String> = None;
    loop {
        let next = cursor.as_deref().map(|cursor| ("cursor", cursor));
        let query: Vec<_> = next.into_iter().collect();
        let answer = api.control_text(Method::POST, &path, &query, Some(body.clone()));
        let page = answer.await?.json()?;
        let items = page.get("items").and_then(Value::as_array);
        for item in items.context("answer is not a page of explanations")? {
            if !args.matched || item.get("matched") == Some(&Value::Bool(true)) {
                show(item, args.json)?;
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// Where it cannot be read, or is longer than [`INPUT_BYTES_MAX`].
pub(crate) fn input(path: &Path) -> anyhow::Result<String> {
    let named = || path.display().to_string();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(named)?)
    };
    let mut text = String::new();
    let read = source.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = u64::try_from(read.with_context(named)?)?;
    anyhow::ensure!(
        bytes <= INPUT_BYTES_MAX,
        "{}: is longer than {INPUT_BYTES_MAX} bytes",
        path.display()
    );
    Ok(text)
}

fn show(item: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::line(item)?);
    }
    let mut lines = vec![head(item)];
    if let Some(root) = item.get("explanation") {
        parts(root, 1, &mut lines);
    }
    if let Some(outcome) = item.get("transform") {
        lines.extend(transformed(outcome));
    }
    Ok(output::line(lines.join("\n"))?)
}

/// What a transform makes of an event: the request line, headers and the event, or why there is
/// none.
pub(crate) fn transformed(outcome: &Value) -> Vec<String> {
    let text = |name: &str| outcome.get(name).and_then(Value::as_str);
    let pointer = text("pointer").unwrap_or_default();
    let mut lines = match text("outcome") {
        Some("dropped") => vec![format!("→ dropped by {pointer}")],
        Some("failed") => {
            let detail = text("detail").unwrap_or_default();
            vec![format!("→ fails: {pointer}: {detail}")]
        }
        Some(_) | None => {
            let place = text("url").or_else(|| text("path")).unwrap_or_default();
            vec![format!("→ {} {place}", text("method").unwrap_or_default())]
        }
    };
    let headers = outcome.get("headers").and_then(Value::as_object);
    for (name, value) in headers.into_iter().flatten() {
        lines.push(format!("  {name}: {}", value.as_str().unwrap_or_default()));
    }
    if let Some(event) = outcome.get("event") {
        lines.push(format!("  {event}"));
    }
    let line = |line: &String| format!("    {}", output::plain(line));
    lines.iter().map(line).collect()
}

/// A subscription in one line: its mark, id, endpoint, name.
fn head(item: &Value) -> String {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let paused = text("state").filter(|state| *state != "active");
    let words = [
        Some(mark(item)),
        text("subscription"),
        text("endpoint"),
        text("name"),
        paused,
    ];
    output::plain(&words.into_iter().flatten().collect::<Vec<_>>().join("  "))
}

fn mark(clause: &Value) -> &'static str {
    match clause.get("matched").and_then(Value::as_bool) {
        Some(true) => "✓",
        Some(false) => "✗",
        None => "·",
    }
}

/// Deeper than any filter may be, so that no answer can take the stack.
const DEPTH_MAX: usize = 256;

/// The clauses below `clause`, each a line, deeper ones further in.
fn parts(clause: &Value, depth: usize, lines: &mut Vec<String>) {
    let parts = clause.get("parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten().filter(|_| depth < DEPTH_MAX) {
        lines.push(format!("{}{}", "  ".repeat(depth), line(part)));
        self::parts(part, depth + 1, lines);
    }
}

/// A clause in one line: mark, what it is, what it wanted, what it saw, why not.
fn line(clause: &Value) -> String {
    let text = |name: &str| clause.get(name).and_then(Value::as_str);
    let mut line = format!("{} {}", mark(clause), text("clause").unwrap_or_default());
    if let Some(wanted) = clause.get("wanted") {
        line = format!("{line}: wanted {wanted}");
    }
    if let Some(seen) = clause.get("seen") {
        line = format!("{line}, saw {seen}");
    }
    if let Some(why) = text("why") {
        line = format!("{line}  ({why})");
    }
    output::plain(&line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outcome_reads_as_its_request() {
        let made = json!({ "outcome": "request", "method": "PUT", "url": "https://h/c/1", "path": "/c/1",
            "headers": { "x-a": "b" }, "event": { "data": { "n": "\u{1b}" } } });
        assert_eq!(
            transformed(&made),
            [
                "    → PUT https://h/c/1",
                "      x-a: b",
                r#"      {"data":{"n":"\u001b"}}"#,
            ]
        );
        let failed =
            json!({ "outcome": "failed", "pointer": "/steps/1", "detail": "made no JSON" });
        assert_eq!(
            transformed(&failed),
            ["    → fails: /steps/1: made no JSON"]
        );
    }

    #[test]
    fn a_tree_reads_from_the_subscription_to_its_clauses() {
        let item = json!({
            "subscription": "sub_1", "endpoint": "ep_1", "name": "x\u{1b}[2J", "state": "paused",
            "matched": false,
            "explanation": { "parts": [
                { "clause": "exact", "matched": false, "why": "1 of 1 did not match", "parts": [
                    { "clause": "type", "matched": false, "wanted": "a", "seen": "b",
                      "why": "the value is another" },
                ]},
                { "clause": "id LIKE 'a'", "matched": null },
            ]},
        });
        let mut lines = vec![head(&item)];
        parts(&item["explanation"], 1, &mut lines);
        assert_eq!(
            lines,
            [
                "✗  sub_1  ep_1  x\\u{1b}[2J  paused",
                "  ✗ exact  (1 of 1 did not match)",
                "    ✗ type: wanted \"a\", saw \"b\"  (the value is another)",
                "  · id LIKE 'a'",
            ]
        );
    }
}
