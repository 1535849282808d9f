//! Counts the requests made to a store, for metrics: on an object store each of them costs money.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

/// Requests to the store since the start, by kind.
#[derive(Debug, Default)]
pub struct StoreRequests {
    put: AtomicU64,
    put_bytes: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    copy: AtomicU64,
    failed: AtomicU64,
}

impl StoreRequests {
    /// Kinds and how many there were; `put_bytes` are bytes, `failed` those of any kind that were refused.
    pub fn snapshot(&self) -> [(&'static str, u64); 7] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("put", read(&self.put)),
            ("put_bytes", read(&self.put_bytes)),
            ("get", read(&self.get)),
            ("list", read(&self.list)),
            ("delete", read(&self.delete)),
            ("copy", read(&self.copy)),
            ("failed", read(&self.failed)),
        ]
    }

    fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    fn outcome<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            Self::count(&self.failed, 1);
        }
        result
    }
}

/// A store that counts.
#[derive(Debug)]
pub(super) struct CountedStore {
    store: Arc<dyn ObjectStore>,
    requests: Arc<StoreRequests>,
}

impl CountedStore {
    pub(super) fn new(store: Arc<dyn ObjectStore>, requests: Arc<StoreRequests>) -> Self {
        CountedStore { store, requests }
    }
}

impl std::fmt::Display for CountedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        StoreRequests::count(&self.requests.put, 1);
        StoreRequests::count(&self.requests.put_bytes, payload.content_length() as u64);
        self.requests.outcome(self.store.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        StoreRequests::count(&self.requests.put, 1);
        self.requests.outcome(self.store.put_multipart_opts(location, options).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        StoreRequests::count(&self.requests.get, 1);
        self.requests.outcome(self.store.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        StoreRequests::count(&self.requests.get, 1);
        self.requests.outcome(self.store.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let requests = Arc::clone(&self.requests);
        self.store.delete_stream(locations).inspect(move |_| StoreRequests::count(&requests.delete, 1)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        StoreRequests::count(&self.requests.list, 1);
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        StoreRequests::count(&self.requests.list, 1);
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        StoreRequests::count(&self.requests.list, 1);
        self.requests.outcome(self.store.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        StoreRequests::count(&self.requests.copy, 1);
        self.requests.outcome(self.store.copy_opts(from, to, options).await)
    }
}
