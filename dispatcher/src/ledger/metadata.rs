//! Owns the text that is committed with a position: which targets beyond it are completed, and
//! from where the marks must be read again.
//!
//! Form, before base64: version, the marks' distance below the position, then the lengths of
//! alternating stretches of open and completed offsets from the position on, then a bitmap for each
//! partly completed record. All numbers are LEB128.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Ledger, MAX_METADATA_BYTES};

const VERSION: u8 = 1;
const NO_MARKS: u64 = 0;
/// Stands between a text and its stamp; no character of base64.
const STAMP_MARK: char = ':';
/// What a stamp takes.
const STAMP_BYTES: usize = 17;
/// The most bytes of text before a stamp.
const MAX_TEXT_BYTES: usize = MAX_METADATA_BYTES - STAMP_BYTES;

/// `text` with a stamp that tells it from every other text, even one that says the same.
pub fn stamped(mut text: String, stamp: u64) -> String {
    text.push(STAMP_MARK);
    text.push_str(&format!("{stamp:016x}"));
    text
}

/// `text` without its stamp, if it has one.
pub fn unstamped(text: &str) -> &str {
    text.split_once(STAMP_MARK).map_or(text, |(text, _)| text)
}

/// Why a committed text cannot be used. The owner then treats everything beyond the position as
/// open: duplicates with the same id, never a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not base64, or cut short.
    #[error("position metadata is malformed")]
    Malformed,
    /// Written by a later version.
    #[error("position metadata version {0} is not known")]
    Version(u8),
}

/// What the last owner had completed beyond its committed position, and where marks begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Stretches of completed offsets: first → behind the last.
    completed: BTreeMap<i64, i64>,
    /// Completed targets of partly completed records.
    partial: BTreeMap<i64, Vec<u8>>,
    /// The lowest offset to read again for its marks.
    marks_from: Option<i64>,
}

impl Inherited {
    /// Reads the text committed with `position`; empty text is nothing inherited.
    ///
    /// # Errors
    /// When the text was not written by [`Ledger::metadata`].
    pub fn decode(position: i64, text: &str) -> Result<Self, MetadataError> {
        let mut inherited = Self::default();
        let text = unstamped(text);
        if text.is_empty() {
            return Ok(inherited);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| MetadataError::Malformed)?;
        let (version, mut rest) = bytes.split_first().ok_or(MetadataError::Malformed)?;
        if *version != VERSION {
            return Err(MetadataError::Version(*version));
        }
        let marks = number(&mut rest)?;
        if marks != NO_MARKS {
            inherited.marks_from = Some(back(position, marks - 1)?);
        }
        let mut offset = position;
        for _ in 0..number(&mut rest)? {
            let first = forward(offset, number(&mut rest)?)?;
            offset = forward(first, number(&mut rest)?)?;
            inherited.completed.insert(first, offset);
        }
        let mut offset = position;
        for _ in 0..number(&mut rest)? {
            offset = forward(offset, number(&mut rest)?)?;
            let len = usize::try_from(number(&mut rest)?).map_err(|_| MetadataError::Malformed)?;
            let (bitmap, tail) = rest.split_at_checked(len).ok_or(MetadataError::Malformed)?;
            rest = tail;
            inherited.partial.insert(offset, bitmap.to_vec());
        }
        Ok(inherited)
    }

    /// The lowest offset to read again for its marks, if any below the position.
    pub fn marks_from(&self) -> Option<i64> {
        self.marks_from
    }

    pub(super) fn take_completed(
        &mut self,
        offset: i64,
        targets: u16,
        mut complete: impl FnMut(u16),
    ) {
        let whole = self
            .completed
            .range(..=offset)
            .next_back()
            .is_some_and(|(_, behind)| offset < *behind);
        let bitmap = self.partial.remove(&offset);
        for index in 0..targets {
            let bit = bitmap
                .as_ref()
                .and_then(|bits| bits.get(usize::from(index / 8)));
            if whole || bit.is_some_and(|byte| byte & (1 << (index % 8)) != 0) {
                complete(index);
            }
        }
    }

    pub(super) fn forget_below(&mut self, offset: i64) {
        // A stretch that goes on beyond `offset` still says something.
        while self
            .completed
            .first_key_value()
            .is_some_and(|(_, behind)| *behind <= offset)
        {
            self.completed.pop_first();
        }
        while self
            .partial
            .first_key_value()
            .is_some_and(|(at, _)| *at < offset)
        {
            self.partial.pop_first();
        }
    }
}

/// Collects stretches of completed offsets, joined where they touch.
struct Stretches {
    list: Vec<(i64, i64)>,
}

