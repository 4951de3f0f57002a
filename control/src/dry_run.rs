//! Owns the dry run: filters tried on the newest events of a tenant, as they are on the log.
//!
//! It must never show another tenant's event, nor do unbounded work: a run ends after so many
//! records, bytes or seconds, and says so. The surprise: the log is read backwards in steps of
//! growing length, because nobody knows how far back a tenant's events are.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use runtime::log::ranges::{RangeReader, whole};
use runtime::log::{Error, SharedLog, StoredRecord, TopicName};
use schemas::codec::kafka;
use schemas::event::{Event, Limits};
use schemas::filter::Filters;
use schemas::ids::TenantId;
use schemas::records::Span;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Events of one run.
pub(crate) const LAST_MAX: usize = 10_000;
/// Events that are shown of those that matched, and of those that did not.
const SHOWN_MAX: usize = 20;
/// The longest text that is shown of an event.
const SHOWN_CHARS_MAX: usize = 256;
/// Runs at once.
const RUNS_MAX: usize = 2;
/// What one run reads at most.
const RECORDS_MAX: usize = 50_000;
const BYTES_MAX: usize = 64 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);
/// The shortest and the longest step back in a partition.
const STEP_MIN: i64 = 64;
const STEP_MAX: i64 = 8_192;
/// What was written was within its writer's limits, which may be others than the default.
const LIMITS: Limits = Limits {
    max_attributes: usize::MAX,
    max_attribute_bytes: usize::MAX,
    max_data_bytes: usize::MAX,
};

/// Reads `events`. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct DryRuns {
    log: SharedLog,
    events: TopicName,
    permits: Arc<Semaphore>,
    records_max: usize,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTried {
    /// Others try theirs.
    #[error("too many dry runs now")]
    Busy,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As many events as were asked for were found.
    Found,
    /// There are no more.
    Beginning,
    /// It had read as much as a run may.
    Limit,
}

/// What a run has found.
#[derive(Debug)]
pub(crate) struct Tried {
    /// The tenant's newest events, the newest first.
    pub(crate) events: Vec<Seen>,
    /// Records that were read for it, anybody's.
    pub(crate) records: usize,
    /// Why it ended.
    pub(crate) ended: Ended,
}

/// An event that filters were tried on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When it was written, unix milliseconds.
    pub(crate) at: i64,
    /// Its place in its partition.
    offset: i64,
    /// Its id, cut.
    pub(crate) id: String,
    /// Its source, cut.
    pub(crate) source: String,
    /// Its type, cut.
    pub(crate) ty: String,
    /// Whether the filters matched.
    pub(crate) matched: bool,
    /// The event, where they did and it was to be kept.
    pub(crate) event: Option<Event>,
}

/// What a run may still read.
struct Budget {
    records: usize,
    bytes: usize,
    deadline: Instant,
}

impl Tried {
    /// How many matched.
    pub(crate) fn matched(&self) -> usize {
        self.events.iter().filter(|seen| seen.matched).count()
    }

    /// The newest that matched, or that did not.
    pub(crate) fn shown(&self, matched: bool) -> impl Iterator<Item = &Seen> {
        let wanted = self
            .events
            .iter()
            .filter(move |seen| seen.matched == matched);
        wanted.take(SHOWN_MAX)
    }
}

impl DryRuns {
    /// Those over `events`.
    pub(crate) fn new(log: SharedLog, events: TopicName) -> Self {
        Self {
            log,
            events,
            permits: Arc::new(Semaphore::new(RUNS_MAX)),
            records_max: RECORDS_MAX,
        }
    }

    /// Tries filters on the `last` newest events of `tenant`, and keeps those that match where it is
    /// told to.
    pub(crate) async fn run(
        &self,
        tenant: &TenantId,
        (filters, keep): (&Filters, bool),
        last: usize,
    ) -> Result<Tried, NotTried> {
        let _permit = self.permits.try_acquire().map_err(|_| NotTried::Busy)?;
        let last = last.min(LAST_MAX);
        let mut whole = whole(&self.log, &self.events, None).await?;
        let mut step = first_step(last, whole.len());
        let mut reader =
            RangeReader::open(&self.log, "control-dry-run", &self.events, Vec::new()).await?;
        let mut budget = Budget {
            records: self.records_max,
            bytes: BYTES_MAX,
            deadline: Instant::now() + TIME_MAX,
        };
        let mut events = Vec::new();
        let ended = loop {
            if events.len() >= last {
                break Ended::Found;
            }
            let spans = back(&mut whole, step);
            if spans.is_empty() {
                break Ended::Beginning;
            }
            reader.go_on(spans);
            let take = |record: &_| events.extend(tried(record, tenant, (filters, keep)));
            if !budget.read(&mut reader, take).await? {
                break Ended::Limit;
            }
            step = STEP_MAX.min(step * 2);
        };
        events.sort_by_key(|seen: &Seen| Reverse((seen.at, seen.offset)));
        events.truncate(last);
        Ok(Tried {
            events,
            records: self.records_max - budget.records,
            ended,
        })
    }
}

