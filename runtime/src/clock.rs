//! Owns what a service takes from the world without asking: the time and randomness. Both are
//! passed in, so that a test can fix them.
//!
//! It must never be bypassed: the system's clock is read here and nowhere else. The surprise: a
//! simulated clock is *derived* from tokio's, so pausing and advancing tokio's time moves the wall
//! clock with it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::Instant;

/// Milliseconds since 1970-01-01 UTC, as records carry them.
pub type UnixMillis = i64;

/// Wall time and monotonic time. Cloning is a copy.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { start: UnixMillis, origin: Instant },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self {
            source: Source::System,
        }
    }

    /// A clock that says `start` now and advances with tokio's time, paused or not. Call it inside
    /// the tokio runtime whose time it follows.
    #[must_use]
    pub fn simulated(start: UnixMillis) -> Self {
        Self {
            source: Source::Simulated {
                start,
                origin: Instant::now(),
            },
        }
    }

    /// Wall time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match &self.source {
            Source::System => system_now(),
            Source::Simulated { start, origin } => start.saturating_add(millis(origin.elapsed())),
        }
    }

    /// Monotonic time, for everything measured in this process.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// The monotonic moment at which the wall clock will say `wall`; a moment gone by is now.
    #[must_use]
    pub fn instant_at(&self, wall: UnixMillis) -> Instant {
        let wait = u64::try_from(wall.saturating_sub(self.now())).unwrap_or(0);
        let now = Instant::now();
        now.checked_add(Duration::from_millis(wait)).unwrap_or(now)
    }

    /// What the wall clock says at the monotonic moment `at`, future or past.
    #[must_use]
    pub fn wall_at(&self, at: Instant) -> UnixMillis {
        let now = Instant::now();
        match at.checked_duration_since(now) {
            Some(ahead) => self.now().saturating_add(millis(ahead)),
            None => self.now().saturating_sub(millis(now.duration_since(at))),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's wall clock"
)]
fn system_now() -> UnixMillis {
    match std::time::SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        // A machine set to before 1970: negative, as the type allows.
        Err(before) => millis(before.duration()).saturating_neg(),
    }
}

/// A duration as whole milliseconds, saturating.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Randomness. The system's is cryptographic; the seeded one is for tests and simulations and
/// repeats itself from the same seed.
#[derive(Clone)]
pub struct Entropy {
    source: Randomness,
}

#[derive(Clone)]
enum Randomness {
    System,
    Seeded { seed: u64, rng: Arc<Mutex<StdRng>> },
}

impl Entropy {
    /// The system's generator: per thread, seeded by the kernel, no lock.
    #[must_use]
    pub fn system() -> Self {
        Self {
            source: Randomness::System,
        }
    }

    /// A generator that repeats itself; clones share its state. Never for secrets.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self {
            source: Randomness::Seeded { seed, rng },
        }
    }

    /// A stream of its own for one part. Of a seeded generator it depends on seed and label alone,
    /// never on what was drawn before: so one part's draws do not shift another's.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        match &self.source {
            Randomness::System => Self::system(),
            Randomness::Seeded { seed, .. } => Self::seeded(mix(*seed, label)),
        }
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.source {
            Randomness::System => rand::rng().fill_bytes(bytes),
            Randomness::Seeded { rng, .. } => {
                rng.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .fill_bytes(bytes);
            }
        }
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Evenly distributed in `0.0..1.0`.
    #[must_use]
    pub fn unit(&self) -> f64 {
        match &self.source {
            Randomness::System => rand::rng().random(),
            Randomness::Seeded { rng, .. } => {
                rng.lock().unwrap_or_else(PoisonError::into_inner).random()
            }
        }
    }

    /// The 128 bits of a version 7 UUID (RFC 9562 §5.7): wall time in milliseconds, then
    /// randomness, so that ids made later sort later.
    #[must_use]
    pub fn uuid_v7(&self, clock: &Clock) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        let time = clock.now().max(0).to_be_bytes();
        for (byte, part) in bytes.iter_mut().zip(time.iter().skip(2)) {
            *byte = *part;
        }
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Randomness::System => f.write_str("Entropy(system)"),
            Randomness::Seeded { seed, .. } => write!(f, "Entropy(seed {seed})"),
        }
    }
}

/// FNV-1a over the label, started from the seed and finished as splitmix64 does.
fn mix(seed: u64, label: &str) -> u64 {
    let hash = label
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_with_paused_time() {
        let clock = Clock::simulated(1_000);
        assert_eq!(clock.now(), 1_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), 1_250);
        let later = clock.instant_at(3_250);
        assert_eq!(later - clock.instant(), Duration::from_secs(2));
        assert_eq!(clock.wall_at(later), 3_250);
        assert_eq!(clock.instant_at(0), clock.instant());
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(Clock::system().now() > 1_577_836_800_000);
    }

    #[test]
    fn seeded_randomness_repeats_and_forks_are_independent_of_draws() {
        let (one, two) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(one.u64(), two.u64());
        let before = one.fork("router").u64();
        one.fill(&mut [0; 3]);
        assert_eq!(one.fork("router").u64(), before);
        assert_ne!(one.fork("ingest").u64(), before);
        assert!((0.0..1.0).contains(&one.unit()));
        assert_ne!(Entropy::system().u64(), Entropy::system().u64());
    }

    #[tokio::test(start_paused = true)]
    async fn uuid_v7_bits_carry_time_version_and_variant() {
        let clock = Clock::simulated(0x0123_4567_89ab);
        let bits = Entropy::seeded(1).uuid_v7(&clock);
        assert_eq!(bits[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab]);
        assert_eq!(bits[6] >> 4, 7);
        assert_eq!(bits[8] >> 6, 0b10);
    }
}
