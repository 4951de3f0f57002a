//! Owns the threads that wait for librdkafka: how they start, sleep and are woken.
//!
//! Nothing here may block a tokio worker; that is what these threads are for. The surprise: a
//! thread sleeps in `park`, and everything it waits for (commands, channel room, librdkafka's
//! queue) unparks it, so that none is polled for.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{Builder, Thread};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::log::{Class, Error};

/// A thread wakes by itself after this long, to serve librdkafka's own events.
pub(super) const DOZE: Duration = Duration::from_millis(100);

/// Starts a thread that lives until `work` returns.
pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Thread, Error> {
    Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|handle| handle.thread().clone())
        .map_err(|error| Error::new(Class::Retry, format!("thread {name}"), error))
}

/// Runs `work` on a thread of its own and waits for its result. cancel-safe: `work` runs on.
pub(super) async fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    start(name, move || {
        // Nobody waits any more: the result is of no use.
        drop(sender.send(work()));
    })?;
    receiver.await.map_err(|_| {
        Error::new(
            Class::Unknown,
            format!("thread {name}"),
            "ended without a result",
        )
    })
}

/// A waker that unparks the current thread.
pub(super) fn waker() -> Waker {
    Arc::new(Unpark(std::thread::current())).into()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
