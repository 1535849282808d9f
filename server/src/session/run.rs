//! Running a statement: by its kind, on the query runtime, without collecting.

use std::future::Future;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use catalog::{ObjectId, ObjectName, Version};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use sql::{CopyDirection, CopyTarget, Error, Parsed, Planner, Result, Statement, translate};
use tokio::runtime::Handle;

use super::copy::{CopyIn, CopyOptions};
use super::rows::text_fields;
use super::{Block, Column, Portal, PortalState, Prepared, Response, Rows, Session, stopping};
use crate::clock::now_us;
use crate::pg_catalog;
use crate::pgwire::types::PgType;

/// UPDATE and DELETE are planned again so often when others write the same table meanwhile.
const CONFLICT_RETRIES: usize = 20;

/// A plan and what of it a client is told.
struct Planned {
    plan: LogicalPlan,
    /// Inferred types of `$1`, `$2`, …; `None` where the text leaves it open.
    parameters: Vec<Option<PgType>>,
    parameter_types: Vec<Option<arrow::datatypes::DataType>>,
    schema: SchemaRef,
}

impl Session {
    /// Parses nothing, runs nothing: finds out parameters and columns of a statement.
    pub(crate) async fn describe(&mut self, parsed: Parsed, declared: &[u32]) -> Result<Prepared> {
        self.refuse_in_failed_block(&parsed.statement)?;
        let (parameters, columns) = match &parsed.statement {
            Statement::Query(_) => {
                let planned = self.plan(&parsed.statement).await?;
                let columns = Column::all(&planned.schema);
                (planned.parameters, Some(columns))
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                (self.plan(&parsed.statement).await?.parameters, None)
            }
            Statement::Declare { query, .. } => (self.plan(&query.statement).await?.parameters, None),
            Statement::Copy(_) => (Vec::new(), None),
            other => (Vec::new(), self.utility_columns(other)?),
        };
        let count = parameters.len().max(declared.len());
        let types = (0..count).map(|index| {
            let declared = declared.get(index).copied().and_then(PgType::from_oid);
            let declared = declared.filter(|kind| *kind != PgType::One(crate::pgwire::types::Scalar::Unknown));
            declared.or(parameters.get(index).copied().flatten()).unwrap_or(PgType::TEXT)
        });
        Ok(Prepared { parameters: types.collect(), columns, parsed: Arc::new(parsed) })
    }

