//! Owns the following of the `control` topic: every change of an object, in order, and how far the
//! follower has come.
//!
//! It must never keep the objects: each service keeps the part that it needs. The surprise: a
//! follower is pulled, not a task, so that a service applies changes exactly where its loop says,
//! and "applied" means applied by that loop.

use bytes::Bytes;
use schemas::records::{Applied, ControlKey, ControlObject};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::log::{
    Assignment, Error, Fetched, Headers, Producer, Reader, ReaderOptions, Record, SharedLog,
    StoredRecord, TopicName, patience,
};

const QUEUE_BYTES: usize = 4 << 20;
const BATCH_BYTES: usize = 256 << 10;

/// One object as it is from now on; `None` when it was deleted.
#[derive(Debug)]
pub struct Change {
    /// Which object.
    pub key: ControlKey,
    /// Its state.
    pub object: Option<ControlObject>,
}

/// Changes in order, and where they lead.
#[derive(Debug)]
pub struct Update {
    /// May be empty when only the position moved.
    pub changes: Vec<Change>,
    /// The offset behind the last record of `control` that these changes come from.
    pub applied: i64,
    /// Whether the follower has seen the end of the topic since it started.
    pub caught_up: bool,
}

/// Reads `control` from its beginning, then as it grows.
#[derive(Debug)]
pub struct Follower {
    reader: std::sync::Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
    assignment: Assignment,
    log: SharedLog,
    control: TopicName,
    applied: i64,
    caught_up: bool,
}

impl Follower {
    /// Starts at the first record kept. Waits a while for a log that is not there yet.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub async fn start(log: &SharedLog, control: &TopicName, name: &str) -> Result<Self, Error> {
        let options = ReaderOptions {
            name: format!("{name}-control"),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, fetched) = log.reader(options).await?;
        let partition = control.partition(0);
        let bounds = patience::at_start(|| log.bounds(&partition)).await?;
        let assignment = reader.assign(partition, bounds.start);
        Ok(Self {
            reader,
            fetched,
            assignment,
            log: log.clone(),
            control: control.clone(),
            applied: bounds.start,
            caught_up: false,
        })
    }

    /// The next changes. Waits until there are some, or until the end is first reached.
    /// cancel-safe: nothing is taken before it is returned.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn next(&mut self) -> Result<Update, Error> {
        loop {
            let gone = || Error::new(crate::log::Class::Retry, &self.control, "reader has ended");
            let fetched = self.fetched.recv().await.ok_or_else(gone)?;
            match fetched {
                Fetched::Records(assignment, batch) if assignment == self.assignment => {
                    return Ok(self.update(&batch.records));
                }
                Fetched::End(assignment, _) if assignment == self.assignment => {
                    if !self.caught_up {
                        self.caught_up = true;
                        return Ok(self.update(&[]));
                    }
                }
                Fetched::OutOfRange(assignment, partition) if assignment == self.assignment => {
                    // Only a topic made anew does this: its state is then the whole state.
                    error!(%partition, applied = self.applied, "control position is outside the log");
                    let start = self.log.bounds(&partition).await?.start;
                    self.assignment = self.reader.assign(partition, start);
                }
                Fetched::Failed(_, error) => warn!(%error, "control topic cannot be read now"),
                Fetched::Records(..) | Fetched::End(..) | Fetched::OutOfRange(..) => {}
            }
        }
    }

    /// Takes updates until the end of the topic has been seen; for use before a service joins its
    /// group.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn catch_up(&mut self, mut apply: impl FnMut(Update)) -> Result<(), Error> {
        while !self.caught_up {
            let update = self.next().await?;
            apply(update);
        }
        Ok(())
    }

    fn update(&mut self, records: &[StoredRecord]) -> Update {
        let changes = records.iter().filter_map(decode).collect();
        if let Some(last) = records.last() {
            self.applied = last.offset + 1;
        }
        Update {
            changes,
            applied: self.applied,
            caught_up: self.caught_up,
        }
    }
}

fn decode(record: &StoredRecord) -> Option<Change> {
    let decoded = std::str::from_utf8(record.key.as_deref().unwrap_or_default())
        .map_err(|_| schemas::records::Error::Invalid("control key"))
        .and_then(str::parse::<ControlKey>)
        .and_then(|key| {
            let object = record
                .value
                .as_deref()
                .map(ControlObject::decode)
                .transpose()?;
            Ok(Change { key, object })
        });
    // An object that a later version wrote is left as it was: the services that know it go on.
    decoded
        .inspect_err(|error| error!(offset = record.offset, %error, "control record left out"))
        .ok()
}

/// The record on `progress` that says how much of `control` a replica has applied.
pub fn applied_record(progress: &TopicName, applied: &Applied) -> Record {
    Record {
        topic: progress.clone(),
        partition: None,
        key: Some(Bytes::from(applied.key())),
        // Text and numbers alone: writing cannot fail.
        value: Some(Bytes::from(serde_json::to_vec(applied).unwrap_or_default())),
        headers: Headers::default(),
    }
}

/// Writes `applied` to `progress`, best effort: a missing report only makes `?wait=applied` wait.
pub fn report_applied(producer: &dyn Producer, progress: &TopicName, applied: &Applied) {
    if producer
        .try_send(vec![applied_record(progress, applied)])
        .is_err()
    {
        warn!(
            instance = applied.instance,
            "report of applied control offset was dropped"
        );
    }
}