impl Budget {
    /// Reads what the reader has to read; `false` where it may read no more before the end.
    async fn read(
        &mut self,
        reader: &mut RangeReader,
        mut take: impl FnMut(&StoredRecord),
    ) -> Result<bool, Error> {
        loop {
            if self.records == 0 || self.bytes == 0 {
                return Ok(false);
            }
            let Ok(next) = tokio::time::timeout_at(self.deadline, reader.next()).await else {
                return Ok(false);
            };
            let Some((_, record)) = next? else {
                return Ok(true);
            };
            self.records -= 1;
            self.bytes = self.bytes.saturating_sub(record.len_bytes());
            take(&record);
        }
    }
}

/// So far back at first that it is enough where every event is the tenant's.
fn first_step(last: usize, partitions: usize) -> i64 {
    let even = last.div_ceil(partitions.max(1));
    i64::try_from(even)
        .unwrap_or(STEP_MAX)
        .clamp(STEP_MIN, STEP_MAX)
}

/// The next `step` offsets before what was read of each partition, which they are taken away from.
fn back(whole: &mut [Span], step: i64) -> Vec<Span> {
    let unread = whole.iter_mut().filter(|span| span.next < span.end);
    let spans = unread.map(|span| {
        let next = span.next.max(span.end - step);
        let part = Span { next, ..*span };
        span.end = next;
        part
    });
    spans.collect()
}

/// What comes of the filters on this record; nothing where it is another tenant's, or no event.
fn tried(
    record: &StoredRecord,
    tenant: &TenantId,
    (filters, keep): (&Filters, bool),
) -> Option<Seen> {
    let event = kafka::decode(record.headers.iter(), record.value.clone(), &LIMITS).ok()?;
    let own = event.tenant() == Some(tenant.as_str());
    own.then(|| {
        let matched = filters.matches(&event);
        Seen {
            at: record.timestamp,
            offset: record.offset,
            id: cut(event.id()),
            source: cut(event.source()),
            ty: cut(event.ty()),
            matched,
            event: (keep && matched).then_some(event),
        }
    })
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use runtime::log::simulated::{SimulatedLog, SimulationOptions};
    use runtime::log::topics::{Shape, Topics};
    use runtime::log::{Headers, ProducerOptions, Record};
    use schemas::event::TENANT;

    use super::*;

    fn record(topic: &TopicName, number: u32) -> Record {
        let event = Event::builder(&number.to_string(), "/test", "t");
        let event = event.attribute(TENANT, "acme").build().unwrap();
        let (headers, value) = kafka::encode_binary(&event);
        Record {
            topic: topic.clone(),
            partition: Some(number % 2),
            key: None,
            value,
            headers: headers.into_iter().collect::<Headers>(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_where_it_may_read_no_more_and_two_run_at_once() {
        let log = SimulatedLog::new(SimulationOptions::default()).process("control");
        let topics = Topics::with_prefix("t.");
        let shape = Shape {
            partitions: 2,
            replication: 0,
            retention: Duration::from_secs(3_600),
        };
        log.create_topics(&topics.settings(shape)).await.unwrap();
        let producer = log.producer(ProducerOptions::named("test")).await.unwrap();
        let records = (0..300).map(|number| record(&topics.events, number));
        producer.send(records.collect()).await.wait().await;
        let mut runs = DryRuns::new(log, topics.events);
        runs.records_max = 200;
        let (tenant, all) = ("acme".parse().unwrap(), Filters::default());
        let tried = runs.run(&tenant, (&all, false), 10_000).await.unwrap();
        assert_eq!(
            (tried.ended, tried.records, tried.events.len()),
            (Ended::Limit, 200, 200)
        );
        assert_eq!(
            (tried.matched(), tried.shown(true).count()),
            (200, SHOWN_MAX)
        );
        // What is read first is the end of the log.
        let newest = runs.run(&tenant, (&all, false), 2).await.unwrap();
        let mut ids: Vec<_> = newest.shown(true).map(|seen| seen.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!((newest.ended, ids), (Ended::Found, vec!["298", "299"]));
        let _two = runs.permits.try_acquire_many(2).unwrap();
        let third = runs.run(&tenant, (&all, false), 2).await;
        assert!(matches!(third, Err(NotTried::Busy)));
    }

    #[test]
    fn steps_back_cover_every_offset_once() {
        let span = |partition, next, end| Span {
            partition,
            next,
            end,
        };
        let mut whole = vec![span(0, 5, 105), span(1, 7, 7), span(2, 0, 130)];
        assert_eq!(back(&mut whole, 64), [span(0, 41, 105), span(2, 66, 130)]);
        assert_eq!(back(&mut whole, 128), [span(0, 5, 41), span(2, 0, 66)]);
        assert_eq!(back(&mut whole, 256), []);
        assert_eq!(first_step(10_000, 48), 209);
        assert_eq!(first_step(1, 48), STEP_MIN);
        assert_eq!(first_step(10_000, 0), STEP_MAX);
    }
}
