//! Owns "may this lane make an attempt now?": several rate windows at once, of requests and of
//! items, and what the endpoint's own answers say is left.
//!
//! Never sleeps and reads no clock: the caller passes the time, so paused time and simulations
//! work. The surprise: a window of up to [`STARTS_USED_MAX`] starts as fully used when a lane is
//! taken over, because the predecessor may have spent it a moment ago; a longer one is spent only
//! as far as it is reserved in the log, in blocks of a hundredth (rule 5).

mod fixed;
mod observed;
#[cfg(test)]
pub(crate) mod oracle;
mod sliding;
mod spread;
mod window;

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::records::WindowProgress;
use schemas::resources::RateWindow;
use tokio::time::Instant;

use crate::planted::{self, Bug};

use observed::Observed;
use window::{Window, to_ns};

/// The longest window that starts as used; a longer one is handed over through `progress`.
pub const STARTS_USED_MAX: Duration = Duration::from_secs(10);
const STARTS_USED_MAX_MS: u64 = 10_000;

/// The longest window there is: a leap year.
pub const WINDOW_MAX: Duration = Duration::from_hours(366 * 24);
const WINDOW_MAX_NS: u64 = 366 * 24 * 3_600_000 * NS_PER_MS;
const NS_PER_MS: u64 = 1_000_000;

/// A moment by both clocks, so that a time by one is known by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    instant: Instant,
    unix_ns: u64,
}

/// Why there is no turn now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The earliest time at which a turn is free.
    Until(Instant),
    /// The windows would allow it, and the block that it takes is not reserved yet:
    /// [`Limiter::save`] what is to be written, and come back when it is.
    Unreserved,
}

/// By how much a request may have reached its endpoint later than its turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Late {
    /// At most.
    pub by: Duration,
    /// Its answer took far longer than the others.
    pub is_unusual: bool,
}

/// Counts one lane's attempts against all of its windows.
#[derive(Debug)]
pub struct Limiter {
    anchor: Anchor,
    windows: Vec<Window>,
    observed: Option<Observed>,
    /// The last time that was given, unix nanoseconds: time never goes back.
    latest: u64,
    /// The items of a request that found too little reserved.
    wanted: Option<NonZeroU32>,
    /// For each window how much was free when the plan was made, and from when on its units are
    /// planned evenly.
    plan: Vec<(u64, u64)>,
}

// === impl Anchor ===

impl Anchor {
    /// `instant` is `unix_ms` by the wall clock.
    #[must_use]
    pub fn new(instant: Instant, unix_ms: i64) -> Self {
        let unix_ns = to_ns(unix_ms);
        Self { instant, unix_ns }
    }

    /// `instant` as unix milliseconds, rounded up.
    #[must_use]
    pub fn unix_ms(&self, instant: Instant) -> i64 {
        i64::try_from(self.ns(instant).div_ceil(NS_PER_MS)).unwrap_or(i64::MAX)
    }

    /// The instant of `unix_ms`.
    #[must_use]
    pub fn instant(&self, unix_ms: i64) -> Instant {
        self.at(to_ns(unix_ms))
    }

