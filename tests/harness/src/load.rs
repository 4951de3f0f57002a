//! Owns a steady stream of events, and what of it was acknowledged.
//!
//! The surprise: an event whose answer did not come is sent again under the same id until it is
//! acknowledged, as a client would, so that an outage of ingest's log is part of the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::Api;
use crate::event::{Event, event};

const BATCH: u64 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
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
    /// Sends `per_second` events of type `ty` to `path` until it is stopped.
    pub(crate) fn start(api: Api, path: String, ty: String, per_second: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(send(&api, &path, &ty, per_second, &seen))
        });
        Self { stop, thread }
    }

    /// Stops it.
    ///
    /// # Panics
    /// When an event was refused.
    pub fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load's thread")
    }
}

async fn send(api: &Api, path: &str, ty: &str, per_second: u64, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut ticks = interval(Duration::from_secs(1) * 10 / u32::try_from(per_second).unwrap_or(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let batch: Vec<Event> = (number..number + BATCH)
            .map(|number| event(ty, format!("load-{number:06}")))
            .collect();
        number += BATCH;
        send_batch(api, path, &batch, &mut sent).await;
    }
    sent
}

async fn send_batch(api: &Api, path: &str, batch: &[Event], sent: &mut Sent) {
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
                sent.acknowledged.extend(ids);
                return;
            }
            Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
            Err(_) => {}
        }
        if tries == 1 {
            sent.sent_again.extend(ids);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
