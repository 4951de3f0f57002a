//! Owns where the events of `publish` come from: lines, each an event or an event's data, gathered
//! into batches.
//!
//! It must never hold more than one batch. The surprise: a line's text is sent as it is, not
//! written anew, so numbers and member order stay what they were.

use std::path::Path;

use anyhow::Context;
use serde_json::value::RawValue;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

/// The longest line; ingest takes no larger event.
const LINE_BYTES_MAX: u64 = 32 << 20;
/// A batch is sent when it has so many bytes, whatever its number of events.
const BATCH_BYTES: usize = 1 << 20;
/// Standard input as a file.
const STDIN: &str = "/dev/stdin";

/// One event and the line it came from.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) line: u64,
    /// A CloudEvent as JSON.
    pub(crate) json: String,
}

/// Events that are sent together, and lines that are none.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// Lines that cannot be events, and why.
    pub(crate) refused: Vec<(u64, String)>,
    /// Bytes of all its lines.
    pub(crate) bytes: u64,
}

/// What makes an event of a line that is only its data.
#[derive(Debug)]
pub(super) struct Wrap {
    pub(super) ty: String,
    pub(super) source: String,
    pub(super) subject: Option<String>,
    /// The id of the only event.
    pub(super) id: Option<String>,
    /// Makes the ids of all others, with their lines.
    pub(super) run: String,
}

/// The batches of a source.
pub(super) struct Batches {
    lines: Box<dyn AsyncBufRead + Send + Unpin>,
    bytes: Option<u64>,
    wrap: Option<Wrap>,
    batch_events: usize,
    line: u64,
}

impl Batches {
    /// Those of a file; of standard input without one.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) async fn of_file(
        path: Option<&Path>,
        wrap: Option<Wrap>,
        batch_events: usize,
    ) -> anyhow::Result<Self> {
        let path = path
            .filter(|path| *path != Path::new("-"))
            .unwrap_or(Path::new(STDIN));
        let file = File::open(path)
            .await
            .with_context(|| path.display().to_string())?;
        let metadata = file.metadata().await?;
        let bytes = metadata.is_file().then_some(metadata.len());
        let lines = Box::new(BufReader::with_capacity(256 << 10, file));
        Ok(Self {
            lines,
            bytes,
            wrap,
            batch_events: batch_events.max(1),
            line: 0,
        })
    }

    /// The one batch of a text.
    pub(super) fn of_text(text: &str, wrap: Option<Wrap>, batch_events: usize) -> Self {
        // A value over several lines is one value all the same.
        let bytes = u64::try_from(text.len()).ok();
        let line = text.replace(['\n', '\r'], " ");
        let lines = Box::new(std::io::Cursor::new(line.into_bytes()));
        Self {
            lines,
            bytes,
            wrap,
            batch_events: batch_events.max(1),
            line: 0,
        }
    }

    /// How many bytes there are, where that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The next batch, `None` at the end.
    ///
    /// # Errors
    /// Where the lines cannot be read.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let mut batch = Batch::default();
        let mut held = 0;
        while batch.items.len() < self.batch_events && held < BATCH_BYTES {
            let Some(text) = self.read_line().await? else {
                break;
            };
            batch.bytes += u64::try_from(text.len()).unwrap_or(0) + 1;
            if text.trim().is_empty() {
                continue;
            }
            match event(&text, self.line, self.wrap.as_ref()) {
                Ok(json) => {
                    held += json.len();
                    batch.items.push(Item {
                        line: self.line,
                        json,
                    });
                }
                Err(why) => batch.refused.push((self.line, why)),
            }
        }
        Ok((batch.bytes > 0).then_some(batch))
    }

    async fn read_line(&mut self) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = (&mut self.lines)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)
            .await
            .with_context(|| format!("line {}", self.line + 1))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if u64::try_from(read).is_ok_and(|read| read == LINE_BYTES_MAX) {
            anyhow::bail!("line {} is longer than {LINE_BYTES_MAX} bytes", self.line);
        }
        // What is not UTF-8 is not JSON: it is refused as that, with its line.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The event that a line is, or is the data of.
fn event(text: &str, line: u64, wrap: Option<&Wrap>) -> Result<String, String> {
    let raw: &RawValue =
        serde_json::from_str(text.trim()).map_err(|error| format!("is not json: {error}"))?;
    match wrap {
        Some(wrap) => Ok(wrap.event(line, raw)),
        None if raw.get().starts_with('{') => Ok(raw.get().to_owned()),
        None => Err("is not a json object; say `--type` if lines are data".to_owned()),
    }
}

impl Wrap {
    fn event(&self, line: u64, data: &RawValue) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let made = || format!("{}-{line}", self.run);
        let id = self.id.clone().unwrap_or_else(made);
        let subject = self
            .subject
            .as_deref()
            .map(|subject| format!("\"subject\":{},", quoted(subject)));
        format!(
            "{{\"specversion\":\"1.0\",\"id\":{},\"source\":{},\"type\":{},{}\
             \"datacontenttype\":\"application/json\",\"data\":{}}}",
            quoted(&id),
            quoted(&self.source),
            quoted(&self.ty),
            subject.unwrap_or_default(),
            data.get()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap() -> Wrap {
        Wrap {
            ty: "t\"1".to_owned(),
            source: "/s".to_owned(),
            subject: Some("x".to_owned()),
            id: None,
            run: "run".to_owned(),
        }
    }

    #[tokio::test]
    async fn lines_become_batches_and_bad_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.ndjson");
        std::fs::write(
            &path,
            "{\"id\":\"1\"}\n\n{broken\n{\"id\":\"2\"}\n7\n{\"id\":\"3\"}",
        )
        .unwrap();
        let mut batches = Batches::of_file(Some(&path), None, 2).await.unwrap();
        let first = batches.next().await.unwrap().unwrap();
        let lines = |batch: &Batch| batch.items.iter().map(|item| item.line).collect::<Vec<_>>();
        assert_eq!(lines(&first), [1, 4]);
        assert_eq!(first.refused.first().unwrap().0, 3);
        let second = batches.next().await.unwrap().unwrap();
        assert_eq!(
            (lines(&second), second.refused.first().unwrap().0),
            (vec![6], 5)
        );
        assert!(batches.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn data_is_wrapped_and_stays_as_it_was_written() {
        let mut batches = Batches::of_text("{\"a\": 1.50,\n \"b\":2}", Some(wrap()), 1);
        let batch = batches.next().await.unwrap().unwrap();
        let json = &batch.items.first().unwrap().json;
        assert!(
            json.ends_with("\"data\":{\"a\": 1.50,  \"b\":2}}"),
            "{json}"
        );
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            (&value["type"], &value["id"]),
            (&"t\"1".into(), &"run-1".into())
        );
        assert_eq!(value["subject"], "x");
    }
}
