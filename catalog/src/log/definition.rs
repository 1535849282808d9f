//! Definitions as JSON: columns carry their Arrow type as text, nested types their children as columns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

use crate::{Definition, ObjectId, ObjectKind, ObjectName};

/// A [`Definition`] as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct DefinitionText {
    id: ObjectId,
    name: ObjectName,
    kind: ObjectKind,
    sql: String,
    columns: Vec<ColumnText>,
    primary_key: Vec<String>,
    options: BTreeMap<String, String>,
    depends_on: Vec<ObjectId>,
    created_us: i64,
    comment: Option<String>,
    paused: bool,
    watermark: Option<(String, i64)>,
}

/// A column; of a list or a struct the children stand beside the word, because their metadata has no text form.
#[derive(Serialize, Deserialize)]
struct ColumnText {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    children: Vec<ColumnText>,
}

impl DefinitionText {
    pub(super) fn of(definition: &Definition) -> Self {
        let Definition { id, name, kind, sql, schema, primary_key, options, depends_on, created_us, comment, paused, watermark } =
            definition.clone();
        let columns = schema.fields().iter().map(|field| ColumnText::of(field)).collect();
        DefinitionText { id, name, kind, sql, columns, primary_key, options, depends_on, created_us, comment, paused, watermark }
    }

    pub(super) fn definition(self) -> Result<Definition, String> {
        let fields = self.columns.into_iter().map(ColumnText::field).collect::<Result<Vec<_>, _>>()?;
        Ok(Definition {
            id: self.id,
            name: self.name,
            kind: self.kind,
            sql: self.sql,
            schema: Arc::new(Schema::new(fields)),
            primary_key: self.primary_key,
            options: self.options,
            depends_on: self.depends_on,
            created_us: self.created_us,
            comment: self.comment,
            paused: self.paused,
            watermark: self.watermark,
        })
    }
}

impl ColumnText {
    fn of(field: &Field) -> Self {
        let (data_type, children) = match field.data_type() {
            DataType::List(item) => ("List".to_owned(), vec![ColumnText::of(item)]),
            DataType::Struct(fields) => ("Struct".to_owned(), fields.iter().map(|field| ColumnText::of(field)).collect()),
            plain => (plain.to_string(), Vec::new()),
        };
        let metadata = field.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        ColumnText { name: field.name().clone(), data_type, nullable: field.is_nullable(), metadata, children }
    }

    fn field(self) -> Result<Field, String> {
        let mut children = self.children.into_iter().map(ColumnText::field).collect::<Result<Vec<_>, _>>()?;
        let data_type = match self.data_type.as_str() {
            "List" if children.len() == 1 => DataType::List(Arc::new(children.remove(0))),
            "Struct" => DataType::Struct(children.into()),
            plain => plain.parse().map_err(|_| format!("column \"{}\" has the unknown type {plain}", self.name))?,
        };
        let metadata: HashMap<_, _> = self.metadata.into_iter().collect();
        Ok(Field::new(self.name, data_type, self.nullable).with_metadata(metadata))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn every_column_type_comes_back() {
        let jsonb = Field::new("item", DataType::Utf8, true)
            .with_metadata(HashMap::from([("freshet.type".to_owned(), "jsonb".to_owned())]));
        let types = [
            DataType::Boolean,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Float32,
            DataType::Float64,
            DataType::Decimal128(38, 10),
            DataType::Utf8,
            DataType::Binary,
            DataType::Date32,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
            DataType::List(Arc::new(jsonb.clone())),
            DataType::Struct(vec![jsonb.clone(), Field::new("\"odd\" näme", DataType::Int64, false)].into()),
            DataType::Struct(Vec::<Field>::new().into()),
        ];
        for data_type in types {
            let field = Field::new("c", data_type, true).with_metadata(jsonb.metadata().clone());
            let text = serde_json::to_string(&ColumnText::of(&field)).expect("writes");
            let back: ColumnText = serde_json::from_str(&text).expect("reads");
            assert_eq!(back.field().expect("parses"), field);
        }
    }
}
