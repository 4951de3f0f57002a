//! Owns one redrive while it runs: reading letters, sending them, counting the reports.
//!
//! It must never send more than its credit allows, nor forget what it has sent. The surprise: after
//! a restart it may write a letter again that was written just before; it carries the same mark,
//! so that the dispatcher drops it (rule 3), and reports that came meanwhile are found on
//! `results` before anything is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::clock::millis;
use runtime::log::ranges::{RangeReader, whole};
use runtime::log::{Error, Headers, NotWritten, Record};
use schemas::ids::DeliveryId;
use schemas::records::{ControlObject, RedriveProgress, ResultVerdict, Span};
use schemas::resources::{EndpointState, Redrive, RedriveState};
use tokio::time::Instant;
use tracing::{info, warn};

use super::credit::{Account, NotSent};
use super::letter::{Addressee, Resent, addressee, content};
use super::reports::{Report, Reports};
use super::settled::Settled;
use super::{CREDIT, Means, RETRY_WAIT};
use crate::api::put;
use crate::dead::{self, Letter};
use crate::store::{Plan, State};

/// Reports older than this are not looked for: no delivery is on its way that long.
const REPORTS_SPAN: Duration = Duration::from_secs(14 * 24 * 3600);
/// A delivery's longest life where its endpoint says nothing.
const MAX_AGE_MS: i64 = 76 * 3_600_000;
/// For the last attempt and the report, beyond the maximum age.
const REPORT_GRACE_MS: i64 = 3_600_000;
/// Between two saves.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// How long letters are gathered for one write.
const GATHER_MAX: Duration = Duration::from_millis(250);
/// The most bytes of events gathered for one write.
const GATHER_BYTES_MAX: usize = 4 << 20;
/// A reader with nothing to do for so long is closed: it has connections of its own.
const IDLE_READER: Duration = Duration::from_secs(5);
/// Reports on what a restart forgot: as many as can be between two saves, and more.
const EARLY_MAX: usize = 16_384;

/// A redrive that runs.
#[derive(Debug)]
pub(super) struct Run {
    means: Means,
    redrive: Arc<Redrive>,
    account: Account,
    /// What is still to be read; `None` until that is known.
    spans: Option<Vec<Span>>,
    reader: Option<RangeReader>,
    settled: Settled,
    /// Reported, and sent by this redrive, though the saved progress does not know of it.
    early: HashMap<DeliveryId, ResultVerdict>,
    counted: Option<(u32, i64)>,
    saved_at: Option<Instant>,
    dirty: bool,
}

/// A letter that is to be written.
struct Outgoing {
    delivery: DeliveryId,
    record: Record,
}

impl Run {
    pub(super) fn new(means: Means, redrive: Arc<Redrive>, saved: Option<RedriveProgress>) -> Self {
        let (spans, counts, unreported, counted) = match saved {
            Some(saved) => (
                Some(saved.spans),
                saved.counts,
                saved.unreported,
                saved.counted,
            ),
            None => (None, redrive.counts, Default::default(), None),
        };
        Self {
            account: Account::new(CREDIT, counts, unreported),
            means,
            redrive,
            spans,
            reader: None,
            settled: Settled::default(),
            early: HashMap::new(),
            counted,
            saved_at: None,
            dirty: true,
        }
    }

    /// Runs until everything is reported or given up, or the redrive is not to go on.
    pub(super) async fn until_over(mut self) {
        let id = self.redrive.id;
        info!(redrive = %id, "redrive runs");
        while let Err(error) = self.go().await {
            warn!(redrive = %id, %error, "redrive waits for the log");
            self.close_reader();
            tokio::time::sleep(RETRY_WAIT).await;
        }
        while let Err(error) = self.end().await {
            warn!(redrive = %id, %error, "end of a redrive cannot be written now");
            tokio::time::sleep(RETRY_WAIT).await;
        }
        info!(redrive = %id, counts = ?self.account.counts(), "redrive is over");
    }

