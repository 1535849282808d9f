//! Paimon snapshots, derived from committed file edits.
//!
//! A snapshot is known by who made it (`commitUser`), for which commit (`commitIdentifier`) and how (`commitKind`),
//! so that publishing one again after a crash or a lost answer finds it.

use std::collections::HashSet;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::manifest::{FileChange, ManifestEntry, ManifestFile, read_list, read_manifest, write_list, write_manifest};
use super::{EditKind, FileEdit, TableSchema, corrupt, store_error};
use crate::{Error, Result, Seq, Storage};

/// So many small manifests are merged into one.
const MERGE_MANIFESTS_MIN: usize = 30;
/// A manifest below this is small.
const SMALL_MANIFEST_BYTES: u64 = 8 << 20;
/// How often a lost race for the next number is tried again.
const ATTEMPTS_MAX: usize = 10;

/// `snapshot/snapshot-N`. Fields that we do not name are other writers' and not needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    version: u32,
    /// N.
    pub(crate) id: u64,
    schema_id: i64,
    /// What was there before.
    pub(crate) base_manifest_list: String,
    /// What this snapshot changed.
    pub(crate) delta_manifest_list: String,
    #[serde(default)]
    changelog_manifest_list: Option<String>,
    commit_user: String,
    commit_identifier: i64,
    commit_kind: String,
    /// When it was published, milliseconds since 1970.
    pub(crate) time_millis: i64,
    total_record_count: i64,
    delta_record_count: i64,
}

/// Publishes the edit of commit `seq` as a Paimon snapshot and returns its number; does nothing when that has happened before.
/// Edits of a table are published in the order of their commits. An edit without files is not published.
pub(crate) async fn publish(
    storage: &Storage,
    schema: &TableSchema,
    commit_user: &str,
    seq: Seq,
    edit: &FileEdit,
    now_us: i64,
) -> Result<u64> {
    let commit_identifier = seq.0 as i64;
    let commit_kind = match edit.kind {
        EditKind::Append => "APPEND",
        EditKind::Compact => "COMPACT",
        EditKind::Truncate => "OVERWRITE",
    };
    let commit = Commit { user: commit_user, identifier: commit_identifier, kind: commit_kind };
    let deletes = edit.removed.iter().map(|file| ManifestEntry { change: FileChange::Delete, file: file.clone() });
    let adds = edit.added.iter().map(|file| ManifestEntry { change: FileChange::Add, file: file.clone() });
    let entries: Vec<_> = deletes.chain(adds).collect();
    // Written once, whoever wins the number.
    let mut delta_manifest_list: Option<String> = None;
    for _ in 0..ATTEMPTS_MAX {
        let latest = latest(storage, schema).await?;
        if let Some(id) = published(storage, schema, latest.as_ref(), &commit).await? {
            return Ok(id);
        }
        if entries.is_empty() {
            return Ok(latest.map_or(0, |snapshot| snapshot.id));
        }
        let delta_manifest_list = match &delta_manifest_list {
            Some(list) => list.clone(),
            None => {
                let unique = Uuid::new_v4();
                let manifest = write_manifest(storage, schema, format!("manifest-{unique}-0"), &entries).await?;
                let list = format!("manifest-list-{unique}-1");
                write_list(storage, schema, &list, &[manifest]).await?;
                delta_manifest_list.insert(list).clone()
            }
        };
        let base = match &latest {
            Some(latest) => merged(storage, schema, all_manifests(storage, schema, latest).await?).await?,
            None => Vec::new(),
        };
        let base_manifest_list = format!("manifest-list-{}-0", Uuid::new_v4());
        write_list(storage, schema, &base_manifest_list, &base).await?;
        let sum = |change: FileChange| {
            entries.iter().filter(|entry| entry.change == change).map(|entry| entry.file.rows as i64).sum::<i64>()
        };
        let delta_record_count = sum(FileChange::Add) - sum(FileChange::Delete);
        let snapshot = Snapshot {
            version: 3,
            id: latest.as_ref().map_or(1, |latest| latest.id + 1),
            schema_id: 0,
            base_manifest_list,
            delta_manifest_list,
            changelog_manifest_list: None,
            commit_user: commit_user.to_owned(),
            commit_identifier,
            commit_kind: commit_kind.to_owned(),
            time_millis: now_us / 1000,
            total_record_count: latest.as_ref().map_or(0, |latest| latest.total_record_count) + delta_record_count,
            delta_record_count,
        };
        if put_new(storage, schema, &snapshot).await? {
            return Ok(snapshot.id);
        }
    }
    Err(Error::Conflict { what: format!("table {}", schema.path) })
}

/// What a snapshot is known by.
struct Commit<'a> {
    user: &'a str,
    identifier: i64,
    kind: &'a str,
}

/// The snapshot of this commit if it is there. Our identifiers grow, so the search ends at the first that is lower.
async fn published(
    storage: &Storage,
    schema: &TableSchema,
    latest: Option<&Snapshot>,
    commit: &Commit<'_>,
) -> Result<Option<u64>> {
    let mut next = latest.cloned();
    while let Some(snapshot) = next {
        if snapshot.commit_user == commit.user {
            if snapshot.commit_identifier < commit.identifier {
                return Ok(None);
            }
            // One of a later commit was published after this one was.
            if snapshot.commit_identifier > commit.identifier || snapshot.commit_kind == commit.kind {
                return Ok(Some(snapshot.id));
            }
        }
        next = if snapshot.id > 1 { read_snapshot(storage, schema, snapshot.id - 1).await? } else { None };
    }
    Ok(None)
}

