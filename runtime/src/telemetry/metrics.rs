//! Owns the registry of metrics and the families whose labels are closed enums.
//!
//! Every series of a family is exported at 0 from the start (PR-3), so that a rate over it has a
//! first value. The surprise: asking twice for one name gives the same metric, since several
//! services of one process share a registry.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets in seconds for our own latencies: fine below 50 ms, where the targets are.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0,
];

/// Buckets in seconds that OpenTelemetry's conventions give for requests (OT-5).
pub const SEMCONV_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Buckets for how many things go together.
pub const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0,
];

/// A closed set of label values. Made by [`label!`](crate::label) for an enum; a pair of labels is
/// one too.
pub trait Label: Copy + 'static {
    /// The label names.
    fn names() -> Vec<&'static str>;
    /// Every value, in the order of [`Label::index`].
    fn all() -> Vec<Self>;
    /// How many values there are.
    fn count() -> usize;
    /// The value's place among all.
    fn index(self) -> usize;
    /// The texts, one a name.
    fn texts(self) -> Vec<&'static str>;
}

impl<A: Label, B: Label> Label for (A, B) {
    fn names() -> Vec<&'static str> {
        [A::names(), B::names()].concat()
    }

    fn all() -> Vec<Self> {
        A::all()
            .into_iter()
            .flat_map(|a| B::all().into_iter().map(move |b| (a, b)))
            .collect()
    }

    fn count() -> usize {
        A::count() * B::count()
    }

    fn index(self) -> usize {
        self.0.index() * B::count() + self.1.index()
    }

    fn texts(self) -> Vec<&'static str> {
        [self.0.texts(), self.1.texts()].concat()
    }
}

/// Defines an enum whose values are those of one metric label.
///
/// ```
/// runtime::label! {
///     /// What an attempt means.
///     pub enum Verdict("verdict") {
///         /// Delivered.
///         Delivered => "delivered",
///         /// Try again.
///         Retry => "retry",
///     }
/// }
/// ```
#[macro_export]
macro_rules! label {
    ($(#[$meta:meta])* $vis:vis enum $name:ident($label:literal) {
        $($(#[$value_meta:meta])* $value:ident => $text:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$value_meta])* $value,)+
        }

        impl $name {
            /// Every value.
            $vis const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The text, as label values and records show it.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl $crate::telemetry::Label for $name {
            fn names() -> ::std::vec::Vec<&'static str> {
                ::std::vec![$label]
            }

            fn all() -> ::std::vec::Vec<Self> {
                Self::ALL.to_vec()
            }

            fn count() -> usize {
                Self::ALL.len()
            }

            fn index(self) -> usize {
                self as usize
            }

            fn texts(self) -> ::std::vec::Vec<&'static str> {
                ::std::vec![self.as_str()]
            }
        }
    };
}

/// What a family can hold one of for each label value.
pub trait Metric: Clone + Send + Sync + 'static {
    /// prometheus's own vector of it.
    type Vector: Collector + Clone + 'static;

    /// Makes the vector.
    ///
    /// # Errors
    /// prometheus's, where name, help or labels are not valid.
    fn vector(opts: Opts, buckets: &[f64], labels: &[&str]) -> prometheus::Result<Self::Vector>;

    /// One series of the vector.
    ///
    /// # Errors
    /// prometheus's, where the number of texts is wrong.
    fn series(vector: &Self::Vector, texts: &[&str]) -> prometheus::Result<Self>;
}

macro_rules! metric {
    ($metric:ty, $vector:ty, $opts:ident, $buckets:ident => $make:expr) => {
        impl Metric for $metric {
            type Vector = $vector;

            fn vector(
                $opts: Opts,
                $buckets: &[f64],
                labels: &[&str],
            ) -> prometheus::Result<$vector> {
                <$vector>::new($make, labels)
            }

            fn series(vector: &$vector, texts: &[&str]) -> prometheus::Result<Self> {
                vector.get_metric_with_label_values(texts)
            }
        }
    };
}

metric!(IntCounter, IntCounterVec, opts, _buckets => opts);
metric!(IntGauge, IntGaugeVec, opts, _buckets => opts);
metric!(Gauge, GaugeVec, opts, _buckets => opts);
metric!(Histogram, HistogramVec, opts, buckets => HistogramOpts::from(opts).buckets(buckets.to_vec()));

/// One metric for each value of a label, found by index.
#[derive(Clone)]
pub struct Family<L, M> {
    series: Arc<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M: Metric> Family<L, M> {
    /// The metric of one label value.
    #[must_use]
    pub fn get(&self, label: L) -> &M {
        self.series
            .get(label.index())
            .expect("invariant: a family has a series for every value")
    }
}

impl<L, M> fmt::Debug for Family<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("series", &self.series.len())
            .finish_non_exhaustive()
    }
}

