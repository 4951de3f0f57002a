//! Owns the reading of ranges of a topic: one partition after another, record by record, from an
//! offset to an end that was known when the reading began.
//!
//! It must never wait for what is not there yet. The surprise: a range of which retention took the
//! beginning begins where the log does.

use std::collections::VecDeque;
use std::sync::Arc;

use schemas::records::Span;
use tokio::sync::mpsc;
use tracing::warn;

use super::{
    Assignment, Class, Error, Fetched, Reader, ReaderOptions, SharedLog, StoredRecord, TopicName,
};

const QUEUE_BYTES: usize = 2 << 20;
const BATCH_BYTES: usize = 512 << 10;

/// A reader of ranges.
#[derive(Debug)]
pub struct RangeReader {
    log: SharedLog,
    topic: TopicName,
    reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
    spans: VecDeque<Span>,
    assigned: Option<Assignment>,
    buffered: VecDeque<StoredRecord>,
}

impl RangeReader {
    /// Reads `spans` of `topic` in their order; `name` names the client in logs and metrics.
    ///
    /// # Errors
    /// Where no reader can be opened.
    pub async fn open(
        log: &SharedLog,
        name: impl Into<String>,
        topic: &TopicName,
        spans: Vec<Span>,
    ) -> Result<Self, Error> {
        let options = ReaderOptions {
            name: name.into(),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, fetched) = log.reader(options).await?;
        Ok(Self {
            log: log.clone(),
            topic: topic.clone(),
            reader,
            fetched,
            spans: spans.into(),
            assigned: None,
            buffered: VecDeque::new(),
        })
    }

    /// The next record and its partition; `None` behind the last range.
    /// cancel-safe: a record is taken when it is returned.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub async fn next(&mut self) -> Result<Option<(u32, StoredRecord)>, Error> {
        loop {
            let Some(span) = self.spans.front_mut() else {
                return Ok(None);
            };
            if span.next >= span.end {
                self.leave();
                continue;
            }
            let partition = self.topic.partition(span.partition);
            if let Some(record) = self.buffered.pop_front() {
                span.next = record.offset + 1;
                if record.offset < span.end {
                    return Ok(Some((span.partition, record)));
                }
                continue;
            }
            let next = span.next;
            let reader = &self.reader;
            let assignment = *self
                .assigned
                .get_or_insert_with(|| reader.assign(partition.clone(), next));
            let gone = || Error::new(Class::Retry, &partition, "reader has ended");
            match self.fetched.recv().await.ok_or_else(gone)? {
                Fetched::Records(of, batch) if of == assignment => {
                    self.buffered.extend(batch.records);
                }
                Fetched::End(of, _) if of == assignment => span.next = span.end,
                Fetched::OutOfRange(of, _) if of == assignment => {
                    self.assigned = None;
                    let start = self.log.bounds(&partition).await?.start;
                    // Behind the end of a topic made anew there is nothing.
                    span.next = if next < start { start } else { span.end };
                }
                Fetched::Failed(_, error) => warn!(%error, "{partition} cannot be read now"),
                Fetched::Records(..) | Fetched::End(..) | Fetched::OutOfRange(..) => {}
            }
        }
    }

    fn leave(&mut self) {
        self.buffered.clear();
        if let Some(span) = self.spans.pop_front()
            && self.assigned.take().is_some()
        {
            self.reader.unassign(self.topic.partition(span.partition));
        }
    }

    /// Reads `spans` too, behind what is still to be read.
    pub fn go_on(&mut self, spans: Vec<Span>) {
        self.spans.extend(spans);
    }

    /// What is still to be read.
    pub fn rest(&self) -> Vec<Span> {
        let rest = self.spans.iter().filter(|span| span.next < span.end);
        rest.copied().collect()
    }
}

/// The whole of a topic as it is now; from `since` on (unix milliseconds), where that is said.
///
/// # Errors
/// Where the topic does not exist or cannot be asked.
pub async fn whole(
    log: &SharedLog,
    topic: &TopicName,
    since: Option<i64>,
) -> Result<Vec<Span>, Error> {
    let missing = || Error::new(Class::Never, topic, "topic does not exist");
    let shape = log.describe_topic(topic).await?.ok_or_else(missing)?;
    let mut spans = Vec::new();
    for number in 0..shape.partitions {
        let partition = topic.partition(number);
        let bounds = log.bounds(&partition).await?;
        let next = match since {
            Some(since) => log.offset_at(&partition, since).await?,
            None => Some(bounds.start),
        };
        spans.push(Span {
            partition: number,
            next: next.unwrap_or(bounds.stable_end),
            end: bounds.stable_end,
        });
    }
    Ok(spans)
}

#[cfg(test)]
mod tests;
