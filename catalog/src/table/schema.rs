//! Columns and key of a table, in our terms and in Paimon's.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use crate::{Definition, ObjectId, Result, Storage};

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

impl TableSchema {
    /// The schema of a defined table.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for a column type that Paimon has no equal of.
    pub(crate) fn of(definition: &Definition) -> Result<TableSchema> {
        let _ = definition;
        todo!()
    }
}

/// Writes `schema/schema-0`; nothing to do when it is there. What a dropped table of the same name left behind is deleted.
pub(crate) async fn create(storage: &Storage, schema: &TableSchema, now_us: i64) -> Result<()> {
    let _ = (storage, schema, now_us);
    todo!()
}

/// Deletes everything of the table; nothing to do when another table has taken its place.
pub(crate) async fn drop_table(storage: &Storage, schema: &TableSchema) -> Result<()> {
    let _ = (storage, schema);
    todo!()
}
