//! Errors of the language, as Postgres would give them.

/// The result of language calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with everything a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Five letters.
    pub sqlstate: &'static str,
    /// Postgres manners: lower case, no full stop, names quoted.
    pub message: String,
    /// A sentence with more.
    pub detail: Option<String>,
    /// A sentence that helps.
    pub hint: Option<String>,
    /// Character, from 1, in the statement's own text.
    pub position: Option<usize>,
}

impl Error {
    /// An error with code and message.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Error { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    /// With a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a position.
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
