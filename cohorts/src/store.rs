//! Owns the way to objects: one place in a local folder or an object store, and blocking calls on
//! it. Never retries by itself beyond what the store's client does, and never caches.
//!
//! The surprise: everything here blocks. Members are handled on blocking threads, where a pass over
//! millions of rows costs no await a row; only an upload and its reader are async.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio_util::io::StreamReader;

use crate::{Error, staged};

/// How much is read at a time from a local folder.
const LOCAL_READ_BYTES: u64 = 256 << 10;

/// How much is read at a time over a network, where each request costs tens of milliseconds.
#[cfg(feature = "s3")]
const REMOTE_READ_BYTES: u64 = 2 << 20;

/// A place in an object store: everything of this crate lies under it.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    handle: Handle,
    read_bytes: u64,
    /// The folder that all of it is in, where it is one of this machine.
    local: Option<PathBuf>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store over `objects`, everything under `root`; `handle` is the runtime that drives the
    /// requests. `read_bytes` is how much one reader asks for at a time, and holds.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, root: &str, handle: Handle, read_bytes: u64) -> Self {
        Self {
            objects,
            root: Path::from(root),
            handle,
            read_bytes: read_bytes.max(1),
            local: None,
        }
    }

    /// The store at `place`: a path or `file:` URL of a local folder (made when it is not there),
    /// or, with the feature `s3`, `s3://bucket/prefix` with the credentials of the environment.
    ///
    /// # Errors
    /// [`Error::Input`] for a place that this build does not know, [`Error::Store`] when it cannot
    /// be opened.
    pub fn open(place: &str, handle: Handle) -> Result<Self, Error> {
        if let Some(rest) = place.strip_prefix("s3://") {
            return open_s3(place, rest, handle);
        }
        let folder = place.strip_prefix("file://").unwrap_or(place);
        if folder.contains("://") {
            return Err(Error::Input(format!(
                "`{place}`: only folders and s3:// are known"
            )));
        }
        std::fs::create_dir_all(folder).map_err(|source| Error::Scratch {
            folder: folder.to_owned(),
            source,
        })?;
        let objects = object_store::local::LocalFileSystem::new_with_prefix(folder)
            .map_err(|source| Error::Store {
                object: folder.to_owned(),
                source,
            })?
            .with_automatic_cleanup(true)
            // What a manifest names, and then the manifest, must outlive a power cut in that order.
            .with_fsync(true);
        Ok(Self {
            local: Some(PathBuf::from(folder)),
            ..Self::new(Arc::new(objects), "", handle, LOCAL_READ_BYTES)
        })
    }

    /// A folder of this store, as a store of its own.
    #[must_use]
    pub fn folder(&self, name: &str) -> Self {
        let mut root = self.root.clone();
        for part in name.split('/').filter(|part| !part.is_empty()) {
            root = root.join(part);
        }
        Self {
            root,
            ..self.clone()
        }
    }

    /// The full path of `name`, for messages.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        self.folder(name).root.to_string()
    }

    /// Reads an object from its beginning to its end, as an input of [`crate::Cohort::upload`]. This
    /// call is async, and does not block.
    ///
    /// # Errors
    /// [`Error::Missing`], the store's; those of later pieces are the reader's.
    pub async fn reader(&self, name: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, Error> {
        let path = self.folder(name).root;
        let found = self.objects.get(&path).await;
        let found = found.map_err(|source| told(&path, source))?;
        Ok(StreamReader::new(
            found.into_stream().map_err(io::Error::from),
        ))
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    pub(crate) fn get(&self, name: &str) -> Result<Bytes, Error> {
        let path = self.folder(name).root;
        self.wait(&path, async {
            let found = self.objects.get(&path).await?;
            found.bytes().await
        })
    }

    /// How many bytes an object has.
    pub(crate) fn size(&self, name: &str) -> Result<u64, Error> {
        let path = self.folder(name).root;
        self.wait(&path, self.objects.head(&path))
            .map(|found| found.size)
    }

    pub(crate) fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let path = self.folder(name).root;
        self.wait(&path, self.objects.get_range(&path, range))
    }

    /// Writes an object as a whole: readers see all of it or nothing.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = self.folder(name).root;
        self.wait(&path, self.objects.put(&path, PutPayload::from(bytes)))
            .map(|_| ())
    }

    /// Writes an object that must not be there yet. Whatever the answer, one that is then there with
    /// the very same bytes is ours: an earlier try's, whose answer was lost.
    pub(crate) fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = self.folder(name).root;
        let bytes = Bytes::from(bytes);
        let payload = PutPayload::from(bytes.clone());
        let put = self
            .objects
            .put_opts(&path, payload, PutMode::Create.into());
        let Err(source) = self.handle.block_on(put) else {
            return Ok(());
        };
        match self.get(name) {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(Error::Conflict(path.to_string())),
            Err(_) => Err(Error::Store {
                object: path.to_string(),
                source,
            }),
        }
    }

    /// The names of all objects under `folder`, relative to this store, in order.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.list_before(folder, None)
    }

    /// As [`Store::list`], but only what was written before a time, if one is given.
    pub(crate) fn list_before(
        &self,
        folder: &str,
        before: Option<Timestamp>,
    ) -> Result<Vec<String>, Error> {
        let under = self.folder(folder).root;
        let found: Vec<ObjectMeta> =
            self.wait(&under, self.objects.list(Some(&under)).try_collect())?;
        let own = self.root.to_string();
        let is_meant = |meta: &ObjectMeta| {
            before.is_none_or(|before| meta.last_modified.timestamp() < before.as_second())
        };
        let mut names: Vec<String> = found
            .iter()
            .filter(|meta| is_meant(meta))
            .map(|meta| relative(&own, meta.location.as_ref()).to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object; one that is not there is removed already.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.folder(name).root;
        match self.handle.block_on(self.objects.delete(&path)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Store {
                object: path.to_string(),
                source,
            }),
        }
    }

    /// Removes what writes that a crash broke off have left in a local folder, everywhere in the
    /// store, and was written before a time. Says how many files went.
    ///
    /// # Errors
    /// [`Error::Scratch`].
    pub(crate) fn sweep_staged(&self, before: Timestamp) -> Result<usize, Error> {
        let Some(folder) = &self.local else {
            return Ok(0);
        };
        staged::sweep(folder, before).map_err(|source| Error::Scratch {
            folder: folder.display().to_string(),
            source,
        })
    }

    fn wait<T>(
        &self,
        path: &Path,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        self.handle
            .block_on(work)
            .map_err(|source| told(path, source))
    }
}

