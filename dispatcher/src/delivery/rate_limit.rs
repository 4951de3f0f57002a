//! Owns how an answer says what is left of the endpoint's limit: `RateLimit` with
//! `RateLimit-Policy` (HT-9, HT-10), and the older `X-RateLimit-*` headers.
//!
//! Pure. What is malformed is ignored, and nothing here is believed for longer than a day. The
//! surprise: several policies may be said at once; what counts is the one with the least left.

use std::time::Duration;

use http::HeaderMap;

/// The longest time until a reset that is believed.
const RESET_MAX: Duration = Duration::from_hours(24);
/// A number from here on is a time of the clock and not a wait: seconds since 2001.
const EPOCH_MIN: u64 = 1_000_000_000;
/// The most policies that are looked at.
const POLICIES_MAX: usize = 16;

/// So many requests are left for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests.
    pub requests: u64,
    /// When there are more.
    pub reset: Reset,
}

/// When a limit is whole again, as it was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reset {
    /// So long after the answer.
    After(Duration),
    /// At this time, unix milliseconds.
    At(u64),
}

impl Left {
    /// The wait until there are more, for an answer received at `received_at_ms` (unix
    /// milliseconds): a time gone by is none, and none is longer than a day.
    #[must_use]
    pub fn wait(&self, received_at_ms: i64) -> Duration {
        let now_ms = u64::try_from(received_at_ms).unwrap_or(0);
        let wait = match self.reset {
            Reset::After(wait) => wait,
            Reset::At(at_ms) => Duration::from_millis(at_ms.saturating_sub(now_ms)),
        };
        wait.min(RESET_MAX)
    }
}

/// What is left by the headers of an answer; the standard's count before the older ones.
#[must_use]
pub fn left(headers: &HeaderMap) -> Option<Left> {
    standard(headers).or_else(|| older(headers))
}

/// The wait that an answer asks for: `Retry-After`, which takes precedence (HT-10), or
/// `X-RateLimit-Retry-After`.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<&str> {
    text(headers, "retry-after").or_else(|| text(headers, "x-ratelimit-retry-after"))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// `RateLimit: "burst";r=50;t=30, "daily";r=900`; a reset that is not said is the policy's window.
fn standard(headers: &HeaderMap) -> Option<Left> {
    let said = members(headers, "ratelimit")?;
    let policies = members(headers, "ratelimit-policy").unwrap_or_default();
    let window = |name: &str| {
        let policy = policies.iter().find(|policy| policy.name == name)?;
        // Only requests are counted here.
        let counted = policy.unit.as_deref().is_none_or(|unit| unit == "requests");
        policy.number("w").filter(|_| counted)
    };
    let requests_only = |name: &str| {
        policies
            .iter()
            .filter(|policy| policy.name == name)
            .all(|policy| policy.unit.as_deref().is_none_or(|unit| unit == "requests"))
    };
    said.iter()
        .filter(|item| requests_only(&item.name))
        .filter_map(|item| {
            let reset = item.number("t").or_else(|| window(&item.name))?;
            Some(Left {
                requests: item.number("r")?,
                reset: Reset::After(Duration::from_secs(reset)),
            })
        })
        .min_by_key(|left| (left.requests, std::cmp::Reverse(left.reset)))
}

/// `X-RateLimit-Remaining` and `X-RateLimit-Reset`: seconds, or the unix time in seconds or
/// milliseconds.
fn older(headers: &HeaderMap) -> Option<Left> {
    let number = |name: &str| digits(text(headers, name)?.trim());
    let requests = number("x-ratelimit-remaining").or_else(|| number("x-rate-limit-remaining"))?;
    let reset = number("x-ratelimit-reset").or_else(|| number("x-rate-limit-reset"))?;
    let reset = match reset {
        wait if wait < EPOCH_MIN => Reset::After(Duration::from_secs(wait)),
        at if at < EPOCH_MIN * 1_000 => Reset::At(at.saturating_mul(1_000)),
        at_ms => Reset::At(at_ms),
    };
    Some(Left { requests, reset })
}

/// One member of a structured list: a string or token, and parameters.
struct Item {
    name: String,
    unit: Option<String>,
    numbers: Vec<(String, u64)>,
}

impl Item {
    fn number(&self, key: &str) -> Option<u64> {
        let of = |(name, number): &(String, u64)| (name == key).then_some(*number);
        self.numbers.iter().find_map(of)
    }
}

/// The list that a header holds, all of its lines in order; `None` where any of it is malformed
/// (RFC 9651 §4.2: parsing fails as a whole).
fn members(headers: &HeaderMap, name: &str) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    for line in headers.get_all(name) {
        for member in split(line.to_str().ok()?, ',') {
            if items.len() == POLICIES_MAX {
                return None;
            }
            items.push(item(member)?);
        }
    }
    Some(items).filter(|items| !items.is_empty())
}

