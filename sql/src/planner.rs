//! From statements to plans. Pure: same text and same catalog version give the same plan; no I/O, no clock.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use catalog::{Definition, ObjectId, Version};
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;

use crate::plan::arithmetic::{CheckOverflow, NumericDivision};
use crate::plan::operators::JsonOperators;
use crate::plan::provider::{AtVersion, Names, Objects, Reading};
use crate::plan::window_exec::WindowPlanner;
use crate::plan::{continuous, dml, functions, output, sources, types, window};
use crate::{CreateStreamingTable, Error, Result, Statement};

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

impl SessionSettings {
    /// The schema that a name without one is created in.
    pub fn default_schema(&self) -> &str {
        let path = self.search_path.iter().map(String::as_str);
        path.into_iter().find(|schema| !schema.starts_with('$') && *schema != "pg_catalog").unwrap_or("public")
    }
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
#[derive(Debug)]
pub struct Planner {
    state: SessionState,
    settings: SessionSettings,
    system: Arc<dyn SystemRelations>,
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
        let mut config =
            SessionConfig::new().with_target_partitions(settings.query_threads.max(1)).with_information_schema(false);
        let options = config.options_mut();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        options.execution.time_zone = Some(settings.time_zone.clone());
        let own = functions::functions(&settings);
        let scalars = udfs::scalar_functions();
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_query_planner(Arc::new(WithWindows))
            .with_type_planner(Arc::new(types::PostgresTypes))
            .with_analyzer_rule(Arc::new(CheckOverflow))
            .build();
        let mut planners: Vec<Arc<dyn ExprPlanner>> =
            vec![Arc::new(JsonOperators::new(&scalars)), Arc::new(NumericDivision), udfs::expr_planner(&scalars)];
        planners.extend(state.expr_planners().iter().cloned());
        // The first planner that answers wins: ours come before DataFusion's.
        state = SessionStateBuilder::new_from_existing(state)
            .with_expr_planners(planners)
            .with_relation_planners(vec![Arc::new(window::Relations)])
            .build();
        for function in own.into_iter().chain(scalars) {
            // Only a name that is there already can make this fail, and then it is replaced.
            let _ = state.register_udf(function);
        }
        for function in udfs::aggregate_functions() {
            let _ = state.register_udaf(function);
        }
        Planner { state, settings, system }
    }

    /// Adds a function of the server, or replaces one of that name.
    pub fn register_udf(&mut self, function: Arc<datafusion::logical_expr::ScalarUDF>) {
        // Fails only when the name is taken by an alias that cannot be replaced: the function that is there stays.
        let _ = self.state.register_udf(function);
    }

    /// DataFusion's state with our functions, rules and extension planners; the server plans and runs physically with it.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// The session's settings.
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// The state for a statement that begins at `now`, which `now()` and its kin then give.
    pub fn state_at(&self, now: DateTime<Utc>) -> SessionState {
        let mut state = self.state.clone();
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = Some(now);
        state
    }

    /// A bounded query (`Statement::Query`), analysed, with Postgres column names. `$n` become placeholders with inferred types.
    pub fn query(&self, version: &Arc<Version>, statement: &Statement) -> Result<LogicalPlan> {
        self.query_over(&self.at(version), statement)
    }

    pub(crate) fn query_over(&self, objects: &dyn Objects, statement: &Statement) -> Result<LogicalPlan> {
        let Statement::Query(query) = statement else { return Err(Error::new("42601", "only a query has rows")) };
        let plan = self.names(objects, Reading::Once).plan(query)?;
        output::finish(output::analyze(&self.state, plan)?)
    }

    /// The rows an INSERT adds, in the table's column order and types (defaults and NULLs filled in).
    pub fn insert(&self, version: &Arc<Version>, insert: &sqlparser::ast::Insert) -> Result<(Arc<Definition>, LogicalPlan)> {
        self.insert_over(&self.at(version), insert)
    }

    pub(crate) fn insert_over(
        &self,
        objects: &dyn Objects,
        insert: &sqlparser::ast::Insert,
    ) -> Result<(Arc<Definition>, LogicalPlan)> {
        dml::insert(&self.names(objects, Reading::Once), insert)
    }

    /// UPDATE and DELETE: old rows (all columns) and for UPDATE the new ones after them, as one plan with
    /// `2 * columns` (UPDATE) or `columns` (DELETE) output columns.
    pub fn modify(&self, version: &Arc<Version>, statement: &Statement) -> Result<(Arc<Definition>, LogicalPlan)> {
        self.modify_over(&self.at(version), statement)
    }

    pub(crate) fn modify_over(&self, objects: &dyn Objects, statement: &Statement) -> Result<(Arc<Definition>, LogicalPlan)> {
        dml::modify(&self.names(objects, Reading::Once), statement)
    }

