//! Owns waiting: for something that must come about, with a bound.
//!
//! It must never be used to prove that nothing happens by a mere sleep; [`never`] watches all along.

use std::time::Duration;

use tokio::time::Instant;

/// The bound of every wait that has none of its own: generous, because machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// What `look` returns once it is something.
///
/// # Panics
/// When `what` has not come about in time.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(STEP).await;
    }
}

/// Watches for `span`.
///
/// # Panics
/// When `look` finds what must not be.
pub async fn never(what: &str, span: Duration, mut look: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(!look().await, "must not be: {what}");
        tokio::time::sleep(STEP).await;
    }
}
