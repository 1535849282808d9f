//! Looks for damage: what `freshet check` says about a table's files.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::data_file::{read, row_count};
use super::merge::KeyEncoder;
use super::snapshot::{latest, live_files};
use super::{DataFile, FileSet, TableSchema};
use crate::{Result, Storage};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads the metadata and all live files; empty when all is well.
pub(crate) async fn check(storage: &Storage, schema: &TableSchema, live: &FileSet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |path: String, problem: String| findings.push(Finding { path, problem });
    let schema_path = schema.object("schema/schema-0");
    if let Err(error) = storage.store.head(&schema_path).await {
        report(schema_path.to_string(), chain(&error));
    }
    let mut files: Vec<DataFile> = live.to_vec();
    match latest(storage, schema).await {
        Ok(None) => {}
        Ok(Some(snapshot)) => match live_files(storage, schema, &snapshot).await {
            Ok(published) => {
                let known: HashSet<String> = files.iter().map(|file| file.name.clone()).collect();
                files.extend(published.into_iter().map(|entry| entry.file).filter(|file| !known.contains(&file.name)));
            }
            Err(error) => report(schema.object(&format!("snapshot/snapshot-{}", snapshot.id)).to_string(), chain(&error)),
        },
        Err(error) => report(schema.object("snapshot").to_string(), chain(&error)),
    }
    for file in &files {
        match file_problem(storage, schema, file).await {
            Ok(None) => {}
            Ok(Some(problem)) => report(schema.data_file(&file.name).to_string(), problem),
            Err(crate::Error::Store { source: object_store::Error::NotFound { .. }, .. }) => {
                report(schema.data_file(&file.name).to_string(), "it is missing, and its table needs it".to_owned());
            }
            Err(error) => report(schema.data_file(&file.name).to_string(), chain(&error)),
        }
    }
    findings
}

async fn file_problem(storage: &Storage, schema: &TableSchema, file: &DataFile) -> Result<Option<String>> {
    let path = schema.data_file(&file.name);
    let size = storage.store.head(&path).await.map_err(super::store_error("read", &path))?.size;
    if size != file.size {
        return Ok(Some(format!("it has {size} bytes instead of {}", file.size)));
    }
    if let Some(checksum) = file.checksum
        && checksum_of(storage, &path).await.map_err(super::store_error("read", &path))? != checksum
    {
        return Ok(Some("its checksum is wrong".to_owned()));
    }
    let rows = row_count(storage, schema, file).await?;
    if rows != file.rows {
        return Ok(Some(format!("it has {rows} rows instead of {}", file.rows)));
    }
    let encoder = KeyEncoder::at(schema, (0..schema.key.len()).collect())?;
    let mut batches = read(storage, schema, file, 8192).await?;
    let mut last: Option<Vec<u8>> = None;
    while let Some(batch) = batches.next().await.transpose()? {
        if schema.key.is_empty() {
            continue;
        }
        for key in &encoder.encode(batch.columns())? {
            if last.as_deref().is_some_and(|last| last >= key.data()) {
                return Ok(Some("its keys do not rise".to_owned()));
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key.data());
        }
    }
    Ok(None)
}

async fn checksum_of(storage: &Storage, path: &Path) -> object_store::Result<u32> {
    let mut bytes = storage.store.get(path).await?.into_stream();
    let mut checksum = crc32fast::Hasher::new();
    while let Some(bytes) = bytes.try_next().await? {
        checksum.update(&bytes);
    }
    Ok(checksum.finalize())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
