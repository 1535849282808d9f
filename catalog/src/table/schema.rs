//! Columns and key of a table, in our terms and in Paimon's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde_json::{Value, json};

use super::{corrupt, store_error};
use crate::{Definition, Error, ObjectId, Result, Storage};

/// The option by which a table's files name the object they belong to.
const OBJECT_ID_OPTION: &str = "freshet.object-id";
/// Metadata of an Arrow field: what a column is for Freshet where Arrow and Paimon know only text.
const TYPE_METADATA: &str = "freshet.type";

/// What the files of a table have in common.
#[derive(Debug, Clone)]
pub(crate) struct TableSchema {
    /// The table.
    pub(crate) id: ObjectId,
    /// `warehouse/<schema>.db/<table>`.
    pub(crate) path: String,
    /// Columns.
    pub(crate) schema: SchemaRef,
    /// Paimon's number of each column.
    pub(crate) field_ids: Vec<i32>,
    /// Positions of the key columns in the order of the primary key; empty for an append table.
    pub(crate) key: Vec<usize>,
    /// Paimon's table options.
    pub(crate) options: BTreeMap<String, String>,
    /// `COMMENT ON`.
    pub(crate) comment: Option<String>,
}

/// The system columns of a primary-key table's files.
pub(crate) const KEY_PREFIX: &str = "_KEY_";
/// Which of two rows of one key is newer.
pub(crate) const SEQUENCE_NUMBER: &str = "_SEQUENCE_NUMBER";
/// [`ROW_INSERT`] or [`ROW_DELETE`]; other writers also leave [`ROW_UPDATE_BEFORE`] and 2 (after an update).
pub(crate) const VALUE_KIND: &str = "_VALUE_KIND";
/// The row is there.
pub(crate) const ROW_INSERT: i8 = 0;
/// The row before an update, which other writers may leave: not there.
pub(crate) const ROW_UPDATE_BEFORE: i8 = 1;
/// The row is gone.
pub(crate) const ROW_DELETE: i8 = 3;

impl TableSchema {
    /// The schema of a defined table.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a column type that Paimon has no equal of.
    pub(crate) fn of(definition: &Definition) -> Result<TableSchema> {
        let mut numbering = Numbering::default();
        let mut field_ids = Vec::with_capacity(definition.schema.fields().len());
        for field in definition.schema.fields() {
            field_ids.push(numbering.take());
            paimon_type(field, &mut numbering).map_err(|data_type| unsupported(field, &data_type))?;
        }
        let key =
            definition.primary_key.iter().map(|column| Ok(definition.schema.index_of(column)?)).collect::<Result<Vec<_>>>()?;
        if let Some(field) = key.iter().map(|column| definition.schema.field(*column)).find(|field| field.data_type().is_nested())
        {
            return Err(unsupported(field, field.data_type()));
        }
        let bucket = if key.is_empty() { "-1" } else { "1" };
        let options = [
            ("bucket", bucket.to_owned()),
            ("file.format", "parquet".to_owned()),
            ("write-only", "true".to_owned()),
            (OBJECT_ID_OPTION, definition.id.0.to_string()),
        ];
        Ok(TableSchema {
            id: definition.id,
            path: format!("warehouse/{}.db/{}", path_part(&definition.name.schema), path_part(&definition.name.name)),
            schema: definition.schema.clone(),
            field_ids,
            key,
            options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            comment: definition.comment.clone(),
        })
    }

    /// Where an object of the table is.
    pub(crate) fn object(&self, below: &str) -> Path {
        Path::from(format!("{}/{below}", self.path))
    }

    /// Where a data file is: there is one bucket.
    pub(crate) fn data_file(&self, name: &str) -> Path {
        self.object(&format!("bucket-0/{name}"))
    }

    /// Paimon's number of buckets; −1 where files are in no bucket.
    pub(crate) fn total_buckets(&self) -> i32 {
        if self.key.is_empty() { -1 } else { 1 }
    }

