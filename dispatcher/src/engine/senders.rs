//! Owns where attempts run: handed over by the engine and handed back when they have ended, both in
//! batches.
//!
//! It decides nothing, and it must never outlive the engine: without it, attempts are abandoned. The
//! surprise: a sender on a thread has a runtime of its own, so that an endpoint's answer wakes the
//! thread that waits for it; a sender that is a task runs the same code beside the engine, which
//! repeats itself in a simulation and is faster where the cores are few. Few attempts wait there to
//! be started: a limit is charged when an attempt is handed over, and is exact only if the request
//! leaves at once.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use runtime::task::{TaskKind, Tasks};
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

/// So many attempts may wait to be started, all senders together: some milliseconds' worth, within
/// what a window is kept longer than it was stated.
const UNSTARTED_MAX: usize = 128;

/// Where senders run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Senders {
    /// One, as a task beside the engine.
    Task,
    /// So many, each on a thread of its own.
    Threads(NonZeroUsize),
}

/// The engine's side of its senders, whose attempts end with an `O`.
pub(super) struct Sending<O> {
    queues: Vec<Queue<O>>,
    ended: mpsc::UnboundedReceiver<Vec<O>>,
    in_flight: usize,
    unstarted: Arc<Unstarted>,
    tasks: Tasks,
}

/// What was handed over and has not been polled, and whether the engine waits until it has.
#[derive(Debug, Default)]
struct Unstarted {
    count: AtomicUsize,
    is_awaited: AtomicBool,
}

/// The way to one sender. What waits in it counts as in flight, which is bounded.
struct Queue<O> {
    attempts: mpsc::UnboundedSender<Vec<BoxFuture<'static, O>>>,
    batch: Vec<BoxFuture<'static, O>>,
}

struct Sender<O> {
    attempts: mpsc::UnboundedReceiver<Vec<BoxFuture<'static, O>>>,
    ended: mpsc::UnboundedSender<Vec<O>>,
    unstarted: Arc<Unstarted>,
}

// === impl Senders ===

impl Senders {
    /// So many threads; for 0 one for each core but the engine's and that of the log's client.
    pub(crate) fn of(threads: u16) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism()
                .map_or(0, |cores| cores.get().saturating_sub(2)),
            threads => usize::from(threads),
        };
        NonZeroUsize::new(threads).map_or(Self::Task, Self::Threads)
    }
}

// === impl Unstarted ===

impl Unstarted {
    fn is_full(&self) -> bool {
        self.count.load(Ordering::SeqCst) >= UNSTARTED_MAX
    }

    /// Whether there is room; where there is none, a sender will wake the engine. Looked at again
    /// once that is said: a sender may have caught up in between.
    fn has_room(&self) -> bool {
        if self.is_full() {
            self.is_awaited.store(true, Ordering::SeqCst);
        }
        !self.is_full()
    }

    /// Notes that so many were started; says whether the engine waits for it.
    fn started(&self, count: usize) -> bool {
        self.count.fetch_sub(count, Ordering::SeqCst);
        self.is_awaited.swap(false, Ordering::SeqCst)
    }
}

// === impl Sending ===

impl<O: Send + 'static> Sending<O> {
    /// Starts the senders.
    pub(super) fn start(senders: Senders) -> Self {
        let tasks = Tasks::new("dispatcher/senders");
        let (ended_tx, ended) = mpsc::unbounded_channel();
        let unstarted = Arc::<Unstarted>::default();
        let number = match senders {
            Senders::Task => 1,
            Senders::Threads(number) => number.get(),
        };
        let queues = (0..number).map(|_| {
            let (attempts_tx, attempts) = mpsc::unbounded_channel();
            let sender = Sender {
                attempts,
                ended: ended_tx.clone(),
                unstarted: Arc::clone(&unstarted),
            };
            match senders {
                Senders::Task => tasks.spawn(TaskKind::AttemptSender, sender.run()),
                Senders::Threads(_) => {
                    tasks.spawn_blocking(TaskKind::AttemptSender, || on_own_runtime(sender))
                }
            };
            Queue {
                attempts: attempts_tx,
                batch: Vec::new(),
            }
        });
        Self {
            queues: queues.collect(),
            ended,
            in_flight: 0,
            unstarted,
            tasks,
        }
    }

    /// Attempts that have been pushed and not come back.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another attempt would be started at once. Where it would not, [`next`](Self::next)
    /// returns, with nothing perhaps, when it would.
    pub(super) fn has_room(&self) -> bool {
        self.unstarted.has_room()
    }

    /// Takes an attempt, which starts with the next [`flush`](Self::flush). Those of one `key` share
    /// a sender, and so their connections.
    pub(super) fn push(&mut self, key: u128, attempt: BoxFuture<'static, O>) {
        self.in_flight += 1;
        let at = match self.queues.len() {
            0 | 1 => 0,
            number => usize::try_from(key % number as u128).unwrap_or(0),
        };
        if let Some(queue) = self.queues.get_mut(at) {
            self.unstarted.count.fetch_add(1, Ordering::SeqCst);
            queue.batch.push(attempt);
        }
    }

    /// Hands over what was pushed; says whether there was any.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        for queue in &mut self.queues {
            if !queue.batch.is_empty() {
                any = true;
                // That a sender has gone is found by `next`.
                queue.attempts.send(std::mem::take(&mut queue.batch)).ok();
            }
        }
        any
    }

    /// Waits for attempts that have ended; `None` where a sender has gone before the engine.
    ///
    /// cancel-safe: nothing is taken before it is returned.
    pub(super) async fn next(&mut self) -> Option<Vec<O>> {
        if self.queues.iter().any(|queue| queue.attempts.is_closed()) {
            return None;
        }
        let ended = self.ended.recv().await?;
        self.in_flight -= ended.len();
        Some(ended)
    }

    /// What else has ended already.
    pub(super) fn try_next(&mut self) -> Option<Vec<O>> {
        let ended = self.ended.try_recv().ok()?;
        self.in_flight -= ended.len();
        Some(ended)
    }

    /// Abandons what is in flight and waits until nothing of it is left.
    pub(super) async fn end(self) {
        drop(self.queues);
        self.tasks.finished().await;
    }
}

