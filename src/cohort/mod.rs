//! Owns `anabranch cohort`: cohorts, their snapshots, and members that come and go between them.
//!
//! It must never read a file whole. The surprise: a file's name says its form where no flag does,
//! and the service looks at the first bytes where neither does.

mod service;
mod upload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};

pub(crate) use self::service::{CohortsArgs, Noun, Service, member};
use self::upload::UploadArgs;
use crate::cli::Tenant;
use crate::output;
use crate::settings::{Settings, Usage};

/// Standard input as a file.
const STDIN: &str = "/dev/stdin";
/// Members in one request of `add` and `remove`.
const MEMBERS_A_REQUEST: usize = 1_000;
/// Bytes of them.
const BYTES_A_REQUEST: usize = 512 << 10;

/// About cohorts.
#[derive(Debug, Subcommand)]
pub(crate) enum CohortCommand {
    /// Make a cohort, with no members yet
    Create(CreateArgs),
    /// Upload a snapshot: all members there are
    Upload(UploadArgs),
    /// List cohorts, one JSON object a line
    List(AllArgs),
    /// Show a cohort and its snapshots
    Show(OneArgs),
    /// Delete a cohort that no sync sends, and its members
    Delete(OneArgs),
    /// Add or change members between snapshots
    Add(AddArgs),
    /// Remove members between snapshots
    Remove(RemoveArgs),
}

/// Flags of `anabranch cohort create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A name for people
    name: String,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of what is about all cohorts.
#[derive(Debug, Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of what is about one cohort.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Its id, or its name
    cohort: String,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of `anabranch cohort add`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch cohort add VIP --tenant acme --member '{\"id\":\"u-1\",\"email\":\"ada@example.com\"}'
  anabranch cohort add VIP --tenant acme new.ndjson

