//! Owns steady traffic to many endpoints: each event goes to one of them, in turn, in an open loop.
//!
//! It must never slow down for what it loads: a late answer makes its own events late and no
//! others. The surprise: events go in small batches, so that a benchmark of the dispatcher spends
//! little on ingest; all of a batch are reckoned from when it was meant to be sent.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::time::{Instant, sleep};

use crate::bare::milliseconds;
use crate::bench::post;
use crate::client::Connection;
use crate::events::{self, BATCH};
use crate::pace::{self, Tick};
use crate::sink::Sink;
use crate::stack::{Stack, Wish};

const BATCHES_PER_SECOND: u64 = 100;
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(30);

/// How events are spread over endpoints: event types, one for each endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    /// Types in the order in which they are sent, again and again.
    types: Vec<String>,
    /// Of those, how many from the first on are expected to arrive.
    healthy: usize,
    per_second: u64,
}

/// When each event that is expected was meant to be sent, by its number.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    due: HashMap<u64, i64>,
    first: u64,
}

impl Traffic {
    /// `per_second` events to `types`, of which the first `healthy` are expected to arrive.
    pub(crate) fn new(types: Vec<String>, healthy: usize, per_second: u64) -> Self {
        Self {
            types,
            healthy,
            per_second,
        }
    }

    /// Publishes for `seconds`.
    ///
    /// # Errors
    /// Where ingest does not keep up, or refuses.
    pub(crate) async fn publish(&self, stack: &Stack, seconds: u64) -> anyhow::Result<Sent> {
        // Numbers no other round has: the same event would have the same delivery id.
        let mut sent = Sent {
            due: HashMap::new(),
            first: u64::try_from(pace::wall_us())?,
        };
        let mut free = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            free.push(stack.publisher().await?);
        }
        let mut busy = FuturesUnordered::new();
        let mut ticks = pace::ticks(BATCHES_PER_SECOND, BATCHES_PER_SECOND * seconds);
        let start = Instant::now();
        loop {
            tokio::select! {
                Some(connection) = busy.next() => free.push(connection?),
                tick = ticks.recv(), if !free.is_empty() => {
                    let (Some(tick), Some(connection)) = (tick, free.pop()) else { break };
                    busy.push(send(connection, self.batch(tick, &mut sent)));
                }
            }
        }
        while let Some(done) = busy.next().await {
            done?;
        }
        let late = start.elapsed().saturating_sub(Duration::from_secs(seconds));
        ensure!(
            late < PATIENCE,
            "ingest is {late:?} behind {}/s",
            self.per_second
        );
        Ok(sent)
    }

    /// The events of one tick.
    fn batch(&self, tick: Tick, sent: &mut Sent) -> Bytes {
        let from = tick.number * self.per_second / BATCHES_PER_SECOND;
        let to = (tick.number + 1) * self.per_second / BATCHES_PER_SECOND;
        let count = u64::try_from(self.types.len()).unwrap_or(u64::MAX).max(1);
        let mut bodies = Vec::new();
        for number in from..to {
            let index = usize::try_from(number % count).unwrap_or(usize::MAX);
            let Some(event_type) = self.types.get(index) else {
                continue;
            };
            let number = sent.first + number;
            if index < self.healthy {
                sent.due.insert(number, tick.due_us);
            }
            bodies.push(events::structured_as(number, event_type));
        }
        format!("[{}]", bodies.join(",")).into()
    }
}

impl Sent {
    /// How many are expected to arrive.
    pub(crate) fn expected(&self) -> usize {
        self.due.len()
    }

    /// Waits until all have arrived, and says how many milliseconds each took.
    ///
    /// # Errors
    /// How many are missing, where nothing comes any more.
    pub(crate) async fn latencies(&self, sink: &mut Sink) -> anyhow::Result<Vec<f64>> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let found: Vec<f64> = self.found(&sink.times().await?);
            if found.len() >= self.expected() {
                return Ok(found);
            }
            if found.len() > before {
                (before, since) = (found.len(), Instant::now());
            }
            let expected = self.expected();
            ensure!(since.elapsed() < PATIENCE, "{before} of {expected} arrived");
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn found(&self, times: &[(u64, i64)]) -> Vec<f64> {
        let took = |&(number, at_us): &(u64, i64)| {
            let due = self.due.get(&number)?;
            Some(milliseconds(at_us - due))
        };
        times.iter().filter_map(took).collect()
    }
}

async fn send(mut connection: Connection, body: Bytes) -> anyhow::Result<Connection> {
    post(&mut connection, BATCH, body).await?;
    Ok(connection)
}

/// The type of events for endpoint `number` of a kind.
pub(crate) fn event_type(kind: &str, number: usize) -> String {
    format!("load.{kind}.{number}")
}

/// Endpoints of a kind at `url`, each with a type of its own.
pub(crate) fn wishes(kind: &str, url: &str, count: usize) -> Vec<Wish> {
    (0..count)
        .map(|number| Wish {
            url: format!("{url}/{kind}/{number}"),
            event_type: Some(event_type(kind, number)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_goes_to_the_next_endpoint_and_the_rate_is_kept() {
        let types = ["a", "b", "c"].map(str::to_owned).to_vec();
        let traffic = Traffic::new(types, 2, 250);
        let mut sent = Sent::default();
        let mut seen = Vec::new();
        for number in 0..BATCHES_PER_SECOND {
            let batch = traffic.batch(Tick { number, due_us: 0 }, &mut sent);
            let events: Vec<serde_json::Value> = serde_json::from_slice(&batch).unwrap();
            seen.extend(events.into_iter().map(|event| event["type"].clone()));
        }
        assert_eq!(seen.len(), 250);
        assert_eq!(seen[..4], ["a", "b", "c", "a"]);
        // Every third goes to an endpoint that is not expected to take it.
        assert_eq!(sent.expected(), 167);
    }
}
