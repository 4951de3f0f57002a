//! Nouns for tests: an object store that fails when told, and small cohorts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Cohort, Error, Merge, NewSnapshot, Progress, ReadOptions, SortOptions, Store, UploadOptions,
    Uploaded,
};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// What happens at the request that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out, and says so.
    Refused,
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// It is not carried out, nor is any later one.
    Crash,
    /// It is carried out, and no later one is.
    CrashAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [
        Self::Refused,
        Self::AnswerLost,
        Self::Crash,
        Self::CrashAfter,
    ];
}

/// An object store in memory that fails when told.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<InMemory>,
    requests: AtomicU64,
    fault: Mutex<Option<(u64, Fault)>>,
}

impl Faulty {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Arc::new(InMemory::new());
        Arc::new(Self {
            inner,
            requests: AtomicU64::new(0),
            fault: Mutex::new(None),
        })
    }

    pub(crate) fn store(self: &Arc<Self>) -> Store {
        Store::new(
            Arc::clone(self) as Arc<dyn ObjectStore>,
            "root",
            handle(),
            4 << 10,
        )
    }

    /// Fails at the request with this number, counted from now.
    pub(crate) fn fail_at(&self, number: u64, fault: Fault) {
        *self.fault.lock().unwrap() = Some((self.requests() + number, fault));
    }

    pub(crate) fn recover(&self) {
        *self.fault.lock().unwrap() = None;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Whether this request is carried out, and whether its answer arrives.
    fn fate(&self) -> (bool, bool) {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().unwrap() {
            Some((at, fault)) if number == at => match fault {
                Fault::Refused | Fault::Crash => (false, false),
                Fault::AnswerLost | Fault::CrashAfter => (true, false),
            },
            Some((at, Fault::Crash | Fault::CrashAfter)) if number > at => (false, false),
            _ => (true, true),
        }
    }

    async fn pass<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (done, heard) = self.fate();
        if !done {
            return Err(broken());
        }
        let answer = work.await?;
        if heard { Ok(answer) } else { Err(broken()) }
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: "no space left on device".into(),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, with: PutOptions) -> Result<PutResult> {
        self.pass(self.inner.put_opts(at, bytes, with)).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        with: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass(self.inner.put_multipart_opts(at, with)).await
    }

    async fn get_opts(&self, at: &Path, with: GetOptions) -> Result<GetResult> {
        self.pass(self.inner.get_opts(at, with)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (done, heard) = self.fate();
        if !done {
            return futures_util::stream::once(async { Err(broken()) }).boxed();
        }
        let deleted = self.inner.delete_stream(locations);
        deleted
            .and_then(move |path| async move { if heard { Ok(path) } else { Err(broken()) } })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.fate() == (true, true) {
            self.inner.list(prefix)
        } else {
            futures_util::stream::once(async { Err(broken()) }).boxed()
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, with: CopyOptions) -> Result<()> {
        self.pass(self.inner.copy_opts(from, to, with)).await
    }
}

/// Folders whose disk is full, and how many more files each takes before.
static FULL_DISKS: Mutex<BTreeMap<PathBuf, u32>> = Mutex::new(BTreeMap::new());

/// Lets the disk of a folder be full after so many scratch files.
pub(crate) fn fill_disk(folder: &FilePath, after: u32) {
    FULL_DISKS.lock().unwrap().insert(folder.to_owned(), after);
}

/// A file that takes nothing, where the folder's disk is full.
pub(crate) fn on_full_disk(folder: &FilePath) -> Option<File> {
    let mut disks = FULL_DISKS.lock().unwrap();
    let left = disks.get_mut(folder)?;
    if let Some(less) = left.checked_sub(1) {
        *left = less;
        return None;
    }
    let full = File::options().read(true).write(true).open("/dev/full");
    Some(full.expect("a device that is always full"))
}

pub(crate) fn handle() -> tokio::runtime::Handle {
    RUNTIME.handle().clone()
}

/// A moment: so many seconds after the epoch.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn sort_options() -> SortOptions {
    SortOptions {
        memory_bytes: 1 << 20,
        ..SortOptions::default()
    }
}

/// Makes a snapshot of these bytes.
pub(crate) fn upload(
    cohort: &Cohort,
    id: &str,
    second: i64,
    input: &[u8],
    read: ReadOptions,
) -> Result<Uploaded, Error> {
    let new = NewSnapshot {
        id: id.to_owned(),
        created: at(second),
    };
    let options = UploadOptions {
        read,
        sort: sort_options(),
    };
    cohort.make(&new, &mut &input[..], &options, &Progress::default())
}

/// NDJSON of members with one field `v`.
pub(crate) fn ndjson<'a>(members: impl IntoIterator<Item = (&'a str, u32)>) -> String {
    let line = |(id, v): (&str, u32)| format!("{{\"id\":\"{id}\",\"v\":{v}}}\n");
    members.into_iter().map(line).collect()
}

/// All of a merge, as text: `id=body`, `-id` for one who is gone.
pub(crate) fn all(merge: &mut Merge) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    while merge.advance()? {
        let entry = merge.entry().unwrap();
        let (id, body) = (
            String::from_utf8_lossy(entry.id),
            String::from_utf8_lossy(entry.body),
        );
        found.push(if entry.is_gone() {
            format!("-{id}")
        } else {
            format!("{id}={body}")
        });
    }
    Ok(found)
}
