//! Owns redrives: which of them run, and what starts one.
//!
//! It must never run two at once that could send the same letter. The surprise: nobody tells it
//! what to do. It follows the objects: whatever is stored as running is run, after a restart too,
//! from where `progress` says that it was.

mod credit;
mod letter;
mod reports;
mod run;
mod settled;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use runtime::clock::Clock;
use runtime::log::ranges::{RangeReader, whole};
use runtime::log::topics::Topics;
use runtime::log::{Error, Producer, ProducerOptions, SharedLog};
use schemas::ids::RedriveId;
use schemas::records::{ControlObject, DeadReason, RedriveProgress};
use schemas::resources::{DeadFilter, Endpoint, Redrive, RedriveCounts};
use tracing::warn;

use crate::applied::Replicas;
use crate::store::Store;

/// Redrives that run at once; more wait for their turn.
const RUNNING_MAX: usize = 8;
/// Deliveries of one redrive that are unreported at once.
const CREDIT: usize = 200;
/// Before the log is asked again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// How redrives that run are getting on. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<RwLock<HashMap<RedriveId, RedriveCounts>>>);

impl Live {
    /// What became of the letters of `redrive` so far; of one that does not run, what is stored.
    pub(crate) fn counts(&self, redrive: &Redrive) -> RedriveCounts {
        let live = self.0.read().unwrap_or_else(PoisonError::into_inner);
        live.get(&redrive.id).copied().unwrap_or(redrive.counts)
    }

    fn set(&self, id: RedriveId, counts: Option<RedriveCounts>) {
        let mut live = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match counts {
            Some(counts) => drop(live.insert(id, counts)),
            None => drop(live.remove(&id)),
        }
    }
}

/// What redrives work with.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    log: SharedLog,
    topics: Topics,
    store: Store,
    replicas: Replicas,
    clock: Clock,
    producer: Arc<dyn Producer>,
    live: Live,
}

/// Runs redrives; its `run` is part of serving.
#[derive(Debug)]
pub(crate) struct Redrives {
    means: Means,
}

/// The redrive of what was held while `endpoint` was disabled; `None` where nothing was.
pub(crate) fn of_reenabled(endpoint: &Endpoint, id: RedriveId, now: i64) -> Option<ControlObject> {
    let disabled = endpoint.disabled.as_ref()?;
    let filter = DeadFilter {
        endpoint: Some(endpoint.id),
        reasons: vec![DeadReason::EndpointDisabled, DeadReason::EndpointGone],
        since: Some(disabled.at),
        ..DeadFilter::default()
    };
    let redrive = Redrive::new(id, endpoint.tenant.clone(), filter, now);
    Some(ControlObject::Redrive(Box::new(redrive)))
}

impl Redrives {
    /// Those of `store`.
    ///
    /// # Errors
    /// Where no producer can be opened.
    pub(crate) async fn open(
        log: &SharedLog,
        topics: &Topics,
        (store, replicas): (Store, Replicas),
        clock: Clock,
    ) -> Result<Self, Error> {
        let producer = log.producer(ProducerOptions::named("control-redrives"));
        Ok(Self {
            means: Means {
                log: log.clone(),
                topics: topics.clone(),
                store,
                replicas,
                clock,
                producer: producer.await?,
                live: Live::default(),
            },
        })
    }

    /// How they are getting on.
    pub(crate) fn live(&self) -> Live {
        self.means.live.clone()
    }

