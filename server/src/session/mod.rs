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

mod registry;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use catalog::{Catalog, Definition, Transaction, Version};
use datafusion::common::ScalarValue;
use datafusion::execution::runtime_env::RuntimeEnv;
use sql::{Parsed, Planner, Statement, SystemRelations};
use tokio::runtime::Handle;

pub use registry::{Activity, Registration, Registry, SessionState};

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

    /// INSERT, UPDATE, DELETE, TRUNCATE against `version`; `parameters` are the values of `$1`, `$2`, ….
    async fn execute_dml(
        &self,
        planner: &Planner,
        version: &Arc<Version>,
        statement: &Statement,
        parameters: &[ScalarValue],
    ) -> sql::Result<Dml>;

    /// The rows COPY … FROM STDIN read, for the columns numbered `columns` of `table`; the others get their defaults or NULL.
    async fn copy_in(&self, table: &Arc<Definition>, columns: &[usize], batches: Vec<RecordBatch>) -> sql::Result<Dml>;

    /// Settings of the server (`checkpoint_interval`, …) with their values, for SHOW.
    fn server_settings(&self) -> Vec<(String, String)>;
}
