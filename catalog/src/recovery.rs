//! From what lies in the store to the newest version: manifest, older rows, newer commits, and the fence.
//!
//! Which objects are read is decided by [`plan`], which of them may go by [`garbage`]; both know no store.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::errors_table::errors_definition;
use crate::log::put::{Attempt, attempt, backoff};
use crate::log::{Head, LOG_MAGIC, MANIFEST_MAGIC, Section, codec, log_path, manifest_path, rows, seq_of};
use crate::table::{EditKind, TableSchema};
use crate::version::{Draft, Needs};
use crate::{Definition, Error, ObjectId, ObjectKind, ObjectName, Result, Seq, Storage, Version};

/// Log objects read at the same time.
const READS: usize = 8;
/// Attempts to write the fence before opening is given up.
const FENCE_ATTEMPTS: u32 = 8;

/// What the store holds, after opening.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub version: Version,
    /// Head of the newest commit; after [`fence`], of ours.
    pub head: Head,
    /// First commits of all generations.
    pub fences: Vec<Seq>,
    pub log: BTreeSet<Seq>,
    pub manifests: BTreeSet<Seq>,
    pub state_files: BTreeSet<String>,
    /// The manifest that was read, and what it needs of the log.
    pub manifest: Option<(Seq, Needs)>,
    /// Tables that the commits after the manifest dropped: their files may still be there.
    pub dropped: Vec<TableSchema>,
}

/// The log objects to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Up to the manifest: only rows that are in no file yet.
    pub rows: Vec<Seq>,
    /// After the manifest: everything.
    pub commits: Vec<Seq>,
}

/// What must be read when these log objects exist, the manifest is of commit `manifest`, and the rows from `unflushed` on
/// are in no file.
///
/// # Errors
/// The commit that should be there and is not.
pub(crate) fn plan(log: &BTreeSet<Seq>, manifest: Seq, unflushed: Option<Seq>) -> Result<Plan, Seq> {
    let last = log.last().copied().unwrap_or(manifest).max(manifest);
    let present = |from: u64, to: u64| -> Result<Vec<Seq>, Seq> {
        (from..=to).map(Seq).map(|seq| if log.contains(&seq) { Ok(seq) } else { Err(seq) }).collect()
    };
    let rows = match unflushed {
        Some(from) => present(from.0, manifest.0)?,
        None => Vec::new(),
    };
    Ok(Plan { rows, commits: present(manifest.0.saturating_add(1), last.0)? })
}

/// The log objects that nobody needs: below `from`, without state parts, and no fence.
///
/// Fences stay because a server that was replaced while it was frozen will, when it wakes, try to create exactly that
/// object; if it were gone, the put would succeed and the server would believe in a commit that nobody reads.
pub(crate) fn garbage(log: &BTreeSet<Seq>, from: Seq, exact: &BTreeSet<Seq>, fences: &[Seq]) -> Vec<Seq> {
    log.range(..from).filter(|seq| !exact.contains(seq) && !fences.contains(seq)).copied().collect()
}

/// Reads the newest version.
pub(crate) async fn recover(storage: &Storage) -> Result<Recovered> {
    let (log, manifests, state_files) =
        tokio::try_join!(list_seqs(storage, "log"), list_seqs(storage, "manifest"), list_names(storage, "state"))?;
    let (mut version, mut head, mut fences, manifest) = match newest_manifest(storage, &manifests).await? {
        Some((version, head, unflushed)) => {
            let fences = head.fences.clone();
            (version, Some(head), fences, Some(unflushed))
        }
        None => (Version::empty(storage.clone()), None, Vec::new(), None),
    };
    let mut dropped = Vec::new();
    let at = version.seq;
    let needs = manifest.map(|unflushed| {
        let needs = Needs::of(&version);
        (at, Needs { from: unflushed.unwrap_or(needs.from).min(needs.from), ..needs })
    });
    let plan = plan(&log, at, manifest.flatten())
        .map_err(|missing| corrupt(&log_path(missing), "it is missing, and later commits are there".to_owned()))?;
    let mut commits =
        futures::stream::iter(plan.rows.into_iter().chain(plan.commits).map(|seq| read_commit(storage, seq))).buffered(READS);
    while let Some((found, sections)) = commits.try_next().await? {
        let path = log_path(found.seq);
        if found.seq <= at {
            version = replay_rows(version, &path, found.seq, sections)?;
            continue;
        }
        if head.as_ref().is_some_and(|head| head.database != found.database || head.generation > found.generation) {
            return Err(corrupt(&path, "it belongs to another database or an older generation".to_owned()));
        }
        dropped.extend(sections.iter().filter_map(|section| match section {
            Section::Drop(id) => Some(version.tables.get(id)?.schema.as_ref().clone()),
            _ => None,
        }));
        version = replay(version, &path, found.seq, sections)?;
        fences.extend(&found.fences);
        head = Some(Head { definitions_version: version.definitions_version, ..found });
    }
    let head = head.unwrap_or_else(|| Head {
        database: uuid::Uuid::new_v4().to_string(),
        generation: 0,
        seq: Seq(0),
        time_us: 0,
        nonce: 0,
        next_id: ObjectId::FIRST_USER.0,
        fences: Vec::new(),
        definitions_version: 0,
    });
    Ok(Recovered { version, head, fences, log, manifests, state_files, manifest: needs, dropped })
}