    /// The key columns.
    pub(crate) fn key_fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.key.iter().map(|column| &self.schema.fields()[*column])
    }

    /// Columns of a file: the declared ones, after Paimon's own where there is a key. With the field numbers that Iceberg readers need.
    pub(crate) fn file_schema(&self) -> SchemaRef {
        const KEY_FIELD_ID: i32 = 1_073_741_823;
        const SEQUENCE_NUMBER_ID: i32 = 2_147_483_646;
        const VALUE_KIND_ID: i32 = 2_147_483_645;
        let mut fields = Vec::with_capacity(self.key.len() + 2 + self.field_ids.len());
        if !self.key.is_empty() {
            for column in &self.key {
                let field = self.schema.field(*column);
                let name = format!("{KEY_PREFIX}{}", field.name());
                // The groups of a view have NULLs in their keys, where the rows that it reads have.
                let key = Field::new(name, field.data_type().clone(), field.is_nullable());
                fields.push(numbered(&key, KEY_FIELD_ID + self.field_ids[*column]));
            }
            fields.push(numbered(&Field::new(SEQUENCE_NUMBER, DataType::Int64, false), SEQUENCE_NUMBER_ID));
            fields.push(numbered(&Field::new(VALUE_KIND, DataType::Int8, false), VALUE_KIND_ID));
        }
        let mut numbering = Numbering::default();
        for field in self.schema.fields() {
            let id = numbering.take();
            fields.push(numbered_deep(field, id, 0, &mut numbering));
        }
        Arc::new(Schema::new(fields))
    }

    /// `schema/schema-0`.
    fn to_json(&self, now_us: i64) -> Result<Value> {
        let mut numbering = Numbering::default();
        let mut fields = Vec::with_capacity(self.field_ids.len());
        for field in self.schema.fields() {
            let id = numbering.take();
            let data_type = paimon_type(field, &mut numbering).map_err(|data_type| unsupported(field, &data_type))?;
            let mut json = json!({"id": id, "name": field.name(), "type": data_type});
            if let Some(name) = field.metadata().get(TYPE_METADATA) {
                json["description"] = json!(format!("{TYPE_METADATA}={name}"));
            }
            fields.push(json);
        }
        let primary_keys: Vec<_> = self.key_fields().map(|field| field.name()).collect();
        Ok(json!({
            "version": 3, "id": 0, "fields": fields, "highestFieldId": numbering.0 - 1,
            "partitionKeys": [], "primaryKeys": primary_keys, "options": self.options,
            "comment": self.comment.as_deref().unwrap_or(""), "timeMillis": now_us / 1000,
        }))
    }
}

/// Writes `schema/schema-0`; nothing to do when it is there. What a dropped table of the same name left behind is deleted.
pub(crate) async fn create(storage: &Storage, schema: &TableSchema, now_us: i64) -> Result<()> {
    if let Some(owner) = owner(storage, schema).await? {
        if owner == schema.id {
            return Ok(());
        }
        delete_all(storage, schema).await?;
    }
    let path = schema.object("schema/schema-0");
    let json = serde_json::to_vec_pretty(&schema.to_json(now_us)?).map_err(|error| corrupt(&path, error))?;
    match storage.store.put_opts(&path, json.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::AlreadyExists { .. }) if owner(storage, schema).await? == Some(schema.id) => Ok(()),
        Err(error) => Err(store_error("write", &path)(error)),
    }
}

/// Deletes everything of the table; nothing to do when another table has taken its place.
pub(crate) async fn drop_table(storage: &Storage, schema: &TableSchema) -> Result<()> {
    match owner(storage, schema).await? {
        Some(owner) if owner == schema.id => delete_all(storage, schema).await,
        _ => Ok(()),
    }
}

/// Whose files are at the table's path: the object named by `schema-0`.
async fn owner(storage: &Storage, schema: &TableSchema) -> Result<Option<ObjectId>> {
    let path = schema.object("schema/schema-0");
    let bytes = match storage.store.get(&path).await {
        Ok(found) => found.bytes().await.map_err(store_error("read", &path))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(store_error("read", &path)(error)),
    };
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error))?;
    let id = json["options"][OBJECT_ID_OPTION].as_str().and_then(|id| id.parse().ok());
    id.map(|id| Some(ObjectId(id))).ok_or_else(|| corrupt(&path, "it was not written by Freshet"))
}

