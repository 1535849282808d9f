//! Statements that change something.
//!
//! Each is one catalog transaction. Dataflows start after it is durable and stop after it too, so that nothing is ever
//! half made; when definitions change under a statement it is planned again.

mod alter;
mod create;
mod ddl;
mod dml;
mod drop;
mod keys;

use std::sync::Arc;

use arrow::array::RecordBatch;
use catalog::{Definition, ObjectKind, ObjectName, Version};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use sql::{Continuous, Error, Name, Planner, Result, Statement};

use crate::Database;
use crate::session::{Backend, SessionInfo};

pub(crate) use create::is_system_schema;
pub(crate) use ddl::ddl;
pub(crate) use dml::{copy_in, dml};

/// Option under which a definition remembers the schemas its names were looked for in; users cannot write a blank.
pub(crate) const SEARCH_PATH: &str = "search path";

/// The session of statements that no client sent.
pub(crate) fn own_session() -> SessionInfo {
    SessionInfo {
        pid: 0,
        user: "freshet".to_owned(),
        database: "freshet".to_owned(),
        application: "freshet".to_owned(),
        client: String::new(),
        search_path: vec!["public".to_owned()],
        time_zone: "UTC".to_owned(),
        settings: Arc::default(),
    }
}

/// The session a definition's text is to be planned in again.
pub(crate) fn definition_session(definition: &Definition) -> SessionInfo {
    let session = own_session();
    match definition.options.get(SEARCH_PATH) {
        Some(path) => SessionInfo { search_path: path.split(',').map(str::to_owned).collect(), ..session },
        None => session,
    }
}

/// Plans the dataflow of a definition from its text.
pub(crate) fn plan_definition(planner: &Planner, version: &Arc<Version>, definition: &Definition) -> Result<Continuous> {
    let mut parsed = sql::parse(&definition.sql)?;
    let damaged = || Error::new("XX001", format!("the definition of \"{}\" is not one statement", definition.name));
    let statement = parsed.pop().filter(|_| parsed.is_empty()).ok_or_else(damaged)?.statement;
    let mut continuous = match (definition.kind, statement) {
        (ObjectKind::StoredStreamingTable, Statement::CreateStreamingTable(mut create)) => {
            create.options = user_options(definition);
            planner.stored_stream(definition.id, &create)?
        }
        (ObjectKind::StreamingView, Statement::CreateStreamingView(mut create)) => {
            create.options = user_options(definition);
            planner.continuous(version, definition.id, &Statement::CreateStreamingView(create))?
        }
        (ObjectKind::Sink, Statement::CreateSink(mut create)) => {
            create.options = user_options(definition);
            planner.continuous(version, definition.id, &Statement::CreateSink(create))?
        }
        _ => return Err(damaged()),
    };
    // The text has the name the object was created with.
    continuous.dataflow.name = definition.name.to_string();
    Ok(continuous)
}

/// A definition's `WITH (…)` options without what we keep there ourselves.
pub(crate) fn user_options(definition: &Definition) -> std::collections::BTreeMap<String, String> {
    definition.options.iter().filter(|(key, _)| *key != SEARCH_PATH).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The object a name means: the first schema of the path that has it, or the schema written.
pub(crate) fn resolve(version: &Version, search_path: &[String], name: &Name) -> Result<Arc<Definition>> {
    find(version, search_path, name).ok_or_else(|| {
        let written = name.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        Error::new("42P01", format!("relation \"{written}{}\" does not exist", name.name))
    })
}

/// As [`resolve`], without an error.
pub(crate) fn find(version: &Version, search_path: &[String], name: &Name) -> Option<Arc<Definition>> {
    let in_schema = |schema: &String| {
        let name = ObjectName { schema: schema.clone(), name: name.name.clone() };
        version.object(&name).filter(|definition| definition.kind != ObjectKind::Schema).cloned()
    };
    match &name.schema {
        Some(schema) => in_schema(schema),
        None => search_path.iter().find_map(in_schema),
    }
}

/// Runs a plan to its end on the threads of queries. Dropping the future ends it.
pub(crate) async fn collect(
    database: &Database,
    planner: &Planner,
    plan: LogicalPlan,
    parameters: &[ScalarValue],
) -> Result<Vec<RecordBatch>> {
    let plan = match parameters {
        [] => plan,
        values => plan.with_param_values(values.to_vec()).map_err(sql::translate)?,
    };
    let now = chrono::DateTime::from_timestamp_micros(crate::clock::now_us()).unwrap_or_default();
    let state = planner.state_at(now);
    let running = database.query_handle().spawn(async move {
        let physical = state.create_physical_plan(&plan).await?;
        let stream = datafusion::physical_plan::execute_stream(physical, state.task_ctx())?;
        stream.try_collect::<Vec<_>>().await
    });
    let running = AbortOnDrop(running);
    running.await.map_err(sql::translate)
}

/// A spawned query that ends with the one who waits for it.
struct AbortOnDrop(tokio::task::JoinHandle<datafusion::error::Result<Vec<RecordBatch>>>);

impl std::future::Future for AbortOnDrop {
    type Output = datafusion::error::Result<Vec<RecordBatch>>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|joined| match joined {
            Ok(result) => result,
            Err(error) => Err(datafusion::error::DataFusionError::ExecutionJoin(Box::new(error))),
        })
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
