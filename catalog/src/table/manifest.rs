//! Paimon's manifests and lists of manifests: Avro files. Written with two fixed schemas, read by field name.

use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::types::Value;
use apache_avro::{Codec, Reader, Schema, Writer, ZstandardSettings};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::{BinaryRow, ColumnStats, DataFile, FileOrigin, TableSchema, corrupt, store_error};
use crate::{Result, Storage};

/// Whether a file joins or leaves the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileChange {
    /// It belongs to the table from this snapshot on.
    Add,
    /// It belonged to it until now.
    Delete,
}

/// One record of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ManifestEntry {
    /// Add or delete.
    pub(crate) change: FileChange,
    /// The file.
    pub(crate) file: DataFile,
}

/// One record of a list of manifests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ManifestFile {
    /// Name within `manifest/`.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Its entries that add.
    pub(crate) added: i64,
    /// Its entries that delete.
    pub(crate) deleted: i64,
}

const STATS_FIELDS: &str = r#"[
    {"name": "_MIN_VALUES", "type": "bytes"}, {"name": "_MAX_VALUES", "type": "bytes"},
    {"name": "_NULL_COUNTS", "type": ["null", {"type": "array", "items": ["null", "long"]}], "default": null}]"#;

static LIST_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    parse_schema(&format!(
        r#"{{"type": "record", "name": "ManifestFile", "fields": [
            {{"name": "_VERSION", "type": "int"}}, {{"name": "_FILE_NAME", "type": "string"}}, {{"name": "_FILE_SIZE", "type": "long"}},
            {{"name": "_NUM_ADDED_FILES", "type": "long"}}, {{"name": "_NUM_DELETED_FILES", "type": "long"}},
            {{"name": "_PARTITION_STATS", "type": {{"type": "record", "name": "PartitionStats", "fields": {STATS_FIELDS}}}}},
            {{"name": "_SCHEMA_ID", "type": "long"}}]}}"#
    ))
});

static ENTRY_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    parse_schema(&format!(
        r#"{{"type": "record", "name": "ManifestEntry", "fields": [
            {{"name": "_VERSION", "type": "int"}}, {{"name": "_KIND", "type": "int"}}, {{"name": "_PARTITION", "type": "bytes"}},
            {{"name": "_BUCKET", "type": "int"}}, {{"name": "_TOTAL_BUCKETS", "type": "int"}},
            {{"name": "_FILE", "type": {{"type": "record", "name": "DataFile", "fields": [
                {{"name": "_FILE_NAME", "type": "string"}}, {{"name": "_FILE_SIZE", "type": "long"}}, {{"name": "_ROW_COUNT", "type": "long"}},
                {{"name": "_MIN_KEY", "type": "bytes"}}, {{"name": "_MAX_KEY", "type": "bytes"}},
                {{"name": "_KEY_STATS", "type": {{"type": "record", "name": "KeyStats", "fields": {STATS_FIELDS}}}}},
                {{"name": "_VALUE_STATS", "type": {{"type": "record", "name": "ValueStats", "fields": {STATS_FIELDS}}}}},
                {{"name": "_MIN_SEQUENCE_NUMBER", "type": "long"}}, {{"name": "_MAX_SEQUENCE_NUMBER", "type": "long"}},
                {{"name": "_SCHEMA_ID", "type": "long"}}, {{"name": "_LEVEL", "type": "int"}},
                {{"name": "_EXTRA_FILES", "type": {{"type": "array", "items": "string"}}}},
                {{"name": "_CREATION_TIME", "type": ["null", {{"type": "long", "logicalType": "timestamp-millis"}}], "default": null}},
                {{"name": "_DELETE_ROW_COUNT", "type": ["null", "long"], "default": null}},
                {{"name": "_EMBEDDED_FILE_INDEX", "type": ["null", "bytes"], "default": null}},
                {{"name": "_FILE_SOURCE", "type": ["null", "int"], "default": null}},
                {{"name": "_VALUE_STATS_COLS", "type": ["null", {{"type": "array", "items": "string"}}], "default": null}},
                {{"name": "_EXTERNAL_PATH", "type": ["null", "string"], "default": null}},
                {{"name": "_FIRST_ROW_ID", "type": ["null", "long"], "default": null}},
                {{"name": "_WRITE_COLS", "type": ["null", {{"type": "array", "items": "string"}}], "default": null}}
            ]}}}}]}}"#
    ))
});

fn parse_schema(json: &str) -> Schema {
    Schema::parse_str(json).expect("the schemas above are valid")
}

/// Writes a manifest under this name.
pub(crate) async fn write_manifest(
    storage: &Storage,
    schema: &TableSchema,
    name: String,
    entries: &[ManifestEntry],
) -> Result<ManifestFile> {
    let records = entries.iter().map(|entry| entry_value(schema, entry)).collect();
    let size = write(storage, schema, &name, &ENTRY_SCHEMA, records).await?;
    let added = entries.iter().filter(|entry| entry.change == FileChange::Add).count() as i64;
    Ok(ManifestFile { name, size, added, deleted: entries.len() as i64 - added })
}

