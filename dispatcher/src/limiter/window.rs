//! Owns one window of a lane: what it counts, what is spent of it, and, where it outlives a
//! process, what of it is reserved.
//!
//! It must never spend of a long window what is not reserved in the log (rule 5). The surprise:
//! a window is kept a hundredth longer than it was stated, because a request leaves a little after
//! its turn, and not always by the same time; what turns out to have been later counts later.

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::records::{Spent, WindowProgress};
use schemas::resources::{LimitUnit, RateWindow, WindowKind};

use super::fixed::Fixed;
use super::sliding::Sliding;
use super::spread::Spread;
use super::{Late, NS_PER_MS, STARTS_USED_MAX_MS, WINDOW_MAX_NS};

/// The most by which a window is kept longer.
const MARGIN_MAX_NS: u64 = 100 * NS_PER_MS;
/// The most by which an unusual request counts later.
const UNUSUAL_MAX_NS: u64 = 1_000 * NS_PER_MS;
/// Of a longer window a usual request counts no later than of this one.
const USUAL_PER_MAX_NS: u64 = 10_000 * NS_PER_MS;
/// Of a window that is no longer, bulk work takes evenly.
const EVEN_PER_MAX: Duration = Duration::from_secs(10);
/// A block is one part in so many of a window.
const BLOCKS: u64 = 100;

/// One window. Times are unix nanoseconds.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) of: RateWindow,
    kind: Kind,
    reserve: Option<Reserve>,
    /// How much of the time one unit takes, if all goes on evenly.
    pub(super) interval: u64,
}

#[derive(Debug)]
enum Kind {
    Spread(Spread),
    Sliding(Sliding),
    Fixed(Fixed),
}

/// What of a long window is reserved and not spent.
#[derive(Debug)]
struct Reserve {
    /// How much is reserved at once.
    block: u64,
    /// In the log, and not spent.
    ahead: u64,
    /// Being written.
    asked: u64,
}

impl Window {
    /// A window of which nothing is spent.
    pub(super) fn new(of: RateWindow) -> Self {
        let per = of.per_ms.get().saturating_mul(NS_PER_MS).min(WINDOW_MAX_NS);
        let margin = (per / 100).min(MARGIN_MAX_NS);
        let count = u64::from(of.count.get());
        let kind = match of.kind {
            WindowKind::Spread { burst } => {
                let burst = burst.unwrap_or(NonZeroU32::MIN);
                Kind::Spread(Spread::new(of.count, per + margin, burst))
            }
            WindowKind::Sliding => Kind::Sliding(Sliding::new(count, per + margin)),
            WindowKind::Fixed { offset_ms } => {
                let offset = offset_ms.saturating_mul(NS_PER_MS);
                Kind::Fixed(Fixed::new(count, per, offset, margin))
            }
        };
        let mut window = Self {
            of,
            kind,
            reserve: None,
            interval: ((per + margin) / count).max(1),
        };
        if window.length_ms() > STARTS_USED_MAX_MS {
            window.reserve = Some(Reserve {
                block: (count / BLOCKS).max(1),
                ahead: 0,
                asked: 0,
            });
        }
        window
    }

    /// How long something spent is remembered.
    fn length_ms(&self) -> u64 {
        match &self.kind {
            Kind::Spread(spread) => {
                let burst = u64::from(spread.burst().get());
                let whole = self.interval.saturating_mul(burst) / NS_PER_MS;
                self.of.per_ms.get().max(whole)
            }
            Kind::Sliding(_) | Kind::Fixed(_) => self.of.per_ms.get(),
        }
    }

    /// The most units that it ever grants at once.
    pub(super) fn capacity(&self) -> NonZeroU32 {
        match &self.kind {
            Kind::Spread(spread) => spread.burst(),
            Kind::Sliding(_) | Kind::Fixed(_) => self.of.count,
        }
    }

    /// How many units a request of `items` takes.
    pub(super) fn units(&self, items: NonZeroU32) -> NonZeroU32 {
        match self.of.unit {
            LimitUnit::Requests => NonZeroU32::MIN,
            LimitUnit::Items => items,
        }
    }

