//! Owns JSON's tokens as places in bytes: where a value ends, and whether it is one (RFC 8259).
//!
//! Never builds a value, never recurses, never panics. The surprise: strings are passed eight bytes
//! at a time, and what bytes mean as UTF-8 is somebody else's to check.

/// How deep objects and arrays may be nested.
pub(crate) const DEPTH_MAX: usize = 127;

/// What is behind so many ordinary letters of a string is likely to be many more.
const LONG: usize = 32;

/// The first place at or behind `at` that is not white space.
#[inline]
pub(crate) fn blank(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The place behind a string whose first letter is at `at`, and whether it has an escape.
#[inline]
pub(crate) fn string(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        let long = at + LONG;
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let special = special(u64::from_le_bytes(*chunk));
            if special != 0 {
                // At most 7.
                at += usize::try_from(special.trailing_zeros() / 8).unwrap_or(0);
                break;
            }
            at += 8;
            if at == long {
                at = plain(bytes, at);
            }
        }
        match *bytes.get(at)? {
            b'"' => return Some((at + 1, escaped)),
            b'\\' => {
                escaped = true;
                at = escape(bytes, at + 1)?;
            }
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// A place behind `at` before which nothing ends a run of ordinary letters: long texts are passed in
/// pieces that the processor compares at once.
#[inline(never)]
fn plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        let ends = |byte: &u8| (*byte == b'"') | (*byte == b'\\') | (*byte < 0x20);
        if chunk.iter().fold(false, |any, byte| any | ends(byte)) {
            break;
        }
        at += 32;
    }
    at
}

/// The high bit of each byte that ends a run of ordinary letters: a quote, a backslash, a control
/// character. Bits above the lowest one may be wrong.
#[inline]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGH
}

/// The place behind an escape whose letter is at `at`.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = bytes.get(at + 1..at + 5)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
        }
        _ => None,
    }
}

/// The place behind a number that begins at `at`.
#[inline]
pub(crate) fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match bytes.get(at)? {
        b'0' => at + 1,
        _ => digits(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    Some(at)
}

/// The place behind one digit or more.
#[inline]
fn digits(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    (at > from).then_some(at)
}

/// The place behind `word`, which must be at `at`.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let end = at + word.len();
    (bytes.get(at..end)? == word).then_some(end)
}

/// Behind a member's name, whose end is at `at`: the place of its value.
#[inline]
pub(crate) fn colon(bytes: &[u8], at: usize) -> Option<usize> {
    let at = blank(bytes, at);
    (bytes.get(at) == Some(&b':')).then(|| blank(bytes, at + 1))
}

/// The place of the value of the member whose name begins at `at`.
#[inline]
fn member(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let (end, _) = string(bytes, at + 1)?;
    colon(bytes, end)
}

/// The place behind a value without parts that begins at `at`.
#[inline]
fn scalar(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at + 1).map(|(end, _)| end),
        b'-' | b'0'..=b'9' => number(bytes, at),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => None,
    }
}

/// The place behind the value that begins at `at`, inside `depth` objects and arrays.
pub(crate) fn skip(bytes: &[u8], mut at: usize, depth: usize) -> Option<usize> {
    // What is open, the innermost in the lowest bit: 1 for an object. DEPTH_MAX bits are enough.
    let (mut kinds, mut open) = (0_u128, 0);
    loop {
        at = match bytes.get(at)? {
            byte @ (b'{' | b'[') => {
                if depth + open >= DEPTH_MAX {
                    return None;
                }
                let is_object = *byte == b'{';
                let inner = blank(bytes, at + 1);
                let closer = if is_object { b'}' } else { b']' };
                if bytes.get(inner) == Some(&closer) {
                    inner + 1
                } else {
                    kinds = (kinds << 1) | u128::from(is_object);
                    open += 1;
                    at = if is_object {
                        member(bytes, inner)?
                    } else {
                        inner
                    };
                    continue;
                }
            }
            _ => scalar(bytes, at)?,
        };
        // A value has ended: what it is in may end too.
        loop {
            if open == 0 {
                return Some(at);
            }
            let is_object = kinds & 1 == 1;
            at = blank(bytes, at);
            match bytes.get(at)? {
                b',' => {
                    at = blank(bytes, at + 1);
                    if is_object {
                        at = member(bytes, at)?;
                    }
                    break;
                }
                b'}' if is_object => {}
                b']' if !is_object => {}
                _ => return None,
            }
            kinds >>= 1;
            open -= 1;
            at += 1;
        }
    }
}

/// Appends the text of a string with escapes; `None` where it holds half of a surrogate pair, which
/// is no text.
pub(crate) fn unescape(raw: &str, out: &mut String) -> Option<()> {
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut letters = escape.chars();
        let (letter, behind) = match letters.next()? {
            'b' => ('\u{8}', letters.as_str()),
            'f' => ('\u{c}', letters.as_str()),
            'n' => ('\n', letters.as_str()),
            'r' => ('\r', letters.as_str()),
            't' => ('\t', letters.as_str()),
            'u' => unicode(letters.as_str())?,
            other => (other, letters.as_str()),
        };
        out.push(letter);
        rest = behind;
    }
    out.push_str(rest);
    Some(())
}

/// The letter of four digits, or of two times four with `\u` between, and what is behind it.
fn unicode(text: &str) -> Option<(char, &str)> {
    let (first, rest) = unit(text)?;
    if let Some(letter) = char::from_u32(first) {
        return Some((letter, rest));
    }
    let (second, rest) = unit(rest.strip_prefix("\\u")?)?;
    let is_pair = (0xD800..0xDC00).contains(&first) && (0xDC00..0xE000).contains(&second);
    let letter = is_pair.then(|| 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00));
    letter.and_then(char::from_u32).map(|letter| (letter, rest))
}

fn unit(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let value = u32::from_str_radix(digits, 16).ok()?;
    Some((value, rest))
}
