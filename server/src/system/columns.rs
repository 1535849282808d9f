//! Rows of a system relation, column by column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};

/// A batch in the making: the same rows give one column after the other.
pub(super) struct Columns<'a, Row> {
    rows: &'a [Row],
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl<'a, Row> Columns<'a, Row> {
    pub(super) fn of(rows: &'a [Row]) -> Self {
        Columns { rows, fields: Vec::new(), arrays: Vec::new() }
    }

    pub(super) fn text<T: Into<Option<String>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: StringArray = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array))
    }

    pub(super) fn word(self, name: &str, value: impl Fn(&Row) -> &'static str) -> Self {
        let array: StringArray = self.rows.iter().map(|row| Some(value(row))).collect();
        self.with(name, Arc::new(array))
    }

    /// A count; beyond `i64` there is no telling apart.
    pub(super) fn count<T: Into<Option<u64>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let clamp = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let array: Int64Array = self.rows.iter().map(|row| value(row).into().map(clamp)).collect();
        self.with(name, Arc::new(array))
    }

    pub(super) fn bigint<T: Into<Option<i64>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: Int64Array = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array))
    }

    pub(super) fn integer<T: Into<Option<i32>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: Int32Array = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array))
    }

    pub(super) fn double<T: Into<Option<f64>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: Float64Array = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array))
    }

    pub(super) fn boolean<T: Into<Option<bool>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: BooleanArray = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array))
    }

    /// A TIMESTAMPTZ from microseconds since 1970.
    pub(super) fn time<T: Into<Option<i64>>>(self, name: &str, value: impl Fn(&Row) -> T) -> Self {
        let array: TimestampMicrosecondArray = self.rows.iter().map(|row| value(row).into()).collect();
        self.with(name, Arc::new(array.with_timezone("UTC")))
    }

    pub(super) fn batch(self) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let schema = Arc::new(Schema::new(self.fields));
        RecordBatch::try_new_with_options(schema, self.arrays, &options).expect("every column was made from the same rows")
    }

    fn with(mut self, name: &str, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
        self
    }
}