    /// Runs a statement with values for its parameters.
    pub(crate) async fn run(&mut self, parsed: &Parsed, values: &[ScalarValue]) -> Result<Response> {
        self.refuse_in_failed_block(&parsed.statement)?;
        let command = |tag: &str| Ok(Response::Command(tag.to_owned()));
        match &parsed.statement {
            Statement::Empty => Ok(Response::Empty),
            Statement::Query(_) => {
                Ok(Response::Rows { rows: Box::new(self.query(&parsed.statement, values).await?), tag: "SELECT" })
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Truncate(_) => {
                let rows = self.dml(&parsed.statement, values).await?;
                Ok(Response::Command(match &parsed.statement {
                    Statement::Insert(_) => format!("INSERT 0 {rows}"),
                    Statement::Update(_) => format!("UPDATE {rows}"),
                    Statement::Delete(_) => format!("DELETE {rows}"),
                    _ => "TRUNCATE TABLE".to_owned(),
                }))
            }
            Statement::Copy(copy) => self.copy(copy).await,
            Statement::CreateStreamingTable(_)
            | Statement::CreateStreamingView(_)
            | Statement::CreateView(_)
            | Statement::CreateTable(_)
            | Statement::CreateSink(_)
            | Statement::CreateSchema { .. }
            | Statement::Drop(_)
            | Statement::Alter(_)
            | Statement::Comment { .. }
            | Statement::AlterSystem { .. }
            | Statement::Flush => self.ddl(parsed).await,
            Statement::Explain { analyze, verbose, statement } => {
                let rows = self.explain(*analyze, *verbose, statement).await?;
                Ok(Response::Rows { rows: Box::new(rows), tag: "EXPLAIN" })
            }
            Statement::Show(name) => Ok(Response::Rows { rows: Box::new(self.show(name)?), tag: "SHOW" }),
            Statement::Describe(name) => Ok(Response::Rows { rows: Box::new(self.describe_relation(name)?), tag: "DESCRIBE" }),
            Statement::Set { local, name, value } => {
                if *local {
                    self.set_local(name);
                    if let Block::None = self.block {
                        return command("SET");
                    }
                }
                match value {
                    Some(value) => self.settings.set(name, value).map_err(|error| self.known_to_server(name, error))?,
                    None => self.settings.reset(name)?,
                };
                self.settings_changed();
                command("SET")
            }
            Statement::Reset(name) => {
                match name {
                    Some(name) => drop(self.settings.reset(name)?),
                    None => self.settings.reset_all(),
                }
                self.settings_changed();
                command("RESET")
            }
            Statement::Begin => {
                self.begin();
                command("BEGIN")
            }
            Statement::Commit => self.commit().await.map(|tag| Response::Command(tag.to_owned())),
            Statement::Rollback => {
                self.rollback();
                command("ROLLBACK")
            }
            Statement::Savepoint(tag) => {
                self.savepoint(tag, &parsed.text)?;
                command(tag)
            }
            Statement::Prepare { name, statement } => {
                let prepared = self.describe(Parsed::clone(statement), &[]).await?;
                self.keep_statement(name, prepared)?;
                command("PREPARE")
            }
            Statement::Execute { name, args } => {
                let prepared = self.statement(name)?;
                let values = self.arguments(name, &prepared, args).await?;
                Box::pin(self.run(&prepared.parsed, &values)).await
            }
            Statement::Deallocate(name) => match name {
                Some(name) => {
                    self.statement(name)?;
                    self.statements.remove(name);
                    command("DEALLOCATE")
                }
                None => {
                    self.statements.clear();
                    command("DEALLOCATE ALL")
                }
            },
            Statement::Declare { name, hold, query } => {
                if !hold && !matches!(&self.block, Block::Open(open) if !open.implicit) {
                    return Err(Error::new("25P01", "DECLARE CURSOR can only be used in transaction blocks"));
                }
                let rows = self.query(&query.statement, values).await?;
                let prepared = Prepared {
                    parsed: Arc::new(Parsed::clone(query)),
                    parameters: Vec::new(),
                    columns: Some(rows.columns.clone()),
                };
                let state = PortalState::Running { rows: Box::new(rows), tag: "SELECT" };
                self.keep_portal(
                    name,
                    Portal { prepared: Arc::new(prepared), values: Vec::new(), results: Vec::new(), state, hold: *hold },
                )?;
                command("DECLARE CURSOR")
            }
            Statement::Fetch { name, count } => {
                self.portal(name)?;
                Ok(Response::Fetch { cursor: name.clone(), count: *count })
            }
            Statement::Close(name) => match name {
                Some(name) => {
                    self.portal(name)?;
                    self.portals.remove(name);
                    command("CLOSE CURSOR")
                }
                None => {
                    self.portals.clear();
                    command("CLOSE CURSOR ALL")
                }
            },
            Statement::Discard => self.discard(&parsed.text),
            Statement::NoOp(tag) => command(tag),
        }
    }

    fn refuse_in_failed_block(&self, statement: &Statement) -> Result<()> {
        let ends_block =
            matches!(statement, Statement::Commit | Statement::Rollback | Statement::Savepoint("ROLLBACK") | Statement::Empty);
        if matches!(self.block, Block::Failed(_)) && !ends_block {
            return Err(Error::new("25P02", "current transaction is aborted, commands ignored until end of transaction block"));
        }
        Ok(())
    }

    /// A setting of the server is not one of a session.
    fn known_to_server(&self, name: &str, error: Error) -> Error {
        if error.sqlstate == "42704" && self.info().settings.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Error::new("55P02", format!("parameter \"{name}\" cannot be set for one session"))
                .hint(format!("ALTER SYSTEM SET {name} changes it for the server."));
        }
        error
    }

    /// Plans on the query runtime: a large statement must not hold up other connections.
    async fn plan(&mut self, statement: &Statement) -> Result<Planned> {
        let (planner, version, statement) = (self.planner(), self.version(), statement.clone());
        let handle = self.query_handle();
        on_queries(&handle, async move { plan(&planner, &version, &statement) }).await
    }

    /// Starts a query.
    async fn query(&mut self, statement: &Statement, values: &[ScalarValue]) -> Result<Rows> {
        let planned = self.plan(statement).await?;
        let read = self.tables(&planned.plan);
        self.before_reading(&read).await?;
        let planned =
            if matches!(&self.block, Block::Open(open) if open.implicit) { self.plan(statement).await? } else { planned };
        let columns = Column::all(&planned.schema);
        let physical = self.physical(planned, values).await?;
        self.execute(physical, columns)
    }

