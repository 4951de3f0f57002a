//! Owns when a sync runs by itself: a cron expression in a time zone.
//!
//! It reads no clock: the caller says what time it is. The surprise: where clocks go forward over a
//! time, the run is right behind the gap; where they go back, a run at a fixed time happens once,
//! and one by a step happens in both hours.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

/// The longest expression.
pub const CRON_CHARS_MAX: usize = 200;

/// Times between runs that are looked at for the shortest.
const GAPS: usize = 12;

/// When a sync runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// A name of the IANA time zone database.
    pub time_zone: String,
}

/// Why a schedule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    /// The expression is none, or never comes true.
    #[error("must be a cron expression of five fields, e.g. `0 * * * *`: {0}")]
    Cron(String),
    /// Nobody knows the time zone.
    #[error("must be a time zone's name, e.g. `Europe/Zurich`")]
    TimeZone,
}

impl NotASchedule {
    /// The member that is wrong.
    #[must_use]
    pub const fn member(&self) -> &'static str {
        match self {
            Self::Cron(_) => "cron",
            Self::TimeZone => "time_zone",
        }
    }
}

impl Schedule {
    /// A schedule, which comes true some time.
    ///
    /// # Errors
    /// When the expression is none, or nobody knows the time zone.
    pub fn new(cron: &str, time_zone: &str) -> Result<Self, NotASchedule> {
        let schedule = Self {
            cron: cron.trim().to_owned(),
            time_zone: time_zone.to_owned(),
        };
        let zone = schedule.zone()?;
        let pattern = schedule.pattern()?;
        let never = |error| NotASchedule::Cron(words(error));
        next(&pattern, &Timestamp::UNIX_EPOCH.to_zoned(zone)).map_err(never)?;
        Ok(schedule)
    }

    /// The first time behind `at` that it names, both in unix milliseconds; `None` where there is
    /// none any more.
    #[must_use]
    pub fn next_after(&self, at: i64) -> Option<i64> {
        let at = Timestamp::from_millisecond(at).ok()?;
        let zoned = at.to_zoned(self.zone().ok()?);
        let found = next(&self.pattern().ok()?, &zoned).ok()?;
        Some(found.timestamp().as_millisecond())
    }

    /// The shortest time between two of the next dozen that it names, in milliseconds.
    #[must_use]
    pub fn shortest_gap(&self, at: i64) -> Option<i64> {
        let times = std::iter::successors(self.next_after(at), |at| self.next_after(*at));
        let times: Vec<i64> = times.take(1 + GAPS).collect();
        let gaps = times.iter().zip(times.iter().skip(1));
        gaps.map(|(one, next)| next - one).min()
    }

    fn zone(&self) -> Result<TimeZone, NotASchedule> {
        TimeZone::get(&self.time_zone).map_err(|_| NotASchedule::TimeZone)
    }

    fn pattern(&self) -> Result<Cron, NotASchedule> {
        if self.cron.len() > CRON_CHARS_MAX {
            let long = format!("it has more than {CRON_CHARS_MAX} characters");
            return Err(NotASchedule::Cron(long));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(&self.cron);
        parsed.map_err(|error| NotASchedule::Cron(words(error)))
    }
}

fn next(cron: &Cron, from: &Zoned) -> Result<Zoned, CronError> {
    cron.find_next_occurrence(from, false)
}

/// The library's words in ours.
fn words(error: CronError) -> String {
    match error {
        CronError::EmptyPattern => "it is empty".to_owned(),
        CronError::InvalidDate | CronError::InvalidTime | CronError::TimeSearchLimitExceeded => {
            "it never comes true".to_owned()
        }
        CronError::InvalidPattern(why)
        | CronError::IllegalCharacters(why)
        | CronError::ComponentError(why) => {
            let mut rest = why.trim_end_matches('.').chars();
            let first = rest.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(rest).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn check(cron: &str, zone: &str, from: &str, expected: &[&str]) {
        let schedule = Schedule::new(cron, zone).unwrap();
        let mut at = ms(from);
        for expected in expected {
            at = schedule.next_after(at).unwrap();
            assert_eq!(at, ms(expected), "{cron} in {zone} after {from}");
        }
    }

    #[test]
    fn a_schedule_is_in_its_time_zone() {
        check(
            "0 * * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"],
        );
        check(
            "30 6 * * MON",
            "Europe/Zurich",
            "2026-07-01T00:00:00Z",
            &["2026-07-06T04:30:00Z", "2026-07-13T04:30:00Z"],
        );
        check(
            "@daily",
            "Asia/Tokyo",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T15:00:00Z"],
        );
    }

    #[test]
    fn the_shortest_gap_is_what_a_run_has() {
        for (cron, hours) in [("0 * * * *", 1), ("0 8,10 * * *", 2), ("@daily", 24)] {
            let schedule = Schedule::new(cron, "UTC").unwrap();
            let gap = schedule.shortest_gap(ms("2026-01-01T09:00:00Z"));
            assert_eq!(gap, Some(hours * 3_600_000), "{cron}");
        }
    }

    #[test]
    fn a_time_that_clocks_leave_out_is_right_behind_the_gap() {
        let days = [
            "2026-03-28T01:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:30:00Z",
        ];
        check("30 2 * * *", "Europe/Zurich", "2026-03-28T00:00:00Z", &days);
    }

    #[test]
    fn a_time_that_clocks_say_twice_is_once_and_a_step_is_in_both_hours() {
        let days = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        check("30 2 * * *", "Europe/Zurich", "2026-10-24T23:00:00Z", &days);
        let hours = [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z",
        ];
        check("0 * * * *", "Europe/Zurich", "2026-10-24T23:30:00Z", &hours);
    }

    #[test]
    fn what_is_no_schedule_names_its_member() {
        let long = format!("0 0 {} * *", "1,".repeat(CRON_CHARS_MAX));
        for cron in [
            "",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "0 0 30 2 *",
            "x * * * *",
            &long,
        ] {
            let error = Schedule::new(cron, "UTC").unwrap_err();
            assert_eq!(error.member(), "cron", "{cron}: {error}");
        }
        for zone in ["", "Mars/Olympus", "../UTC", "+02:00"] {
            let error = Schedule::new("0 * * * *", zone).unwrap_err();
            assert_eq!(error, NotASchedule::TimeZone, "{zone}");
        }
    }

    #[test]
    fn a_text_that_is_no_schedule_any_more_is_never_due() {
        let odd = Schedule {
            cron: "?".to_owned(),
            time_zone: "UTC".to_owned(),
        };
        assert_eq!(odd.next_after(0), None);
        let schedule = Schedule::new("* * * * *", "UTC").unwrap();
        assert_eq!(schedule.next_after(i64::MAX), None);
        assert_eq!(schedule.next_after(-1), Some(0));
    }
}
