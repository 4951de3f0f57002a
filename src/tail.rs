//! Owns `anabranch deliveries tail`: each attempt as it is made, one line each.
//!
//! It must never claim to be complete: attempts are recorded best effort. The surprise: on Kafka it
//! reads the topic itself; on the embedded log it asks the process that has it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::clock::Clock;
use runtime::config::{Config, parse_duration};
use runtime::log::topics::Topics;
use runtime::task::Signals;
use schemas::records::{AttemptRecord, AttemptVerdict};
use tokio::io::AsyncBufReadExt;

use crate::attempts::{self, Attempts};
use crate::settings::Settings;
use crate::{open, output};

/// About deliveries.
#[derive(Debug, Subcommand)]
pub(crate) enum DeliveriesCommand {
    /// Print each attempt as it is made, until it is interrupted
    Tail(TailArgs),
}

/// Flags of `anabranch deliveries tail`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch deliveries tail                            of `anabranch up` on this data folder
  anabranch deliveries tail --failed --since 1h        what went wrong in the last hour, and on
  anabranch deliveries tail --json | jq .status        every field of the record
  anabranch deliveries tail --brokers kafka:9092       straight from Kafka")]
pub(crate) struct TailArgs {
    /// Begin so long ago, e.g. 10m; without it, now
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<std::time::Duration>,
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// Only this endpoint's
    #[arg(long)]
    endpoint: Option<String>,
    /// Only attempts that did not deliver
    #[arg(long)]
    failed: bool,
    /// Print the records as JSON, one a line
    #[arg(long)]
    json: bool,
    /// End after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

fn parse_since(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 30s, 10m or 2h".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Where the attempts cannot be read.
pub(crate) async fn run(
    command: DeliveriesCommand,
    settings: Settings,
) -> anyhow::Result<ExitCode> {
    let DeliveriesCommand::Tail(args) = command;
    let mut signals = Signals::install()?;
    let since = args
        .since
        .map(|since| Clock::system().now() - runtime::clock::millis(since));
    tokio::select! {
        done = tail(&args, settings.config(), since) => done?,
        _ = signals.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn tail(args: &TailArgs, config: &Config, since: Option<i64>) -> anyhow::Result<()> {
    let mut shown = 0;
    let done = |shown: u64| args.count.is_some_and(|count| shown >= count);
    if config.kafka.brokers.is_empty() {
        let mut lines = attempts::ask(&config.general.data_dir, since)
            .await?
            .lines();
        while !done(shown) {
            let Some(line) = lines.next_line().await? else {
                anyhow::bail!("the process that has the log has ended");
            };
            shown += show(args, line.as_bytes())?;
        }
        return Ok(());
    }
    let (log, _) = open::open(config, &Clock::system()).await?;
    let topic = Topics::with_prefix(&config.topics.prefix).attempts;
    let mut attempts = Attempts::open(&log, &topic, since).await?;
    while !done(shown) {
        for value in attempts.next().await? {
            if !done(shown) {
                shown += show(args, &value)?;
            }
        }
    }
    Ok(())
}

/// Prints an attempt, if it is wanted; says how many it printed.
fn show(args: &TailArgs, value: &[u8]) -> anyhow::Result<u64> {
    let record: AttemptRecord = match serde_json::from_slice(value) {
        Ok(record) => record,
        Err(error) => {
            // A later version wrote it.
            tracing::warn!(%error, "attempt cannot be read");
            return Ok(0);
        }
    };
    if !wanted(args, &record) {
        return Ok(0);
    }
    if args.json {
        output::line(String::from_utf8_lossy(value))?;
    } else {
        output::line(line(&record))?;
    }
    Ok(1)
}

fn wanted(args: &TailArgs, record: &AttemptRecord) -> bool {
    let tenant = args
        .tenant
        .as_deref()
        .is_none_or(|tenant| tenant == record.tenant.as_str());
    let endpoint = args.endpoint.as_deref();
    let endpoint = endpoint.is_none_or(|endpoint| endpoint == record.endpoint.to_string());
    tenant && endpoint && !(args.failed && record.verdict == AttemptVerdict::Delivered)
}

fn line(record: &AttemptRecord) -> String {
    let verdict = match record.verdict {
        AttemptVerdict::Delivered => "delivered",
        AttemptVerdict::Retry => "retry",
        AttemptVerdict::Rejected => "rejected",
        AttemptVerdict::EndpointGone => "endpoint gone",
    };
    let time = output::time_of_day(record.started_at);
    let status = record
        .status
        .map_or_else(|| "-".to_owned(), |status| status.to_string());
    let (millis, micros) = (record.duration_us / 1_000, record.duration_us % 1_000 / 100);
    let mut line = format!(
        "{time}  {verdict:<9}  {status:>3}  {millis}.{micros} ms  attempt {}  {}  {}  {}",
        record.attempt, record.delivery, record.event_type, record.endpoint
    );
    for why in [&record.reason, &record.error].into_iter().flatten() {
        line.push_str("  ");
        line.push_str(why);
    }
    line
}

#[cfg(test)]
mod tests {
    use schemas::ids::{DeliveryId, EndpointId, SubscriptionId};

    use super::*;

    fn record(verdict: AttemptVerdict) -> AttemptRecord {
        AttemptRecord {
            version: 1,
            delivery: DeliveryId::of("/s", "1", SubscriptionId::from_bits(1)),
            tenant: "acme".parse().unwrap(),
            endpoint: EndpointId::from_bits(7),
            subscription: SubscriptionId::from_bits(1),
            event_id: "1".to_owned(),
            event_type: "t".to_owned(),
            instance: "here".to_owned(),
            attempt: 2,
            started_at: 3_723_004,
            duration_us: 12_345,
            verdict,
            reason: Some("status".to_owned()),
            status: Some(503),
            error: None,
            request_bytes: 1,
            response_bytes: 2,
        }
    }

    fn args(tenant: Option<&str>, failed: bool) -> TailArgs {
        let tenant = tenant.map(ToOwned::to_owned);
        TailArgs {
            since: None,
            tenant,
            endpoint: None,
            failed,
            json: false,
            count: None,
        }
    }

    #[test]
    fn a_line_says_what_came_of_the_attempt() {
        let line = line(&record(AttemptVerdict::Retry));
        assert!(
            line.starts_with("01:02:03.004  retry      503  12.3 ms  attempt 2  msg_"),
            "{line}"
        );
        assert!(line.ends_with("  status"), "{line}");
    }

    #[test]
    fn only_what_was_asked_for_is_shown() {
        let (delivered, retry) = (
            record(AttemptVerdict::Delivered),
            record(AttemptVerdict::Retry),
        );
        assert!(wanted(&args(None, false), &delivered));
        assert!(wanted(&args(Some("acme"), true), &retry));
        assert!(!wanted(&args(Some("acme"), true), &delivered));
        assert!(!wanted(&args(Some("other"), false), &retry));
    }
}
