//! Owns since when completed targets of a source wait for an acknowledged commit.
//!
//! The invariant, said once: in a placement where something completed has waited for longer than
//! [`wait_max`] no attempt starts (rule 13). It must never forget what a refused commit covered.
//! The surprise: a plain commit and a transaction may both be on their way for one source.

use std::time::Duration;

use tokio::time::Instant;

/// What a commit may take beyond its interval before attempts wait for it: many times what it
/// takes, and little enough that what a death repeats ended less than half a second before it.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long something completed may wait for an acknowledged commit while attempts start.
pub(crate) fn wait_max(commit_interval: Duration) -> Duration {
    commit_interval + PATIENCE
}

/// When the first of a source's completed targets ended that are not known to be committed.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    /// Of those that nothing on its way covers.
    open: Option<Instant>,
    /// Of those that a commit on its way covers.
    sent: Option<Instant>,
}

impl Uncommitted {
    /// A target was completed.
    pub(crate) fn completed(&mut self, now: Instant) {
        self.open.get_or_insert(now);
    }

    /// A commit of everything completed so far goes out.
    pub(crate) fn sent(&mut self) {
        self.sent = earlier(self.sent, self.open.take());
    }

    /// The log has it.
    pub(crate) fn acknowledged(&mut self) {
        self.sent = None;
    }

    /// The log has it not, or nobody knows.
    pub(crate) fn refused(&mut self) {
        self.open = earlier(self.open, self.sent.take());
    }

    /// Since when something waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        earlier(self.open, self.sent)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
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
        all.sent();
        all.completed(at(3));
        assert_eq!(all.since(), Some(at(1)));
        all.acknowledged();
        assert_eq!(all.since(), Some(at(3)));
        all.sent();
        all.completed(at(4));
        all.refused();
        assert_eq!(all.since(), Some(at(3)));
        // A second commit while the first is on its way covers what that one does.
        all.sent();
        all.completed(at(5));
        all.sent();
        all.refused();
        assert_eq!(all.since(), Some(at(3)));
        all.sent();
        all.acknowledged();
        assert_eq!(all.since(), None);
    }

    #[test]
    fn what_a_death_repeats_ended_less_than_half_a_second_before_it() {
        // The longest interval that may be configured (design: "crash").
        assert!(wait_max(Duration::from_millis(250)) < Duration::from_millis(500));
    }
}
