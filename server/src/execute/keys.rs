//! Primary keys: rows to be added must not be there already, neither in the table nor among themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{OwnedRow, RowConverter, SortField};
use catalog::{Changes, Definition, INSERT, Transaction, Version};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::JoinType;
use datafusion::prelude::{DataFrame, Expr, SessionConfig, SessionContext, lit};
use sql::{Error, Result};

use super::dml::{arrow_error, value_text};
use crate::Database;
use crate::session::Backend;

/// Up to so many keys are looked up by `IN (…)`, which table files can be pruned by; more by a join.
const LISTED_MAX: usize = 64;

/// Refuses `added` rows whose key is in the table already, unless `removed` takes it away. The table is that of `version`
/// with what the transaction has done before.
///
/// # Errors
/// 23505.
pub(super) async fn check_unique(
    database: &Database,
    (version, before): (&Arc<Version>, &Transaction),
    table: &Definition,
    added: &[RecordBatch],
    removed: &[RecordBatch],
) -> Result<()> {
    let indexes = key_indexes(table)?;
    let mut keys = Keys::new(table, &indexes)?;
    for (_, changes) in before.rows.iter().filter(|(changed, _)| *changed == table.id) {
        keys.note(changes)?;
    }
    for batch in removed {
        keys.remove(batch)?;
    }
    for batch in added {
        keys.add(batch)?;
    }
    // Keys that only stay what they were need no look at the table.
    let fresh = keys.fresh(added)?;
    if fresh.is_empty() || before.truncate.contains(&table.id) {
        return Ok(());
    }
    let Some(provider) = version.table(table.id) else { return Ok(()) };
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), database.runtime_env());
    let existing = context.read_table(provider).map_err(sql::translate)?;
    let found = look_up(&context, existing, table, fresh)?;
    let running = database.query_handle().spawn(async move { found.limit(0, Some(1))?.collect().await });
    let found = running.await.map_err(|_| Error::new("57014", "canceling statement due to shutdown"))?.map_err(sql::translate)?;
    match found.iter().find(|batch| batch.num_rows() > 0) {
        Some(batch) => Err(duplicate(table, batch.columns(), 0)),
        None => Ok(()),
    }
}

/// The keys of `fresh` that the table has.
fn look_up(context: &SessionContext, existing: DataFrame, table: &Definition, fresh: Vec<RecordBatch>) -> Result<DataFrame> {
    let names: Vec<&str> = table.primary_key.iter().map(String::as_str).collect();
    let columns: Vec<Expr> = names.iter().map(|name| column(name)).collect();
    let existing = existing.select(columns).map_err(sql::translate)?;
    let rows: usize = fresh.iter().map(RecordBatch::num_rows).sum();
    if let ([name], true) = (names.as_slice(), rows <= LISTED_MAX) {
        let mut list = Vec::with_capacity(rows);
        for batch in &fresh {
            for row in 0..batch.num_rows() {
                list.push(lit(ScalarValue::try_from_array(batch.column(0), row).map_err(sql::translate)?));
            }
        }
        return existing.filter(column(name).in_list(list, false)).map_err(sql::translate);
    }
    let schema = fresh.first().map(RecordBatch::schema).expect("the caller has rows");
    let added = MemTable::try_new(schema, vec![fresh]).map_err(sql::translate)?;
    let added = context.read_table(Arc::new(added)).map_err(sql::translate)?;
    added.join(existing, JoinType::LeftSemi, &names, &names, None).map_err(sql::translate)
}

fn column(name: &str) -> Expr {
    // Not `col`: it would take a dot in the name for a qualifier.
    Expr::Column(Column::new_unqualified(name))
}

fn key_indexes(table: &Definition) -> Result<Vec<usize>> {
    table.primary_key.iter().map(|name| table.schema.index_of(name).map_err(arrow_error)).collect()
}

/// Keys taken away and added by one statement, after others of its transaction.
struct Keys<'a> {
    table: &'a Definition,
    indexes: &'a [usize],
    converter: RowConverter,
    /// Keys that earlier statements have touched, and whether they are there now.
    before: HashMap<OwnedRow, bool>,
    removed: HashSet<OwnedRow>,
    added: HashSet<OwnedRow>,
}

impl<'a> Keys<'a> {
    fn new(table: &'a Definition, indexes: &'a [usize]) -> Result<Self> {
        let fields = indexes.iter().map(|index| SortField::new(table.schema.field(*index).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(arrow_error)?;
        Ok(Keys { table, indexes, converter, before: HashMap::new(), removed: HashSet::new(), added: HashSet::new() })
    }

    fn columns(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.indexes.iter().map(|index| Arc::clone(batch.column(*index))).collect()
    }

    fn note(&mut self, changes: &Changes) -> Result<()> {
        let rows = self.converter.convert_columns(&self.columns(&changes.rows)).map_err(arrow_error)?;
        for (number, row) in rows.iter().enumerate() {
            let is_there = changes.kinds.as_ref().is_none_or(|kinds| kinds.value(number) == INSERT);
            self.before.insert(row.owned(), is_there);
        }
        Ok(())
    }

    fn remove(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.converter.convert_columns(&self.columns(batch)).map_err(arrow_error)?;
        self.removed.extend(rows.iter().map(|row| row.owned()));
        Ok(())
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.columns(batch);
        let rows = self.converter.convert_columns(&columns).map_err(arrow_error)?;
        for (number, row) in rows.iter().enumerate() {
            let row = row.owned();
            let is_there = self.before.get(&row) == Some(&true) && !self.removed.contains(&row);
            if is_there || !self.added.insert(row) {
                return Err(duplicate(self.table, &columns, number));
            }
        }
        Ok(())
    }

    /// The key columns of added rows whose keys neither this statement nor an earlier one has touched.
    fn fresh(&mut self, added: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let mut fresh = Vec::new();
        for batch in added {
            let keys = batch.project(self.indexes).map_err(arrow_error)?;
            let rows = self.converter.convert_columns(keys.columns()).map_err(arrow_error)?;
            let is_new = |row: OwnedRow| !self.removed.contains(&row) && !self.before.contains_key(&row);
            let new = rows.iter().map(|row| Some(is_new(row.owned()))).collect();
            let keys = arrow::compute::filter_record_batch(&keys, &new).map_err(arrow_error)?;
            if keys.num_rows() > 0 {
                fresh.push(keys);
            }
        }
        Ok(fresh)
    }
}

fn duplicate(table: &Definition, key: &[ArrayRef], row: usize) -> Error {
    let message = format!("duplicate key value violates unique constraint \"{}_pkey\"", table.name.name);
    let values: Vec<String> = key.iter().map(|column| value_text(column, row)).collect();
    let detail = format!("Key ({})=({}) already exists.", table.primary_key.join(", "), values.join(", "));
    Error::new("23505", message).detail(detail)
}
