//! Where the planner finds relations and functions: a catalog version, the system relations, the session's search path.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::{Definition, ObjectId, ObjectKind, ObjectName, Version};
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Column, Constraints, DFSchema, DataFusionError, Result, ScalarValue, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{ParserOptions, SqlToRel};

use super::source_scan::SourceTable;
use super::types;
use crate::{Error, Name, SessionSettings, Statement, SystemRelations};

/// Views over views over views …
const MAX_VIEW_DEPTH: usize = 32;

/// Objects by name. A catalog version is one; tests have their own.
pub(crate) trait Objects {
    /// An object.
    fn object(&self, name: &ObjectName) -> Option<Arc<Definition>>;
    /// The stored rows of an object.
    fn table(&self, id: ObjectId) -> Option<Arc<dyn TableProvider>>;
    /// A relation that is not in the catalog.
    fn system(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;
    /// A table function that is not in the catalog.
    fn function(&self, schema: &str, name: &str, arguments: &[ScalarValue]) -> Option<crate::Result<Arc<dyn TableProvider>>>;
    /// All names, for hints.
    fn names(&self) -> Vec<ObjectName>;
}

/// A catalog version with the system relations.
pub(crate) struct AtVersion<'a> {
    pub(crate) version: &'a Arc<Version>,
    pub(crate) system: &'a dyn SystemRelations,
}

impl Objects for AtVersion<'_> {
    fn object(&self, name: &ObjectName) -> Option<Arc<Definition>> {
        self.version.object(name).cloned()
    }

    fn table(&self, id: ObjectId) -> Option<Arc<dyn TableProvider>> {
        self.version.table(id)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.system.relation(self.version, schema, name)
    }

    fn function(&self, schema: &str, name: &str, arguments: &[ScalarValue]) -> Option<crate::Result<Arc<dyn TableProvider>>> {
        self.system.function(schema, name, arguments)
    }

    fn names(&self) -> Vec<ObjectName> {
        self.version.names.keys().cloned().collect()
    }
}

/// How relations are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Their rows at one version.
    Once,
    /// Their changes, for ever.
    Continuously,
}

/// A relation whose changes a dataflow reads.
#[derive(Debug)]
pub(crate) struct StreamSource {
    pub(crate) definition: Arc<Definition>,
}

impl TableSource for StreamSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.definition.schema)
    }
}

/// A table with the defaults of its columns, as the target of an INSERT. Its columns take NULL here: who writes the rows
/// refuses it, and can name the column and show the row.
struct Target {
    schema: SchemaRef,
    defaults: Vec<(String, Expr)>,
}

impl TableSource for Target {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        None
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.iter().find(|(name, _)| name == column).map(|(_, default)| default)
    }
}

/// Resolves names while one statement is planned.
pub(crate) struct Names<'a> {
    pub(crate) state: &'a SessionState,
    pub(crate) settings: &'a SessionSettings,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) reading: Reading,
    /// Objects that the statement itself names.
    pub(crate) used: RefCell<BTreeSet<ObjectId>>,
    depth: usize,
    /// The table that an INSERT fills, with its defaults, under [`Names::TARGET`].
    target: RefCell<Option<Arc<dyn TableSource>>>,
}

impl<'a> Names<'a> {
    /// A name that no query can write.
    pub(crate) const TARGET: &'static str = "\u{1f}target";

    pub(crate) fn new(
        state: &'a SessionState,
        settings: &'a SessionSettings,
        objects: &'a dyn Objects,
        reading: Reading,
    ) -> Self {
        Names { state, settings, objects, reading, used: RefCell::default(), depth: 0, target: RefCell::default() }
    }

