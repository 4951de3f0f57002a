//! Owns how evenly the chunks of bulk work, and what has queued for a while, leave where short rate
//! windows bound them.
//!
//! It never lets more go than the windows do. The surprises: it lets go a little faster than they do
//! on average, so that what was held up for a moment is caught up; and it makes a limit better used,
//! not worse. What arrives evenly also becomes free evenly, while a whole window's requests in one
//! burst take the machine, and the partner's, from everybody else, and arrive late for that.

use std::time::Duration;

use tokio::time::Instant;

/// What has waited in its lane for so long leaves evenly too: a burst would bring it hardly sooner,
/// and what comes after it not at all.
pub(super) const BEHIND: Duration = Duration::from_secs(1);

/// What was held up is caught up over so much time.
const CATCH_UP: Duration = Duration::from_millis(20);

/// When the next may leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacing {
    next: Instant,
}

impl Pacing {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// Until when the next waits, if it does.
    pub(super) fn waits(self, now: Instant) -> Option<Instant> {
        (now < self.next).then_some(self.next)
    }

    /// One leaves, and those after it come one in every so much time.
    pub(super) fn left(&mut self, now: Instant, every: Duration) {
        // A little faster than the windows let them go on average.
        let every = every * 7 / 8;
        let behind = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.next = self.next.max(behind) + every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When so many leave that are looked at every millisecond from `from` on.
    fn leave(pacing: &mut Pacing, from: Instant, count: usize) -> Vec<u128> {
        let mut now = from;
        let mut left = Vec::new();
        while left.len() < count {
            if pacing.waits(now).is_none() {
                pacing.left(now, 8 * MS);
                left.push((now - from).as_millis());
            } else {
                now += MS;
            }
        }
        left
    }

    #[test]
    fn they_leave_evenly_and_a_little_faster_than_their_share() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        assert_eq!(leave(&mut pacing, start, 4), [0, 7, 14, 21]);
        // After a pause the few of the time of catching up go at once.
        let later = start + 1_000 * MS;
        assert_eq!(leave(&mut pacing, later, 6), [0, 0, 0, 1, 8, 15]);
    }
}