/// Puts the snapshot unless its number is taken. The hints follow; readers do without them.
async fn put_new(storage: &Storage, schema: &TableSchema, snapshot: &Snapshot) -> Result<bool> {
    let path = snapshot_path(schema, snapshot.id);
    let json = serde_json::to_vec_pretty(snapshot).map_err(|error| corrupt(&path, error))?;
    match storage.store.put_opts(&path, json.into(), PutMode::Create.into()).await {
        Ok(_) => {}
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => return Ok(false),
        Err(error) => return Err(store_error("write", &path)(error)),
    }
    let id = snapshot.id.to_string();
    for hint in if snapshot.id == 1 { &["LATEST", "EARLIEST"][..] } else { &["LATEST"] } {
        let path = schema.object(&format!("snapshot/{hint}"));
        if let Err(error) = storage.store.put(&path, id.clone().into()).await {
            tracing::debug!(%path, %error, "could not write a hint");
        }
    }
    Ok(true)
}

/// The newest snapshot.
pub(crate) async fn latest(storage: &Storage, schema: &TableSchema) -> Result<Option<Snapshot>> {
    if let Some(hint) = read_hint(storage, schema, "LATEST").await? {
        // The hint may be behind by a crash between two puts, never ahead.
        let (hinted, next) = futures::join!(read_snapshot(storage, schema, hint), read_snapshot(storage, schema, hint + 1));
        if let (Some(hinted), None) = (hinted?, next?) {
            return Ok(Some(hinted));
        }
    }
    match snapshot_ids(storage, schema).await?.last() {
        Some(id) => read_snapshot(storage, schema, *id).await,
        None => Ok(None),
    }
}

/// Numbers of all snapshots, rising.
pub(crate) async fn snapshot_ids(storage: &Storage, schema: &TableSchema) -> Result<Vec<u64>> {
    let folder = schema.object("snapshot");
    let objects: Vec<_> = storage.store.list(Some(&folder)).try_collect().await.map_err(store_error("list", &folder))?;
    let number = |path: &Path| path.filename()?.strip_prefix("snapshot-")?.parse().ok();
    let mut ids: Vec<u64> = objects.iter().filter_map(|object| number(&object.location)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Snapshot `id` if it is there.
pub(crate) async fn read_snapshot(storage: &Storage, schema: &TableSchema, id: u64) -> Result<Option<Snapshot>> {
    let path = snapshot_path(schema, id);
    match read_optional(storage, &path).await? {
        Some(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| corrupt(&path, error)),
        None => Ok(None),
    }
}

/// Where snapshot `id` is.
pub(crate) fn snapshot_path(schema: &TableSchema, id: u64) -> Path {
    schema.object(&format!("snapshot/snapshot-{id}"))
}

/// An object, or `None` where there is none.
pub(crate) async fn read_optional(storage: &Storage, path: &Path) -> Result<Option<bytes::Bytes>> {
    match storage.store.get(path).await {
        Ok(found) => Ok(Some(found.bytes().await.map_err(store_error("read", path))?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(store_error("read", path)(error)),
    }
}

async fn read_hint(storage: &Storage, schema: &TableSchema, name: &str) -> Result<Option<u64>> {
    let bytes = read_optional(storage, &schema.object(&format!("snapshot/{name}"))).await?;
    Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()))
}

/// All manifests of a snapshot, in the order in which they count.
pub(crate) async fn all_manifests(storage: &Storage, schema: &TableSchema, snapshot: &Snapshot) -> Result<Vec<ManifestFile>> {
    let (base, delta) = futures::join!(
        read_list(storage, schema, &snapshot.base_manifest_list),
        read_list(storage, schema, &snapshot.delta_manifest_list)
    );
    Ok([base?, delta?].concat())
}

/// The live files of a snapshot.
pub(crate) async fn live_files(storage: &Storage, schema: &TableSchema, snapshot: &Snapshot) -> Result<Vec<ManifestEntry>> {
    let mut entries = Vec::new();
    for manifest in all_manifests(storage, schema, snapshot).await? {
        entries.extend(read_manifest(storage, schema, &manifest.name).await?);
    }
    Ok(settled(entries).into_iter().filter(|entry| entry.change == FileChange::Add).collect())
}

/// The manifests with the small ones made one, when there are many of them.
async fn merged(storage: &Storage, schema: &TableSchema, manifests: Vec<ManifestFile>) -> Result<Vec<ManifestFile>> {
    let (small, mut kept): (Vec<_>, Vec<_>) =
        manifests.iter().cloned().partition(|manifest| manifest.size < SMALL_MANIFEST_BYTES);
    if small.len() < MERGE_MANIFESTS_MIN {
        return Ok(manifests);
    }
    let mut entries = Vec::new();
    for manifest in &small {
        entries.extend(read_manifest(storage, schema, &manifest.name).await?);
    }
    let entries = settled(entries);
    if !entries.is_empty() {
        // A delete that remains is of a file in one of the large manifests, so those come first.
        kept.push(write_manifest(storage, schema, format!("manifest-{}-0", Uuid::new_v4()), &entries).await?);
    }
    Ok(kept)
}

/// Without the files that are added and later deleted. A file at another level counts as another file.
fn settled(entries: Vec<ManifestEntry>) -> Vec<ManifestEntry> {
    let identity = |entry: &ManifestEntry| (entry.file.name.clone(), entry.file.level);
    let of =
        |change: FileChange| entries.iter().filter(move |entry| entry.change == change).map(identity).collect::<HashSet<_>>();
    let (added, deleted) = (of(FileChange::Add), of(FileChange::Delete));
    entries
        .into_iter()
        .filter(|entry| {
            let other = if entry.change == FileChange::Add { &deleted } else { &added };
            !other.contains(&identity(entry))
        })
        .collect()
}
