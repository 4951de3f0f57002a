//! Owns what is left of writes that a crash broke off: a local folder's store writes each object
//! to a file of its own first, and gives that the object's name when it is whole.
//!
//! Never takes away what is being written: only what is old. The surprise: such files are no
//! objects, so that no list shows them; they are found by the name that the library gives them,
//! the object's with `#` and a number behind it.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use jiff::Timestamp;

/// Removes them from `folder` and all below it, as far as they were written before a time. Says how
/// many.
///
/// # Errors
/// The system's.
pub(crate) fn sweep(folder: &Path, before: Timestamp) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Removed meanwhile, or never made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += sweep(&entry.path(), before)?;
        } else if is_left(&entry, before)? {
            match fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

fn is_left(entry: &DirEntry, before: Timestamp) -> io::Result<bool> {
    let name = entry.file_name();
    let number = name.to_str().and_then(|name| name.rsplit_once('#'));
    let is_staged = number.is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !is_staged {
        return Ok(false);
    }
    let written = match entry.metadata() {
        Ok(about) => about.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(Timestamp::try_from(written).is_ok_and(|written| written < before))
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::{ObjectStoreExt as _, PutPayload};

    use super::*;
    use crate::Store;
    use crate::doubles::handle;

    #[test]
    fn what_a_crash_has_left_of_writes_goes_and_objects_stay() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let store = Store::open(place, handle()).unwrap();
        store.put("cohorts/a/manifest.json", vec![1]).unwrap();
        let objects = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        handle().block_on(async {
            let at = "cohorts/a/run-1".into();
            let mut upload = objects.put_multipart(&at).await.unwrap();
            upload
                .put_part(PutPayload::from_static(b"x"))
                .await
                .unwrap();
            // A process that is killed cleans nothing up.
            std::mem::forget(upload);
        });
        let files = || {
            fs::read_dir(folder.path().join("cohorts/a"))
                .unwrap()
                .count()
        };
        assert_eq!((files(), store.list("").unwrap().len()), (2, 1));
        assert_eq!(store.sweep_staged(Timestamp::UNIX_EPOCH).unwrap(), 0);
        assert_eq!(files(), 2, "it may be being written");
        assert_eq!(store.sweep_staged(Timestamp::MAX).unwrap(), 1);
        assert_eq!((files(), store.list("").unwrap().len()), (1, 1));
        fs::write(folder.path().join("a#b"), "").unwrap();
        fs::write(folder.path().join("7"), "").unwrap();
        assert_eq!(store.sweep_staged(Timestamp::MAX).unwrap(), 0);
    }
}
