//! Owns the account of a redrive: how many deliveries it may have unreported at once, and what
//! became of the letters.
//!
//! It never touches the log or a clock. What holds at any time: `matched` letters are `sent`,
//! `settled` or `skipped`, and what is `sent` is `delivered`, `dead`, `unknown` or unreported.

use std::collections::BTreeMap;

use schemas::ids::DeliveryId;
use schemas::records::ResultVerdict;
use schemas::resources::RedriveCounts;

/// The account of one redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    most: usize,
    counts: RedriveCounts,
    /// Until when each is waited for, unix milliseconds.
    unreported: BTreeMap<DeliveryId, i64>,
}

/// Why a letter is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// It is delivered, or this redrive has it already.
    Settled,
    /// It cannot be.
    Skipped,
}

impl Account {
    /// With credit for `most` deliveries, and what was there before a restart.
    pub(crate) fn new(
        most: usize,
        counts: RedriveCounts,
        unreported: BTreeMap<DeliveryId, i64>,
    ) -> Self {
        Self {
            most,
            counts,
            unreported,
        }
    }

    /// What became of the letters.
    pub(crate) fn counts(&self) -> RedriveCounts {
        self.counts
    }

    /// What is waited for.
    pub(crate) fn unreported(&self) -> &BTreeMap<DeliveryId, i64> {
        &self.unreported
    }

    /// How many more may be sent now.
    pub(crate) fn room(&self) -> usize {
        self.most.saturating_sub(self.unreported.len())
    }

    /// Whether the delivery is waited for.
    pub(crate) fn holds(&self, delivery: DeliveryId) -> bool {
        self.unreported.contains_key(&delivery)
    }

    /// A letter that is not sent.
    pub(crate) fn leave_out(&mut self, why: NotSent) {
        self.counts.matched += 1;
        match why {
            NotSent::Settled => self.counts.settled += 1,
            NotSent::Skipped => self.counts.skipped += 1,
        }
    }

    /// Takes credit for a letter's delivery, to be waited for until `until`. False where there is
    /// none left, or it is waited for already.
    pub(crate) fn send(&mut self, delivery: DeliveryId, until: i64) -> bool {
        if self.room() == 0 || self.holds(delivery) {
            return false;
        }
        self.unreported.insert(delivery, until);
        self.counts.matched += 1;
        self.counts.sent += 1;
        true
    }

    /// The log refused it for good: it was not sent after all.
    pub(crate) fn refused(&mut self, delivery: DeliveryId) {
        if self.unreported.remove(&delivery).is_some() {
            self.counts.sent -= 1;
            self.counts.skipped += 1;
        }
    }

    /// A report. Whether its delivery was waited for: of two reports one counts.
    pub(crate) fn reported(&mut self, delivery: DeliveryId, verdict: ResultVerdict) -> bool {
        let was_there = self.unreported.remove(&delivery).is_some();
        if was_there {
            self.count(verdict);
        }
        was_there
    }

    /// A letter that was sent and reported before a restart that forgot it.
    pub(crate) fn found(&mut self, verdict: ResultVerdict) {
        self.counts.matched += 1;
        self.counts.sent += 1;
        self.count(verdict);
    }

    fn count(&mut self, verdict: ResultVerdict) {
        match verdict {
            ResultVerdict::Delivered => self.counts.delivered += 1,
            ResultVerdict::Dead | ResultVerdict::Rejected => self.counts.dead += 1,
        }
    }

    /// Gives back the credit of what is not waited for any longer; says of how many.
    pub(crate) fn expire(&mut self, now: i64) -> usize {
        let before = self.unreported.len();
        self.unreported.retain(|_, until| *until > now);
        let expired = before - self.unreported.len();
        self.counts.unknown += expired as u64;
        expired
    }

