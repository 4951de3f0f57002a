//! Owns a window that begins anew at multiples of its length since the unix epoch, plus an offset.
//!
//! It never goes back to an earlier window, whatever the time says. The surprise: nothing is taken
//! in the last moments of a window, because a request leaves a little after its turn.

/// Counts against fixed windows. Times are unix nanoseconds.
#[derive(Debug)]
pub(super) struct Fixed {
    count: u64,
    per: u64,
    offset: u64,
    /// Nothing is taken so long before a window's end.
    margin: u64,
    begins: u64,
    spent: u64,
}

impl Fixed {
    pub(super) fn new(count: u64, per: u64, offset: u64, margin: u64) -> Self {
        Self {
            count,
            per,
            offset: offset % per.max(1),
            margin,
            begins: 0,
            spent: 0,
        }
    }

    /// Whether `n` are free, and from when on.
    pub(super) fn check(&mut self, now: u64, n: u64) -> Result<(), u64> {
        self.roll(now);
        if n > self.count {
            return Err(now.saturating_add(super::WINDOW_MAX_NS));
        }
        let ends = self.begins.saturating_add(self.per);
        if self.spent + n <= self.count && now < ends.saturating_sub(self.margin) {
            Ok(())
        } else {
            Err(ends.max(now + 1))
        }
    }

    /// Counts `n` as spent, free or not.
    pub(super) fn charge(&mut self, now: u64, n: u64) {
        self.roll(now);
        self.spent = self.spent.saturating_add(n);
    }

    /// What was spent at `from` may count at `to` only, which is later and not to come: in the
    /// current window, if that has begun since.
    pub(super) fn put_off(&mut self, from: u64, to: u64, n: u64) {
        if from < self.begins && to >= self.begins {
            self.spent = self.spent.saturating_add(n);
        }
    }

    /// How many are free now.
    pub(super) fn room(&mut self, now: u64) -> u64 {
        self.roll(now);
        self.count.saturating_sub(self.spent)
    }

    /// When the current window began, and what is spent of it.
    pub(super) fn saved(&mut self, now: u64) -> (u64, u64) {
        self.roll(now);
        (self.begins, self.spent)
    }

    /// Goes on in the window that began then.
    pub(super) fn restore(&mut self, begins: u64, spent: u64, now: u64) {
        self.roll(now);
        // A predecessor whose clock is ahead by more than a window says nothing that helps.
        let is_near = begins <= self.begins.saturating_add(self.per);
        if begins >= self.begins && is_near {
            (self.begins, self.spent) = (begins, spent);
        }
    }

    fn roll(&mut self, now: u64) {
        let begins = now - (now.saturating_sub(self.offset) % self.per.max(1)).min(now);
        if begins > self.begins {
            (self.begins, self.spent) = (begins, 0);
        }
    }
}
