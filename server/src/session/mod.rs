//! One client's side of the database: settings, transaction, prepared statements, cursors, and the running of a statement.
//!
//! ```text
//!  pgwire ──text──▶ sql::parse ──▶ Session::run ──▶ Response::Rows     (a stream, never collected)
//!                                      │            Response::Command  (a tag)
//!                                      │            Response::CopyIn / CopyOut
//!                                      ▼
//!                                   Backend (the database): snapshots, DDL, DML, system relations
//! ```
//!
//! Knows: Postgres's rules for settings, transaction blocks, portals and cursors.
//! Does not know: sockets, message bytes, how tables are stored, how streams run.

mod copy;
mod parameters;
mod registry;
mod rows;
mod run;
mod settings;
mod show;
mod transaction;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use catalog::{Catalog, Definition, Transaction, Version};
use datafusion::common::ScalarValue;
use datafusion::execution::runtime_env::RuntimeEnv;
use sql::{Parsed, Planner, Statement, SystemRelations};
use tokio::runtime::Handle;

pub(crate) use copy::{CopyError, CopyFormat, CopyIn, CopyOptions};
pub(crate) use parameters::{ParameterFormat, parameter};
pub use registry::{Activity, Registration, Registry, SessionState};
pub(crate) use rows::{Column, Rows, stopping};
pub(crate) use settings::{SERVER_VERSION, SETTINGS, Settings, identifiers};
pub(crate) use transaction::Block;

use crate::pg_catalog;
use crate::pgwire::types::PgType;

/// What others may know of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// `pg_backend_pid()`.
    pub pid: i32,
    /// `current_user`.
    pub user: String,
    /// `current_database()`.
    pub database: String,
    /// `application_name`.
    pub application: String,
    /// Address of the client.
    pub client: String,
    /// Schemas that names without one are looked for in.
    pub search_path: Vec<String>,
    /// `TimeZone`.
    pub time_zone: String,
    /// Every setting with its value as `SHOW` prints it.
    pub settings: Arc<Vec<(String, String)>>,
}

impl SessionInfo {
    /// The schema that an unqualified name is created in.
    pub fn current_schema(&self) -> &str {
        self.search_path.iter().find(|schema| !schema.starts_with("pg_")).map_or("public", String::as_str)
    }
}

/// What a DDL statement did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Command tag, as Postgres words it: `CREATE TABLE`.
    pub tag: String,
    /// NOTICEs for the client.
    pub notices: Vec<String>,
}

/// What a DML statement is going to do: nothing has been committed.
#[derive(Debug)]
pub struct Dml {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// To be committed, alone or together with others of a transaction block.
    pub transaction: Transaction,
}

/// What a session needs of the database.
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// Named objects and tables.
    fn catalog(&self) -> &Arc<Catalog>;

    /// Memory pool, disk and object stores of bounded queries.
    fn runtime_env(&self) -> Arc<RuntimeEnv>;

    /// The runtime that bounded queries run on: not the one that serves sockets.
    fn query_handle(&self) -> Handle;

    /// Threads one bounded query may use.
    fn query_threads(&self) -> usize;

    /// `freshet.*`; `pg_catalog` and `information_schema` are added by the session.
    fn system(&self) -> Arc<dyn SystemRelations>;

    /// All connected clients.
    fn sessions(&self) -> &Arc<Registry>;

    /// CREATE, DROP, ALTER, COMMENT, FLUSH, ALTER SYSTEM: done and durable on return. Names without a schema are
    /// resolved by `session`.
    async fn execute_ddl(&self, session: &SessionInfo, planner: &Planner, statement: &Parsed) -> sql::Result<Outcome>;

    /// INSERT, UPDATE, DELETE, TRUNCATE against a version and what the transaction has written before; `parameters` are the
    /// values of `$1`, `$2`, ….
    async fn execute_dml(
        &self,
        planner: &Planner,
        at: (&Arc<Version>, &Transaction),
        statement: &Statement,
        parameters: &[ScalarValue],
    ) -> sql::Result<Dml>;

    /// The rows COPY … FROM STDIN read, for the columns numbered `columns` of `table`; the others get their defaults or NULL.
    async fn copy_in(
        &self,
        before: &Transaction,
        table: &Arc<Definition>,
        columns: &[usize],
        batches: Vec<RecordBatch>,
    ) -> sql::Result<Dml>;

    /// Settings of the server (`checkpoint_interval`, …) with their values, for SHOW.
    fn server_settings(&self) -> Vec<(String, String)>;
}

