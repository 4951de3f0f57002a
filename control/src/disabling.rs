//! Owns the state `disabled` of endpoints that a dispatcher has given up, and its end where a probe
//! found one working: it follows the marks on `progress` and writes them to `control`. What was held
//! meanwhile is sent again.
//!
//! It must never act on a mark of an endpoint that was changed since: whoever changes one wants it
//! tried, or not. The surprise: it reads `progress` from its beginning, because a mark may be older
//! than this process.

use runtime::clock::{Clock, Entropy};
use runtime::log::{Error, SharedLog, StoredRecord, TopicName};
use runtime::view::Change;
use schemas::ids::{EndpointId, RedriveId};
use schemas::records::{ControlObject, DisabledProgress, EnabledProgress, LaneProgress};
use schemas::resources::{Disabled, DisabledReason, Endpoint, EndpointState};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::api::{later, put};
use crate::progress::{Progress, Since};
use crate::redrive::of_reenabled;
use crate::store::{Plan, Store};

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
    pub(crate) entropy: Entropy,
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
        let from = ("control-disabling", Since::Start);
        let mut progress = Progress::follow(&self.log, &self.progress, from).await?;
        loop {
            self.take(&progress.next().await?).await;
        }
    }

    async fn take(&self, records: &[StoredRecord]) {
        let of_lanes = records.iter().filter(|record| {
            let key = record.key.as_deref();
            key.is_some_and(|key| key.starts_with(KEY_PREFIX))
        });
        let lanes =
            of_lanes.filter_map(|record| LaneProgress::decode(record.value.as_deref()?).ok());
        for lane in lanes {
            for mark in lane.disabled {
                self.disable(mark).await;
            }
            for mark in lane.enabled {
                self.enable(mark).await;
            }
        }
    }

    /// Writes one mark, until it is written or no longer true.
    async fn disable(&self, mark: DisabledProgress) {
        let now = self.clock.now();
        let decide = move |endpoint: &Endpoint| {
            let changed = disabled(endpoint, &mark, now);
            changed.map(|endpoint| vec![change(endpoint)])
        };
        if self.write(mark.endpoint, decide).await {
            info!(endpoint = %mark.endpoint, reason = ?mark.reason, "endpoint is disabled");
        }
    }

    /// The same for one that works again, with a redrive of what was held.
    async fn enable(&self, mark: EnabledProgress) {
        let now = self.clock.now();
        let redrive = u128::from_be_bytes(self.entropy.uuid_v7(&self.clock));
        let redrive = RedriveId::from_bits(redrive);
        let decide = move |endpoint: &Endpoint| {
            let changed = change(enabled(endpoint, &mark, now)?);
            let held = of_reenabled(endpoint, redrive, now).map(put);
            Some(std::iter::once(changed).chain(held).collect())
        };
        if self.write(mark.endpoint, decide).await {
            info!(endpoint = %mark.endpoint, "endpoint is enabled");
        }
    }

    /// Writes what `decide` makes of an endpoint, until it is written; says whether there was
    /// anything.
    async fn write(
        &self,
        id: EndpointId,
        decide: impl Fn(&Endpoint) -> Option<Vec<Change>> + Clone + Send + 'static,
    ) -> bool {
        loop {
            let decide = decide.clone();
            let written = self.store.write(move |objects| {
                let changes = objects.endpoints.get(id).and_then(|old| decide(old));
                Ok(Plan {
                    answer: changes.is_some(),
                    changes: changes.unwrap_or_default(),
                })
            });
            match written.await {
                Ok(written) => return written.answer,
                Err(problem) => {
                    warn!(?problem, endpoint = %id, "endpoint's state is not changed yet");
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
        updated_at: later(now, endpoint.updated_at),
        ..endpoint.clone()
    })
}

/// The endpoint as it is after `mark`; `None` where it was changed since, or may not come back by
/// itself.
fn enabled(endpoint: &Endpoint, mark: &EnabledProgress, now: i64) -> Option<Endpoint> {
    let was_failing = endpoint
        .disabled
        .is_some_and(|disabled| disabled.reason == DisabledReason::Failing);
    let is_meant = endpoint.state == EndpointState::Disabled
        && endpoint.updated_at == mark.updated_at
        && endpoint.reenable
        && was_failing;
    is_meant.then(|| Endpoint {
        state: EndpointState::Active,
        disabled: None,
        updated_at: later(now, endpoint.updated_at),
        ..endpoint.clone()
    })
}

fn change(endpoint: Endpoint) -> Change {
    put(ControlObject::Endpoint(Box::new(endpoint)))
}
