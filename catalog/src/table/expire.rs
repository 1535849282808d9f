//! Forgets old Paimon snapshots and deletes the files that only they needed.
//!
//! Readers outside may hold a snapshot by a tag or a consumer file; readers inside hold a [`FileSet`]. Both are respected.
//! A crash at any point leaves work that the next round finds: what a snapshot names is deleted before it.

use std::collections::HashSet;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::manifest::{FileChange, ManifestFile, manifest_path, read_list, read_manifest};
use super::snapshot::{Snapshot, live_files, read_optional, read_snapshot, snapshot_ids, snapshot_path};
use super::{FileSet, TableSchema, corrupt, store_error};
use crate::{Error, Result, Storage};

/// How long Paimon snapshots stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Snapshots that always stay. Default 10.
    pub(crate) snapshots_min: usize,
    /// A snapshot stays while the next one is younger than this, microseconds. Default one hour.
    pub(crate) age_us: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { snapshots_min: 10, age_us: 3_600_000_000 }
    }
}

/// Snapshots forgotten in one round.
const SNAPSHOTS_PER_ROUND: usize = 50;

/// Deletes snapshots that `retention` lets go, and the files that neither a later snapshot nor a reader of ours needs.
/// Works off a bounded number; call it again for more.
pub(crate) async fn expire(
    storage: &Storage,
    schema: &TableSchema,
    retention: Retention,
    live: &FileSet,
    now_us: i64,
) -> Result<()> {
    let ids = snapshot_ids(storage, schema).await?;
    let candidates = ids.len().saturating_sub(retention.snapshots_min.max(1)).min(SNAPSHOTS_PER_ROUND);
    let consumers = first_consumed(storage, schema).await?;
    let tags = Tagged::read(storage, schema).await?;
    let pinned = live.pinned();
    let mut expired = Vec::new();
    let mut data_files = Vec::new();
    for pair in ids.windows(2).take(candidates) {
        let [id, next] = [pair[0], pair[1]];
        let (Some(snapshot), Some(next)) =
            (read_snapshot(storage, schema, id).await?, read_snapshot(storage, schema, next).await?)
        else {
            break;
        };
        let young = next.time_millis > (now_us - retention.age_us) / 1000;
        if young || consumers.is_some_and(|consumed| id >= consumed) {
            break;
        }
        let gone = removed_by(storage, schema, &next).await?;
        if gone.iter().any(|name| pinned.contains(name)) {
            break;
        }
        data_files.extend(gone.into_iter().filter(|name| !tags.data_files.contains(name)));
        expired.push((snapshot, next));
    }
    let Some((_, first_kept)) = expired.last() else { return Ok(()) };

    let earliest = schema.object("snapshot/EARLIEST");
    storage.store.put(&earliest, first_kept.id.to_string().into()).await.map_err(store_error("write", &earliest))?;
    for name in data_files {
        delete(storage, &schema.data_file(&name)).await?;
    }
    let needed: HashSet<String> = metadata_of(storage, schema, first_kept).await?.into_iter().chain(tags.metadata).collect();
    for (snapshot, _) in &expired {
        for name in metadata_of(storage, schema, snapshot).await? {
            if !needed.contains(&name) {
                delete(storage, &manifest_path(schema, &name)).await?;
            }
        }
        delete(storage, &snapshot_path(schema, snapshot.id)).await?;
    }
    Ok(())
}

/// Files that a snapshot took from the table and did not give back.
async fn removed_by(storage: &Storage, schema: &TableSchema, snapshot: &Snapshot) -> Result<Vec<String>> {
    let mut removed = HashSet::new();
    let mut added = HashSet::new();
    for manifest in list(storage, schema, &snapshot.delta_manifest_list).await? {
        for entry in found(read_manifest(storage, schema, &manifest.name).await)?.unwrap_or_default() {
            let names = if entry.change == FileChange::Delete { &mut removed } else { &mut added };
            names.insert(entry.file.name);
        }
    }
    Ok(removed.into_iter().filter(|name| !added.contains(name)).collect())
}

/// Names of the lists and manifests of a snapshot, lists last, so that a round that was cut short finds the rest again.
async fn metadata_of(storage: &Storage, schema: &TableSchema, snapshot: &Snapshot) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in [&snapshot.base_manifest_list, &snapshot.delta_manifest_list] {
        names.extend(list(storage, schema, name).await?.into_iter().map(|manifest| manifest.name));
    }
    names.extend([snapshot.base_manifest_list.clone(), snapshot.delta_manifest_list.clone()]);
    Ok(names)
}

/// A list of manifests; nothing where an earlier round has deleted it.
async fn list(storage: &Storage, schema: &TableSchema, name: &str) -> Result<Vec<ManifestFile>> {
    Ok(found(read_list(storage, schema, name).await)?.unwrap_or_default())
}

/// What was read, or `None` where there is nothing.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What tags of other programs hold.
#[derive(Default)]
struct Tagged {
    data_files: HashSet<String>,
    metadata: HashSet<String>,
}

impl Tagged {
    async fn read(storage: &Storage, schema: &TableSchema) -> Result<Tagged> {
        let mut tagged = Tagged::default();
        for (path, bytes) in read_folder(storage, schema, "tag").await? {
            let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error))?;
            tagged.data_files.extend(live_files(storage, schema, &snapshot).await?.into_iter().map(|entry| entry.file.name));
            tagged.metadata.extend(metadata_of(storage, schema, &snapshot).await?);
        }
        Ok(tagged)
    }
}

/// The lowest snapshot that a consumer file of another program still asks for.
async fn first_consumed(storage: &Storage, schema: &TableSchema) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Consumer {
        next_snapshot: u64,
    }
    let mut first = None;
    for (path, bytes) in read_folder(storage, schema, "consumer").await? {
        let consumer: Consumer = serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error))?;
        first = Some(first.map_or(consumer.next_snapshot, |first: u64| first.min(consumer.next_snapshot)));
    }
    Ok(first)
}

async fn read_folder(storage: &Storage, schema: &TableSchema, name: &str) -> Result<Vec<(Path, bytes::Bytes)>> {
    let folder = schema.object(name);
    let objects: Vec<_> = storage.store.list(Some(&folder)).try_collect().await.map_err(store_error("list", &folder))?;
    let mut contents = Vec::with_capacity(objects.len());
    for object in objects {
        if let Some(bytes) = read_optional(storage, &object.location).await? {
            contents.push((object.location, bytes));
        }
    }
    Ok(contents)
}

async fn delete(storage: &Storage, path: &Path) -> Result<()> {
    match storage.store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(store_error("delete", path)(error)),
    }
}