/// Makes this server the writer: the first object of a new generation, with the built-in objects at the very first open.
///
/// # Errors
/// [`Error::Store`] when the store cannot be written.
pub(crate) async fn fence(storage: &Storage, recovered: &mut Recovered, now_us: i64) -> Result<()> {
    let mut failures = 0;
    loop {
        match try_fence(storage, recovered, now_us).await? {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(None) => {}
            ControlFlow::Continue(Some(source)) => {
                failures += 1;
                if failures >= FENCE_ATTEMPTS {
                    let path = log_path(Seq(recovered.version.seq.0 + 1)).to_string();
                    return Err(Error::Store { action: "write", path, source });
                }
                tokio::time::sleep(backoff(failures, u64::from(failures))).await;
            }
        }
    }
}

async fn try_fence(
    storage: &Storage,
    recovered: &mut Recovered,
    now_us: i64,
) -> Result<ControlFlow<(), Option<object_store::Error>>> {
    let seq = Seq(recovered.version.seq.0 + 1);
    let head = Head {
        seq,
        generation: recovered.head.generation + 1,
        time_us: now_us,
        nonce: uuid::Uuid::new_v4().as_u64_pair().0,
        fences: vec![seq],
        ..recovered.head.clone()
    };
    let sections = if seq == Seq(1) { built_in_objects(now_us).into_iter().map(Section::Define).collect() } else { Vec::new() };
    match attempt(storage, &head, &codec::encode(LOG_MAGIC, &head, &sections)).await? {
        Attempt::Won => {
            let version = std::mem::replace(&mut recovered.version, Version::empty(storage.clone()));
            recovered.version = replay(version, &log_path(seq), seq, sections)?;
            recovered.fences.push(seq);
            recovered.log.insert(seq);
            recovered.head = head;
            Ok(ControlFlow::Break(()))
        }
        Attempt::Lost(_) => {
            // A server that is not yet fenced has committed meanwhile, or another one opens too: take its commit in.
            let (found, sections) = read_commit(storage, seq).await?;
            let version = std::mem::replace(&mut recovered.version, Version::empty(storage.clone()));
            recovered.version = replay(version, &log_path(seq), seq, sections)?;
            recovered.fences.extend(&found.fences);
            recovered.log.insert(seq);
            recovered.head = found;
            Ok(ControlFlow::Continue(None))
        }
        Attempt::Unclear(source) => Ok(ControlFlow::Continue(Some(source))),
    }
}

fn built_in_objects(now_us: i64) -> Vec<Definition> {
    let schema = |id: u64, name: &str| Definition {
        id: ObjectId(id),
        name: ObjectName { schema: name.to_owned(), name: name.to_owned() },
        kind: ObjectKind::Schema,
        sql: format!("CREATE SCHEMA {name}"),
        schema: std::sync::Arc::new(arrow::datatypes::Schema::empty()),
        primary_key: Vec::new(),
        options: std::collections::BTreeMap::new(),
        depends_on: Vec::new(),
        created_us: now_us,
        comment: None,
        paused: false,
        watermark: None,
    };
    vec![schema(2, "public"), schema(3, "freshet"), errors_definition(now_us)]
}

/// The version after a commit.
pub(crate) fn replay(before: Version, path: &Path, seq: Seq, sections: Vec<Section>) -> Result<Version> {
    let mut draft = Draft::of(&before, seq);
    drop(before);
    for section in sections {
        match section {
            Section::Define(definition) => draft.define(definition)?,
            Section::Drop(id) => draft.drop_object(id),
            Section::Rows(section) => {
                if !draft.version().tables.contains_key(&section.table) {
                    return Err(corrupt(path, format!("rows for table {}, which does not exist", section.table.0)));
                }
                for changes in rows::decode(path.as_ref(), &section)? {
                    draft.rows(section.table, changes);
                }
            }
            Section::Files(edit) => {
                if !draft.version().tables.get(&edit.table).is_some_and(|table| table.files.admits(&edit)) {
                    return Err(corrupt(path, format!("an edit that table {} does not admit", edit.table.0)));
                }
                draft.files(edit);
            }
            Section::Dataflow(section) => {
                let committed = draft.version().dataflows.get(&section.dataflow).map_or(0, |dataflow| dataflow.position.epoch);
                if section.epoch != committed + 1 {
                    let reason = format!("epoch {} of dataflow {} after {committed}", section.epoch, section.dataflow.0);
                    return Err(corrupt(path, reason));
                }
                draft.epoch(&section);
            }
            Section::Table(_) | Section::Position(_) => {
                return Err(corrupt(path, "a section that belongs into a manifest".to_owned()));
            }
        }
    }
    Ok(draft.finish())
}

