//! Where the data directory is: a local path or an object store prefix, behind one durable, counted [`ObjectStore`].
//!
//! A put that has returned is on the disk or accepted by the store: the log says what is committed, and it may only
//! name files that a power cut cannot take back.

mod counted;
mod local;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use url::Url;

use crate::{Error, Result};
use counted::CountedStore;
use local::DurableDirectory;

pub use counted::StoreRequests;

/// A data directory. Paths handed to it are relative to its root.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The store, rooted at the data directory. Every put is durable when it returns.
    pub store: Arc<dyn ObjectStore>,
    /// As the user wrote it, without credentials, for messages.
    pub url: String,
    /// The local path when it is one: lock file.
    pub local: Option<PathBuf>,
    /// Requests so far.
    pub requests: Arc<StoreRequests>,
}

/// The settings `Storage::open` understands, without the leading `storage.`.
pub const SETTINGS: [&str; 11] = [
    "s3.endpoint",
    "s3.access-key",
    "s3.secret-key",
    "s3.session-token",
    "s3.region",
    "s3.path-style",
    "s3.allow-http",
    "gs.service-account",
    "az.account",
    "az.access-key",
    "az.endpoint",
];

impl Storage {
    /// Opens `path`, `file://`, `s3://`, `gs://` or `az://`; a local directory is created.
    /// `settings` are `storage.*` configuration keys (`s3.endpoint`, `s3.access-key`, `s3.secret-key`, `s3.region`, …);
    /// what they leave open is taken from the environment. Nothing is asked of an object store yet.
    ///
    /// # Errors
    /// [`Error::Location`] (22023) for an address or a setting that cannot be used, [`Error::Store`] (58030) when the
    /// local directory cannot be made.
    pub fn open(url: &str, settings: &BTreeMap<String, String>) -> Result<Storage> {
        let refuse = |reason: String| Error::Location { url: redacted(url), reason };
        let settings: BTreeMap<&str, &str> =
            settings.iter().map(|(key, value)| (key.strip_prefix("storage.").unwrap_or(key), value.as_str())).collect();
        if let Some(unknown) = settings.keys().find(|key| !SETTINGS.contains(key)) {
            return Err(refuse(format!("\"storage.{unknown}\" is not a setting; there are {}", SETTINGS.join(", "))));
        }
        let Some((scheme, _)) = url.split_once("://") else {
            return Storage::open_directory(PathBuf::from(url), url);
        };
        let parsed = Url::parse(url).map_err(|error| refuse(error.to_string()))?;
        if scheme == "file" {
            let path = parsed.to_file_path().map_err(|()| refuse("a file address is written file:///path".to_owned()))?;
            return Storage::open_directory(path, url);
        }
        let bucket = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it names no bucket".to_owned()))?;
        let prefix = Path::from_url_path(parsed.path()).map_err(|error| refuse(error.to_string()))?;
        let setting = |key: &str| settings.get(key).map(|value| (*value).to_owned());
        let store: Arc<dyn ObjectStore> = match scheme {
            "s3" | "s3a" => Arc::new(open_s3(bucket, &setting).map_err(|error| refuse(error.to_string()))?),
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry());
                if let Some(path) = setting("gs.service-account") {
                    builder = builder.with_service_account_path(path);
                }
                Arc::new(builder.build().map_err(|error| refuse(error.to_string()))?)
            }
            "az" | "abfs" | "abfss" => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry());
                if let Some(account) = setting("az.account") {
                    builder = builder.with_account(account);
                }
                if let Some(key) = setting("az.access-key") {
                    builder = builder.with_access_key(key);
                }
                if let Some(endpoint) = setting("az.endpoint") {
                    builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
                }
                Arc::new(builder.build().map_err(|error| refuse(error.to_string()))?)
            }
            other => {
                return Err(refuse(format!("\"{other}\" is not a kind of storage; use a path, file://, s3://, gs:// or az://")));
            }
        };
        let rooted: Arc<dyn ObjectStore> =
            if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) };
        Ok(Storage::over(rooted, url))
    }

    /// A data directory at the root of a store that is open already.
    pub fn over(store: Arc<dyn ObjectStore>, url: &str) -> Storage {
        let requests = Arc::new(StoreRequests::default());
        let store = Arc::new(CountedStore::new(store, Arc::clone(&requests)));
        Storage { store, url: redacted(url), local: None, requests }
    }

    fn open_directory(path: PathBuf, url: &str) -> Result<Storage> {
        let failed = |source: std::io::Error| Error::Store {
            action: "create",
            path: path.display().to_string(),
            source: object_store::Error::Generic { store: "local", source: Box::new(source) },
        };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let root = path.canonicalize().map_err(failed)?;
        let directory = DurableDirectory::open(&root).map_err(|source| Error::Store {
            action: "open",
            path: root.display().to_string(),
            source,
        })?;
        let mut storage = Storage::over(Arc::new(directory), url);
        storage.local = Some(root);
        Ok(storage)
    }

    /// Takes the lock file of a local directory; `None` for an object store, where the log alone decides.
    /// The lock goes with the file handle, and with the process, however it ends.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds it.
    pub(crate) fn lock(&self) -> Result<Option<File>> {
        let Some(root) = &self.local else { return Ok(None) };
        let path = root.join("lock");
        let failed = |source: std::io::Error| Error::Store {
            action: "lock",
            path: path.display().to_string(),
            source: object_store::Error::Generic { store: "local", source: Box::new(source) },
        };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse { path: self.url.clone() }),
            Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Reads a whole object.
    pub(crate) async fn read(&self, path: &Path) -> Result<Bytes> {
        let read = async { self.store.get(path).await?.bytes().await };
        read.await.map_err(|source| Error::Store { action: "read", path: path.to_string(), source })
    }

    /// Creates an object that must not exist yet.
    pub(crate) async fn create(&self, path: &Path, content: Bytes) -> Result<(), object_store::Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(path, content.into(), options).await.map(|_| ())
    }
}

