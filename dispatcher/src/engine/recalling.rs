//! Owns the look-up in the log of what is not remembered any more: whether an ordered target that
//! comes after later events of its origin was there before (rule 12).
//!
//! It must never let such a target be attempted before the log has answered: a repeat of an old
//! event would be the newest that its endpoint saw. The surprise: its partition waits meanwhile,
//! which happens only where a router repeats what it wrote longer ago than marks are kept.

use std::cmp::Reverse;

use futures_util::FutureExt;
use hashbrown::HashSet;
use runtime::log::ranges::RangeReader;
use runtime::log::{Class, Error, Partition, SharedLog, StoredRecord};
use schemas::ids::Mark;
use schemas::records::{DeliveryRecord, Origin, Span};
use tracing::{error, info, warn};

use super::Engine;
use super::moves::RETRY_WAIT;
use crate::delivery::Transport;
use crate::marks::Doubt;
use crate::owned::{DELIVERIES, Recall, Tenure};
use crate::planted::{self, Bug};

/// How far the clocks of ingest and of the log may be apart, in milliseconds.
const SKEW_MS: i64 = 60_000;

/// What the log says of a record in doubt.
pub(super) struct Recalled {
    tenure: Tenure,
    /// The record's place.
    offset: i64,
    /// Where its event came from.
    origin: Origin,
    /// Which of its marks were there before, and where.
    found: Vec<(Mark, i64)>,
}

/// What is looked for, and where.
struct Search {
    name: String,
    partition: Partition,
    /// Append time from which on it may be there, unix milliseconds.
    since: i64,
    /// The offset before which it would be.
    until: i64,
    marks: HashSet<Mark>,
}

impl<T: Transport> Engine<T> {
    /// What of a record from `deliveries` has to be looked up in the log before it is taken in.
    pub(super) fn doubt(
        &mut self,
        tenure: Tenure,
        index: usize,
        record: &DeliveryRecord,
        offset: i64,
    ) -> Option<Doubt> {
        let owned = self.tenant_of(tenure)?;
        let source = owned.sources.get(index)?;
        let settled = offset < source.committed || source.recall == Recall::Answered(offset);
        let is_asked = index == DELIVERIES && !settled && !planted::is(Bug::MarksUnread);
        is_asked.then(|| owned.marks.doubt(record)).flatten()
    }

    /// Puts a record back that may be a repeat although its marks are not remembered, until the log
    /// has said.
    pub(super) fn recall(&mut self, tenure: Tenure, doubt: Doubt, stored: StoredRecord) {
        let name = format!("{}-recall", self.parts.options.instance);
        let log = self.parts.log.clone();
        let Some(source) = self
            .tenant_of(tenure)
            .and_then(|owned| owned.sources.get_mut(DELIVERIES))
        else {
            return;
        };
        let search = Search {
            name,
            partition: source.partition.clone(),
            since: doubt.accepted_at - SKEW_MS,
            until: stored.offset,
            marks: doubt.marks.into_iter().collect(),
        };
        info!(partition = %search.partition, offset = search.until, "looking up what may be a repeat");
        source.recall = Recall::Asked;
        source.pending.push_back_head(stored);
        self.parts.metrics.recalls.inc();
        self.recalling.push(
            async move {
                let offset = search.until;
                let found = search.run(&log).await;
                Recalled {
                    tenure,
                    offset,
                    origin: doubt.origin,
                    found,
                }
            }
            .boxed(),
        );
    }

    pub(super) fn on_recalled(&mut self, recalled: Recalled) {
        let Recalled {
            tenure,
            offset,
            origin,
            found,
        } = recalled;
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        owned.marks.recall(&origin, found);
        if let Some(source) = owned.sources.get_mut(DELIVERIES) {
            source.recall = Recall::Answered(offset);
        }
        self.unread.insert((Reverse(DELIVERIES), tenure));
    }
}

impl Search {
    /// Where each mark was first, of those that were there. What cannot be read for good is an
    /// incident for the log's operator; the target then goes on as new.
    async fn run(&self, log: &SharedLog) -> Vec<(Mark, i64)> {
        loop {
            match self.read(log).await {
                Ok(found) => return found,
                Err(error) => match error.class() {
                    Class::Retry | Class::Unknown => {
                        warn!(partition = %self.partition, %error, "repeats cannot be looked up now");
                        tokio::time::sleep(RETRY_WAIT).await;
                    }
                    Class::Never | Class::Fenced => {
                        error!(partition = %self.partition, %error, "repeats cannot be looked up");
                        return Vec::new();
                    }
                },
            }
        }
    }

    async fn read(&self, log: &SharedLog) -> Result<Vec<(Mark, i64)>, Error> {
        let mut found = Vec::new();
        let Some(from) = log.offset_at(&self.partition, self.since).await? else {
            return Ok(found);
        };
        let span = Span {
            partition: self.partition.number,
            next: from,
            end: self.until,
        };
        let topic = &self.partition.topic;
        let mut range = RangeReader::open(log, self.name.as_str(), topic, vec![span]).await?;
        while let Some((_, stored)) = range.next().await? {
            self.look_at(&stored, &mut found);
        }
        Ok(found)
    }

    fn look_at(&self, stored: &StoredRecord, found: &mut Vec<(Mark, i64)>) {
        let record = stored
            .value
            .as_ref()
            .and_then(|value| DeliveryRecord::decode(stored.headers.iter(), value).ok());
        let Some(record) = record else {
            return;
        };
        for mark in record.marks().filter(|mark| self.marks.contains(mark)) {
            if !found.iter().any(|(known, _)| *known == mark) {
                found.push((mark, stored.offset));
            }
        }
    }
}
