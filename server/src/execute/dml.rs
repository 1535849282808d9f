//! INSERT, UPDATE, DELETE, TRUNCATE and COPY: what they are going to change, with the rules of the table checked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int8Array, RecordBatch, new_null_array};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use catalog::{Changes, DELETE, Definition, INSERT, ObjectKind, Transaction, Version};
use datafusion::common::ScalarValue;
use sql::{Error, Name, Planner, Result, Statement};

use super::collect;
use crate::Database;
use crate::session::{Backend, Dml};

/// What a statement is going to change after what its transaction has done `before`; nothing is committed.
pub(crate) async fn dml(
    database: &Database,
    planner: &Planner,
    (version, before): (&Arc<Version>, &Transaction),
    statement: &Statement,
    parameters: &[ScalarValue],
) -> Result<Dml> {
    match statement {
        Statement::Insert(insert) => {
            let (table, plan) = planner.insert(version, insert)?;
            writable(&table, "insert into")?;
            let batches = collect(database, planner, plan, parameters).await?;
            insertion(database, (version, before), &table, batches).await
        }
        Statement::Update(_) => {
            let (table, plan) = planner.modify(version, statement)?;
            writable(&table, "update")?;
            let batches = collect(database, planner, plan, parameters).await?;
            update(database, (version, before), &table, batches).await
        }
        Statement::Delete(_) => {
            let (table, plan) = planner.modify(version, statement)?;
            writable(&table, "delete from")?;
            let batches = collect(database, planner, plan, parameters).await?;
            deletion(version, &table, batches)
        }
        Statement::Truncate(names) => truncation(planner, version, names),
        _ => Err(Error::new("XX000", "not a statement that changes rows")),
    }
}

/// Rows of COPY … FROM STDIN for the columns named by number; the others are NULL.
pub(crate) async fn copy_in(
    database: &Database,
    before: &Transaction,
    table: &Arc<Definition>,
    columns: &[usize],
    batches: Vec<RecordBatch>,
) -> Result<Dml> {
    writable(table, "copy to")?;
    let version = database.catalog().version();
    let whole = batches.iter().map(|batch| widen(table, columns, batch)).collect::<Result<Vec<_>>>()?;
    insertion(database, (&version, before), table, whole).await
}

fn widen(table: &Definition, columns: &[usize], batch: &RecordBatch) -> Result<RecordBatch> {
    let arrays = table.schema.fields().iter().enumerate().map(|(index, field)| match columns.iter().position(|c| *c == index) {
        Some(given) => Arc::clone(batch.column(given)),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    conform(table, arrays.collect())
}

async fn insertion(
    database: &Database,
    (version, before): (&Arc<Version>, &Transaction),
    table: &Definition,
    batches: Vec<RecordBatch>,
) -> Result<Dml> {
    let batches = batches.into_iter().map(|batch| conform(table, batch.columns().to_vec())).collect::<Result<Vec<_>>>()?;
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    let mut transaction = Transaction::default();
    if rows > 0 && !table.primary_key.is_empty() {
        super::keys::check_unique(database, (version, before), table, &batches, &[]).await?;
        transaction.unchanged_since.push((table.id, version.seq));
    }
    transaction.rows = batches.into_iter().filter(|b| b.num_rows() > 0).map(|batch| (table.id, Changes::append(batch))).collect();
    Ok(Dml { rows, transaction })
}

async fn update(
    database: &Database,
    (version, before): (&Arc<Version>, &Transaction),
    table: &Definition,
    batches: Vec<RecordBatch>,
) -> Result<Dml> {
    changeable(table, "update")?;
    let width = table.schema.fields().len();
    let mut transaction = Transaction { unchanged_since: vec![(table.id, version.seq)], ..Transaction::default() };
    let (mut olds, mut news) = (Vec::new(), Vec::new());
    for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
        olds.push(conform(table, batch.columns()[..width].to_vec())?);
        news.push(conform(table, batch.columns()[width..].to_vec())?);
    }
    if !table.primary_key.is_empty() && !news.is_empty() {
        super::keys::check_unique(database, (version, before), table, &news, &olds).await?;
    }
    let rows = olds.iter().map(|batch| batch.num_rows() as u64).sum();
    for (old, new) in olds.iter().zip(&news) {
        transaction.rows.push((table.id, alternate(old, new)?));
    }
    Ok(Dml { rows, transaction })
}

/// Old and new rows next to each other, the old one first.
fn alternate(old: &RecordBatch, new: &RecordBatch) -> Result<Changes> {
    let places: Vec<(usize, usize)> = (0..old.num_rows()).flat_map(|row| [(0, row), (1, row)]).collect();
    let rows = interleave_record_batch(&[old, new], &places).map_err(arrow_error)?;
    let kinds = Int8Array::from_iter_values((0..old.num_rows()).flat_map(|_| [DELETE, INSERT]));
    Ok(Changes::new(rows, kinds))
}

fn deletion(version: &Version, table: &Definition, batches: Vec<RecordBatch>) -> Result<Dml> {
    changeable(table, "delete from")?;
    let mut transaction = Transaction { unchanged_since: vec![(table.id, version.seq)], ..Transaction::default() };
    let mut count = 0;
    for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
        let rows = conform(table, batch.columns().to_vec())?;
        count += rows.num_rows() as u64;
        let kinds = Int8Array::from(vec![DELETE; rows.num_rows()]);
        transaction.rows.push((table.id, Changes::new(rows, kinds)));
    }
    Ok(Dml { rows: count, transaction })
}

