//! JSON: texts whose field says `jsonb`, walked as they are.
//!
//! The text is kept as it came (Postgres would reorder keys and drop duplicates), so equality is equality of texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use serde_json::Value;

use crate::error::Error;
use crate::function::{Args, Definition, JSONB, TYPE_KEY, json_field};
use crate::text::show::Shown;
use path::Path;
use scan::Step;

mod path;
pub(crate) mod scan;

pub(crate) const FUNCTIONS: &[Definition] = &[
    Definition::new("json_get", "jsonb, text", "jsonb", "`json -> 'key'`: a member of an object.", get_json),
    Definition::new(
        "json_get",
        "jsonb, int",
        "jsonb",
        "`json -> n`: an item of an array, from the end where negative.",
        get_json,
    ),
    Definition::new("json_get_text", "jsonb, text", "text", "`json ->> 'key'`: a member of an object as text.", get_text),
    Definition::new("json_get_text", "jsonb, int", "text", "`json ->> n`: an item of an array as text.", get_text),
    Definition::new("json_get_path", "jsonb, text[]", "jsonb", "`json #> '{a,b}'`: the value at a path.", get_path_json),
    Definition::new(
        "json_get_path_text",
        "jsonb, text[]",
        "text",
        "`json #>> '{a,b}'`: the value at a path as text.",
        get_path_text,
    ),
    Definition::new("json_get_path", "jsonb, text", "jsonb", "The same, the path given as an array literal.", get_path_json),
    Definition::new("json_get_path_text", "jsonb, text", "text", "The same, the path given as an array literal.", get_path_text),
    Definition::new("json_path", "jsonb, any...", "jsonb", "`json -> k1 -> k2 …` in one walk.", get_json),
    Definition::new("json_path_text", "jsonb, any...", "text", "`json -> k1 -> … ->> k` in one walk.", get_text),
    Definition::new("jsonb_extract_path|json_extract_path", "jsonb, text...", "jsonb", "The value at a path.", extract_json),
    Definition::new(
        "jsonb_extract_path_text|json_extract_path_text",
        "jsonb, text...",
        "text",
        "The value at a path as text.",
        extract_text,
    ),
    Definition::new(
        "jsonb_contains",
        "jsonb, jsonb",
        "boolean",
        "`json @> part`: whether the second value is contained in the first.",
        contains,
    ),
    Definition::new(
        "jsonb_exists",
        "jsonb, text",
        "boolean",
        "`json ? 'key'`: whether it is a member, or a text among the items.",
        exists,
    ),
    Definition::new("jsonb_exists_any", "jsonb, text[]", "boolean", "`json ?| keys`: whether any of them exists.", exists_any),
    Definition::new("jsonb_exists_all", "jsonb, text[]", "boolean", "`json ?& keys`: whether all of them exist.", exists_all),
    Definition::new("jsonb_typeof|json_typeof", "jsonb", "text", "object, array, string, number, boolean or null.", type_of),
    Definition::new("jsonb_array_length|json_array_length", "jsonb", "int", "The number of items.", array_length),
    Definition::new(
        "jsonb_text_array",
        "jsonb",
        "text[]",
        "The items of an array as texts; NULL for what is no array.",
        text_array,
    ),
    Definition::new("jsonb_array_elements_list", "jsonb", "jsonb[]", "The items of an array, for unnest.", elements),
    Definition::new(
        "jsonb_array_elements_text_list",
        "jsonb",
        "text[]",
        "The items of an array as texts, for unnest.",
        elements_text,
    ),
    Definition::new("jsonb_object_keys_list", "jsonb", "text[]", "The keys of an object, for unnest.", object_keys),
    Definition::new(
        "jsonb_path_query_array",
        "jsonb, text",
        "jsonb",
        "All values a JSON path finds, as an array.",
        path_query_array,
    ),
    Definition::new("jsonb_path_query_first", "jsonb, text", "jsonb", "The first value a JSON path finds.", path_query_first),
    Definition::new(
        "jsonb_path_query_list",
        "jsonb, text",
        "jsonb[]",
        "All values a JSON path finds, for unnest.",
        path_query_list,
    ),
    Definition::new("jsonb_path_exists", "jsonb, text", "boolean", "Whether a JSON path finds anything.", path_exists),
    Definition::new(
        "jsonb_build_object|json_build_object",
        "any...",
        "jsonb",
        "An object of keys and values in turn.",
        build_object,
    ),
    Definition::new("jsonb_build_array|json_build_array", "any...", "jsonb", "An array of the values.", build_array),
    Definition::new("to_jsonb|to_json", "any", "jsonb", "Any value as JSON.", to_json),
    Definition::new("jsonb", "text", "jsonb", "Text as JSON, checked: `text::jsonb`.", checked),
];