fn open_s3(bucket: &str, setting: &dyn Fn(&str) -> Option<String>) -> Result<impl ObjectStore, object_store::Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry());
    if let Some(region) = setting("s3.region") {
        builder = builder.with_region(region);
    }
    if let Some(key) = setting("s3.access-key") {
        builder = builder.with_access_key_id(key);
    }
    if let Some(key) = setting("s3.secret-key") {
        builder = builder.with_secret_access_key(key);
    }
    if let Some(token) = setting("s3.session-token") {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = setting("s3.endpoint") {
        builder = builder.with_endpoint(endpoint);
    }
    let is_true = |value: &str| matches!(value, "true" | "on" | "1" | "yes");
    if let Some(path_style) = setting("s3.path-style") {
        builder = builder.with_virtual_hosted_style_request(!is_true(&path_style));
    }
    // An endpoint written with http:// says by itself that it is meant.
    let plain = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http://"));
    let allow_http = setting("s3.allow-http").map_or(plain, |value| is_true(&value));
    let options = ClientOptions::new().with_allow_http(allow_http).with_connect_timeout(Duration::from_secs(5));
    builder.with_client_options(options).build()
}

/// Short retries only: the committer goes on by itself and says why it waits, which long ones would hide.
fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: Duration::from_secs(10) }
}

/// The address without user, password and query: those may hold keys.
fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if url.contains("://") => {
            // Both fail only for addresses that cannot have credentials.
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string()
        }
        _ if url.contains("://") => url.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://…")),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Storage::open(url, &settings).expect_err("must be refused").to_string()
    }

    #[test]
    fn credentials_are_never_shown() {
        for (url, shown) in [
            ("s3://key:secret@bucket/path?token=secret", "s3://bucket/path"),
            ("./data", "./data"),
            ("gs://bucket", "gs://bucket"),
            ("s3://key:secret@:bad port/", "s3://…"),
        ] {
            assert_eq!(redacted(url), shown);
        }
        assert!(!refused("ftp://user:secret@host/x", &[]).contains("secret"));
    }

    #[test]
    fn unusable_addresses_and_settings_are_refused() {
        assert!(refused("ftp://host/x", &[]).contains("not a kind of storage"));
        assert!(refused("s3:///x", &[]).contains("bucket"));
        assert!(refused("s3://bucket", &[("storage.s3.endpint", "x")]).contains("s3.endpoint"));
    }

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("deep/data").display().to_string();
        let storage = Storage::open(&path, &BTreeMap::new()).expect("opens");
        let lock = storage.lock().expect("first holder");
        assert!(matches!(storage.lock(), Err(Error::InUse { .. })));
        drop(lock);
        assert!(storage.lock().expect("free again").is_some());
    }

    #[tokio::test]
    async fn a_local_object_is_created_once_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let storage = Storage::open(&format!("file://{}", directory.path().display()), &BTreeMap::new()).expect("opens");
        let path = Path::from("log/00000000000000000001");
        storage.create(&path, Bytes::from_static(b"first")).await.expect("creates");
        let second = storage.create(&path, Bytes::from_static(b"second")).await;
        assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })));
        assert_eq!(storage.read(&path).await.expect("reads"), Bytes::from_static(b"first"));
        storage.store.put(&path, Bytes::from_static(b"third").into()).await.expect("overwrites");
        assert_eq!(storage.read(&path).await.expect("reads"), Bytes::from_static(b"third"));
        let names: Vec<_> = std::fs::read_dir(directory.path().join("log")).expect("lists").collect();
        assert_eq!(names.len(), 1);
        assert_eq!(storage.requests.snapshot().iter().find(|(kind, _)| *kind == "put").map(|(_, n)| *n), Some(3));
    }

    #[tokio::test]
    async fn nothing_is_written_beside_a_directory_that_is_gone() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let (root, elsewhere) = (directory.path().join("data"), directory.path().join("elsewhere"));
        let storage = Storage::open(&root.display().to_string(), &BTreeMap::new()).expect("opens");
        let (one, two) = (Path::from("log/1"), Path::from("log/2"));
        storage.create(&one, Bytes::from_static(b"first")).await.expect("creates");
        std::fs::rename(&root, &elsewhere).expect("it goes");
        assert!(storage.create(&two, Bytes::from_static(b"second")).await.is_err());
        assert!(!root.exists(), "nothing is made anew");
        std::fs::create_dir(&root).expect("another takes its place");
        assert!(storage.create(&two, Bytes::from_static(b"second")).await.is_err());
        std::fs::remove_dir(&root).expect("empty");
        std::fs::rename(&elsewhere, &root).expect("it comes back");
        storage.create(&two, Bytes::from_static(b"second")).await.expect("creates");
        assert_eq!(storage.read(&one).await.expect("reads"), Bytes::from_static(b"first"));
    }
}