    fn execute(&mut self, physical: Arc<dyn ExecutionPlan>, columns: Vec<Column>) -> Result<Rows> {
        let handle = self.query_handle();
        let task = self.planner().state().task_ctx();
        let _on_queries = handle.enter();
        let stream = execute_stream(physical, task).map_err(translate)?;
        Ok(Rows::run(stream, columns, &handle))
    }

    async fn physical(&mut self, planned: Planned, values: &[ScalarValue]) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = self.planner();
        let (handle, values) = (self.query_handle(), values.to_vec());
        on_queries(&handle, async move {
            let plan = with_values(planned, values)?;
            let now = chrono::DateTime::from_timestamp_micros(now_us()).unwrap_or_default();
            planner.state_at(now).create_physical_plan(&plan).await.map_err(translate)
        })
        .await
    }

    async fn dml(&mut self, statement: &Statement, values: &[ScalarValue]) -> Result<u64> {
        if !matches!(statement, Statement::Truncate(_)) {
            let planned = self.plan(statement).await?;
            let read = self.tables(&planned.plan);
            self.before_reading(&read).await?;
        }
        let mut attempt = 0;
        loop {
            let (backend, planner, version) = (Arc::clone(&self.backend), self.planner(), self.version());
            let (handle, before) = (self.query_handle(), self.pending());
            let (statement, values) = (statement.clone(), values.to_vec());
            let running = async move { backend.execute_dml(&planner, (&version, &before), &statement, &values).await };
            let dml = on_queries(&handle, running).await?;
            match self.write(dml).await {
                Err(error) if error.sqlstate == "40001" && attempt < CONFLICT_RETRIES && matches!(self.block, Block::None) => {
                    attempt += 1
                }
                other => return other,
            }
        }
    }

    async fn ddl(&mut self, parsed: &Parsed) -> Result<Response> {
        match &self.block {
            Block::Open(open) if open.implicit => {
                self.end_implicit().await?;
                self.begin_implicit();
            }
            Block::Open(_) if !matches!(parsed.statement, Statement::Flush) => {
                if self.has_writes() {
                    return Err(Error::new("25001", "definitions cannot be changed after rows in the same transaction block")
                        .hint("COMMIT first: definitions change at once, rows at the end of the block."));
                }
                self.warning("definitions change at once: ROLLBACK will not undo this statement");
            }
            Block::None | Block::Open(_) | Block::Failed(_) => {}
        }
        let (backend, planner, info, statement) =
            (Arc::clone(&self.backend), self.planner(), Arc::clone(self.info()), parsed.clone());
        let work = self.query_handle().spawn(async move { backend.execute_ddl(&info, &planner, &statement).await });
        // Not stopped when the client goes away or cancels: what is half done must be finished.
        let outcome = work.await.map_err(|error| broken(&error))??;
        outcome.notices.into_iter().for_each(|notice| self.notice(notice));
        self.forget_version();
        // A schema of the user's name may have come or gone.
        self.settings_changed();
        Ok(Response::Command(outcome.tag))
    }

    async fn copy(&mut self, copy: &sql::Copy) -> Result<Response> {
        let options = CopyOptions::new(&copy.options, copy.direction)?;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        match (&copy.target, copy.direction) {
            (CopyTarget::Query(query), CopyDirection::Out) => {
                let rows = self.query(&Statement::Query(query.clone()), &[]).await?;
                Ok(Response::CopyOut { rows: Box::new(rows), options })
            }
            (CopyTarget::Relation(name, columns), CopyDirection::Out) => {
                let columns = match columns.as_slice() {
                    [] => "*".to_owned(),
                    columns => columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                };
                let schema = name.schema.as_deref().map(|schema| format!("{}.", quoted(schema))).unwrap_or_default();
                let text = format!("SELECT {columns} FROM {schema}{}", quoted(&name.name));
                let statement = parse_one(&text)?.statement;
                let rows = self.query(&statement, &[]).await.map_err(|error| Error { position: None, ..error })?;
                Ok(Response::CopyOut { rows: Box::new(rows), options })
            }
            (CopyTarget::Relation(name, columns), CopyDirection::In) => {
                let version = self.version();
                let table = self.relation(&version, name)?;
                if table.kind != catalog::ObjectKind::Table {
                    return Err(Error::new("42809", format!("cannot copy to \"{}\"", name.name))
                        .detail("Rows are only copied to ordinary tables."));
                }
                let copy = CopyIn::new(table, columns, options, &self.info().time_zone)?;
                Ok(Response::CopyIn(Box::new(copy)))
            }
            (CopyTarget::Query(_), CopyDirection::In) => Err(Error::new("42601", "COPY of a query only goes TO")),
        }
    }

    /// The end of COPY … FROM STDIN.
    pub(crate) async fn copied(&mut self, copy: CopyIn) -> Result<u64> {
        let (table, columns, batches) = copy.finish()?;
        let backend = Arc::clone(&self.backend);
        let handle = self.query_handle();
        let before = self.pending();
        let dml = on_queries(&handle, async move { backend.copy_in(&before, &table, &columns, batches).await }).await?;
        self.write(dml).await
    }

    async fn explain(&mut self, analyze: bool, verbose: bool, statement: &Parsed) -> Result<Rows> {
        let text = match &statement.statement {
            Statement::CreateStreamingView(_) | Statement::CreateSink(_) => {
                let (planner, version) = (self.planner(), self.version());
                let id = self.backend.catalog().next_id();
                let statement = statement.statement.clone();
                let handle = self.query_handle();
                on_queries(&handle, async move {
                    let continuous = planner.continuous(&version, id, &statement)?;
                    Ok(planner.explain_continuous(&continuous))
                })
                .await?
            }
            Statement::Execute { name, args } => {
                let prepared = self.statement(name)?;
                let values = self.arguments(name, &prepared, args).await?;
                self.explain_query(analyze, verbose, &prepared.parsed.statement, &values).await?
            }
            statement => self.explain_query(analyze, verbose, statement, &[]).await?,
        };
        let lines: Vec<_> = text.trim_end().lines().map(|line| vec![line.to_owned()]).collect();
        Ok(Rows::text(&["QUERY PLAN"], &lines))
    }

    async fn explain_query(
        &mut self,
        analyze: bool,
        verbose: bool,
        statement: &Statement,
        values: &[ScalarValue],
    ) -> Result<String> {
        if analyze && !matches!(statement, Statement::Query(_)) {
            return Err(Error::new("0A000", "EXPLAIN ANALYZE is only possible for queries"));
        }
        let planned = self.plan(statement).await?;
        let columns = Column::all(&planned.schema);
        let physical = self.physical(planned, values).await?;
        if !analyze {
            return Ok(DisplayableExecutionPlan::new(physical.as_ref()).indent(verbose).to_string());
        }
        let mut rows = self.execute(Arc::clone(&physical), columns)?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch?.0.num_rows();
        }
        let tree = DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(verbose).to_string();
        Ok(format!("{tree}Rows: {count}\n"))
    }

    /// Values of EXECUTE's arguments, in the types of the parameters.
    async fn arguments(
        &mut self,
        name: &str,
        prepared: &Prepared,
        args: &[datafusion::sql::sqlparser::ast::Expr],
    ) -> Result<Vec<ScalarValue>> {
        if args.len() != prepared.parameters.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", prepared.parameters.len(), args.len());
            return Err(Error::new("42601", message).detail(detail));
        }
        if args.is_empty() {
            return Ok(Vec::new());
        }
        let list = args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let statement = parse_one(&format!("SELECT {list}"))?.statement;
        let mut rows = self.query(&statement, &[]).await.map_err(|error| Error { position: None, ..error })?;
        let Some(batch) = rows.next().await else {
            return Err(Error::new("XX000", "arguments gave no row"));
        };
        let (batch, _) = batch?;
        let value = |(column, kind): (&arrow::array::ArrayRef, &PgType)| {
            let value = ScalarValue::try_from_array(column, 0).map_err(translate)?;
            value.cast_to(&kind.arrow()).map_err(translate)
        };
        batch.columns().iter().zip(&prepared.parameters).map(value).collect()
    }

    fn discard(&mut self, text: &str) -> Result<Response> {
        let what = text.split_whitespace().nth(1).unwrap_or_default().to_ascii_uppercase();
        if what == "ALL" {
            if matches!(&self.block, Block::Open(open) if !open.implicit) {
                return Err(Error::new("25001", "DISCARD ALL cannot run inside a transaction block"));
            }
            self.statements.clear();
            self.portals.clear();
            self.settings.reset_all();
            self.settings_changed();
        }
        Ok(Response::Command(format!("DISCARD {what}")))
    }

    /// Columns of statements that are not planned; `None` for those without rows.
    fn utility_columns(&mut self, statement: &Statement) -> Result<Option<Vec<Column>>> {
        let text = |names: &[&str]| Column::all(&arrow::datatypes::Schema::new(text_fields(names)));
        Ok(match statement {
            Statement::Explain { .. } => Some(text(&["QUERY PLAN"])),
            Statement::Show(name) => Some(self.show(name)?.columns.clone()),
            Statement::Describe(name) => Some(self.describe_relation(name)?.columns.clone()),
            Statement::Fetch { name, .. } => self.portal(name)?.prepared.columns.clone(),
            Statement::Execute { name, .. } => self.statement(name)?.columns.clone(),
            _ => None,
        })
    }

    /// Stored tables a plan reads.
    fn tables(&mut self, plan: &LogicalPlan) -> Vec<ObjectId> {
        let version = self.version();
        let mut tables = Vec::new();
        let visited = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let schema = scan.table_name.schema().unwrap_or_else(|| self.info.current_schema()).to_owned();
                let name = ObjectName { schema, name: scan.table_name.table().to_owned() };
                tables.extend(version.names.get(&name));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        match visited {
            Ok(_) => tables,
            Err(_) => version.objects.keys().copied().collect(),
        }
    }
}