/// What texts among the arguments behind the value mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keys {
    /// The key of a member.
    Members,
    /// The key of a member or the number of an item.
    Elements,
    /// An array literal of such: `{a,0,b}`.
    Literal,
}

/// Keys and indexes behind the value: the same for all rows if they are constants.
struct Steps<'a> {
    args: &'a Args,
    constant: Option<Option<Vec<Step>>>,
    row: Vec<Step>,
}

impl<'a> Steps<'a> {
    fn new(args: &'a Args, keys: Keys) -> Result<Self> {
        let constant = (1..args.len()).all(|at| args.is_constant(at));
        let mut steps = Steps { args, constant: None, row: Vec::new() };
        if constant {
            let known = steps.read(0, keys)?;
            steps.constant = Some(known.then(|| std::mem::take(&mut steps.row)));
        }
        Ok(steps)
    }

    /// Reads the steps of a row; false where one is NULL.
    fn read(&mut self, row: usize, keys: Keys) -> Result<bool> {
        self.row.clear();
        for at in 1..self.args.len() {
            let step = match self.args.array(at).data_type() {
                DataType::List(_) => {
                    let Some(keys) = self.args.list(at)?.get(row) else { return Ok(false) };
                    let items = arrow::array::AsArray::as_string::<i32>(&keys).clone();
                    for key in items.iter() {
                        let Some(key) = key else { return Ok(false) };
                        self.row.push(Step::of_path(key));
                    }
                    continue;
                }
                DataType::Utf8 => match (self.args.text(at)?.get(row), keys) {
                    (Some(key), Keys::Members) => Some(Step::Key(key.to_owned())),
                    (Some(key), Keys::Elements) => Some(Step::of_path(key)),
                    (Some(literal), Keys::Literal) => {
                        self.row.extend(literal_items(literal)?.iter().map(|key| Step::of_path(key)));
                        continue;
                    }
                    (None, _) => None,
                },
                DataType::Int64 => self.args.int(at)?.get(row).map(Step::Index),
                other => return Err(Error::new("42883", format!("a JSON key is a text or an integer, not {other}")).into()),
            };
            match step {
                Some(step) => self.row.push(step),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn get(&mut self, row: usize, keys: Keys) -> Result<Option<&[Step]>> {
        if self.constant.is_some() {
            return Ok(self.constant.as_ref().and_then(Option::as_deref));
        }
        Ok(if self.read(row, keys)? { Some(&self.row) } else { None })
    }
}

/// The items of an array literal without nesting: `{a,"b c",0}`.
fn literal_items(literal: &str) -> Result<Vec<String>, Error> {
    let bad = || Error::new("22P02", format!("malformed array literal: \"{literal}\""));
    let inner = literal.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(bad)?;
    let mut items = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let mut item = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        let mut quoted = false;
        let mut was_quoted = false;
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => (quoted, was_quoted) = (!quoted, true),
                '\\' => item.extend(chars.next().map(|(_, escaped)| escaped)),
                ',' if !quoted => {
                    end = at;
                    break;
                }
                other => item.push(other),
            }
        }
        if quoted {
            return Err(bad());
        }
        items.push(if was_quoted { item } else { item.trim().to_owned() });
        if end == rest.len() {
            break;
        }
        rest = rest[end + 1..].trim_start();
        if rest.is_empty() {
            return Err(bad());
        }
    }
    Ok(items)
}

