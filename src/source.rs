//! Owns `anabranch source`: topics of somebody else's that are read as events, and a trial of how a
//! record is read.
//!
//! It must never read a record in another way than routers do: a trial uses the same decoder. The
//! surprise: a trial needs no Kafka, and no source that exists.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use runtime::clock::Clock;
use schemas::codec::{Reserved, json};
use schemas::event::Event;
use schemas::ids::SourceId;
use schemas::resources::Source;
use schemas::resources::input::{Faults, SourceInput};
use schemas::source::{Decoded, Decoder, RecordParts};
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::objects::{self, Request};
use crate::output;
use crate::settings::{Settings, Usage};

/// The largest record that is tried.
const RECORD_BYTES_MAX: u64 = 8 << 20;
/// The last part but one of a source's path.
const PATH: &str = "sources";

/// About sources.
#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Make a source: its topic is read from now on
    #[command(after_long_help = EXAMPLES)]
    Create {
        #[command(flatten)]
        fields: Box<NewFields>,
        #[command(flatten)]
        common: Common,
    },
    /// List them, one JSON object a line
    List(Common),
    /// Show one
    Show(One),
    /// Change one; what is not said stays. For records that are not begun
    #[command(alias = "patch")]
    Update {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        fields: Box<Fields>,
        /// The name of an attribute that is the format's own again (`subject`, or `split`); may be
        /// repeated
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Delete one: its topic is read no more
    Delete(One),
    /// Show which events a record becomes, without Kafka
    Try(Box<TryArgs>),
}

const EXAMPLES: &str = "\
Examples:
  anabranch source create --topic shop.orders --tenant acme --format json --type constant:order
  anabranch source create --topic shop.batches --tenant acme --format json --split /items \\
      --type pointer:/kind --subject record:/shop --start earliest
  anabranch source create --topic dbserver1.public.orders --tenant acme --format debezium
  anabranch source try --topic shop.orders --tenant acme --format json --type pointer:/kind \\
      --value record.json

Where an attribute comes from (FROM): `constant:TEXT`, `header:NAME`, `key`, `pointer:/place` in the
event's data, `record:/place` in the whole record.";

/// One source.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its id
    id: String,
    #[command(flatten)]
    common: Common,
}

/// What is said of a source when it is made.
#[derive(Debug, Args)]
pub(crate) struct NewFields {
    /// The topic's full name
    #[arg(long)]
    topic: String,
    /// The tenant of every event in it
    #[arg(long, env = "ANABRANCH_TENANT")]
    tenant: String,
    /// Where reading begins: latest or earliest; latest where absent
    #[arg(long)]
    start: Option<Start>,
    #[command(flatten)]
    fields: Fields,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Start {
    /// At the first record as new as the source
    Latest,
    /// At the first that the topic still has
    Earliest,
}

impl Start {
    const fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Earliest => "earliest",
        }
    }
}

/// What is said of a source, and may be changed.
#[derive(Debug, Default, Args)]
pub(crate) struct Fields {
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// What its records are: cloudevents, json, opaque or debezium; json for a new one
    #[arg(long)]
    format: Option<String>,
    /// Where an event's type comes from
    #[arg(long = "type", value_name = "FROM")]
    ty: Option<String>,
    /// Where its source comes from; `/kafka/TOPIC` where absent
    #[arg(long, value_name = "FROM")]
    source: Option<String>,
    /// Where its subject comes from
    #[arg(long, value_name = "FROM")]
    subject: Option<String>,
    /// Where its partition key comes from, within which order is kept; the record's key where
    /// absent
    #[arg(long = "order-key", value_name = "FROM")]
    order_key: Option<String>,
    /// Where its id comes from; the record's place where absent
    #[arg(long = "event-id", value_name = "FROM")]
    event_id: Option<String>,
    /// Where its time comes from; the record's timestamp where absent
    #[arg(long, value_name = "FROM")]
    time: Option<String>,
    /// JSON pointer to an array, of which each item is an event
    #[arg(long, value_name = "POINTER")]
    split: Option<String>,
    /// Turns beside other sources, 1 to 100
    #[arg(long, value_name = "N")]
    weight: Option<u8>,
}