/// A statement that was parsed and described, not yet run.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) parsed: Arc<Parsed>,
    /// Types of `$1`, `$2`, …, as the client was told.
    pub(crate) parameters: Vec<PgType>,
    /// Columns of the result; `None` when it has no rows.
    pub(crate) columns: Option<Vec<Column>>,
}

/// A prepared statement with values, and its rows once it runs.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) values: Vec<ScalarValue>,
    /// Which columns travel in binary: all alike when there is one, text when there is none.
    pub(crate) results: Vec<bool>,
    pub(crate) state: PortalState,
    /// WITH HOLD: lives on after its transaction.
    pub(crate) hold: bool,
}

/// How far a portal has come.
#[derive(Debug)]
pub(crate) enum PortalState {
    /// Bound.
    New,
    /// Some rows are taken; `tag` begins the command tag at the end.
    Running { rows: Box<Rows>, tag: &'static str },
    /// All rows are taken.
    Done,
}

/// What a statement comes to.
#[derive(Debug)]
pub(crate) enum Response {
    /// Nothing but spaces and comments.
    Empty,
    /// Done; the command tag.
    Command(String),
    /// Rows to be sent; the command tag is `tag`, for SELECT and FETCH with their number.
    Rows { rows: Box<Rows>, tag: &'static str },
    /// So many rows (`None`: all) of a cursor.
    Fetch { cursor: String, count: Option<u64> },
    /// COPY … TO STDOUT.
    CopyOut { rows: Box<Rows>, options: CopyOptions },
    /// COPY … FROM STDIN.
    CopyIn(Box<CopyIn>),
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    backend: Arc<dyn Backend>,
    registration: Registration,
    pub(crate) settings: Settings,
    info: Arc<SessionInfo>,
    /// Made for the settings as they are; made anew when one changes that plans depend on.
    planner: Option<Arc<Planner>>,
    pub(crate) block: Block,
    pub(crate) statements: BTreeMap<String, Arc<Prepared>>,
    pub(crate) portals: BTreeMap<String, Portal>,
    /// For the client, before the end of the statement.
    pub(crate) notices: Vec<Notice>,
}

/// A message that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// NOTICE or WARNING.
    pub(crate) severity: &'static str,
    pub(crate) message: String,
}

/// Prepared statements, or portals and cursors, that one session may hold.
const NAMED_MAX: usize = 10_000;

impl Session {
    /// A session for a client that has introduced itself.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        registration: Registration,
        settings: Settings,
        user: String,
        database: String,
    ) -> Session {
        let client = backend.sessions().client(registration.pid);
        let info = Arc::new(SessionInfo {
            pid: registration.pid,
            user,
            database,
            application: String::new(),
            client,
            search_path: Vec::new(),
            time_zone: String::new(),
            settings: Arc::default(),
        });
        let mut session = Session {
            backend,
            registration,
            settings,
            info,
            planner: None,
            block: Block::None,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            notices: Vec::new(),
        };
        session.settings_changed();
        session
    }

    /// What others may know of the session.
    pub(crate) fn info(&self) -> &Arc<SessionInfo> {
        &self.info
    }

    /// The session's place among all.
    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The runtime that queries run on.
    pub(crate) fn query_handle(&self) -> Handle {
        self.backend.query_handle()
    }

    /// Settings have changed: others are told, plans are made with the new ones.
    pub(crate) fn settings_changed(&mut self) {
        let mut settings = self.settings.all();
        let known = settings.iter().map(|(name, _)| name.clone()).collect::<std::collections::BTreeSet<_>>();
        settings.extend(self.backend.server_settings().into_iter().filter(|(name, _)| !known.contains(name)));
        settings.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        self.info = Arc::new(SessionInfo {
            application: self.settings.get("application_name").unwrap_or_default().to_owned(),
            search_path: self.search_path(),
            time_zone: self.settings.time_zone().to_owned(),
            settings: Arc::new(settings),
            ..SessionInfo::clone(&self.info)
        });
        self.registration.describe(Arc::clone(&self.info));
        self.planner = None;
    }

