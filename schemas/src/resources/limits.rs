//! Owns how much an endpoint takes: its rate windows, its batches, how its retries are spread, and
//! when it is given up.
//!
//! It never counts anything: the dispatcher does.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Deserializer, Serialize};

/// The most windows of one endpoint.
pub const WINDOWS_MAX: usize = 4;
/// The default of [`Endpoint::disable_after_ms`](super::Endpoint::disable_after_ms): 5 days.
pub const DISABLE_AFTER_MS: u64 = 5 * 86_400_000;

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitUnit {
    /// Requests.
    #[default]
    Requests,
    /// The events in them.
    Items,
}

/// How a window limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// Evenly over the time.
    Spread {
        /// How many may come at once; `None` for one.
        burst: Option<NonZeroU32>,
    },
    /// No more than the count in any span of that length.
    Sliding,
    /// Counted from 0 at multiples of the length since the unix epoch, plus an offset.
    Fixed {
        /// The offset in milliseconds, less than the length.
        offset_ms: u64,
    },
}

/// So many requests or items in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct RateWindow {
    /// How many.
    pub count: NonZeroU32,
    /// In how many milliseconds.
    pub per_ms: NonZeroU64,
    /// Of what.
    pub unit: LimitUnit,
    /// How it limits.
    pub kind: WindowKind,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchFormat {
    /// The CloudEvents batch format (`application/cloudevents-batch+json`).
    #[default]
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// A JSON array of the events' data.
    Array,
}

/// Several events in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Batch {
    /// The most events of one request.
    pub max_items: NonZeroU32,
    /// The most bytes of one request's body.
    #[serde(default = "batch_bytes")]
    pub max_bytes: NonZeroU32,
    /// How long a request waits to become full, in milliseconds.
    #[serde(default)]
    pub max_wait_ms: u32,
    /// How it is written.
    #[serde(default)]
    pub format: BatchFormat,
}

/// How the waits between attempts are spread, so that what failed together does not come back
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryJitter {
    /// By a fifth to either side.
    #[default]
    Small,
    /// Anywhere from nothing to the whole wait.
    Full,
}

impl RetryJitter {
    /// Whether it is the default, which records leave out.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(super) fn is_small(&self) -> bool {
        *self == Self::Small
    }
}

/// Why an endpoint was disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledReason {
    /// It failed for longer than it may (WH-16).
    Failing,
    /// It answered 410 (WH-12).
    Gone,
}

/// That an endpoint was disabled by the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Why.
    pub reason: DisabledReason,
    /// When, unix milliseconds.
    pub at: i64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenKind {
    #[default]
    Spread,
    Sliding,
    Fixed,
}

/// A window as it is written; what its kind does not have is absent.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Written {
    #[serde(alias = "requests")]
    count: NonZeroU32,
    #[serde(default = "second")]
    per_ms: NonZeroU64,
    #[serde(default)]
    kind: WrittenKind,
    #[serde(default)]
    unit: LimitUnit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset_ms: Option<u64>,
}

/// How many seconds so many requests, with so many items in them, take at least at the tightest of
/// the windows.
#[must_use]
pub fn least_seconds(windows: &[RateWindow], (requests, items): (u64, u64)) -> u64 {
    let times = windows.iter().map(|window| {
        let counted = match window.unit {
            LimitUnit::Requests => requests,
            LimitUnit::Items => items,
        };
        let full = counted.saturating_sub(1) / u64::from(window.count.get());
        full.saturating_mul(window.per_ms.get()).div_ceil(1_000)
    });
    times.max().unwrap_or(0)
}

/// What most servers take, and what one request may lose at once.
fn batch_bytes() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(256 * 1_024 - 1)
}

fn second() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(999)
}

impl From<Written> for RateWindow {
    fn from(written: Written) -> Self {
        Self {
            count: written.count,
            per_ms: written.per_ms,
            unit: written.unit,
            kind: match written.kind {
                WrittenKind::Spread => WindowKind::Spread {
                    burst: written.burst,
                },
                WrittenKind::Sliding => WindowKind::Sliding,
                WrittenKind::Fixed => WindowKind::Fixed {
                    offset_ms: written.offset_ms.unwrap_or(0),
                },
            },
        }
    }
}

impl From<RateWindow> for Written {
    fn from(window: RateWindow) -> Self {
        let (kind, burst, offset_ms) = match window.kind {
            WindowKind::Spread { burst } => (WrittenKind::Spread, burst, None),
            WindowKind::Sliding => (WrittenKind::Sliding, None, None),
            WindowKind::Fixed { offset_ms } => (WrittenKind::Fixed, None, Some(offset_ms)),
        };
        Self {
            count: window.count,
            per_ms: window.per_ms,
            kind,
            unit: window.unit,
            burst,
            offset_ms,
        }
    }
}

impl RateWindow {
    /// `count` requests in `per_ms` milliseconds, evenly, one at once.
    pub fn spread(count: NonZeroU32, per_ms: NonZeroU64) -> Self {
        Self {
            count,
            per_ms,
            unit: LimitUnit::Requests,
            kind: WindowKind::Spread { burst: None },
        }
    }
}

/// Windows; records of the first services have one in its place, as `rate`.
pub(super) fn windows<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RateWindow>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Many(Vec<RateWindow>),
        One(RateWindow),
        None(()),
    }
    Ok(match Stored::deserialize(from)? {
        Stored::Many(windows) => windows,
        Stored::One(window) => vec![window],
        Stored::None(()) => Vec::new(),
    })
}
