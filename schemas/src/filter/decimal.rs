//! Owns numbers as the decimals that they are written as: `1`, `1.0` and `10e-1` are one number,
//! `9007199254740993` and `9007199254740992` are two.
//!
//! Never rounds, never allocates. The surprise: exponents beyond [`EXPONENT_MAX`] are taken for
//! that, so two numbers that no universe can hold may be found equal.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// Larger exponents are taken for this one.
const EXPONENT_MAX: i64 = 1_000_000_000_000_000;

/// A number, as its significant digits lie in the text.
#[derive(Debug, Clone, Copy)]
pub struct Decimal<'a> {
    negative: bool,
    /// The number is 0.DIGITS times ten to the power of this; 0 for zero.
    exponent: i64,
    /// The digits, without zeros at the beginning of the first or at the end of the last.
    digits: [&'a [u8]; 2],
}

impl<'a> Decimal<'a> {
    /// Reads a number as JSON writes it; `None` where it is none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (negative, rest) = text
            .strip_prefix('-')
            .map_or((false, text), |rest| (true, rest));
        let (mantissa, power) = match rest.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, exponent(power)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let ended = fraction.trim_end_matches('0');
        let (first, second, shift) = if whole.is_empty() {
            let first = ended.trim_start_matches('0');
            (first, "", -length(ended.len() - first.len()))
        } else if ended.is_empty() {
            (whole.trim_end_matches('0'), "", length(whole.len()))
        } else {
            (whole, ended, length(whole.len()))
        };
        let is_zero = first.is_empty();
        Some(Self {
            negative: negative && !is_zero,
            exponent: if is_zero { 0 } else { power + shift },
            digits: [first.as_bytes(), second.as_bytes()],
        })
    }

    fn digits(&self) -> impl Iterator<Item = &'a u8> + use<'a> {
        let [first, second] = self.digits;
        first.iter().chain(second)
    }

    fn is_zero(&self) -> bool {
        self.digits.iter().all(|digits| digits.is_empty())
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.is_zero(), self.negative) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => -1,
        }
    }
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(EXPONENT_MAX)
}

fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // All digits: it can only be too large.
    let size = digits.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let sizes = || {
            let digits = || self.digits().cmp(other.digits());
            self.exponent.cmp(&other.exponent).then_with(digits)
        };
        self.sign()
            .cmp(&other.sign())
            .then_with(|| match self.sign() {
                0 => Ordering::Equal,
                1 => sizes(),
                _ => sizes().reverse(),
            })
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal<'_> {}

impl Hash for Decimal<'_> {
    /// What is equal hashes alike, however it is written.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_i8(self.sign());
        state.write_i64(self.exponent);
        self.digits().for_each(|digit| state.write_u8(*digit));
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    fn check(left: &str, expected: Ordering, right: &str) {
        let parse = |text| Decimal::parse(text).unwrap_or_else(|| panic!("{text}"));
        let (a, b) = (parse(left), parse(right));
        assert_eq!(a.cmp(&b), expected, "{left} {right}");
        assert_eq!(b.cmp(&a), expected.reverse(), "{right} {left}");
        let state = foldhash::fast::FixedState::default();
        if a == b {
            assert_eq!(state.hash_one(a), state.hash_one(b), "{left} {right}");
        }
    }

    #[test]
    fn numbers_are_compared_as_they_are_written() {
        use Ordering::{Equal, Greater, Less};
        for (left, expected, right) in [
            ("1", Equal, "1.0"),
            ("1", Equal, "10e-1"),
            ("1", Equal, "0.1E1"),
            ("100", Equal, "1e+2"),
            ("-0", Equal, "0.000"),
            ("0e9", Equal, "0"),
            ("12.50", Equal, "12.5"),
            ("0.1", Less, "0.10000000000000000000001"),
            ("9007199254740993", Greater, "9007199254740992"),
            ("-2", Less, "-1"),
            ("-1", Less, "0"),
            ("0", Less, "1e-400"),
            ("1e400", Greater, "9e399"),
            ("1e400", Less, "1e401"),
            ("1.5", Greater, "1.49"),
            ("15", Greater, "1.5"),
            ("105", Less, "150"),
            ("1e99999999999999999999", Equal, "1e99999999999999999998"),
        ] {
            check(left, expected, right);
        }
        for text in ["", "-", "a", "1.2.3", "1e", "1e+", ".5", "1e1.5", "--1"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn they_order_as_integers_of_one_scale(
            (a, b) in (-100_000_i64..100_000, -100_000_i64..100_000),
            (up, down) in (0_usize..4, 0_usize..4),
        ) {
            // a thousandths, written in two ways.
            let plain = |number: i64| format!("{number}e-3");
            let spread = |number: i64| {
                let sign = if number < 0 { "-" } else { "" };
                let size = number.unsigned_abs();
                let (whole, rest) = (size / 1_000, size % 1_000);
                format!("{sign}{whole}.{rest:03}{}", "0".repeat(up))
            };
            let shifted = |number: i64| format!("{number}{}e-{}", "0".repeat(down), 3 + down);
            for (left, right) in [(plain(a), spread(b)), (spread(a), shifted(b))] {
                check(&left, a.cmp(&b), &right);
            }
        }
    }
}
