//! CREATE: a definition is checked and planned, committed, and only then does its dataflow start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use catalog::{Changes, Definition, DefinitionChange, ObjectId, ObjectKind, ObjectName, Transaction};
use sql::{
    Continuous, CreateSink, CreateStreamingTable, CreateStreamingView, CreateTable, CreateView, Error, Name, Result, Statement,
};

use super::ddl::{Work, done, kind_name};
use super::{SEARCH_PATH, collect, dml, drop};
use crate::error::from_engine;
use crate::session::{Backend, Outcome};
use crate::{clock, config};

/// How long Jetstream's history is kept where nobody says; it cannot be read again after that.
const JETSTREAM_RETENTION: &str = "7 days";

/// Where a new object comes to stand.
enum Place {
    Free(ObjectName),
    /// Something of the name is there and the statement may replace it.
    Taken(Arc<Definition>),
    /// Something of the name is there and IF NOT EXISTS was said.
    Skip(Outcome),
}

enum IfTaken {
    Refuse,
    Skip,
    Replace,
}

pub(super) async fn streaming_table(work: &Work<'_>, create: &CreateStreamingTable) -> Result<Outcome> {
    const TAG: &str = "CREATE STREAMING TABLE";
    let name = match place(work, &create.name, if_taken(create.if_not_exists, false), TAG)? {
        Place::Free(name) => name,
        Place::Skip(outcome) => return Ok(outcome),
        Place::Taken(_) => return Err(internal()),
    };
    let retention = retention(&create.options)?;
    let source = work.planner.streaming_table(create)?;
    probe(work, &source).await?;
    let id = work.database.catalog().next_id();
    let mut definition = definition(work, id, name, ObjectKind::StreamingTable, create.options.clone());
    let mut notices = Vec::new();
    let mut dataflow = None;
    match retention {
        Some(retention) => {
            definition.kind = ObjectKind::StoredStreamingTable;
            definition.options.insert("retention".to_owned(), retention);
            let continuous = work.planner.stored_stream(id, create)?;
            notices.extend(continuous.notices.iter().cloned());
            dataflow = Some(adopt(&mut definition, continuous));
        }
        None => {
            let fields = source.columns.iter().map(|column| Arc::clone(&column.field));
            definition.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            definition.watermark = source.watermark.map(|spec| (source.schema.field(spec.column).name().clone(), 0));
        }
    }
    finish(work, definition, dataflow, TAG, notices).await
}

pub(super) async fn streaming_view(work: &Work<'_>, create: &CreateStreamingView) -> Result<Outcome> {
    const TAG: &str = "CREATE STREAMING VIEW";
    if create.late_into.is_some() {
        let hint = "Leave it out: late rows are kept in freshet.errors with stage = 'late'.";
        return Err(Error::new("0A000", "LATE INTO is not there yet").hint(hint));
    }
    let (name, replaced) = match place(work, &create.name, if_taken(create.if_not_exists, create.or_replace), TAG)? {
        Place::Free(name) => (name, None),
        Place::Skip(outcome) => return Ok(outcome),
        Place::Taken(old) => (old.name.clone(), Some(old)),
    };
    let mut notices = Vec::new();
    if let Some(old) = &replaced {
        if old.kind != ObjectKind::StreamingView {
            return Err(Error::new("42809", format!("\"{}\" is not a streaming view", old.name.name)));
        }
        drop::refuse_dependents(&work.version, &[old.id], "replace")?;
        notices.push(format!("streaming view \"{}\" is computed anew from what its inputs hold", old.name.name));
    }
    let id = work.database.catalog().next_id();
    let continuous = work.planner.continuous(&work.version, id, &Statement::CreateStreamingView(create.clone()))?;
    if let Some(old) = replaced.as_ref().filter(|old| continuous.depends_on.contains(&old.id)) {
        return Err(Error::new("42P17", format!("streaming view \"{}\" would read itself", old.name.name)));
    }
    notices.extend(continuous.notices.iter().cloned());
    let mut definition = definition(work, id, name, ObjectKind::StreamingView, create.options.clone());
    let dataflow = adopt(&mut definition, continuous);
    let Some(old) = replaced else { return finish(work, definition, Some(dataflow), TAG, notices).await };
    let definitions = vec![DefinitionChange::Drop(old.id), DefinitionChange::Put(definition.clone())];
    work.commit(Transaction { definitions, ..Transaction::default() }).await?;
    work.database.engine().stop(old.id).await;
    started(work, &definition, Some(dataflow), "replaced");
    Ok(Outcome { tag: TAG.to_owned(), notices })
}