/// A text of our own making.
fn parse_one(text: &str) -> Result<Parsed> {
    sql::parse(text)?.pop().ok_or_else(|| Error::new("XX000", "no statement"))
}

fn plan(planner: &Planner, version: &Arc<Version>, statement: &Statement) -> Result<Planned> {
    let plan = match statement {
        Statement::Insert(insert) => planner.insert(version, insert)?.1,
        Statement::Update(_) | Statement::Delete(_) => planner.modify(version, statement)?.1,
        _ => {
            let mut statement = statement.clone();
            pg_catalog::rewrite(&mut statement);
            planner.query(version, &statement)?
        }
    };
    let inferred = plan.get_parameter_types().map_err(translate)?;
    let number = |name: &str| name.trim_start_matches('$').parse::<usize>().ok().filter(|number| (1..=65_535).contains(number));
    let count = inferred.keys().filter_map(|name| number(name)).max().unwrap_or(0);
    let parameter_types: Vec<_> = (1..=count).map(|number| inferred.get(&format!("${number}")).cloned().flatten()).collect();
    let pg_type = |data_type: &arrow::datatypes::DataType| PgType::of(&Field::new("", data_type.clone(), true));
    let parameters = parameter_types.iter().map(|data_type| data_type.as_ref().map(pg_type)).collect();
    let schema = Arc::clone(plan.schema().inner());
    Ok(Planned { plan, parameters, parameter_types, schema })
}

