//! Endpoints that answer as told, as processes of a simulated world reach them, and all that they
//! have seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use runtime::clock::Entropy;
use tokio::time::Instant;

use crate::delivery::TransportErrorKind;
use crate::delivery::{Answer, OutgoingRequest, Response, Transport, TransportError};

/// One request as an endpoint saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) process: String,
    pub(crate) endpoint: String,
    pub(crate) delivery: String,
    /// The method, and the place on the host.
    pub(crate) asked: String,
    pub(crate) started: Instant,
    pub(crate) ended: Option<Instant>,
    pub(crate) status: Option<u16>,
    /// The seconds of its `Retry-After`.
    pub(crate) retry_after: Option<u64>,
}

/// What an endpoint does with the requests it gets.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answers 200 after a time drawn from this range, in milliseconds.
    Healthy(u64, u64),
    /// Answers this status, with this `Retry-After`, so many times to each delivery; then 200.
    Fails(u16, Option<u64>, usize),
    /// Answers 422 to every request that holds an event whose number this divides.
    Culprits(i64),
    /// Answers 200, and names the events that this divides as failed: those that twice this divides
    /// for good, the others so that they may come again, which they may then.
    Partial(i64),
    /// Takes members, a chunk at a time: see [`Wire::take_members`].
    Partner,
    /// Never answers.
    Hangs,
    /// Answers 500, 200, resets and hangs as the dice fall.
    Flaky,
}

#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) seen: Vec<Seen>,
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    /// How often events were taken by endpoints that take several at once, by number.
    pub(super) taken: BTreeMap<i64, usize>,
    /// How often they were sent there.
    pub(super) sent: BTreeMap<i64, usize>,
    /// No answer arrives before this.
    pub(super) stalled_until: Option<Instant>,
}

/// The endpoints, as one process reaches them.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(super) process: String,
    pub(super) net: Arc<Mutex<Net>>,
    pub(super) entropy: Entropy,
}

impl Transport for Wire {
    async fn send(&self, request: OutgoingRequest) -> Answer {
        let endpoint = request.destination.url().host_str().unwrap().to_owned();
        let delivery = request.headers["webhook-id"].to_str().unwrap().to_owned();
        let (at, behaviour, before) = {
            let mut net = self.net.lock().unwrap();
            let before = net
                .seen
                .iter()
                .filter(|seen| seen.delivery == delivery)
                .count();
            net.seen.push(Seen {
                process: self.process.clone(),
                endpoint: endpoint.clone(),
                delivery,
                asked: format!("{} {}", request.method, request.destination.url().path()),
                started: Instant::now(),
                ended: None,
                status: None,
                retry_after: None,
            });
            let behaviour = net.behaviours.get(&endpoint).cloned();
            (
                net.seen.len() - 1,
                behaviour.unwrap_or(Behaviour::Healthy(1, 5)),
                before,
            )
        };
        let answer = self.answer(&behaviour, before, &request.body);
        let answered = tokio::time::timeout(request.timeout, answer).await;
        let answer = answered.unwrap_or_else(|_| {
            Err(TransportError::new(
                TransportErrorKind::Timeout,
                "deadline passed",
            ))
        });
        let stalled_until = self.net.lock().unwrap().stalled_until;
        if let Some(until) = stalled_until {
            tokio::time::sleep_until(until).await;
        }
        let mut net = self.net.lock().unwrap();
        net.seen[at].ended = Some(Instant::now());
        net.seen[at].status = answer.as_ref().ok().map(|response| response.status);
        let told = answer
            .as_ref()
            .ok()
            .and_then(|response| response.retry_after.as_ref());
        net.seen[at].retry_after = told.and_then(|told| told.parse().ok());
        answer
    }
}

impl Wire {
    async fn answer(&self, behaviour: &Behaviour, before: usize, body: &Bytes) -> Answer {
        let roll = self.entropy.unit();
        match behaviour {
            Behaviour::Healthy(from, to) => {
                let wait = from + self.entropy.u64() % (to - from + 1);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                status(200, None)
            }
            Behaviour::Culprits(of) => self.take_all_or_none(*of, body),
            Behaviour::Partial(of) => self.take_some(*of, body),
            Behaviour::Partner => self.take_members(body),
            Behaviour::Fails(code, retry_after, times) if before < *times => {
                status(*code, *retry_after)
            }
            Behaviour::Fails(..) => status(200, None),
            Behaviour::Flaky if roll < 0.3 => status(500, None),
            Behaviour::Flaky if roll < 0.4 => {
                Err(TransportError::new(TransportErrorKind::Reset, "reset"))
            }
            Behaviour::Flaky if roll > 0.05 + 0.4 => status(200, None),
            Behaviour::Flaky | Behaviour::Hangs => std::future::pending().await,
        }
    }
}

impl Wire {
    fn take_all_or_none(&self, of: i64, body: &Bytes) -> Answer {
        let numbers = self.arrived(body);
        if numbers.iter().any(|number| number % of == 0) {
            return status(422, None);
        }
        let mut net = self.net.lock().unwrap();
        for number in numbers {
            *net.taken.entry(number).or_default() += 1;
        }
        status(200, None)
    }

    fn take_some(&self, of: i64, body: &Bytes) -> Answer {
        let mut failed = Vec::new();
        let numbers = self.arrived(body);
        let mut net = self.net.lock().unwrap();
        for (index, number) in numbers.into_iter().enumerate() {
            let for_good = number % (2 * of) == 0;
            if for_good || (number % of == 0 && net.sent[&number] == 1) {
                let code = if for_good { "bad" } else { "busy" };
                failed.push(serde_json::json!({"index": index, "code": code}));
            } else {
                *net.taken.entry(number).or_default() += 1;
            }
        }
        let mut answer = status(200, None)?;
        answer.body = serde_json::json!({"failed": failed}).to_string().into();
        Ok(answer)
    }

    /// The numbers of the events in a body.
    fn arrived(&self, body: &Bytes) -> Vec<i64> {
        let items: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
        let number = |item: &serde_json::Value| {
            let id = item["id"].as_str().unwrap();
            id.trim_start_matches("event-").parse().unwrap()
        };
        let numbers: Vec<i64> = items.iter().map(number).collect();
        let mut net = self.net.lock().unwrap();
        for number in &numbers {
            *net.sent.entry(*number).or_default() += 1;
        }
        numbers
    }
}

pub(super) fn status(status: u16, retry_after: Option<u64>) -> Answer {
    Ok(Response {
        status,
        retry_after: retry_after.map(|seconds| seconds.to_string()),
        left: None,
        content_type: None,
        body: Bytes::new(),
        body_bytes_read: 0,
        truncated: false,
        ending: None,
    })
}
