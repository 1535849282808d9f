//! Which definition statement is whose, and running it again when definitions changed under it.

use std::sync::Arc;

use catalog::{DefinitionChange, ObjectKind, Seq, Transaction, Version};
use sql::{Error, Parsed, Planner, RelationKind, Result, Statement};

use super::{alter, create, drop};
use crate::Database;
use crate::error::{from_catalog, from_engine};
use crate::session::{Backend, Outcome, SessionInfo};

/// A statement is planned at most so often while others change definitions.
const ATTEMPTS_MAX: usize = 5;

/// A definition statement at work on one version.
pub(super) struct Work<'a> {
    pub(super) database: &'a Database,
    pub(super) session: &'a SessionInfo,
    pub(super) planner: &'a Planner,
    pub(super) version: Arc<Version>,
    /// The statement's text, kept in definitions.
    pub(super) text: &'a str,
}

/// Runs a definition statement: done and durable on return.
pub(crate) async fn ddl(database: &Database, session: &SessionInfo, planner: &Planner, statement: &Parsed) -> Result<Outcome> {
    let mut attempt = 1;
    loop {
        let work = Work { database, session, planner, version: database.catalog().version(), text: &statement.text };
        match Box::pin(work.run(&statement.statement)).await {
            Err(error) if error.sqlstate == "40001" && attempt < ATTEMPTS_MAX => attempt += 1,
            result => return result,
        }
    }
}

impl Work<'_> {
    async fn run(&self, statement: &Statement) -> Result<Outcome> {
        match statement {
            Statement::CreateStreamingTable(create) => create::streaming_table(self, create).await,
            Statement::CreateStreamingView(create) => create::streaming_view(self, create).await,
            Statement::CreateView(create) => create::view(self, create).await,
            Statement::CreateTable(create) => create::table(self, create).await,
            Statement::CreateSink(create) => create::sink(self, create).await,
            Statement::CreateSchema { name, if_not_exists } => create::schema(self, name, *if_not_exists).await,
            Statement::Drop(drop) => drop::drop(self, drop).await,
            Statement::Alter(alter) => alter::alter(self, alter).await,
            Statement::Comment { name, comment } => alter::comment(self, name, comment.as_deref()).await,
            Statement::AlterSystem { name, value } => {
                self.database.alter_system(name, value.as_deref()).await.map_err(crate::Error::into_sql)?;
                Ok(done("ALTER SYSTEM"))
            }
            Statement::Flush => {
                self.database.engine().flush().await.map_err(from_engine)?;
                Ok(done("FLUSH"))
            }
            _ => Err(Error::new("XX000", "not a definition statement")),
        }
    }

    /// Commits definitions if they still stand on this work's version.
    pub(super) async fn commit(&self, mut transaction: Transaction) -> Result<Seq> {
        transaction.definitions_version = Some(self.version.definitions_version);
        self.database.catalog().commit(transaction).await.map_err(from_catalog)
    }

    /// A planner as at the definition's creation: its names were looked for in another session's schemas.
    pub(super) fn planner_of(&self, definition: &catalog::Definition) -> Planner {
        self.database.planner(&super::definition_session(definition))
    }

    pub(super) async fn put(&self, definition: catalog::Definition) -> Result<Seq> {
        self.commit(Transaction { definitions: vec![DefinitionChange::Put(definition)], ..Transaction::default() }).await
    }
}

/// A command tag without notices.
pub(super) fn done(tag: &str) -> Outcome {
    Outcome { tag: tag.to_owned(), notices: Vec::new() }
}

/// The words of a kind, as in `"x" is not a view`.
pub(super) fn kind_name(kind: ObjectKind) -> &'static str {
    crate::database::job_kind(kind)
}

/// The words of what DROP and ALTER name.
pub(super) fn relation_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "table",
        RelationKind::StreamingTable => "streaming table",
        RelationKind::StreamingView => "streaming view",
        RelationKind::View => "view",
        RelationKind::Sink => "sink",
        RelationKind::Schema => "schema",
    }
}

/// Whether an object is what a statement calls it.
pub(super) fn is_of_kind(kind: ObjectKind, named: RelationKind) -> bool {
    match named {
        RelationKind::Table => kind == ObjectKind::Table,
        RelationKind::StreamingTable => matches!(kind, ObjectKind::StreamingTable | ObjectKind::StoredStreamingTable),
        RelationKind::StreamingView => kind == ObjectKind::StreamingView,
        RelationKind::View => kind == ObjectKind::View,
        RelationKind::Sink => kind == ObjectKind::Sink,
        RelationKind::Schema => kind == ObjectKind::Schema,
    }
}

/// 42809 with the statement that would be right.
pub(super) fn wrong_kind(definition: &catalog::Definition, named: RelationKind, verb: &str) -> Error {
    let error = Error::new("42809", format!("\"{}\" is not a {}", definition.name.name, relation_name(named)));
    let kind = kind_name(definition.kind);
    let what = if verb == "DROP" { "remove" } else { "change" };
    error.hint(format!("Use {verb} {} to {what} a {kind}.", kind.to_uppercase()))
}