    /// DataFusion's planner over these names.
    pub(crate) fn planner(&self) -> SqlToRel<'_, Self> {
        SqlToRel::new_with_options(self, ParserOptions::from(&self.state.config_options().sql_parser))
    }

    /// A query as a logical plan.
    pub(crate) fn plan(&self, query: &sqlparser::ast::Query) -> crate::Result<LogicalPlan> {
        let query = super::rewrite::query(query)?;
        self.planner().sql_statement_to_plan(sqlparser::ast::Statement::Query(Box::new(query))).map_err(crate::translate)
    }

    /// Where a name without schema is created.
    pub(crate) fn default_schema(&self) -> &str {
        self.settings.default_schema()
    }

    /// Schemas that a name may be in, in order.
    fn schemas<'n>(&'n self, schema: Option<&'n str>) -> Vec<&'n str> {
        match schema {
            Some(schema) => vec![schema],
            None => {
                let path = self.settings.search_path.iter().map(String::as_str).filter(|schema| !schema.starts_with('$'));
                let named = path.clone().any(|schema| schema == "pg_catalog");
                (!named).then_some("pg_catalog").into_iter().chain(path).collect()
            }
        }
    }

    /// An object that a statement names.
    pub(crate) fn object(&self, name: &Name) -> Option<Arc<Definition>> {
        self.schemas(name.schema.as_deref())
            .into_iter()
            .find_map(|schema| self.objects.object(&ObjectName { schema: schema.to_owned(), name: name.name.clone() }))
    }

    /// The object that a statement changes, or an error.
    pub(crate) fn target(&self, name: &Name) -> crate::Result<Arc<Definition>> {
        let definition = self.object(name).ok_or_else(|| self.missing(name.schema.as_deref(), &name.name))?;
        self.used.borrow_mut().insert(definition.id);
        match definition.kind {
            ObjectKind::Table => Ok(definition),
            kind => {
                Err(Error::new("42809", format!("\"{}\" is a {}, which cannot be changed by hand", name.name, kind_name(kind)))
                    .hint("INSERT, UPDATE, DELETE and COPY FROM work on tables made by CREATE TABLE."))
            }
        }
    }

    fn missing(&self, schema: Option<&str>, name: &str) -> Error {
        let full = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
        let error = Error::new("42P01", format!("relation \"{full}\" does not exist"));
        let names = self.objects.names();
        match crate::parser::nearest(name, names.iter().map(|known| known.name.as_str())) {
            Some(near) if near != name => error.hint(format!("Perhaps you meant \"{near}\".")),
            _ => error,
        }
    }

    fn resolve(&self, reference: &TableReference) -> crate::Result<Arc<dyn TableSource>> {
        let (schema, name) = (reference.schema(), reference.table());
        if let Some(target) = self.target.borrow().as_ref().filter(|_| name == Self::TARGET) {
            return Ok(Arc::clone(target));
        }
        for schema in self.schemas(schema) {
            if let Some(relation) = self.objects.system(schema, name) {
                if self.reading == Reading::Continuously {
                    return Err(Error::new(
                        "0A000",
                        format!("the system relation {schema}.{name} cannot be read by a streaming view"),
                    )
                    .hint("Use CREATE VIEW: its query runs whenever it is read."));
                }
                return Ok(provider_as_source(relation));
            }
            if let Some(definition) = self.objects.object(&ObjectName { schema: schema.to_owned(), name: name.to_owned() }) {
                if self.depth == 0 {
                    self.used.borrow_mut().insert(definition.id);
                }
                return self.source(definition);
            }
        }
        Err(self.missing(schema, name))
    }

    fn source(&self, definition: Arc<Definition>) -> crate::Result<Arc<dyn TableSource>> {
        match (definition.kind, self.reading) {
            (ObjectKind::View, _) => self.view(&definition),
            (ObjectKind::Sink | ObjectKind::Schema, _) => Err(Error::new(
                "42809",
                format!("\"{}\" is a {}, which has no rows", definition.name.name, kind_name(definition.kind)),
            )),
            (_, Reading::Continuously) => visible(Arc::new(StreamSource { definition })),
            (ObjectKind::StreamingTable, Reading::Once) => Ok(provider_as_source(Arc::new(SourceTable::new(&definition)?))),
            (_, Reading::Once) => {
                let table = self.objects.table(definition.id);
                let table = table.ok_or_else(|| Error::new("XX000", format!("{} has no table", definition.name)))?;
                visible(provider_as_source(table))
            }
        }
    }

    /// A plain view, inlined.
    fn view(&self, definition: &Definition) -> crate::Result<Arc<dyn TableSource>> {
        if self.depth >= MAX_VIEW_DEPTH {
            return Err(Error::new("54001", format!("views are nested more than {MAX_VIEW_DEPTH} deep")));
        }
        let Statement::CreateView(create) = crate::parser::parse_one(&definition.sql)?.statement else {
            return Err(Error::new("XX001", format!("the definition of view {} is damaged", definition.name)));
        };
        let inner = Names {
            state: self.state,
            settings: self.settings,
            objects: self.objects,
            reading: self.reading,
            used: RefCell::default(),
            depth: self.depth + 1,
            target: RefCell::default(),
        };
        let plan = inner.plan(&create.query).map_err(|mut error| {
            // A place in the view's text means nothing to who reads the view.
            error.position = None;
            error.detail(format!("in the definition of view {}", definition.name))
        })?;
        let plan = super::output::named(plan, &create.columns)?;
        Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
    }

    /// Makes a table the target of an INSERT, with the defaults of its columns.
    pub(crate) fn set_target(&self, definition: &Arc<Definition>) -> crate::Result<()> {
        let mut defaults = Vec::new();
        if let Statement::CreateTable(create) = crate::parser::parse_one(&definition.sql)?.statement {
            for column in &create.columns {
                let default = column.options.iter().find_map(|option| match &option.option {
                    sqlparser::ast::ColumnOption::Default(default) => Some(default.clone()),
                    _ => None,
                });
                if let Some(mut default) = default {
                    super::rewrite::apply(&mut default)?;
                    let expr = self
                        .planner()
                        .sql_to_expr(default, &DFSchema::empty(), &mut datafusion::sql::planner::PlannerContext::new())
                        .map_err(crate::translate)?;
                    defaults.push((types::column(column)?.name().clone(), expr));
                }
            }
        }
        *self.target.borrow_mut() = Some(Arc::new(Target { schema: taking_nulls(&definition.schema), defaults }));
        Ok(())
    }
}

