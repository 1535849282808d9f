//! Errors of the server: what stops it, and what a statement may meet below the language.

/// The result of server calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with starting and running a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration or the command line is wrong: exit code 2.
    #[error("{message}")]
    Config {
        /// What is wrong, where.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// A port, a file or a runtime could not be had.
    #[error("could not {action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The catalog refused.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A statement was refused.
    #[error(transparent)]
    Sql(#[from] sql::Error),
}

impl Error {
    /// A configuration error without a hint.
    pub fn config(message: impl Into<String>) -> Self {
        Error::Config { message: message.into(), hint: None }
    }

    /// The five-letter code a client gets.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::Config { .. } => "22023",
            Error::Io { .. } => "58030",
            Error::Catalog(error) => error.sqlstate(),
            Error::Engine(error) => error.sqlstate(),
            Error::Sql(error) => error.sqlstate,
        }
    }

    /// As a client is told it.
    pub fn into_sql(self) -> sql::Error {
        match self {
            Error::Sql(error) => error,
            Error::Catalog(error) => from_catalog(error),
            Error::Engine(error) => from_engine(error),
            Error::Config { .. } | Error::Io { .. } => {
                let translated = sql::Error::new(self.sqlstate(), chain(&self));
                match self.hint() {
                    Some(hint) => translated.hint(hint),
                    None => translated,
                }
            }
        }
    }

    /// A sentence with more.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::Sql(error) => error.detail.clone(),
            Error::Config { .. } | Error::Io { .. } | Error::Catalog(_) | Error::Engine(_) => None,
        }
    }

    /// A sentence that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config { hint, .. } => hint.clone(),
            Error::Engine(error) => error.hint().map(str::to_owned),
            Error::Sql(error) => error.hint.clone(),
            Error::Catalog(catalog::Error::InUse { .. }) => {
                Some("Stop the other server, or give this one another --data directory.".to_owned())
            }
            Error::Catalog(catalog::Error::FormatVersion { .. }) => {
                Some("Use the Freshet version that wrote it, or a newer one.".to_owned())
            }
            Error::Io { .. } | Error::Catalog(_) => None,
        }
    }
}

/// Follows an error to its cause: the text a person is told once, at the edge.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// An error of the catalog as a client is told it.
pub(crate) fn from_catalog(error: catalog::Error) -> sql::Error {
    let translated = sql::Error::new(error.sqlstate(), chain(&error));
    match error {
        catalog::Error::Conflict { .. } => translated.hint("Run the statement again."),
        _ => translated,
    }
}

/// An error of the engine as a client is told it.
pub(crate) fn from_engine(error: engine::Error) -> sql::Error {
    match error {
        engine::Error::DataFusion(error) => sql::translate(error),
        engine::Error::Catalog(error) => from_catalog(error),
        error => {
            let translated = sql::Error::new(error.sqlstate(), chain(&error));
            match error.hint() {
                Some(hint) => translated.hint(hint),
                None => translated,
            }
        }
    }
}
