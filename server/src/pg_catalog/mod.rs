//! `pg_catalog` and `information_schema`.

use std::sync::Arc;

use catalog::Version;
use datafusion::catalog::TableProvider;
use sql::SystemRelations;

use crate::session::{Backend, SessionInfo};

/// Relations of the system for one session: `pg_catalog`, `information_schema`, and those of the database.
#[derive(Debug)]
pub(crate) struct Relations {
    backend: Arc<dyn Backend>,
    session: Arc<SessionInfo>,
}

impl Relations {
    pub(crate) fn new(backend: Arc<dyn Backend>, session: Arc<SessionInfo>) -> Relations {
        Relations { backend, session }
    }
}

impl SystemRelations for Relations {
    fn relation(&self, version: &Arc<Version>, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.backend.system().relation(version, schema, name)
    }
}