    async fn go(&mut self) -> Result<(), Error> {
        let Means { log, topics, .. } = self.means.clone();
        if self.spans.is_none() {
            // What dispatchers bury before they know that an endpoint is enabled again is meant too.
            let applied = self.means.store.read(State::applied);
            self.means.replicas.missing(applied).await;
            // What dies again lies behind these ends: it is not sent for ever.
            self.spans = Some(self.all_spans().await?);
            self.save().await;
        }
        let since = self.means.clock.now() - millis(REPORTS_SPAN);
        let mut reports = Reports::open(&log, &topics.results, since).await?;
        while !reports.is_caught_up() {
            self.take(reports.next().await?);
        }
        let mut changes = self.means.store.changes();
        let mut idle_since = self.means.clock.instant();
        while self.is_wanted() {
            self.take(reports.here().await?);
            self.account.expire(self.means.clock.now());
            self.show();
            if self.has_letters() && self.account.room() > 0 {
                let outgoing = self.gather().await?;
                self.write(outgoing).await;
                self.dirty = true;
                idle_since = self.means.clock.instant();
                if self.is_save_due() {
                    self.save().await;
                }
                continue;
            }
            if !self.has_letters() && self.account.unreported().is_empty() {
                return Ok(());
            }
            if self.is_save_due() {
                self.save().await;
            }
            let close_at = idle_since + IDLE_READER;
            if self.means.clock.instant() >= close_at {
                self.close_reader();
            }
            let wake = self.wake(close_at);
            tokio::select! {
                came = reports.next() => self.take(came?),
                // The store ends with this task.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        Ok(())
    }

    /// When there is something to do though nothing comes.
    fn wake(&self, close_at: Instant) -> Instant {
        let now = self.means.clock.instant();
        let expiry = self.account.next_expiry();
        let expiry = expiry.map(|at| self.means.clock.instant_at(at) + Duration::from_millis(1));
        let save = self
            .dirty
            .then(|| self.saved_at.map_or(now, |at| at + SAVE_EVERY));
        let close = self.reader.as_ref().map(|_| close_at);
        let never = now + Duration::from_secs(3_600);
        [expiry, save, close]
            .into_iter()
            .flatten()
            .fold(never, Instant::min)
    }

    async fn all_spans(&self) -> Result<Vec<Span>, Error> {
        let Means { log, topics, .. } = &self.means;
        let filter = &self.redrive.filter;
        if filter.letters.is_empty() {
            return whole(log, &topics.dead, filter.since).await;
        }
        let mut spans = Vec::new();
        for id in &filter.letters {
            spans.extend(dead::place(log, &topics.dead, *id).await?);
        }
        Ok(spans)
    }

    fn is_wanted(&self) -> bool {
        self.means.store.read(|objects| {
            let stored = objects.redrives.get(self.redrive.id);
            stored.is_some_and(|stored| stored.state == RedriveState::Running)
        })
    }

    fn has_letters(&self) -> bool {
        self.spans.as_ref().is_some_and(|spans| !spans.is_empty())
    }

    fn show(&self) {
        let counts = self.account.counts();
        self.means.live.set(self.redrive.id, Some(counts));
    }

    /// Takes reports in: one's own return credit, others' say what needs no sending.
    fn take(&mut self, reports: Vec<Report>) {
        for (place, report) in reports {
            if report.bulk != self.redrive.id.bits() {
                if report.verdict == ResultVerdict::Delivered {
                    self.settled.insert(report.delivery, report.at);
                }
                continue;
            }
            let is_old = self
                .counted
                .is_some_and(|(partition, offset)| partition == place.0 && place.1 <= offset);
            if is_old || self.account.reported(report.delivery, report.verdict) {
                // Whatever came of it, this redrive is through with it.
                self.settled.insert(report.delivery, i64::MAX);
            } else if self.early.len() < EARLY_MAX {
                self.early.insert(report.delivery, report.verdict);
            }
            if !is_old {
                self.counted = Some(place);
                self.dirty = true;
            }
        }
    }

    /// Reads letters until there is no credit for more, or enough has been done for one turn.
    async fn gather(&mut self) -> Result<Vec<Outgoing>, Error> {
        let mut reader = self.reader().await?;
        let deadline = self.means.clock.instant() + GATHER_MAX;
        let (mut outgoing, mut bytes) = (Vec::new(), 0);
        while self.account.room() > 0 && bytes < GATHER_BYTES_MAX {
            let Ok(next) = tokio::time::timeout_at(deadline, reader.next()).await else {
                break;
            };
            let Some((partition, stored)) = next? else {
                break;
            };
            let letter = dead::read(partition, stored);
            let letter = letter.filter(|letter| self.redrive.takes(letter.id, &letter.letter));
            if let Some(letter) = letter
                && let Some(sent) = self.consider(letter).await
            {
                bytes += sent.record.len_bytes();
                outgoing.push(sent);
            }
            if self.means.clock.instant() >= deadline {
                break;
            }
        }
        self.spans = Some(reader.rest());
        self.reader = Some(reader);
        Ok(outgoing)
    }

    async fn reader(&mut self) -> Result<RangeReader, Error> {
        if let Some(open) = self.reader.take() {
            return Ok(open);
        }
        let Means { log, topics, .. } = &self.means;
        let spans = self.spans.clone().unwrap_or_default();
        RangeReader::open(log, "control-redrive", &topics.dead, spans).await
    }

    fn close_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.spans = Some(reader.rest());
        }
    }

