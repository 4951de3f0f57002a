//! Owns the memory of deliveries that need not be sent: delivered by an earlier redrive, or sent by
//! this one.
//!
//! It never grows beyond its bound: the oldest is forgotten first, and what is forgotten is at worst
//! sent again under the same delivery id, never lost.

use std::collections::{HashMap, VecDeque};

use schemas::ids::DeliveryId;

/// So many deliveries are remembered: about 8 MiB.
const SETTLED_MAX: usize = 131_072;

/// Deliveries, and until which time of death their letters are settled.
#[derive(Debug)]
pub(crate) struct Settled {
    most: usize,
    until: HashMap<DeliveryId, i64>,
    order: VecDeque<DeliveryId>,
}

impl Default for Settled {
    fn default() -> Self {
        Self {
            most: SETTLED_MAX,
            until: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl Settled {
    /// Letters of `delivery` that died at `until` or before are settled.
    pub(crate) fn insert(&mut self, delivery: DeliveryId, until: i64) {
        if let Some(known) = self.until.get_mut(&delivery) {
            *known = until.max(*known);
            return;
        }
        self.until.insert(delivery, until);
        self.order.push_back(delivery);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// Whether a letter of `delivery` that died at `at` is settled.
    pub(crate) fn has(&self, delivery: DeliveryId, at: i64) -> bool {
        self.until.get(&delivery).is_some_and(|until| at <= *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_dies_after_it_was_delivered_is_not_settled() {
        let mut settled = Settled::default();
        let id = DeliveryId::from_bits(1);
        settled.insert(id, 50);
        settled.insert(id, 40);
        assert!(settled.has(id, 50));
        assert!(!settled.has(id, 51));
        assert!(!settled.has(DeliveryId::from_bits(2), 1));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut settled = Settled {
            most: 2,
            ..Settled::default()
        };
        for id in 1..=3 {
            settled.insert(DeliveryId::from_bits(id), 9);
        }
        let known = [1, 2, 3].map(|id| settled.has(DeliveryId::from_bits(id), 9));
        assert_eq!(known, [false, true, true]);
        assert_eq!(settled.until.len(), settled.order.len());
    }
}
