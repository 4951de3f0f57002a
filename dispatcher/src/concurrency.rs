//! Owns how many attempts a lane may have under way: between 1 and its cap, from what attempts take
//! and how they end.
//!
//! It must never count what says nothing: times measured while the limit was not in use do not
//! lower it, nor raise it. The surprise: it looks at *mean* times over a round, not at single ones,
//! so that an endpoint whose answers take now 1 ms and now 400 is not mistaken for a queue.
//!
//! Built on BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): what an
//! endpoint takes at once is its highest rate × its shortest mean time, twice that keeps it busy,
//! and the shortest time is looked for anew every five seconds, for a few rounds at less and less of
//! the limit. Failures halve it and what follows grows by a tenth a round above that (AIMD, Chiu and
//! Jain, 1989, with the slow start of RFC 5681); a round is about as many attempts as the limit
//! allows at once.

use std::time::Duration;

use tokio::time::Instant;

/// Attempts at once to an endpoint of which nothing is known: few, so that many that hang cannot
/// take all room before anything is known of them.
const START: f64 = 4.0;
/// What is allowed beyond what the endpoint was seen to take at once.
const GAIN: f64 = 2.0;
/// And a few more, so that it is never held to one by what was measured.
const SLACK: f64 = 2.0;
/// The fewest attempts that a round measures.
const ROUND_ATTEMPTS_MIN: u32 = 4;
/// Failures among a round's attempts from which the limit is halved: one in ten.
const FAILURES_TOLERATED: u32 = 10;
/// The highest rate of so many rounds counts.
const RATE_ROUNDS: usize = 8;
/// After this without a shorter one, the shortest mean time is measured anew.
const SHORTEST_LASTS: Duration = Duration::from_secs(5);
/// It is measured at the limit divided by this, then by twice as much, and so on while that makes
/// attempts much shorter: a queue that was taken for the endpoint's own time shows.
const PROBE_SHARE: f64 = 4.0;
/// A mean time of less than this share of the one before is much shorter.
const MUCH_SHORTER: f64 = 0.8;
/// Times below this differ by chance.
const TIME_MIN: Duration = Duration::from_micros(200);
/// How fast a round lets the limit fall for what it measured.
const FALL_MAX: f64 = 0.7;

/// How an attempt ended, as far as its endpoint's capacity is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// When it was started.
    pub(crate) started: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// No answer, or one that says that the endpoint could not.
    pub(crate) failed: bool,
}

/// What is measured between two decisions.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    ended: u32,
    failed: u32,
    took: Duration,
    started: u32,
    /// Those of them since the last one ended.
    started_since_end: u32,
    /// Those with which, and nothing ending in between, all places were taken: answers come in
    /// bursts, and what they leave free is taken in bursts.
    started_to_limit: u32,
}

/// A round at less than the limit.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// The limit is divided by this.
    share: f64,
    /// The mean time of the round before.
    before: Duration,
}

/// The limit of one lane.
#[derive(Debug, Clone)]
pub(crate) struct Concurrency {
    cap: u32,
    limit: f64,
    /// Growth is fast below this: where failures last halved the limit.
    threshold: f64,
    round: Round,
    /// Attempts ended each second, of the last rounds in which the limit was in use.
    rates: [f64; RATE_ROUNDS],
    next_rate: usize,
    /// The shortest mean time of a round, and when it was measured.
    shortest: Option<(Duration, Instant)>,
    /// This round measures the shortest time at a part of the limit.
    probe: Option<Probe>,
    /// Failures of attempts started before this are the same trouble.
    halved_at: Option<Instant>,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            ended: 0,
            failed: 0,
            took: Duration::ZERO,
            started: 0,
            started_since_end: 0,
            started_to_limit: 0,
        }
    }

    /// Whether the limit, and not a lack of deliveries, decided how many were under way.
    fn in_use(&self) -> bool {
        self.started_to_limit.saturating_mul(2) >= self.started.max(1)
    }

    fn mean(&self) -> Duration {
        (self.took / self.ended.max(1)).max(TIME_MIN)
    }
}

impl Concurrency {
    /// A limit of which nothing is known but its cap.
    pub(crate) fn new(cap: u32, now: Instant) -> Self {
        Self {
            cap: cap.max(1),
            limit: START,
            threshold: f64::INFINITY,
            round: Round::new(now),
            rates: [0.0; RATE_ROUNDS],
            next_rate: 0,
            shortest: None,
            probe: None,
            halved_at: None,
        }
    }