/// Brings back rows that the manifest does not have and no file holds.
fn replay_rows(before: Version, path: &Path, seq: Seq, sections: Vec<Section>) -> Result<Version> {
    let mut draft = Draft::of(&before, before.seq);
    drop(before);
    for section in sections {
        match section {
            Section::Rows(section) => {
                let wanted = draft.version().tables.get(&section.table).is_some_and(|table| seq > table.flushed);
                if wanted {
                    rows::decode(path.as_ref(), &section)?
                        .into_iter()
                        .for_each(|changes| draft.unflushed(section.table, seq, changes));
                }
            }
            Section::Files(edit) if edit.kind == EditKind::Truncate => draft.forget_unflushed(edit.table, seq),
            _ => {}
        }
    }
    Ok(draft.finish())
}

/// One commit, decoded off the async threads.
pub(crate) async fn read_commit(storage: &Storage, seq: Seq) -> Result<(Head, Vec<Section>)> {
    let path = log_path(seq);
    let content = storage.read(&path).await?;
    let (head, sections) = decode_off_thread(LOG_MAGIC, &path, content).await?;
    if head.seq != seq {
        return Err(corrupt(&path, format!("it says it is commit {}", head.seq.0)));
    }
    Ok((head, sections))
}

/// One manifest: its version without memtables, its head, and the oldest commit with rows that are in no file.
pub(crate) async fn read_manifest(storage: &Storage, seq: Seq) -> Result<(Version, Head, Option<Seq>)> {
    let path = manifest_path(seq);
    let content = storage.read(&path).await?;
    let (head, sections) = decode_off_thread(MANIFEST_MAGIC, &path, content).await?;
    if head.seq != seq {
        return Err(corrupt(&path, format!("it says it is of commit {}", head.seq.0)));
    }
    let unflushed =
        sections.iter().filter_map(|section| if let Section::Table(table) = section { table.unflushed } else { None }).min();
    let version = Version::from_sections(storage.clone(), &head, sections).map_err(|reason| corrupt(&path, reason))?;
    Ok((version, head, unflushed))
}

/// The newest manifest that can be read. The one before it is as good, only older: the log for it is kept.
async fn newest_manifest(storage: &Storage, manifests: &BTreeSet<Seq>) -> Result<Option<(Version, Head, Option<Seq>)>> {
    let mut damaged = None;
    for seq in manifests.iter().rev().take(2) {
        match read_manifest(storage, *seq).await {
            Ok(found) => return Ok(Some(found)),
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%error, "the manifest before it is read instead");
                damaged = damaged.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(None), Err)
}

async fn decode_off_thread(magic: &'static [u8; 8], path: &Path, content: Bytes) -> Result<(Head, Vec<Section>)> {
    let path = path.to_string();
    tokio::task::spawn_blocking(move || codec::decode(magic, &path, content)).await.map_err(|_| Error::Closed)?
}

pub(crate) async fn list_seqs(storage: &Storage, folder: &'static str) -> Result<BTreeSet<Seq>> {
    let listed =
        storage.store.list(Some(&Path::from(folder))).try_filter_map(|object| async move { Ok(seq_of(&object.location)) });
    listed.try_collect().await.map_err(|source| Error::Store { action: "list", path: folder.to_owned(), source })
}

pub(crate) async fn list_names(storage: &Storage, folder: &'static str) -> Result<BTreeSet<String>> {
    let listed = storage.store.list(Some(&Path::from(folder))).map_ok(|object| object.location.to_string());
    listed.try_collect().await.map_err(|source| Error::Store { action: "list", path: folder.to_owned(), source })
}

fn corrupt(path: &Path, reason: String) -> Error {
    Error::Corrupt { path: path.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<Seq> {
        numbers.into_iter().map(Seq).collect()
    }

    #[test]
    fn what_is_read_is_what_is_needed() {
        let cases = [
            (seqs([]), 0, None, Ok((vec![], vec![]))),
            (seqs([1, 2]), 0, None, Ok((vec![], vec![1, 2]))),
            (seqs([1, 5, 8, 9, 10]), 8, None, Ok((vec![], vec![9, 10]))),
            (seqs([1, 5, 7, 8, 9]), 8, Some(7), Ok((vec![7, 8], vec![9]))),
            (seqs([1, 5]), 8, None, Ok((vec![], vec![]))),
            (seqs([2]), 0, None, Err(1)),
            (seqs([9, 11]), 8, None, Err(10)),
            (seqs([8, 9]), 8, Some(6), Err(6)),
        ];
        for (log, manifest, unflushed, expected) in cases {
            let found = plan(&log, Seq(manifest), unflushed.map(Seq));
            let expected = expected
                .map(|(rows, commits): (Vec<u64>, Vec<u64>)| Plan {
                    rows: rows.into_iter().map(Seq).collect(),
                    commits: commits.into_iter().map(Seq).collect(),
                })
                .map_err(Seq);
            assert_eq!(found, expected, "{log:?} {manifest} {unflushed:?}");
        }
    }

    #[test]
    fn fences_and_state_are_no_garbage() {
        let found = garbage(&seqs(1..=10), Seq(8), &seqs([3]), &[Seq(1), Seq(5)]);
        assert_eq!(found, [2, 4, 6, 7].map(Seq));
    }
}
