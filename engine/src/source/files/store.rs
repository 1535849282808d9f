//! Where files are: a local path or an object store, listed and read in ranges.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::glob;
use crate::source::options::Options;
use crate::{Error, Result};

/// A file found by the pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFile {
    /// As the pattern writes paths; names the split.
    pub(super) path: String,
    /// Bytes.
    pub(super) size: u64,
}

/// The files a pattern names.
pub(super) struct FileStore {
    pattern: String,
    place: Place,
}

enum Place {
    Local,
    Remote {
        store: Arc<dyn ObjectStore>,
        /// `s3://bucket/`: what stands before paths within the store.
        root: String,
        runtime: tokio::runtime::Runtime,
    },
}

impl FileStore {
    pub(super) fn open(pattern: &str, options: &Options<'_>) -> Result<FileStore> {
        let local = pattern.strip_prefix("file://").unwrap_or(pattern);
        if !local.contains("://") {
            return Ok(FileStore { pattern: local.to_owned(), place: Place::Local });
        }
        let wrong = |message: String| Error::Option {
            message,
            hint: Some("A path is local, or starts with s3://, gs://, az:// or file://.".into()),
        };
        // Wildcards are no part of a URL: only its part before them is parsed.
        let url = Url::parse(glob::base(pattern)).map_err(|error| wrong(format!("invalid path \"{pattern}\": {error}")))?;
        let settings = STORE_OPTIONS.iter().filter_map(|(name, key)| options.text(name).map(|value| (*key, value.to_owned())));
        let environment: Vec<(String, String)> = std::env::vars().map(|(key, value)| (key.to_lowercase(), value)).collect();
        let environment =
            environment.into_iter().filter(|(key, _)| ["aws_", "google_", "azure_"].iter().any(|prefix| key.starts_with(prefix)));
        let all: Vec<(String, String)> = environment.chain(settings.map(|(key, value)| (key.to_owned(), value))).collect();
        let (store, _) =
            object_store::parse_url_opts(&url, all).map_err(|error| wrong(format!("invalid path \"{pattern}\": {error}")))?;
        let root = format!("{}://{}/", url.scheme(), url.host_str().unwrap_or_default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Unreachable { message: format!("could not start I/O for {pattern}: {error}"), hint: None })?;
        Ok(FileStore { pattern: pattern.to_owned(), place: Place::Remote { store: store.into(), root, runtime } })
    }

