//! Owns what people are told of a sync: its plan and its status, in lines.
//!
//! Pure. What a newer service says beside that is left out; `--json` shows everything.

use serde::Deserialize;

use crate::output::{plain, thousands, time_of_day};

/// What a run sets out to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    add: u64,
    update: u64,
    remove: u64,
    keep: u64,
    refused: u64,
    repairs: u64,
    held: u64,
}

/// What a run would do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Plan {
    #[serde(flatten)]
    counts: Counts,
    removed_percent: f64,
    needs_approval: bool,
    requests: u64,
    seconds: u64,
    interval_seconds: Option<u64>,
    fits_schedule: Option<bool>,
    snapshot: Option<String>,
}

/// What has become of the members of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Outcomes {
    confirmed: u64,
    rejected: u64,
    retry: u64,
    unknown: u64,
    chunks: u64,
}

/// What the last run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Last {
    id: String,
    outcome: String,
    reason: Option<String>,
    counts: Outcomes,
    started_at: i64,
    ended_at: i64,
}

/// How a sync fares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) state: String,
    pub(super) run: Option<String>,
    planned: Counts,
    counts: Outcomes,
    left: u64,
    rate: f64,
    seconds_left: Option<u64>,
    in_flight: u64,
    stopping_until: Option<i64>,
    late: u64,
    last: Option<Last>,
    requests_handled: Vec<String>,
}

impl Counts {
    fn to_send(self) -> u64 {
        self.add
            .saturating_add(self.update)
            .saturating_add(self.remove)
    }
}

impl Plan {
    /// The plan, and what stands in its way.
    pub(super) fn lines(&self) -> Vec<String> {
        let counts = self.counts;
        let mut lines = Vec::new();
        if self.snapshot.is_none() {
            lines.push(
                "the cohort has no snapshot yet: `anabranch cohort upload` makes one".to_owned(),
            );
        }
        lines.push(row("to add", counts.add));
        lines.push(row("to update", counts.update));
        let removed = format!(
            "{}, {:.1} % of {} that the partner holds or may hold",
            row("to remove", counts.remove),
            self.removed_percent,
            thousands(counts.held)
        );
        lines.push(removed);
        if counts.repairs > 0 {
            let repairs = thousands(counts.repairs);
            lines.push(format!(
                "of these, {repairs} were sent before and refused for now, or not heard of"
            ));
        }
        lines.push(row("as they are", counts.keep));
        if counts.refused > 0 {
            let refused = row("not sent", counts.refused);
            lines.push(format!("{refused}, which the partner has refused for good"));
        }
        lines.push(row("requests", self.requests));
        let time = duration(self.seconds);
        lines.push(format!(
            "{:<14}at least {time} at the endpoint's limits",
            "time"
        ));
        lines.extend(self.warnings());
        lines
    }

    fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.needs_approval {
            lines.push(
                "it would wait for approval, for it removes more than the sync may: `anabranch \
                 sync run --approve-removals` lets it"
                    .to_owned(),
            );
        }
        lines
    }

    /// Why the schedule cannot be kept, if it cannot.
    pub(super) fn misfit(&self) -> Option<String> {
        if self.fits_schedule != Some(false) {
            return None;
        }
        Some(format!(
            "the schedule cannot be kept: {} requests take at least {} at the endpoint's limits, \
             and it leaves {} between two runs; choose a longer one, or ask the partner for higher \
             limits",
            thousands(self.requests),
            duration(self.seconds),
            duration(self.interval_seconds.unwrap_or(0)),
        ))
    }
}

impl Status {
    /// The last run that is over.
    pub(super) fn ended(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// Whether the owner has taken a request up.
    pub(super) fn has_handled(&self, request: &str) -> bool {
        self.requests_handled
            .iter()
            .any(|handled| handled == request)
    }

    /// How many members the run sends, and of how many the outcome is settled.
    pub(super) fn reached(&self) -> (u64, u64) {
        let all = self.planned.to_send();
        (all, all.saturating_sub(self.left))
    }

    /// The status in lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let state = self.state.replace('_', " ");
        let mut lines = match &self.run {
            None => vec![format!("{:<14}{state}", "state")],
            Some(run) => vec![format!("{:<14}{state}, run {}", "state", plain(run))],
        };
        if self.run.is_some() {
            let counts = self.counts;
            let planned = thousands(self.planned.to_send());
            lines.push(format!(
                "{} of {planned}",
                row("confirmed", counts.confirmed)
            ));
            lines.push(row("rejected", counts.rejected));
            lines.push(row("for now", counts.retry));
            lines.push(row("unknown", counts.unknown));
            lines.push(row("left", self.left));
            lines.push(format!("{:<14}{}", "rate", self.pace()));
            let chunks = row("chunks", counts.chunks);
            let ahead = thousands(self.in_flight);
            lines.push(format!("{chunks} heard of, {ahead} under way"));
        }
        if let Some(until) = self.stopping_until {
            let until = time_of_day(until);
            lines.push(format!(
                "it ends when what is under way was heard of, at the latest at {until}"
            ));
        }
        if self.late > 0 {
            let late = row("late", self.late);
            lines.push(format!(
                "{late} chunks of ended runs, whose members wait for them"
            ));
        }
        lines.extend(self.advice());
        if let Some(last) = &self.last {
            lines.push(format!("{:<14}{}", "last run", last.line()));
        }
        lines
    }

