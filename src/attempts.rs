//! Owns the attempts as a stream: read from the log, and handed by `up` to `deliveries tail` through
//! a socket in the data folder, because the embedded log belongs to one process.
//!
//! It must never hold the services up: a reader that is slow is slow alone. The surprise: there is
//! no key. Whoever may open the socket's file may read the operator's key beside it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use runtime::log::{Class, Error, Fetched, Reader, ReaderOptions, SharedLog, TopicName};
use runtime::task::{TaskKind, Tasks};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use crate::process::{Part, Process};

const SOCKET: &str = "attempts.sock";
/// Those who look on at once; more wait.
const CLIENTS_MAX: usize = 8;
const QUEUE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 256 << 10;
/// The first line of a client: since when, in unix milliseconds, or nothing.
const QUESTION_BYTES_MAX: u64 = 64;

/// The attempts of all partitions from some time on.
#[derive(Debug)]
pub(crate) struct Attempts {
    // Held: reading ends with it.
    _reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
}

impl Attempts {
    /// Those from `since` (unix milliseconds) on; without it, those that are made from now on.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(crate) async fn open(
        log: &SharedLog,
        topic: &TopicName,
        since: Option<i64>,
    ) -> Result<Self, Error> {
        let missing = || Error::new(Class::Never, topic, "topic does not exist");
        let shape = log.describe_topic(topic).await?.ok_or_else(missing)?;
        let options = ReaderOptions {
            name: "attempts-tail".to_owned(),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, fetched) = log.reader(options).await?;
        for number in 0..shape.partitions {
            let partition = topic.partition(number);
            let found = match since {
                Some(since) => log.offset_at(&partition, since).await?,
                None => None,
            };
            let from = match found {
                Some(offset) => offset,
                None => log.bounds(&partition).await?.stable_end,
            };
            reader.assign(partition, from);
        }
        Ok(Self {
            _reader: reader,
            fetched,
        })
    }

    /// The next records' values. Waits until there are some. Cancel-safe.
    ///
    /// # Errors
    /// Where the reader has ended, or a position is outside the log.
    pub(crate) async fn next(&mut self) -> Result<Vec<Bytes>, Error> {
        loop {
            let gone = || Error::new(Class::Retry, "attempts", "reader has ended");
            match self.fetched.recv().await.ok_or_else(gone)? {
                Fetched::Records(_, batch) => {
                    return Ok(batch
                        .records
                        .into_iter()
                        .filter_map(|record| record.value)
                        .collect());
                }
                Fetched::OutOfRange(_, partition) => {
                    return Err(Error::new(
                        Class::Never,
                        partition,
                        "position is outside the log",
                    ));
                }
                Fetched::Failed(_, error) => tracing::warn!(%error, "attempts cannot be read now"),
                Fetched::End(..) => {}
            }
        }
    }
}

/// The socket's file in a data folder.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Serves the attempts of `process` on the socket in its data folder. Without the socket everything
/// else works, so what is wrong with it is logged.
pub(crate) fn start(process: &mut Process) {
    let path = socket(&process.config.general.data_dir);
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "`deliveries tail` will not work: its socket cannot be made");
            return;
        }
    };
    let tasks = process.part(Part::Attempts);
    let (log, topic) = (process.log.clone(), process.topics.attempts.clone());
    tasks.spawn(
        TaskKind::Command,
        serve(listener, log, topic, tasks.clone()),
    );
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    // Left by a process that was killed: the log's lock says that nobody else lives here.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(
    listener: UnixListener,
    log: SharedLog,
    topic: TopicName,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        let (log, topic) = (log.clone(), topic.clone());
        tasks.spawn(TaskKind::Command, async move {
            let _slot = slot;
            let shown = show(stream, &log, &topic).await;
            if let Err(error) = shown {
                tracing::debug!(%error, "somebody stopped looking at attempts");
            }
            Ok::<(), Error>(())
        });
    }
}

async fn show(stream: UnixStream, log: &SharedLog, topic: &TopicName) -> anyhow::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut question = String::new();
    let mut from = BufReader::new(from.take(QUESTION_BYTES_MAX));
    from.read_line(&mut question).await?;
    let mut attempts = Attempts::open(log, topic, question.trim().parse().ok()).await?;
    let mut gone = [0; 1];
    loop {
        let values = tokio::select! {
            values = attempts.next() => values?,
            // Nothing more is said by the other side: it has gone.
            _ = from.read(&mut gone) => return Ok(()),
        };
        for value in values {
            to.write_all(&value).await?;
            to.write_all(b"\n").await?;
        }
        to.flush().await?;
    }
}

/// Asks the process that has the data folder for its attempts; each line is one.
///
/// # Errors
/// Where no such process runs.
pub(crate) async fn ask(
    data_dir: &Path,
    since: Option<i64>,
) -> anyhow::Result<BufReader<UnixStream>> {
    let path = socket(data_dir);
    let connected = UnixStream::connect(&path).await;
    let mut stream = connected.with_context(|| {
        format!(
            "no `anabranch up` runs on this data folder ({}); name it with `--data-dir`, or Kafka's \
             brokers with `--brokers`",
            path.display()
        )
    })?;
    let question = since.map_or_else(String::new, |since| since.to_string());
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    Ok(BufReader::new(stream))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
    use runtime::log::{Headers, ProducerOptions, Record, TopicSettings};

    use super::*;

    async fn log_with(dir: &Path, topic: &TopicName, values: &[&'static str]) -> SharedLog {
        let (log, _) = EmbeddedLog::open(EmbeddedOptions::in_dir(dir.join("log")))
            .await
            .unwrap();
        let log: SharedLog = Arc::new(log);
        let settings = TopicSettings {
            name: topic.clone(),
            partitions: 2,
            replication: 0,
            compact: false,
            retention: Duration::from_secs(3_600),
            max_record_bytes: 1 << 20,
            append_time: false,
        };
        log.create_topics(&[settings]).await.unwrap();
        let producer = log.producer(ProducerOptions::named("test")).await.unwrap();
        let records = values.iter().enumerate().map(|(index, value)| Record {
            topic: topic.clone(),
            partition: u32::try_from(index % 2).ok(),
            key: None,
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: Headers::default(),
        });
        let acks = producer.send(records.collect()).await.wait().await;
        assert!(acks.iter().all(Result::is_ok));
        log
    }

    #[tokio::test]
    async fn whoever_has_the_folder_sees_the_attempts_of_all_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let topic = TopicName::new("attempts");
        let log = log_with(dir.path(), &topic, &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]).await;
        // A socket left by a process that was killed is no obstacle.
        let path = socket(dir.path());
        drop(bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let tasks = Tasks::new("test");
        tasks.spawn(
            TaskKind::Command,
            serve(listener, log, topic, tasks.clone()),
        );
        let mut lines = ask(dir.path(), Some(0)).await.unwrap().lines();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(lines.next_line().await.unwrap().unwrap());
        }
        seen.sort();
        assert_eq!(seen, ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
        tasks.cancel();
        tasks.finished().await;
        assert!(
            ask(dir.path(), None).await.is_err(),
            "nobody is there any more"
        );
    }
}
