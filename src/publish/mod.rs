//! Owns `anabranch publish`: events from a file, standard input or flags go to ingest in batches.
//!
//! It must never say that an event is in the log when ingest did not. The surprise: what is sent
//! again has the same ids, so a repeat after an unknown outcome is the same event.

mod sender;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::{TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::clock::Entropy;
use tokio::time::Instant;

pub(crate) use self::sender::{Outcome, Sender};
pub(crate) use self::source::{Batch, Item};
use self::source::{Batches, Wrap};
use crate::api::Api;
use crate::cli::{ApiArgs, Tenant};
use crate::output;
use crate::settings::Settings;

/// Flags of `anabranch publish`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch publish --tenant acme events.ndjson             CloudEvents, one JSON object a line
  generate | anabranch publish --tenant acme                the same from standard input
  anabranch publish --tenant acme --type com.acme.lead.created leads.ndjson
                                                            each line is the data of an event
  anabranch publish --tenant acme --type com.acme.lead.created --data '{\"name\":\"Ada\"}'

Prints the events that were rejected, with their lines; exit code 1 if there were any. A 429 or 503
is tried again, as late as ingest asks for, with the same ids.")]
pub(crate) struct PublishArgs {
    /// Events as CloudEvents in JSON, one a line; `-` or nothing is standard input
    file: Option<PathBuf>,
    #[command(flatten)]
    tenant: Tenant,
    /// The event type: each line (or `--data`) is then an event's data
    #[arg(long = "type", value_name = "TYPE")]
    ty: Option<String>,
    /// One event's data, as JSON
    #[arg(long, value_name = "JSON", requires = "ty", conflicts_with = "file")]
    data: Option<String>,
    /// The source of events made from data
    #[arg(long, default_value = "/anabranch/publish", requires = "ty")]
    source: String,
    /// The subject of events made from data
    #[arg(long, requires = "ty")]
    subject: Option<String>,
    /// The id of the event made from `--data`; else one is made
    #[arg(long, requires = "data")]
    id: Option<String>,
    /// Events in a request
    #[arg(long, default_value_t = 100, value_name = "N")]
    batch: usize,
    /// Requests at once; 1 keeps the order of the lines
    #[arg(long, default_value_t = 4, value_name = "N")]
    concurrency: usize,
    /// How long a request is tried again, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    retry_for: u64,
    #[command(flatten)]
    api: ApiArgs,
}

/// What became of everything.
#[derive(Debug, Default)]
struct Summary {
    accepted: u64,
    rejected: u64,
}

/// Publishes, prints what was rejected and a summary.
///
/// # Errors
/// Where the events cannot be read, or ingest cannot be reached or refuses the key.
pub(crate) async fn run(args: PublishArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, &settings.config().general.data_dir)?;
    let retry_for = Duration::from_secs(args.retry_for);
    let sender = Sender::new(api, args.tenant.tenant.clone(), retry_for);
    let batches = open(&args).await?;
    let progress = progress(batches.bytes());
    let started = Instant::now();
    let mut summary = Summary::default();
    let published = publish(&args, &sender, batches, &progress, &mut summary).await;
    progress.finish_and_clear();
    report(&summary, started.elapsed());
    published?;
    Ok(if summary.rejected == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn open(args: &PublishArgs) -> anyhow::Result<Batches> {
    let wrap = args.ty.as_ref().map(|ty| Wrap {
        ty: ty.clone(),
        source: args.source.clone(),
        subject: args.subject.clone(),
        id: args.id.clone(),
        run: format!("{:016x}", Entropy::system().u64()),
    });
    match &args.data {
        Some(data) => Ok(Batches::of_text(data, wrap, args.batch)),
        None => Batches::of_file(args.file.as_deref(), wrap, args.batch).await,
    }
}

async fn publish(
    args: &PublishArgs,
    sender: &Sender,
    batches: Batches,
    progress: &ProgressBar,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let batches = stream::try_unfold(batches, |mut batches| async move {
        Ok(batches.next().await?.map(|batch| (batch, batches)))
    });
    let sent = batches.map_ok(|batch| sender.send(batch));
    let mut outcomes = std::pin::pin!(sent.try_buffer_unordered(args.concurrency.max(1)));
    while let Some(Outcome {
        accepted,
        rejected,
        bytes,
    }) = outcomes.try_next().await?
    {
        summary.accepted += accepted;
        progress.inc(bytes);
        for (line, why) in rejected {
            summary.rejected += 1;
            progress.suspend(|| output::line(format_args!("line {line}: {why}")))?;
        }
    }
    Ok(())
}

/// A bar where the size is known; nothing where nobody looks.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn report(summary: &Summary, took: Duration) {
    let accepted = output::thousands(summary.accepted);
    let rejected = output::thousands(summary.rejected);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = output::thousands(summary.accepted.saturating_mul(1_000) / millis);
    output::note(format_args!(
        "{accepted} accepted, {rejected} rejected in {:.1} s ({rate}/s)",
        took.as_secs_f64()
    ));
}
