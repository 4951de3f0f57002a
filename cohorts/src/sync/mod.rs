//! Owns syncs that run: what makes one begin, the chunks it writes, the reports it hears, and what
//! is stored of it, so that any process goes on with it at the chunk.
//!
//! Never more in flight than credit allows, and never a member settled but by a report (rules 14
//! and 15). The surprise: a run is a comparison with one generation of the roster. What may be taken
//! when it is sent again, or is not known, is found by comparing once more: the next *pass* sends
//! just that.

mod answer;
mod begin;
mod call;
mod desk;
mod late;
mod ledger;
mod live;
mod note;
mod pace;
mod pass;
mod record;
mod request;
mod results;
mod runner;
mod telling;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::log::topics::Topics;
use runtime::log::{self, Producer, SharedLog};
use schemas::ids::SyncId;
use schemas::resources::Sync;
use tokio::sync::Semaphore;

use crate::service::{Directory, Telemetry};
use crate::{Error, Store};

pub use live::{Status, StatusState};
pub use note::{RunCounts, Summary};
pub use request::{Ask, Request};

pub(crate) use begin::{limits, needs_approval};
pub(crate) use live::Live;
pub(crate) use note::{Note, RunNote};
pub(crate) use pace::Pace;
pub(crate) use request::Requests;
pub(crate) use results::{Hub, Results, partitions};
pub(crate) use runner::{Runner, Wake};
pub(crate) use telling::Teller;

/// Bounds of the runs of one process.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Chunks of one run that are unreported at once.
    pub chunks: usize,
    /// Bytes of chunks that are unreported at once, of all runs; one run has at most 32 MiB.
    pub bytes: usize,
    /// Comparisons of one run: the first, and those for members that may be taken after all.
    pub passes: u32,
    /// Between two comparisons of a run.
    pub pass_wait: Duration,
    /// How long a run that is to end before its time waits for what is on its way.
    pub stop_wait: Duration,
    /// Between two generations of a roster while a run is under way.
    pub save_every: Duration,
    /// Passes over members at once, on blocking threads.
    pub readers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            chunks: 512,
            bytes: 256 << 20,
            passes: 4,
            pass_wait: Duration::from_secs(5),
            stop_wait: Duration::from_secs(60),
            save_every: Duration::from_secs(2),
            readers: 4,
        }
    }
}

/// What syncs work with.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(crate) log: SharedLog,
    pub(crate) topics: Topics,
    pub(crate) clock: Clock,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) hub: Hub,
    pub(crate) directory: Arc<Directory>,
    pub(crate) root: Store,
    pub(crate) live: Live,
    /// Who may read members now; first come, first served, so that all runs get their turns.
    pub(crate) turns: Arc<Semaphore>,
    /// How often partners are asked after jobs.
    pub(crate) pace: Pace,
    /// Tells how many members there are.
    pub(crate) teller: Teller,
    pub(crate) bounds: Bounds,
    pub(crate) telemetry: Telemetry,
}

/// Why a sync cannot go on now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// What is stored.
    #[error(transparent)]
    Store(#[from] Error),
    /// It is to end here: another process goes on with it, or it is deleted.
    #[error("the sync is over here")]
    Stopped,
}

impl Means {
    /// Runs blocking work in its turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        turns: Arc<Semaphore>,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = |error: &dyn std::fmt::Display| Error::Worker(error.to_string());
        let turn = turns.acquire_owned().await.map_err(|error| ended(&error))?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        worked.await.map_err(|error| ended(&error))?
    }
}

/// Where a sync's roster and its other objects lie.
pub(crate) fn folder(root: &Store, sync: SyncId) -> Store {
    root.folder(&format!("syncs/{sync}"))
}

/// Where its roster lies.
pub(crate) fn roster_folder(root: &Store, sync: SyncId) -> Store {
    folder(root, sync).folder("roster")
}

/// The fields by which a sync's partner knows members, beside the id.
pub(crate) fn identity(sync: &Sync) -> Vec<String> {
    let fields = sync.profile.known_by();
    fields.into_iter().map(str::to_owned).collect()
}
