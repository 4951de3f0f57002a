//! Owns figures: how they are computed from rounds, judged and printed.
//!
//! It must never print anything but figures on standard output. The surprise: a bar is on the ratio
//! where there is a limit, else on the value itself.

use std::fmt;
use std::io::{self, Write as _};

use serde::Serialize;

/// One measured number.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    bench: &'static str,
    figure: String,
    value: f64,
    unit: &'static str,
    /// What the same machine did in the same run without Anabranch.
    limit: Option<f64>,
    ratio: Option<f64>,
    bar: Option<f64>,
    holds: Option<bool>,
    #[serde(skip)]
    at_most: bool,
}

impl Figure {
    /// Measured against `limit`.
    pub(crate) fn of(mut self, limit: f64) -> Self {
        self.limit = Some(round(limit));
        self.ratio = (limit > 0.0).then(|| round(self.value / limit));
        self
    }

    /// Must reach `bar`.
    pub(crate) fn at_least(mut self, bar: f64) -> Self {
        self.bar = Some(bar);
        self.holds = Some(self.judged() >= bar);
        self
    }

    /// Must not exceed `bar`.
    pub(crate) fn at_most(mut self, bar: f64) -> Self {
        self.bar = Some(bar);
        self.holds = Some(self.judged() <= bar);
        self.at_most = true;
        self
    }

    fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44} {:>12} {}", self.figure, self.value, self.unit)?;
        if let (Some(limit), Some(ratio)) = (self.limit, self.ratio) {
            write!(f, ", {ratio} of {limit}")?;
        }
        if let (Some(bar), Some(holds)) = (self.bar, self.holds) {
            let sign = if self.at_most { "≤" } else { "≥" };
            let verdict = if holds { "holds" } else { "MISSED" };
            write!(f, " (bar {sign} {bar}: {verdict})")?;
        }
        Ok(())
    }
}

/// Where the figures of one benchmark go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    bench: &'static str,
    json: bool,
}

impl Report {
    pub(crate) fn new(bench: &'static str, json: bool) -> Self {
        Self { bench, json }
    }

    /// A figure with the median of `rounds`.
    pub(crate) fn figure(&self, name: &str, unit: &'static str, rounds: &[f64]) -> Figure {
        Figure {
            bench: self.bench,
            figure: name.to_owned(),
            value: round(median(rounds)),
            unit,
            limit: None,
            ratio: None,
            bar: None,
            holds: None,
            at_most: false,
        }
    }

    /// Prints a figure.
    ///
    /// # Errors
    /// Where standard output is gone.
    pub(crate) fn print(&self, figure: &Figure) -> anyhow::Result<()> {
        if self.json {
            line(serde_json::to_string(figure)?)
        } else {
            line(figure)
        }
    }
}

/// The middle of `values`; the mean of the two middle ones where their number is even, 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        at(half)
    } else {
        f64::midpoint(at(half.saturating_sub(1)), at(half))
    }
}

/// The smallest value that `permille` thousandths of the values do not exceed (nearest rank).
pub(crate) fn quantile(values: &[f64], permille: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Three digits behind the point are more than a benchmark knows.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A line on standard output.
///
/// # Errors
/// Where it is gone.
pub(crate) fn line(text: impl fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// A line for whoever watches.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    // Nobody watches: nothing is lost.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_rounds() {
        let check = |values: &[f64], expected: f64| {
            assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        };
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 5.0], 5.0);
        check(&[4.0, 1.0, 2.0, 9.0], 3.0);
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let check = |permille, expected: f64| {
            assert!((quantile(&hundred, permille) - expected).abs() < 1e-9);
        };
        check(0, 1.0);
        check(500, 50.0);
        check(990, 99.0);
        check(999, 100.0);
        check(1_000, 100.0);
        assert!(quantile(&[], 500).abs() < 1e-9);
    }

    #[test]
    fn a_bar_is_on_the_ratio_where_there_is_a_limit() {
        let figure = |value| Report::new("b", true).figure("f", "u", &[value]);
        let check = |figure: Figure, holds| assert_eq!(figure.holds, Some(holds), "{figure}");
        check(figure(30.0).of(100.0).at_least(0.25), true);
        check(figure(20.0).of(100.0).at_least(0.25), false);
        check(figure(4.0).at_most(4.0), true);
        check(figure(4.1).at_most(4.0), false);
        check(figure(99.0).of(100.0).at_most(1.0), true);
    }
}
