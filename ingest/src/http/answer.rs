//! Owns what a client is told of its events.
//!
//! Never answers 2xx where an event may have been lost on the way to the log: then the whole
//! answer is 503, and says which events are in. The surprise: a batch of which the log has some
//! and the others are invalid is 200, not 202: repeating it would not help.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use runtime::problem::{Problem, ProblemType};
use schemas::codec::json::write_string;
use schemas::event::Event;

use crate::telemetry::{EventResult, RequestResult};

/// Bytes that an event's result usually takes.
const RESULT_BYTES: usize = 80;

/// What was taken.
#[derive(Debug)]
pub(super) enum Answer {
    /// One event, written.
    One(Event),
    /// What became of each event of a batch, in its order (CE-14).
    Batch(Vec<Outcome>),
}

/// What became of one event of a batch.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `None` where no event could be read.
    event: Option<Event>,
    /// Boxed: most have none, and a batch holds many of these.
    problem: Option<Box<Problem>>,
}

impl Outcome {
    /// An event that is to be written, unless `check` refuses it.
    pub(super) fn new(
        mut event: Event,
        check: impl FnOnce(&mut Event) -> Result<(), Problem>,
    ) -> Self {
        let problem = check(&mut event).err().map(Box::new);
        Self {
            event: Some(event),
            problem,
        }
    }

    /// What was no event.
    pub(super) fn unread(problem: Problem) -> Self {
        Self {
            event: None,
            problem: Some(Box::new(problem)),
        }
    }

    /// The event, while nothing speaks against it.
    pub(super) fn pending(&self) -> Option<&Event> {
        self.event.as_ref().filter(|_| self.problem.is_none())
    }

    pub(super) fn refuse(&mut self, problem: Problem) {
        self.problem = Some(Box::new(problem));
    }

    pub(super) fn result(&self) -> EventResult {
        let problem = self.problem.as_ref();
        problem.map_or(EventResult::Accepted, |problem| problem.kind().into())
    }

    fn status(&self) -> StatusCode {
        self.problem
            .as_ref()
            .map_or(StatusCode::ACCEPTED, |problem| problem.status())
    }

    fn write(&self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"index\":");
        put_number(index, out);
        if let Some(event) = &self.event {
            out.extend_from_slice(b",\"id\":");
            write_string(event.id(), out);
        }
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(self.status().as_str().as_bytes());
        if let Some(problem) = &self.problem {
            out.extend_from_slice(b",\"error\":");
            // Strings and numbers alone: there is nothing here that JSON cannot hold.
            out.extend_from_slice(&serde_json::to_vec(problem).unwrap_or_default());
        }
        out.push(b'}');
    }
}

/// How a batch ended as a whole.
enum Whole {
    Accepted,
    Partial,
    Refused(ProblemType),
}

impl Whole {
    fn of(outcomes: &[Outcome]) -> Self {
        let count = |result: EventResult| {
            outcomes
                .iter()
                .filter(|outcome| outcome.result() == result)
                .count()
        };
        let accepted = count(EventResult::Accepted);
        if accepted == outcomes.len() {
            Self::Accepted
        } else if count(EventResult::Unavailable) > 0 {
            Self::Refused(ProblemType::Unavailable)
        } else if accepted > 0 {
            Self::Partial
        } else if count(EventResult::TooLarge) == outcomes.len() {
            Self::Refused(ProblemType::TooLarge)
        } else {
            Self::Refused(ProblemType::Validation)
        }
    }
}

