//! Owns how far replays of past events are, as routers put it on `progress`.
//!
//! It must never keep anything of a subscription that replays nothing. The surprise: what counts of
//! the records there only the owner of a source partition knows; for a moment after that has changed,
//! what is told may be of the owner before.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use runtime::log::{Error, Partition, SharedLog, StoredRecord, TopicName};
use schemas::ids::SubscriptionId;
use schemas::records::{Activation, ActivationKey, Writer};
use schemas::resources::StartFrom;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::progress::{Progress, Since};
use crate::store::Store;

/// The wait before `progress` is read again after it could not be.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How long the log may take to say where it ends.
const END_WAIT: Duration = Duration::from_secs(2);

/// How far a subscription's replay is in one source partition.
#[derive(Debug)]
struct Place {
    /// Who wrote it last: its record alone is taken back with it.
    writer: Writer,
    replayed_to: i64,
    /// Where the replay ends; `None` where it has to meet the live position.
    end: Option<i64>,
    is_done: bool,
}

type Places = BTreeMap<Partition, Place>;

/// How far a subscription's replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Source partitions in which the subscription is activated, or replayed for that.
    pub(crate) partitions: usize,
    /// Those in which nothing is left.
    pub(crate) done: usize,
    /// Offsets that are left in the others; `None` while the log does not say where it ends.
    pub(crate) left: Option<u64>,
}

/// How far replays are. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Replays {
    log: SharedLog,
    all: Arc<RwLock<HashMap<SubscriptionId, Places>>>,
}

/// Reads what routers say; its `run` is a task.
#[derive(Debug)]
pub(crate) struct ReplayFollower {
    progress: TopicName,
    store: Store,
    replays: Replays,
}

// === impl Replays ===

impl Replays {
    /// The replays, and the task that keeps them up to date.
    pub(crate) fn new(log: SharedLog, progress: TopicName, store: Store) -> (Self, ReplayFollower) {
        let replays = Self {
            log,
            all: Arc::default(),
        };
        let follower = ReplayFollower {
            progress,
            store,
            replays: replays.clone(),
        };
        (replays, follower)
    }

    /// How far the replay of `id` is.
    pub(crate) async fn standing(&self, id: SubscriptionId) -> Standing {
        let (mut standing, meeting) = self.known(id);
        let ends = meeting.into_iter().map(async |(partition, from)| {
            let bounds = timeout(END_WAIT, self.log.bounds(&partition)).await;
            let end = bounds.ok()?.ok()?.stable_end;
            Some(distance(from, end))
        });
        for left in futures_util::future::join_all(ends).await {
            standing.left = standing.left.zip(left).map(|(one, other)| one + other);
        }
        standing
    }

    /// What is known without the log, and from where on the others go to its end.
    fn known(&self, id: SubscriptionId) -> (Standing, Vec<(Partition, i64)>) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut standing = Standing {
            left: Some(0),
            ..Standing::default()
        };
        let mut meeting = Vec::new();
        for (partition, place) in all.get(&id).into_iter().flatten() {
            standing.partitions += 1;
            standing.done += usize::from(place.is_done);
            match place.end {
                _ if place.is_done => {}
                Some(end) => {
                    let left = distance(place.replayed_to, end);
                    standing.left = standing.left.map(|sum| sum + left);
                }
                None => meeting.push((partition.clone(), place.replayed_to)),
            }
        }
        (standing, meeting)
    }

    fn take(&self, key: ActivationKey, activation: Option<Activation>) {
        let partition = TopicName::new(key.topic).partition(key.partition);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let places = all.entry(key.subscription).or_default();
        match activation {
            Some(activation) => {
                let place = Place {
                    writer: key.writer,
                    replayed_to: activation.replayed_to,
                    end: activation.offset,
                    is_done: activation.done,
                };
                places.insert(partition, place);
            }
            None => {
                places.retain(|other, place| *other != partition || place.writer != key.writer);
            }
        }
        if places.is_empty() {
            all.remove(&key.subscription);
        }
    }
}

fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

// === impl ReplayFollower ===

impl ReplayFollower {
    /// Follows `progress`; what cannot be read now is read later.
    ///
    /// # Errors
    /// Never: it ends with its task.
    pub(crate) async fn run(self) -> Result<(), Error> {
        loop {
            let Err(error) = self.follow().await;
            warn!(%error, "replays cannot be followed now");
            sleep(RETRY_WAIT).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Error> {
        let from = ("control-replays", Since::Start);
        let mut progress = Progress::follow(&self.replays.log, &self.progress, from).await?;
        loop {
            for record in progress.next().await? {
                self.take(&record);
            }
        }
    }

    fn take(&self, record: &StoredRecord) {
        let key = record.key.as_deref();
        let key = key.filter(|key| ActivationKey::is_one(key));
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(Ok(key)) = key.map(ActivationKey::from_str) else {
            return;
        };
        let activation = record.value.as_deref().map(Activation::decode);
        match activation.transpose() {
            Ok(Some(activation)) if self.replays_past(key.subscription) => {
                self.replays.take(key, Some(activation));
            }
            Ok(Some(_)) => {}
            Ok(None) => self.replays.take(key, None),
            Err(error) => warn!(%error, "activation left out"),
        }
    }

    /// Whether the subscription, of which routers know, is there and starts in the past.
    fn replays_past(&self, id: SubscriptionId) -> bool {
        self.store.read(|objects| {
            let start = objects.subscriptions.get(id).and_then(|one| one.start);
            start.is_some_and(|start| match start.from {
                StartFrom::At(_) => true,
                StartFrom::Latest => false,
            })
        })
    }
}
