//! `pg_catalog` and `information_schema`: what clients ask about names, types and columns, answered from a catalog version.
//!
//! Clients' own queries run on real relations with Postgres's column names and types (`tables.rs` has their shapes, `content.rs`
//! their rows); functions they call are in `functions.rs`; `rewrite.rs` settles spellings that only catalog queries use.

mod content;
mod functions;
mod rewrite;
mod tables;

use std::sync::Arc;

use catalog::{ObjectId, Version};
use datafusion::catalog::TableProvider;
use sql::SystemRelations;

use crate::session::{Backend, SessionInfo};

pub(crate) use functions::functions;
pub(crate) use rewrite::rewrite;

/// Objects are numbered from here: below are Postgres's own.
const FIRST_OID: u64 = 16_384;

/// The number of an object in `pg_class`, the same for its whole life.
pub(crate) fn oid(id: ObjectId) -> i64 {
    i64::try_from(FIRST_OID + id.0).unwrap_or(i64::MAX)
}

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
        let table = tables::find(schema, name);
        match table {
            Some(table) => {
                let content = content::Content { version, session: &self.session, backend: self.backend.as_ref() };
                Some(table.provider(content.rows(schema, name)))
            }
            None => self.backend.system().relation(version, schema, name),
        }
    }

    fn function(
        &self,
        schema: &str,
        name: &str,
        arguments: &[datafusion::common::ScalarValue],
    ) -> Option<sql::Result<Arc<dyn TableProvider>>> {
        self.backend.system().function(schema, name, arguments)
    }
}
