//! Owns the members of a benchmark's cohort: about 100 bytes of JSON each, by number.
//!
//! It must never draw on chance: a snapshot is the same each time. The surprise: it goes to a file
//! first, so that making it costs nothing of what is measured.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, stream};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::partner::Held;

/// One of so many members is another in the changed snapshot, and one of so many has other fields.
const CHANGES: u64 = 200;
const PIECE: usize = 256 << 10;

/// A version of a cohort.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members {
    pub(crate) count: u64,
    /// Whether one in a hundred is not as before: half of those left and others came.
    pub(crate) is_changed: bool,
}

impl Members {
    /// The number by which a place's member is known.
    fn number(self, place: u64) -> u64 {
        if self.is_changed && place.is_multiple_of(CHANGES) {
            place + self.count
        } else {
            place
        }
    }

    fn id(self, place: u64) -> String {
        format!("u-{:09}", self.number(place))
    }

    /// One member as JSON.
    pub(crate) fn json(self, place: u64) -> String {
        let id = self.id(place);
        let has_other = self.is_changed && place % CHANGES == CHANGES / 2;
        let plan = if has_other { "silver" } else { "golden" };
        format!(
            r#"{{"id":"{id}","email":"{id}@example.com","plan":"{plan}","score":"{:03}","country":"CH"}}"#,
            place % 1_000
        )
    }

    /// Writes all of them, one a line.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(self, file: &Path) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(PIECE, File::create(file)?);
        for place in 0..self.count {
            writeln!(out, "{}", self.json(place))?;
        }
        out.flush()
    }

    /// What a partner holds that has all of them.
    pub(crate) fn held(self) -> Held {
        let places = 0..self.count;
        let mut keys: Vec<[u8; 16]> = places
            .map(|place| xxh3_128(self.id(place).as_bytes()).to_be_bytes())
            .collect();
        keys.sort_unstable();
        let mut ids = Xxh3::new();
        for key in &keys {
            ids.update(key);
        }
        Held {
            count: self.count,
            ids: format!("{:016x}", ids.digest()),
        }
    }
}

/// A file in pieces.
///
/// # Errors
/// Where it cannot be opened.
pub(crate) fn pieces(file: &Path) -> io::Result<impl Stream<Item = io::Result<Bytes>> + use<>> {
    let file = File::open(file)?;
    Ok(stream::unfold(file, async |mut file| {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_in_a_hundred_changes() {
        let of = |is_changed| Members {
            count: 10_000,
            is_changed,
        };
        let all = |members: Members| -> BTreeMap<String, String> {
            let places = 0..members.count;
            let pairs = places.map(|place| (members.id(place), members.json(place)));
            pairs.collect()
        };
        let (before, after) = (all(of(false)), all(of(true)));
        let same = after
            .iter()
            .filter(|(id, json)| before.get(*id) == Some(json));
        assert_eq!((after.len(), same.count()), (10_000, 9_900));
        assert_ne!(of(false).held(), of(true).held());
        for json in after.values() {
            assert!(
                serde_json::from_str::<serde_json::Value>(json).is_ok(),
                "{json}"
            );
        }
        let length = of(false).json(7).len();
        assert!((90..=110).contains(&length), "{length}");
    }
}
