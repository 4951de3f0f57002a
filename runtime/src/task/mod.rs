//! Owns the tasks of a service: their names, what their end means, and the order in which they
//! stop.
//!
//! It must never end the process (`main` does), and it keeps no process-wide state: a test runs
//! several services side by side. The surprise: *asking* for a stop and *cancelling* are two
//! things. A signal or a failed task only asks; the service then cancels group after group, in the
//! order of its [`Shutdown`] list.

mod kind;
mod shutdown;

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use kind::{OnCancel, OnError, TaskKind};
pub use shutdown::{Ended, Shutdown, Signals};

/// What a task may end with.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a stop was asked for.
#[derive(Clone, Debug)]
pub enum Cause {
    /// Somebody asked, in these words: a signal's name, a test, a command that is done.
    Asked(Arc<str>),
    /// A task whose end the process cannot do without failed.
    Failed {
        /// Which kind of task.
        task: TaskKind,
        /// Its error with the chain of causes, or what it panicked with.
        error: Arc<str>,
    },
}

impl Cause {
    /// Whether the process ends well.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(words) => f.write_str(words),
            Self::Failed { task, error } => write!(f, "{task}: {error}"),
        }
    }
}

/// A group of tasks with one cancellation token. Clones are handles to the same group.
#[derive(Clone, Debug)]
pub struct Tasks {
    group: Arc<Group>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct Group {
    name: String,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, TaskKind>>,
    parent: Option<Arc<Group>>,
}

/// Shared by a service's groups: that it should stop, and why. The first cause stays.
#[derive(Debug, Default)]
struct Stop {
    token: CancellationToken,
    cause: OnceLock<Cause>,
    spawned: AtomicU64,
}

impl Tasks {
    /// The root group of a service.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let group = Group::new(name.into(), CancellationToken::new(), None);
        Self {
            group: Arc::new(group),
            stop: Arc::default(),
        }
    }

    /// A group within this one: cancelled with it, or alone and earlier; its tasks count as this
    /// one's too. A failure in it asks the whole service to stop.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let name = format!("{}/{name}", self.group.name);
        let token = self.group.token.child_token();
        let group = Group::new(name, token, Some(Arc::clone(&self.group)));
        Self {
            group: Arc::new(group),
            stop: Arc::clone(&self.stop),
        }
    }

    /// The group's name, as logs show it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// Cancelled when the tasks of this group must end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.group.token
    }

    /// How many tasks of this group and its children have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.group.running().len()
    }

    /// Spawns a task. Its error or panic is logged under its kind, and asks for a stop where the
    /// kind says so. A kind that aborts is dropped when the group is cancelled.
    pub fn spawn<F, E>(&self, kind: TaskKind, future: F) -> AbortHandle
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let tasks = self.clone();
        let token = self.group.token.clone();
        let entry = Entry::new(self, kind);
        let task = async move {
            let _entry = entry;
            let guarded = AssertUnwindSafe(future).catch_unwind();
            let ended = match kind.on_cancel() {
                OnCancel::Finish => guarded.await,
                OnCancel::Abort => tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    ended = guarded => ended,
                },
            };
            tasks.judge(kind, ended);
        };
        self.group.tracker.spawn(task).abort_handle()
    }

    /// Runs a closure that blocks on a thread made for it. It must watch the group's token where
    /// it may run for long: a thread cannot be aborted.
    pub fn spawn_blocking<F, E>(&self, kind: TaskKind, work: F) -> AbortHandle
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let tasks = self.clone();
        let entry = Entry::new(self, kind);
        let work = move || {
            let _entry = entry;
            tasks.judge(kind, std::panic::catch_unwind(AssertUnwindSafe(work)));
        };
        self.group.tracker.spawn_blocking(work).abort_handle()
    }

    fn judge<E: Into<BoxError>>(
        &self,
        kind: TaskKind,
        ended: Result<Result<(), E>, Box<dyn Any + Send>>,
    ) {
        let error: Arc<str> = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&*error.into()).into(),
            Err(panic) => format!("panicked: {}", panic_text(&*panic)).into(),
        };
        match kind.on_error() {
            OnError::Log => {
                tracing::warn!(group = self.name(), task = kind.name(), %error, "task failed");
            }
            OnError::StopProcess => {
                tracing::error!(group = self.name(), task = kind.name(), %error, "task failed, stopping");
                self.stop_because(Cause::Failed { task: kind, error });
            }
        }
    }

    /// Asks the whole service to stop. The first cause is kept.
    pub fn stop(&self, words: &str) {
        self.stop_because(Cause::Asked(words.into()));
    }

    fn stop_because(&self, cause: Cause) {
        if self.stop.cause.set(cause).is_ok() {
            self.stop.token.cancel();
        }
    }

    /// Waits until a stop is asked for, and says why. Cancel-safe.
    pub async fn stopping(&self) -> Cause {
        self.stop.token.cancelled().await;
        self.cause().unwrap_or_else(|| Cause::Asked("stop".into()))
    }

    /// Why a stop was asked for, once it was.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.stop.cause.get().cloned()
    }

    /// Cancels this group and its children.
    pub fn cancel(&self) {
        self.group.token.cancel();
    }

    /// Waits until every task of this group and its children has ended. Cancel-safe.
    pub async fn finished(&self) {
        self.group.tracker.close();
        self.group.tracker.wait().await;
    }

    /// Cancels this group and waits, at most `within`; then returns the names of what still runs.
    pub async fn end(&self, within: Duration) -> Vec<&'static str> {
        self.cancel();
        let deadline = Instant::now() + within;
        if tokio::time::timeout_at(deadline, self.finished())
            .await
            .is_ok()
        {
            return Vec::new();
        }
        self.group
            .running()
            .values()
            .map(|kind| kind.name())
            .collect()
    }
}

impl Group {
    fn new(name: String, token: CancellationToken, parent: Option<Arc<Self>>) -> Self {
        Self {
            name,
            token,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            parent,
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, TaskKind>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This group and those it is within.
    fn line(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |group| group.parent.as_ref())
    }
}

/// A running task's place in the lists of its group and the groups around it; it leaves them when
/// the task ends or is dropped.
#[derive(Debug)]
struct Entry {
    group: Arc<Group>,
    id: u64,
    _tokens: Vec<TaskTrackerToken>,
}

impl Entry {
    fn new(tasks: &Tasks, kind: TaskKind) -> Self {
        let id = tasks.stop.spawned.fetch_add(1, Ordering::Relaxed);
        let group = Arc::clone(&tasks.group);
        let listed = group.line().map(|group| {
            group.running().insert(id, kind);
            group.tracker.token()
        });
        let tokens = listed.collect();
        Self {
            group,
            id,
            _tokens: tokens,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for group in self.group.line() {
            group.running().remove(&self.id);
        }
    }
}

/// An error and its causes in one line: `a: b: c`. A cause that its parent already quotes at its
/// end is not repeated.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        return text;
    }
    panic
        .downcast_ref::<String>()
        .map_or("no text", String::as_str)
}

#[cfg(test)]
mod tests;