fn taking_nulls(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A source without the columns that queries do not see.
fn visible(source: Arc<dyn TableSource>) -> crate::Result<Arc<dyn TableSource>> {
    let schema = source.schema();
    let hidden = |field: &Field| field.metadata().contains_key(super::continuous::HIDDEN);
    if !schema.fields().iter().any(|field| hidden(field)) {
        return Ok(source);
    }
    let columns =
        schema.fields().iter().filter(|field| !hidden(field)).map(|field| Expr::Column(Column::from_name(field.name())));
    let plan = LogicalPlanBuilder::scan("stored", source, None)
        .and_then(|scan| scan.project(columns))
        .and_then(LogicalPlanBuilder::build);
    Ok(provider_as_source(Arc::new(ViewTable::new(plan.map_err(crate::translate)?, None))))
}

/// What Postgres would call it.
pub(crate) fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Schema => "schema",
        ObjectKind::Table => "table",
        ObjectKind::StoredStreamingTable | ObjectKind::StreamingTable => "streaming table",
        ObjectKind::StreamingView => "streaming view",
        ObjectKind::View => "view",
        ObjectKind::Sink => "sink",
    }
}

fn outside(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        self.resolve(&name).map_err(outside)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &schema).and_then(|arg| simplifier.simplify(arg)))
            .collect::<Result<Vec<_>>>()?;
        let (schema, bare) = name.split_once('.').map_or((None, name), |(schema, name)| (Some(schema), name));
        if let Some(function) =
            self.state.table_functions().get(bare).filter(|_| schema.is_none_or(|schema| schema == "pg_catalog"))
        {
            return Ok(provider_as_source(function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?));
        }
        let constants: Option<Vec<ScalarValue>> = args.iter().map(|arg| arg.as_literal().cloned()).collect();
        let constants =
            constants.ok_or_else(|| outside(Error::new("0A000", format!("arguments of {name} must be constants"))))?;
        let found = self.schemas(schema).into_iter().find_map(|schema| self.objects.function(schema, bare, &constants));
        match found {
            Some(table) => table.map(provider_as_source).map_err(outside),
            None => Err(outside(Error::new("42883", format!("function {name} does not exist")))),
        }
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(types::PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