    /// Decides on a letter that the redrive takes; returns what is to be written for it.
    async fn consider(&mut self, letter: Letter) -> Option<Outgoing> {
        let Some(to) = addressee(&letter.letter) else {
            self.account.leave_out(NotSent::Skipped);
            return None;
        };
        if let Some(verdict) = self.early.remove(&to.delivery) {
            self.account.found(verdict);
            self.settled.insert(to.delivery, i64::MAX);
            return None;
        }
        let at = letter.letter.at;
        if self.account.holds(to.delivery) || self.settled.has(to.delivery, at) {
            self.account.leave_out(NotSent::Settled);
            return None;
        }
        let Some((partition, life_ms)) = self.destination(to) else {
            self.account.leave_out(NotSent::Skipped);
            return None;
        };
        let Some((event, origin)) = content(&self.means.log, letter, to).await else {
            self.account.leave_out(NotSent::Skipped);
            return None;
        };
        let now = self.means.clock.now();
        let resent = Resent { event, origin, to };
        let applied = self.means.store.read(State::applied);
        let delivery = resent.record(self.redrive.id.bits(), now, applied);
        if !self.account.send(to.delivery, now.saturating_add(life_ms)) {
            return None;
        }
        self.settled.insert(to.delivery, i64::MAX);
        let record = Record {
            topic: self.means.topics.deliveries.clone(),
            partition: Some(partition),
            key: None,
            value: Some(delivery.value_for(&delivery.targets)),
            headers: delivery.headers().into_iter().collect(),
        };
        Some(Outgoing {
            delivery: to.delivery,
            record,
        })
    }

    /// The partition of the endpoint and how long a report is waited for; `None` where there is
    /// nobody to send to.
    fn destination(&self, to: Addressee) -> Option<(u32, i64)> {
        self.means.store.read(|objects| {
            let endpoint = objects.endpoints.of(&self.redrive.tenant, to.endpoint)?;
            let exists =
                to.subscription.bits() == 0 || objects.subscriptions.get(to.subscription).is_some();
            let takes = match endpoint.state {
                EndpointState::Active | EndpointState::Paused => true,
                EndpointState::Disabled => false,
            };
            let max_age = endpoint.max_age_ms.map(i64::try_from);
            let max_age = max_age.map_or(MAX_AGE_MS, |age| age.unwrap_or(i64::MAX));
            (exists && takes).then(|| {
                let life = max_age.saturating_add(REPORT_GRACE_MS);
                (endpoint.placement.partition(), life)
            })
        })
    }

    /// Writes to `deliveries` until everything is there or refused for good.
    async fn write(&mut self, mut outgoing: Vec<Outgoing>) {
        while !outgoing.is_empty() {
            let records = outgoing.iter().map(|sent| sent.record.clone()).collect();
            let mut written = self.means.producer.send(records).await.wait().await;
            // A producer that is gone reports once for all.
            written.resize(outgoing.len(), Err(NotWritten::Unknown));
            let mut again = Vec::new();
            for (sent, written) in outgoing.into_iter().zip(written) {
                match written {
                    Ok(_) => {}
                    Err(why) if why.is_permanent() => {
                        warn!(delivery = %sent.delivery, %why, "dead letter cannot be sent again");
                        self.account.refused(sent.delivery);
                    }
                    // A second copy has the same mark: it is dropped (rule 3).
                    Err(_) => again.push(sent),
                }
            }
            outgoing = again;
            if !outgoing.is_empty() {
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    }

    fn is_save_due(&self) -> bool {
        let due = self
            .saved_at
            .is_none_or(|at| self.means.clock.instant() >= at + SAVE_EVERY);
        self.dirty && due
    }

    /// Saves where the redrive is. What is lost is made up for after a restart.
    async fn save(&mut self) {
        let progress = RedriveProgress {
            version: 1,
            redrive: self.redrive.id,
            spans: self.spans.clone().unwrap_or_default(),
            counts: self.account.counts(),
            unreported: self.account.unreported().clone(),
            counted: self.counted,
        };
        if self.write_progress(Some(progress.encode())).await {
            self.dirty = false;
        }
        self.saved_at = Some(self.means.clock.instant());
    }

    async fn write_progress(&self, value: Option<Vec<u8>>) -> bool {
        let record = Record {
            topic: self.means.topics.progress.clone(),
            partition: None,
            key: Some(Bytes::from(RedriveProgress::key(self.redrive.id))),
            value: value.map(Bytes::from),
            headers: Headers::default(),
        };
        let written = self.means.producer.send(vec![record]).await.wait().await;
        written.into_iter().all(|written| written.is_ok())
    }

    /// Stores how it ended, then forgets where it was.
    async fn end(&mut self) -> Result<(), String> {
        let (id, counts) = (self.redrive.id, self.account.counts());
        let now = self.means.clock.now();
        let written = self.means.store.write(move |objects| {
            let changes = objects.redrives.get(id).map(|stored| {
                let state = match stored.state {
                    RedriveState::Running | RedriveState::Done => RedriveState::Done,
                    RedriveState::Cancelled => RedriveState::Cancelled,
                };
                put(ControlObject::Redrive(Box::new(Redrive {
                    state,
                    counts,
                    updated_at: now.max(stored.updated_at),
                    ..stored.as_ref().clone()
                })))
            });
            Ok(Plan {
                changes: changes.into_iter().collect(),
                answer: (),
            })
        });
        written.await.map_err(|problem| format!("{problem:?}"))?;
        self.write_progress(None).await;
        Ok(())
    }
}
