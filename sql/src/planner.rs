//! From statements to plans. Pure: same text and same catalog version give the same plan; no I/O, no clock.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::{Definition, ObjectId, Version};
use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;

use crate::{CreateStreamingTable, Result, Statement};

/// What of a session the language depends on.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Schemas that unqualified names are looked for in; `pg_catalog` comes first without being named.
    pub search_path: Vec<String>,
    /// `TimeZone`.
    pub time_zone: String,
    /// `current_user`.
    pub user: String,
    /// `current_database()`.
    pub database: String,
    /// `pg_backend_pid()`.
    pub backend_pid: i32,
    /// Degree of parallelism of bounded queries.
    pub query_threads: usize,
}

/// Relations that are not in the catalog: `freshet.*`, `pg_catalog.*`, `information_schema.*`.
pub trait SystemRelations: std::fmt::Debug + Send + Sync {
    /// The relation at this version, if there is one of that name in that schema.
    fn relation(&self, version: &Arc<Version>, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;

    /// A table function of that name in that schema, called with constant arguments:
    /// `SELECT * FROM freshet.wait('v', INTERVAL '30 seconds')`.
    fn function(
        &self,
        schema: &str,
        name: &str,
        arguments: &[datafusion::common::ScalarValue],
    ) -> Option<Result<Arc<dyn TableProvider>>> {
        let _ = (schema, name, arguments);
        None
    }
}

/// Plans statements of one session.
pub struct Planner {
    // private: SessionState, settings, system relations
}

/// A continuous query, planned.
#[derive(Debug)]
pub struct Continuous {
    /// What the engine runs.
    pub dataflow: engine::plan::Dataflow,
    /// Result columns.
    pub schema: SchemaRef,
    /// Key of the result; empty for append-only.
    pub primary_key: Vec<String>,
    /// Objects read.
    pub depends_on: Vec<ObjectId>,
    /// Column whose watermark readers of the result get, and how far it lies behind the dataflow's, microseconds.
    pub watermark: Option<(String, i64)>,
    /// NOTICEs: state that nothing bounds, and how to bound it.
    pub notices: Vec<String>,
}

impl Planner {
    /// A planner for a session.
    pub fn new(runtime: Arc<RuntimeEnv>, settings: SessionSettings, system: Arc<dyn SystemRelations>) -> Planner {
        let _ = (runtime, settings, system);
        todo!()
    }

    /// DataFusion's state with our functions, rules and extension planners; the server plans and runs physically with it.
    pub fn state(&self) -> &SessionState {
        todo!()
    }

    /// A bounded query (`Statement::Query`), analysed, with Postgres column names. `$n` become placeholders with inferred types.
    pub fn query(&self, version: &Arc<Version>, statement: &Statement) -> Result<LogicalPlan> {
        let _ = (version, statement);
        todo!()
    }

    /// The rows an INSERT adds, in the table's column order and types (defaults and NULLs filled in).
    pub fn insert(&self, version: &Arc<Version>, insert: &sqlparser::ast::Insert) -> Result<(Arc<Definition>, LogicalPlan)> {
        let _ = (version, insert);
        todo!()
    }

    /// UPDATE and DELETE: old rows (all columns) and for UPDATE the new ones after them, as one plan with
    /// `2 * columns` (UPDATE) or `columns` (DELETE) output columns.
    pub fn modify(&self, version: &Arc<Version>, statement: &Statement) -> Result<(Arc<Definition>, LogicalPlan)> {
        let _ = (version, statement);
        todo!()
    }

    /// A streaming view or sink as a dataflow of object `id`.
    pub fn continuous(&self, version: &Arc<Version>, id: ObjectId, statement: &Statement) -> Result<Continuous> {
        let _ = (version, id, statement);
        todo!()
    }

    /// A stored streaming table as a dataflow of object `id` that fills its table.
    pub fn stored_stream(&self, id: ObjectId, create: &CreateStreamingTable) -> Result<Continuous> {
        let _ = (id, create);
        todo!()
    }

    /// Columns, key and checked options of CREATE STREAMING TABLE; `StreamingTable` or `StoredStreamingTable` (option `retention`,
    /// default `7 days` for jetstream).
    pub fn streaming_table(&self, create: &CreateStreamingTable) -> Result<engine::plan::SourceNode> {
        let _ = create;
        todo!()
    }

    /// Result columns and dependencies of a plain view.
    pub fn view(&self, version: &Arc<Version>, create: &crate::CreateView) -> Result<(SchemaRef, Vec<ObjectId>)> {
        let _ = (version, create);
        todo!()
    }

    /// Columns and key of CREATE TABLE (without AS).
    pub fn table(&self, create: &crate::CreateTable) -> Result<(SchemaRef, Vec<String>)> {
        let _ = create;
        todo!()
    }

    /// EXPLAIN of a continuous query: an indented text of operators, changelog modes, keys, watermark, state and its bound.
    pub fn explain_continuous(&self, continuous: &Continuous) -> String {
        let _ = continuous;
        todo!()
    }
}

/// Translates whatever DataFusion reports into a code and Postgres's words.
pub fn translate(error: datafusion::error::DataFusionError) -> crate::Error {
    let _ = error;
    todo!()
}

/// Parses a text of any number of statements.
pub fn parse(text: &str) -> Result<Vec<crate::Parsed>> {
    let _ = text;
    todo!()
}