impl Stretches {
    fn add(&mut self, first: i64, behind: i64) {
        match self.list.last_mut() {
            Some(last) if last.1 >= first => last.1 = last.1.max(behind),
            Some(_) | None => self.list.push((first, behind)),
        }
    }
}

pub(super) fn encode(ledger: &Ledger, marks_from: Option<i64>) -> String {
    let position = ledger.position();
    let (Stretches { list }, partial) = beyond(ledger, position);
    let text = write(position, marks_from, &list, &partial);
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    // Hardly ever reached, since the owner spills in time: forgetting the farthest completions
    // costs duplicates after a crash, a text that the log refuses would cost the position. As much
    // is kept as fits, so that the text stays as long as the need to spill says.
    let mut places: Vec<i64> = list.iter().map(|(first, _)| *first).collect();
    places.extend(partial.iter().map(|(at, _)| *at));
    places.sort_unstable();
    let mut text = write(position, marks_from, &[], &[]);
    let (mut fits, mut too_many) = (0, places.len());
    while fits + 1 < too_many {
        let middle = usize::midpoint(fits, too_many);
        let until = places.get(middle).copied().unwrap_or(position);
        let (list, _) = list.split_at(list.partition_point(|(first, _)| *first < until));
        let (partial, _) = partial.split_at(partial.partition_point(|(at, _)| *at < until));
        let shorter = write(position, marks_from, list, partial);
        if shorter.len() <= MAX_TEXT_BYTES {
            (fits, text) = (middle, shorter);
        } else {
            too_many = middle;
        }
    }
    text
}

fn beyond(ledger: &Ledger, position: i64) -> (Stretches, Vec<(i64, Vec<u8>)>) {
    let mut stretches = Stretches { list: Vec::new() };
    let mut partial = Vec::new();
    let mut behind_last = position;
    for entry in ledger
        .window
        .iter()
        .filter(|entry| entry.offset >= position)
    {
        // Offsets that the log never delivered are completed.
        if entry.offset > behind_last {
            stretches.add(behind_last, entry.offset);
        }
        behind_last = entry.offset + 1;
        if entry.open == 0 {
            stretches.add(entry.offset, behind_last);
        } else if entry.open < entry.targets.len {
            partial.push((entry.offset, bitmap(entry)));
        }
    }
    if ledger.next > behind_last {
        stretches.add(behind_last, ledger.next);
    }
    // Frozen, the ledger still holds what was inherited below what has been read.
    for (first, behind) in &ledger.inherited.completed {
        if *behind > ledger.next {
            stretches.add((*first).max(ledger.next), *behind);
        }
    }
    let ahead = ledger.inherited.partial.range(ledger.next..);
    partial.extend(ahead.map(|(at, bitmap)| (*at, bitmap.clone())));
    (stretches, partial)
}

fn bitmap(entry: &super::Entry) -> Vec<u8> {
    let mut bytes = vec![0_u8; usize::from(entry.targets.len).div_ceil(8)];
    for index in (0..entry.targets.len).filter(|index| !entry.targets.is_open(*index)) {
        if let Some(byte) = bytes.get_mut(usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }
    bytes
}

fn write(
    position: i64,
    marks_from: Option<i64>,
    stretches: &[(i64, i64)],
    partial: &[(i64, Vec<u8>)],
) -> String {
    let mut out = vec![VERSION];
    let marks = marks_from.filter(|from| *from < position);
    put(
        &mut out,
        marks.map_or(NO_MARKS, |from| distance(from, position) + 1),
    );
    put(&mut out, stretches.len() as u64);
    let mut offset = position;
    for (first, behind) in stretches {
        put(&mut out, distance(offset, *first));
        put(&mut out, distance(*first, *behind));
        offset = *behind;
    }
    put(&mut out, partial.len() as u64);
    let mut offset = position;
    for (at, bitmap) in partial {
        put(&mut out, distance(offset, *at));
        put(&mut out, bitmap.len() as u64);
        out.extend_from_slice(bitmap);
        offset = *at;
    }
    URL_SAFE_NO_PAD.encode(out)
}

fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

fn forward(offset: i64, distance: u64) -> Result<i64, MetadataError> {
    let distance = i64::try_from(distance).map_err(|_| MetadataError::Malformed)?;
    offset.checked_add(distance).ok_or(MetadataError::Malformed)
}

fn back(offset: i64, distance: u64) -> Result<i64, MetadataError> {
    let distance = i64::try_from(distance).map_err(|_| MetadataError::Malformed)?;
    offset.checked_sub(distance).ok_or(MetadataError::Malformed)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn number(rest: &mut &[u8]) -> Result<u64, MetadataError> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(MetadataError::Malformed)?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(MetadataError::Malformed)
}
