//! Owns the sending of one batch until every event of it is accepted or rejected.
//!
//! It must never give an event up silently: what is neither within the time allowed is an error.
//! The surprise: an answer may accept some events of a batch and ask for others again.

use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::source::{Batch, Item};
use crate::api::{Answer, Api, Said};

const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A server may ask for an hour; the person at the terminal decides that, not we.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(60);

/// Sends batches of one tenant's events.
#[derive(Debug)]
pub(crate) struct Sender {
    api: Api,
    tenant: String,
    retry_for: Duration,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    /// Lines and why they were rejected.
    pub(crate) rejected: Vec<(u64, String)>,
    /// Bytes of all its lines.
    pub(crate) bytes: u64,
}

/// The part of an answer to a batch that says what became of each event.
#[derive(Debug, Deserialize)]
struct Results {
    results: Vec<OneResult>,
}

#[derive(Debug, Deserialize)]
struct OneResult {
    index: usize,
    status: u16,
    error: Option<Said>,
}

/// What an answer means for the events that were sent.
#[derive(Debug)]
enum Meaning {
    /// For each event by itself; those that are left are sent again.
    Each {
        accepted: u64,
        rejected: Vec<(u64, String)>,
        again: Vec<Item>,
    },
    /// Nothing is known or nothing was taken: all of it again.
    Again(Vec<Item>),
    /// The request is too large: in two halves.
    Halves(Vec<Item>),
}

impl Sender {
    /// Sends for `tenant`, and what fails again for `retry_for`.
    pub(crate) fn new(api: Api, tenant: String, retry_for: Duration) -> Self {
        Self {
            api,
            tenant,
            retry_for,
        }
    }

    /// Sends until every event is accepted or rejected.
    ///
    /// # Errors
    /// Where the key or the tenant is refused, or time runs out.
    pub(crate) async fn send(&self, batch: Batch) -> anyhow::Result<Outcome> {
        let Batch {
            items,
            refused,
            bytes,
        } = batch;
        let mut outcome = Outcome {
            accepted: 0,
            rejected: refused,
            bytes,
        };
        let deadline = Instant::now() + self.retry_for;
        let mut parts = vec![items];
        let mut wait = WAIT_FIRST;
        while let Some(items) = parts.pop() {
            if items.is_empty() {
                continue;
            }
            let answer = self.api.publish(&self.tenant, body(&items)).await;
            let asked = answer.as_ref().ok().and_then(Answer::retry_after);
            let (again, why) = match answer {
                Ok(answer) => {
                    let why = answer.status.to_string();
                    match meaning(&answer, items)? {
                        Meaning::Each {
                            accepted,
                            rejected,
                            again,
                        } => {
                            outcome.accepted += accepted;
                            outcome.rejected.extend(rejected);
                            (again, why)
                        }
                        Meaning::Again(items) => (items, why),
                        Meaning::Halves(mut items) => {
                            let rest = items.split_off(items.len() / 2);
                            parts.extend([rest, items]);
                            continue;
                        }
                    }
                }
                Err(error) => (items, runtime::task::chain(&*error)),
            };
            if let Some(first) = again.first() {
                let asked = asked.unwrap_or_default().min(ASKED_WAIT_MAX);
                let until = Instant::now() + wait.max(asked);
                let line = first.line;
                anyhow::ensure!(
                    until < deadline,
                    "events from line {line} on: {why}, and time is over"
                );
                tracing::warn!(line, why, "events are sent again");
                tokio::time::sleep_until(until).await;
                wait = (wait * 2).min(WAIT_MAX);
                parts.push(again);
            }
        }
        Ok(outcome)
    }
}

fn body(items: &[Item]) -> Bytes {
    let bytes = items.iter().map(|item| item.json.len() + 1).sum::<usize>() + 1;
    let mut body = String::with_capacity(bytes);
    let mut before = '[';
    for item in items {
        body.push(before);
        body.push_str(&item.json);
        before = ',';
    }
    body.push(']');
    Bytes::from(body)
}

