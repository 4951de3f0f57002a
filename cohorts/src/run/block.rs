//! Owns the bytes of a block: entries with their ids shortened, compressed, and a header with a
//! checksum of what is stored. Pure.
//!
//! Header, 24 bytes, little-endian: magic `ABk1`, bytes stored, bytes raw, entries, xxh3 of the
//! bytes stored. Entry: varints of what the id shares with the one before and of what follows, the
//! rest of the id, the tag, the hash, a varint of the body's length, the body.
//!
//! LZ4 and not zstd: measured over members of 100 bytes, zstd at level 1 makes runs 0.7 of the size,
//! and takes 1.15 of the time to sort and 1.6 of it to compare.

use xxhash_rust::xxh3::xxh3_64;

use super::Entry;

/// A block is closed once its raw bytes reach this.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// No raw block is larger: a full one, and one more entry of the largest kind.
const RAW_BYTES_MAX: usize = 512 << 10;

pub(crate) const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"ABk1";

/// Collects entries until they make a block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    raw: Vec<u8>,
    last: Vec<u8>,
    entries: u32,
}

impl BlockBuilder {
    /// Adds an entry, whose id must be above all before it.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        let shared = if self.entries == 0 {
            0
        } else {
            shared(&self.last, entry.id)
        };
        let rest = entry.id.get(shared..).unwrap_or_default();
        write_varint(shared, &mut self.raw);
        write_varint(rest.len(), &mut self.raw);
        self.raw.extend_from_slice(rest);
        self.raw.push(entry.tag);
        self.raw.extend_from_slice(&entry.hash.to_le_bytes());
        write_varint(entry.body.len(), &mut self.raw);
        self.raw.extend_from_slice(entry.body);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.entries += 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= BLOCK_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Takes what was collected, to be sealed elsewhere.
    pub(crate) fn take(&mut self) -> RawBlock {
        let spare = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8);
        let bytes = std::mem::replace(&mut self.raw, spare);
        RawBlock {
            bytes,
            entries: std::mem::take(&mut self.entries),
        }
    }
}

/// A block that is not compressed yet.
#[derive(Debug)]
pub(crate) struct RawBlock {
    bytes: Vec<u8>,
    pub(crate) entries: u32,
}

impl RawBlock {
    /// Appends the block as it is stored.
    pub(crate) fn seal(&self, out: &mut Vec<u8>) {
        let stored = lz4_flex::block::compress(&self.bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&length(stored.len()).to_le_bytes());
        out.extend_from_slice(&length(self.bytes.len()).to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&xxh3_64(&stored).to_le_bytes());
        out.extend_from_slice(&stored);
    }
}

/// Lengths within a block are below [`RAW_BYTES_MAX`] by construction.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What a header says of its block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) stored: usize,
    raw: usize,
    pub(crate) entries: u32,
    checksum: u64,
}

impl Header {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let magic = bytes
            .first_chunk::<4>()
            .ok_or("a block's header is cut off")?;
        if *magic != MAGIC {
            return Err("a block does not begin as one");
        }
        let number = |at: usize| {
            let four = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
            four.map(|four| u32::from_le_bytes(*four))
                .ok_or("a block's header is cut off")
        };
        let checksum = bytes.get(16..).and_then(<[u8]>::first_chunk::<8>);
        let header = Self {
            stored: usize::try_from(number(4)?).unwrap_or(usize::MAX),
            raw: usize::try_from(number(8)?).unwrap_or(usize::MAX),
            entries: number(12)?,
            checksum: u64::from_le_bytes(*checksum.ok_or("a block's header is cut off")?),
        };
        if header.raw > RAW_BYTES_MAX || header.stored > 2 * RAW_BYTES_MAX {
            return Err("a block says that it is larger than any");
        }
        Ok(header)
    }

    /// Checks and unpacks the stored bytes into `raw`.
    pub(crate) fn open(&self, stored: &[u8], raw: &mut Vec<u8>) -> Result<(), &'static str> {
        if xxh3_64(stored) != self.checksum {
            return Err("a block's checksum is wrong");
        }
        raw.resize(self.raw, 0);
        match lz4_flex::block::decompress_into(stored, raw) {
            Ok(bytes) if bytes == self.raw => Ok(()),
            _ => Err("a block cannot be unpacked"),
        }
    }
}

/// A block being read, entry by entry.
#[derive(Debug, Default)]
pub(crate) struct BlockCursor {
    pub(crate) raw: Vec<u8>,
    at: usize,
    left: u32,
    id: Vec<u8>,
    tag: u8,
    hash: u64,
    body: (usize, usize),
}

impl BlockCursor {
    /// Begins with the block in `raw`.
    pub(crate) fn begin(&mut self, entries: u32) {
        (self.at, self.left) = (0, entries);
        self.id.clear();
    }

    pub(crate) fn entry(&self) -> Entry<'_> {
        let body = self.raw.get(self.body.0..self.body.1).unwrap_or_default();
        Entry {
            id: &self.id,
            tag: self.tag,
            hash: self.hash,
            body,
        }
    }

    /// Goes to the next entry; false at the block's end.
    pub(crate) fn advance(&mut self) -> Result<bool, &'static str> {
        const CUT: &str = "a block's entries are cut off";
        if self.left == 0 {
            let whole = self.at == self.raw.len();
            return if whole {
                Ok(false)
            } else {
                Err("a block has more than its entries")
            };
        }
        let shared = read_varint(&self.raw, &mut self.at).ok_or(CUT)?;
        let rest = read_varint(&self.raw, &mut self.at).ok_or(CUT)?;
        let id_end = self.at.checked_add(rest).ok_or(CUT)?;
        let rest = self.raw.get(self.at..id_end).ok_or(CUT)?;
        if shared > self.id.len() {
            return Err(CUT);
        }
        self.id.truncate(shared);
        self.id.extend_from_slice(rest);
        let fixed = self
            .raw
            .get(id_end..)
            .and_then(<[u8]>::first_chunk::<9>)
            .ok_or(CUT)?;
        let [tag, hash @ ..] = *fixed;
        (self.tag, self.hash) = (tag, u64::from_le_bytes(hash));
        self.at = id_end + 9;
        let length = read_varint(&self.raw, &mut self.at).ok_or(CUT)?;
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.raw.len())
            .ok_or(CUT)?;
        self.body = (self.at, end);
        self.at = end;
        self.left -= 1;
        Ok(true)
    }
}

fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

pub(crate) fn write_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

pub(crate) fn read_varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut number = 0usize;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