    /// Whether looking costs no request.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.place, Place::Local)
    }

    /// All files the pattern names now, in name order. A directory stands for the files in it.
    pub(super) fn list(&self) -> Result<Vec<FoundFile>> {
        let mut found = match &self.place {
            Place::Local => self.list_local()?,
            Place::Remote { store, root, runtime } => {
                let prefix = glob::base(&self.pattern).strip_prefix(root.as_str()).unwrap_or_default();
                let prefix = prefix.trim_end_matches('/');
                let listing = store.list((!prefix.is_empty()).then(|| ObjectPath::from(prefix)).as_ref());
                let objects: Vec<_> =
                    runtime.block_on(listing.try_collect()).map_err(|error| self.unreachable("list", &self.pattern, &error))?;
                let mut files: Vec<FoundFile> = objects
                    .into_iter()
                    .map(|meta| FoundFile { path: format!("{root}{}", meta.location), size: meta.size })
                    .collect();
                if glob::is_pattern(&self.pattern) {
                    files.retain(|file| glob::fits(&self.pattern, &file.path));
                } else if files.is_empty() {
                    // A prefix lists what is below it; one object is asked for by name.
                    let head = runtime.block_on(store.head(&ObjectPath::from(prefix)));
                    files.extend(head.ok().map(|meta| FoundFile { path: self.pattern.clone(), size: meta.size }));
                }
                files
            }
        };
        found.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(found)
    }

    fn list_local(&self) -> Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        if !glob::is_pattern(&self.pattern) {
            match std::fs::metadata(&self.pattern) {
                Ok(meta) if meta.is_dir() => {
                    let directory = self.pattern.trim_end_matches('/');
                    self.walk(directory, &format!("{directory}/**"), &mut found)?;
                }
                Ok(meta) => found.push(FoundFile { path: self.pattern.clone(), size: meta.len() }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.unreachable("read", &self.pattern, &error)),
            }
            return Ok(found);
        }
        let base = glob::base(&self.pattern);
        let base = if base.len() > 1 { base.trim_end_matches('/') } else { base };
        self.walk(base, &self.pattern, &mut found)?;
        Ok(found)
    }

    /// Adds the files below `directory` that fit; goes no deeper than the pattern.
    fn walk(&self, directory: &str, pattern: &str, found: &mut Vec<FoundFile>) -> Result<()> {
        let depth = if pattern.contains("**") { usize::MAX } else { pattern.split('/').count() };
        let entries = match std::fs::read_dir(if directory.is_empty() { "." } else { directory }) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.unreachable("list", directory, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| self.unreachable("list", directory, &error))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let path = match directory {
                "" => name,
                "/" => format!("/{name}"),
                _ => format!("{directory}/{name}"),
            };
            // A file that vanishes between the listing and here was never seen.
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            if meta.is_dir() {
                if path.split('/').count() < depth {
                    self.walk(&path, pattern, found)?;
                }
            } else if glob::fits(pattern, &path) {
                found.push(FoundFile { path, size: meta.len() });
            }
        }
        Ok(())
    }

    /// Opens a file for reading in ranges.
    pub(super) fn open_file(&self, path: &str) -> Result<Handle> {
        match &self.place {
            Place::Local => Ok(Handle::Local(File::open(path).map_err(|error| self.unreachable("open", path, &error))?)),
            Place::Remote { root, .. } => Ok(Handle::Remote(ObjectPath::from(path.strip_prefix(root.as_str()).unwrap_or(path)))),
        }
    }

    /// Reads at most `buffer.len()` bytes from `position`; 0 at the end.
    pub(super) fn read(&self, handle: &Handle, path: &str, position: u64, buffer: &mut [u8]) -> Result<usize> {
        match (handle, &self.place) {
            (Handle::Local(file), _) => loop {
                match file.read_at(buffer, position) {
                    Ok(read) => return Ok(read),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.unreachable("read", path, &error)),
                }
            },
            (Handle::Remote(object), Place::Remote { store, runtime, .. }) => runtime.block_on(async {
                let size = store.head(object).await.map_err(|error| self.unreachable("read", path, &error))?.size;
                let end = size.min(position.saturating_add(buffer.len() as u64));
                if end <= position {
                    return Ok(0);
                }
                let bytes =
                    store.get_range(object, position..end).await.map_err(|error| self.unreachable("read", path, &error))?;
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }),
            (Handle::Remote(_), Place::Local) => Ok(0),
        }
    }

    /// Bytes of the file now.
    pub(super) fn size(&self, handle: &Handle, path: &str) -> Result<u64> {
        match (handle, &self.place) {
            (Handle::Local(file), _) => Ok(file.metadata().map_err(|error| self.unreachable("read", path, &error))?.len()),
            (Handle::Remote(object), Place::Remote { store, runtime, .. }) => {
                Ok(runtime.block_on(store.head(object)).map_err(|error| self.unreachable("read", path, &error))?.size)
            }
            (Handle::Remote(_), Place::Local) => Ok(0),
        }
    }

    /// The whole object, for formats that jump about in it.
    pub(super) fn fetch(&self, path: &str) -> Result<Bytes> {
        match &self.place {
            Place::Local => Ok(std::fs::read(path).map_err(|error| self.unreachable("read", path, &error))?.into()),
            Place::Remote { store, root, runtime } => {
                let object = ObjectPath::from(path.strip_prefix(root.as_str()).unwrap_or(path));
                runtime
                    .block_on(async { store.get(&object).await?.bytes().await })
                    .map_err(|error| self.unreachable("read", path, &error))
            }
        }
    }

    fn unreachable(&self, action: &str, path: &str, error: &dyn std::fmt::Display) -> Error {
        Error::Unreachable { message: format!("could not {action} {path}: {error}"), hint: None }
    }

    /// Nothing is there: for `CREATE`.
    pub(super) fn nothing_found(&self) -> Error {
        let base = glob::base(&self.pattern).trim_end_matches('/');
        let hint = if Path::new(base).exists() || matches!(self.place, Place::Remote { .. }) {
            "Check the pattern; mode = 'watch' waits for files to come.".to_owned()
        } else if Path::new(&self.pattern).is_absolute() {
            format!("\"{base}\" does not exist on the server's machine.")
        } else {
            format!("\"{base}\" does not exist below the server's working directory; an absolute path is safer.")
        };
        Error::Option { message: format!("no file matches path \"{}\"", self.pattern), hint: Some(hint) }
    }
}

/// Options that reach the object store, by the store's own names.
pub(super) const STORE_OPTIONS: &[(&str, &str)] = &[
    ("s3.endpoint", "aws_endpoint"),
    ("s3.region", "aws_region"),
    ("s3.access-key", "aws_access_key_id"),
    ("s3.secret-key", "aws_secret_access_key"),
    ("s3.allow-http", "aws_allow_http"),
    ("gs.service-account", "google_service_account"),
    ("az.account", "azure_storage_account_name"),
    ("az.key", "azure_storage_account_key"),
];

/// An opened file.
pub(super) enum Handle {
    Local(File),
    Remote(ObjectPath),
}
