//! What a function can say about the values it was given, with Postgres's SQLSTATE.

use datafusion::error::DataFusionError;

/// An error of a function; travels as [`DataFusionError::External`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    sqlstate: &'static str,
    message: String,
    hint: Option<String>,
}

impl Error {
    pub fn sqlstate(&self) -> &'static str {
        self.sqlstate
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Error { sqlstate, message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// 22003: a number, date or interval that its type cannot hold.
    pub(crate) fn out_of_range(what: &str) -> Self {
        Error::new("22003", format!("{what} out of range"))
    }

    /// 22008: a date or time that does not exist or cannot be held.
    pub(crate) fn bad_time(message: impl Into<String>) -> Self {
        Error::new("22008", message)
    }

    pub(crate) fn division_by_zero() -> Self {
        Error::new("22012", "division by zero")
    }

    /// 22023: an argument with a value the function has no meaning for.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new("22023", message)
    }

    /// 22P02: text that is not a value of the wanted type.
    pub(crate) fn invalid_text(kind: &str, text: &str) -> Self {
        Error::new("22P02", format!("invalid input syntax for type {kind}: \"{}\"", excerpt(text)))
    }

    /// 22007: text that is not a date or time of the wanted form.
    pub(crate) fn invalid_datetime(message: impl Into<String>) -> Self {
        Error::new("22007", message)
    }
}

/// Enough of a text to recognise it by: an error about a 5 MB record stays short.
fn excerpt(text: &str) -> &str {
    let end = (0..=text.len().min(120)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..end]
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