/// Writes a list of manifests under this name.
pub(crate) async fn write_list(storage: &Storage, schema: &TableSchema, name: &str, manifests: &[ManifestFile]) -> Result<()> {
    let records = manifests.iter().map(|manifest| {
        record([
            ("_VERSION", Value::Int(2)),
            ("_FILE_NAME", Value::String(manifest.name.clone())),
            ("_FILE_SIZE", Value::Long(manifest.size as i64)),
            ("_NUM_ADDED_FILES", Value::Long(manifest.added)),
            ("_NUM_DELETED_FILES", Value::Long(manifest.deleted)),
            ("_PARTITION_STATS", stats_value(&ColumnStats::default())),
            ("_SCHEMA_ID", Value::Long(0)),
        ])
    });
    write(storage, schema, name, &LIST_SCHEMA, records.collect()).await.map(drop)
}

/// Entries of a manifest.
pub(crate) async fn read_manifest(storage: &Storage, schema: &TableSchema, name: &str) -> Result<Vec<ManifestEntry>> {
    let path = manifest_path(schema, name);
    let records = read(storage, &path).await?;
    records.into_iter().map(|record| entry(&mut Record::of(&path, record)?)).collect()
}

/// Manifests of a list.
pub(crate) async fn read_list(storage: &Storage, schema: &TableSchema, name: &str) -> Result<Vec<ManifestFile>> {
    let path = manifest_path(schema, name);
    let manifest = |record| {
        let mut record = Record::of(&path, record)?;
        Ok(ManifestFile {
            name: record.text("_FILE_NAME")?,
            size: record.number("_FILE_SIZE")? as u64,
            added: record.number("_NUM_ADDED_FILES")?,
            deleted: record.number("_NUM_DELETED_FILES")?,
        })
    };
    read(storage, &path).await?.into_iter().map(manifest).collect()
}

/// Where a manifest or a list is.
pub(crate) fn manifest_path(schema: &TableSchema, name: &str) -> Path {
    schema.object(&format!("manifest/{name}"))
}

async fn write(storage: &Storage, schema: &TableSchema, name: &str, avro: &Schema, records: Vec<Value>) -> Result<u64> {
    let path = manifest_path(schema, name);
    let mut writer = Writer::with_codec(avro, Vec::new(), Codec::Zstandard(ZstandardSettings::default()));
    let written = records.into_iter().try_for_each(|record| writer.append(record).map(drop));
    let bytes = written.and_then(|()| writer.into_inner()).map_err(|error| corrupt(&path, error))?;
    let size = bytes.len() as u64;
    storage.store.put(&path, PutPayload::from(bytes)).await.map_err(store_error("write", &path))?;
    Ok(size)
}

async fn read(storage: &Storage, path: &Path) -> Result<Vec<Value>> {
    let found = storage.store.get(path).await.map_err(store_error("read", path))?;
    let bytes = found.bytes().await.map_err(store_error("read", path))?;
    let records = Reader::new(&bytes[..]).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
    records.map_err(|error| corrupt(path, error))
}

fn entry_value(schema: &TableSchema, entry: &ManifestEntry) -> Value {
    let file = &entry.file;
    let bytes = |row: &BinaryRow| Value::Bytes(row.as_wire().to_vec());
    let key_stats =
        ColumnStats { min: file.min_key.clone(), max: file.max_key.clone(), null_counts: vec![Some(0); schema.key.len()] };
    let origin = match file.origin {
        FileOrigin::Append => 0,
        FileOrigin::Compact => 1,
    };
    let data_file = record([
        ("_FILE_NAME", Value::String(file.name.clone())),
        ("_FILE_SIZE", Value::Long(file.size as i64)),
        ("_ROW_COUNT", Value::Long(file.rows as i64)),
        ("_MIN_KEY", bytes(&file.min_key)),
        ("_MAX_KEY", bytes(&file.max_key)),
        ("_KEY_STATS", stats_value(&key_stats)),
        ("_VALUE_STATS", stats_value(&file.stats)),
        ("_MIN_SEQUENCE_NUMBER", Value::Long(file.min_sequence)),
        ("_MAX_SEQUENCE_NUMBER", Value::Long(file.max_sequence)),
        ("_SCHEMA_ID", Value::Long(file.schema_id)),
        ("_LEVEL", Value::Int(file.level)),
        ("_EXTRA_FILES", Value::Array(Vec::new())),
        ("_CREATION_TIME", some(Value::TimestampMillis(file.creation_us / 1000))),
        ("_DELETE_ROW_COUNT", some(Value::Long(file.delete_rows as i64))),
        ("_EMBEDDED_FILE_INDEX", none()),
        ("_FILE_SOURCE", some(Value::Int(origin))),
        ("_VALUE_STATS_COLS", none()),
        ("_EXTERNAL_PATH", none()),
        ("_FIRST_ROW_ID", none()),
        ("_WRITE_COLS", none()),
    ]);
    record([
        ("_VERSION", Value::Int(2)),
        ("_KIND", Value::Int(if entry.change == FileChange::Add { 0 } else { 1 })),
        ("_PARTITION", bytes(&BinaryRow::default())),
        ("_BUCKET", Value::Int(0)),
        ("_TOTAL_BUCKETS", Value::Int(schema.total_buckets())),
        ("_FILE", data_file),
    ])
}

