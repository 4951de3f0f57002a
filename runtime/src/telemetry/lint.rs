//! Owns the rules for metric names (PR-1 to PR-3) as a check over a registry. Each service's tests
//! run it over theirs.

use prometheus::proto::{MetricFamily, MetricType};

use super::Metrics;

/// Units that have a base unit of their own, which a name must use instead (PR-1).
const NOT_BASE_UNITS: &[&str] = &[
    "ms",
    "us",
    "ns",
    "millis",
    "milliseconds",
    "microseconds",
    "minutes",
    "hours",
    "days",
    "kb",
    "mb",
    "kib",
    "mib",
    "kilobytes",
    "megabytes",
    "percent",
];

/// Above this many series, a label is not a closed set (PR-2).
const SERIES_MAX: usize = 100;

/// What is wrong with the metrics of a registry; empty when nothing is.
#[must_use]
pub fn faults(metrics: &Metrics) -> Vec<String> {
    let families = metrics.registry().gather();
    families.iter().flat_map(family_faults).collect()
}

fn family_faults(family: &MetricFamily) -> Vec<String> {
    let name = family.name();
    let kind = family.get_field_type();
    let words: Vec<&str> = name.split('_').collect();
    let help = family.help();
    let is_counter = kind == MetricType::COUNTER;
    let labels: Vec<&str> = family
        .get_metric()
        .first()
        .map(|metric| {
            metric
                .get_label()
                .iter()
                .map(|label| label.name())
                .collect()
        })
        .unwrap_or_default();
    // `process_` is what every Prometheus client calls the process's own metrics.
    let prefixed = name.starts_with("anabranch_") || name.starts_with("process_");
    let rules = [
        (!prefixed, "lacks the prefix `anabranch_`".to_owned()),
        (
            is_counter != name.ends_with("_total"),
            "`_total` is for counters, and for all".to_owned(),
        ),
        (
            words.iter().any(|word| NOT_BASE_UNITS.contains(word)),
            "names a unit that is not a base unit (seconds, bytes, ratio)".to_owned(),
        ),
        (
            kind == MetricType::HISTOGRAM && !has_unit(name),
            "a histogram's name ends in its unit, `_seconds` or `_bytes`, or in what it counts"
                .to_owned(),
        ),
        (help.trim().is_empty(), "has no help".to_owned()),
        (help.ends_with('.'), "help ends with a full stop".to_owned()),
        (
            family.get_metric().len() > SERIES_MAX && !labels.contains(&"partition"),
            format!("has more than {SERIES_MAX} series"),
        ),
        (
            labels.iter().any(|label| words.contains(label)),
            "repeats a label's name in its own".to_owned(),
        ),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    broken
        .map(|(_, words)| format!("{name}: {words}"))
        .collect()
}

/// Histograms measure seconds, bytes, or how many of something (a plural).
fn has_unit(name: &str) -> bool {
    name.ends_with('s')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(register: impl Fn(&Metrics), fault: Option<&str>) {
        let metrics = Metrics::new();
        register(&metrics);
        let faults = faults(&metrics);
        match fault {
            None => assert!(faults.is_empty(), "{faults:?}"),
            Some(part) => assert!(faults.len() == 1 && faults[0].contains(part), "{faults:?}"),
        }
    }

    crate::label! {
        /// For these tests.
        enum Topic("topic") { Events => "events" }
    }

    #[test]
    fn names_follow_the_rules() {
        check(
            |m| drop(m.counter("anabranch_events_total", "Events")),
            None,
        );
        check(|m| drop(m.gauge("anabranch_memory_bytes", "Memory")), None);
        check(
            |m| drop(m.histogram("anabranch_wait_seconds", "Wait", &[1.0])),
            None,
        );
        check(
            |m| drop(m.counter("events_total", "Events")),
            Some("prefix"),
        );
        check(
            |m| drop(m.counter("anabranch_events", "Events")),
            Some("`_total`"),
        );
        check(
            |m| drop(m.gauge("anabranch_events_total", "Events")),
            Some("`_total`"),
        );
        check(
            |m| drop(m.gauge("anabranch_wait_ms", "Wait")),
            Some("base unit"),
        );
        check(
            |m| drop(m.histogram("anabranch_wait", "Wait", &[1.0])),
            Some("unit"),
        );
        check(
            |m| drop(m.gauge("anabranch_lag", "Lag.")),
            Some("full stop"),
        );
        check(
            |m| drop(m.counters::<Topic>("anabranch_topic_reads_total", "Reads")),
            Some("label's name"),
        );
    }
}