    /// The time in which `units` come free on average, of a window whose requests may be asked to
    /// come evenly: those of a longer one are its owner's to spend when they are needed.
    pub(super) fn every(&self, units: NonZeroU32) -> Option<Duration> {
        let per = Duration::from_millis(self.of.per_ms.get());
        let each = per / self.of.count.get();
        (per <= EVEN_PER_MAX).then(|| each.saturating_mul(units.get()))
    }

    /// Whether `units` are free, reserved or not, and from when on.
    pub(super) fn check(&mut self, now: u64, units: NonZeroU32) -> Result<(), u64> {
        let n = u64::from(units.get());
        match &mut self.kind {
            Kind::Spread(spread) => spread.check(now, units),
            Kind::Sliding(sliding) => sliding.check(now, n),
            Kind::Fixed(fixed) => fixed.check(now, n),
        }
    }

    /// Spends `units`, free or not, of what is reserved.
    pub(super) fn take(&mut self, now: u64, units: NonZeroU32) {
        let n = u64::from(units.get());
        self.charge(now, n);
        if let Some(reserve) = &mut self.reserve {
            debug_assert!(reserve.ahead >= n, "spent before it was reserved");
            reserve.ahead = reserve.ahead.saturating_sub(n);
        }
    }

    pub(super) fn charge(&mut self, now: u64, n: u64) {
        match &mut self.kind {
            Kind::Spread(spread) => spread.charge(now, n),
            Kind::Sliding(sliding) => sliding.charge(now, n),
            Kind::Fixed(fixed) => fixed.charge(now, n),
        }
    }

    /// `units` that were spent at `from` may have reached the endpoint late.
    pub(super) fn put_off(&mut self, from: u64, late: Late, now: u64, units: NonZeroU32) {
        let by = self.counted_late(late);
        if by == 0 {
            return;
        }
        let (to, n) = (from.saturating_add(by).min(now), u64::from(units.get()));
        match &mut self.kind {
            Kind::Sliding(sliding) => sliding.put_off(from, to, n),
            Kind::Fixed(fixed) => fixed.put_off(from, to, n),
            // What comes evenly, less one that was late, comes no faster.
            Kind::Spread(_) => {}
        }
    }

    /// By how much a window counts a request later. An answer that merely took a little longer
    /// costs little use of the limit, and an unusual one is taken at its word, within reason.
    fn counted_late(&self, late: Late) -> u64 {
        let per = self.of.per_ms.get().saturating_mul(NS_PER_MS);
        let most = if late.is_unusual {
            (per / 4).min(UNUSUAL_MAX_NS)
        } else {
            per.min(USUAL_PER_MAX_NS) / 33
        };
        super::nanos(late.by).min(most)
    }

    /// How many are free now.
    pub(super) fn room(&mut self, now: u64) -> u64 {
        match &mut self.kind {
            Kind::Spread(spread) => spread.room(now),
            Kind::Sliding(sliding) => sliding.room(now),
            Kind::Fixed(fixed) => fixed.room(now),
        }
    }

    /// Whether a new window would be the same.
    pub(super) fn is_whole(&mut self, now: u64) -> bool {
        match &mut self.kind {
            Kind::Spread(spread) => spread.whole_at() <= now,
            Kind::Sliding(sliding) => sliding.room(now) == u64::from(self.of.count.get()),
            Kind::Fixed(fixed) => fixed.saved(now).1 == 0,
        }
    }

    /// Whether `units` are reserved.
    pub(super) fn is_reserved(&self, units: NonZeroU32) -> bool {
        let n = u64::from(units.get());
        self.reserve.as_ref().is_none_or(|kept| kept.ahead >= n)
    }

    /// Whether half of a block, or less, is left, so that it is time for the next.
    pub(super) fn is_low(&self) -> bool {
        let low = |kept: &Reserve| kept.asked == 0 && kept.ahead <= kept.block / 2;
        self.reserve.as_ref().is_some_and(low)
    }

    /// What is to be written of it; with `units`, the next block is reserved where it is time for
    /// one, or where a request of so many units waits for it. Without, what was reserved is given
    /// up: nothing more may be spent. `None` where a new window would be the same.
    pub(super) fn save(&mut self, now: u64, units: Option<NonZeroU32>) -> Option<WindowProgress> {
        let is_whole = self.is_whole(now);
        let is_low = self.is_low();
        let kept = self.reserve.as_mut()?;
        match units.map(|units| u64::from(units.get())) {
            Some(units) if is_low || kept.ahead < units => {
                kept.asked = kept.block.max(units.saturating_sub(kept.ahead));
            }
            Some(_) => {}
            None => (kept.ahead, kept.asked) = (0, 0),
        }
        let reserved = kept.ahead + kept.asked;
        if is_whole && reserved == 0 {
            return None;
        }
        Some(WindowProgress {
            per_ms: self.of.per_ms,
            unit: self.of.unit,
            reserved,
            spent: self.spent(now),
        })
    }

