//! Where the data directory is: a local path or an object store prefix.

use std::sync::Arc;

use object_store::ObjectStore;

/// A data directory. Paths handed to it are relative to its root.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The store, rooted at the data directory.
    pub store: Arc<dyn ObjectStore>,
    /// As the user wrote it, for messages.
    pub url: String,
    /// The local path when it is one: lock file, fsync.
    pub local: Option<std::path::PathBuf>,
}

impl Storage {
    /// Opens `path`, `file://`, `s3://`, `gs://` or `az://`; a local directory is created.
    /// `settings` are `storage.*` configuration keys (`s3.endpoint`, `s3.access-key`, `s3.secret-key`, `s3.region`, …);
    /// what they leave open is taken from the environment.
    pub fn open(url: &str, settings: &std::collections::BTreeMap<String, String>) -> crate::Result<Storage> {
        let _ = (url, settings);
        todo!()
    }
}
