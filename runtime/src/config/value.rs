//! Owns how one option's value is written: sizes, durations, lists, choices.
//!
//! It must never show a secret. The surprise: a value may come as TOML or as the text of an
//! environment variable or a flag, and both are read by the same function.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value;

/// What stands where a secret is set.
const REDACTED: &str = "[secret]";

/// A type that an option can have.
pub trait Setting: Sized {
    /// What the reference calls it.
    const KIND: &'static str;
    /// Whether its value must never be shown.
    const SECRET: bool = false;
    /// Whether it is a table of names that the project does not know.
    const TABLE: bool = false;

    /// Reads it.
    ///
    /// # Errors
    /// What was expected, as the end of the sentence "expected …".
    fn read(value: &Value) -> Result<Self, String>;

    /// Writes it as [`Setting::read`] takes it, secrets redacted; `None` where it is not set.
    fn write(&self) -> Option<Value>;
}

/// A number of bytes, written with a binary unit: `64KiB`, `1MiB`, `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl ByteSize {
    /// `n` bytes.
    #[must_use]
    pub const fn b(n: u64) -> Self {
        Self(n)
    }

    /// `n` × 1,024 bytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` × 1,024² bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` × 1,024³ bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// As a number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// As a number of bytes, for lengths in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `10GiB`, `512B` or a bare number of bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '_')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let number: u64 = number.replace('_', "").parse().ok()?;
        let unit = unit.trim();
        let factor = match SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return None,
        };
        number.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        match SIZE_UNITS.iter().find(fits) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = "size";

    fn read(value: &Value) -> Result<Self, String> {
        let bare = value
            .as_integer()
            .and_then(|bytes| u64::try_from(bytes).ok());
        let size = bare
            .map(Self)
            .or_else(|| value.as_str().and_then(Self::parse));
        size.ok_or_else(|| "a size such as `64KiB` or `1MiB`".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Reads `250ms`, `10s`, `1h30m`; a number without a unit is refused.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut micros = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters)?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        micros = micros.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = behind;
    }
    Some(Duration::from_micros(micros))
}

/// Writes a duration in the largest unit that holds it whole.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| micros >= *factor && micros.is_multiple_of(*factor);
    match TIME_UNITS.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", micros / factor),
        None => "0s".to_owned(),
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";

    fn read(value: &Value) -> Result<Self, String> {
        let expected = || "a duration with its unit, such as `250ms`, `10s` or `7d`".to_owned();
        value.as_str().and_then(parse_duration).ok_or_else(expected)
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(show_duration(*self)))
    }
}

impl Setting for bool {
    const KIND: &'static str = "boolean";

    fn read(value: &Value) -> Result<Self, String> {
        let text = || value.as_str().and_then(|text| text.trim().parse().ok());
        let parsed = value.as_bool().or_else(text);
        parsed.ok_or_else(|| "`true` or `false`".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Setting for $number {
            const KIND: &'static str = "number";

            fn read(value: &Value) -> Result<Self, String> {
                let parsed = match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::String(text) => text.trim().replace('_', "").parse().ok(),
                    _ => None,
                };
                parsed.ok_or_else(|| format!("a whole number from 0 to {}", Self::MAX))
            }

            fn write(&self) -> Option<Value> {
                Some(i64::try_from(*self).map_or_else(
                    |_| Value::String(self.to_string()),
                    Value::Integer,
                ))
            }
        }
    )+};
}

numbers!(u16, u32, u64, usize);

impl Setting for String {
    const KIND: &'static str = "text";

    fn read(value: &Value) -> Result<Self, String> {
        let number = || value.as_integer().map(|number| number.to_string());
        let text = value.as_str().map(str::to_owned).or_else(number);
        text.ok_or_else(|| "a text".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.clone()))
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";

    fn read(value: &Value) -> Result<Self, String> {
        let path = value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(Self::from);
        path.ok_or_else(|| "a path".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.display().to_string()))
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "address";

