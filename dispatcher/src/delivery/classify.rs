//! Owns what an attempt means: the verdict table, and how `Retry-After` is read (HT-1, HT-2).
//!
//! Pure; never touches the network and never sleeps. The surprise: a 429 or 503 costs no attempt
//! while its `Retry-After` holds the quota, and one without a wait in it costs one like any other.

use std::time::{Duration, UNIX_EPOCH};

use super::{Answer, Response, TransportErrorKind};

/// The longest `Retry-After` that is obeyed (HT-2); a longer one counts as this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// What an attempt means for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has it (WH-11).
    Delivered,
    /// Not now: try again on the schedule.
    Retry {
        /// Why, for records and metrics.
        reason: Reason,
        /// The endpoint asked for at least this wait, for its whole quota (rule 11).
        retry_after: Option<Duration>,
        /// Whether this attempt counts on the schedule.
        costs_attempt: bool,
    },
    /// This event will never be taken: dead at once.
    Rejected {
        /// Why, for records and metrics.
        reason: Reason,
    },
    /// The endpoint says that it is gone for good (WH-12).
    EndpointGone,
}

/// Why an attempt did not deliver: a closed set, stable in records and usable as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 3xx; redirects are never followed (WH-11).
    Redirect,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 408.
    RequestTimeout,
    /// 409.
    Conflict,
    /// 425.
    TooEarly,
    /// 429.
    TooManyRequests,
    /// 503.
    Unavailable,
    /// Any other 5xx.
    ServerError,
    /// A status that no specification gives a meaning to.
    UnexpectedStatus,
    /// 400.
    BadRequest,
    /// 413.
    PayloadTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422.
    Unprocessable,
    /// Any other 4xx.
    ClientError,
    /// 410.
    Gone,
    /// The destination address is not allowed.
    Address,
    /// The name could not be resolved.
    Dns,
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// No complete answer within the deadline.
    Timeout,
    /// The connection ended early.
    Reset,
    /// The answer was not HTTP.
    Protocol,
    /// The request cannot be expressed in HTTP.
    Request,
    /// No request could be made of it by its templates.
    Template,
    /// A token had to be fetched first.
    Token,
    /// The answer says so of this item alone.
    Item,
    /// The answer does not say what became of this item (rule 15).
    NotSaid,
}

/// The verdict on one attempt. `received_at_ms` (unix milliseconds) anchors a `Retry-After` that is
/// a date (HT-2).
#[must_use]
pub fn classify(answer: &Answer, received_at_ms: i64) -> Verdict {
    match answer {
        Ok(response) => classify_response(response, received_at_ms),
        Err(error) => classify_transport(error.kind),
    }
}

/// Reads `Retry-After`: delay in seconds or HTTP date, counted from the time of receipt; a past
/// date is zero, at most [`RETRY_AFTER_MAX`]. `None` for anything else.
#[must_use]
pub fn parse_retry_after(value: &str, received_at_ms: i64) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow are a very long wait, not a malformed one.
        let seconds = value.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let received_at = UNIX_EPOCH + Duration::from_millis(u64::try_from(received_at_ms).ok()?);
    Some(
        date.duration_since(received_at)
            .unwrap_or_default()
            .min(RETRY_AFTER_MAX),
    )
}

fn classify_response(response: &Response, received_at_ms: i64) -> Verdict {
    let retry_after = || {
        response
            .retry_after
            .as_deref()
            .and_then(|v| parse_retry_after(v, received_at_ms))
    };
    let retry = |reason| Verdict::Retry {
        reason,
        retry_after: retry_after(),
        costs_attempt: true,
    };
    let throttled = |reason| {
        let retry_after = retry_after();
        let holds = retry_after.is_some_and(|wait| !wait.is_zero());
        Verdict::Retry {
            reason,
            retry_after,
            costs_attempt: !holds,
        }
    };
    let rejected = |reason| Verdict::Rejected { reason };
    match response.status {
        400 => rejected(Reason::BadRequest),
        401 => retry(Reason::Unauthorized),
        403 => retry(Reason::Forbidden),
        404 => retry(Reason::NotFound),
        408 => retry(Reason::RequestTimeout),
        409 => retry(Reason::Conflict),
        410 => Verdict::EndpointGone,
        413 => rejected(Reason::PayloadTooLarge),
        415 => rejected(Reason::UnsupportedMediaType),
        422 => rejected(Reason::Unprocessable),
        425 => retry(Reason::TooEarly),
        429 => throttled(Reason::TooManyRequests),
        503 => throttled(Reason::Unavailable),
        status => match status / 100 {
            2 => Verdict::Delivered,
            3 => retry(Reason::Redirect),
            4 => rejected(Reason::ClientError),
            5 => retry(Reason::ServerError),
            _ => retry(Reason::UnexpectedStatus),
        },
    }
}

