//! Owns `anabranch cohort upload`: a file, standard input or a URL becomes a snapshot.
//!
//! It must never hold more of a body than a piece of it. The surprise: what was sent is sorted by
//! the service before it answers, so the bar stands at its end for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use object_store::ObjectStoreExt;
use reqwest::{Body, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::service::{Form, Noun, Service};
use super::{CohortsArgs, STDIN};
use crate::api::Answer;
use crate::cli::Tenant;
use crate::output;
use crate::settings::Settings;

/// A piece of a body.
const PIECE_BYTES: usize = 256 << 10;
/// Rejects that are shown where no file takes them.
const REJECTS_SHOWN: usize = 10;

/// Flags of `anabranch cohort upload`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch cohort upload VIP members.csv --tenant acme
  anabranch cohort upload VIP members.ndjson.zst --tenant acme --rejects bad.ndjson
  psql -c 'copy (select …) to stdout csv header' | anabranch cohort upload VIP - --format csv --tenant acme
  anabranch cohort upload VIP s3://exports/vip.parquet --tenant acme

A snapshot is all members that there are: who is not in it has left. It is seen when it is whole; a
failed upload leaves the last one as it was. Objects of S3 are read with the credentials in AWS_…
variables, in builds with the feature `s3`.")]
pub(crate) struct UploadArgs {
    /// The cohort's id, or its name
    cohort: String,
    /// A file; `-` for standard input; or the URL of an object in an object store
    source: String,
    /// How rows are written; else the file's name or its first bytes say it
    #[arg(long)]
    format: Option<Format>,
    /// How it is compressed; else the file's name or its first bytes say it
    #[arg(long)]
    compression: Option<Compression>,
    /// The field or column that has a member's id
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// What separates the cells of a CSV row; a comma where it is not said
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// The share of bad rows, in per cent, above which the upload fails; 1 where it is not said
    #[arg(long, value_name = "PERCENT")]
    rejects_max_percent: Option<f64>,
    /// Write bad rows here: line and reason, one JSON object a line
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    #[command(flatten)]
    tenant: Tenant,
    #[command(flatten)]
    to: CohortsArgs,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line
    Ndjson,
    /// Comma-separated values, the first row names the fields
    Csv,
    /// Apache Parquet
    Parquet,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// Not at all
    Plain,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// What the name of a file says of what is in it.
fn said_by(name: &str) -> (Option<Format>, Option<Compression>) {
    let name = name.to_ascii_lowercase();
    let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Some(Compression::Gzip))
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Some(Compression::Zstd))
    } else {
        (name.as_str(), None)
    };
    let format = match stem.rsplit_once('.').map(|(_, extension)| extension) {
        Some("ndjson" | "jsonl") => Some(Format::Ndjson),
        Some("csv") => Some(Format::Csv),
        Some("parquet") => Some(Format::Parquet),
        Some(_) | None => None,
    };
    (format, compression)
}

/// The URL of an object store, where the source is one.
fn url(source: &str) -> Option<Url> {
    let url = Url::parse(source).ok()?;
    // A drive's letter is no scheme.
    (url.scheme().len() > 1 && source.contains("://")).then_some(url)
}

/// Uploads a snapshot and prints what became of it.
///
/// # Errors
/// Where the source cannot be read, or the service refuses it.
pub(super) async fn run(args: &UploadArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let service = Service::new(&args.to, &args.tenant.tenant, settings)?;
    let id = service.id(Noun::Cohort, &args.cohort).await?;
    let path = [Noun::Cohort.path(), id.as_str(), "snapshots"];
    let started = Instant::now();
    let input = match url(&args.source) {
        Some(url) => fetch(&url).await?,
        None => open(&args.source).await?,
    };
    let bar = progress(input.bytes);
    let body = Body::wrap_stream(counted(input.pieces, bar.clone()));
    let answer = service.upload(&path, &form(args), body).await;
    bar.finish_and_clear();
    told(args, &answer?, started.elapsed())
}

