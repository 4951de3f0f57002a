//! Owns the metrics of the process itself, read from `/proc` when they are scraped and at no other
//! time. Their names are those of every Prometheus client.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge};

use super::Metrics;

/// Linux reports processor time to programs in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

struct Process {
    resident: IntGauge,
    open_fds: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    started: Gauge,
}

/// Adds memory, open files, threads, processor time and start time of the process; once, however
/// often it is called.
pub fn add_process_metrics(metrics: &Metrics) {
    match Process::new() {
        Ok(process) => metrics.add_collector("process", process),
        Err(error) => tracing::warn!(%error, "no metrics of the process"),
    }
}

impl Process {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            resident: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
            )?,
            open_fds: IntGauge::new("process_open_fds", "Number of open file descriptors")?,
            threads: IntGauge::new("process_threads", "Number of threads")?,
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system processor time spent in seconds",
            )?,
            started: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since the unix epoch in seconds",
            )?,
        })
    }

    fn read(&self) -> Option<()> {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        self.threads.set(stat.threads);
        self.cpu
            .inc_by((stat.cpu_seconds - self.cpu.get()).max(0.0));
        let status = fs::read_to_string("/proc/self/status").ok()?;
        self.resident.set(resident_bytes(&status)?);
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        self.open_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        let boot = boot_seconds(&fs::read_to_string("/proc/stat").ok()?)?;
        self.started.set(boot + stat.started_seconds);
        Some(())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let parts: [&dyn Collector; 5] = [
            &self.resident,
            &self.open_fds,
            &self.threads,
            &self.cpu,
            &self.started,
        ];
        parts.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Where /proc cannot be read, the last values stay.
        if self.read().is_none() {
            tracing::debug!("the process's own metrics cannot be read");
        }
        let parts: [&dyn Collector; 5] = [
            &self.resident,
            &self.open_fds,
            &self.threads,
            &self.cpu,
            &self.started,
        ];
        parts.into_iter().flat_map(Collector::collect).collect()
    }
}

struct Stat {
    cpu_seconds: f64,
    threads: i64,
    started_seconds: f64,
}

impl Stat {
    /// `man 5 proc_pid_stat`: fields 14, 15, 20 and 22. The name in field 2 may hold spaces and
    /// brackets, so counting starts behind its last bracket, at field 3.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) / TICKS_PER_SECOND,
            threads: fields.get(20 - 3)?.parse().ok()?,
            started_seconds: number(22)? / TICKS_PER_SECOND,
        })
    }
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metric_faults;

    #[test]
    fn stat_is_read_behind_a_name_with_brackets() {
        let text = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 900 1 1 1";
        let stat = Stat::parse(text).unwrap();
        assert!((stat.cpu_seconds - 2.0).abs() < 1e-9);
        assert_eq!(stat.threads, 7);
        assert!((stat.started_seconds - 9.0).abs() < 1e-9);
        assert!(Stat::parse("42 (a").is_none());
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"),
            Some(12_288)
        );
    }

    #[test]
    fn a_scrape_shows_this_process() {
        let metrics = Metrics::new();
        add_process_metrics(&metrics);
        add_process_metrics(&metrics);
        let text = metrics.render();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_open_fds ") > 0.0);
        assert!(value("process_start_time_seconds ") > 1_577_836_800.0);
        assert_eq!(metric_faults(&metrics), Vec::<String>::new());
    }
}