// === impl Sender ===

fn on_own_runtime<O: Send + 'static>(sender: Sender<O>) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(sender.run())
}

impl<O: Send> Sender<O> {
    /// Without a budget: one that ran out among many attempts would have the rest polled in vain.
    /// What is in flight is bounded, and so is what there is to do before the next wait.
    async fn run(self) -> io::Result<()> {
        unconstrained(self.work()).await
    }

    async fn work(mut self) -> io::Result<()> {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                attempts = self.attempts.recv() => {
                    // What an engine that has gone left behind is not started.
                    let Some(attempts) = attempts.filter(|_| !self.attempts.is_closed()) else {
                        return Ok(());
                    };
                    let count = attempts.len();
                    under_way.extend(attempts);
                    let ended = poll_all(&mut under_way, Vec::new());
                    let is_awaited = self.unstarted.started(count);
                    if (is_awaited || !ended.is_empty()) && self.ended.send(ended).is_err() {
                        return Ok(());
                    }
                }
                Some(first) = under_way.next() => {
                    let ended = poll_all(&mut under_way, vec![first]);
                    if self.ended.send(ended).is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Polls what can go on, and adds what has ended to `ended`.
fn poll_all<O>(
    under_way: &mut FuturesUnordered<BoxFuture<'static, O>>,
    mut ended: Vec<O>,
) -> Vec<O> {
    while let Some(Some(next)) = under_way.next().now_or_never() {
        ended.push(next);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    fn threads(number: usize) -> Senders {
        Senders::Threads(NonZeroUsize::new(number).unwrap())
    }

    /// What came back of `count` attempts.
    async fn collect(sending: &mut Sending<u32>, count: usize) -> Vec<u32> {
        let mut ended = Vec::new();
        while ended.len() < count {
            ended.extend(sending.next().await.unwrap());
            while let Some(more) = sending.try_next() {
                ended.extend(more);
            }
        }
        ended.sort_unstable();
        ended
    }

    #[tokio::test]
    async fn every_attempt_comes_back_once() {
        for senders in [Senders::Task, threads(1), threads(3)] {
            let mut sending = Sending::start(senders);
            for round in 0..20_u32 {
                for number in 0..50 {
                    let at = round * 50 + number;
                    sending.push(u128::from(number), async move { at }.boxed());
                }
                sending.flush();
            }
            assert_eq!(sending.in_flight(), 1_000);
            let expected: Vec<u32> = (0..1_000).collect();
            assert_eq!(collect(&mut sending, 1_000).await, expected, "{senders:?}");
            assert_eq!(sending.in_flight(), 0);
            sending.end().await;
        }
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_holds_up_no_other() {
        for senders in [Senders::Task, threads(1)] {
            let mut sending = Sending::start(senders);
            let (release, released) = oneshot::channel();
            sending.push(0, async { released.await.unwrap() }.boxed());
            for number in 1..=10 {
                sending.push(0, async move { number }.boxed());
                sending.flush();
                assert_eq!(collect(&mut sending, 1).await, [number]);
            }
            release.send(0).unwrap();
            assert_eq!(collect(&mut sending, 1).await, [0]);
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_attempts_when_the_engine_has_ended() {
        for senders in [Senders::Task, threads(2)] {
            let mut sending = Sending::<u32>::start(senders);
            let token = Arc::new(());
            for key in 0..10 {
                let held = Arc::clone(&token);
                let hanging = async move {
                    tokio::time::sleep(Duration::from_secs(3_600)).await;
                    drop(held);
                    0
                };
                sending.push(key, hanging.boxed());
                if key < 5 {
                    sending.flush();
                }
            }
            sending.end().await;
            assert_eq!(Arc::strong_count(&token), 1, "{senders:?}");
        }
    }

    #[tokio::test]
    async fn room_comes_back_when_what_was_taken_is_started() {
        for senders in [Senders::Task, threads(2)] {
            let mut sending = Sending::<u32>::start(senders);
            for round in 0..50 {
                let mut taken = 0;
                while sending.has_room() {
                    sending.push(taken, std::future::pending().boxed());
                    taken += 1;
                }
                assert!(taken > 0, "{senders:?}, round {round}");
                sending.flush();
                // Nothing ends: only the room itself can be what wakes.
                while !sending.has_room() {
                    assert_eq!(sending.next().await, Some(Vec::new()), "{senders:?}");
                }
            }
            assert!(sending.in_flight() >= 50, "{senders:?}");
            sending.end().await;
        }
    }

    #[tokio::test]
    async fn a_sender_that_has_gone_is_noticed() {
        for senders in [Senders::Task, threads(1)] {
            let mut sending = Sending::<u32>::start(senders);
            sending.push(0, async { panic!("a broken attempt") }.boxed());
            sending.flush();
            assert_eq!(sending.next().await, None, "{senders:?}");
        }
    }
}