/// Flags of `anabranch source try`.
#[derive(Debug, Args)]
pub(crate) struct TryArgs {
    /// The source as a JSON file, as the API takes it; instead of flags
    #[arg(long, value_name = "FILE", required_unless_present = "topic")]
    file: Option<PathBuf>,
    /// The topic's full name
    #[arg(long, conflicts_with = "file")]
    topic: Option<String>,
    /// The tenant of its events
    #[arg(long, default_value = "trial", env = "ANABRANCH_TENANT")]
    tenant: String,
    #[command(flatten)]
    fields: Fields,
    /// The record's value, as a file; `-` is standard input, no value without it
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
    /// The record's key
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// A header of the record; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

impl Fields {
    fn body(self) -> anyhow::Result<Map<String, Value>> {
        let mut event = Map::new();
        for (name, from) in [
            ("type", self.ty),
            ("source", self.source),
            ("subject", self.subject),
            ("key", self.order_key),
            ("id", self.event_id),
            ("time", self.time),
        ] {
            if let Some(from) = from {
                event.insert(name.to_owned(), expression(&from)?);
            }
        }
        let event = (!event.is_empty()).then_some(Value::Object(event));
        let members = [
            ("name", self.name.map(Value::from)),
            ("format", self.format.map(Value::from)),
            ("event", event),
            ("split", self.split.map(Value::from)),
            ("weight", self.weight.map(Value::from)),
        ];
        let said = members.into_iter();
        Ok(said
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

impl NewFields {
    fn body(self) -> anyhow::Result<Value> {
        let mut body = self.fields.body()?;
        body.insert("topic".to_owned(), self.topic.into());
        body.insert("tenant".to_owned(), self.tenant.into());
        body.entry("format").or_insert_with(|| "json".into());
        if let Some(start) = self.start {
            body.insert("start".to_owned(), start.word().into());
        }
        Ok(Value::Object(body))
    }
}

/// Reads `constant:TEXT` and so on.
fn expression(text: &str) -> Result<Value, Usage> {
    match text.split_once(':') {
        None if text == "key" => Ok(json!({ "key": true })),
        Some((kind @ ("constant" | "header" | "pointer" | "record"), rest)) => {
            Ok(json!({ kind: rest }))
        }
        Some(_) | None => Err(Usage(format!(
            "`{text}` says no place: give constant:TEXT, header:NAME, key, pointer:/place or \
             record:/place"
        ))),
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(command: SourceCommand, settings: &Settings) -> anyhow::Result<ExitCode> {
    let request = match command {
        SourceCommand::Try(args) => return try_out(*args),
        SourceCommand::Create { fields, common } => {
            Request::of(Method::POST, &[PATH], common, Some(fields.body()?))
        }
        SourceCommand::List(common) => Request::of(Method::GET, &[PATH], common, None),
        SourceCommand::Show(one) => about(Method::GET, one, None),
        SourceCommand::Update { one, fields, unset } => {
            let mut body = fields.body()?;
            for name in &unset {
                forget(&mut body, name);
            }
            about(Method::PATCH, one, Some(Value::Object(body)))
        }
        SourceCommand::Delete(one) => about(Method::DELETE, one, None),
    };
    objects::run(request, settings).await
}

fn about(method: Method, One { id, common }: One, body: Option<Value>) -> Request {
    Request::of(method, &[PATH, &id], common, body)
}

/// A merge patch takes a member away by `null`.
fn forget(body: &mut Map<String, Value>, name: &str) {
    if ["name", "split", "weight"].contains(&name) {
        body.insert(name.to_owned(), Value::Null);
        return;
    }
    let event = body.entry("event").or_insert_with(|| json!({}));
    if let Value::Object(event) = event {
        event.insert(name.to_owned(), Value::Null);
    }
}

fn try_out(args: TryArgs) -> anyhow::Result<ExitCode> {
    let source = source_of(&args.file, args.topic, args.tenant, args.fields)?;
    let value = args.value.as_deref().map(bytes_of).transpose()?;
    let key = args.key.map(Bytes::from);
    let headers = args.headers.iter().map(|header| {
        let wrong = || Usage(format!("`--header {header}` is no NAME=VALUE"));
        header.split_once('=').ok_or_else(wrong)
    });
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let record = RecordParts {
        partition: 0,
        offset: 0,
        timestamp: Clock::system().now(),
        key: key.as_ref(),
        value: value.as_ref(),
        headers: headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes())),
    };
    let (lines, is_whole) = lines(Decoder::new(source).decode(&record));
    for line in lines {
        output::line(line)?;
    }
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is printed of each event, and whether every one could be made.
fn lines(decoded: Decoded) -> (Vec<String>, bool) {
    let poison = |index: Option<u32>, words: &str| {
        let item = index.map_or(Value::Null, Value::from);
        json!({ "dead": "undecodable", "item": item, "detail": words }).to_string()
    };
    match decoded {
        Decoded::Tombstone => (vec![json!({ "tombstone": true }).to_string()], true),
        Decoded::Poison(words) => (vec![poison(None, &words)], false),
        Decoded::Items(items) => {
            let mut is_whole = true;
            let lines = items.map(|item| match item.event {
                Ok(event) => line(&event),
                Err(words) => {
                    is_whole = false;
                    poison(Some(item.index), &words)
                }
            });
            (lines.collect(), is_whole)
        }
    }
}

/// An event on one line: outside of strings, which have none, a line's end is white space.
fn line(event: &Event) -> String {
    let mut out = Vec::new();
    json::encode(event, Reserved::Keep, &mut out);
    String::from_utf8_lossy(&out).replace(['\n', '\r'], " ")
}

fn source_of(
    file: &Option<PathBuf>,
    topic: Option<String>,
    tenant: String,
    fields: Fields,
) -> anyhow::Result<Source> {
    let body = match file {
        Some(file) => {
            let text = bytes_of(file)?;
            let wrong = |error| Usage(format!("{}: is not json: {error}", file.display()));
            let mut body: Value = serde_json::from_slice(&text).map_err(wrong)?;
            if let Value::Object(body) = &mut body {
                body.entry("tenant").or_insert_with(|| tenant.into());
                // As `source show` prints one.
                for shown in ["id", "created_at", "updated_at"] {
                    body.remove(shown);
                }
                body.retain(|_, value| !value.is_null());
            }
            body
        }
        None => {
            let new = NewFields {
                topic: topic.unwrap_or_default(),
                tenant,
                start: None,
                fields,
            };
            new.body()?
        }
    };
    let input = SourceInput::read(&body).map_err(said)?;
    Ok(input.build(SourceId::from_bits(0), 0, 0))
}

fn said(Faults(faults): Faults) -> Usage {
    let faults = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.pointer, fault.detail));
    Usage(faults.collect::<Vec<_>>().join("; "))
}

/// The bytes of a file, or of standard input for `-`.
fn bytes_of(path: &Path) -> anyhow::Result<Bytes> {
    let named = || path.display().to_string();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(named)?)
    };
    let mut bytes = Vec::new();
    let read = source.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes);
    let count = u64::try_from(read.with_context(named)?)?;
    anyhow::ensure!(
        count <= RECORD_BYTES_MAX,
        "{}: is longer than {RECORD_BYTES_MAX} bytes",
        path.display()
    );
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn command(line: &str) -> SourceCommand {
        let words = std::iter::once("anabranch").chain(line.split(' '));
        let Command::Source { command } = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        command
    }