pub(super) async fn view(work: &Work<'_>, create: &CreateView) -> Result<Outcome> {
    const TAG: &str = "CREATE VIEW";
    let (name, replaced) = match place(work, &create.name, if_taken(false, create.or_replace), TAG)? {
        Place::Free(name) => (name, None),
        Place::Skip(outcome) => return Ok(outcome),
        Place::Taken(old) => (old.name.clone(), Some(old)),
    };
    let (schema, depends_on) = work.planner.view(&work.version, create)?;
    let id = match &replaced {
        Some(old) if old.kind != ObjectKind::View => {
            return Err(Error::new("42809", format!("\"{}\" is not a view", old.name.name)));
        }
        Some(old) => {
            // Streaming views were planned over the old text and are planned again at every start.
            drop::refuse_dependents(&work.version, &[old.id], "replace")?;
            if depends_on.contains(&old.id) {
                return Err(Error::new("42P17", format!("infinite recursion detected in view \"{}\"", old.name.name)));
            }
            old.id
        }
        None => work.database.catalog().next_id(),
    };
    let mut definition = definition(work, id, name, ObjectKind::View, BTreeMap::new());
    definition.schema = schema;
    definition.depends_on = depends_on;
    finish(work, definition, None, TAG, Vec::new()).await
}

pub(super) async fn table(work: &Work<'_>, create: &CreateTable) -> Result<Outcome> {
    const TAG: &str = "CREATE TABLE";
    let name = match place(work, &create.name, if_taken(create.if_not_exists, false), TAG)? {
        Place::Free(name) => name,
        Place::Skip(outcome) => return Ok(outcome),
        Place::Taken(_) => return Err(internal()),
    };
    if let Some(option) = create.options.keys().next() {
        let error = Error::new("22023", format!("unknown option \"{option}\" of CREATE TABLE"));
        return Err(match option.as_str() {
            "connector" => error.hint("A table over a connector is written CREATE STREAMING TABLE."),
            _ => error.hint("Tables take no options yet."),
        });
    }
    let id = work.database.catalog().next_id();
    let mut definition = definition(work, id, name, ObjectKind::Table, BTreeMap::new());
    let Some(query) = &create.query else {
        (definition.schema, definition.primary_key) = work.planner.table(create)?;
        return finish(work, definition, None, TAG, Vec::new()).await;
    };
    let plan = work.planner.query(&work.version, &Statement::Query(query.clone()))?;
    let fields: Vec<Field> = plan.schema().fields().iter().map(|field| storable(field)).collect();
    if let Some(field) =
        fields.iter().enumerate().find_map(|(n, field)| fields[..n].iter().any(|f| f.name() == field.name()).then_some(field))
    {
        return Err(Error::new("42701", format!("column \"{}\" specified more than once", field.name())));
    }
    definition.schema = Arc::new(Schema::new(fields));
    let batches = collect(work.database, work.planner, plan, &[]).await?;
    let rows: Vec<RecordBatch> =
        batches.iter().map(|batch| dml::conform(&definition, batch.columns().to_vec())).collect::<Result<_>>()?;
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let rows = rows.into_iter().filter(|batch| batch.num_rows() > 0).map(|batch| (id, Changes::append(batch))).collect();
    let definitions = vec![DefinitionChange::Put(definition.clone())];
    work.commit(Transaction { definitions, rows, ..Transaction::default() }).await?;
    started(work, &definition, None, "created");
    Ok(done(&format!("SELECT {count}")))
}