fn form(args: &UploadArgs) -> Form {
    let (by_name, compressed) = said_by(&args.source);
    let format = args.format.or(by_name);
    let mut form = Form {
        content_type: Some(format.map_or("application/octet-stream", Format::content_type)),
        content_encoding: match args.compression.or(compressed) {
            Some(Compression::Gzip) => Some("gzip"),
            Some(Compression::Zstd) => Some("zstd"),
            Some(Compression::Plain) => Some("identity"),
            None => None,
        },
        query: Vec::new(),
    };
    let mut say = |name, text: Option<String>| {
        form.query.extend(text.map(|text| (name, text)));
    };
    say("format", format.map(|format| format.word().to_owned()));
    say("id_field", args.id_field.clone());
    say("delimiter", args.delimiter.map(String::from));
    let share = args.rejects_max_percent.map(|share| share.to_string());
    say("rejects_max_percent", share);
    form
}

/// What is uploaded, and how long it is where that is known.
struct Input {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    bytes: Option<u64>,
}

async fn open(source: &str) -> anyhow::Result<Input> {
    let path = if source == "-" { STDIN } else { source };
    let unread = || format!("`{source}` cannot be read");
    let file = File::open(path).await.with_context(unread)?;
    let metadata = file.metadata().await.with_context(unread)?;
    anyhow::ensure!(!metadata.is_dir(), "`{source}` is a folder: name a file");
    Ok(Input {
        pieces: pieces(file).boxed(),
        bytes: metadata.is_file().then_some(metadata.len()),
    })
}

/// An object, read with the credentials that the environment has.
async fn fetch(url: &Url) -> anyhow::Result<Input> {
    let unread = || {
        let place = url.origin().ascii_serialization();
        format!("`{url}` cannot be read from an object store ({place}); `-` takes any other stream")
    };
    crate::api::provide_cryptography();
    let (store, path) = object_store::parse_url_opts(url, std::env::vars()).with_context(unread)?;
    let object = store.get(&path).await.with_context(unread)?;
    Ok(Input {
        bytes: Some(object.meta.size),
        pieces: object.into_stream().map_err(io::Error::other).boxed(),
    })
}

/// A file in pieces.
fn pieces(
    reader: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(reader, |mut reader| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        let read = (&mut reader).take(limit).read_to_end(&mut piece).await?;
        Ok((read > 0).then(|| (Bytes::from(piece), reader)))
    })
}

/// The same pieces, counted by the bar as they are taken.
fn counted(
    pieces: BoxStream<'static, io::Result<Bytes>>,
    bar: ProgressBar,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((pieces, bar), |(mut pieces, bar)| async move {
        let Some(piece) = pieces.try_next().await? else {
            bar.set_style(style(
                "{spinner} {bytes} sent, the service sorts them {elapsed}",
            ));
            bar.enable_steady_tick(TICK);
            return Ok(None);
        };
        bar.inc(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(Some((piece, (pieces, bar))))
    })
}

const TICK: Duration = Duration::from_millis(120);

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A bar where the size is known; nothing where nobody looks.
fn progress(bytes: Option<u64>) -> ProgressBar {
    match bytes {
        Some(bytes) => ProgressBar::new(bytes).with_style(style(
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    }
}

/// A row that was refused.
#[derive(Debug, Deserialize)]
struct Reject {
    line: u64,
    reason: String,
}

/// The rows that were refused: how many, and the first of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rejects {
    total: u64,
    first: Vec<Reject>,
}

/// What a snapshot is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    id: String,
    members: u64,
    duplicates: u64,
}

/// What an answer says of an upload, or of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Uploaded {
    snapshot: Snapshot,
    rejects: Rejects,
}

