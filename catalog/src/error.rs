//! Errors of the catalog.

/// The result of catalog calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with definitions, the log and table files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another statement changed what this one was planned on. Run it again.
    #[error("could not commit: {what} was changed by another statement meanwhile")]
    Conflict {
        /// What changed.
        what: String,
    },
    /// Another server has taken over the data directory. This one must stop.
    #[error("this server has been replaced by a newer one (generation {newer}) on the same data directory")]
    Fenced {
        /// The generation found.
        newer: u64,
    },
    /// Another live server holds the data directory.
    #[error("the data directory {path} is in use by another server")]
    InUse {
        /// Directory.
        path: String,
    },
    /// The store could not be reached or refused. Retried by the committer; look at the store.
    #[error("could not {action} {path}")]
    Store {
        /// Verb: read, write, list, delete.
        action: &'static str,
        /// Object path.
        path: String,
        /// Cause.
        #[source]
        source: object_store::Error,
    },
    /// A file is damaged. `freshet check` names all of them.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// Object path.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The directory was written by a newer Freshet.
    #[error("{path} has format version {found}, this Freshet reads up to {supported}")]
    FormatVersion {
        /// Object path.
        path: String,
        /// Version found.
        found: u32,
        /// Highest version understood.
        supported: u32,
    },
    /// Log records a reader still needed are gone.
    #[error("changes after commit {after} are no longer kept; the oldest kept is {oldest}")]
    TooOld {
        /// Where the reader wanted to go on.
        after: u64,
        /// The oldest commit kept.
        oldest: u64,
    },
    /// A primary-key or NOT NULL rule is broken.
    #[error("{message}")]
    Constraint {
        /// SQLSTATE, class 23.
        code: &'static str,
        /// Postgres wording.
        message: String,
    },
    /// The server is stopping.
    #[error("the server is shutting down")]
    Closed,
    /// Arrow refused; a broken invariant of ours.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet refused.
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// An address or a setting of the storage that cannot be used. Correct `--data` or `storage.*`.
    #[error("could not use \"{url}\" as data directory: {reason}")]
    Location {
        /// As given, without credentials.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A type that tables cannot hold.
    #[error("column \"{column}\" has type {data_type}, which tables cannot hold")]
    Unsupported {
        /// Column.
        column: String,
        /// Type.
        data_type: String,
    },
}

impl Error {
    /// The five-letter code a client gets.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::Conflict { .. } => "40001",
            Error::Fenced { .. } | Error::InUse { .. } => "55006",
            Error::Store { .. } => "58030",
            Error::Corrupt { .. } => "XX001",
            Error::FormatVersion { .. } => "55000",
            Error::TooOld { .. } => "55000",
            Error::Constraint { code, .. } => code,
            Error::Closed => "57P01",
            Error::Arrow(_) | Error::Parquet(_) => "XX000",
            Error::Unsupported { .. } => "0A000",
            Error::Location { .. } => "22023",
        }
    }

    /// The cause, where another part of the system gave one.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::Store { source, .. } => Some(source.to_string()),
            Error::Conflict { .. }
            | Error::Fenced { .. }
            | Error::InUse { .. }
            | Error::Corrupt { .. }
            | Error::FormatVersion { .. }
            | Error::TooOld { .. }
            | Error::Constraint { .. }
            | Error::Closed
            | Error::Arrow(_)
            | Error::Parquet(_)
            | Error::Location { .. }
            | Error::Unsupported { .. } => None,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Conflict { .. } => Some("Run the statement again."),
            Error::Fenced { .. } => Some("Connect to the newer server, or stop it and start this one again."),
            Error::InUse { .. } => Some("Stop the other server, or name another directory with --data."),
            Error::Store { .. } => Some("Look at the disk or the object store: space, permissions, network, credentials."),
            Error::Corrupt { .. } => Some("Run \"freshet check --data …\" to see everything that is damaged."),
            Error::FormatVersion { .. } => Some("Use the newer version of Freshet that wrote it."),
            Error::TooOld { .. } => Some("Create the reader again from the table's present rows."),
            Error::Location { .. } => Some("A data directory is a path, file://, s3://, gs:// or az://."),
            Error::Constraint { .. } | Error::Closed | Error::Arrow(_) | Error::Parquet(_) | Error::Unsupported { .. } => None,
        }
    }
}
