//! Owns uploads that the service reads by itself: a file on its machine, or an object of a store.
//!
//! Only for the operator: a path names whatever the process can read.

use std::fs::File;
use std::io::{self, Read};

use tokio::runtime::Handle;

use crate::{Error, Store};

/// How much of an object is asked for at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// What is at a place: a path or `file:` URL, or `s3://bucket/key` in builds with S3. Blocks.
pub(super) fn open(place: &str, handle: Handle) -> Result<Box<dyn Read>, Error> {
    if place.starts_with("s3://") {
        let named = || Error::Input(format!("`{place}` names no object"));
        let (folder, name) = place.rsplit_once('/').ok_or_else(named)?;
        let store = Store::open(folder, handle)?;
        let size = store.size(name)?;
        let name = name.to_owned();
        return Ok(Box::new(Object {
            store,
            name,
            at: 0,
            size,
            piece: io::Cursor::default(),
        }));
    }
    let path = place.strip_prefix("file://").unwrap_or(place);
    let file = File::open(path)
        .map_err(|error| Error::Input(format!("`{place}` cannot be opened: {error}")))?;
    Ok(Box::new(file))
}

/// An object that is read piece by piece.
struct Object {
    store: Store,
    name: String,
    at: u64,
    size: u64,
    piece: io::Cursor<bytes::Bytes>,
}

impl Read for Object {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(out)?;
        if read > 0 || self.at >= self.size {
            return Ok(read);
        }
        let end = self.size.min(self.at + PIECE_BYTES);
        let piece = self.store.get_range(&self.name, self.at..end);
        self.piece = io::Cursor::new(piece.map_err(io::Error::other)?);
        self.at = end;
        self.piece.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_to_its_end() {
        let store = crate::doubles::Faulty::new().store();
        let bytes: Vec<u8> = (0..=255).cycle().take(9 << 20).collect();
        store.put("big", bytes.clone()).unwrap();
        let mut object = Object {
            size: store.size("big").unwrap(),
            store,
            name: "big".to_owned(),
            at: 0,
            piece: io::Cursor::default(),
        };
        let mut found = Vec::new();
        object.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let handle = crate::doubles::handle();
        let Err(error) = open("/no/such/file.csv", handle) else {
            panic!("there is no such file");
        };
        assert!(error.is_inputs_fault() && error.to_string().contains("/no/such/file.csv"));
    }
}
