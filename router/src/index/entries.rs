//! Owns what routing needs of each subscription of a tenant, by place.
//!
//! It must never change under somebody who holds it. The surprise: it is kept in pieces, so that a
//! change beside a holder copies one piece and the list of them, however many there are.

use std::sync::Arc;

use schemas::ids::{EndpointId, SubscriptionId};
use schemas::resources::Subscription;

/// Where an entry is in its tenant's index.
pub type Place = u32;

/// Entries of one piece.
const PIECE: usize = 256;

/// What routing needs of one active subscription.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// The partition of `deliveries` that the endpoint is placed in.
    pub placement: u32,
    /// Whether events of one key are delivered one after another (rule 12).
    pub ordered: bool,
    /// Whether it is live in a source partition only from its activation there on.
    pub gated: bool,
}

impl Entry {
    /// The entry of an active subscription.
    pub(super) fn of(subscription: &Subscription) -> Self {
        Self {
            subscription: subscription.id,
            endpoint: subscription.endpoint,
            placement: subscription.placement.partition(),
            ordered: subscription.ordered,
            gated: subscription.start.is_some(),
        }
    }
}

/// The entries of one tenant. A clone stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    pieces: Arc<Vec<Piece>>,
}

type Piece = Arc<Vec<Option<Entry>>>;

impl Entries {
    /// The entry at `place`, while it is there.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&Entry> {
        let place = usize::try_from(place).ok()?;
        let piece = self.pieces.get(place / PIECE)?;
        piece.get(place % PIECE)?.as_ref()
    }

    /// Puts an entry to a place that was free, or takes it away. Places are taken without gaps.
    pub(super) fn set(&mut self, place: Place, entry: Option<Entry>) {
        let Ok(place) = usize::try_from(place) else {
            return;
        };
        let pieces = Arc::make_mut(&mut self.pieces);
        if pieces.len() <= place / PIECE {
            pieces.push(Piece::default());
        }
        let Some(piece) = pieces.get_mut(place / PIECE).map(Arc::make_mut) else {
            return;
        };
        match piece.get_mut(place % PIECE) {
            Some(slot) => *slot = entry,
            None => piece.push(entry),
        }
    }
}
