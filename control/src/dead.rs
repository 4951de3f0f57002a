//! Owns the looking at dead letters: pages of them, and one of them.
//!
//! It must never do unbounded work for a request: a page ends after so many records, bytes or
//! seconds, found or not, and says where the next begins. The surprise: letters are read from the
//! log each time; nothing about them is kept here.

use std::sync::Arc;
use std::time::Duration;

use runtime::log::ranges::{RangeReader, whole};
use runtime::log::{Error, SharedLog, StoredRecord, TopicName};
use schemas::ids::TenantId;
use schemas::records::{DeadLetter, DeliveryRecord, Span};
use schemas::resources::{DeadFilter, LetterId};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

/// Requests that read `dead` at once.
const READERS_MAX: usize = 4;
/// What one request reads at most.
const RECORDS_MAX: usize = 20_000;
const BYTES_MAX: usize = 32 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);

/// Reads dead letters. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    log: SharedLog,
    dead: TopicName,
    permits: Arc<Semaphore>,
}

/// A dead letter as it is on the log.
#[derive(Debug)]
pub(crate) struct Letter {
    /// Where it is.
    pub(crate) id: LetterId,
    /// Why and when.
    pub(crate) letter: DeadLetter,
    /// What was to be delivered, where the record holds it.
    pub(crate) delivery: Option<DeliveryRecord>,
    /// The record.
    pub(crate) stored: StoredRecord,
}

/// Why letters were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRead {
    /// Others read.
    #[error("too many requests read dead letters now")]
    Busy,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Which letters a request is about.
#[derive(Debug)]
pub(crate) struct Query {
    /// Whose; `None` for everybody's and nobody's.
    pub(crate) tenant: Option<TenantId>,
    /// Which of them.
    pub(crate) filter: DeadFilter,
    /// Where the page begins.
    pub(crate) after: Option<LetterId>,
    /// How many at most.
    pub(crate) limit: usize,
}

impl DeadLetters {
    /// Those on `dead`.
    pub(crate) fn new(log: SharedLog, dead: TopicName) -> Self {
        Self {
            log,
            dead,
            permits: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }

    /// A page of letters and where the next begins. It may hold none though more come.
    pub(crate) async fn page(
        &self,
        query: &Query,
    ) -> Result<(Vec<Letter>, Option<LetterId>), NotRead> {
        let _permit = self.permits.try_acquire().map_err(|_| NotRead::Busy)?;
        let mut spans = whole(&self.log, &self.dead, query.filter.since).await?;
        if let Some(after) = query.after {
            spans.retain(|span| span.partition >= after.partition);
            let same = spans
                .first_mut()
                .filter(|span| span.partition == after.partition);
            if let Some(span) = same {
                span.next = span.next.max(after.offset);
            }
        }
        let mut reader = RangeReader::open(&self.log, "control-dead", &self.dead, spans).await?;
        let deadline = Instant::now() + TIME_MAX;
        let (mut found, mut records, mut bytes) = (Vec::new(), 0, 0);
        while found.len() < query.limit && records < RECORDS_MAX && bytes < BYTES_MAX {
            let Ok(next) = tokio::time::timeout_at(deadline, reader.next()).await else {
                break;
            };
            let Some((partition, stored)) = next? else {
                break;
            };
            records += 1;
            bytes += stored.len_bytes();
            let letter = read(partition, stored);
            found.extend(letter.filter(|letter| query.takes(letter)));
        }
        let next = reader.rest().first().map(|span| LetterId {
            partition: span.partition,
            offset: span.next,
        });
        Ok((found, next))
    }

    /// One letter.
    pub(crate) async fn one(&self, id: LetterId) -> Result<Option<Letter>, NotRead> {
        let _permit = self.permits.try_acquire().map_err(|_| NotRead::Busy)?;
        let spans = place(&self.log, &self.dead, id).await?;
        let mut reader = RangeReader::open(&self.log, "control-dead", &self.dead, spans).await?;
        let found = tokio::time::timeout(TIME_MAX, reader.next()).await;
        let found = found.map_err(|_| {
            Error::new(
                runtime::log::Class::Retry,
                &self.dead,
                "was not read in time",
            )
        })??;
        Ok(found.and_then(|(partition, stored)| read(partition, stored)))
    }
}

impl Query {
    fn takes(&self, letter: &Letter) -> bool {
        let own = self.tenant.as_ref();
        own.is_none_or(|own| letter.letter.tenant.as_ref() == Some(own))
            && self.filter.takes(letter.id, &letter.letter)
    }
}

/// The range that holds the letter `id` alone; none where no such place is.
///
/// # Errors
/// Where the topic cannot be asked.
pub(crate) async fn place(
    log: &SharedLog,
    dead: &TopicName,
    id: LetterId,
) -> Result<Vec<Span>, Error> {
    let mut spans = whole(log, dead, None).await?;
    spans.retain(|span| {
        span.partition == id.partition && (span.next..span.end).contains(&id.offset)
    });
    for span in &mut spans {
        (span.next, span.end) = (id.offset, id.offset + 1);
    }
    Ok(spans)
}

/// Reads a record of `dead`; one that a later version wrote is left out.
pub(crate) fn read(partition: u32, stored: StoredRecord) -> Option<Letter> {
    let offset = stored.offset;
    match DeadLetter::decode(stored.headers.iter(), stored.value.as_ref()) {
        Ok((letter, delivery)) => Some(Letter {
            id: LetterId { partition, offset },
            letter,
            delivery,
            stored,
        }),
        Err(error) => {
            warn!(partition, offset, %error, "dead letter cannot be read");
            None
        }
    }
}