fn stats_value(stats: &ColumnStats) -> Value {
    let counts = stats.null_counts.iter().map(|count| count.map_or_else(none, |count| some(Value::Long(count))));
    record([
        ("_MIN_VALUES", Value::Bytes(stats.min.as_wire().to_vec())),
        ("_MAX_VALUES", Value::Bytes(stats.max.as_wire().to_vec())),
        ("_NULL_COUNTS", some(Value::Array(counts.collect()))),
    ])
}

fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Unions have null first.
fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn entry(record: &mut Record<'_>) -> Result<ManifestEntry> {
    let change = match record.number("_KIND")? {
        0 => FileChange::Add,
        1 => FileChange::Delete,
        other => return Err(corrupt(record.path, format!("a change of kind {other}"))),
    };
    let mut file = record.record("_FILE")?;
    let file = DataFile {
        name: file.text("_FILE_NAME")?,
        size: file.number("_FILE_SIZE")? as u64,
        rows: file.number("_ROW_COUNT")? as u64,
        level: file.number("_LEVEL")? as i32,
        min_key: BinaryRow::from_wire(file.bytes("_MIN_KEY")?),
        max_key: BinaryRow::from_wire(file.bytes("_MAX_KEY")?),
        min_sequence: file.number("_MIN_SEQUENCE_NUMBER")?,
        max_sequence: file.number("_MAX_SEQUENCE_NUMBER")?,
        delete_rows: file.optional_number("_DELETE_ROW_COUNT")?.unwrap_or(0) as u64,
        schema_id: file.number("_SCHEMA_ID")?,
        creation_us: file.optional_number("_CREATION_TIME")?.unwrap_or(0) * 1000,
        origin: if file.optional_number("_FILE_SOURCE")? == Some(1) { FileOrigin::Compact } else { FileOrigin::Append },
        stats: stats(file.record("_VALUE_STATS")?)?,
        checksum: None,
    };
    Ok(ManifestEntry { change, file })
}

fn stats(mut record: Record<'_>) -> Result<ColumnStats> {
    let null_counts = match record.take("_NULL_COUNTS")? {
        Some(Value::Array(counts)) => counts.into_iter().map(|count| unwrapped(count).and_then(|count| number(&count))).collect(),
        _ => Vec::new(),
    };
    Ok(ColumnStats {
        min: BinaryRow::from_wire(record.bytes("_MIN_VALUES")?),
        max: BinaryRow::from_wire(record.bytes("_MAX_VALUES")?),
        null_counts,
    })
}

/// Fields of an Avro record by name.
struct Record<'a> {
    path: &'a Path,
    fields: HashMap<String, Value>,
}

impl<'a> Record<'a> {
    fn of(path: &'a Path, value: Value) -> Result<Record<'a>> {
        match value {
            Value::Record(fields) => Ok(Record { path, fields: fields.into_iter().collect() }),
            _ => Err(corrupt(path, "a record is something else")),
        }
    }

    /// The value of a field that is there; `None` for null.
    fn take(&mut self, name: &str) -> Result<Option<Value>> {
        self.fields.remove(name).map(unwrapped).ok_or_else(|| corrupt(self.path, format!("there is no {name}")))
    }

    fn wrong<T>(&self, name: &str) -> Result<T> {
        Err(corrupt(self.path, format!("{name} has the wrong type")))
    }

    fn text(&mut self, name: &str) -> Result<String> {
        match self.take(name)? {
            Some(Value::String(text)) => Ok(text),
            _ => self.wrong(name),
        }
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        match self.take(name)? {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => self.wrong(name),
        }
    }

    fn number(&mut self, name: &str) -> Result<i64> {
        match self.take(name)?.as_ref().and_then(number) {
            Some(value) => Ok(value),
            None => self.wrong(name),
        }
    }

    fn optional_number(&mut self, name: &str) -> Result<Option<i64>> {
        match self.take(name)? {
            None => Ok(None),
            Some(value) => number(&value).map_or_else(|| self.wrong(name), |value| Ok(Some(value))),
        }
    }

    fn record(&mut self, name: &str) -> Result<Record<'a>> {
        match self.take(name)? {
            Some(value) => Record::of(self.path, value),
            None => self.wrong(name),
        }
    }
}

fn unwrapped(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Union(_, value) => unwrapped(*value),
        value => Some(value),
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(i64::from(*value)),
        Value::Long(value) | Value::TimestampMillis(value) => Some(*value),
        _ => None,
    }
}