/// A registry of metrics. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
    known: Arc<Mutex<BTreeMap<String, Box<dyn Any + Send>>>>,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter without labels; its name ends in `_total`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.alone(name, help, &[])
    }

    /// A whole-number gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.alone(name, help, &[])
    }

    /// A gauge of fractions (seconds, ratios) without labels.
    #[must_use]
    pub fn gauge_f64(&self, name: &str, help: &str) -> Gauge {
        self.alone(name, help, &[])
    }

    /// A histogram without labels.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.alone(name, help, buckets)
    }

    /// A counter for each value of a label.
    #[must_use]
    pub fn counters<L: Label>(&self, name: &str, help: &str) -> Family<L, IntCounter> {
        self.family(name, help, &[])
    }

    /// A whole-number gauge for each value of a label.
    #[must_use]
    pub fn gauges<L: Label>(&self, name: &str, help: &str) -> Family<L, IntGauge> {
        self.family(name, help, &[])
    }

    /// A histogram for each value of a label.
    #[must_use]
    pub fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Family<L, Histogram> {
        self.family(name, help, buckets)
    }

    /// A gauge per partition of a topic, labelled `topic` and `partition`. Not a closed set: for
    /// lag and positions alone, and the owner removes what it no longer owns.
    #[must_use]
    pub fn partition_gauges(&self, name: &str, help: &str) -> IntGaugeVec {
        self.vector::<IntGauge>(name, help, &[], &["topic", "partition"])
    }

    /// Everything, in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        let encoder = TextEncoder::new();
        encoder
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be encoded");
                String::new()
            })
    }

    /// The registry itself, for collectors and checks.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn alone<M: Metric>(&self, name: &str, help: &str, buckets: &[f64]) -> M {
        let vector = self.vector::<M>(name, help, buckets, &[]);
        M::series(&vector, &[]).expect("invariant: a metric without labels has one series")
    }

    fn family<L: Label, M: Metric>(&self, name: &str, help: &str, buckets: &[f64]) -> Family<L, M> {
        let vector = self.vector::<M>(name, help, buckets, &L::names());
        let series = L::all()
            .into_iter()
            .map(|label| M::series(&vector, &label.texts()))
            .collect::<prometheus::Result<_>>()
            .expect("invariant: a label has a text for each of its names");
        Family {
            series,
            label: PhantomData,
        }
    }

    /// The vector of that name, made at the first call. A name used for two kinds of metric, or
    /// one that Prometheus does not take, is a fault of the program and ends the start.
    fn vector<M: Metric>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> M::Vector {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vector) = known.get(name) {
            let vector = vector.downcast_ref::<M::Vector>();
            return vector
                .expect("invariant: one name, one kind of metric")
                .clone();
        }
        let vector = M::vector(Opts::new(name, help), buckets, labels)
            .expect("invariant: metric names, labels and help are constants that Prometheus takes");
        self.registry
            .register(Box::new(vector.clone()))
            .expect("invariant: a metric is registered once");
        known.insert(name.to_owned(), Box::new(vector.clone()));
        vector
    }

    /// Registers a collector once under `key`.
    pub(super) fn add_collector(&self, key: &str, collector: impl Collector + 'static) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(key) {
            return;
        }
        if let Err(error) = self.registry.register(Box::new(collector)) {
            tracing::warn!(key, %error, "collector not registered");
            return;
        }
        known.insert(key.to_owned(), Box::new(()));
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Metrics")
            .field("metrics", &known.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metric_faults;

    crate::label! {
        /// For these tests.
        enum Verdict("verdict") {
            Delivered => "delivered",
            Retry => "retry",
        }
    }

    crate::label! {
        /// For these tests.
        enum Mode("mode") {
            Binary => "binary",
            Structured => "structured",
        }
    }

    #[test]
    fn every_series_is_exported_at_zero_from_the_start() {
        let metrics = Metrics::new();
        let attempts =
            metrics.counters::<(Verdict, Mode)>("anabranch_attempts_total", "Attempts made");
        attempts.get((Verdict::Retry, Mode::Binary)).inc();
        let text = metrics.render();
        for line in [
            r#"anabranch_attempts_total{mode="binary",verdict="delivered"} 0"#,
            r#"anabranch_attempts_total{mode="structured",verdict="delivered"} 0"#,
            r#"anabranch_attempts_total{mode="binary",verdict="retry"} 1"#,
            r#"anabranch_attempts_total{mode="structured",verdict="retry"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(metric_faults(&metrics), Vec::<String>::new());
    }

    #[test]
    fn a_pair_of_labels_finds_its_own_series() {
        for (place, label) in <(Verdict, Mode)>::all().into_iter().enumerate() {
            assert_eq!(label.index(), place);
        }
        assert_eq!(<(Verdict, Mode)>::count(), 4);
    }

    #[test]
    fn one_name_gives_one_metric() {
        let metrics = Metrics::new();
        metrics.counter("anabranch_x_total", "X").inc();
        let shared = metrics.clone();
        shared.counter("anabranch_x_total", "X").inc();
        assert!(metrics.render().contains("anabranch_x_total 2"));
        let seconds = metrics.histogram("anabranch_wait_seconds", "Wait", LATENCY_BUCKETS);
        seconds.observe(0.0031);
        assert!(
            metrics
                .render()
                .contains("anabranch_wait_seconds_bucket{le=\"0.004\"} 1")
        );
    }
}