    /// Schemas to look in. That of the user's name is there only when there is such a schema.
    fn search_path(&self) -> Vec<String> {
        let version = self.backend.catalog().version();
        let user = &self.info.user;
        let exists =
            |schema: &String| version.object(&catalog::ObjectName { schema: schema.clone(), name: schema.clone() }).is_some();
        self.settings.search_path(user).into_iter().filter(|schema| schema != user || exists(schema)).collect()
    }

    /// What others see the session do between two statements.
    pub(crate) fn idle_state(&self) -> SessionState {
        match &self.block {
            Block::None => SessionState::Idle,
            Block::Open(_) => SessionState::IdleInTransaction,
            Block::Failed(_) => SessionState::IdleInFailedTransaction,
        }
    }

    /// The planner for the settings as they are.
    pub(crate) fn planner(&mut self) -> Arc<Planner> {
        if let Some(planner) = &self.planner {
            return Arc::clone(planner);
        }
        let settings = sql::SessionSettings {
            search_path: self.info.search_path.clone(),
            time_zone: self.info.time_zone.clone(),
            user: self.info.user.clone(),
            database: self.info.database.clone(),
            backend_pid: self.info.pid,
            query_threads: self.backend.query_threads(),
        };
        let system: Arc<dyn SystemRelations> =
            Arc::new(pg_catalog::Relations::new(Arc::clone(&self.backend), Arc::clone(&self.info)));
        let mut planner = Planner::new(self.backend.runtime_env(), settings, system);
        pg_catalog::functions(&self.backend, &self.info).into_iter().for_each(|function| planner.register_udf(function));
        let planner = Arc::new(planner);
        self.planner = Some(Arc::clone(&planner));
        planner
    }

    /// A prepared statement by name.
    pub(crate) fn statement(&self, name: &str) -> sql::Result<Arc<Prepared>> {
        let missing = || sql::Error::new("26000", format!("prepared statement \"{name}\" does not exist"));
        self.statements.get(name).map(Arc::clone).ok_or_else(missing)
    }

    /// Keeps a prepared statement; one without a name replaces the one before.
    pub(crate) fn keep_statement(&mut self, name: &str, prepared: Prepared) -> sql::Result<()> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(sql::Error::new("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        if self.statements.len() >= NAMED_MAX {
            return Err(sql::Error::new("53400", format!("a session can hold at most {NAMED_MAX} prepared statements"))
                .hint("Release some with DEALLOCATE."));
        }
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        Ok(())
    }

    /// Keeps a portal; one without a name replaces the one before.
    pub(crate) fn keep_portal(&mut self, name: &str, portal: Portal) -> sql::Result<()> {
        if !name.is_empty() && self.portals.contains_key(name) {
            return Err(sql::Error::new("42P03", format!("cursor \"{name}\" already exists")));
        }
        if self.portals.len() >= NAMED_MAX {
            return Err(sql::Error::new("53400", format!("a session can hold at most {NAMED_MAX} open cursors")));
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// A portal or cursor by name.
    pub(crate) fn portal(&mut self, name: &str) -> sql::Result<&mut Portal> {
        let missing = || {
            let what = if name.is_empty() { "portal" } else { "cursor" };
            sql::Error::new("34000", format!("{what} \"{name}\" does not exist"))
        };
        self.portals.get_mut(name).ok_or_else(missing)
    }

    /// A NOTICE for the client.
    fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice { severity: "NOTICE", message: message.into() });
    }

    /// A WARNING for the client.
    fn warning(&mut self, message: impl Into<String>) {
        self.notices.push(Notice { severity: "WARNING", message: message.into() });
    }
}

/// A catalog error for a client.
pub(crate) fn catalog_error(error: catalog::Error) -> sql::Error {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    sql::Error::new(error.sqlstate(), message)
}
