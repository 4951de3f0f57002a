//! Owns manifests' bytes: JSON with a checksum of its own, so that a damaged one is told from one
//! that says something else.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::Error;
use crate::run::hex;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u32,
    checksum: String,
    content: Box<RawValue>,
}

/// The bytes of a manifest.
pub(crate) fn seal<T: Serialize>(name: &str, content: &T) -> Result<Vec<u8>, Error> {
    let failed = |error: serde_json::Error| Error::damaged(name, error.to_string());
    let content = serde_json::value::to_raw_value(content).map_err(failed)?;
    let checksum = hex(xxh3_64(content.get().as_bytes()));
    serde_json::to_vec(&Sealed {
        version: VERSION,
        checksum,
        content,
    })
    .map_err(failed)
}

/// What a manifest says.
pub(crate) fn unseal<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    let failed = |error: serde_json::Error| Error::damaged(name, error.to_string());
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(failed)?;
    if sealed.version != VERSION {
        return Err(Error::damaged(
            name,
            format!("its version {} is unknown", sealed.version),
        ));
    }
    if sealed.checksum != hex(xxh3_64(sealed.content.get().as_bytes())) {
        return Err(Error::damaged(name, "its checksum is wrong"));
    }
    serde_json::from_str(sealed.content.get()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found() {
        let content = vec!["one".to_owned(), "two".to_owned()];
        let bytes = seal("m", &content).unwrap();
        assert_eq!(unseal::<Vec<String>>("m", &bytes).unwrap(), content);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(unseal::<Vec<String>>("m", &changed).is_err(), "byte {at}");
            assert!(
                unseal::<Vec<String>>("m", &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
    }
}
