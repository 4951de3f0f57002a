//! Owns how it is noticed that a thread is stuck inside librdkafka: the thread beats before each
//! call, and who waits for its answer gives it up when no beat comes any more.
//!
//! It must never give up a thread that goes on, however long all of its work takes. The surprise: a
//! call that is told a timeout may still never return. Up to librdkafka 2.14 offsets are sent to a
//! transaction for ever where the group's coordinator has left the cluster (its issues 5456 and
//! 5511), and nothing ends that call from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

/// The end of the thread that works.
#[derive(Debug)]
pub(super) struct Pulse {
    beats: watch::Sender<()>,
    given_up: Arc<AtomicBool>,
}

/// The end of who waits for it.
#[derive(Debug)]
pub(super) struct Watch {
    beats: watch::Receiver<()>,
    given_up: Arc<AtomicBool>,
    patience: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silence {
    /// The thread has ended.
    #[error("its thread has ended")]
    Ended,
    /// The thread is stuck, and is given up.
    #[error("a call to librdkafka does not return, its thread is given up")]
    Stuck,
}

/// Both ends; a thread without a beat for longer than `patience` is stuck.
pub(super) fn pair(patience: Duration) -> (Pulse, Watch) {
    let (sender, beats) = watch::channel(());
    let given_up = Arc::new(AtomicBool::new(false));
    let pulse = Pulse {
        beats: sender,
        given_up: Arc::clone(&given_up),
    };
    let watch = Watch {
        beats,
        given_up,
        patience,
    };
    (pulse, watch)
}

impl Pulse {
    /// Says that the thread goes on: a call begins, or has returned.
    pub(super) fn beat(&self) {
        self.beats.send_replace(());
    }

    /// Whether nobody waits any more: somebody else does the work by now.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

impl Watch {
    /// Waits for `answer` while the thread goes on.
    /// cancel-safe: the answer is lost with the future, the thread goes on.
    ///
    /// # Errors
    /// Where the thread has ended without one, or is stuck and hence given up.
    pub(super) async fn wait<T>(&mut self, mut answer: oneshot::Receiver<T>) -> Result<T, Silence> {
        loop {
            let beat = tokio::time::timeout(self.patience, self.beats.changed());
            tokio::select! {
                biased;
                answered = &mut answer => return answered.map_err(|_| Silence::Ended),
                beat = beat => match beat {
                    Ok(Ok(())) => {}
                    // The thread has ended: what it answered, if anything, is there.
                    Ok(Err(_)) => return answer.await.map_err(|_| Silence::Ended),
                    Err(_elapsed) => {
                        self.given_up.store(true, Ordering::Release);
                        return Err(Silence::Stuck);
                    }
                }
            }
        }
    }

    /// Whether the thread was given up.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn work_is_waited_for_as_long_as_it_goes_on() {
        let (pulse, mut watch) = pair(PATIENCE);
        let (sender, answer) = oneshot::channel();
        let work = async {
            for _ in 0..20 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                pulse.beat();
            }
            sender.send(7).unwrap();
        };
        let (answer, ()) = tokio::join!(watch.wait(answer), work);
        assert_eq!(answer, Ok(7));
        assert!(!pulse.is_given_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_is_stuck_is_given_up_and_told_so() {
        let (pulse, mut watch) = pair(PATIENCE);
        pulse.beat();
        let (_sender, answer) = oneshot::channel::<()>();
        let begun = tokio::time::Instant::now();
        assert_eq!(watch.wait(answer).await, Err(Silence::Stuck));
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(pulse.is_given_up() && watch.has_given_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_ends_is_not_waited_for() {
        let (pulse, mut watch) = pair(PATIENCE);
        let (sender, answer) = oneshot::channel::<()>();
        drop((pulse, sender));
        assert_eq!(watch.wait(answer).await, Err(Silence::Ended));
        let (pulse, mut watch) = pair(PATIENCE);
        let (sender, answer) = oneshot::channel();
        sender.send(7).unwrap();
        drop(pulse);
        assert_eq!(watch.wait(answer).await, Ok(7));
        assert!(!watch.has_given_up());
    }
}
