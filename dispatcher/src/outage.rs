//! Owns whether our own network is down: when nearly all hosts that were tried of late cannot be
//! reached, the fault is ours and not theirs (design: an outage of everybody).
//!
//! It must never call a few dead hosts an outage, however many deliveries they have. The surprise:
//! it counts hosts by their *last* attempt, so that a host with a thousand failures weighs as much
//! as one with one.

use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::delivery::{Answer, TransportErrorKind};

/// An attempt longer ago than this says nothing any more. Longer than a connection may take.
const LATELY: Duration = Duration::from_secs(20);
/// Fewer hosts than this out of reach are their own trouble.
const HOSTS_MIN: usize = 8;
/// One host in so many may still be reached: it may be on this side of what is broken.
const REACHED_SHARE: usize = 16;
/// Hosts that are remembered; others go uncounted until some are forgotten.
const HOSTS_MAX: usize = 4_096;
/// Probes in a row that must get an answer.
const ANSWERS_MIN: u32 = 2;
/// The wait before the first probe …
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// … which doubles to this.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Outages that are remembered, to leave them out of deliveries' age.
const PAST_MAX: usize = 32;

/// What an attempt says of the way to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Something answered.
    Reached,
    /// No name, no connection, or no answer in time.
    Unreached,
}

/// What has changed by an attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Our network is down.
    Began,
    /// It is back, after this long.
    Ended(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Down {
    since: Instant,
    since_wall: i64,
    probe_at: Instant,
    interval: Duration,
    probing: bool,
    answers: u32,
}

/// What the process knows of its own network.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    hosts: HashMap<u64, (Instant, Reach)>,
    unreached: usize,
    down: Option<Down>,
    /// Outages gone by, unix milliseconds from and to, the oldest first.
    past: Vec<(i64, i64)>,
}

impl Reach {
    /// What an answer says of the way; `None` where nothing was sent.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let Err(error) = answer else {
            return Some(Self::Reached);
        };
        match error.kind {
            TransportErrorKind::Dns | TransportErrorKind::Connect | TransportErrorKind::Timeout => {
                Some(Self::Unreached)
            }
            TransportErrorKind::Tls | TransportErrorKind::Reset | TransportErrorKind::Protocol => {
                Some(Self::Reached)
            }
            TransportErrorKind::Address
            | TransportErrorKind::Request
            | TransportErrorKind::Template => None,
        }
    }
}

impl Outage {
    /// Whether our network is down.
    pub(crate) fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Whether an attempt may start now: always, but while the network is down only a probe.
    ///
    /// # Errors
    /// When to ask again; `None` while a probe is under way.
    pub(crate) fn pass(&self, now: Instant) -> Result<(), Option<Instant>> {
        match &self.down {
            None => Ok(()),
            Some(down) if down.probing => Err(None),
            Some(down) if now < down.probe_at => Err(Some(down.probe_at)),
            Some(_) => Ok(()),
        }
    }

    /// An attempt is started that [`Outage::pass`] let through; says whether it is a probe.
    pub(crate) fn started(&mut self) -> bool {
        match &mut self.down {
            Some(down) => {
                down.probing = true;
                true
            }
            None => false,
        }
    }

    /// A probe was not made after all.
    pub(crate) fn not_started(&mut self, probe: bool) {
        if let Some(down) = self.down.as_mut().filter(|_| probe) {
            down.probing = false;
        }
    }

    /// An attempt to `host` has ended; `probe` is what [`Outage::started`] said of it.
    pub(crate) fn ended(
        &mut self,
        (host, reach): (u64, Reach),
        probe: bool,
        (now, wall): (Instant, i64),
    ) -> Option<Change> {
        self.remember(host, reach, now);
        let Some(down) = &mut self.down else {
            if reach == Reach::Reached || !self.is_outage(now) {
                return None;
            }
            self.down = Some(Down {
                since: now,
                since_wall: wall,
                probe_at: now + PROBE_FIRST,
                interval: PROBE_FIRST,
                probing: false,
                answers: 0,
            });
            return Some(Change::Began);
        };
        if !probe {
            return None;
        }
        down.probing = false;
        match reach {
            Reach::Reached => {
                down.answers += 1;
                down.probe_at = now;
                if down.answers < ANSWERS_MIN {
                    return None;
                }
            }
            Reach::Unreached => {
                down.answers = 0;
                down.interval = (down.interval * 2).min(PROBE_MAX);
                down.probe_at = now + down.interval;
                return None;
            }
        }
        let (since, since_wall) = (down.since, down.since_wall);
        self.down = None;
        self.hosts.clear();
        self.unreached = 0;
        if self.past.len() >= PAST_MAX {
            self.past.remove(0);
        }
        self.past.push((since_wall, wall));
        Some(Change::Ended(now.saturating_duration_since(since)))
    }

    /// How much of the time between these (unix milliseconds) our network was down.
    pub(crate) fn within(&self, from: i64, to: i64) -> i64 {
        let running = self.down.iter().map(|down| (down.since_wall, to));
        self.past
            .iter()
            .copied()
            .chain(running)
            .map(|(began, ended)| (ended.min(to) - began.max(from)).max(0))
            .sum()
    }

    fn remember(&mut self, host: u64, reach: Reach, now: Instant) {
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&host) {
            self.forget(now);
            if self.hosts.len() >= HOSTS_MAX {
                return;
            }
        }
        let before = self.hosts.insert(host, (now, reach));
        let counted = |reach: Reach| usize::from(reach == Reach::Unreached);
        self.unreached += counted(reach);
        self.unreached -= before.map_or(0, |(_, reach)| counted(reach));
    }

    fn forget(&mut self, now: Instant) {
        self.hosts.retain(|_, (at, _)| now < *at + LATELY);
        self.unreached = self
            .hosts
            .values()
            .filter(|(_, reach)| *reach == Reach::Unreached)
            .count();
    }

    fn is_outage(&mut self, now: Instant) -> bool {
        // Cheap first: the rest is looked at only where it may be one.
        if self.unreached < HOSTS_MIN {
            return false;
        }
        self.forget(now);
        let reached = self.hosts.len() - self.unreached;
        self.unreached >= HOSTS_MIN && reached * REACHED_SHARE <= self.unreached
    }
}

#[cfg(test)]
mod tests;
