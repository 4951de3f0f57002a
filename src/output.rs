//! Owns standard output: what a command was asked for goes there, line by line. Logs and notes go
//! to standard error.
//!
//! It must never be used by a service for logs. The surprise: a reader that has gone (`| head`) is
//! an error here, which ends the command, quietly.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one line to standard output.
///
/// # Errors
/// The system's, where nobody reads any more.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes text that has its own line ends.
///
/// # Errors
/// The system's, where nobody reads any more.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether `error` says that nobody reads standard output any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes one line for the person at the terminal to standard error.
pub(crate) fn note(text: impl Display) {
    // Where notes cannot be read, nothing can be said about that either.
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Says why the command ends.
pub(crate) fn error(text: &str) {
    note(format_args!("anabranch: {text}"));
}

/// The time of day in UTC, `HH:MM:SS.mmm`, of unix milliseconds.
pub(crate) fn time_of_day(millis: i64) -> String {
    let of_day = millis.rem_euclid(86_400_000);
    let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}

/// `text` without anything that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_read_well() {
        assert_eq!(time_of_day(86_400_000 + 3_723_004), "01:02:03.004");
        assert_eq!(time_of_day(-1), "23:59:59.999");
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