fn told(args: &UploadArgs, answer: &Answer, took: Duration) -> anyhow::Result<ExitCode> {
    let uploaded: Uploaded = serde_json::from_slice(&answer.body).unwrap_or_default();
    show_rejects(args.rejects.as_deref(), &uploaded.rejects)?;
    if !answer.status.is_success() {
        return Err(anyhow::Error::from(answer.refused())
            .context("no snapshot was made, and the last one stays"));
    }
    let body: Value = answer.json()?;
    let snapshot = body.get("snapshot").context("answer names no snapshot")?;
    output::line(serde_json::to_string_pretty(snapshot)?)?;
    let Snapshot {
        id,
        members,
        duplicates,
    } = &uploaded.snapshot;
    output::note(format_args!(
        "snapshot {id}: {} members, {} duplicates, {} rejected, in {:.1} s",
        output::thousands(*members),
        output::thousands(*duplicates),
        output::thousands(uploaded.rejects.total),
        took.as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

fn show_rejects(file: Option<&Path>, rejects: &Rejects) -> anyhow::Result<()> {
    if let Some(path) = file {
        let lines = rejects.first.iter().map(|Reject { line, reason }| {
            let row = serde_json::json!({ "line": line, "reason": reason });
            format!("{row}\n")
        });
        let text: String = lines.collect();
        std::fs::write(path, text)
            .with_context(|| format!("`{}` cannot be written", path.display()))?;
    } else {
        for Reject { line, reason } in rejects.first.iter().take(REJECTS_SHOWN) {
            output::note(format_args!("line {line}: {}", output::plain(reason)));
        }
    }
    let shown = if file.is_some() {
        rejects.first.len()
    } else {
        rejects.first.len().min(REJECTS_SHOWN)
    };
    let more = rejects
        .total
        .saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    if more > 0 {
        let more = output::thousands(more);
        output::note(format_args!("and {more} bad rows more"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::Request;
    use axum::http::StatusCode;
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::cohort::CohortCommand;

    #[test]
    fn a_files_name_says_its_form() {
        let check = |name, format, compression| {
            assert_eq!(said_by(name), (format, compression), "{name}");
        };
        check("a.csv", Some(Format::Csv), None);
        check("a.NDJSON.gz", Some(Format::Ndjson), Some(Compression::Gzip));
        check(
            "/b.c/a.jsonl.zst",
            Some(Format::Ndjson),
            Some(Compression::Zstd),
        );
        check("s3://b/a.parquet", Some(Format::Parquet), None);
        check("a.gz", None, Some(Compression::Gzip));
        check("-", None, None);
        check("members", None, None);
    }

    #[test]
    fn an_object_is_named_by_a_url() {
        for source in [
            "s3://bucket/key",
            "file:///tmp/a.csv",
            "https://a.example/x",
        ] {
            assert!(url(source).is_some(), "{source}");
        }
        for source in ["-", "a.csv", "/tmp/a.csv", "C:\\a.csv", "c:/a.csv", "a:b"] {
            assert!(url(source).is_none(), "{source}");
        }
    }

    #[tokio::test]
    async fn a_body_is_sent_in_pieces_and_counted() {
        let bytes = vec![7_u8; 3 * PIECE_BYTES + 5];
        let bar = ProgressBar::hidden();
        let reader = std::io::Cursor::new(bytes.clone());
        let pieces: Vec<Bytes> = counted(pieces(reader).boxed(), bar.clone())
            .map(Result::unwrap)
            .collect()
            .await;
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), bytes);
        assert_eq!(bar.position(), bytes.len() as u64);
    }

    /// What a service was sent: path and query, form, encoding, body.
    type Seen = Arc<Mutex<Vec<(String, String, String, Bytes)>>>;

    /// A service that answers `answer` to everything, on a port of its own.
    async fn serve(status: StatusCode, answer: Value) -> (Url, Seen) {
        let seen = Seen::default();
        let heard = Arc::clone(&seen);
        let handler = move |request: Request| {
            let (heard, answer) = (Arc::clone(&heard), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let header = |name| {
                    let value = head.headers.get(name);
                    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
                };
                let (form, encoding) = (header("content-type"), header("content-encoding"));
                let seen = (head.uri.to_string(), form, encoding, body);
                heard.lock().unwrap().push(seen);
                (status, axum::Json(answer))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(handler);
        let tasks = runtime::task::Tasks::new("test");
        tasks.spawn(runtime::task::TaskKind::Command, async move {
            axum::serve(listener, app).await
        });
        (url.parse().unwrap(), seen)
    }

    async fn upload(url: &Url, more: &[&str]) -> anyhow::Result<ExitCode> {
        let words = [
            "anabranch",
            "cohort",
            "upload",
            "coh_1",
            "--tenant",
            "acme",
            "--key",
            "k",
            "--cohorts-url",
            url.as_str(),
        ];
        let cli = Cli::try_parse_from(words.iter().chain(more)).unwrap();
        let settings = Settings::load(&cli.global, cli.command.role()).unwrap();
        let Command::Cohort {
            command: CohortCommand::Upload(args),
        } = cli.command
        else {
            panic!("no upload");
        };
        run(&args, &settings).await
    }

    #[tokio::test]
    async fn a_file_is_sent_with_what_is_known_of_it() {
        let rejects = json!({ "total": 2, "first": [{ "line": 3, "reason": "no id" }] });
        let answer = json!({ "snapshot": { "id": "s-1", "members": 1 }, "rejects": rejects });
        let (url, seen) = serve(StatusCode::CREATED, answer).await;
        let folder = tempfile::tempdir().unwrap();
        let (file, bad) = (folder.path().join("a.csv.gz"), folder.path().join("bad"));
        std::fs::write(&file, b"\x1f\x8b rest").unwrap();
        let more = [
            file.to_str().unwrap(),
            "--rejects-max-percent",
            "2.5",
            "--id-field",
            "user id",
            "--rejects",
            bad.to_str().unwrap(),
        ];
        upload(&url, &more).await.unwrap();
        let (path, form, encoding, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            path,
            "/v1/tenants/acme/cohorts/coh_1/snapshots?format=csv&id_field=user+id&rejects_max_percent=2.5"
        );
        assert_eq!((form.as_str(), encoding.as_str()), ("text/csv", "gzip"));
        assert_eq!(body, b"\x1f\x8b rest"[..]);
        let bad = std::fs::read_to_string(bad).unwrap();
        assert_eq!(bad, "{\"line\":3,\"reason\":\"no id\"}\n");
    }

    #[tokio::test]
    async fn an_object_is_read_here_and_a_refusal_says_that_the_last_snapshot_stays() {
        let problem = json!({ "title": "Too many bad rows", "detail": "9 of 10" });
        let (url, seen) = serve(StatusCode::UNPROCESSABLE_ENTITY, problem).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vip.parquet");
        std::fs::write(&file, "PAR1").unwrap();
        let object = format!("file://{}", file.display());
        let error = upload(&url, &[&object]).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("the last one stays"), "{text}");
        assert!(text.contains("422 Too many bad rows: 9 of 10"), "{text}");
        let (path, form, _, body) = seen.lock().unwrap().pop().unwrap();
        assert!(path.ends_with("/snapshots?format=parquet"), "{path}");
        assert_eq!(form, "application/vnd.apache.parquet");
        assert_eq!(body, b"PAR1"[..]);
        std::fs::remove_file(&file).unwrap();
        let error = upload(&url, &[&object]).await.unwrap_err();
        assert!(format!("{error:#}").contains("cannot be read"), "{error:#}");
        assert!(seen.lock().unwrap().is_empty(), "nothing is sent");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named_with_what_to_do() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let file = tempfile::NamedTempFile::new().unwrap();
        let more = [file.path().to_str().unwrap()];
        let error = upload(&url.parse().unwrap(), &more).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("--cohorts-url"), "{text}");
    }
}
