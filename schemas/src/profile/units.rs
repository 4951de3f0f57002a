//! Owns how sizes and times are written in a profile: as a number, or as one with its unit.

use std::num::{NonZeroU32, NonZeroU64};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Bytes: `1048576`, `"512 KiB"`, `"4 MB"`.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    bytes_of(&value).ok_or_else(|| D::Error::custom(BYTES))
}

/// Seconds: `5`, `"5 s"`, `"10 min"`, `"24 h"`.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let value = Value::deserialize(deserializer)?;
    seconds_of(&value).ok_or_else(|| D::Error::custom(SECONDS))
}

/// What is no size.
pub(super) const BYTES: &str =
    "must be a number of bytes above 0, or one with a unit: B, KB, KiB, MB, MiB";
/// What is no time.
pub(super) const SECONDS: &str =
    "must be a number of seconds above 0, or one with a unit: s, min, h";

pub(super) fn bytes_of(value: &Value) -> Option<NonZeroU64> {
    let (number, unit) = parts(value)?;
    let factor = match unit {
        "" | "B" => 1,
        "KB" => 1_000,
        "KiB" => 1_024,
        "MB" => 1_000_000,
        "MiB" => 1_048_576,
        _ => return None,
    };
    NonZeroU64::new(number.checked_mul(factor)?)
}

pub(super) fn seconds_of(value: &Value) -> Option<NonZeroU32> {
    let (number, unit) = parts(value)?;
    let factor = match unit {
        "" | "s" => 1,
        "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    NonZeroU32::new(u32::try_from(number.checked_mul(factor)?).ok()?)
}

fn parts(value: &Value) -> Option<(u64, &str)> {
    if let Some(number) = value.as_u64() {
        return Some((number, ""));
    }
    let text = value.as_str()?.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        let bytes = |value: Value| bytes_of(&value).map(NonZeroU64::get);
        assert_eq!(bytes(json!(1024)), Some(1024));
        assert_eq!(bytes(json!("1 MiB")), Some(1_048_576));
        assert_eq!(bytes(json!("4MB")), Some(4_000_000));
        let wrong = [
            json!("1 GB"),
            json!("x"),
            json!(0),
            json!(-1),
            json!("99999999999999999999 MB"),
        ];
        assert!(wrong.into_iter().all(|value| bytes(value).is_none()));
        let seconds = |value: Value| seconds_of(&value).map(NonZeroU32::get);
        assert_eq!(
            [seconds(json!(5)), seconds(json!("10 min"))],
            [Some(5), Some(600)]
        );
        assert_eq!(
            [seconds(json!("24 h")), seconds(json!("1 d"))],
            [Some(86_400), None]
        );
    }
}