fn meaning(answer: &Answer, items: Vec<Item>) -> anyhow::Result<Meaning> {
    if let Ok(Results { results }) = serde_json::from_slice(&answer.body) {
        return each(results, items);
    }
    let status = answer.status;
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Ok(Meaning::Again(items)),
        _ if status.is_server_error() => Ok(Meaning::Again(items)),
        StatusCode::PAYLOAD_TOO_LARGE if items.len() > 1 => Ok(Meaning::Halves(items)),
        StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::BAD_REQUEST
        | StatusCode::UNPROCESSABLE_ENTITY => {
            let why = answer.problem();
            let rejected = items.iter().map(|item| (item.line, why.clone())).collect();
            Ok(Meaning::Each {
                accepted: 0,
                rejected,
                again: Vec::new(),
            })
        }
        // The key, the tenant or the address: the next batch would fare no better.
        _ => anyhow::bail!("{}", answer.problem()),
    }
}

fn each(results: Vec<OneResult>, items: Vec<Item>) -> anyhow::Result<Meaning> {
    let (mut accepted, mut rejected, mut again) = (0, Vec::new(), Vec::new());
    let mut left: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for result in results {
        let item = left.get_mut(result.index).and_then(Option::take);
        let item = item.with_context(|| format!("answer names event {} of none", result.index))?;
        let status = StatusCode::from_u16(result.status).context("answer has no status")?;
        if status.is_success() {
            accepted += 1;
        } else if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            again.push(item);
        } else {
            let said = result
                .error
                .map_or_else(String::new, |error| error.text(status));
            rejected.push((item.line, format!("{} {said}", result.status)));
        }
    }
    // An event that the answer leaves out is not known to be in the log.
    again.extend(left.into_iter().flatten());
    Ok(Meaning::Each {
        accepted,
        rejected,
        again,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn items(count: u64) -> Vec<Item> {
        (1..=count)
            .map(|line| Item {
                line,
                json: format!("{{\"id\":\"{line}\"}}"),
            })
            .collect()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// What three events come to: accepted, lines rejected, lines to send again.
    fn check(status: u16, body: &str, expected: (u64, &[u64], &[u64])) {
        let lines = |items: &[Item]| items.iter().map(|item| item.line).collect::<Vec<_>>();
        match meaning(&answer(status, body), items(3)).unwrap() {
            Meaning::Each {
                accepted,
                rejected,
                again,
            } => {
                let rejected: Vec<u64> = rejected.iter().map(|(line, _)| *line).collect();
                assert_eq!(
                    (accepted, rejected.as_slice(), lines(&again).as_slice()),
                    expected
                );
            }
            Meaning::Again(again) | Meaning::Halves(again) => {
                assert_eq!((0, [].as_slice(), lines(&again).as_slice()), expected);
            }
        }
    }

    #[test]
    fn each_event_is_accepted_rejected_or_sent_again() {
        let all = r#"{"accepted":3,"rejected":0,"results":[{"index":0,"status":202},{"index":1,"status":202},{"index":2,"status":202}]}"#;
        check(202, all, (3, &[], &[]));
        let mixed = r#"{"results":[{"index":0,"status":202},{"index":1,"status":422,"error":{"title":"no"}},{"index":2,"status":503}]}"#;
        check(503, mixed, (1, &[2], &[3]));
        check(
            202,
            r#"{"results":[{"index":1,"status":202}]}"#,
            (1, &[], &[1, 3]),
        );
        check(429, "{}", (0, &[], &[1, 2, 3]));
        check(503, "", (0, &[], &[1, 2, 3]));
        check(413, "", (0, &[], &[1, 2, 3]));
        check(400, "{}", (0, &[1, 2, 3], &[]));
        for fatal in [401, 403, 404, 415] {
            assert!(meaning(&answer(fatal, "{}"), items(3)).is_err(), "{fatal}");
        }
    }

    #[test]
    fn a_batch_is_the_lines_as_they_are() {
        assert_eq!(
            body(&items(2)),
            Bytes::from_static(b"[{\"id\":\"1\"},{\"id\":\"2\"}]")
        );
    }
}
