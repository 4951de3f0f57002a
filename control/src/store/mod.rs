//! Owns the state of control: reading it, and changing it through the log by one writer.
//!
//! Nothing else writes the `control` topic. The surprise: a write's checks run inside the writer,
//! on the state that they will change, so two requests never decide on the same state; and the
//! state changes only by what is read back from the log, so an answer is never ahead of it.

mod state;
mod writer;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use runtime::problem::{Problem, ProblemType};
use runtime::view::Change;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::state::{Owned, State, Table};
pub use self::writer::Ended;
pub(crate) use self::writer::{Writer, WriterOptions};

/// Requests that may wait for the writer; beyond it, 503.
const QUEUE_MAX: usize = 256;
/// What a client that is refused for a passing reason is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A handle to the state. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    state: Arc<RwLock<State>>,
    jobs: mpsc::Sender<Job>,
    changed: watch::Sender<()>,
}

/// What a write is to do, decided on the state as it is.
#[derive(Debug)]
pub(crate) struct Plan<T> {
    /// Objects to write or delete, all or none; empty where nothing is to change.
    pub(crate) changes: Vec<Change>,
    /// What the caller gets once they are written.
    pub(crate) answer: T,
}

/// What was written, and where.
#[derive(Debug)]
pub(crate) struct Written<T> {
    /// The plan's answer.
    pub(crate) answer: T,
    /// Who has applied `control` up to this offset has applied the change.
    pub(crate) offset: i64,
}

/// A write on its way to the writer.
type Job = Box<dyn FnOnce(&State) -> Option<Prepared> + Send>;

/// A decided write.
struct Prepared {
    changes: Vec<Change>,
    settle: Box<dyn FnOnce(Result<i64, Problem>) + Send>,
}

impl Store {
    fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(QUEUE_MAX);
        (
            Self {
                state: Arc::default(),
                jobs,
                changed: watch::Sender::default(),
            },
            receiver,
        )
    }

    /// Looks at the state. `look` must be quick: it holds the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides on the state and writes what is decided; returns once it is in the log and applied
    /// here. Dropping the future does not stop the write.
    ///
    /// # Errors
    /// What `decide` refuses; 503 where it could not be written, or nobody knows whether it was.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&State) -> Result<Plan<T>, Problem> + Send + 'static,
    ) -> Result<Written<T>, Problem> {
        let (reply, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| match decide(state) {
            Ok(Plan { changes, answer }) => Some(Prepared {
                changes,
                settle: Box::new(move |outcome| {
                    // A client that has gone leaves nobody to tell.
                    reply
                        .send(outcome.map(|offset| Written { answer, offset }))
                        .ok();
                }),
            }),
            Err(problem) => {
                reply.send(Err(problem)).ok();
                None
            }
        });
        if self.jobs.try_send(job).is_err() {
            return Err(unavailable("changes are not taken now"));
        }
        answered.await.unwrap_or_else(|_| Err(unknown()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        done
    }

    /// Tells of each change of the state, several at once where they come fast.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// A change that was not made, and may be later.
pub(crate) fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemType::Unavailable)
        .detail(detail)
        .retry_after(RETRY_AFTER)
}

/// A change that may or may not have been made.
fn unknown() -> Problem {
    unavailable("it is not known whether the change was made: look, or repeat it")
}
