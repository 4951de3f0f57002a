//! Owns the following of `results`: first all that is kept, then each report as it is written.
//!
//! It must never let a redrive send before it has seen what was reported until now. The surprise:
//! all partitions are read, because only the log knows which one a key is in.

use std::collections::BTreeSet;
use std::sync::Arc;

use runtime::log::ranges::whole;
use runtime::log::{Class, Error, Fetched, Partition, Reader, ReaderOptions, SharedLog, TopicName};
use schemas::records::ResultRecord;
use tokio::sync::mpsc;
use tracing::warn;

const QUEUE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 256 << 10;

/// Reports as they come.
#[derive(Debug)]
pub(super) struct Reports {
    log: SharedLog,
    reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
    /// Partitions whose end has not been seen.
    behind: BTreeSet<Partition>,
}

/// A report and where it is: partition and offset.
pub(super) type Report = ((u32, i64), ResultRecord);

impl Reports {
    /// Those from `since` on, unix milliseconds.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) async fn open(
        log: &SharedLog,
        results: &TopicName,
        since: i64,
    ) -> Result<Self, Error> {
        let options = ReaderOptions {
            name: "control-results".to_owned(),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, fetched) = log.reader(options).await?;
        let mut behind = BTreeSet::new();
        for span in whole(log, results, Some(since)).await? {
            let partition = results.partition(span.partition);
            reader.assign(partition.clone(), span.next);
            behind.insert(partition);
        }
        Ok(Self {
            log: log.clone(),
            reader,
            fetched,
            behind,
        })
    }

    /// Whether all that was there at the start has been handed over.
    pub(super) fn is_caught_up(&self) -> bool {
        self.behind.is_empty()
    }

    /// The next reports; none where only an end was reached.
    /// cancel-safe: nothing is taken before it is returned.
    ///
    /// # Errors
    /// When the reader is gone.
    pub(super) async fn next(&mut self) -> Result<Vec<Report>, Error> {
        let gone = || Error::new(Class::Retry, "results", "reader has ended");
        let fetched = self.fetched.recv().await.ok_or_else(gone)?;
        self.take(fetched).await
    }

    /// The reports that are here already.
    ///
    /// # Errors
    /// When the reader is gone.
    pub(super) async fn here(&mut self) -> Result<Vec<Report>, Error> {
        let mut reports = Vec::new();
        while let Ok(fetched) = self.fetched.try_recv() {
            reports.extend(self.take(fetched).await?);
        }
        Ok(reports)
    }

    async fn take(&mut self, fetched: Fetched) -> Result<Vec<Report>, Error> {
        match fetched {
            Fetched::Records(_, batch) => {
                let number = batch.partition.number;
                let read = batch.records.iter().filter_map(|record| {
                    let decoded = ResultRecord::decode(record.value.as_deref()?);
                    let report = decoded.inspect_err(
                        |error| warn!(offset = record.offset, %error, "report cannot be read"),
                    );
                    Some(((number, record.offset), report.ok()?))
                });
                return Ok(read.collect());
            }
            Fetched::End(_, partition) => {
                self.behind.remove(&partition);
            }
            Fetched::OutOfRange(_, partition) => {
                let start = self.log.bounds(&partition).await?.start;
                self.reader.assign(partition, start);
            }
            Fetched::Failed(_, error) => warn!(%error, "results cannot be read now"),
        }
        Ok(Vec::new())
    }
}