    fn read(value: &Value) -> Result<Self, String> {
        let address = value.as_str().and_then(|text| text.trim().parse().ok());
        address.ok_or_else(|| "an IP address and a port, such as `127.0.0.1:8080`".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl Setting for SecretString {
    const KIND: &'static str = "secret";
    const SECRET: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        let secret = value.as_str().filter(|text| !text.trim().is_empty());
        secret
            .map(|text| text.trim().into())
            .ok_or_else(|| "a secret text".to_owned())
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(REDACTED.to_owned()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = T::SECRET;

    fn read(value: &Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn write(&self) -> Option<Value> {
        self.as_ref().and_then(Setting::write)
    }
}

/// A list: in TOML an array; in the environment and in flags the same, or texts between commas.
impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = "list";
    const SECRET: bool = T::SECRET;

    fn read(value: &Value) -> Result<Self, String> {
        let items = match (value.as_array(), value.as_str()) {
            (Some(items), _) => items.clone(),
            (None, Some(text)) => split_list(text)?,
            (None, None) => return Err(format!("a list, each {}", T::KIND)),
        };
        let each =
            |item: &Value| T::read(item).map_err(|expected| format!("a list, each {expected}"));
        items.iter().map(each).collect()
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Array(
            self.iter().filter_map(Setting::write).collect(),
        ))
    }
}

fn split_list(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim();
    if text.starts_with('[') {
        let table = format!("list = {text}").parse::<toml::Table>();
        let list = table.ok().and_then(|mut table| table.remove("list"));
        return match list {
            Some(Value::Array(items)) => Ok(items),
            _ => Err("a list such as `[1, 2]` or `1,2`".to_owned()),
        };
    }
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    Ok(parts.map(|part| Value::String(part.to_owned())).collect())
}

/// Names and values that are passed on as they are. Those that look like secrets are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Each name with its value, secrets included: to hand on, never to print.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| {
            (
                name,
                if is_secret_property(name) {
                    REDACTED
                } else {
                    value
                },
            )
        })
    }
}

/// librdkafka's secrets: passwords, keys, SASL's OAuth secrets and JAAS texts.
fn is_secret_property(name: &str) -> bool {
    [
        "password",
        "secret",
        "key",
        "jaas",
        "token",
        "oauthbearer.config",
        "assertion",
    ]
    .iter()
    .any(|part| name.contains(part))
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Setting for Properties {
    const KIND: &'static str = "table";
    const TABLE: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        let Value::Table(table) = value else {
            return Err("a table of names and values".to_owned());
        };
        let each = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                Ok((name.clone(), value.to_string()))
            }
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                Err(format!("a text, a number or a boolean at `{name}`"))
            }
        };
        table.iter().map(each).collect()
    }

    fn write(&self) -> Option<Value> {
        let pairs = self
            .shown()
            .map(|(name, value)| (name.to_owned(), Value::String(value.into())));
        Some(Value::Table(pairs.collect()))
    }
}

/// Defines an enum that an option chooses from.
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$value_meta:meta])* $value:ident => $text:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_meta])* $value,)+
        }

        impl $name {
            /// The text in the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl $crate::config::Setting for $name {
            const KIND: &'static str = concat!("one of" $(, " `", $text, "`")+);

            fn read(value: &::toml::Value) -> ::std::result::Result<Self, ::std::string::String> {
                match value.as_str() {
                    $(Some($text) => Ok(Self::$value),)+
                    _ => Err(["one of", $(concat!(" `", $text, "`")),+].concat()),
                }
            }

            fn write(&self) -> ::std::option::Option<::toml::Value> {
                Some(::toml::Value::String(self.as_str().to_owned()))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in a table")]
    fn check<T: Setting + PartialEq + fmt::Debug>(text: &str, expected: Option<T>) {
        assert_eq!(
            T::read(&Value::String(text.into())).ok(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        check("1MiB", Some(ByteSize::mib(1)));
        check("10 gib", Some(ByteSize::gib(10)));
        check("4_096", Some(ByteSize::kib(4)));
        check::<ByteSize>("1MB", None);
        check::<ByteSize>("-1", None);
        check::<ByteSize>("99999999TiB", None);
        check("250ms", Some(Duration::from_millis(250)));
        check("1h30m", Some(Duration::from_secs(5_400)));
        check::<Duration>("10", None);
        check::<Duration>("s", None);
        check::<Duration>("", None);
        check::<Duration>("10 weeks", None);
        assert!(
            Duration::read(&Value::Integer(10)).is_err(),
            "a number has no unit"
        );
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn lists_are_arrays_or_texts_between_commas() {
        check("443, 8443", Some(vec![443_u16, 8_443]));
        check("[443,8443]", Some(vec![443_u16, 8_443]));
        check("", Some(Vec::<u16>::new()));
        check::<Vec<u16>>("443,x", None);
        check::<Vec<u16>>("[443", None);
        check("a:1,b:2", Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
    }

    #[test]
    fn secrets_are_never_shown() {
        let secret = SecretString::from("hunter2");
        assert_eq!(secret.write(), Some(Value::String(REDACTED.into())));
        let pairs = [("sasl.password", "hunter2"), ("sasl.username", "me")];
        let properties: Properties = pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for text in [
            format!("{properties:?}"),
            properties.write().unwrap().to_string(),
        ] {
            assert!(!text.contains("hunter2") && text.contains("me"), "{text}");
        }
        assert_eq!(properties.get("sasl.password"), Some("hunter2"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, micros in 0_u64..u64::MAX / 2) {
            let size = ByteSize::b(bytes);
            prop_assert_eq!(ByteSize::read(&size.write().unwrap()), Ok(size));
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(Duration::read(&duration.write().unwrap()), Ok(duration));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,20}") {
            drop((ByteSize::parse(&text), parse_duration(&text), split_list(&text)));
        }
    }
}