fn truncation(planner: &Planner, version: &Version, names: &[Name]) -> Result<Dml> {
    let mut transaction = Transaction::default();
    for name in names {
        let table = super::resolve(version, &planner.settings().search_path, name)?;
        writable(&table, "truncate")?;
        transaction.truncate.push(table.id);
    }
    Ok(Dml { rows: 0, transaction })
}

/// Refuses everything but ordinary tables.
fn writable(table: &Definition, verb: &str) -> Result<()> {
    let name = &table.name.name;
    let kind = match table.kind {
        ObjectKind::Table => return Ok(()),
        ObjectKind::StreamingView => "streaming view",
        ObjectKind::StoredStreamingTable | ObjectKind::StreamingTable => "streaming table",
        ObjectKind::View => "view",
        ObjectKind::Sink => "sink",
        ObjectKind::Schema => "schema",
    };
    let error = Error::new("42809", format!("cannot {verb} {kind} \"{name}\""));
    Err(error.hint("Only ordinary tables (CREATE TABLE) can be changed by statements."))
}

/// Rows are taken away by key: a table without one can only grow or be truncated.
fn changeable(table: &Definition, verb: &str) -> Result<()> {
    if !table.primary_key.is_empty() {
        return Ok(());
    }
    let message = format!("cannot {verb} table \"{}\" because it does not have a primary key", table.name.name);
    Err(Error::new("55000", message).hint("Create the table with a PRIMARY KEY, or use TRUNCATE."))
}

/// The arrays in the table's types, NOT NULL checked.
pub(super) fn conform(table: &Definition, arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    let schema: &SchemaRef = &table.schema;
    let mut columns = Vec::with_capacity(arrays.len());
    for (array, field) in arrays.into_iter().zip(schema.fields()) {
        let array =
            if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type()).map_err(arrow_error)? };
        columns.push(array);
    }
    for (field, array) in schema.fields().iter().zip(&columns).filter(|(field, _)| !field.is_nullable()) {
        if let Some(row) = (0..array.len()).find(|row| array.is_null(*row)) {
            let message = format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                field.name(),
                table.name.name
            );
            return Err(Error::new("23502", message).detail(format!("Failing row contains ({}).", row_text(&columns, row))));
        }
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(arrow_error)
}

/// A row as Postgres words it in details, long values cut.
fn row_text(columns: &[ArrayRef], row: usize) -> String {
    let values = columns.iter().map(|column| value_text(column, row));
    values.collect::<Vec<_>>().join(", ")
}

/// A value as Postgres words it in details, cut at 64 characters.
pub(super) fn value_text(column: &ArrayRef, row: usize) -> String {
    const CHARACTERS_MAX: usize = 64;
    if column.is_null(row) {
        return "null".to_owned();
    }
    let text = arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|_| "?".to_owned());
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub(super) fn arrow_error(error: arrow::error::ArrowError) -> Error {
    sql::translate(error.into())
}
