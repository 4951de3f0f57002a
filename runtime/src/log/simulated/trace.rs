//! Owns what a simulation remembers of itself: one line for each thing that happened.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What happened in a simulation, with its seed. Prints itself for a failed test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The seed that repeats it.
    pub seed: u64,
    /// Lines forgotten at the front.
    pub forgotten: u64,
    /// When (since the simulation began) and what.
    pub lines: VecDeque<(Duration, String)>,
    limit: usize,
}

impl Trace {
    pub(super) fn new(seed: u64, limit: usize) -> Self {
        Self {
            seed,
            forgotten: 0,
            lines: VecDeque::new(),
            limit: limit.max(1),
        }
    }

    pub(super) fn push(&mut self, at: Duration, what: String) {
        if self.lines.len() == self.limit {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        self.lines.push_back((at, what));
    }

    /// Whether some line contains `words`.
    #[must_use]
    pub fn mentions(&self, words: &str) -> bool {
        self.lines.iter().any(|(_, line)| line.contains(words))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "simulated log, seed {}, {} lines forgotten",
            self.seed, self.forgotten
        )?;
        for (at, what) in &self.lines {
            writeln!(f, "{:>12.6}s {what}", at.as_secs_f64())?;
        }
        write!(f, "seed {} repeats this", self.seed)
    }
}