    /// When [`Account::expire`] gives the next one back.
    pub(crate) fn next_expiry(&self) -> Option<i64> {
        self.unreported.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Send(u128, i64),
        Report(u128, bool),
        Expire(i64),
        LeaveOut(bool),
        Refuse(u128),
        Found(bool),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u128..9, 0_i64..50).prop_map(|(id, until)| Step::Send(id, until)),
            3 => (0_u128..9, any::<bool>()).prop_map(|(id, well)| Step::Report(id, well)),
            1 => (0_i64..50).prop_map(Step::Expire),
            1 => any::<bool>().prop_map(Step::LeaveOut),
            1 => (0_u128..9).prop_map(Step::Refuse),
            1 => any::<bool>().prop_map(Step::Found),
            1 => Just(Step::Restart),
        ]
    }

    fn verdict(well: bool) -> ResultVerdict {
        if well {
            ResultVerdict::Delivered
        } else {
            ResultVerdict::Dead
        }
    }

    /// Every letter with what became of it, the oldest first.
    #[derive(Default)]
    struct Naive(Vec<(Option<u128>, &'static str, i64)>);

    impl Naive {
        fn end(&mut self, id: u128, word: &'static str) {
            let open = self
                .0
                .iter_mut()
                .find(|(of, word, _)| *of == Some(id) && *word == "open");
            if let Some(found) = open {
                found.1 = word;
            }
        }

        fn with(&self, words: &[&str]) -> u64 {
            self.0
                .iter()
                .filter(|(_, word, _)| words.contains(word))
                .count() as u64
        }
    }

    proptest! {
        #[test]
        fn credit_is_never_exceeded_and_every_letter_is_counted_once(
            most in 1_usize..5,
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut account = Account::new(most, RedriveCounts::default(), BTreeMap::new());
            let mut naive = Naive::default();
            for step in steps {
                match step {
                    Step::Send(id, until) => {
                        let is_open = |(of, word, _): &(Option<u128>, &str, i64)| {
                            *of == Some(id) && *word == "open"
                        };
                        let may = naive.with(&["open"]) < most as u64
                            && !naive.0.iter().any(is_open);
                        prop_assert_eq!(account.send(DeliveryId::from_bits(id), until), may);
                        if may {
                            naive.0.push((Some(id), "open", until));
                        }
                    }
                    Step::Report(id, well) => {
                        account.reported(DeliveryId::from_bits(id), verdict(well));
                        naive.end(id, if well { "delivered" } else { "dead" });
                    }
                    Step::Expire(now) => {
                        account.expire(now);
                        for (_, word, until) in &mut naive.0 {
                            if *word == "open" && *until <= now {
                                *word = "unknown";
                            }
                        }
                    }
                    Step::LeaveOut(settled) => {
                        account.leave_out(if settled { NotSent::Settled } else { NotSent::Skipped });
                        naive.0.push((None, if settled { "settled" } else { "skipped" }, 0));
                    }
                    Step::Refuse(id) => {
                        account.refused(DeliveryId::from_bits(id));
                        naive.end(id, "skipped");
                    }
                    Step::Found(well) => {
                        account.found(verdict(well));
                        naive.0.push((None, if well { "delivered" } else { "dead" }, 0));
                    }
                    Step::Restart => {
                        let unreported = account.unreported().clone();
                        account = Account::new(most, account.counts(), unreported);
                    }
                }
                let counts = account.counts();
                prop_assert!(account.unreported().len() <= most);
                prop_assert_eq!(account.unreported().len() as u64, naive.with(&["open"]));
                prop_assert_eq!(account.room() as u64, most as u64 - naive.with(&["open"]));
                let expected = RedriveCounts {
                    matched: naive.0.len() as u64,
                    sent: naive.with(&["open", "delivered", "dead", "unknown"]),
                    delivered: naive.with(&["delivered"]),
                    dead: naive.with(&["dead"]),
                    unknown: naive.with(&["unknown"]),
                    settled: naive.with(&["settled"]),
                    skipped: naive.with(&["skipped"]),
                };
                prop_assert_eq!(counts, expected);
            }
        }
    }
}