pub(super) async fn sink(work: &Work<'_>, create: &CreateSink) -> Result<Outcome> {
    const TAG: &str = "CREATE SINK";
    let name = match place(work, &create.name, if_taken(create.if_not_exists, false), TAG)? {
        Place::Free(name) => name,
        Place::Skip(outcome) => return Ok(outcome),
        Place::Taken(_) => return Err(internal()),
    };
    match create.options.get("connector").map(String::as_str) {
        Some("blackhole") => {}
        Some(other) => {
            let error = Error::new("0A000", format!("a sink with connector \"{other}\" is not there yet"));
            return Err(error.hint("There is connector = 'blackhole', which counts rows and drops them."));
        }
        None => {
            return Err(
                Error::new("22023", "a sink needs the option \"connector\"").hint("Write WITH (connector = 'blackhole').")
            );
        }
    }
    if let Some(option) = create.options.keys().find(|key| key.as_str() != "connector") {
        return Err(Error::new("22023", format!("unknown option \"{option}\" of connector \"blackhole\"")));
    }
    let id = work.database.catalog().next_id();
    let continuous = work.planner.continuous(&work.version, id, &Statement::CreateSink(create.clone()))?;
    let notices = continuous.notices.clone();
    let mut definition = definition(work, id, name, ObjectKind::Sink, create.options.clone());
    let dataflow = adopt(&mut definition, continuous);
    finish(work, definition, Some(dataflow), TAG, notices).await
}

pub(super) async fn schema(work: &Work<'_>, name: &str, if_not_exists: bool) -> Result<Outcome> {
    const TAG: &str = "CREATE SCHEMA";
    if name.starts_with("pg_") || is_system_schema(name) {
        let error = Error::new("42939", format!("unacceptable schema name \"{name}\""));
        return Err(error.detail("The prefix \"pg_\" and the schemas freshet and information_schema are reserved."));
    }
    if schema_exists(work, name) {
        let message = format!("schema \"{name}\" already exists");
        return match if_not_exists {
            true => Ok(Outcome { tag: TAG.to_owned(), notices: vec![format!("{message}, skipping")] }),
            false => Err(Error::new("42P06", message)),
        };
    }
    let id = work.database.catalog().next_id();
    let name = ObjectName { schema: name.to_owned(), name: name.to_owned() };
    let definition = definition(work, id, name, ObjectKind::Schema, BTreeMap::new());
    finish(work, definition, None, TAG, Vec::new()).await
}

/// Commits a new definition and starts its dataflow.
async fn finish(
    work: &Work<'_>,
    definition: Definition,
    dataflow: Option<engine::plan::Dataflow>,
    tag: &str,
    notices: Vec<String>,
) -> Result<Outcome> {
    work.put(definition.clone()).await?;
    started(work, &definition, dataflow, "created");
    Ok(Outcome { tag: tag.to_owned(), notices })
}

fn started(work: &Work<'_>, definition: &Definition, dataflow: Option<engine::plan::Dataflow>, event: &'static str) {
    if let Some(dataflow) = dataflow {
        work.database.engine().start(dataflow);
    }
    work.database.events().add(event, &definition.name.to_string(), kind_name(definition.kind));
}

/// Takes over what planning found out about a continuous query.
fn adopt(definition: &mut Definition, continuous: Continuous) -> engine::plan::Dataflow {
    definition.schema = continuous.schema;
    definition.primary_key = continuous.primary_key;
    definition.depends_on = continuous.depends_on;
    definition.watermark = continuous.watermark;
    let mut dataflow = continuous.dataflow;
    dataflow.name = definition.name.to_string();
    dataflow
}

fn definition(
    work: &Work<'_>,
    id: ObjectId,
    name: ObjectName,
    kind: ObjectKind,
    options: BTreeMap<String, String>,
) -> Definition {
    let mut options = options;
    let path = work.session.search_path.iter().filter(|schema| !is_system_schema(schema) && schema_exists(work, schema));
    let search_path = path.map(String::as_str).collect::<Vec<_>>().join(",");
    if search_path != "public" {
        options.insert(SEARCH_PATH.to_owned(), search_path);
    }
    Definition {
        id,
        name,
        kind,
        sql: work.text.to_owned(),
        schema: Arc::new(Schema::empty()),
        primary_key: Vec::new(),
        options,
        depends_on: Vec::new(),
        created_us: clock::now_us(),
        comment: None,
        paused: false,
        watermark: None,
    }
}

fn if_taken(if_not_exists: bool, or_replace: bool) -> IfTaken {
    match (if_not_exists, or_replace) {
        (true, _) => IfTaken::Skip,
        (false, true) => IfTaken::Replace,
        (false, false) => IfTaken::Refuse,
    }
}

