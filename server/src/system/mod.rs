//! The schema `freshet`: what runs, where it stands, what went wrong. Rows are made when a query is planned.

mod events;

use std::sync::{Arc, Weak};

use catalog::{ObjectId, Version};
use datafusion::catalog::TableProvider;
use sql::SystemRelations;

use crate::Database;
pub use events::{Event, EventLog};

/// Relations of the schema `freshet`.
#[derive(Debug)]
pub struct FreshetRelations {
    database: Weak<Database>,
}

impl FreshetRelations {
    /// Relations that ask the database when they are read.
    pub fn new(database: Weak<Database>) -> Arc<Self> {
        Arc::new(FreshetRelations { database })
    }
}

impl SystemRelations for FreshetRelations {
    fn relation(&self, version: &Arc<Version>, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        let _database = self.database.upgrade()?;
        match (schema, name) {
            ("freshet", "errors") => version.table(ObjectId::ERRORS),
            _ => None,
        }
    }
}
