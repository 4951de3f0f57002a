//! Owns since when completed targets of a source wait for an acknowledged commit.
//!
//! The invariant, said once: in a placement where something completed has waited for longer than
//! [`WAIT_MAX`] no attempt starts (rule 13). It must never forget what a refused commit covered.
//! The surprise: a plain commit and a transaction may both be on their way for one source; the
//! transaction went out later, so it covers what the commit does.

use std::time::Duration;

use tokio::time::Instant;

/// How long something completed may wait for an acknowledged commit while attempts start: many
/// times what a commit takes, and less than the half second before a death whose deliveries may be
/// repeated.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(400);

/// When the first of a source's completed targets ended that are not known to be committed.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    /// Of those that nothing on its way covers.
    open: Option<Instant>,
    /// Of those that the plain commit on its way covers.
    committing: Option<Instant>,
    /// Of those that only the transaction on its way covers.
    transacting: Option<Instant>,
}

impl Uncommitted {
    /// A target was completed.
    pub(crate) fn completed(&mut self, now: Instant) {
        self.open.get_or_insert(now);
    }

    /// A plain commit of everything completed so far goes out.
    pub(crate) fn committing(&mut self) {
        self.committing = earlier(self.committing, self.open.take());
    }

    /// A transaction with everything completed so far goes out.
    pub(crate) fn transacting(&mut self) {
        self.transacting = earlier(self.transacting, self.open.take());
    }

    /// The log has what the plain commit covers.
    pub(crate) fn committed(&mut self) {
        self.committing = None;
    }

    /// The log has what the transaction covers.
    pub(crate) fn transacted(&mut self) {
        self.transacting = None;
        self.committing = None;
    }

    /// The log has not what the plain commit covers, or nobody knows. A transaction that is on its
    /// way covers it still.
    pub(crate) fn not_committed(&mut self, is_transacting: bool) {
        let covered = self.committing.take();
        if is_transacting {
            self.transacting = earlier(self.transacting, covered);
        } else {
            self.open = earlier(self.open, covered);
        }
    }

    /// The log has not what the transaction covers, or nobody knows.
    pub(crate) fn not_transacted(&mut self) {
        self.open = earlier(self.open, self.transacting.take());
    }

    /// Since when something waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        earlier(self.open, earlier(self.committing, self.transacting))
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_acknowledgement_of_what_covers_it_ends_the_wait() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut all = Uncommitted::default();
        assert_eq!(all.since(), None);
        all.completed(at(1));
        all.completed(at(2));
        assert_eq!(all.since(), Some(at(1)));
        all.committing();
        all.completed(at(3));
        assert_eq!(all.since(), Some(at(1)));
        all.committed();
        assert_eq!(all.since(), Some(at(3)));
        all.committing();
        all.completed(at(4));
        all.not_committed(false);
        assert_eq!(all.since(), Some(at(3)));
        // A transaction covers what the commit that is on its way does, and more.
        all.committing();
        all.completed(at(5));
        all.transacting();
        all.completed(at(6));
        all.not_committed(true);
        assert_eq!(all.since(), Some(at(3)));
        all.transacted();
        assert_eq!(all.since(), Some(at(6)));
        all.committing();
        all.completed(at(7));
        all.transacting();
        all.committed();
        all.not_transacted();
        assert_eq!(all.since(), Some(at(7)));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Complete,
        Commit,
        Transact,
        EndCommit(bool),
        EndTransaction(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Complete),
            Just(Step::Commit),
            Just(Step::Transact),
            any::<bool>().prop_map(Step::EndCommit),
            any::<bool>().prop_map(Step::EndTransaction),
        ]
    }

    /// Every completion by itself: when it ended, and whether what is on its way covers it.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(Instant, bool, bool)>,
    }

    proptest! {
        #[test]
        fn it_says_what_each_completion_by_itself_would(steps in vec(step(), 0..60)) {
            let start = Instant::now();
            let (mut all, mut model) = (Uncommitted::default(), Model::default());
            let (mut committing, mut transacting) = (false, false);
            for (number, step) in steps.into_iter().enumerate() {
                let now = start + Duration::from_millis(number as u64);
                match step {
                    Step::Complete => {
                        all.completed(now);
                        model.waiting.push((now, false, false));
                    }
                    // No plain commit goes out while a transaction covers the source.
                    Step::Commit if !committing && !transacting => {
                        committing = true;
                        all.committing();
                        model.waiting.iter_mut().for_each(|one| one.1 = true);
                    }
                    Step::Transact if !transacting => {
                        transacting = true;
                        all.transacting();
                        model.waiting.iter_mut().for_each(|one| one.2 = true);
                    }
                    Step::EndCommit(ok) if committing => {
                        committing = false;
                        if ok {
                            all.committed();
                            model.waiting.retain(|one| !one.1);
                        } else {
                            all.not_committed(transacting);
                            model.waiting.iter_mut().for_each(|one| one.1 = false);
                        }
                    }
                    Step::EndTransaction(ok) if transacting => {
                        transacting = false;
                        if ok {
                            all.transacted();
                            model.waiting.retain(|one| !one.2);
                        } else {
                            all.not_transacted();
                            model.waiting.iter_mut().for_each(|one| one.2 = false);
                        }
                    }
                    Step::Commit
                    | Step::Transact
                    | Step::EndCommit(_)
                    | Step::EndTransaction(_) => {}
                }
                let oldest = model.waiting.iter().map(|one| one.0).min();
                prop_assert_eq!(all.since(), oldest);
            }
        }
    }
}
