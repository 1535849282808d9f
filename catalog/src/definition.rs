//! What can be named, as plain values.

use std::collections::BTreeMap;
use std::fmt;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

/// Number of a commit: a version of the whole database. Grows by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// Identity of a named object for its whole life; never used again. The table and the dataflow of an object share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The table `freshet.errors`.
    pub const ERRORS: ObjectId = ObjectId(1);
    /// The first identity given to a user's object.
    pub const FIRST_USER: ObjectId = ObjectId(1000);
}

/// Schema and name, both as they are after folding to lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The schema, `public` by default.
    pub schema: String,
    /// The name within the schema.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// A schema; its `ObjectName::schema` and `name` are equal.
    Schema,
    /// An ordinary table: INSERT, UPDATE, DELETE, COPY.
    Table,
    /// An unbounded source that is stored (`retention` given): it has a table and a dataflow that fills it.
    StoredStreamingTable,
    /// An unbounded source that is read by each view on its own: no table, no dataflow.
    StreamingTable,
    /// A continuous query: a dataflow and a table with its result.
    StreamingView,
    /// A name for a query.
    View,
    /// A dataflow whose rows leave.
    Sink,
}

impl ObjectKind {
    /// Whether rows are stored under this object.
    pub fn has_table(self) -> bool {
        matches!(self, ObjectKind::Table | ObjectKind::StoredStreamingTable | ObjectKind::StreamingView)
    }

    /// Whether a dataflow runs for this object.
    pub fn has_dataflow(self) -> bool {
        matches!(self, ObjectKind::StoredStreamingTable | ObjectKind::StreamingView | ObjectKind::Sink)
    }
}

/// A named object as it stands in the log.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Identity.
    pub id: ObjectId,
    /// Name.
    pub name: ObjectName,
    /// What it is.
    pub kind: ObjectKind,
    /// The statement that made it, canonical, one statement, without a semicolon. `sql` reads it, the catalog does not.
    pub sql: String,
    /// Columns: of the stored table, of the view's result, of the source. Empty for a schema.
    pub schema: SchemaRef,
    /// Names of the key columns; empty for append-only.
    pub primary_key: Vec<String>,
    /// `WITH (…)` options as given, lower-case keys.
    pub options: BTreeMap<String, String>,
    /// Objects this one reads; they cannot be dropped before it.
    pub depends_on: Vec<ObjectId>,
    /// Creation time, microseconds since 1970 UTC.
    pub created_us: i64,
    /// `COMMENT ON`.
    pub comment: Option<String>,
    /// ALTER … PAUSE: the dataflow is not started.
    pub paused: bool,
    /// For a stored streaming table or a view that keeps its event time: the column whose watermark readers get,
    /// and by how many microseconds it lies behind the dataflow's watermark (0 for a source's own column).
    pub watermark: Option<(String, i64)>,
}