/// Walks into each row's value and writes what is found there.
fn walk(args: &Args, keys: Keys, as_text: bool) -> Result<ArrayRef> {
    let column = args.text(0)?;
    let mut steps = Steps::new(args, keys)?;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 24);
    for row in 0..args.rows() {
        let found = match (column.get(row), steps.get(row, keys)?) {
            (Some(text), Some(steps)) => scan::walk(text, steps),
            _ => None,
        };
        match found {
            Some(value) if as_text => builder.append_option(scan::as_text(value)),
            found => builder.append_option(found),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn get_json(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Members, false)
}

fn get_text(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Members, true)
}

fn get_path_json(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Literal, false)
}

fn get_path_text(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Literal, true)
}

fn extract_json(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Elements, false)
}

fn extract_text(args: &Args) -> Result<ArrayRef> {
    walk(args, Keys::Elements, true)
}

/// A parsed value, parsed again only where the text changes.
#[derive(Default)]
struct Parsed<'a>(Option<(&'a str, Option<Value>)>);

impl<'a> Parsed<'a> {
    fn get(&mut self, text: &'a str) -> Option<&Value> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != text) {
            self.0 = Some((text, serde_json::from_str(text).ok()));
        }
        self.0.as_ref().and_then(|(_, value)| value.as_ref())
    }
}

fn contains(args: &Args) -> Result<ArrayRef> {
    let (wholes, parts) = (args.text(0)?, args.text(1)?);
    let (mut whole, mut part) = (Parsed::default(), Parsed::default());
    let of_row = |row| Some(value_contains(whole.get(wholes.get(row)?)?, part.get(parts.get(row)?)?, true));
    Ok(Arc::new((0..args.rows()).map(of_row).collect::<BooleanArray>()))
}

/// Postgres's containment: members and items may be missing in the part, and an array contains a bare item of it.
fn value_contains(whole: &Value, part: &Value, top: bool) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| value_contains(whole, part, false)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| value_contains(whole, part, false)))
        }
        (Value::Array(whole), part) if top && !part.is_object() => whole.iter().any(|item| value_contains(item, part, false)),
        (Value::Number(whole), Value::Number(part)) => whole == part || whole.as_f64() == part.as_f64(),
        (whole, part) => whole == part,
    }
}

fn has_key(text: &str, key: &str) -> bool {
    let Some(value) = scan::root(text) else { return false };
    let is_key = |item: &str| item.starts_with('"') && scan::as_text(item).is_some_and(|text| text == key);
    match scan::items(value) {
        Some(mut items) => items.any(is_key),
        None => scan::member(value, key).is_some() || is_key(value),
    }
}

fn exists(args: &Args) -> Result<ArrayRef> {
    let (column, keys) = (args.text(0)?, args.text(1)?);
    Ok(Arc::new((0..args.rows()).map(|row| Some(has_key(column.get(row)?, keys.get(row)?))).collect::<BooleanArray>()))
}

fn exists_any(args: &Args) -> Result<ArrayRef> {
    exists_among(args, false)
}

fn exists_all(args: &Args) -> Result<ArrayRef> {
    exists_among(args, true)
}

fn exists_among(args: &Args, all: bool) -> Result<ArrayRef> {
    let (column, lists) = (args.text(0)?, args.list(1)?);
    let of_row = |row| {
        let (text, keys) = (column.get(row)?, lists.get(row)?);
        let keys = arrow::array::AsArray::as_string::<i32>(&keys);
        let mut found = keys.iter().flatten().map(|key| has_key(text, key));
        Some(if all { found.all(|found| found) } else { found.any(|found| found) })
    };
    Ok(Arc::new((0..args.rows()).map(of_row).collect::<BooleanArray>()))
}

fn type_of(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    let of_row = |row| {
        Some(match scan::root(column.get(row)?)?.as_bytes().first()? {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "boolean",
            b'n' => "null",
            _ => "number",
        })
    };
    Ok(Arc::new((0..args.rows()).map(of_row).collect::<arrow::array::StringArray>()))
}

fn array_length(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match column.get(row).and_then(scan::root) {
            None => None,
            Some(value) => {
                let items = scan::items(value).ok_or_else(|| Error::invalid("cannot get array length of a non-array"))?;
                Some(items.count() as i32)
            }
        });
    }
    Ok(Arc::new(Int32Array::from(result)))
}