    /// Runs what is stored as running, for ever. Whoever runs it drops it when it is to stop.
    pub(crate) async fn run(self) {
        let mut changes = self.means.store.changes();
        let mut running: FuturesUnordered<BoxFuture<'static, RedriveId>> = FuturesUnordered::new();
        let mut active = BTreeSet::new();
        let mut saved: Option<BTreeMap<RedriveId, RedriveProgress>> = None;
        loop {
            for redrive in self.next(&active) {
                // Only what an earlier process left is read: the first time that it matters.
                let saved = match &mut saved {
                    Some(saved) => saved,
                    none => none.insert(self.saved().await),
                };
                let id = redrive.id;
                let run = run::Run::new(self.means.clone(), redrive, saved.remove(&id));
                active.insert(id);
                running.push(Box::pin(async move {
                    run.until_over().await;
                    id
                }));
            }
            tokio::select! {
                Some(ended) = running.next() => {
                    active.remove(&ended);
                    self.means.live.set(ended, None);
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// What is to be started: the oldest first, and none beside another of the same letters.
    fn next(&self, active: &BTreeSet<RedriveId>) -> Vec<Arc<Redrive>> {
        self.means.store.read(|objects| {
            let mut all: Vec<&Arc<Redrive>> = objects.running().collect();
            all.sort_by_key(|redrive| (redrive.created_at, redrive.id));
            startable(&all, active)
                .into_iter()
                .map(Arc::clone)
                .collect()
        })
    }

    /// What earlier processes left on `progress`.
    async fn saved(&self) -> BTreeMap<RedriveId, RedriveProgress> {
        loop {
            match self.read_saved().await {
                Ok(saved) => return saved,
                Err(error) => warn!(%error, "progress of redrives cannot be read now"),
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    async fn read_saved(&self) -> Result<BTreeMap<RedriveId, RedriveProgress>, Error> {
        let Means { log, topics, .. } = &self.means;
        let spans = whole(log, &topics.progress, None).await?;
        let mut reader =
            RangeReader::open(log, "control-redrives", &topics.progress, spans).await?;
        let mut saved = BTreeMap::new();
        while let Some((_, record)) = reader.next().await? {
            let key = record.key.as_deref().unwrap_or_default();
            let id = std::str::from_utf8(key)
                .ok()
                .and_then(|key| key.strip_prefix("redrive/"))
                .and_then(|id| id.parse::<RedriveId>().ok());
            let Some(id) = id else {
                continue;
            };
            match record.value.as_deref().map(RedriveProgress::decode) {
                Some(Ok(progress)) => drop(saved.insert(id, progress)),
                Some(Err(error)) => warn!(%id, %error, "progress of a redrive cannot be read"),
                None => drop(saved.remove(&id)),
            }
        }
        Ok(saved)
    }
}

/// Of redrives that are to run, in their order, those that may start beside `active` ones.
fn startable<'a>(all: &[&'a Arc<Redrive>], active: &BTreeSet<RedriveId>) -> Vec<&'a Arc<Redrive>> {
    let mut room = RUNNING_MAX.saturating_sub(active.len());
    let mut starting: Vec<&Arc<Redrive>> = Vec::new();
    for (place, redrive) in all.iter().enumerate() {
        let is_waiting = all.iter().enumerate().any(|(other_place, other)| {
            let is_first = other_place < place || active.contains(&other.id);
            is_first
                && other.id != redrive.id
                && other.tenant == redrive.tenant
                && other.filter.overlaps(&redrive.filter)
        });
        if room > 0 && !is_waiting && !active.contains(&redrive.id) {
            starting.push(redrive);
            room -= 1;
        }
    }
    starting
}

#[cfg(test)]
mod tests {
    use schemas::ids::EndpointId;

    use super::*;

    fn redrive(id: u128, tenant: &str, endpoint: Option<u128>) -> Arc<Redrive> {
        let filter = DeadFilter {
            endpoint: endpoint.map(EndpointId::from_bits),
            ..DeadFilter::default()
        };
        Arc::new(Redrive::new(
            RedriveId::from_bits(id),
            tenant.parse().unwrap(),
            filter,
            0,
        ))
    }

    #[test]
    fn redrives_of_the_same_letters_run_one_after_another() {
        let check = |all: &[(u128, &str, Option<u128>)], active: &[u128], expected: &[u128]| {
            let all: Vec<_> = all
                .iter()
                .map(|(id, tenant, endpoint)| redrive(*id, tenant, *endpoint))
                .collect();
            let all: Vec<_> = all.iter().collect();
            let active = active.iter().map(|id| RedriveId::from_bits(*id)).collect();
            let starting = startable(&all, &active);
            let ids: Vec<_> = starting.iter().map(|redrive| redrive.id.bits()).collect();
            assert_eq!(ids, expected);
        };
        check(&[(1, "a", Some(1)), (2, "a", Some(2))], &[], &[1, 2]);
        check(&[(1, "a", Some(1)), (2, "a", Some(1))], &[], &[1]);
        check(&[(1, "a", Some(1)), (2, "a", Some(1))], &[1], &[]);
        check(&[(1, "a", None), (2, "a", Some(1))], &[1], &[]);
        check(&[(1, "a", None), (2, "a", Some(1))], &[2], &[]);
        check(&[(1, "a", None), (2, "b", None)], &[1], &[2]);
        let many: Vec<_> = (0..20).map(|id| (id, "a", Some(id))).collect();
        check(&many, &[0, 1, 2, 3, 4, 5], &[6, 7]);
    }
}
