//! Owns `anabranch dead`: dead letters as a list, one of them, and sending them again.
//!
//! It must never print what an endpoint or a producer wrote as it is: control characters are
//! escaped. The surprise: a redrive is the service's, not this command's; whoever leaves it only
//! stops looking on.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reqwest::Method;
use runtime::clock::Clock;
use runtime::config::parse_duration;
use runtime::task::Signals;
use serde_json::{Map, Value};

use crate::api::Api;
use crate::cli::{ApiArgs, Tenant};
use crate::output;
use crate::settings::Settings;

/// Between two looks at a redrive.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// About dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters: of each endpoint from the oldest on
    List(ListArgs),
    /// Show one, with its last attempt and the beginning of its payload
    Show(ShowArgs),
    /// Send dead letters again, as fast as their endpoints take them
    Redrive(RedriveArgs),
    /// List redrives, one JSON object a line
    Redrives(RedrivesArgs),
    /// End a redrive: it sends no more
    Cancel(CancelArgs),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this endpoint's
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only for this reason, e.g. rejected; may be repeated, any of them is meant
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only those that died at this time (RFC 3339) or so long ago (e.g. 2h), or later
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Only those that died before this time (RFC 3339), or longer ago than this (e.g. 10m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
}

/// Flags of `anabranch dead list`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch dead list --tenant acme
  anabranch dead list --tenant acme --reason rejected --since 2h
  anabranch dead list --all --reason undecodable       records that could not be read
  anabranch dead list --tenant acme --json | jq .last_attempt")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    whose: Whose,
    /// Print the letters as JSON, one a line
    #[arg(long)]
    json: bool,
    /// End after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Whose letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Whose {
    /// The tenant
    #[arg(long, env = "ANABRANCH_TENANT")]
    tenant: Option<String>,
    /// Everybody's, and those that are nobody's (the operator's key is needed)
    #[arg(long)]
    all: bool,
}

/// Flags of `anabranch dead show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its id, as lists show it
    id: String,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    api: ApiArgs,
}

/// Flags of `anabranch dead redrive`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch dead redrive --tenant acme --endpoint ep_…           all of an endpoint
  anabranch dead redrive --tenant acme --reason max_age --since 1d
  anabranch dead redrive --tenant acme dl_3_14 dl_3_15           these letters
  anabranch dead redrive --tenant acme --detach                  do not look on

What an earlier redrive has delivered is not sent again. Interrupting the command leaves the redrive
running; `anabranch dead cancel` ends it.")]
pub(crate) struct RedriveArgs {
    /// These letters alone
    #[arg(value_name = "LETTER")]
    letters: Vec<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    tenant: Tenant,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Flags of `anabranch dead redrives`.
#[derive(Debug, Args)]
pub(crate) struct RedrivesArgs {
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    api: ApiArgs,
}

/// Flags of `anabranch dead cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The redrive's id
    id: String,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    api: ApiArgs,
}

