//! `freshet check`: reads everything of a data directory and says what is wrong.
//!
//! The directory is opened as a server opens it (newest manifest, the log after it, every checksum), and then every row
//! of every table is read and held against its definition: types, NOT NULL, unique keys.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use catalog::{Catalog, Definition, Storage, Version};
use datafusion::common::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::{Config, Result, chain, clock};

/// Keys that are remembered to find one twice; beyond it a table's keys are checked in part.
const KEYS_MAX: usize = 10_000_000;

/// What is wrong, one line each; nothing when all is well.
///
/// # Errors
/// Storage that cannot be reached, and a directory that a server is using.
pub async fn check(config: &Config) -> Result<Vec<String>> {
    let storage = Storage::open(&config.data, &config.storage)?;
    let catalog = match Catalog::open(storage, catalog::Options::default(), clock::now_us).await {
        Ok(catalog) => catalog,
        Err(error @ catalog::Error::Corrupt { .. }) => return Ok(vec![chain(&error)]),
        Err(error) => return Err(error.into()),
    };
    let version = catalog.version();
    let mut findings = references(&version);
    for definition in version.objects.values().filter(|definition| definition.kind.has_table()) {
        if let Err(error) = rows(&version, definition, &mut findings).await {
            findings.push(format!("{}: {}", definition.name, chain(&error)));
        }
    }
    catalog.close().await?;
    Ok(findings)
}

/// Definitions that name what is not there.
fn references(version: &Version) -> Vec<String> {
    let mut findings = Vec::new();
    for definition in version.objects.values() {
        for id in definition.depends_on.iter().filter(|id| !version.objects.contains_key(id)) {
            findings.push(format!("{}: reads object {}, which is not there", definition.name, id.0));
        }
        if version.names.get(&definition.name) != Some(&definition.id) {
            findings.push(format!("{}: its name leads to something else", definition.name));
        }
    }
    findings
}

async fn rows(version: &Arc<Version>, definition: &Definition, findings: &mut Vec<String>) -> Result<(), DataFusionError> {
    let Some(provider) = version.table(definition.id) else {
        findings.push(format!("{}: its table is not there", definition.name));
        return Ok(());
    };
    let mut stream = SessionContext::new().read_table(provider)?.execute_stream().await?;
    let mut keys = Keys::new(definition)?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        for (field, column) in definition.schema.fields().iter().zip(batch.columns()) {
            if column.data_type() != field.data_type() {
                findings.push(format!("{}: column {} is {}, not {}", definition.name, field.name(), column.data_type(), field.data_type()));
                return Ok(());
            }
            if !field.is_nullable() && column.null_count() > 0 {
                findings.push(format!("{}: column {} has a null", definition.name, field.name()));
                return Ok(());
            }
        }
        if let Some(finding) = keys.twice(&batch)? {
            findings.push(format!("{}: {finding}", definition.name));
            return Ok(());
        }
    }
    Ok(())
}

struct Keys {
    columns: Vec<usize>,
    converter: RowConverter,
    seen: HashSet<Box<[u8]>>,
}

impl Keys {
    fn new(definition: &Definition) -> Result<Self, DataFusionError> {
        let columns = definition.primary_key.iter().map(|name| definition.schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let fields = columns.iter().map(|index| SortField::new(definition.schema.field(*index).data_type().clone()));
        Ok(Keys { converter: RowConverter::new(fields.collect())?, columns, seen: HashSet::new() })
    }

    fn twice(&mut self, batch: &RecordBatch) -> Result<Option<&'static str>, DataFusionError> {
        if self.columns.is_empty() || self.seen.len() >= KEYS_MAX {
            return Ok(None);
        }
        let keys = batch.project(&self.columns)?;
        let rows = self.converter.convert_columns(keys.columns())?;
        let twice = rows.iter().any(|row| !self.seen.insert(row.as_ref().into()));
        Ok(twice.then_some("a key is there twice"))
    }
}
