//! Owns how long a service that starts waits for its log.
//!
//! It must never wait for what cannot come, nor for ever: whoever starts services is told in the end.
//! The surprise: a log that restarts answers before it knows its partitions' leaders, so that "no
//! such partition" at a start says no more than "not now".

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{Class, Error};

/// A broker that restarts, or a cluster that elects, is back by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// What `ask` returns once the log answers. For use at a start alone: a service that runs has ways
/// of its own to wait.
/// cancel-safe: as `ask` is.
///
/// # Errors
/// Where trying again cannot help, or has not helped for a minute.
pub async fn at_start<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if may_heal(&error) && Instant::now() < end => {
                let left_s = end.saturating_duration_since(Instant::now()).as_secs();
                warn!(%error, left_s, "log cannot be used yet, trying again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn may_heal(error: &Error) -> bool {
    match error.class() {
        Class::Retry | Class::Unknown => true,
        Class::Never | Class::Fenced => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn check(class: Class, heals_after: Duration) -> (Result<u32, Error>, u32) {
        let (begun, asked) = (Instant::now(), Cell::new(0));
        let answer = at_start(|| {
            asked.set(asked.get() + 1);
            async {
                if begun.elapsed() >= heals_after {
                    return Ok(7);
                }
                Err(Error::new(class, "topic/0", "has no leader"))
            }
        });
        (answer.await, asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_heal_is_waited_for_and_nothing_else() {
        let (healed, asked) = check(Class::Retry, Duration::from_secs(30)).await;
        assert_eq!((healed.unwrap(), asked), (7, 61));
        let (healed, _) = check(Class::Unknown, Duration::from_secs(30)).await;
        assert_eq!(healed.unwrap(), 7);
        let (refused, asked) = check(Class::Never, Duration::from_secs(30)).await;
        assert_eq!((refused.unwrap_err().class(), asked), (Class::Never, 1));
        let (fenced, asked) = check(Class::Fenced, Duration::from_secs(30)).await;
        assert_eq!((fenced.unwrap_err().class(), asked), (Class::Fenced, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end() {
        let begun = Instant::now();
        let (late, _) = check(Class::Retry, Duration::from_secs(600)).await;
        assert_eq!(late.unwrap_err().class(), Class::Retry);
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
