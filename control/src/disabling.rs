//! Owns the state `disabled` of endpoints that a dispatcher has given up: it follows the marks on
//! `progress` and writes them to `control`.
//!
//! It must never disable an endpoint that was changed since it was given up: whoever changes one
//! wants it tried. The surprise: it reads `progress` from its beginning, because a mark may be older
//! than this process.

use std::collections::BTreeMap;

use runtime::clock::Clock;
use runtime::log::{
    Assignment, Class, Error, Fetched, Partition, Reader, ReaderOptions, SharedLog, StoredRecord,
    TopicName,
};
use runtime::view::Change;
use schemas::records::{ControlObject, DisabledProgress, LaneProgress};
use schemas::resources::{Disabled, Endpoint, EndpointState};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::store::{Plan, State, Store};

const KEY_PREFIX: &[u8] = b"lane/";
/// The wait before a mark that could not be written is tried again.
const RETRY_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What disabling works with; its `run` goes on as long as this process leads.
#[derive(Debug)]
pub(crate) struct Disabling {
    pub(crate) log: SharedLog,
    pub(crate) progress: TopicName,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
}

impl Disabling {
    /// Follows `progress`; what cannot be read now is read later.
    ///
    /// # Errors
    /// Never: it ends with its task.
    pub(crate) async fn run(self) -> Result<(), Error> {
        loop {
            let Err(error) = self.follow().await;
            warn!(%error, "marks of endpoints cannot be read now");
            sleep(RETRY_WAIT).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Error> {
        let options = ReaderOptions {
            name: "control-disabling".to_owned(),
            queue_bytes: 1 << 20,
            batch_bytes: 256 << 10,
        };
        let (reader, mut fetched) = self.log.reader(options).await?;
        let missing = || Error::new(Class::Never, &self.progress, "topic does not exist");
        let shape = self.log.describe_topic(&self.progress).await?;
        let mut assigned = BTreeMap::new();
        for number in 0..shape.ok_or_else(missing)?.partitions {
            let partition = self.progress.partition(number);
            self.assign(reader.as_ref(), partition, &mut assigned)
                .await?;
        }
        while let Some(message) = fetched.recv().await {
            match message {
                Fetched::Records(_, batch) => self.take(&batch.records).await,
                Fetched::OutOfRange(assignment, partition) => {
                    if assigned.get(&partition) == Some(&assignment) {
                        self.assign(reader.as_ref(), partition, &mut assigned)
                            .await?;
                    }
                }
                Fetched::Failed(_, error) => warn!(%error, "progress cannot be read now"),
                Fetched::End(..) => {}
            }
        }
        Err(Error::new(Class::Retry, &self.progress, "reader has ended"))
    }

    async fn assign(
        &self,
        reader: &dyn Reader,
        partition: Partition,
        assigned: &mut BTreeMap<Partition, Assignment>,
    ) -> Result<(), Error> {
        let start = self.log.bounds(&partition).await?.start;
        assigned.insert(partition.clone(), reader.assign(partition, start));
        Ok(())
    }

    async fn take(&self, records: &[StoredRecord]) {
        let of_lanes = records.iter().filter(|record| {
            let key = record.key.as_deref();
            key.is_some_and(|key| key.starts_with(KEY_PREFIX))
        });
        let marks = of_lanes
            .filter_map(|record| LaneProgress::decode(record.value.as_deref()?).ok())
            .flat_map(|lane| lane.disabled);
        for mark in marks {
            self.disable(mark).await;
        }
    }

    /// Writes one mark, until it is written or no longer true.
    async fn disable(&self, mark: DisabledProgress) {
        let now = self.clock.now();
        loop {
            let decide = move |objects: &State| {
                let endpoint = objects.endpoints.get(mark.endpoint);
                let disabled = endpoint.and_then(|endpoint| disabled(endpoint, &mark, now));
                Ok(Plan {
                    answer: disabled.is_some(),
                    changes: disabled.map(change).into_iter().collect(),
                })
            };
            match self.store.write(decide).await {
                Ok(written) => {
                    if written.answer {
                        info!(endpoint = %mark.endpoint, reason = ?mark.reason, "endpoint is disabled");
                    }
                    return;
                }
                Err(problem) => {
                    warn!(?problem, endpoint = %mark.endpoint, "endpoint is not disabled yet")
                }
            }
            sleep(RETRY_WAIT).await;
        }
    }
}

/// The endpoint as it is after `mark`; `None` where it was changed since.
fn disabled(endpoint: &Endpoint, mark: &DisabledProgress, now: i64) -> Option<Endpoint> {
    let is_meant =
        endpoint.state == EndpointState::Active && endpoint.updated_at == mark.updated_at;
    is_meant.then(|| Endpoint {
        state: EndpointState::Disabled,
        disabled: Some(Disabled {
            reason: mark.reason,
            at: mark.at,
        }),
        updated_at: now.max(endpoint.updated_at + 1),
        ..endpoint.clone()
    })
}

fn change(endpoint: Endpoint) -> Change {
    let object = ControlObject::Endpoint(Box::new(endpoint));
    Change {
        key: object.key(),
        object: Some(object),
    }
}