const fn classify_transport(kind: TransportErrorKind) -> Verdict {
    let reason = match kind {
        TransportErrorKind::Address => Reason::Address,
        TransportErrorKind::Dns => Reason::Dns,
        TransportErrorKind::Connect => Reason::Connect,
        TransportErrorKind::Tls => Reason::Tls,
        TransportErrorKind::Timeout => Reason::Timeout,
        TransportErrorKind::Reset => Reason::Reset,
        TransportErrorKind::Protocol => Reason::Protocol,
        // Would fail the same way for ever.
        TransportErrorKind::Request => {
            return Verdict::Rejected {
                reason: Reason::Request,
            };
        }
        TransportErrorKind::Template => {
            return Verdict::Rejected {
                reason: Reason::Template,
            };
        }
    };
    Verdict::Retry {
        reason,
        retry_after: None,
        costs_attempt: true,
    }
}

// === impl Reason ===

impl Reason {
    /// Every reason, in a fixed order.
    pub const ALL: [Self; 29] = [
        Self::Redirect,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::RequestTimeout,
        Self::Conflict,
        Self::TooEarly,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::ServerError,
        Self::UnexpectedStatus,
        Self::BadRequest,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::ClientError,
        Self::Gone,
        Self::Address,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::Request,
        Self::Template,
        Self::Token,
        Self::Item,
        Self::NotSaid,
    ];

    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::TooEarly => "too_early",
            Self::TooManyRequests => "too_many_requests",
            Self::Unavailable => "unavailable",
            Self::ServerError => "server_error",
            Self::UnexpectedStatus => "unexpected_status",
            Self::BadRequest => "bad_request",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::ClientError => "client_error",
            Self::Gone => "gone",
            Self::Address => "address",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Request => "request",
            Self::Template => "template",
            Self::Token => "token",
            Self::Item => "item",
            Self::NotSaid => "not_said",
        }
    }
}

