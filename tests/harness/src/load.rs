//! Owns a steady stream of events, and what of it was acknowledged.
//!
//! The surprise: an event whose answer did not come is sent again under the same id until it is
//! acknowledged, as a client would, so that an outage of ingest's log is part of the load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::Api;
use crate::event::Event;

const BATCH: u64 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// What makes an event from its number, from 0.
pub(crate) type Make = Box<dyn Fn(u64) -> Event + Send>;

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Sent>>,
    thread: JoinHandle<()>,
}

/// What a load sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Ids of events that were acknowledged (202), once each.
    pub acknowledged: Vec<String>,
    /// Ids that were sent more than once, since an answer did not come: these may arrive twice.
    pub sent_again: Vec<String>,
}

impl Load {
    /// Sends `per_second` events to `path` until it is stopped, each made from its number.
    pub(crate) fn start(api: &Api, path: String, per_second: u64, make: Make) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Mutex::new(Sent::default()));
        let stream = Stream {
            api: api.apart(),
            path,
            make,
            stop: Arc::clone(&stop),
            sent: Arc::clone(&sent),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(stream.send(per_second));
        });
        Self { stop, sent, thread }
    }

    /// What it has sent so far.
    pub fn so_far(&self) -> Sent {
        lock(&self.sent).clone()
    }

    /// Stops it.
    ///
    /// # Panics
    /// When an event was refused.
    pub fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load's thread");
        lock(&self.sent).clone()
    }
}

fn lock(sent: &Mutex<Sent>) -> MutexGuard<'_, Sent> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Stream {
    api: Api,
    path: String,
    make: Make,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Sent>>,
}

impl Stream {
    async fn send(self, per_second: u64) {
        let batches = u32::try_from(per_second / BATCH).unwrap_or(1).max(1);
        let mut ticks = interval(Duration::from_secs(1) / batches);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let batch: Vec<Event> = (number..number + BATCH).map(&self.make).collect();
            number += BATCH;
            send_batch(&self.api, &self.path, &batch, &self.sent).await;
        }
    }
}

async fn send_batch(api: &Api, path: &str, batch: &[Event], sent: &Mutex<Sent>) {
    let structured: Vec<String> = batch.iter().map(Event::structured).collect();
    let body = format!("[{}]", structured.join(","));
    let json = "application/cloudevents-batch+json".to_owned();
    let headers = [("content-type".to_owned(), json)];
    let start = Instant::now();
    let mut tries = 0;
    loop {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "a batch was never acknowledged"
        );
        tries += 1;
        let answer = api.send(Method::POST, path, &headers, body.clone()).await;
        let ids = batch.iter().map(|event| event.id.clone());
        match answer {
            Ok(answer) if answer.status == 202 => {
                lock(sent).acknowledged.extend(ids);
                return;
            }
            Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
            Err(_) => {}
        }
        if tries == 1 {
            lock(sent).sent_again.extend(ids);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
