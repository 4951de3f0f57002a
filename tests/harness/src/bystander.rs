//! Owns a member of a consumer group that is there and does nothing: what a process of an earlier
//! release is to somebody who looks at its group.
//!
//! It must never commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A member, until it is dropped.
#[derive(Debug)]
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Joins `group` for `topic`, and returns when it owns a partition.
    ///
    /// # Panics
    /// When it is given none.
    pub fn join(brokers: &str, group: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()
            .expect("a consumer");
        consumer.subscribe(&[topic]).expect("a subscription");
        let mut left = PATIENCE.as_millis() / POLL.as_millis();
        while consumer.assignment().expect("an assignment").count() == 0 {
            assert!(left > 0, "{topic}: no partition of it in group {group}");
            left -= 1;
            drop(consumer.poll(POLL));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                drop(consumer.poll(POLL));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It leaves the group as it ends.
            thread.join().ok();
        }
    }
}