fn told(path: &Path, source: StoreError) -> Error {
    if matches!(source, StoreError::NotFound { .. }) {
        return Error::Missing(path.to_string());
    }
    Error::Store {
        object: path.to_string(),
        source,
    }
}

fn relative<'a>(root: &str, path: &'a str) -> &'a str {
    path.strip_prefix(root)
        .unwrap_or(path)
        .trim_start_matches('/')
}

#[cfg(feature = "s3")]
fn open_s3(place: &str, rest: &str, handle: Handle) -> Result<Store, Error> {
    let builder = object_store::aws::AmazonS3Builder::from_env();
    build_s3(builder, (place, rest), handle)
}

#[cfg(feature = "s3")]
fn build_s3(
    builder: object_store::aws::AmazonS3Builder,
    (place, rest): (&str, &str),
    handle: Handle,
) -> Result<Store, Error> {
    // The client looks for the process's provider of cryptography; another may have named one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let objects = builder
        .with_bucket_name(bucket)
        .build()
        .map_err(|source| Error::Store {
            object: place.to_owned(),
            source,
        })?;
    Ok(Store::new(
        Arc::new(objects),
        prefix,
        handle,
        REMOTE_READ_BYTES,
    ))
}

#[cfg(not(feature = "s3"))]
fn open_s3(place: &str, _: &str, _: Handle) -> Result<Store, Error> {
    Err(Error::Input(format!(
        "`{place}`: this build has no object store but local folders"
    )))
}

#[cfg(all(test, feature = "s3"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_that_cannot_be_reached_is_an_error_that_names_the_object() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let builder = object_store::aws::AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_credentials(Arc::new(object_store::StaticCredentialProvider::new(
                object_store::aws::AwsCredential {
                    key_id: "key".to_owned(),
                    secret_key: "secret".to_owned(),
                    token: None,
                },
            )))
            .with_retry(object_store::RetryConfig {
                max_retries: 0,
                ..Default::default()
            });
        let place = ("s3://bucket/own", "bucket/own");
        let store = build_s3(builder, place, Handle::current()).unwrap();
        let reading = tokio::task::spawn_blocking(move || store.get("some/object"));
        let error = reading.await.unwrap().unwrap_err();
        let Error::Store { object, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(object, "own/some/object");
    }
}
