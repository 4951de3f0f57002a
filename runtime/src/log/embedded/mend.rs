//! Owns the repair of a journal whose end was torn: after a power cut the disk may hold a later
//! page of what was never synced and lack an earlier one, and the store then refuses to open.
//!
//! It must never cut what may have been synced: only the newest journal is looked at, and only as
//! far from its end as a few rounds of the writer reach. The surprise: it knows the form of fjall's
//! journal (format 3), which a test holds it to.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Buf;
use xxhash_rust::xxh3::Xxh3;

/// What can have been written since the last sync: two full rounds, the writer's and the one that
/// it was syncing, with as much again for keys and indices.
const TORN_BYTES: usize = 16 << 20;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";

/// Cuts the torn end off the newest journal in `store`; how many bytes that was, `None` where
/// nothing is torn or too much is.
pub(super) fn mend(store: &Path) -> std::io::Result<Option<usize>> {
    let Some(path) = newest_journal(store)? else {
        return Ok(None);
    };
    let bytes = std::fs::read(&path)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let sound = sound_bytes(&bytes);
    let torn = used.saturating_sub(sound);
    if torn == 0 || torn > TORN_BYTES {
        return Ok(None);
    }
    let file: File = OpenOptions::new().write(true).open(&path)?;
    file.set_len(sound as u64)?;
    file.sync_all()?;
    Ok(Some(torn))
}

fn newest_journal(store: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        let number = path
            .extension()
            .is_some_and(|end| end == "jnl")
            .then(|| path.file_stem()?.to_str()?.parse::<u64>().ok())
            .flatten();
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// The bytes of the whole batches at the beginning.
fn sound_bytes(journal: &[u8]) -> usize {
    let mut rest = journal;
    while let Some(after) = batch(rest) {
        rest = after;
    }
    journal.len() - rest.len()
}

/// What follows the batch at the beginning, if that is whole.
fn batch(mut rest: &[u8]) -> Option<&[u8]> {
    (rest.try_get_u8().ok()? == START).then_some(())?;
    let count = rest.try_get_u32_le().ok()?;
    let _seqno = rest.try_get_u64_le().ok()?;
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let after = item(rest)?;
        hash.update(rest.get(..rest.len() - after.len())?);
        rest = after;
    }
    (rest.try_get_u8().ok()? == END).then_some(())?;
    (rest.try_get_u64_le().ok()? == hash.digest()).then_some(())?;
    rest.strip_prefix(MAGIC)
}

fn item(mut rest: &[u8]) -> Option<&[u8]> {
    match rest.try_get_u8().ok()? {
        ITEM => {
            let _kind_and_compression = rest.try_get_u16_le().ok()?;
            let _keyspace = rest.try_get_u64_le().ok()?;
            let key = usize::from(rest.try_get_u16_le().ok()?);
            let _value = rest.try_get_u32_le().ok()?;
            let on_disk = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            rest.get(key.checked_add(on_disk)?..)
        }
        CLEAR => rest.get(8..),
        _ => None,
    }
}