/// A list per row.
fn lists<'a>(
    args: &Args,
    json: bool,
    mut fill: impl FnMut(usize, &mut StringBuilder) -> Result<Option<()>> + 'a,
) -> Result<ArrayRef> {
    let item = Field::new_list_field(DataType::Utf8, true);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(Arc::new(if json { json_field(item) } else { item }));
    for row in 0..args.rows() {
        let present = fill(row, builder.values())?.is_some();
        builder.append(present);
    }
    Ok(Arc::new(builder.finish()))
}

fn text_array(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    lists(args, false, |row, values| {
        let Some(items) = column.get(row).and_then(scan::root).and_then(scan::items) else { return Ok(None) };
        items.for_each(|item| values.append_option(scan::as_text(item)));
        Ok(Some(()))
    })
}

fn elements(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    lists(args, true, |row, values| each_element(column.get(row), |item| values.append_value(item)))
}

fn elements_text(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    lists(args, false, |row, values| each_element(column.get(row), |item| values.append_option(scan::as_text(item))))
}

fn each_element(text: Option<&str>, append: impl FnMut(&str)) -> Result<Option<()>> {
    let Some(value) = text.and_then(scan::root) else { return Ok(None) };
    let items = scan::items(value).ok_or_else(|| Error::invalid("cannot extract elements from a non-array"))?;
    items.for_each(append);
    Ok(Some(()))
}

fn object_keys(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    lists(args, false, |row, values| {
        let Some(value) = column.get(row).and_then(scan::root) else { return Ok(None) };
        let members = scan::members(value).ok_or_else(|| Error::invalid("cannot call jsonb_object_keys on a non-object"))?;
        members.for_each(|(key, _, _)| values.append_option(scan::unescape(key)));
        Ok(Some(()))
    })
}

/// Calls `use_found` with what the path finds in each row.
fn each_path<'a>(args: &'a Args, mut use_found: impl FnMut(Option<Vec<&'a str>>)) -> Result<()> {
    let (column, paths) = (args.text(0)?, args.text(1)?);
    let mut cache: Option<(&str, Path)> = None;
    for row in 0..args.rows() {
        let (Some(text), Some(path)) = (column.get(row), paths.get(row)) else {
            use_found(None);
            continue;
        };
        let path = match &mut cache {
            Some((known, parsed)) if *known == path => &*parsed,
            slot => &slot.insert((path, Path::parse(path)?)).1,
        };
        use_found(Some(path.find(text)));
    }
    Ok(())
}

fn path_query_array(args: &Args) -> Result<ArrayRef> {
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    each_path(args, |found| match found {
        None => builder.append_null(),
        Some(values) => {
            buffer.clear();
            buffer.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    buffer.push_str(", ");
                }
                buffer.push_str(value);
            }
            buffer.push(']');
            builder.append_value(&buffer);
        }
    })?;
    Ok(Arc::new(builder.finish()))
}

fn path_query_first(args: &Args) -> Result<ArrayRef> {
    let mut builder = StringBuilder::new();
    each_path(args, |found| builder.append_option(found.and_then(|values| values.first().copied())))?;
    Ok(Arc::new(builder.finish()))
}

fn path_query_list(args: &Args) -> Result<ArrayRef> {
    let mut found_rows = Vec::with_capacity(args.rows());
    each_path(args, |found| found_rows.push(found))?;
    lists(args, true, |row, values| {
        let Some(found) = &found_rows[row] else { return Ok(None) };
        found.iter().for_each(|value| values.append_value(value));
        Ok(Some(()))
    })
}

fn path_exists(args: &Args) -> Result<ArrayRef> {
    let mut result = Vec::with_capacity(args.rows());
    each_path(args, |found| result.push(found.map(|values| !values.is_empty())))?;
    Ok(Arc::new(BooleanArray::from(result)))
}

/// An argument ready to be written as JSON.
struct Written<'a> {
    shown: Shown<'a>,
    array: &'a ArrayRef,
    form: Form,
    constant: bool,
}

/// How a value becomes JSON.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Bare,
    Boolean,
    /// Dates and times are strings with a `T` between.
    Time,
    Text,
}

