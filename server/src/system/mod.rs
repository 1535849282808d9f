//! The schema `freshet`: what runs, where it stands, what went wrong. Rows are made when a relation is scanned.

mod columns;
mod events;
mod relations;
mod table;
mod wait;

use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use catalog::{Catalog, ObjectId, Version};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use engine::status::{JobState, JobStatus};
use sql::SystemRelations;

use crate::Database;
use crate::database::job_kind;
use crate::session::{Backend, SessionState};
pub use events::{Event, EventLog};
use relations::TableRow;
use table::SystemTable;

/// Names of the relations, for `\d` and completion.
pub const RELATIONS: [&str; 12] = [
    "jobs",
    "splits",
    "operators",
    "checkpoints",
    "commits",
    "errors",
    "tables",
    "settings",
    "sessions",
    "queries",
    "events",
    "functions",
];

/// Relations of the schema `freshet`.
#[derive(Debug)]
pub(crate) struct FreshetRelations {
    database: Weak<Database>,
}

impl FreshetRelations {
    /// Relations that ask the database when they are scanned.
    pub(crate) fn new(database: Weak<Database>) -> Arc<Self> {
        Arc::new(FreshetRelations { database })
    }

    /// A relation over what the database says when it is asked; nothing once it is gone.
    fn over(&self, name: &'static str, empty: RecordBatch, rows: fn(&Arc<Database>) -> RecordBatch) -> Arc<dyn TableProvider> {
        let database = Weak::clone(&self.database);
        let schema = empty.schema();
        SystemTable::ready(name, schema, move || match database.upgrade() {
            Some(database) => rows(&database),
            None => empty.clone(),
        })
    }
}

impl SystemRelations for FreshetRelations {
    fn relation(&self, version: &Arc<Version>, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if schema != "freshet" {
            return None;
        }
        Some(match name {
            "errors" => return version.table(ObjectId::ERRORS),
            "jobs" => self.over("jobs", relations::jobs(&[]), |database| relations::jobs(&jobs(database))),
            "splits" => self.over("splits", relations::splits(&[]), |database| relations::splits(&database.engine().splits())),
            "operators" => {
                self.over("operators", relations::operators(&[]), |database| relations::operators(&database.engine().operators()))
            }
            "checkpoints" => self.over("checkpoints", relations::checkpoints(&[]), |database| {
                relations::checkpoints(&database.engine().checkpoints())
            }),
            "commits" => {
                self.over("commits", relations::commits(&[]), |database| relations::commits(&database.catalog().recent_commits()))
            }
            "tables" => self.over("tables", relations::tables(&[]), |database| relations::tables(&tables(database.catalog()))),
            "settings" => self.over("settings", relations::settings(&[]), |database| {
                let settings = database.settings();
                let rows: Vec<_> = settings.list().map(|(name, setting)| (name.to_owned(), setting)).collect();
                relations::settings(&rows)
            }),
            "sessions" => {
                self.over("sessions", relations::sessions(&[]), |database| relations::sessions(&database.sessions().activity()))
            }
            "queries" => self.over("queries", relations::queries(&[]), |database| {
                let mut activity = database.sessions().activity();
                activity.retain(|session| session.state == SessionState::Active);
                relations::queries(&activity)
            }),
            "events" => self.over("events", relations::events(&[]), |database| relations::events(&database.events().list())),
            "functions" => {
                self.over("functions", relations::functions(&[]), |database| relations::functions(&functions(database)))
            }
            _ => return None,
        })
    }

    fn function(&self, schema: &str, name: &str, arguments: &[ScalarValue]) -> Option<sql::Result<Arc<dyn TableProvider>>> {
        match (schema, name) {
            ("freshet", "wait") => Some(wait::table(Weak::clone(&self.database), arguments)),
            _ => None,
        }
    }
}

/// Running jobs and paused ones, in order of their creation.
pub(crate) fn jobs(database: &Database) -> Vec<JobStatus> {
    let mut jobs = database.engine().jobs();
    let version = database.catalog().version();
    let paused = version.objects.values().filter(|definition| definition.paused && definition.kind.has_dataflow());
    for definition in paused {
        if jobs.iter().any(|job| job.id == definition.id) {
            continue;
        }
        let position = version.dataflow(definition.id);
        jobs.push(JobStatus {
            id: definition.id,
            name: definition.name.to_string(),
            kind: job_kind(definition.kind),
            state: JobState::Paused,
            since_us: definition.created_us,
            epoch: position.as_ref().map_or(0, |position| position.epoch),
            watermark_us: position.and_then(|position| position.watermark),
            freshness_ms: None,
            rows_in: 0,
            rows_out: 0,
            late_rows: 0,
            error_rows: 0,
            restarts: 0,
            last_error: None,
            state_bytes: 0,
            checkpoint_ms: 0.0,
        });
    }
    if let Some(reason) = database.catalog().commit_error() {
        // Nothing fails then: every job waits for the store, and this is where people look.
        jobs.iter_mut().filter(|job| job.last_error.is_none()).for_each(|job| job.last_error = Some(reason.clone()));
    }
    jobs.sort_by_key(|job| job.id);
    jobs
}

fn tables(catalog: &Catalog) -> Vec<TableRow> {
    let version = catalog.version();
    let with_numbers = version.objects.values().filter_map(|definition| {
        let statistics = version.statistics(definition.id)?;
        Some(TableRow { definition: Arc::clone(definition), statistics })
    });
    with_numbers.collect()
}

fn functions(database: &Database) -> Vec<(String, &'static str)> {
    let planner = database.planner(&crate::execute::own_session());
    let state = planner.state();
    let mut functions: Vec<(String, &'static str)> = Vec::new();
    functions.extend(state.scalar_functions().keys().map(|name| (name.clone(), "scalar")));
    functions.extend(state.aggregate_functions().keys().map(|name| (name.clone(), "aggregate")));
    functions.extend(state.window_functions().keys().map(|name| (name.clone(), "window")));
    functions.sort();
    functions
}