/// A time, or a span before now, as RFC 3339.
fn parse_time(text: &str) -> Result<String, String> {
    if let Some(ago) = parse_duration(text) {
        let at = Clock::system().now() - runtime::clock::millis(ago);
        return Timestamp::from_millisecond(at)
            .map(|at| at.to_string())
            .map_err(|_| "is too long ago".to_owned());
    }
    let read = text.parse::<Timestamp>();
    read.map(|at| at.to_string()).map_err(|_| {
        "expected a time such as 2026-01-31T08:00:00Z, or a span such as 2h".to_owned()
    })
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(command: DeadCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    let data_dir = &settings.config().general.data_dir;
    match command {
        DeadCommand::List(args) => list(&Api::new(&args.api, data_dir)?, &args).await?,
        DeadCommand::Show(args) => {
            let api = Api::new(&args.api, data_dir)?;
            let path = path(&args.whose, &["dead", &args.id]);
            show(&get(&api, &path, &[]).await?)?;
        }
        DeadCommand::Redrive(args) => {
            return redrive(&Api::new(&args.api, data_dir)?, &args).await;
        }
        DeadCommand::Redrives(args) => {
            let api = Api::new(&args.api, data_dir)?;
            let path = ["tenants", &args.tenant.tenant, "redrives"].map(str::to_owned);
            pages(&api, &path, &[], |item| {
                output::line(item)?;
                Ok(true)
            })
            .await?;
        }
        DeadCommand::Cancel(args) => {
            let api = Api::new(&args.api, data_dir)?;
            let path = [
                "tenants",
                &args.tenant.tenant,
                "redrives",
                &args.id,
                "cancel",
            ];
            show(&api.control(Method::POST, &path, &[], None).await?.json()?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(whose: &Whose, rest: &[&str]) -> Vec<String> {
    let of = whose.tenant.as_deref().filter(|_| !whose.all);
    let mut path: Vec<&str> = of.map_or_else(Vec::new, |tenant| vec!["tenants", tenant]);
    path.extend(rest);
    path.into_iter().map(str::to_owned).collect()
}

async fn get(api: &Api, path: &[String], query: &[(&str, &str)]) -> anyhow::Result<Value> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    api.control(Method::GET, &path, query, None).await?.json()
}

fn show(value: &Value) -> anyhow::Result<()> {
    // JSON escapes what a terminal would obey.
    Ok(output::line(serde_json::to_string_pretty(value)?)?)
}

/// Hands over every object of every page, until there is no more or `take` wants none.
async fn pages(
    api: &Api,
    path: &[String],
    query: &[(&str, String)],
    mut take: impl FnMut(&Value) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    loop {
        let given = query.iter().map(|(name, value)| (*name, value.as_str()));
        let next = cursor.as_deref().map(|cursor| ("cursor", cursor));
        let all: Vec<_> = given.chain([("limit", "100")]).chain(next).collect();
        let page = get(api, path, &all).await?;
        let items = page.get("items").and_then(Value::as_array);
        for item in items.context("answer is not a page of objects")? {
            if !take(item)? {
                return Ok(());
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

async fn list(api: &Api, args: &ListArgs) -> anyhow::Result<()> {
    let which = &args.which;
    let reasons = Some(which.reasons.join(",")).filter(|all| !all.is_empty());
    let query = [
        ("endpoint", which.endpoint.clone()),
        ("reason", reasons),
        ("since", which.since.clone()),
        ("until", which.until.clone()),
    ];
    let said = query.into_iter();
    let query: Vec<_> = said
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let mut shown = 0;
    if args.count == Some(0) {
        return Ok(());
    }
    pages(api, &path(&args.whose, &["dead"]), &query, |item| {
        if args.json {
            output::line(item)?;
        } else {
            output::line(line(item))?;
        }
        shown += 1;
        Ok(args.count.is_none_or(|count| shown < count))
    })
    .await
}

/// A letter in one line: id, time, reason, status, endpoint, event.
fn line(letter: &Value) -> String {
    let text = |pointer: &str| {
        let found = letter.pointer(pointer);
        let text = found.and_then(Value::as_str).map(str::to_owned);
        text.or_else(|| {
            found
                .and_then(Value::as_u64)
                .map(|number| number.to_string())
        })
    };
    let mut line = String::new();
    for (pointer, width) in [
        ("/id", 10),
        ("/at", 24),
        ("/reason", 18),
        ("/last_attempt/status", 3),
        ("/endpoint", 29),
    ] {
        let text = text(pointer).unwrap_or_else(|| "-".to_owned());
        // Writing to text cannot fail.
        write!(line, "{text:<width$}  ").ok();
    }
    let event = [text("/event/type"), text("/event/id")];
    let rest = event.into_iter().chain([text("/detail")]).flatten();
    line.push_str(&rest.collect::<Vec<_>>().join("  "));
    output::plain(line.trim_end())
}

async fn redrive(api: &Api, args: &RedriveArgs) -> anyhow::Result<ExitCode> {
    let tenant = args.tenant.tenant.as_str();
    let body = Value::Object(body(args));
    let path = ["tenants", tenant, "redrives"];
    let made = api.control(Method::POST, &path, &[], Some(&body)).await?;
    let made = made.json()?;
    if args.detach {
        show(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    let id = made.get("id").and_then(Value::as_str);
    let id = id.context("answer is not a redrive")?.to_owned();
    let path = ["tenants", tenant, "redrives", &id].map(str::to_owned);
    let mut signals = Signals::install()?;
    let bar = progress();
    let ended = tokio::select! {
        ended = look_on(api, &path, &bar) => Some(ended?),
        _ = signals.recv() => None,
    };
    bar.finish_and_clear();
    let Some(ended) = ended else {
        output::note(format_args!(
            "redrive {id} goes on; `anabranch dead cancel --tenant {tenant} {id}` ends it"
        ));
        return Ok(ExitCode::SUCCESS);
    };
    show(&ended)?;
    let count = |name: &str| ended.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    let failed = count("/counts/dead") + count("/counts/unknown") > 0;
    Ok(ExitCode::from(u8::from(failed)))
}

fn body(args: &RedriveArgs) -> Map<String, Value> {
    let which = &args.which;
    let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let members = [
        ("endpoint", text(&which.endpoint)),
        ("reasons", list(&which.reasons)),
        ("since", text(&which.since)),
        ("until", text(&which.until)),
        ("letters", list(&args.letters)),
    ];
    let said = members.into_iter();
    said.filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Shows how far a redrive is until it is over.
async fn look_on(api: &Api, path: &[String], bar: &ProgressBar) -> anyhow::Result<Value> {
    loop {
        let redrive = get(api, path, &[]).await?;
        bar.set_message(message(&redrive));
        bar.tick();
        if redrive.get("state").and_then(Value::as_str) != Some("running") {
            return Ok(redrive);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn message(redrive: &Value) -> String {
    let count = |name: &str| {
        let found = redrive.pointer(&format!("/counts/{name}"));
        output::thousands(found.and_then(Value::as_u64).unwrap_or(0))
    };
    format!(
        "{} letters: {} delivered, {} dead again, {} on their way, {} delivered before, {} skipped",
        count("matched"),
        count("delivered"),
        count("dead"),
        count("unreported"),
        count("settled"),
        count("skipped"),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only one is about dead letters"
    )]
    fn command(line: &str) -> DeadCommand {
        let words = std::iter::once("anabranch").chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Dead { command } => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_the_body_of_a_redrive() {
        let check = |line: &str, expected: Value| {
            let DeadCommand::Redrive(args) = command(line) else {
                panic!("{line}");
            };
            assert_eq!(Value::Object(body(&args)), expected, "{line}");
        };
        check("dead redrive --tenant a", json!({}));
        check(
            "dead redrive --tenant a dl_0_1 dl_0_2 --reason rejected --reason loop",
            json!({ "letters": ["dl_0_1", "dl_0_2"], "reasons": ["rejected", "loop"] }),
        );
        check(
            "dead redrive --tenant a --endpoint e --since 2026-01-31T08:00:00Z",
            json!({ "endpoint": "e", "since": "2026-01-31T08:00:00Z" }),
        );
    }

    #[test]
    fn times_are_points_or_spans_before_now() {
        assert_eq!(
            parse_time("2026-01-31T10:00:00+02:00").unwrap(),
            "2026-01-31T08:00:00Z"
        );
        let ago: Timestamp = parse_time("1h").unwrap().parse().unwrap();
        let expected = Clock::system().now() - 3_600_000;
        assert!((expected - ago.as_millisecond()).abs() < 60_000);
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn a_line_never_holds_what_a_terminal_obeys() {
        let letter = json!({
            "id": "dl_0_1", "at": "2026-01-31T08:00:00Z", "reason": "undecodable",
            "detail": "bad \u{1b}[2J\r\n", "last_attempt": { "status": 422 },
        });
        let line = line(&letter);
        assert!(
            line.starts_with("dl_0_1      2026-01-31T08:00:00Z "),
            "{line}"
        );
        assert!(line.contains("  422  "), "{line}");
        assert!(line.ends_with("bad \\u{1b}[2J"), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
    }

    #[test]
    fn whose_letters_is_a_part_of_the_path() {
        let DeadCommand::Show(args) = command("dead show dl_0_1 --tenant a") else {
            panic!("another command");
        };
        assert_eq!(
            path(&args.whose, &["dead", "x"]),
            ["tenants", "a", "dead", "x"]
        );
        let DeadCommand::List(args) = command("dead list --all") else {
            panic!("another command");
        };
        assert_eq!(path(&args.whose, &["dead"]), ["dead"]);
    }
}
