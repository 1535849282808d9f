//! Errors of the engine.

/// The result of engine calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with sources, operators and sinks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is unknown, missing or has a wrong value: 22023.
    #[error("{message}")]
    Option {
        /// What is wrong.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The outside world cannot be reached or refuses: retried with backoff.
    #[error("{message}")]
    Unreachable {
        /// What, where.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// What a source is to read is not there: 58P01.
    #[error("{message}")]
    Missing {
        /// What, where.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The source no longer has what a split must go on with.
    #[error("{message}")]
    OffsetLost {
        /// Which split, which offset, what there is.
        message: String,
    },
    /// A query the engine cannot run.
    #[error("{message}")]
    Unsupported {
        /// What.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// An expression failed on a whole batch.
    #[error(transparent)]
    DataFusion(#[from] datafusion::error::DataFusionError),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The catalog refused.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// Waited long enough.
    #[error("{message}")]
    Timeout {
        /// For what.
        message: String,
    },
}

impl Error {
    /// The five-letter code a client gets.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::Option { .. } => "22023",
            Error::Unreachable { .. } => "08001",
            Error::Missing { .. } => "58P01",
            Error::OffsetLost { .. } => "55000",
            Error::Unsupported { .. } => "0A000",
            Error::DataFusion(_) | Error::Arrow(_) => "XX000",
            Error::Catalog(error) => error.sqlstate(),
            Error::Timeout { .. } => "57014",
        }
    }

    /// A sentence that helps.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Option { hint, .. }
            | Error::Unreachable { hint, .. }
            | Error::Missing { hint, .. }
            | Error::Unsupported { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