    #[test]
    fn flags_become_the_body_of_the_api() {
        let line = "source create --topic t --tenant acme --type pointer:/kind --order-key key \
                    --event-id header:id --source constant:/shop --split /items --weight 5 \
                    --start earliest";
        let words: Vec<&str> = line.split_whitespace().collect();
        let SourceCommand::Create { fields, .. } = command(&words.join(" ")) else {
            panic!("another command");
        };
        let body = fields.body().unwrap();
        assert_eq!(
            body,
            json!({
                "topic": "t", "tenant": "acme", "format": "json", "split": "/items", "weight": 5,
                "start": "earliest",
                "event": {
                    "type": { "pointer": "/kind" }, "key": { "key": true },
                    "id": { "header": "id" }, "source": { "constant": "/shop" },
                },
            })
        );
        assert!(SourceInput::read(&body).is_ok());
        for wrong in ["kind", "/kind", "constant", "path:/a"] {
            assert!(expression(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_can_take_away() {
        let SourceCommand::Update { fields, unset, .. } =
            command("source update src_1 --type key --unset subject --unset split")
        else {
            panic!("another command");
        };
        let mut body = fields.body().unwrap();
        unset.iter().for_each(|name| forget(&mut body, name));
        let expected =
            json!({ "split": null, "event": { "type": { "key": true }, "subject": null } });
        assert_eq!(Value::Object(body), expected);
    }

    #[test]
    fn a_trial_shows_events_and_what_is_none() {
        let fields = Fields {
            ty: Some("pointer:/kind".to_owned()),
            split: Some("/items".to_owned()),
            ..Fields::default()
        };
        let source = source_of(&None, Some("t".to_owned()), "acme".to_owned(), fields).unwrap();
        let decoder = Decoder::new(source);
        let tried = |value: &str| {
            let value = Bytes::from(value.to_owned());
            let (lines, is_whole) = lines(decoder.decode(&RecordParts {
                partition: 0,
                offset: 0,
                timestamp: 0,
                key: None,
                value: Some(&value),
                headers: [],
            }));
            let values = lines.iter().map(|line| serde_json::from_str(line).unwrap());
            (values.collect::<Vec<Value>>(), is_whole)
        };
        let (made, is_whole) = tried("{\"items\":[{\"kind\":\"a\",\n\"n\":1.50},{}]}");
        assert!(!is_whole);
        assert_eq!(made[0]["type"], "a");
        assert_eq!(made[0]["id"], "t/0/0/0");
        assert_eq!(made[0]["anabranchtenant"], "acme");
        assert_eq!(made[1]["dead"], "undecodable");
        assert_eq!(made[1]["item"], 1);
        let (made, is_whole) = tried(r#"{"items":[]}"#);
        assert!(made.is_empty() && is_whole);
        assert_eq!(tried("{").0[0]["item"], Value::Null);
    }

    #[test]
    fn what_is_wrong_with_a_source_is_named() {
        let fields = Fields {
            format: Some("opaque".to_owned()),
            ..Fields::default()
        };
        let wrong = source_of(&None, Some("t".to_owned()), "acme".to_owned(), fields);
        let text = wrong.unwrap_err().to_string();
        assert!(text.contains("/event/type"), "{text}");
    }
}
