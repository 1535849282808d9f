//! What DataFusion reports, in Postgres's words.

use datafusion::common::{Column, Diagnostic, SchemaError};
use datafusion::error::DataFusionError;

use crate::{Error, parser};

/// Translates whatever DataFusion reports into a code and Postgres's words.
pub fn translate(error: DataFusionError) -> Error {
    let mut position = None;
    let error = translate_at(error, &mut position);
    match (error.position, position) {
        (None, Some(position)) => error.at(position),
        _ => error,
    }
}

fn place(diagnostic: &Diagnostic) -> Option<usize> {
    diagnostic.span.map(|span| span.start.column as usize).filter(|column| *column > 0)
}

fn translate_at(error: DataFusionError, position: &mut Option<usize>) -> Error {
    match error {
        DataFusionError::Diagnostic(diagnostic, error) => {
            let translated = translate_at(*error, position);
            *position = position.or_else(|| place(&diagnostic));
            translated
        }
        DataFusionError::Context(_, error) => translate_at(*error, position),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(error) => translate_at(error, position),
            None => Error::new("XX000", "unknown error"),
        },
        DataFusionError::Shared(error) => match std::sync::Arc::try_unwrap(error) {
            Ok(error) => translate_at(error, position),
            Err(shared) => of_shared(&shared),
        },
        DataFusionError::External(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => match error.downcast::<engine::Error>() {
                Ok(error) => of_engine(*error),
                Err(error) => match error.downcast::<catalog::Error>() {
                    Ok(error) => Error::new(error.sqlstate(), error.to_string()),
                    Err(error) => match error.downcast::<DataFusionError>() {
                        Ok(error) => translate_at(*error, position),
                        Err(error) => of_text(&error.to_string(), "XX000"),
                    },
                },
            },
        },
        DataFusionError::SchemaError(error, _) => schema_error(*error, position),
        DataFusionError::ArrowError(error, _) => match *error {
            arrow::error::ArrowError::ExternalError(error) => match error.downcast::<DataFusionError>() {
                Ok(error) => translate_at(*error, position),
                Err(error) => translate_at(DataFusionError::External(error), position),
            },
            arrow::error::ArrowError::DivideByZero => Error::new("22012", "division by zero"),
            arrow::error::ArrowError::ArithmeticOverflow(text) => Error::new("22003", "value out of range").detail(text),
            other => of_text(&strip(&other.to_string()), "XX000"),
        },
        DataFusionError::ResourcesExhausted(text) => Error::new("53200", "out of memory")
            .detail(text)
            .hint("Raise memory_limit or work_memory, or let the query read or keep less."),
        DataFusionError::SQL(error, _) => Error::new("42601", error.to_string()),
        DataFusionError::Plan(text) => of_text(&text, "42601"),
        DataFusionError::NotImplemented(text) => match of_text(&text, "0A000") {
            error if error.sqlstate == "0A000" => Error::new("0A000", format!("not supported: {}", error.message)),
            error => error,
        },
        DataFusionError::Execution(text) | DataFusionError::Internal(text) | DataFusionError::Configuration(text) => {
            of_text(&text, "XX000")
        }
        DataFusionError::IoError(error) => Error::new("58030", error.to_string()),
        DataFusionError::ObjectStore(error) => Error::new("58030", error.to_string()),
        other => of_text(&other.to_string(), "XX000"),
    }
}

fn of_shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::Context(_, error) | DataFusionError::Diagnostic(_, error) => of_shared(error),
        DataFusionError::Shared(error) => of_shared(error),
        DataFusionError::External(error) => match error.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => of_text(&error.to_string(), "XX000"),
        },
        DataFusionError::ResourcesExhausted(text) => Error::new("53200", "out of memory").detail(text.clone()),
        other => of_text(&strip(&other.to_string()), "XX000"),
    }
}

/// An error of the engine, with its hint.
pub(crate) fn of_engine(error: engine::Error) -> Error {
    let translated = Error::new(error.sqlstate(), error.to_string());
    match error.hint() {
        Some(hint) => translated.hint(hint),
        None => translated,
    }
}

fn schema_error(error: SchemaError, position: &mut Option<usize>) -> Error {
    let span = |column: &Column| column.spans.first().map(|span| span.start.column as usize).filter(|column| *column > 0);
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            *position = position.or_else(|| span(&field));
            let name = match &field.relation {
                Some(relation) => format!("{}.{}", relation.table(), field.name),
                None => format!("\"{}\"", field.name),
            };
            // A qualifier that no column has is a relation that is not in the query.
            if let Some(relation) = &field.relation
                && !valid_fields.is_empty()
                && !valid_fields.iter().any(|valid| valid.relation.as_ref().is_some_and(|r| r.table() == relation.table()))
            {
                return Error::new("42P01", format!("missing FROM-clause entry for table \"{}\"", relation.table()));
            }
            let error = Error::new("42703", format!("column {name} does not exist"));
            let known = valid_fields.iter().map(|valid| valid.name.split(super::rewrite::COPY).next().unwrap_or_default());
            match parser::nearest(&field.name, known) {
                Some(near) => error.hint(format!("Perhaps you meant to reference the column \"{near}\".")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            *position = position.or_else(|| span(&field));
            Error::new("42702", format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new("42701", format!("column \"{name}\" specified more than once"))
        }
    }
}

/// Without DataFusion's prefixes.
fn strip(text: &str) -> String {
    let mut text = text.split("\n\nbacktrace:").next().unwrap_or(text).trim();
    for prefix in [
        "Arrow error: ",
        "External error: ",
        "Execution error: ",
        "Error during planning: ",
        "Schema error: ",
        "Internal error: ",
        "Cast error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Parser error: ",
        "Arithmetic overflow: ",
        "type_coercion",
        "caused by",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text).trim_start();
    }
    text.trim_end_matches('.')
        .split("This issue was likely caused by a bug")
        .next()
        .unwrap_or(text)
        .trim()
        .trim_end_matches('.')
        .to_owned()
}