impl Answer {
    /// As the metrics count it.
    pub(super) fn result(&self) -> RequestResult {
        match self {
            Self::One(_) => RequestResult::Accepted,
            Self::Batch(outcomes) => match Whole::of(outcomes) {
                Whole::Accepted => RequestResult::Accepted,
                Whole::Partial => RequestResult::Partial,
                Whole::Refused(kind) => kind.into(),
            },
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::One(event) => json(StatusCode::ACCEPTED, one(&event)),
            Self::Batch(outcomes) => batch(&outcomes),
        }
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn one(event: &Event) -> Vec<u8> {
    let mut body = Vec::with_capacity(RESULT_BYTES);
    let members = [
        (&b"{\"id\":"[..], event.id()),
        (b",\"source\":", event.source()),
        (b",\"type\":", event.ty()),
    ];
    for (name, text) in members {
        body.extend_from_slice(name);
        write_string(text, &mut body);
    }
    body.push(b'}');
    body
}

fn batch(outcomes: &[Outcome]) -> Response {
    let accepted = outcomes
        .iter()
        .filter(|outcome| outcome.problem.is_none())
        .count();
    let rejected = outcomes.len() - accepted;
    let results = results(outcomes);
    let status = match Whole::of(outcomes) {
        Whole::Accepted => StatusCode::ACCEPTED,
        Whole::Partial => StatusCode::OK,
        Whole::Refused(kind) => {
            let results = serde_json::from_slice(&results).unwrap_or(serde_json::Value::Null);
            let problem = Problem::new(kind)
                .detail(format!(
                    "{rejected} of {} events were not accepted",
                    outcomes.len()
                ))
                .member("accepted", accepted)
                .member("rejected", rejected)
                .member("results", results);
            if kind == ProblemType::Unavailable {
                return problem.retry_after(Duration::from_secs(1)).into_response();
            }
            return problem.into_response();
        }
    };
    let mut body =
        format!("{{\"accepted\":{accepted},\"rejected\":{rejected},\"results\":").into_bytes();
    body.extend_from_slice(&results);
    body.push(b'}');
    json(status, body)
}

/// Without `fmt`, which costs more than the rest of a result.
fn put_number(number: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + u8::try_from(rest % 10).unwrap_or_default());
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

fn results(outcomes: &[Outcome]) -> Vec<u8> {
    let mut out = Vec::with_capacity(outcomes.len().saturating_mul(RESULT_BYTES));
    out.push(b'[');
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        outcome.write(index, &mut out);
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: Option<ProblemType>) -> Outcome {
        let event = Event::builder("a\"1", "/s", "t").build().unwrap();
        Outcome::new(event, |_| {
            kind.map_or(Ok(()), |kind| Err(Problem::new(kind)))
        })
    }

    fn check(kinds: &[Option<ProblemType>], status: u16) {
        let outcomes = kinds.iter().copied().map(outcome).collect();
        assert_eq!(
            Answer::Batch(outcomes).into_response().status(),
            status,
            "{kinds:?}"
        );
    }

    #[test]
    fn a_batch_is_2xx_only_where_repeating_it_would_not_help() {
        use ProblemType::{TooLarge, Unavailable, Validation};
        check(&[], 202);
        check(&[None, None], 202);
        check(&[None, Some(Validation)], 200);
        check(&[None, Some(Validation), Some(Unavailable)], 503);
        check(&[Some(Unavailable)], 503);
        check(&[Some(Validation), Some(TooLarge)], 422);
        check(&[Some(TooLarge), Some(TooLarge)], 413);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 99, 100, 40_960, usize::MAX] {
            let mut out = Vec::new();
            put_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn results_are_json_with_one_entry_an_event() {
        let outcomes = [
            outcome(None),
            outcome(Some(ProblemType::TooLarge)),
            Outcome::unread(Problem::new(ProblemType::Validation)),
        ];
        let results: serde_json::Value = serde_json::from_slice(&results(&outcomes)).unwrap();
        assert_eq!(
            results[0],
            serde_json::json!({"index": 0, "id": "a\"1", "status": 202})
        );
        assert_eq!(results[1]["error"]["status"], 413);
        assert_eq!(
            (&results[2]["index"], results[2].get("id")),
            (&2.into(), None)
        );
    }
}
