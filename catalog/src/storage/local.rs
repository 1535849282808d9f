//! A local directory whose puts survive a power cut: temporary file, fsync, link or rename, fsync of the directory.
//!
//! `LocalFileSystem` writes atomically, but leaves it to the system when bytes reach the disk. Reading, listing and
//! deleting are its own; temporary names end in `#digits`, which its listings leave out.
//!
//! Nothing is written when the directory is not the one that was opened: a disk that is unmounted leaves an empty
//! directory at its place, and commits that went there would be lost when it comes back.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// See the module.
#[derive(Debug)]
pub(super) struct DurableDirectory {
    files: Arc<LocalFileSystem>,
    root: Arc<Root>,
}

/// The directory that was opened.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Root {
    fn open(path: &FilePath) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Root { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// That it still stands at its place.
    fn check(&self) -> Result<()> {
        let now = Root::open(&self.path);
        if now.is_ok_and(|now| (now.device, now.inode) == (self.device, self.inode)) {
            return Ok(());
        }
        let message = format!("the data directory {} is not there any more, or another is at its place", self.path.display());
        Err(Error::Generic { store: "local", source: message.into() })
    }
}

impl DurableDirectory {
    pub(super) fn open(root: &FilePath) -> Result<Self> {
        let files = Arc::new(LocalFileSystem::new_with_prefix(root)?.with_automatic_cleanup(false));
        let root = Root::open(root).map_err(|source| failed(root, source))?;
        Ok(DurableDirectory { files, root: Arc::new(root) })
    }
}

impl std::fmt::Display for DurableDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for DurableDirectory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "conditional overwrite".into(), implementer: self.to_string() });
            }
        };
        let root = Arc::clone(&self.root);
        let write = move || root.check().and_then(|()| write_durably(&path, &payload, create));
        tokio::task::spawn_blocking(write).await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.root.check()?;
        let path = self.files.path_to_filesystem(location)?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { upload, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.root.check()?;
        let path = self.files.path_to_filesystem(to)?;
        self.files.copy_opts(from, to, options).await?;
        sync_written(path).await
    }
}

/// A multipart upload that is on the disk when it is complete.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        self.upload.put_part(payload)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        sync_written(self.path.clone()).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

async fn sync_written(path: PathBuf) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        let sync = || {
            File::open(&path)?.sync_all()?;
            path.parent().map_or(Ok(()), sync_directory)
        };
        sync().map_err(|source| failed(&path, source))
    })
    .await?
}

fn write_durably(path: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
    let parent = path.parent().unwrap_or_else(|| FilePath::new("."));
    let (mut file, temporary) = temporary_beside(path, parent).map_err(|source| failed(path, source))?;
    let write = || -> std::io::Result<()> {
        for piece in payload {
            file.write_all(piece)?;
        }
        file.sync_all()?;
        drop(file);
        if create {
            // Fails when the name is taken: of two writers exactly one wins.
            std::fs::hard_link(&temporary, path)?;
            std::fs::remove_file(&temporary)?;
        } else {
            std::fs::rename(&temporary, path)?;
        }
        sync_directory(parent)
    };
    write().map_err(|source| {
        // The temporary file may be gone already; a leftover is not listed and harms nobody.
        let _ = std::fs::remove_file(&temporary);
        failed(path, source)
    })
}

/// A new file in the directory of `path`; directories that are missing are made, each known to its parent on the disk.
fn temporary_beside(path: &FilePath, parent: &FilePath) -> std::io::Result<(File, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!("{name}#{}", uuid::Uuid::new_v4().as_u128() as u64));
    match File::create_new(&temporary) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_directory_durably(parent)?;
            Ok((File::create_new(&temporary)?, temporary))
        }
        file => Ok((file?, temporary)),
    }
}

fn create_directory_durably(path: &FilePath) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directory_durably(parent)?;
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => sync_directory(parent)?,
        }
    }
    Ok(())
}

fn sync_directory(path: &FilePath) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn failed(path: &FilePath, source: std::io::Error) -> Error {
    let kind = source.kind();
    let path = path.display().to_string();
    let source = Box::new(source);
    match kind {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source },
        ErrorKind::NotFound => Error::NotFound { path, source },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source },
        _ => Error::Generic { store: "local", source },
    }
}