    /// A streaming view or sink as a dataflow of object `id`.
    pub fn continuous(&self, version: &Arc<Version>, id: ObjectId, statement: &Statement) -> Result<Continuous> {
        self.continuous_over(&self.at(version), id, statement)
    }

    pub(crate) fn continuous_over(&self, objects: &dyn Objects, id: ObjectId, statement: &Statement) -> Result<Continuous> {
        continuous::plan(&self.names(objects, Reading::Continuously), id, statement)
    }

    /// A stored streaming table as a dataflow of object `id` that fills its table.
    pub fn stored_stream(&self, id: ObjectId, create: &CreateStreamingTable) -> Result<Continuous> {
        let name = create.name.in_schema(self.default_schema());
        continuous::stored(id, sources::source(id, name.to_string(), create)?)
    }

    /// Columns, key and checked options of CREATE STREAMING TABLE; `StreamingTable` or `StoredStreamingTable` (option `retention`,
    /// default `7 days` for jetstream).
    pub fn streaming_table(&self, create: &CreateStreamingTable) -> Result<engine::plan::SourceNode> {
        let name = create.name.in_schema(self.default_schema());
        sources::source(ObjectId(0), name.to_string(), create)
    }

    /// Result columns and dependencies of a plain view.
    pub fn view(&self, version: &Arc<Version>, create: &crate::CreateView) -> Result<(SchemaRef, Vec<ObjectId>)> {
        self.view_over(&self.at(version), create)
    }

    pub(crate) fn view_over(&self, objects: &dyn Objects, create: &crate::CreateView) -> Result<(SchemaRef, Vec<ObjectId>)> {
        // Streams without an end may be in a view too, so it is planned as what any reader can read.
        let names = self.names(objects, Reading::Continuously);
        let (names, plan) = match names.plan(&create.query) {
            Ok(plan) => (names, plan),
            Err(continuously) => {
                let names = self.names(objects, Reading::Once);
                let plan =
                    names.plan(&create.query).map_err(|once| if once.sqlstate == "0A000" { continuously } else { once })?;
                (names, plan)
            }
        };
        let plan = output::named(output::analyze(&self.state, plan)?, &create.columns)?;
        Ok((output::schema(plan.schema()), names.used.take().into_iter().collect()))
    }

    /// Columns and key of CREATE TABLE (without AS).
    pub fn table(&self, create: &crate::CreateTable) -> Result<(SchemaRef, Vec<String>)> {
        let mut fields = create.columns.iter().map(types::column).collect::<Result<Vec<_>>>()?;
        if fields.is_empty() {
            return Err(Error::new("42P16", "a table needs at least one column"));
        }
        if let Some(option) = create.options.keys().next() {
            return Err(
                Error::new("22023", format!("unrecognized parameter \"{option}\"")).hint("An ordinary table has no options.")
            );
        }
        for key in &create.primary_key {
            let Some(field) = fields.iter_mut().find(|field| field.name() == key) else {
                return Err(Error::new("42703", format!("column \"{key}\" named in key does not exist")));
            };
            *field = field.clone().with_nullable(false);
        }
        Ok((Arc::new(Schema::new(fields)), create.primary_key.clone()))
    }

    /// EXPLAIN of a continuous query: an indented text of operators, changelog modes, keys, watermark, state and its bound.
    pub fn explain_continuous(&self, continuous: &Continuous) -> String {
        continuous::explain(continuous)
    }

    fn at<'a>(&'a self, version: &'a Arc<Version>) -> AtVersion<'a> {
        AtVersion { version, system: self.system.as_ref() }
    }

    fn names<'a>(&'a self, objects: &'a dyn Objects, reading: Reading) -> Names<'a> {
        Names::new(&self.state, &self.settings, objects, reading)
    }

    /// Where a name without schema is created.
    fn default_schema(&self) -> &str {
        self.settings.default_schema()
    }
}

/// DataFusion's physical planner, with windows.
#[derive(Debug)]
struct WithWindows;

#[async_trait]
impl QueryPlanner for WithWindows {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(WindowPlanner)]);
        yielding(planner.create_physical_plan(plan, session).await?)
    }
}

/// Lets a task be stopped between two batches of a join. DataFusion yields where rows are read, but one batch of a cross join's input
/// can keep its output busy for hours, and a query that was cancelled would hold its thread for as long.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        let multiplies = node.is::<CrossJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<HashJoinExec>();
        Ok(if multiplies { Transformed::yes(Arc::new(CooperativeExec::new(node)) as _) } else { Transformed::no(node) })
    })?;
    Ok(plan.data)
}