A member that is there already is replaced. Syncs send it within seconds.")]
pub(crate) struct AddArgs {
    /// The cohort's id, or its name
    cohort: String,
    /// Members as NDJSON, a JSON object with an `id` a line; `-` is standard input
    #[arg(required_unless_present = "members")]
    file: Option<PathBuf>,
    /// A member as a JSON object with an `id`; may be repeated
    #[arg(long = "member", value_name = "JSON", conflicts_with = "file")]
    members: Vec<String>,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Flags of `anabranch cohort remove`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch cohort remove VIP u-1 u-2 --tenant acme
  anabranch cohort remove VIP --tenant acme --file gone.txt

Syncs remove them at the partner within seconds.")]
pub(crate) struct RemoveArgs {
    /// The cohort's id, or its name
    cohort: String,
    /// Ids of members
    #[arg(required_unless_present = "file")]
    ids: Vec<String>,
    /// Ids of members, one a line; `-` is standard input
    #[arg(long, conflicts_with = "ids")]
    file: Option<PathBuf>,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(command: CohortCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        CohortCommand::Create(args) => create(&args, settings).await,
        CohortCommand::Upload(args) => upload::run(&args, settings).await,
        CohortCommand::List(AllArgs { tenant, to }) => {
            let service = Service::new(&to, &tenant.tenant, settings)?;
            list(&service, Noun::Cohort).await
        }
        CohortCommand::Show(args) => show(&args, settings).await,
        CohortCommand::Delete(OneArgs { cohort, tenant, to }) => {
            let service = Service::new(&to, &tenant.tenant, settings)?;
            let id = service.id(Noun::Cohort, &cohort).await?;
            let path = [Noun::Cohort.path(), &id];
            service
                .control(Method::DELETE, &path, &APPLIED, None)
                .await?;
            Ok(ExitCode::SUCCESS)
        }
        CohortCommand::Add(args) => add(args, settings).await,
        CohortCommand::Remove(args) => remove(args, settings).await,
    }
}

/// A change waits until everybody has applied it.
pub(crate) const APPLIED: [(&str, &str); 1] = [("wait", "applied")];

async fn create(args: &CreateArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let path = [Noun::Cohort.path()];
    let body = json!({ "name": args.name });
    let made = service
        .control(Method::POST, &path, &APPLIED, Some(&body))
        .await?;
    output::line(serde_json::to_string_pretty(&made.json()?)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints every object of every page, one a line.
pub(crate) async fn list(service: &Service, noun: Noun) -> anyhow::Result<ExitCode> {
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "100")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = service
            .control(Method::GET, &[noun.path()], &query, None)
            .await?;
        let page = page.json()?;
        let items = page.get("items").and_then(Value::as_array);
        for item in items.context("answer is not a page of objects")? {
            output::line(item)?;
        }
        match member(&page, "next") {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// A cohort is a name in `control` and snapshots at the cohorts service: both are shown, the name
/// where nobody answers for the snapshots.
async fn show(args: &OneArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let id = service.id(Noun::Cohort, &args.cohort).await?;
    let path = [Noun::Cohort.path(), id.as_str()];
    let mut shown = service
        .control(Method::GET, &path, &[], None)
        .await?
        .json()?;
    let path = [Noun::Cohort.path(), id.as_str(), "snapshots"];
    match service.ask(Method::GET, &path, None).await {
        Ok(answer) => {
            let mut page = answer.json()?;
            let snapshots = page.get_mut("snapshots").map(Value::take);
            if let (Value::Object(shown), Some(snapshots)) = (&mut shown, snapshots) {
                shown.insert("snapshots".to_owned(), snapshots);
            }
        }
        Err(error) => output::note(format_args!("note: no snapshots are shown: {error}")),
    }
    output::line(serde_json::to_string_pretty(&shown)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let id = service.id(Noun::Cohort, &args.cohort).await?;
    let mut changes = Changes::new(&service, &id, "add");
    for text in &args.members {
        let member = member_of(text).map_err(|why| Usage(format!("`--member` {why}")))?;
        changes.push(member, text.len()).await?;
    }
    if let Some(path) = &args.file {
        let mut lines = lines(path).await?;
        let mut number = 0_u64;
        while let Some(line) = lines.next_line().await? {
            number += 1;
            if line.trim().is_empty() {
                continue;
            }
            let member = member_of(&line);
            let member = member.map_err(|why| anyhow::anyhow!("line {number} {why}"))?;
            changes.push(member, line.len()).await?;
        }
    }
    changes.finish("added or changed").await
}

async fn remove(args: RemoveArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let id = service.id(Noun::Cohort, &args.cohort).await?;
    let mut changes = Changes::new(&service, &id, "remove");
    for member in args.ids {
        let bytes = member.len();
        changes.push(Value::from(member), bytes).await?;
    }
    if let Some(path) = &args.file {
        let mut lines = lines(path).await?;
        while let Some(line) = lines.next_line().await? {
            let member = line.trim();
            if !member.is_empty() {
                changes.push(Value::from(member), member.len()).await?;
            }
        }
    }
    changes.finish("removed").await
}

fn member_of(text: &str) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("is no json: {error}"))?;
    match value.get("id") {
        Some(Value::String(_) | Value::Number(_)) => Ok(value),
        Some(_) | None => Err("must be an object with an `id`".to_owned()),
    }
}

async fn lines(path: &Path) -> anyhow::Result<Lines<BufReader<File>>> {
    let own = if path.as_os_str() == "-" {
        Path::new(STDIN)
    } else {
        path
    };
    let file = File::open(own).await;
    let file = file.with_context(|| format!("`{}` cannot be read", path.display()))?;
    Ok(BufReader::new(file).lines())
}

/// Changes on their way, a request at a time.
struct Changes<'a> {
    service: &'a Service,
    cohort: &'a str,
    operation: &'static str,
    waiting: Vec<Value>,
    bytes: usize,
    sent: u64,
}

impl<'a> Changes<'a> {
    fn new(service: &'a Service, cohort: &'a str, operation: &'static str) -> Self {
        Self {
            service,
            cohort,
            operation,
            waiting: Vec::new(),
            bytes: 0,
            sent: 0,
        }
    }

    async fn push(&mut self, change: Value, bytes: usize) -> anyhow::Result<()> {
        let full = self.waiting.len() >= MEMBERS_A_REQUEST || self.bytes + bytes > BYTES_A_REQUEST;
        if full && !self.waiting.is_empty() {
            self.send().await?;
        }
        self.bytes += bytes;
        self.waiting.push(change);
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let count = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        let mut body = serde_json::Map::new();
        body.insert(self.operation.to_owned(), Value::Array(waiting));
        let path = [Noun::Cohort.path(), self.cohort, "members"];
        let sent = self
            .service
            .ask(Method::PATCH, &path, Some(&Value::Object(body)))
            .await;
        sent.with_context(|| match self.sent {
            0 => "nothing was changed".to_owned(),
            sent => format!("only the first {} were taken", output::thousands(sent)),
        })?;
        self.sent += count;
        Ok(())
    }

    async fn finish(mut self, done: &str) -> anyhow::Result<ExitCode> {
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        output::note(format_args!("{} {done}", output::thousands(self.sent)));
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_an_id() {
        for good in [r#"{"id":"a"}"#, r#"{"id":7,"email":"x"}"#] {
            assert!(member_of(good).is_ok(), "{good}");
        }
        for wrong in ["", "7", "[]", "{}", r#"{"id":null}"#, r#"{"id":"a""#] {
            assert!(member_of(wrong).is_err(), "{wrong}");
        }
    }
}
