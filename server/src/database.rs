//! The joined whole: catalog, engine and language of one data directory.
//!
//! Opening reads the catalog, then starts the dataflow of every definition. A definition that cannot be planned any
//! more becomes a failing job; the server starts all the same.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use catalog::{Catalog, Definition, ObjectKind, Storage, Transaction, Version};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use engine::Engine;
use object_store::{ObjectStoreExt, path::Path};
use parking_lot::RwLock;
use sql::{Parsed, Planner, SessionSettings, Statement, SystemRelations};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::config::{Origin, Settings};
use crate::error::{Error, Result};
use crate::session::{Backend, Dml, Outcome, Registry, SessionInfo};
use crate::system::{EventLog, FreshetRelations};
use crate::{Config, clock, execute};

/// Settings made by ALTER SYSTEM, in the data directory. They are no part of the database's state: nothing that is
/// committed depends on them, so they may be written beside the log, last writer wins.
const SYSTEM_SETTINGS: &str = "settings.toml";

/// An open database.
#[derive(Debug)]
pub struct Database {
    config: Config,
    settings: RwLock<Settings>,
    storage: Storage,
    catalog: Arc<Catalog>,
    engine: Arc<Engine>,
    runtime_env: Arc<RuntimeEnv>,
    queries: QueryRuntime,
    sessions: Arc<Registry>,
    events: EventLog,
    system: Arc<FreshetRelations>,
    started_us: i64,
    shutdown: CancellationToken,
}

/// The runtime of queries, ended without waiting: a query may hold a thread for long.
#[derive(Debug)]
struct QueryRuntime(Option<Runtime>);

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Database {
    /// Opens the data directory and starts its dataflows.
    ///
    /// # Errors
    /// Storage that cannot be reached, a directory in use or of a newer format, settings that mean nothing.
    pub async fn open(config: Config) -> Result<Arc<Database>> {
        let storage = Storage::open(&config.data, &config.storage)?;
        let config = with_system_settings(config, &storage).await?;
        let checkpoint_interval = config.checkpoint_interval.unwrap_or_else(|| default_interval(&storage));
        let catalog_options = catalog::Options {
            checkpoint_interval,
            flush_interval: config.flush_interval,
            flush_bytes: config.flush_bytes,
            manifest_interval: config.manifest_interval,
            tail_bytes: config.tail_bytes,
        };
        let catalog = Catalog::open(storage.clone(), catalog_options, clock::now_us).await?;
        let engine_options = engine::Options {
            checkpoint_interval,
            checkpoint_interval_max: config.checkpoint_interval_max.max(checkpoint_interval),
            source_buffer_bytes: config.source_buffer_bytes,
            retry: config.retry,
        };
        let engine = Engine::new(Arc::clone(&catalog), engine_options);
        let queries = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.query_threads)
            .thread_name("freshet-query")
            .enable_all()
            .build()
            .map_err(|source| Error::Io { action: "start the threads of queries".to_owned(), source })?;
        let runtime_env = runtime_env(&config)?;
        let database = Arc::new_cyclic(|database| Database {
            settings: RwLock::new(config.settings.clone()),
            storage,
            catalog,
            engine,
            runtime_env,
            queries: QueryRuntime(Some(queries)),
            sessions: Arc::default(),
            events: EventLog::default(),
            system: FreshetRelations::new(database.clone()),
            started_us: clock::now_us(),
            shutdown: CancellationToken::new(),
            config,
        });
        database.start_dataflows();
        Ok(database)
    }

    /// The configuration the server was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Settings as they are now.
    pub fn settings(&self) -> Settings {
        self.settings.read().clone()
    }

    /// Where the data is.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What happened lately, for `freshet.events`.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// When the database was opened, microseconds since 1970.
    pub fn started_us(&self) -> i64 {
        self.started_us
    }

    /// Cancelled when the server stops.
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// A planner for statements that no session runs: start-up, HTTP, the demo.
    pub fn planner(&self, session: &SessionInfo) -> Planner {
        let settings = SessionSettings {
            search_path: session.search_path.clone(),
            time_zone: session.time_zone.clone(),
            user: session.user.clone(),
            database: session.database.clone(),
            backend_pid: session.pid,
            query_threads: self.config.query_threads,
        };
        Planner::new(Arc::clone(&self.runtime_env), settings, self.system())
    }

    /// Changes a setting for all, now and after a restart.
    ///
    /// # Errors
    /// 22023 for a name nobody knows or a wrong value, 55P02 for one that only a restart changes.
    pub async fn alter_system(&self, name: &str, value: Option<&str>) -> Result<()> {
        let mut settings = self.settings();
        match settings.get(name) {
            Some(setting) if !setting.runtime => {
                let message = format!("parameter \"{name}\" cannot be changed without restarting the server");
                let hint = format!("Start it with --set {name}=…, or put it into the configuration file.");
                return Err(sql::Error::new("55P02", message).hint(hint).into());
            }
            Some(_) => settings.change(name, value)?,
            None => settings.set(name, value.unwrap_or_default(), Origin::System)?,
        }
        let config = Config::new(settings.clone())?;
        let text = settings.to_toml(Origin::System);
        let path = Path::from(SYSTEM_SETTINGS);
        let written = self.storage.store.put(&path, text.into()).await;
        written.map_err(|source| catalog::Error::Store { action: "write", path: SYSTEM_SETTINGS.to_owned(), source })?;
        let interval = config.checkpoint_interval.unwrap_or_else(|| default_interval(&self.storage));
        self.catalog.set_checkpoint_interval(interval);
        self.engine.set_checkpoint_interval(interval);
        *self.settings.write() = settings;
        Ok(())
    }

    /// Ends every dataflow after a last epoch and closes the catalog, within the time given. Nothing is lost without it.
    pub async fn close(&self, limit: Duration) -> Result<()> {
        self.shutdown.cancel();
        self.engine.shutdown(limit).await;
        self.catalog.close().await?;
        Ok(())
    }

    fn start_dataflows(&self) {
        let version = self.catalog.version();
        for definition in version.objects.values().filter(|d| d.kind.has_dataflow() && !d.paused) {
            self.start_dataflow(&version, definition);
        }
    }

    /// Plans a definition anew and hands it to the engine; what cannot be planned is shown as failing.
    pub(crate) fn start_dataflow(&self, version: &Arc<Version>, definition: &Definition) {
        let planner = self.planner(&execute::definition_session(definition));
        match execute::plan_definition(&planner, version, definition) {
            Ok(continuous) => self.engine.start(continuous.dataflow),
            Err(error) => {
                tracing::error!(object = %definition.name, error = %error, "could not plan a continuous query at start");
                self.events.add("failed", &definition.name.to_string(), &error.message);
                self.engine.set_failed(definition.id, &definition.name.to_string(), job_kind(definition.kind), error.message);
            }
        }
    }
}