/// The text between the first two of these quotes after `start`.
fn quoted(text: &str, start: &str, quote: char) -> Option<String> {
    let rest = &text[text.find(start)? + start.len()..];
    let rest = &rest[rest.find(quote)? + quote.len_utf8()..];
    Some(rest[..rest.find(quote)?].to_owned())
}

/// `Cannot cast string 'x' to value of Int64 type`, in Postgres's words.
fn bad_value(text: &str) -> Option<Error> {
    let rest = &text[text.find("Cannot cast string '")? + "Cannot cast string '".len()..];
    let (value, rest) = rest.rsplit_once("' to value of ")?;
    let data_type = rest.split_whitespace().next()?;
    let name = match data_type.split('(').next()? {
        "Boolean" => "boolean",
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Decimal128" => "numeric",
        "Date32" => "date",
        "Time64" => "time",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        _ => return None,
    };
    let digits = value.trim().trim_start_matches(['-', '+']);
    if data_type.starts_with("Int") && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Error::new("22003", format!("value \"{value}\" is out of range for type {name}")));
    }
    let code = if matches!(name, "date" | "time" | "timestamp" | "interval") { "22007" } else { "22P02" };
    Some(Error::new(code, format!("invalid input syntax for type {name}: \"{value}\"")))
}

/// A text that has a code in Postgres; `otherwise` for any other.
fn of_text(text: &str, otherwise: &'static str) -> Error {
    let text = strip(text);
    let lower = text.to_lowercase();
    let has = |part: &str| lower.contains(part);
    if has("divide by zero") || has("division by zero") {
        return Error::new("22012", "division by zero");
    }
    if has("invalid function") {
        let name = quoted(&text, "", '\'').unwrap_or_default().to_lowercase();
        // The types of the arguments are not known here.
        return Error::new("42883", format!("function {name}(…) does not exist"))
            .hint("No function matches the given name. REFERENCE.md lists all functions.");
    }
    if has("table function") && has("not found") {
        let name = quoted(&text, "", '\'').unwrap_or_default();
        return Error::new("42883", format!("function {name} does not exist"));
    }
    if has("no function matches the given name")
        || has("failed to coerce arguments")
        || has("does not support zero arguments")
        || has("candidate functions")
    {
        let call = quoted(&text, "name and argument types", '\'').or_else(|| quoted(&text, "", '\''));
        let call = call.map_or_else(|| "with these argument types".to_owned(), |call| call.to_lowercase());
        return Error::new("42883", format!("function {call} does not exist"))
            .hint("No function matches the given name and argument types. You might need to add explicit type casts.");
    }
    if has("cannot coerce arithmetic expression") || has("cannot infer common argument type") || has("unsupported operand") {
        return Error::new("42883", "operator does not exist for these types")
            .detail(text)
            .hint("No operator matches the given name and argument types. You might need to add explicit type casts.");
    }
    if has("must be in the group by clause")
        || has("could not be resolved from available columns")
        || has("must appear in the group by")
    {
        let column = quoted(&text, "", '"').map(|column| column.trim_matches('"').to_owned());
        let column = column.map_or_else(|| "a column".to_owned(), |column| format!("column \"{column}\""));
        return Error::new("42803", format!("{column} must appear in the GROUP BY clause or be used in an aggregate function"));
    }
    if has("cannot cast string") || has("error parsing timestamp") || has("error parsing") || has("invalid input syntax") {
        if let Some(error) = bad_value(&text) {
            return error;
        }
        let value = quoted(&text, "string", '\'').or_else(|| quoted(&text, "from", '\'')).unwrap_or_default();
        let code = if has("timestamp") || has("date") { "22007" } else { "22P02" };
        return Error::new(code, if value.is_empty() { text } else { format!("invalid input syntax: \"{value}\"") });
    }
    if text.ends_with(" out of range") {
        return Error::new("22003", text);
    }
    if has("overflow") || has("can't cast value") || has("too large to store") || has("out of range") {
        return Error::new("22003", "value out of range").detail(text);
    }
    if has("cannot be used to filter")
        || has("expected boolean")
        || has("filter predicate")
        || has("unsupported cast")
        || has("cannot cast")
        || has("types are not compatible")
    {
        return Error::new("42804", text);
    }
    if has("column count doesn't match insert") {
        return Error::new("42601", "INSERT has a different number of columns and expressions");
    }
    if has("projections require unique expression names") {
        return Error::new("42701", "a column name is used twice").hint("Give the columns different names with AS.").detail(text);
    }
    if has("placeholder") {
        return Error::new("42P18", "could not determine data type of a parameter").detail(text);
    }
    Error::new(otherwise, text)
}
