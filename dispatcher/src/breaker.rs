//! Owns whether a lane's endpoint is up: closed, open with a growing wait for the next probe,
//! half-open while one probe is under way; and since when it fails.
//!
//! It must never let anything but one probe at a time through while it is not closed, nor count an
//! attempt that started before. The surprise: an answer that refuses (401, 404, 429) closes it,
//! because something is there that answers; only a delivery ends the time of failing.

use std::time::Duration;

use schemas::records::BreakerProgress;
use tokio::time::Instant;

use crate::delivery::classify::{Reason, Verdict};
use crate::planted::{self, Bug};

/// So many failures in a row open it; one without any answer counts twice, for it takes long. An
/// endpoint that serves every other attempt is not down.
const RUN_MAX: u32 = 8;
/// Four fifths of at least so many attempts in [`TALLY_TIME`] open it too.
const TALLY_MIN: u32 = 20;
const TALLY_TIME: Duration = Duration::from_secs(10);
/// The wait for the first probe …
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// … which doubles with each that fails, to this.
pub(crate) const PROBE_MAX: Duration = Duration::from_secs(120);
/// One that opens again soon after it was closed waits longer each time, to this.
const FLAP_MAX: Duration = Duration::from_secs(8);
/// Failing begins anew where nothing was tried for so long: two bad days a week apart are not a
/// week of failing.
const GAP_MAX: Duration = Duration::from_hours(48);
/// A wait is spread by a fifth to either side, so that endpoints of one host are not probed at once.
const JITTER: f64 = 0.2;

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It took the delivery, or said that it never will.
    Served,
    /// It answered, and did not take the delivery.
    Answered,
    /// It asked for fewer attempts.
    Busy,
    /// No connection, or an answer that says that it cannot.
    Failed,
    /// No answer in time.
    Silent,
}

/// Whether an attempt may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As many as there may be otherwise.
    Free,
    /// This one, as the probe.
    Probe,
    /// None before this time.
    NotBefore(Instant),
    /// None before the probe has ended.
    Probing,
}

/// What has changed by the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was closed and is open.
    Opened,
    /// A probe failed: the wait for the next has grown.
    StillOpen,
    /// It is closed again.
    Closed,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// What it says.
    pub(crate) health: Health,
    /// When it was started.
    pub(crate) started: Instant,
    /// Now.
    pub(crate) now: Instant,
    /// Now, unix milliseconds.
    pub(crate) wall: i64,
    /// A random number, 0 ≤ jitter < 1.
    pub(crate) jitter: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        probe_at: Instant,
        /// Whether a deferred delivery is due as the probe.
        promised: bool,
    },
    HalfOpen {
        since: Instant,
    },
}

/// The breaker of one lane.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    state: State,
    /// Failures in a row.
    run: u32,
    tally: (Instant, u32, u32),
    /// The wait before the last probe.
    interval: Duration,
    closed_at: Option<Instant>,
    /// When an attempt last ended, unix milliseconds.
    ended_at: Option<i64>,
    failing_since: Option<i64>,
}

impl Health {
    /// What a verdict says of the endpoint; `None` where it says nothing.
    pub(crate) fn of(verdict: &Verdict) -> Option<Self> {
        let Verdict::Retry {
            reason,
            costs_attempt,
            ..
        } = *verdict
        else {
            return match verdict.reason() {
                // It was never sent.
                Some(Reason::Request | Reason::Template) => None,
                Some(Reason::Gone) => Some(Self::Answered),
                Some(_) | None => Some(Self::Served),
            };
        };
        Some(match reason {
            Reason::TooManyRequests => Self::Busy,
            Reason::Unavailable if !costs_attempt => Self::Busy,
            // The token is there: its server answered.
            Reason::Token if !costs_attempt => Self::Served,
            Reason::Unavailable
            | Reason::Token
            | Reason::ServerError
            | Reason::Address
            | Reason::Dns
            | Reason::Connect
            | Reason::Tls
            | Reason::Reset
            | Reason::Protocol => Self::Failed,
            Reason::Timeout => Self::Silent,
            Reason::Redirect
            | Reason::Unauthorized
            | Reason::Forbidden
            | Reason::NotFound
            | Reason::RequestTimeout
            | Reason::Conflict
            | Reason::TooEarly
            | Reason::UnexpectedStatus
            | Reason::BadRequest
            | Reason::PayloadTooLarge
            | Reason::UnsupportedMediaType
            | Reason::Unprocessable
            | Reason::ClientError
            | Reason::Gone
            | Reason::Item
            | Reason::NotSaid
            | Reason::Request
            | Reason::Template => Self::Answered,
        })
    }
}

