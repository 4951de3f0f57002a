//! Owns which parts of a process are ready for work, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The gates of a process; it is ready when all are open. Clones are handles to the same gates.
#[derive(Clone, Debug)]
pub struct Readiness {
    gates: Arc<watch::Sender<BTreeMap<String, bool>>>,
}

/// One part's gate, closed until its owner opens it, and closed again when its owner drops it.
#[derive(Debug)]
pub struct Gate {
    name: String,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No gates: ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            gates: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// Adds a closed gate. A name used again replaces the one before.
    #[must_use]
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let gate = Gate {
            name: name.into(),
            readiness: self.clone(),
        };
        gate.put(false);
        gate
    }

    /// Names of the gates that are closed.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let gates = self.gates.borrow();
        gates
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.gates.borrow().values().all(|open| *open)
    }

    /// Waits until every gate is open. Cancel-safe.
    pub async fn ready(&self) {
        let mut gates = self.gates.subscribe();
        // The sender lives as long as `self`: waiting cannot fail.
        drop(
            gates
                .wait_for(|gates| gates.values().all(|open| *open))
                .await,
        );
    }
}

impl Gate {
    /// The part is ready.
    pub fn open(&self) {
        self.put(true);
    }

    /// The part is not ready any more.
    pub fn close(&self) {
        self.put(false);
    }

    /// Open while `serving` runs; closed as soon as it is to stop, so that a balancer sends its
    /// clients elsewhere while it drains.
    pub async fn open_while<T>(
        &self,
        stopped: &CancellationToken,
        serving: impl Future<Output = T>,
    ) -> T {
        let mut serving = std::pin::pin!(serving);
        self.open();
        tokio::select! {
            served = serving.as_mut() => {
                self.close();
                served
            }
            () = stopped.cancelled() => {
                self.close();
                serving.await
            }
        }
    }

    fn put(&self, open: bool) {
        self.readiness
            .gates
            .send_if_modified(|gates| gates.insert(self.name.clone(), open) != Some(open));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}
