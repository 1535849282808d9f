//! Our statements as types. Expressions and queries inside them are sqlparser's.

use std::collections::BTreeMap;

use catalog::ObjectName;
use sqlparser::ast;

/// A statement with its place in the text a client sent.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// Its own text, without the semicolon, trimmed.
    pub text: String,
    /// Where that text begins in what was parsed, in characters: error positions are relative to the whole.
    pub offset: usize,
}

/// A name as written: `[schema.]name`, folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Schema if given.
    pub schema: Option<String>,
    /// Name.
    pub name: String,
}

impl Name {
    /// With the schema that an unqualified name is created in.
    pub fn in_schema(&self, default: &str) -> ObjectName {
        ObjectName { schema: self.schema.clone().unwrap_or_else(|| default.to_owned()), name: self.name.clone() }
    }
}

/// What a client may ask for.
#[derive(Debug, Clone)]
pub enum Statement {
    /// SELECT, VALUES, TABLE, WITH … SELECT.
    Query(Box<ast::Query>),
    /// INSERT; `RETURNING` and `ON CONFLICT` are refused by the planner where they are not there yet.
    Insert(Box<ast::Insert>),
    /// UPDATE.
    Update(Box<ast::Statement>),
    /// DELETE.
    Delete(Box<ast::Delete>),
    /// TRUNCATE.
    Truncate(Vec<Name>),
    /// COPY.
    Copy(Copy),
    /// CREATE STREAMING TABLE / CREATE SOURCE.
    CreateStreamingTable(CreateStreamingTable),
    /// CREATE [OR REPLACE] STREAMING VIEW / MATERIALIZED VIEW.
    CreateStreamingView(CreateStreamingView),
    /// CREATE [OR REPLACE] VIEW.
    CreateView(CreateView),
    /// CREATE TABLE.
    CreateTable(CreateTable),
    /// CREATE SINK.
    CreateSink(CreateSink),
    /// CREATE SCHEMA.
    CreateSchema {
        /// Name.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// DROP.
    Drop(Drop),
    /// ALTER.
    Alter(Alter),
    /// COMMENT ON relation.
    Comment {
        /// Relation.
        name: Name,
        /// Text; `None` removes it.
        comment: Option<String>,
    },
    /// EXPLAIN.
    Explain {
        /// ANALYZE.
        analyze: bool,
        /// VERBOSE.
        verbose: bool,
        /// The statement.
        statement: Box<Parsed>,
    },
    /// SHOW name / SHOW ALL / SHOW TIME ZONE (as `timezone`); SHOW STREAMING VIEWS and the like (`streaming views`, …).
    Show(String),
    /// SET [SESSION | LOCAL] name TO value; `None`: DEFAULT.
    Set {
        /// LOCAL.
        local: bool,
        /// Lower case.
        name: String,
        /// As text.
        value: Option<String>,
    },
    /// RESET name or ALL.
    Reset(Option<String>),
    /// ALTER SYSTEM SET.
    AlterSystem {
        /// Setting.
        name: String,
        /// As text; `None` resets.
        value: Option<String>,
    },
    /// BEGIN / START TRANSACTION.
    Begin,
    /// COMMIT / END.
    Commit,
    /// ROLLBACK / ABORT.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO: the command tag to answer.
    Savepoint(&'static str),
    /// PREPARE name [(types)] AS statement.
    Prepare {
        /// Name.
        name: String,
        /// The statement.
        statement: Box<Parsed>,
    },
    /// EXECUTE name (args).
    Execute {
        /// Name.
        name: String,
        /// Arguments.
        args: Vec<ast::Expr>,
    },
    /// DEALLOCATE name or ALL.
    Deallocate(Option<String>),
    /// DECLARE name CURSOR … FOR query.
    Declare {
        /// Name.
        name: String,
        /// WITH HOLD.
        hold: bool,
        /// The query.
        query: Box<Parsed>,
    },
    /// FETCH n FROM name; `None` is ALL.
    Fetch {
        /// Cursor.
        name: String,
        /// How many.
        count: Option<u64>,
    },
    /// CLOSE name or ALL.
    Close(Option<String>),
    /// DISCARD ALL and the like.
    Discard,
    /// LISTEN, UNLISTEN, NOTIFY and other accepted no-ops: the command tag to answer.
    NoOp(&'static str),
    /// FLUSH: wait until everything taken in is committed and visible.
    Flush,
    /// DESCRIBE relation.
    Describe(Name),
    /// Nothing but comments and spaces.
    Empty,
}

/// COPY relation or query.
#[derive(Debug, Clone)]
pub struct Copy {
    /// What.
    pub target: CopyTarget,
    /// TO STDOUT or FROM STDIN.
    pub direction: CopyDirection,
    /// Options, lower-case keys: `format` (text, csv, binary), `delimiter`, `null`, `header`, `quote`, `escape`, `force_quote`, `encoding`.
    pub options: BTreeMap<String, String>,
}

/// What COPY copies.
#[derive(Debug, Clone)]
pub enum CopyTarget {
    /// A relation and the columns named.
    Relation(Name, Vec<String>),
    /// A query.
    Query(Box<ast::Query>),
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// TO STDOUT.
    Out,
    /// FROM STDIN.
    In,
}

/// CREATE STREAMING TABLE.
#[derive(Debug, Clone)]
pub struct CreateStreamingTable {
    /// Name.
    pub name: Name,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Declared columns.
    pub columns: Vec<ast::ColumnDef>,
    /// `*` among the columns, or no column list: the connector's own columns come first.
    pub own_columns: bool,
    /// WATERMARK FOR column AS column - interval: column and delay in microseconds.
    pub watermark: Option<(String, i64)>,
    /// `INCLUDE what [header 'x'] [AS name]`.
    pub include: Vec<Include>,
    /// WITH (…), lower-case keys.
    pub options: BTreeMap<String, String>,
    /// FORMAT, upper case.
    pub format: Option<String>,
    /// ENCODE, upper case.
    pub encode: Option<String>,
    /// ENCODE x (…).
    pub encode_options: BTreeMap<String, String>,
}

/// INCLUDE key/partition/offset/timestamp/topic/headers/header 'x' [AS name].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// Lower case.
    pub what: String,
    /// For `header`.
    pub header: Option<String>,
    /// Column name; by default `_<what>`.
    pub column: String,
}

/// EMIT …
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitClause {
    /// ON WINDOW CLOSE.
    OnWindowClose,
    /// ON UPDATE.
    OnUpdate,
    /// EVERY interval, microseconds.
    Every(i64),
}

/// CREATE STREAMING VIEW.
#[derive(Debug, Clone)]
pub struct CreateStreamingView {
    /// Name.
    pub name: Name,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// OR REPLACE.
    pub or_replace: bool,
    /// WITH (…).
    pub options: BTreeMap<String, String>,
    /// The query.
    pub query: Box<ast::Query>,
    /// EMIT.
    pub emit: Option<EmitClause>,
    /// ALLOW LATENESS, microseconds.
    pub allow_lateness_us: Option<i64>,
    /// LATE INTO.
    pub late_into: Option<Name>,
}

/// CREATE VIEW.
#[derive(Debug, Clone)]
pub struct CreateView {
    /// Name.
    pub name: Name,
    /// OR REPLACE.
    pub or_replace: bool,
    /// Column names, if given.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<ast::Query>,
}

/// CREATE TABLE.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// Name.
    pub name: Name,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Columns.
    pub columns: Vec<ast::ColumnDef>,
    /// Key columns.
    pub primary_key: Vec<String>,
    /// WITH (…).
    pub options: BTreeMap<String, String>,
    /// AS query.
    pub query: Option<Box<ast::Query>>,
}

/// CREATE SINK.
#[derive(Debug, Clone)]
pub struct CreateSink {
    /// Name.
    pub name: Name,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// FROM relation is `SELECT * FROM relation`.
    pub query: Box<ast::Query>,
    /// WITH (…).
    pub options: BTreeMap<String, String>,
    /// FORMAT, upper case.
    pub format: Option<String>,
    /// ENCODE, upper case.
    pub encode: Option<String>,
    /// EMIT.
    pub emit: Option<EmitClause>,
}

/// What DROP and ALTER name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// TABLE.
    Table,
    /// STREAMING TABLE / SOURCE.
    StreamingTable,
    /// STREAMING VIEW / MATERIALIZED VIEW.
    StreamingView,
    /// VIEW.
    View,
    /// SINK.
    Sink,
    /// SCHEMA.
    Schema,
}

/// DROP.
#[derive(Debug, Clone)]
pub struct Drop {
    /// Kind.
    pub kind: RelationKind,
    /// Names.
    pub names: Vec<Name>,
    /// IF EXISTS.
    pub if_exists: bool,
    /// CASCADE.
    pub cascade: bool,
}

/// ALTER.
#[derive(Debug, Clone)]
pub struct Alter {
    /// Kind.
    pub kind: RelationKind,
    /// Name.
    pub name: Name,
    /// What.
    pub action: AlterAction,
}

/// What ALTER does.
#[derive(Debug, Clone)]
pub enum AlterAction {
    /// RENAME TO.
    Rename(String),
    /// PAUSE.
    Pause,
    /// RESUME.
    Resume,
    /// SET (…).
    Set(BTreeMap<String, String>),
}