fn place(work: &Work<'_>, name: &Name, if_taken: IfTaken, tag: &str) -> Result<Place> {
    let name = name.in_schema(creation_schema(work));
    if is_system_schema(&name.schema) {
        let error = Error::new("42501", format!("permission denied for schema {}", name.schema));
        return Err(error.detail("System schemas cannot be changed.").hint("Create it in the schema public."));
    }
    if !schema_exists(work, &name.schema) {
        let error = Error::new("3F000", format!("schema \"{}\" does not exist", name.schema));
        return Err(error.hint(format!("Create it with CREATE SCHEMA {}.", name.schema)));
    }
    let taken = work.version.object(&name).filter(|definition| definition.kind != ObjectKind::Schema);
    Ok(match (taken, if_taken) {
        (None, _) => Place::Free(name),
        (Some(definition), IfTaken::Replace) => Place::Taken(Arc::clone(definition)),
        (Some(_), IfTaken::Skip) => {
            let notice = format!("relation \"{}\" already exists, skipping", name.name);
            Place::Skip(Outcome { tag: tag.to_owned(), notices: vec![notice] })
        }
        (Some(_), IfTaken::Refuse) => return Err(Error::new("42P07", format!("relation \"{}\" already exists", name.name))),
    })
}

/// Where a name without a schema is created: the first schema of the path that is there and not the system's.
/// The path has the user's name in it, which few have a schema for.
fn creation_schema<'a>(work: &'a Work<'_>) -> &'a str {
    let path = work.session.search_path.iter().map(String::as_str);
    path.into_iter().find(|schema| !is_system_schema(schema) && schema_exists(work, schema)).unwrap_or("public")
}

fn schema_exists(work: &Work<'_>, name: &str) -> bool {
    let schema = ObjectName { schema: name.to_owned(), name: name.to_owned() };
    name == "public" || work.version.object(&schema).is_some_and(|definition| definition.kind == ObjectKind::Schema)
}

pub(crate) fn is_system_schema(name: &str) -> bool {
    matches!(name, "freshet" | "pg_catalog" | "information_schema")
}

/// How long rows of a streaming table are kept, as written; `None`: it is not stored.
pub(super) fn retention(options: &BTreeMap<String, String>) -> Result<Option<String>> {
    let jetstream = options.get("connector").is_some_and(|connector| connector == "jetstream");
    let text = match options.get("retention").map(|text| text.trim()) {
        None if jetstream => JETSTREAM_RETENTION,
        None => return Ok(None),
        Some(text) if text.eq_ignore_ascii_case("none") => return Ok(None),
        Some(text) => text,
    };
    match config::parse_duration(text) {
        Some(Duration::ZERO) => Ok(None),
        Some(_) => Ok(Some(text.to_owned())),
        None => {
            let error = Error::new("22023", format!("invalid value for option \"retention\": \"{text}\""));
            Err(error.hint("Write a time such as '7 days' or '12 hours', or 'none' for a streaming table that is not stored."))
        }
    }
}

async fn probe(work: &Work<'_>, source: &engine::plan::SourceNode) -> Result<()> {
    let limit = work.database.config().probe_timeout;
    match tokio::time::timeout(limit, engine::source::probe(source)).await {
        Ok(answer) => answer.map_err(from_engine),
        Err(_) => {
            let message = format!("connector \"{}\" did not answer within {limit:?}", source.connector.connector);
            Err(Error::new("08001", message).hint("Check the address in WITH (…); probe_timeout says how long to wait."))
        }
    }
}

/// A query's column as one of a table: only types tables hold, always nullable.
fn storable(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::Dictionary(_, value) => return storable(&field.clone().with_data_type(value.as_ref().clone())),
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        other => other.clone(),
    };
    Field::new(field.name(), data_type, true).with_metadata(field.metadata().clone())
}

fn internal() -> Error {
    Error::new("XX000", "a taken name was not refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn jetstream_is_stored_unless_told_otherwise() {
        type Options = &'static [(&'static str, &'static str)];
        let cases: [(Options, Option<&str>); 6] = [
            (&[("connector", "jetstream")], Some("7 days")),
            (&[("connector", "jetstream"), ("retention", "none")], None),
            (&[("connector", "jetstream"), ("retention", "0")], None),
            (&[("connector", "kafka")], None),
            (&[("connector", "kafka"), ("retention", "12 hours")], Some("12 hours")),
            (&[], None),
        ];
        for (given, expected) in cases {
            assert_eq!(retention(&options(given)).expect("valid").as_deref(), expected, "{given:?}");
        }
        assert_eq!(retention(&options(&[("retention", "long")])).expect_err("no time").sqlstate, "22023");
    }
}