impl Breaker {
    /// Closed, and nothing known.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Closed,
            run: 0,
            tally: (now, 0, 0),
            interval: PROBE_FIRST,
            closed_at: None,
            ended_at: None,
            failing_since: None,
        }
    }

    /// Whether an attempt may start.
    pub(crate) fn pass(&self, now: Instant) -> Pass {
        match self.state {
            State::Closed => Pass::Free,
            State::Open { .. } if planted::is(Bug::AttemptsWhileOpen) => Pass::Free,
            State::Open { probe_at, .. } if now < probe_at => Pass::NotBefore(probe_at),
            State::Open { .. } => Pass::Probe,
            State::HalfOpen { .. } => Pass::Probing,
        }
    }

    /// An attempt is started that [`Breaker::pass`] let through.
    pub(crate) fn started(&mut self, now: Instant) {
        match self.state {
            State::Open { .. } if planted::is(Bug::AttemptsWhileOpen) => {}
            State::Open { .. } => self.state = State::HalfOpen { since: now },
            State::Closed | State::HalfOpen { .. } => {}
        }
    }

    /// An attempt was not made after all: if it was the probe, another may be it.
    pub(crate) fn not_started(&mut self, started: Instant, now: Instant) {
        if let State::HalfOpen { since } = self.state
            && started >= since
        {
            self.state = State::Open {
                probe_at: now,
                promised: false,
            };
        }
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, end: End) -> Option<Change> {
        let before = self.ended_at.replace(end.wall);
        let gap = before.map_or(0, |before| end.wall.saturating_sub(before));
        if gap >= runtime::clock::millis(GAP_MAX) {
            self.failing_since = None;
        }
        match end.health {
            Health::Served => {
                self.failing_since = None;
                self.run = 0;
            }
            Health::Answered => {
                self.failing_since.get_or_insert(end.wall);
                self.run = 0;
            }
            Health::Busy => {}
            Health::Failed | Health::Silent => {
                self.failing_since.get_or_insert(end.wall);
                let counts = 1 + u32::from(end.health == Health::Silent);
                self.run = self.run.saturating_add(counts);
            }
        }
        match self.state {
            State::Closed => {
                let bad = self.count(end.health, end.now);
                if self.run < RUN_MAX && !bad {
                    return None;
                }
                let flaps = self
                    .closed_at
                    .is_some_and(|at| end.now < at + self.interval * 2);
                let wait = if flaps {
                    (self.interval * 2).min(FLAP_MAX)
                } else {
                    PROBE_FIRST
                };
                self.open(wait, &end);
                Some(Change::Opened)
            }
            State::HalfOpen { since } if end.started >= since => match end.health {
                Health::Failed | Health::Silent => {
                    self.open((self.interval * 2).min(PROBE_MAX), &end);
                    Some(Change::StillOpen)
                }
                Health::Served | Health::Answered | Health::Busy
                    if planted::is(Bug::BreakerNeverCloses) =>
                {
                    self.open(PROBE_MAX, &end);
                    None
                }
                Health::Served | Health::Answered | Health::Busy => {
                    self.state = State::Closed;
                    self.run = 0;
                    self.tally = (end.now, 0, 0);
                    self.closed_at = Some(end.now);
                    Some(Change::Closed)
                }
            },
            // What was under way when it opened says nothing of now.
            State::HalfOpen { .. } | State::Open { .. } => None,
        }
    }

    fn open(&mut self, wait: Duration, end: &End) {
        self.interval = wait;
        let spread = 1.0 - JITTER + 2.0 * JITTER * end.jitter.clamp(0.0, 1.0);
        self.state = State::Open {
            probe_at: end.now + self.interval.mul_f64(spread),
            promised: false,
        };
        self.tally = (end.now, 0, 0);
    }

    /// Counts an attempt, and says whether most of those of late failed.
    fn count(&mut self, health: Health, now: Instant) -> bool {
        let (since, ended, failed) = &mut self.tally;
        if now >= *since + TALLY_TIME {
            (*since, *ended, *failed) = (now, 0, 0);
        }
        *ended = ended.saturating_add(1);
        let is_failure = matches!(health, Health::Failed | Health::Silent);
        *failed += u32::from(is_failure);
        is_failure && *ended >= TALLY_MIN && failed.saturating_mul(5) >= ended.saturating_mul(4)
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When the next probe may start, where it has to be waited for.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// The time of the next probe, for the one deferred delivery that is to be it.
    pub(crate) fn promise_probe(&mut self) -> Option<Instant> {
        match &mut self.state {
            State::Open { probe_at, promised } if !*promised => {
                *promised = true;
                Some(*probe_at)
            }
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Since when nothing was delivered though it was tried, unix milliseconds.
    pub(crate) fn failing_since(&self) -> Option<i64> {
        self.failing_since
    }

    /// Whether it has failed for so long at `wall` that the endpoint is to be disabled.
    pub(crate) fn is_overdue(&self, wall: i64, disable_after: Option<Duration>) -> bool {
        disable_after.is_some_and(|after| {
            self.failing_since
                .is_some_and(|since| wall.saturating_sub(since) >= runtime::clock::millis(after))
        })
    }

    /// Takes `down` out of the time of failing: it was our own network.
    pub(crate) fn excuse(&mut self, down: Duration) {
        if let Some(since) = &mut self.failing_since {
            *since = since.saturating_add(runtime::clock::millis(down));
        }
    }

    /// Whether it is as a new one is.
    pub(crate) fn is_new(&self) -> bool {
        self.is_closed() && self.failing_since.is_none() && self.run == 0
    }

    /// What a successor is told (rule 5); `wall_at` says what a wall clock shows at a time. A probe under
    /// way is one that may start now.
    pub(crate) fn save(&self, wall_at: impl Fn(Instant) -> i64) -> BreakerProgress {
        let probe_at = match self.state {
            State::Closed => None,
            State::Open { probe_at, .. } => Some(wall_at(probe_at)),
            State::HalfOpen { since } => Some(wall_at(since)),
        };
        BreakerProgress {
            probe_at,
            interval_ms: u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
            failing_since: self.failing_since,
            ended_at: self.ended_at,
        }
    }

    /// Goes on where a predecessor was; `instant_at` is the time at which a wall clock shows that.
    pub(crate) fn restore(
        saved: BreakerProgress,
        now: Instant,
        instant_at: impl Fn(i64) -> Instant,
    ) -> Self {
        let state = saved.probe_at.map_or(State::Closed, |at| State::Open {
            // Never later than a breaker of this process would wait.
            probe_at: instant_at(at).min(now + PROBE_MAX.mul_f64(1.0 + JITTER)),
            promised: false,
        });
        Self {
            state,
            interval: Duration::from_millis(saved.interval_ms).clamp(PROBE_FIRST, PROBE_MAX),
            failing_since: saved.failing_since,
            ended_at: saved.ended_at,
            ..Self::new(now)
        }
    }
}

#[cfg(test)]
mod tests;
