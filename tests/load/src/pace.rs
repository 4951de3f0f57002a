//! Owns time: the wall clock that processes share, and ticks at a steady rate.
//!
//! It must never wait for those who take the ticks: that would be a closed loop. The surprise: the
//! ticks come from a thread, because the runtime's timer rounds up to whole milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::Instant;

/// Microseconds since 1970, on the clock that all processes of this machine share.
#[expect(
    clippy::disallowed_methods,
    reason = "the sink and the load are two processes: only the wall clock is common to both"
)]
pub(crate) fn wall_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// One tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    /// Which one, from 0.
    pub(crate) number: u64,
    /// When it was meant to come, by [`wall_us`].
    pub(crate) due_us: i64,
}

/// Waits until `done` are due that began at `start` and come at `per_second`.
pub(crate) fn keep(start: Instant, done: u64, per_second: u64) {
    let due = start + Duration::from_micros(done * 1_000_000 / per_second.max(1));
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // Nobody unparks this thread; it may wake early, never more than a little late.
        std::thread::park_timeout(left);
    }
}

/// Ticks `count` times, `per_second` a second, each when it is due.
pub(crate) fn each(per_second: u64, count: u64, mut tick: impl FnMut(Tick)) {
    let (start, wall) = (Instant::now(), wall_us());
    for number in 0..count {
        let offset_us = number * 1_000_000 / per_second.max(1);
        keep(start, number, per_second);
        tick(Tick {
            number,
            due_us: wall + i64::try_from(offset_us).unwrap_or_default(),
        });
    }
}

/// The same as a channel, which ends behind the last tick.
pub(crate) fn ticks(per_second: u64, count: u64) -> mpsc::UnboundedReceiver<Tick> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        each(per_second, count, |tick| {
            // Nobody listens any more: the benchmark has ended.
            sender.send(tick).ok();
        });
    });
    receiver
}

/// How many a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a benchmark knows no more digits"
)]
pub(crate) fn rate(count: u64, us: i64) -> f64 {
    count as f64 * 1e6 / us.max(1) as f64
}