    fn ns(&self, instant: Instant) -> u64 {
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.unix_ns.saturating_add(nanos(after)),
            None => self
                .unix_ns
                .saturating_sub(nanos(self.instant.duration_since(instant))),
        }
    }

    fn at(&self, unix_ns: u64) -> Instant {
        let after = Duration::from_nanos(unix_ns.saturating_sub(self.unix_ns));
        let before = Duration::from_nanos(self.unix_ns.saturating_sub(unix_ns));
        let at = self.instant + after.min(2 * WINDOW_MAX);
        at.checked_sub(before).unwrap_or(at)
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter without a window: it grants everything.
    #[must_use]
    pub fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            windows: Vec::new(),
            observed: None,
            latest: 0,
            wanted: None,
            plan: Vec::new(),
        }
    }

    /// Keeps these windows from now on. What was spent of one that counts the same over the same
    /// time goes on; what a predecessor left is taken over; a short window that is new starts as
    /// used, a long one of which nobody left anything starts whole (rule 5). `start` is when the
    /// lane was taken over, or when the windows were changed.
    pub fn set_windows(&mut self, of: &[RateWindow], start: Instant, left: &[WindowProgress]) {
        let now = self.anchor.ns(start);
        let carried: Vec<WindowProgress> = self
            .windows
            .iter_mut()
            .map(|old| old.carried(now))
            .filter(|_| !planted::is(Bug::SpentForgotten))
            .collect();
        let mut before: Vec<Option<Window>> = self.windows.drain(..).map(Some).collect();
        for of in of {
            let same = before
                .iter_mut()
                .find(|old| old.as_ref().is_some_and(|old| old.of == *of))
                .and_then(Option::take);
            let window = same.unwrap_or_else(|| {
                let mut window = Window::new(*of);
                if !carried.iter().any(|old| window.restore(now, old)) {
                    window.start(now, left);
                }
                window
            });
            self.windows.push(window);
        }
        self.plan.clear();
    }

    /// Whether these are the windows that are kept.
    #[must_use]
    pub fn keeps(&self, of: &[RateWindow]) -> bool {
        self.windows.iter().map(|window| &window.of).eq(of)
    }

    /// Whether there is no window, so that nothing is known of what comes next.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.windows.is_empty()
    }

    /// The most items of one request: one of more is never granted.
    #[must_use]
    pub fn items_max(&self) -> Option<NonZeroU32> {
        let of_items = |window: &Window| {
            let counts_items = window.of.unit == schemas::resources::LimitUnit::Items;
            counts_items.then(|| window.capacity())
        };
        self.windows.iter().filter_map(of_items).min()
    }

    /// In how much time there is one request of `items` on average, by the short windows; `None`
    /// where there are none.
    #[must_use]
    pub fn every(&self, items: NonZeroU32) -> Option<Duration> {
        let spacing = |window: &Window| window.every(window.units(items));
        self.windows.iter().filter_map(spacing).max()
    }

    /// Takes the turn of a request with `items` from all windows, or from none.
    ///
    /// # Errors
    /// Why not now.
    pub fn try_take(&mut self, now: Instant, items: NonZeroU32) -> Result<(), Refusal> {
        let now = self.advance(now);
        let mut earliest: Option<u64> = None;
        for window in &mut self.windows {
            let units = window.units(items);
            if let Err(at) = window.check(now, units) {
                earliest = earliest.max(Some(at));
            }
        }
        if let Some(Err(at)) = self.observed.map(|observed| observed.check(now)) {
            earliest = earliest.max(Some(at));
        }
        if let Some(at) = earliest {
            return Err(Refusal::Until(self.anchor.at(at)));
        }
        let reserved = |window: &Window| window.is_reserved(window.units(items));
        if !self.windows.iter().all(reserved) {
            self.wanted = self.wanted.max(Some(items));
            return Err(Refusal::Unreserved);
        }
        for window in &mut self.windows {
            let units = window.units(items);
            window.take(now, units);
        }
        if let Some(observed) = &mut self.observed {
            observed.take();
        }
        if self.windows.iter().any(Window::is_low) {
            self.wanted = self.wanted.max(Some(NonZeroU32::MIN));
        }
        Ok(())
    }

    /// A request with `items` whose turn was at `started` may have reached the endpoint late: an
    /// endpoint that counts by its own clock counts it then.
    pub fn put_off(&mut self, started: Instant, late: Late, now: Instant, items: NonZeroU32) {
        let now = self.advance(now);
        let from = self.anchor.ns(started);
        for window in &mut self.windows {
            let units = window.units(items);
            window.put_off(from, late, now, units);
        }
    }

    /// An answer said that `remaining` requests are left for the next `reset` (HT-9, HT-10). It
    /// can only make the limit stricter, whatever the endpoint's own clock does.
    pub fn observe(&mut self, now: Instant, remaining: u64, reset: Duration) {
        let now = self.advance(now);
        self.observed = Observed::note(self.observed, now, remaining, nanos(reset));
    }

    /// Until when nothing may go because the endpoint said so.
    pub fn observed_hold(&mut self, now: Instant) -> Option<Instant> {
        let now = self.advance(now);
        let refused = self.observed?.check(now).err()?;
        Some(self.anchor.at(refused))
    }

    /// Whether there is something to [`Limiter::save`] before more can be spent, or soon.
    #[must_use]
    pub const fn wants_saving(&self) -> bool {
        self.wanted.is_some()
    }

    /// What is to be written of the long windows. With `go_on` the next block is reserved where it
    /// is time for one; without, nothing more is spent. Call [`Limiter::saved`] when it is known
    /// whether it was written, and not again before.
    pub fn save(&mut self, now: Instant, go_on: bool) -> Vec<WindowProgress> {
        let now = self.advance(now);
        let wanted = self.wanted.unwrap_or(NonZeroU32::MIN);
        let items = go_on.then_some(wanted);
        let save = |window: &mut Window| {
            let units = items.map(|items| window.units(items));
            window.save(now, units)
        };
        self.windows.iter_mut().filter_map(save).collect()
    }

    /// What [`Limiter::save`] returned last is in the log, or will never be.
    pub fn saved(&mut self, is_written: bool) {
        if is_written {
            self.wanted = None;
        }
        for window in &mut self.windows {
            window.saved(is_written);
        }
    }

    /// Whether a limiter that nobody used would be the same.
    pub fn is_whole(&mut self, now: Instant) -> bool {
        let now = self.advance(now);
        self.observed = self.observed.filter(|observed| !observed.is_over(now));
        self.observed.is_none() && self.windows.iter_mut().all(|window| window.is_whole(now))
    }

    /// About when a delivery has its turn that has `ahead` others before it.
    pub fn forecast(&mut self, now: Instant, ahead: u64) -> Instant {
        let now = self.advance(now);
        let mut at = now;
        for window in &mut self.windows {
            let room = window.room(now);
            if ahead >= room {
                // One more interval than units go before it, unless a unit is free at a known time.
                let free = window.check(now, NonZeroU32::MIN).err();
                let intervals = ahead - room + u64::from(free.is_none());
                let after = window.interval.saturating_mul(intervals);
                at = at.max(free.unwrap_or(now).saturating_add(after));
            }
        }
        if let Some(Err(until)) = self.observed.map(|observed| observed.check(now)) {
            at = at.max(until);
        }
        self.anchor.at(at)
    }

    /// Plans the turn of one delivery at `start`, behind all that were planned before, and says
    /// when the next is free. What is free is planned at once, the rest evenly. With `anew` the
    /// plan begins here, behind `queued` deliveries.
    pub fn plan(&mut self, start: Instant, anew: Option<u64>) -> Instant {
        let from = self.anchor.ns(start);
        if anew.is_some() || self.plan.len() != self.windows.len() {
            let now = from.max(self.latest);
            let free = |window: &mut Window| {
                anew.map_or(0, |queued| window.room(now).saturating_sub(queued))
            };
            let plan = self.windows.iter_mut().map(|window| (free(window), from));
            self.plan = plan.collect();
        }
        let mut next = from;
        for (window, (room, at)) in self.windows.iter().zip(&mut self.plan) {
            *room = room.saturating_sub(1);
            if *room == 0 {
                *at = (*at).max(from).saturating_add(window.interval);
                next = next.max(*at);
            }
        }
        self.anchor.at(next)
    }

    fn advance(&mut self, now: Instant) -> u64 {
        self.latest = self.latest.max(self.anchor.ns(now));
        self.latest
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