fn item(member: &str) -> Option<Item> {
    let mut parts = split(member, ';').into_iter().map(str::trim);
    let name = word(parts.next()?)?;
    let mut item = Item {
        name,
        unit: None,
        numbers: Vec::new(),
    };
    for part in parts {
        let (key, value) = part.split_once('=')?;
        match key {
            "qu" => item.unit = Some(word(value)?),
            "q" | "w" | "r" | "t" => item.numbers.push((key.to_owned(), digits(value)?)),
            // `pk` and what later versions add.
            _ => {}
        }
    }
    Some(item)
}

/// A string in quotes without escapes, or a token.
fn word(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    (!inner.is_empty() && inner.bytes().all(plain)).then(|| inner.to_owned())
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Fifteen digits are what a structured integer may have.
    (all && text.len() <= 15).then(|| text.parse().ok())?
}

/// Splits outside of quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        quoted ^= c == '"';
        c == at && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: i64 = 1_795_331_700_000;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn check(pairs: &[(&str, &str)], expected: Option<(u64, u64)>) {
        let left = left(&headers(pairs));
        let found = left.map(|left| (left.requests, left.wait(NOW_MS).as_secs()));
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn what_is_left_is_read_from_the_standards_headers() {
        // HT-9, HT-10
        check(&[("ratelimit", "\"default\";r=50;t=30")], Some((50, 30)));
        check(&[("ratelimit", "default;r=0;t=7")], Some((0, 7)));
        check(
            &[("ratelimit", "\"burst\";r=9;t=2, \"daily\";r=3;t=4000")],
            Some((3, 4_000)),
        );
        check(
            &[
                ("ratelimit", "\"burst\";r=9;t=2"),
                ("ratelimit", "\"a;b,c\";r=1;t=5"),
            ],
            Some((1, 5)),
        );
        let policy = (
            "ratelimit-policy",
            "\"burst\";q=100;w=60,\"daily\";q=1000;w=86400",
        );
        check(&[("ratelimit", "\"burst\";r=4"), policy], Some((4, 60)));
        check(&[("ratelimit", "\"burst\";r=4")], None);
        let bytes = ("ratelimit-policy", "\"b\";q=100;w=60;qu=\"content-bytes\"");
        check(&[("ratelimit", "\"b\";r=0;t=60"), bytes], None);
        check(&[("ratelimit", "\"b\";r=1;t=99999999")], Some((1, 86_400)));
        check(&[("ratelimit", "\"b\";r=1;t=9;pk=:YQ==:")], Some((1, 9)));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        // HT-10
        for value in [
            "",
            "\"default\"",
            "\"default;r=50;t=30",
            "\"default\";r=-1;t=30",
            "\"default\";r=5.5;t=30",
            "\"default\";r=50;t",
            "\"default\";t=30",
            ";r=1;t=1",
            "\"a\";r=1;t=1,",
            "\"a\";r=9999999999999999;t=1",
        ] {
            check(&[("ratelimit", value)], None);
        }
    }

    #[test]
    fn the_older_headers_are_read_as_waits_or_times() {
        let check_reset = |reset: &str, expected| {
            let remaining = ("x-ratelimit-remaining", "5");
            check(&[remaining, ("x-ratelimit-reset", reset)], expected);
        };
        check_reset("30", Some((5, 30)));
        check_reset("1795331760", Some((5, 60)));
        check_reset("1795331760000", Some((5, 60)));
        check_reset("1795331000", Some((5, 0)));
        check_reset("99999999", Some((5, 86_400)));
        check_reset("soon", None);
        check(&[("x-ratelimit-remaining", "5")], None);
        let both = [
            ("x-rate-limit-remaining", "5"),
            ("x-rate-limit-reset", "3"),
            ("ratelimit", "\"a\";r=8;t=2"),
        ];
        check(&both, Some((8, 2)));
        check(both.get(..2).unwrap(), Some((5, 3)));
    }

    #[test]
    fn retry_after_takes_precedence() {
        // HT-10
        let older = ("x-ratelimit-retry-after", "7");
        assert_eq!(retry_after(&headers(&[older])), Some("7"));
        let both = headers(&[older, ("retry-after", "3")]);
        assert_eq!(retry_after(&both), Some("3"));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_believe_more_than_a_day(
            values in proptest::collection::vec("[ -~]{0,40}", 0..4),
            numbers in proptest::collection::vec("[0-9]{1,18}", 2),
            now in any::<i64>(),
        ) {
            let mut map = headers(&[
                ("x-ratelimit-remaining", numbers[0].as_str()),
                ("x-ratelimit-reset", numbers[1].as_str()),
            ]);
            for value in &values {
                map.append("ratelimit", HeaderValue::from_str(value).unwrap());
            }
            if let Some(left) = left(&map) {
                prop_assert!(left.wait(now) <= RESET_MAX);
            }
        }
    }
}