/// Puts values in, so that the columns keep the types that the client was told.
fn with_values(planned: Planned, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    let Planned { plan, parameter_types, schema, .. } = planned;
    if parameter_types.is_empty() {
        return Ok(plan);
    }
    if values.len() < parameter_types.len() {
        return Err(Error::new("42P02", format!("there is no parameter ${}", values.len() + 1)));
    }
    let typed = values.into_iter().zip(parameter_types).map(|(value, data_type)| match data_type {
        Some(data_type) if value.data_type() != data_type => value.cast_to(&data_type),
        _ => Ok(value),
    });
    let values = typed.collect::<datafusion::common::Result<Vec<_>>>().map_err(translate)?;
    let plan = plan.with_param_values(values).map_err(translate)?;
    if plan.schema().inner().fields().iter().zip(schema.fields()).all(|(now, told)| now.data_type() == told.data_type()) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(schema.fields())
        .map(|(column, told)| {
            let name = column.name.clone();
            cast(Expr::Column(column), told.data_type().clone()).alias(name)
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns).and_then(LogicalPlanBuilder::build).map_err(translate)
}

/// Runs work on the query runtime; dropping the future stops it.
pub(super) async fn on_queries<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    struct StopOnDrop(tokio::task::AbortHandle);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = handle.spawn(work);
    let _stop = StopOnDrop(task.abort_handle());
    task.await.map_err(|error| broken(&error))?
}

/// A task that did not come back: the server is stopping, or a bug that must not take the connection with it.
fn broken(error: &tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return stopping();
    }
    tracing::error!(%error, "a statement panicked");
    Error::new("XX000", "internal error while running the statement").hint("The server's log has more. Please report it.")
}
