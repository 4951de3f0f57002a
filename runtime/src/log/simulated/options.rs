//! Owns what a simulation is made with: its seed, its delays and how often what fails.

use std::time::Duration;

use crate::clock::{Clock, Entropy};

use super::faults::{Fault, Operation};

/// What a simulation is made with. The default has no delays and no faults of its own.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    /// Decides every draw: the same seed and the same calls give the same trace.
    pub seed: u64,
    /// The wall clock for timestamps; `None` makes one that starts at a fixed time.
    pub clock: Option<Clock>,
    /// How long things take.
    pub latencies: Latencies,
    /// How often an operation fails in which way, each `0.0..=1.0`.
    pub probabilities: Vec<(Operation, Fault, f64)>,
    /// A member silent for this long is thrown out.
    pub session_timeout: Duration,
    /// How often a member talks to the log by itself.
    pub heartbeat_interval: Duration,
    /// A member that keeps a revocation for this long is thrown out.
    pub rebalance_timeout: Duration,
    /// How often the log looks for transactions beyond their timeout.
    pub transaction_sweep: Duration,
    /// Whether a joining member replaces (and fences) one of the same instance name.
    pub static_members: bool,
    /// Whether a member's plain commits wait behind its own request to join, as they do in Kafka's
    /// classic protocol, which sends both on one connection.
    pub joins_hold_commits: bool,
    /// When a member that was thrown out is told what it lost.
    pub loss_told: LossTold,
    /// How long after a write a compacted topic is compacted; `None` only on demand.
    pub compaction_delay: Option<Duration>,
    /// How long compaction keeps tombstones.
    pub tombstones_kept: Duration,
    /// The newest lines of the trace that are kept.
    pub trace_lines: usize,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            clock: None,
            latencies: Latencies::default(),
            probabilities: Vec::new(),
            // As the services configure Kafka.
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(500),
            rebalance_timeout: Duration::from_secs(30),
            transaction_sweep: Duration::from_secs(1),
            static_members: false,
            joins_hold_commits: false,
            loss_told: LossTold::AtOnce,
            compaction_delay: None,
            tombstones_kept: Duration::from_secs(24 * 3600),
            trace_lines: 20_000,
        }
    }
}

impl SimulationOptions {
    /// A log with the delays of a busy cluster, and about one operation in a hundred failing in
    /// each way.
    #[must_use]
    pub fn rough(seed: u64) -> Self {
        let fails = [
            Operation::Produce,
            Operation::Commit,
            Operation::Transaction,
        ]
        .into_iter()
        .flat_map(|operation| Fault::ALL.map(|fault| (operation, fault, 0.01)));
        let late = Latency::between(Duration::from_millis(1), Duration::from_millis(300));
        let loss_told = match seed % 3 {
            0 => LossTold::AtOnce,
            1 => LossTold::Late(late),
            _ => LossTold::AfterJoining(late),
        };
        Self {
            seed,
            latencies: Latencies::busy(),
            probabilities: fails.collect(),
            joins_hold_commits: seed.is_multiple_of(2),
            loss_told,
            compaction_delay: Some(Duration::from_secs(5)),
            ..Self::default()
        }
    }
}

/// When a member that was thrown out is told what it lost.
#[derive(Debug, Clone, Copy)]
pub enum LossTold {
    /// When its client first hears of it, and before that joins again.
    AtOnce,
    /// So much later; only then its client joins again. Until then, where its process was silent, its
    /// place in the group is none: the log refuses a plain commit, and asks a transaction for nothing.
    Late(Latency),
    /// So much later than its client has its next place in the group, or when the process asks for its
    /// place: the loss is on its way to the process, which is busy.
    AfterJoining(Latency),
}

/// How long things take. A request and its reply are drawn apart, so acknowledgements of different
/// partitions overtake each other; within one partition they never do.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// From the send to the append.
    pub produce: Latency,
    /// From the append to when it can be read and looked up; the acknowledgement is sent then.
    pub visible: Latency,
    /// The way back of an acknowledgement.
    pub acknowledge: Latency,
    /// From when there is something to read to when it is fetched: before or after its writer has
    /// the acknowledgement.
    pub fetch: Latency,
    /// Each way of a commit or of a question about committed positions.
    pub commit: Latency,
    /// Each way of a step of a transaction.
    pub transaction: Latency,
    /// From the end of a transaction to each of its markers.
    pub marker: Latency,
    /// From a change of a group to the moment all have joined again.
    pub join: Latency,
    /// From there to the assignment; commits are refused meanwhile.
    pub sync: Latency,
    /// Each way of a question about topics.
    pub lookup: Latency,
}

impl Latencies {
    /// The delays of a busy cluster, with tails.
    #[must_use]
    pub fn busy() -> Self {
        let ms =
            |from, to| Latency::between(Duration::from_millis(from), Duration::from_millis(to));
        Self {
            produce: ms(0, 4).with_tail(0.02, Duration::from_millis(60)),
            acknowledge: ms(0, 4).with_tail(0.02, Duration::from_millis(60)),
            visible: ms(0, 6),
            fetch: ms(0, 5).with_tail(0.01, Duration::from_millis(80)),
            commit: ms(1, 5).with_tail(0.02, Duration::from_millis(100)),
            transaction: ms(1, 5).with_tail(0.02, Duration::from_millis(100)),
            marker: ms(0, 20),
            join: ms(50, 600),
            sync: ms(1, 50),
            lookup: ms(0, 5),
        }
    }
}

/// A delay drawn evenly between two bounds, with a rare long tail.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    min: Duration,
    max: Duration,
    tail_chance: f64,
    tail: Duration,
}

impl Latency {
    /// Always `delay`.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self::between(delay, delay)
    }

    /// Evenly between the two, whichever is larger.
    #[must_use]
    pub fn between(one: Duration, other: Duration) -> Self {
        Self {
            min: one.min(other),
            max: one.max(other),
            ..Self::default()
        }
    }

    /// With `chance` up to `tail` is added.
    #[must_use]
    pub fn with_tail(self, chance: f64, tail: Duration) -> Self {
        Self {
            tail_chance: chance.clamp(0.0, 1.0),
            tail,
            ..self
        }
    }

    pub(super) fn draw(&self, entropy: &Entropy) -> Duration {
        let mut drawn = self.min;
        if self.max > self.min {
            drawn += (self.max - self.min).mul_f64(entropy.unit());
        }
        if self.tail_chance > 0.0 && entropy.unit() < self.tail_chance {
            drawn += self.tail.mul_f64(entropy.unit());
        }
        drawn
    }
}