impl Form {
    fn of(field: &Field) -> Form {
        match field.data_type() {
            DataType::Utf8 if field.metadata().get(TYPE_KEY).is_some_and(|name| name == JSONB) => Form::Json,
            DataType::Boolean => Form::Boolean,
            DataType::Timestamp(..) => Form::Time,
            numeric if numeric.is_numeric() => Form::Bare,
            _ => Form::Text,
        }
    }
}

impl<'a> Written<'a> {
    fn argument(args: &'a Args, at: usize) -> Result<Self> {
        let array = args.array(at);
        Ok(Written { shown: Shown::new(array)?, array, form: Form::of(&args.fields[at]), constant: args.is_constant(at) })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        let row = if self.constant { 0 } else { row };
        if self.array.is_null(row) || *self.array.data_type() == DataType::Null {
            out.push_str("null");
            return Ok(());
        }
        if let DataType::List(item) = self.array.data_type() {
            let items = arrow::array::AsArray::as_list::<i32>(self.array).value(row);
            let written = Written { shown: Shown::new(&items)?, array: &items, form: Form::of(item), constant: false };
            out.push('[');
            for item in 0..items.len() {
                if item > 0 {
                    out.push_str(", ");
                }
                written.write(item, out)?;
            }
            out.push(']');
            return Ok(());
        }
        if let Form::Json = self.form {
            return self.shown.write(row, out);
        }
        let mut text = String::new();
        self.shown.write(row, &mut text)?;
        match self.form {
            Form::Boolean => out.push_str(if text == "t" { "true" } else { "false" }),
            // Infinities and NaN are no JSON numbers.
            Form::Bare if !text.ends_with(|c: char| c.is_ascii_alphabetic()) => out.push_str(&text),
            Form::Time => {
                let zone = if text.contains('+') { ":00" } else { "" };
                scan::quote(&(text.replacen(' ', "T", 1) + zone), out);
            }
            _ => scan::quote(&text, out),
        }
        Ok(())
    }
}

/// Writes one JSON text per row.
fn build(args: &Args, write: impl Fn(&[Written], usize, &mut String) -> Result<()>) -> Result<ArrayRef> {
    let arguments = (0..args.len()).map(|at| Written::argument(args, at)).collect::<Result<Vec<_>>>()?;
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..args.rows() {
        buffer.clear();
        write(&arguments, row, &mut buffer)?;
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

fn build_object(args: &Args) -> Result<ArrayRef> {
    if args.len() % 2 == 1 {
        return Err(Error::invalid("argument list must have even number of elements")
            .with_hint("The arguments of jsonb_build_object() must consist of alternating keys and values.")
            .into());
    }
    build(args, |arguments, row, out| {
        out.push('{');
        for (index, pair) in arguments.chunks(2).enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            let key_row = if pair[0].constant { 0 } else { row };
            if pair[0].array.is_null(key_row) || *pair[0].array.data_type() == DataType::Null {
                return Err(Error::invalid(format!("argument {}: key must not be null", index * 2 + 1)).into());
            }
            let mut key = String::new();
            pair[0].shown.write(key_row, &mut key)?;
            scan::quote(&key, out);
            out.push_str(": ");
            pair[1].write(row, out)?;
        }
        out.push('}');
        Ok(())
    })
}

fn build_array(args: &Args) -> Result<ArrayRef> {
    build(args, |arguments, row, out| {
        out.push('[');
        for (index, argument) in arguments.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            argument.write(row, out)?;
        }
        out.push(']');
        Ok(())
    })
}

fn to_json(args: &Args) -> Result<ArrayRef> {
    let argument = Written::argument(args, 0)?;
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..args.rows() {
        if argument.array.is_null(row) {
            builder.append_null();
            continue;
        }
        buffer.clear();
        argument.write(row, &mut buffer)?;
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

/// Text that is JSON, or an error.
fn checked(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    for row in 0..args.rows() {
        let Some(text) = column.get(row) else { continue };
        if serde_json::from_str::<Value>(text).is_err() {
            return Err(Error::invalid_text("json", text).into());
        }
    }
    args.full_array(0)
}