/// Deletes the tree, `schema-0` last, so that a half-deleted table can still be told from a new one.
async fn delete_all(storage: &Storage, schema: &TableSchema) -> Result<()> {
    let root = Path::from(schema.path.as_str());
    let mut objects: Vec<Path> = storage
        .store
        .list(Some(&root))
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .map_err(store_error("list", &root))?;
    let last = schema.object("schema/schema-0");
    objects.sort_by_key(|object| *object == last);
    for object in objects {
        match storage.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_error("delete", &object)(error)),
        }
    }
    Ok(())
}

/// Paimon numbers columns and fields of nested rows from one counter, depth first.
#[derive(Default)]
struct Numbering(i32);

impl Numbering {
    fn take(&mut self) -> i32 {
        self.0 += 1;
        self.0 - 1
    }
}

/// The type as Paimon writes it; an error is the type within it that Paimon has no equal of.
fn paimon_type(field: &Field, numbering: &mut Numbering) -> Result<Value, DataType> {
    let suffix = if field.is_nullable() { "" } else { " NOT NULL" };
    let scalar = |name: &str| Ok(json!(format!("{name}{suffix}")));
    match field.data_type() {
        DataType::Boolean => scalar("BOOLEAN"),
        DataType::Int8 => scalar("TINYINT"),
        DataType::Int16 => scalar("SMALLINT"),
        DataType::Int32 => scalar("INT"),
        DataType::Int64 => scalar("BIGINT"),
        DataType::Float32 => scalar("FLOAT"),
        DataType::Float64 => scalar("DOUBLE"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => scalar("STRING"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => scalar("BYTES"),
        DataType::Date32 => scalar("DATE"),
        DataType::Decimal128(precision, scale) if (0..=*precision as i8).contains(scale) => {
            scalar(&format!("DECIMAL({precision}, {scale})"))
        }
        DataType::Timestamp(unit @ (TimeUnit::Millisecond | TimeUnit::Microsecond), zone) => {
            let digits = if *unit == TimeUnit::Millisecond { 3 } else { 6 };
            let zone = if zone.is_some() { " WITH LOCAL TIME ZONE" } else { "" };
            scalar(&format!("TIMESTAMP({digits}){zone}"))
        }
        DataType::List(element) => Ok(json!({"type": format!("ARRAY{suffix}"), "element": paimon_type(element, numbering)?})),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Ok(json!({
                "type": format!("MAP{suffix}"),
                "key": paimon_type(&fields[0], numbering)?,
                "value": paimon_type(&fields[1], numbering)?,
            })),
            other => Err(other.clone()),
        },
        DataType::Struct(fields) => {
            let mut members = Vec::with_capacity(fields.len());
            for field in fields {
                let id = numbering.take();
                members.push(json!({"id": id, "name": field.name(), "type": paimon_type(field, numbering)?}));
            }
            Ok(json!({"type": format!("ROW{suffix}"), "fields": members}))
        }
        other => Err(other.clone()),
    }
}

/// The field with Paimon's number for the Parquet file, and no other metadata.
fn numbered(field: &Field, id: i32) -> Field {
    field.clone().with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]))
}

/// The field with its number and those of what is inside it.
fn numbered_deep(field: &Field, id: i32, depth: i32, numbering: &mut Numbering) -> Field {
    const COLLECTION_ID: i32 = 536_870_911;
    // Elements have no number of their own in Paimon: theirs is made from the number of the field they are in.
    let column = if depth == 0 { id } else { (id.abs_diff(COLLECTION_ID) / 1024) as i32 };
    let element_id = COLLECTION_ID + 1024 * column + depth + 1;
    let key_id = COLLECTION_ID - 1024 * column - depth - 1;
    let data_type = match field.data_type() {
        DataType::List(element) => DataType::List(Arc::new(numbered_deep(element, element_id, depth + 1, numbering))),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = numbered_deep(&fields[0], key_id, depth + 1, numbering);
                let value = numbered_deep(&fields[1], element_id, depth + 1, numbering);
                let fields = Fields::from(vec![key, value]);
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(fields))), *sorted)
            }
            _ => field.data_type().clone(),
        },
        DataType::Struct(fields) => {
            let member = |field: &FieldRef| {
                let id = numbering.take();
                numbered_deep(field, id, 0, numbering)
            };
            DataType::Struct(fields.iter().map(member).collect())
        }
        other => other.clone(),
    };
    numbered(&field.clone().with_data_type(data_type), id)
}

