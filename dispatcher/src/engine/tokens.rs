//! Owns the turn of a delivery whose endpoint wants a token that is not there yet.
//!
//! The turn is the fetch's: it obeys the lane's limits and leaves an attempt, and the delivery waits
//! for its next turn at no cost. A fetch that fails costs the delivery an attempt, as any failure
//! does. Never keeps what a token endpoint answered: it may hold a secret.

use std::time::Duration;

use bytes::Bytes;

use super::preparing::{Own, prepare};
use crate::delivery::classify::{Reason, Verdict};
use crate::delivery::sending::Authorization;
use crate::delivery::template::Asked;
use crate::delivery::tokens::{Fetching, Ticket};
use crate::delivery::{Answer, OutgoingRequest, Response, Transport, TransportError};
use crate::endpoints::Target;

/// What a turn sends.
pub(super) struct Composed {
    pub(super) request: Result<OutgoingRequest, TransportError>,
    /// Where it is a token's fetch.
    pub(super) fetching: Option<Fetching>,
    /// What a chunk asks of the partner.
    pub(super) asked: Option<Asked>,
}

/// What goes in a delivery's turn, `made` of the time and of randomness; nothing where another's
/// fetch had to be waited for.
pub(super) async fn compose(
    own: Own<'_>,
    target: &Target,
    made: (i64, (u64, u64)),
    timeout: Duration,
) -> Option<Composed> {
    let authorization = match target.sending.authorize(made.0) {
        Authorization::NotYet(Ticket::Wait(waiting)) => {
            waiting.ended(timeout).await;
            return None;
        }
        Authorization::NotYet(Ticket::Fetch(fetching)) => {
            return Some(Composed {
                request: Ok(fetching.request(timeout)),
                fetching: Some(fetching),
                asked: None,
            });
        }
        Authorization::NotYet(Ticket::Ready(token)) | Authorization::Token(token) => {
            Authorization::Token(token)
        }
        Authorization::Given => Authorization::Given,
    };
    let (request, asked) = match prepare(own, target, made, &authorization, timeout) {
        Ok((request, asked)) => (Ok(request), asked),
        Err(error) => (Err(error), None),
    };
    Some(Composed {
        request,
        fetching: None,
        asked,
    })
}

/// Makes the exchange; without a request its fault is the answer.
pub(super) async fn send<T: Transport>(
    transport: &T,
    request: Result<OutgoingRequest, TransportError>,
) -> Answer {
    match request {
        Ok(request) => transport.send(request).await,
        Err(error) => Err(error),
    }
}

/// Takes a fetched token out of the answer: what is left of it, and whether there is a token now;
/// `None` for an answer to a delivery's own request.
pub(super) fn settle(
    fetching: Option<Fetching>,
    answer: Answer,
    wall: i64,
) -> (Answer, Option<bool>) {
    let Some(fetching) = fetching else {
        return (answer, None);
    };
    let got = fetching.done(&answer, wall);
    let bare = answer.map(|response| Response {
        body: Bytes::new(),
        ..response
    });
    (bare, Some(got))
}

/// What an answer means for the delivery, where it may be one of a token's fetch.
pub(super) fn meant(token: Option<bool>, verdict: Verdict) -> Verdict {
    let Some(got) = token else {
        return verdict;
    };
    let retry_after = match verdict {
        Verdict::Retry { retry_after, .. } => retry_after,
        Verdict::Delivered | Verdict::Rejected { .. } | Verdict::EndpointGone => None,
    };
    Verdict::Retry {
        reason: Reason::Token,
        retry_after: retry_after.filter(|_| !got),
        costs_attempt: !got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_never_ends_a_delivery() {
        let retry = |retry_after, costs_attempt| Verdict::Retry {
            reason: Reason::Token,
            retry_after,
            costs_attempt,
        };
        let wait = Some(Duration::from_secs(7));
        let throttled = Verdict::Retry {
            reason: Reason::TooManyRequests,
            retry_after: wait,
            costs_attempt: false,
        };
        assert_eq!(meant(None, Verdict::EndpointGone), Verdict::EndpointGone);
        for (verdict, failed) in [
            (Verdict::Delivered, retry(None, true)),
            (Verdict::EndpointGone, retry(None, true)),
            (throttled, retry(wait, true)),
        ] {
            assert_eq!(meant(Some(false), verdict), failed);
            assert_eq!(meant(Some(true), verdict), retry(None, false));
        }
    }
}
