//! Owns how a rate window is said in a flag: `COUNT/TIME[,sliding|fixed][,items][,burst=N][,offset=TIME]`.

use serde_json::{Map, Value};

use crate::settings::Usage;

/// The window that `text` says, as the API takes it.
///
/// # Errors
/// What cannot be read; the API judges the values.
pub(super) fn window(text: &str) -> Result<Value, Usage> {
    let wrong = || {
        Usage(format!(
            "`--limit {text}`: expected e.g. `50/1s`, `5000/1m,sliding` or \
             `100000/1d,fixed,items,offset=9h`; `burst=N` lets N come at once"
        ))
    };
    let mut parts = text.split(',');
    let (count, per) = parts
        .next()
        .and_then(|first| first.split_once('/'))
        .ok_or_else(wrong)?;
    let mut window = Map::new();
    let count: u64 = count.trim().parse().map_err(|_| wrong())?;
    window.insert("count".to_owned(), count.into());
    window.insert("per_ms".to_owned(), millis(per).ok_or_else(wrong)?.into());
    for part in parts {
        let (name, value) = match part.trim().split_once('=') {
            None => match part.trim() {
                kind @ ("spread" | "sliding" | "fixed") => ("kind", Value::from(kind)),
                unit @ ("requests" | "items") => ("unit", Value::from(unit)),
                _ => return Err(wrong()),
            },
            Some(("burst", burst)) => {
                let burst: u64 = burst.parse().map_err(|_| wrong())?;
                ("burst", burst.into())
            }
            Some(("offset", offset)) => ("offset_ms", millis(offset).ok_or_else(wrong)?.into()),
            Some(_) => return Err(wrong()),
        };
        window.insert(name.to_owned(), value);
    }
    Ok(Value::Object(window))
}

/// `500ms`, `1s`, `5m`, `1h`, `1d`; a unit alone means one of it.
pub(super) fn millis(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let number: u64 = if number.is_empty() {
        1
    } else {
        number.parse().ok()?
    };
    number.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: &Option<Value>) {
        assert_eq!(&window(text).ok(), expected, "{text}");
    }

    #[test]
    fn windows_are_said_in_one_word() {
        check("50/1s", &Some(json!({"count": 50, "per_ms": 1_000})));
        check("50/s", &Some(json!({"count": 50, "per_ms": 1_000})));
        check(
            "5000/1m,sliding",
            &Some(json!({"count": 5_000, "per_ms": 60_000, "kind": "sliding"})),
        );
        check(
            "100000/1d,fixed,items,offset=9h",
            &Some(json!({
                "count": 100_000, "per_ms": 86_400_000, "kind": "fixed", "unit": "items",
                "offset_ms": 32_400_000,
            })),
        );
        check(
            "9/500ms,burst=3",
            &Some(json!({"count": 9, "per_ms": 500, "burst": 3})),
        );
        for wrong in [
            "",
            "5",
            "5/",
            "5/1",
            "x/1s",
            "5/1w",
            "5/1s,fast",
            "5/1s,burst=x",
            "-1/1s",
        ] {
            check(wrong, &None);
        }
    }
}