    /// The rate, and how long it takes still.
    pub(super) fn pace(&self) -> String {
        let rate = format!("{:.0} members/s", self.rate);
        match self.seconds_left {
            Some(seconds) => format!("{rate}, {} left", duration(seconds)),
            None => rate,
        }
    }

    /// Beside the bar.
    pub(super) fn aside(&self) -> String {
        let counts = self.counts;
        let mut aside = self.pace();
        for (count, what) in [
            (counts.rejected, "rejected"),
            (counts.retry, "refused for now"),
            (counts.unknown, "unknown"),
        ] {
            if count > 0 {
                aside = format!("{aside}, {} {what}", thousands(count));
            }
        }
        aside
    }

    /// What somebody has to do, if anything.
    pub(super) fn advice(&self) -> Option<String> {
        let advice = match self.state.as_str() {
            "waits_for_approval" => {
                "the run would remove more than the sync may: `anabranch sync plan` says how many, \
                 `anabranch sync run --approve-removals` lets it"
            }
            "paused" => "the sync is paused: `anabranch sync resume` lets it go on",
            "endpoint_disabled" => {
                "the endpoint is disabled: `anabranch endpoint show` says why, `anabranch endpoint \
                 resume` enables it"
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

impl Last {
    /// Whether it got to its end.
    pub(super) fn is_done(&self) -> bool {
        self.outcome == "done"
    }

    /// Members that are not confirmed.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.counts
            .rejected
            .saturating_add(self.counts.retry)
            .saturating_add(self.counts.unknown)
    }

    /// What it came to, in a line.
    pub(super) fn line(&self) -> String {
        let counts = self.counts;
        let seconds = self.ended_at.saturating_sub(self.started_at) / 1_000;
        let took = duration(u64::try_from(seconds).unwrap_or(0));
        let why = self
            .reason
            .as_deref()
            .map(|why| format!(" ({})", plain(why)));
        format!(
            "{}{} at {} after {took}: {} confirmed, {} rejected, {} refused for now, {} unknown",
            plain(&self.outcome),
            why.unwrap_or_default(),
            time_of_day(self.ended_at),
            thousands(counts.confirmed),
            thousands(counts.rejected),
            thousands(counts.retry),
            thousands(counts.unknown),
        )
    }
}

fn row(what: &str, count: u64) -> String {
    format!("{what:<14}{}", thousands(count))
}

/// Seconds, for people.
fn duration(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (7_500, "2 h 5 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_plan_says_what_stands_in_its_way() {
        let plan = json!({
            "add": 9_000, "update": 1, "remove": 30, "keep": 70, "refused": 0, "repairs": 0,
            "held": 100, "removed_percent": 30.0, "needs_approval": true, "requests": 182,
            "seconds": 61, "interval_seconds": 60, "fits_schedule": false, "snapshot": "snap_1",
            "later": true,
        });
        let plan: Plan = serde_json::from_value(plan).unwrap();
        let text = plan.lines().join("\n");
        for said in [
            "to add        9,000",
            "to remove     30, 30.0 % of 100",
            "requests      182",
            "at least 1 min 1 s",
            "--approve-removals",
        ] {
            assert!(text.contains(said), "no `{said}` in:\n{text}");
        }
        let misfit = plan.misfit().unwrap();
        for said in ["182 requests", "1 min 1 s", "1 min 0 s"] {
            assert!(misfit.contains(said), "no `{said}` in:\n{misfit}");
        }
        let none: Plan = serde_json::from_value(json!({})).unwrap();
        assert!(none.lines().join("\n").contains("cohort upload"));
    }

    #[test]
    fn a_status_says_how_far_it_is() {
        let status = json!({
            "state": "running", "run": "r-1", "planned": { "add": 900, "remove": 100 },
            "counts": { "confirmed": 400, "rejected": 7, "unknown": 3, "chunks": 9 },
            "left": 593, "rate": 99.7, "seconds_left": 6, "in_flight": 4,
            "requests_handled": ["a"], "stopping_until": 1_000, "late": 2,
            "last": {
                "id": "r-0", "outcome": "failed", "reason": "gone\u{1b}", "started_at": 0,
                "ended_at": 61_000, "counts": { "confirmed": 1 },
            },
        });
        let status: Status = serde_json::from_value(status).unwrap();
        assert_eq!(status.reached(), (1_000, 407));
        assert!(status.has_handled("a") && !status.has_handled("b"));
        let text = status.lines().join("\n");
        for said in [
            "state         running, run r-1",
            "confirmed     400 of 1,000",
            "rate          100 members/s, 6 s left",
            "9 heard of, 4 under way",
            "late          2 chunks",
            "at the latest at 00:00:01.000",
            "failed (gone\\u{1b}) at 00:01:01.000 after 1 min 1 s: 1 confirmed",
        ] {
            assert!(text.contains(said), "no `{said}` in:\n{text}");
        }
        assert_eq!(
            status.aside(),
            "100 members/s, 6 s left, 7 rejected, 3 unknown"
        );
        assert!(!status.ended().unwrap().is_done());
    }

    #[test]
    fn what_somebody_has_to_do_is_said() {
        let advice = |state: &str| {
            let status = json!({ "state": state });
            let status: Status = serde_json::from_value(status).unwrap();
            status.advice().unwrap_or_default()
        };
        assert!(advice("waits_for_approval").contains("--approve-removals"));
        assert!(advice("paused").contains("sync resume"));
        assert!(advice("endpoint_disabled").contains("endpoint resume"));
        assert_eq!(advice("running"), "");
    }
}
