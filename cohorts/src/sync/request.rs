//! Owns requests to syncs: small objects that whoever is asked writes, and the sync's owner takes up
//! and removes. So any replica takes a request, and none is lost with a process.

use runtime::clock::{Clock, Entropy};
use schemas::ids::SyncId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::sealed::{seal, unseal};
use crate::{Error, Store};

const FOLDER: &str = "requests";

/// What somebody asks of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Begin a run; or let the one that waits go on.
    Run {
        /// Whatever it removes.
        approve_removals: bool,
    },
    /// End the run that is under way.
    Cancel,
    /// The cohort has changed.
    Look,
}

/// A request, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Unique, and in order of time.
    pub id: String,
    /// To which sync.
    pub sync: SyncId,
    /// What it asks.
    pub ask: Ask,
}

/// The requests that nobody has taken up. All calls block.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    folder: Store,
}

impl Requests {
    pub(crate) fn new(root: &Store) -> Self {
        Self {
            folder: root.folder(FOLDER),
        }
    }

    /// Leaves a request.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn leave(&self, request: &Request) -> Result<(), Error> {
        let name = name(request.sync, &request.id);
        self.folder.put(&name, seal(&name, &request.ask)?)
    }

    /// All that were left, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn all(&self) -> Result<Vec<Request>, Error> {
        let mut found = Vec::new();
        for name in self.folder.list("")? {
            let parts = name.split_once('/').and_then(|(sync, rest)| {
                Some((sync.parse::<SyncId>().ok()?, rest.strip_suffix(".json")?))
            });
            let Some((sync, id)) = parts else { continue };
            match self
                .folder
                .get(&name)
                .and_then(|bytes| unseal(&name, &bytes))
            {
                Ok(ask) => found.push(Request {
                    id: id.to_owned(),
                    sync,
                    ask,
                }),
                Err(Error::Missing(_)) => {}
                Err(error @ Error::Damaged { .. }) => {
                    warn!(%error, "request to a sync cannot be read");
                    self.folder.delete(&name)?;
                }
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }

    /// Removes a request that was dealt with.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn done(&self, sync: SyncId, id: &str) -> Result<(), Error> {
        self.folder.delete(&name(sync, id))
    }
}

fn name(sync: SyncId, id: &str) -> String {
    format!("{sync}/{id}.json")
}

impl Request {
    /// A new request.
    #[must_use]
    pub fn new(sync: SyncId, ask: Ask, (clock, entropy): (&Clock, &Entropy)) -> Self {
        let id = format!("{:013x}-{:016x}", clock.now().max(0), entropy.u64());
        Self { id, sync, ask }
    }
}