fn unsupported(field: &Field, data_type: &DataType) -> Error {
    Error::Unsupported { column: field.name().clone(), data_type: data_type.to_string() }
}

/// A name as one part of a path: ASCII letters, digits, `_`, `-` and inner dots as they are, every other byte as `=XX`,
/// because stores and their clients disagree about `%`.
fn path_part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && index > 0) {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("={byte:02X}"));
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{definition, memory};

    #[test]
    fn types_and_numbers_are_those_of_paimon() {
        let tags = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let place =
            DataType::Struct(Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("tags", tags.clone(), true)]));
        let body =
            Field::new("body", DataType::Utf8, true).with_metadata(HashMap::from([(TYPE_METADATA.into(), "jsonb".into())]));
        let columns = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
            Field::new("tz", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("price", DataType::Decimal128(38, 10), true),
            Field::new("place", place, true),
            Field::new("tags", tags, false),
            body,
        ];
        let schema = TableSchema::of(&definition("orders/2", columns, &["id"])).expect("supported");
        assert_eq!(schema.path, "warehouse/public.db/orders=2F2");
        assert_eq!(schema.field_ids, [0, 1, 2, 3, 4, 7, 8]);
        let json = schema.to_json(5_000).expect("supported");
        let types: Vec<_> = json["fields"].as_array().expect("a list").iter().map(|field| field["type"].clone()).collect();
        assert_eq!(
            types,
            [
                json!("BIGINT NOT NULL"),
                json!("TIMESTAMP(6) NOT NULL"),
                json!("TIMESTAMP(6) WITH LOCAL TIME ZONE"),
                json!("DECIMAL(38, 10)"),
                json!({"type": "ROW", "fields": [
                    {"id": 5, "name": "x", "type": "INT"}, {"id": 6, "name": "tags", "type": {"type": "ARRAY", "element": "STRING"}}]}),
                json!({"type": "ARRAY NOT NULL", "element": "STRING"}),
                json!("STRING"),
            ]
        );
        assert_eq!((&json["highestFieldId"], &json["timeMillis"]), (&json!(8), &json!(5)));
        assert_eq!(json["fields"][6]["description"], "freshet.type=jsonb");
        let file = schema.file_schema();
        let names: Vec<_> = file.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["_KEY_id", "_SEQUENCE_NUMBER", "_VALUE_KIND", "id", "ts", "tz", "price", "place", "tags", "body"]);
        let DataType::List(element) = file.field(8).data_type() else { panic!("a list") };
        assert_eq!(element.metadata()[PARQUET_FIELD_ID_META_KEY], (536_870_911 + 1024 * 7 + 1).to_string());
    }

    #[test]
    fn what_paimon_cannot_hold_is_refused_by_name() {
        let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        let error = TableSchema::of(&definition("t", vec![Field::new("lag", interval, true)], &[])).expect_err("no such type");
        assert!(matches!(error, Error::Unsupported { column, .. } if column == "lag"));
    }

    #[tokio::test]
    async fn a_table_takes_the_place_of_a_dropped_one() {
        let storage = memory();
        let columns = vec![Field::new("id", DataType::Int64, true)];
        let mut definition = definition("t", columns, &[]);
        let old = TableSchema::of(&definition).expect("supported");
        create(&storage, &old, 1).await.expect("created");
        create(&storage, &old, 2).await.expect("created before");
        storage.store.put(&old.data_file("left-behind"), "x".into()).await.expect("put");
        definition.id = ObjectId(old.id.0 + 1);
        let new = TableSchema::of(&definition).expect("supported");
        create(&storage, &new, 3).await.expect("created");
        assert!(storage.store.head(&old.data_file("left-behind")).await.is_err());
        drop_table(&storage, &old).await.expect("nothing to do");
        assert_eq!(owner(&storage, &new).await.expect("there"), Some(new.id));
        drop_table(&storage, &new).await.expect("dropped");
        assert_eq!(owner(&storage, &new).await.expect("gone"), None);
    }
}