#[async_trait]
impl Backend for Database {
    fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn runtime_env(&self) -> Arc<RuntimeEnv> {
        Arc::clone(&self.runtime_env)
    }

    fn query_handle(&self) -> Handle {
        self.queries.0.as_ref().expect("taken only by drop").handle().clone()
    }

    fn query_threads(&self) -> usize {
        self.config.query_threads
    }

    fn system(&self) -> Arc<dyn SystemRelations> {
        Arc::clone(&self.system) as Arc<dyn SystemRelations>
    }

    fn sessions(&self) -> &Arc<Registry> {
        &self.sessions
    }

    async fn execute_ddl(&self, session: &SessionInfo, planner: &Planner, statement: &Parsed) -> sql::Result<Outcome> {
        execute::ddl(self, session, planner, statement).await
    }

    async fn execute_dml(
        &self,
        planner: &Planner,
        (version, before): (&Arc<Version>, &Transaction),
        statement: &Statement,
        parameters: &[ScalarValue],
    ) -> sql::Result<Dml> {
        execute::dml(self, planner, (version, before), statement, parameters).await
    }

    async fn copy_in(
        &self,
        before: &Transaction,
        table: &Arc<Definition>,
        columns: &[usize],
        batches: Vec<RecordBatch>,
    ) -> sql::Result<Dml> {
        execute::copy_in(self, before, table, columns, batches).await
    }

    fn server_settings(&self) -> Vec<(String, String)> {
        self.settings.read().list().map(|(name, setting)| (name.to_owned(), setting.value)).collect()
    }
}

/// `freshet.jobs.kind`.
pub(crate) fn job_kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::StreamingView => "streaming view",
        ObjectKind::Sink => "sink",
        ObjectKind::StoredStreamingTable | ObjectKind::StreamingTable => "streaming table",
        ObjectKind::Schema => "schema",
        ObjectKind::Table => "table",
        ObjectKind::View => "view",
    }
}

fn default_interval(storage: &Storage) -> Duration {
    Duration::from_millis(if storage.local.is_some() { 250 } else { 1000 })
}

async fn with_system_settings(config: Config, storage: &Storage) -> Result<Config> {
    let store = |source| catalog::Error::Store { action: "read", path: SYSTEM_SETTINGS.to_owned(), source };
    let found = match storage.store.get(&Path::from(SYSTEM_SETTINGS)).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(config),
        Err(source) => return Err(store(source).into()),
    };
    let bytes = found.bytes().await.map_err(store)?;
    let mut settings = config.settings;
    settings.add_toml(&String::from_utf8_lossy(&bytes), SYSTEM_SETTINGS, Origin::System)?;
    Config::new(settings)
}

fn runtime_env(config: &Config) -> Result<Arc<RuntimeEnv>> {
    const CONSUMERS_NAMED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(3).expect("3 is not 0");
    let pool = TrackConsumersPool::new(FairSpillPool::new(config.memory_limit_bytes), CONSUMERS_NAMED);
    let mut builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool));
    if let Some(directory) = &config.spill_directory {
        builder = builder.with_temp_file_path(directory);
    }
    builder.build_arc().map_err(|error| Error::Sql(sql::translate(error)))
}