impl Verdict {
    /// The verdict's name, without its reason: a metric label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Rejected { .. } => "rejected",
            Self::EndpointGone => "endpoint_gone",
        }
    }

    /// Why it was not delivered; `None` for a delivery.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Delivered => None,
            Self::Retry { reason, .. } | Self::Rejected { reason } => Some(*reason),
            Self::EndpointGone => Some(Reason::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::TransportError;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const DATE_MS: i64 = 784_111_777_000;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        Ok(Response {
            status,
            retry_after: retry_after.map(str::to_owned),
            left: None,
            content_type: None,
            body: Bytes::new(),
            body_bytes_read: 0,
            truncated: false,
            ending: None,
        })
    }

    fn retry(reason: Reason) -> Verdict {
        Verdict::Retry {
            reason,
            retry_after: None,
            costs_attempt: true,
        }
    }

    /// The whole table, written out a second time as ranges and lists.
    fn expected(status: u16) -> Verdict {
        let rejected = |reason| Verdict::Rejected { reason };
        match status {
            200..300 => Verdict::Delivered,
            300..400 => retry(Reason::Redirect),
            400..500 => match status {
                401 => retry(Reason::Unauthorized),
                403 => retry(Reason::Forbidden),
                404 => retry(Reason::NotFound),
                408 => retry(Reason::RequestTimeout),
                409 => retry(Reason::Conflict),
                425 => retry(Reason::TooEarly),
                429 => retry(Reason::TooManyRequests),
                410 => Verdict::EndpointGone,
                400 => rejected(Reason::BadRequest),
                413 => rejected(Reason::PayloadTooLarge),
                415 => rejected(Reason::UnsupportedMediaType),
                422 => rejected(Reason::Unprocessable),
                _ => rejected(Reason::ClientError),
            },
            503 => retry(Reason::Unavailable),
            500..600 => retry(Reason::ServerError),
            _ => retry(Reason::UnexpectedStatus),
        }
    }

    #[test]
    fn every_status_has_its_verdict() {
        // WH-11..13, HK-2
        for status in 100..=999 {
            assert_eq!(
                classify(&answer(status, None), DATE_MS),
                expected(status),
                "{status}"
            );
        }
    }

    #[test]
    fn transport_errors_retry_with_their_own_reason() {
        for (kind, reason) in [
            (TransportErrorKind::Address, Reason::Address),
            (TransportErrorKind::Dns, Reason::Dns),
            (TransportErrorKind::Connect, Reason::Connect),
            (TransportErrorKind::Tls, Reason::Tls),
            (TransportErrorKind::Timeout, Reason::Timeout),
            (TransportErrorKind::Reset, Reason::Reset),
            (TransportErrorKind::Protocol, Reason::Protocol),
        ] {
            let answer = Err(TransportError::new(kind, "x"));
            assert_eq!(classify(&answer, 0), retry(reason));
            assert_eq!(kind.as_str(), reason.as_str());
        }
        let answer = Err(TransportError::new(TransportErrorKind::Request, "x"));
        assert_eq!(
            classify(&answer, 0),
            Verdict::Rejected {
                reason: Reason::Request
            }
        );
    }

    #[test]
    fn retry_after_costs_no_attempt_only_where_it_holds_the_quota() {
        // WH-13, HT-2, rule 11
        let check = |status, value, wait: Option<u64>, costs| {
            let retry_after = wait.map(Duration::from_secs);
            let verdict = classify(&answer(status, Some(value)), DATE_MS);
            let Verdict::Retry {
                retry_after: got,
                costs_attempt,
                ..
            } = verdict
            else {
                panic!("{status}: {verdict:?}");
            };
            assert_eq!(
                (got, costs_attempt),
                (retry_after, costs),
                "{status} {value}"
            );
        };
        check(429, "120", Some(120), false);
        check(503, "120", Some(120), false);
        check(503, "Sun, 06 Nov 1994 08:50:37 GMT", Some(60), false);
        check(429, "0", Some(0), true);
        check(429, "Sun, 06 Nov 1994 08:49:36 GMT", Some(0), true);
        check(429, "soon", None, true);
        check(500, "120", Some(120), true);
        check(301, "120", Some(120), true);
    }

    #[test]
    fn retry_after_is_read_strictly() {
        // HT-1
        let check = |value, expected: Option<u64>| {
            assert_eq!(
                parse_retry_after(value, DATE_MS),
                expected.map(Duration::from_secs),
                "{value}"
            );
        };
        check("120", Some(120));
        check(" 7\t", Some(7));
        check("0", Some(0));
        check("86401", Some(86_400));
        check("99999999999999999999999", Some(86_400));
        check("-1", None);
        check("+1", None);
        check("1.5", None);
        check("", None);
        check("１", None);
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sunday, 06-Nov-94 08:49:47 GMT", Some(10));
        check("Sun Nov  6 08:49:47 1994", Some(10));
        check("Fri, 31 Dec 1993 23:59:59 GMT", Some(0));
        check("Fri, 31 Dec 1999 23:59:59 GMT", Some(86_400));
    }

    #[test]
    fn reasons_have_distinct_stable_texts() {
        let texts: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
        assert_eq!(Verdict::EndpointGone.reason(), Some(Reason::Gone));
        assert_eq!(Verdict::Delivered.reason(), None);
    }

    proptest! {
        #[test]
        fn no_retry_after_makes_it_panic_or_exceed_the_cap(value in ".*", now: i64) {
            if let Some(wait) = parse_retry_after(&value, now) {
                prop_assert!(wait <= RETRY_AFTER_MAX);
            }
        }
    }
}