    /// The last [`Window::save`] is in the log, or will never be.
    pub(super) fn saved(&mut self, is_written: bool) {
        if let Some(kept) = &mut self.reserve {
            if is_written {
                kept.ahead += kept.asked;
            }
            kept.asked = 0;
        }
    }

    fn spent(&mut self, now: u64) -> Spent {
        match &mut self.kind {
            Kind::Spread(spread) => Spent::Spread {
                whole_at: to_ms_up(spread.whole_at()),
            },
            Kind::Sliding(sliding) => {
                let spans = sliding.saved(now);
                let at = |span: &super::sliding::Span| to_ms_up(span.last);
                let from = spans.first().map_or_else(|| to_ms_up(now), at);
                let pairs = spans.iter().map(|span| {
                    let after = at(span).saturating_sub(from);
                    (u64::try_from(after).unwrap_or(0), span.spent)
                });
                Spent::Sliding {
                    from,
                    spent: pairs.collect(),
                }
            }
            Kind::Fixed(fixed) => {
                let (begins, spent) = fixed.saved(now);
                let offset_ms = match self.of.kind {
                    WindowKind::Fixed { offset_ms } => offset_ms,
                    WindowKind::Spread { .. } | WindowKind::Sliding => 0,
                };
                Spent::Fixed {
                    offset_ms,
                    begins_at: to_ms_up(begins),
                    spent,
                }
            }
        }
    }

    /// Goes on with what a predecessor left at `now`, where it is of a window like this one;
    /// returns whether it is. What it had reserved may have been spent a moment ago.
    pub(super) fn restore(&mut self, now: u64, left: &WindowProgress) -> bool {
        let alike = left.per_ms == self.of.per_ms && left.unit == self.of.unit;
        let offset = match self.of.kind {
            WindowKind::Fixed { offset_ms } => offset_ms,
            WindowKind::Spread { .. } | WindowKind::Sliding => 0,
        };
        match (&mut self.kind, &left.spent) {
            (Kind::Spread(spread), Spent::Spread { whole_at }) if alike => {
                spread.set_whole_at(to_ns(*whole_at).min(now.saturating_add(WINDOW_MAX_NS)));
            }
            (Kind::Sliding(sliding), Spent::Sliding { from, spent }) if alike => {
                for (after, n) in spent {
                    let at = to_ns(*from).saturating_add(after.saturating_mul(NS_PER_MS));
                    // A predecessor whose clock was ahead: late is stricter than early.
                    sliding.charge(at.min(now), *n);
                }
            }
            (
                Kind::Fixed(fixed),
                Spent::Fixed {
                    offset_ms,
                    begins_at,
                    spent,
                },
            ) if alike && *offset_ms == offset => fixed.restore(to_ns(*begins_at), *spent, now),
            _other_window => return false,
        }
        self.charge(now, left.reserved);
        true
    }

    /// Begins at a take-over, or when the window was stated: one that does not outlive a process
    /// counts as used, because somebody may have spent it a moment ago (rule 5).
    pub(super) fn start(&mut self, now: u64, left: &[WindowProgress]) {
        if self.reserve.is_none() {
            self.charge(now, u64::from(self.capacity().get()));
        } else {
            let _like_one_of_them = left.iter().any(|left| self.restore(now, left));
        }
    }

    /// What is spent goes on in a window that counts the same over the same time.
    pub(super) fn carried(&mut self, now: u64) -> WindowProgress {
        WindowProgress {
            per_ms: self.of.per_ms,
            unit: self.of.unit,
            reserved: 0,
            spent: self.spent(now),
        }
    }
}

/// Unix milliseconds as nanoseconds.
pub(super) fn to_ns(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(NS_PER_MS)
}

fn to_ms_up(ns: u64) -> i64 {
    i64::try_from(ns.div_ceil(NS_PER_MS)).unwrap_or(i64::MAX)
}
