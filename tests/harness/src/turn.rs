//! Owns how many tests run at once: light ones a few together, heavy ones alone.

use tokio::sync::{Semaphore, SemaphorePermit};

const PLACES: u32 = 3;
static TURNS: Semaphore = Semaphore::const_new(PLACES as usize);

/// How much of the machine a test takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Others may run beside it.
    Light,
    /// It needs the machine: kills under load.
    Heavy,
    /// It shares the turn of another pipeline of its test.
    Shared,
}

pub(crate) async fn take(weight: Weight) -> SemaphorePermit<'static> {
    let places = match weight {
        Weight::Light => 1,
        Weight::Heavy => PLACES,
        Weight::Shared => 0,
    };
    TURNS
        .acquire_many(places)
        .await
        .expect("the semaphore is never closed")
}
