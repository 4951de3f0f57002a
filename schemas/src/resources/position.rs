//! Owns where a subscription starts: with what is routed from now on, behind all that is in the log,
//! or at a time.
//!
//! It reads no clock: whether a time lies in the future, the caller knows. The surprise: a pause
//! ends the replay of past events for good, and that is kept here too, so that every router that
//! ever owns a source partition knows it from the subscription alone.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const LATEST: &str = "latest";

/// Which events a subscription gets of those that are in the log when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// None: nothing below the log's end at the moment of its activation.
    Latest,
    /// Those written at this time (unix milliseconds) or later.
    At(i64),
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StartPosition {
    /// As it was asked for; never changes.
    pub from: StartFrom,
    /// Whether past events are not replayed any more: it was paused.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub ended: bool,
}

/// A text that is no start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be `latest` or a time (rfc 3339), e.g. `2026-11-22T08:00:00Z`")]
pub struct NotAStart;

// === impl StartFrom ===

impl FromStr for StartFrom {
    type Err = NotAStart;

    fn from_str(text: &str) -> Result<Self, NotAStart> {
        if text == LATEST {
            return Ok(Self::Latest);
        }
        let at: Timestamp = text.parse().map_err(|_| NotAStart)?;
        // No record is older than its clock.
        Ok(Self::At(at.as_millisecond().max(0)))
    }
}

impl fmt::Display for StartFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::At(at) => Timestamp::from_millisecond(*at)
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .fmt(f),
        }
    }
}

// === impl StartPosition ===

impl StartPosition {
    /// A start whose replay, where it has one, is still to be done.
    #[must_use]
    pub fn new(from: StartFrom) -> Self {
        Self { from, ended: false }
    }

    /// The time from which past events are replayed; `None` where none are.
    #[must_use]
    pub fn replays_from(&self) -> Option<i64> {
        match self.from {
            StartFrom::At(at) if !self.ended => Some(at),
            StartFrom::At(_) | StartFrom::Latest => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_what_is_none_is_refused() {
        let check = |text: &str, expected: Result<StartFrom, NotAStart>| {
            assert_eq!(text.parse(), expected, "{text}");
        };
        check("latest", Ok(StartFrom::Latest));
        check("2026-11-22T08:00:00Z", Ok(StartFrom::At(1_795_334_400_000)));
        check(
            "2026-11-22T09:00:00.250+01:00",
            Ok(StartFrom::At(1_795_334_400_250)),
        );
        check("1969-12-31T23:59:59Z", Ok(StartFrom::At(0)));
        for text in [
            "",
            "Latest",
            "earliest",
            "2026-11-22",
            "2026-11-22T08:00:00",
            "1795334400000",
        ] {
            check(text, Err(NotAStart));
        }
        for start in [
            StartFrom::Latest,
            StartFrom::At(0),
            StartFrom::At(1_795_334_400_250),
        ] {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
    }

    #[test]
    fn a_pause_ends_a_replay_and_nothing_else() {
        let start = StartPosition::new(StartFrom::At(5));
        assert_eq!(start.replays_from(), Some(5));
        let ended = StartPosition {
            ended: true,
            ..start
        };
        assert_eq!((ended.replays_from(), ended.from), (None, StartFrom::At(5)));
        assert_eq!(StartPosition::new(StartFrom::Latest).replays_from(), None);
    }
}
