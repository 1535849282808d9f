//! What the tests of this folder share.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use object_store::memory::InMemory;

use crate::{Definition, ObjectId, ObjectKind, ObjectName, Storage};

/// An empty store.
pub(crate) fn memory() -> Storage {
    Storage::over(Arc::new(InMemory::new()), "memory")
}

/// A table.
pub(crate) fn definition(name: &str, columns: Vec<Field>, key: &[&str]) -> Definition {
    Definition {
        id: ObjectId::FIRST_USER,
        name: ObjectName { schema: "public".into(), name: name.into() },
        kind: ObjectKind::Table,
        sql: String::new(),
        schema: Arc::new(Schema::new(columns)),
        primary_key: key.iter().map(|column| (*column).to_owned()).collect(),
        options: BTreeMap::new(),
        depends_on: Vec::new(),
        created_us: 0,
        comment: None,
        paused: false,
        watermark: None,
    }
}