    /// Takes over the cap that the endpoint has now.
    pub(crate) fn set_cap(&mut self, cap: u32) {
        self.cap = cap.max(1);
        self.limit = self.limit.min(f64::from(self.cap));
    }

    /// So many attempts may be under way: 1 to the cap.
    pub(crate) fn limit(&self) -> u32 {
        let share = self.probe.map_or(1.0, |probe| probe.share);
        whole(self.limit / share).clamp(1, self.cap)
    }

    /// An attempt was started; `in_flight` counts it.
    pub(crate) fn started(&mut self, in_flight: u32) {
        let is_full = in_flight >= self.limit();
        let round = &mut self.round;
        round.started = round.started.saturating_add(1);
        round.started_since_end = round.started_since_end.saturating_add(1);
        if is_full {
            let burst = std::mem::take(&mut round.started_since_end);
            round.started_to_limit = round.started_to_limit.saturating_add(burst);
        }
    }

    /// An attempt ended.
    pub(crate) fn ended(&mut self, ended: Ended, now: Instant) {
        self.round.started_since_end = 0;
        if self.probe.is_some() && ended.started < self.round.began && !ended.failed {
            // It stood in the queue that the probe is to be without.
            return;
        }
        let round = &mut self.round;
        round.ended = round.ended.saturating_add(1);
        round.took = round.took.saturating_add(ended.took);
        let known = self.halved_at.is_some_and(|at| ended.started <= at);
        if ended.failed && !known {
            round.failed += 1;
        }
        let attempts = self.limit().max(ROUND_ATTEMPTS_MIN);
        if self.round.failed * FAILURES_TOLERATED > attempts {
            self.halve(now);
        } else if self.round.ended >= attempts && now > self.round.began {
            self.decide(now);
            self.round = Round::new(now);
        }
    }

    /// Failures: half as many, once for all that were under way.
    fn halve(&mut self, now: Instant) {
        self.limit = (self.limit.min(f64::from(self.cap)) / 2.0).max(1.0);
        self.threshold = self.limit;
        self.halved_at = Some(now);
        self.rates = [0.0; RATE_ROUNDS];
        self.probe = None;
        self.round = Round::new(now);
    }

    /// A round is over.
    fn decide(&mut self, now: Instant) {
        let mean = self.round.mean();
        if let Some(probe) = self.probe.take() {
            return self.probed(probe, mean, now);
        }
        let (shortest, measured_at) = match self.shortest {
            Some((shortest, at)) if mean > shortest => (shortest, at),
            Some(_) | None => (mean, now),
        };
        self.shortest = Some((shortest, measured_at));
        let elapsed = now.saturating_duration_since(self.round.began);
        let rate = f64::from(self.round.ended) / elapsed.as_secs_f64();
        let in_use = self.round.in_use();
        // A rate that deliveries limited is a lower bound.
        if in_use || rate > self.highest_rate() {
            if let Some(slot) = self.rates.get_mut(self.next_rate) {
                *slot = rate;
            }
            self.next_rate = (self.next_rate + 1) % RATE_ROUNDS;
        }
        if in_use {
            let takes = GAIN * self.highest_rate() * shortest.as_secs_f64() + SLACK;
            self.limit = self.towards(takes);
            self.probe = (now >= measured_at + SHORTEST_LASTS).then_some(Probe {
                share: PROBE_SHARE,
                before: mean,
            });
        }
    }

    /// A round at a part of the limit took `mean` on average: less than before, because there was a
    /// queue, or as long as the endpoint takes now.
    fn probed(&mut self, probe: Probe, mean: Duration, now: Instant) {
        let known = self.shortest.is_some_and(|(shortest, _)| mean <= shortest);
        let queued = mean < probe.before.mul_f64(MUCH_SHORTER);
        if known || !queued || self.limit / probe.share <= 1.0 {
            self.shortest = Some((mean, now));
        } else {
            self.probe = Some(Probe {
                share: probe.share * 2.0,
                before: mean,
            });
        }
    }

    fn highest_rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The next limit, where the endpoint seems to take this many.
    fn towards(&self, takes: f64) -> f64 {
        let grown = if self.limit < self.threshold {
            (self.limit * 2.0).min(self.threshold.max(self.limit + 1.0))
        } else {
            self.limit + (self.limit / 10.0).max(1.0)
        };
        takes
            .clamp(self.limit * FALL_MAX, grown)
            .clamp(1.0, f64::from(self.cap))
    }
}

/// The whole part, as a count.
fn whole(number: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what a u32 holds; the fraction is meant to go"
    )]
    let whole = number.clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests;
