//! Owns what members of one object must be to each other, where each alone is right.

use serde_json::{Map, Value};

/// The longest that a window's burst may take to be whole again: a leap year.
const WHOLE_AGAIN_MS_MAX: u64 = 366 * 86_400_000;
const NANOS_PER_MS: u64 = 1_000_000;
const SECOND_MS: u64 = 1_000;

/// The members of `body` that contradict others, and how.
pub(super) fn broken(body: &Map<String, Value>) -> impl Iterator<Item = (&'static str, String)> {
    [
        types_and_filters(body),
        window(body),
        user_name(body),
        key_header(body),
    ]
    .into_iter()
    .flatten()
}

fn given<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn number(body: &Map<String, Value>, name: &str) -> Option<u64> {
    given(body, name).and_then(Value::as_u64)
}

fn types_and_filters(body: &Map<String, Value>) -> Option<(&'static str, String)> {
    (given(body, "types").is_some() && given(body, "filters").is_some())
        .then(|| ("types", "cannot be given beside `filters`".to_owned()))
}

/// A rate window: nobody waits for a part of a nanosecond or for ever.
fn window(body: &Map<String, Value>) -> Option<(&'static str, String)> {
    let count = number(body, "count").filter(|count| *count > 0)?;
    let per_ms = number(body, "per_ms").unwrap_or(SECOND_MS);
    if per_ms.saturating_mul(NANOS_PER_MS) < count {
        return Some(("count", "is more than one a nanosecond".to_owned()));
    }
    let burst = number(body, "burst").unwrap_or(1);
    if burst.saturating_mul(per_ms) / count > WHOLE_AGAIN_MS_MAX {
        return Some(("burst", "takes more than a year to come back".to_owned()));
    }
    number(body, "offset_ms")
        .filter(|offset| *offset >= per_ms)
        .map(|_| ("offset_ms", "must be less than `per_ms`".to_owned()))
}

/// A colon ends the name in `Authorization: Basic` (RFC 7617 §2).
fn user_name(body: &Map<String, Value>) -> Option<(&'static str, String)> {
    given(body, "username")
        .and_then(Value::as_str)
        .filter(|name| name.contains(':'))
        .map(|_| ("username", "must not have a colon".to_owned()))
}

/// The header of an API key is sent once.
fn key_header(body: &Map<String, Value>) -> Option<(&'static str, String)> {
    let key = given(body, "authentication")?.get("header")?.as_str()?;
    let Some(Value::Array(headers)) = given(body, "headers") else {
        return None;
    };
    let is_key = |header: &&Value| {
        let name = header.get("name").and_then(Value::as_str);
        name.is_some_and(|name| name.eq_ignore_ascii_case(key))
    };
    headers
        .iter()
        .find(is_key)
        .map(|_| ("headers", format!("`{key}` is in `authentication` already")))
}
