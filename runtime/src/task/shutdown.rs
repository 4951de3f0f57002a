//! Owns the order in which a service stops, and the signals that ask for it.
//!
//! It must never skip a step silently: what did not run or did not end in time is in the answer.
//! The surprise: a second signal ends the list at once, it does not hurry it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

type Action = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A list of named steps, run in order under one deadline.
pub struct Shutdown {
    deadline: Duration,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    within: Option<Duration>,
    action: Action,
}

/// How a shutdown ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every step ended.
    Clean,
    /// These steps were cut short or never started, because time had run out.
    Late(Vec<&'static str>),
    /// A second signal came during this step.
    Interrupted(&'static str),
}

impl Shutdown {
    /// An empty list that must be through within `deadline`.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            steps: Vec::new(),
        }
    }

    /// Adds a step that may use all the time left.
    #[must_use]
    pub fn step(
        self,
        name: &'static str,
        action: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.push(name, None, Box::pin(action))
    }

    /// Adds a step that is dropped after `within`, so that the steps after it get their turn.
    #[must_use]
    pub fn step_within(
        self,
        name: &'static str,
        within: Duration,
        action: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.push(name, Some(within), Box::pin(action))
    }

    fn push(mut self, name: &'static str, within: Option<Duration>, action: Action) -> Self {
        self.steps.push(Step {
            name,
            within,
            action,
        });
        self
    }

    /// Runs the steps. `interrupt` is the second signal; pass [`std::future::pending`] where there
    /// is none.
    pub async fn run(self, interrupt: impl Future<Output = ()>) -> Ended {
        let end = Instant::now() + self.deadline;
        let mut interrupt = std::pin::pin!(interrupt);
        let mut late = Vec::new();
        for step in self.steps {
            let now = Instant::now();
            let step_end = step.within.map_or(end, |within| end.min(now + within));
            tracing::info!(step = step.name, "shutdown step");
            tokio::select! {
                biased;
                () = &mut interrupt => return Ended::Interrupted(step.name),
                ended = tokio::time::timeout_at(step_end, step.action) => if ended.is_err() {
                    tracing::warn!(step = step.name, "shutdown step did not end in time");
                    late.push(step.name);
                },
            }
        }
        if late.is_empty() {
            Ended::Clean
        } else {
            Ended::Late(late)
        }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.steps.iter().map(|step| step.name).collect();
        f.debug_struct("Shutdown")
            .field("deadline", &self.deadline)
            .field("steps", &names)
            .finish()
    }
}

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. From here on the process does not end by itself on these signals.
    ///
    /// # Errors
    /// The system's, where a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal's name. Cancel-safe.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
