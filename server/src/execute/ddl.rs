//! CREATE, DROP, ALTER, COMMENT, FLUSH.

use sql::{Error, Parsed, Planner, Result};

use crate::Database;
use crate::session::{Outcome, SessionInfo};

/// Runs a definition statement.
pub(crate) async fn ddl(database: &Database, session: &SessionInfo, planner: &Planner, statement: &Parsed) -> Result<Outcome> {
    let _ = (database, session, planner);
    Err(Error::new("0A000", format!("not there yet: {}", statement.text)))
}
