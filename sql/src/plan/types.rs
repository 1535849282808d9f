//! Postgres's types as Arrow fields.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{ArrayElemTypeDef, ColumnDef, ColumnOption, DataType as SqlType, ExactNumberInfo, TimezoneInfo};

use crate::Error;
use crate::parser::fold;

/// Metadata key that tells types apart that share an Arrow type.
pub(crate) const TYPE_KEY: &str = "freshet.type";

/// NUMERIC without precision.
const NUMERIC: DataType = DataType::Decimal128(38, 10);

/// Plans types in casts and column definitions.
#[derive(Debug)]
pub(crate) struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        field(sql_type).map(Some).map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

fn plain(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("", data_type, true))
}

fn tagged(data_type: DataType, name: &str) -> FieldRef {
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), name.to_owned())]);
    Arc::new(Field::new("", data_type, true).with_metadata(metadata))
}

/// A type as a nameless field.
pub(crate) fn field(sql_type: &SqlType) -> crate::Result<FieldRef> {
    Ok(match sql_type {
        SqlType::Boolean | SqlType::Bool => plain(DataType::Boolean),
        SqlType::SmallInt(_) | SqlType::Int2(_) => plain(DataType::Int16),
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => plain(DataType::Int32),
        SqlType::BigInt(_) | SqlType::Int8(_) | SqlType::Int64 => plain(DataType::Int64),
        SqlType::Real | SqlType::Float4 => plain(DataType::Float32),
        SqlType::Float(ExactNumberInfo::Precision(bits)) if *bits <= 24 => plain(DataType::Float32),
        SqlType::Float(_) | SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float64 => {
            plain(DataType::Float64)
        }
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => plain(numeric(info)?),
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::String(_) => plain(DataType::Utf8),
        SqlType::Timestamp(_, zone) => match zone {
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => {
                plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
            }
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => plain(DataType::Timestamp(TimeUnit::Microsecond, None)),
        },
        SqlType::Date => plain(DataType::Date32),
        SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => plain(DataType::Time64(TimeUnit::Microsecond)),
        SqlType::Interval { .. } => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        SqlType::Bytea => plain(DataType::Binary),
        SqlType::JSON | SqlType::JSONB => tagged(DataType::Utf8, "jsonb"),
        SqlType::Uuid => tagged(DataType::Utf8, "uuid"),
        SqlType::Array(ArrayElemTypeDef::AngleBracket(element))
        | SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _))
        | SqlType::Array(ArrayElemTypeDef::Parenthesis(element)) => {
            let element = field(element)?.as_ref().clone().with_name("item");
            plain(DataType::List(Arc::new(element)))
        }
        SqlType::Custom(name, arguments) => {
            let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
            let name = match parts.as_slice() {
                [name] => name.as_str(),
                [schema, name] if schema == "pg_catalog" => name.as_str(),
                _ => return Err(unknown(sql_type)),
            };
            named(name, arguments).ok_or_else(|| unknown(sql_type))?
        }
        _ => return Err(unknown(sql_type)),
    })
}

/// Types whose names sqlparser does not know, or that are written with their schema.
fn named(name: &str, arguments: &[String]) -> Option<FieldRef> {
    Some(match name {
        "bool" => plain(DataType::Boolean),
        "int2" => plain(DataType::Int16),
        "int4" | "int" | "integer" | "oid" | "xid" | "cid" | "serial" => plain(DataType::Int32),
        "int8" | "bigint" | "bigserial" => plain(DataType::Int64),
        "float4" => plain(DataType::Float32),
        "float8" => plain(DataType::Float64),
        "numeric" => match arguments {
            [] => plain(NUMERIC),
            [precision] => plain(DataType::Decimal128(precision.parse().ok()?, 0)),
            [precision, scale] => plain(DataType::Decimal128(precision.parse().ok()?, scale.parse().ok()?)),
            _ => return None,
        },
        "text" | "varchar" | "bpchar" | "name" | "char" | "citext" => plain(DataType::Utf8),
        "timestamp" => plain(DataType::Timestamp(TimeUnit::Microsecond, None)),
        "timestamptz" => plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        "date" => plain(DataType::Date32),
        "time" => plain(DataType::Time64(TimeUnit::Microsecond)),
        "interval" => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        "bytea" => plain(DataType::Binary),
        "json" | "jsonb" => tagged(DataType::Utf8, "jsonb"),
        "uuid" => tagged(DataType::Utf8, "uuid"),
        _ => return None,
    })
}

fn numeric(info: &ExactNumberInfo) -> crate::Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(NUMERIC),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s >= 0 && s as u8 <= p => Ok(DataType::Decimal128(p, s)),
        _ => Err(Error::new("22023", format!("NUMERIC({precision}, {scale}) is out of range"))
            .hint("The precision is 1 to 38 and the scale 0 to the precision.")),
    }
}

fn unknown(sql_type: &SqlType) -> Error {
    let name = sql_type.to_string().to_lowercase();
    let known = [
        "text",
        "integer",
        "bigint",
        "smallint",
        "boolean",
        "real",
        "numeric",
        "timestamp",
        "timestamptz",
        "date",
        "interval",
        "jsonb",
        "uuid",
        "bytea",
    ];
    let error = Error::new("42704", format!("type \"{name}\" does not exist"));
    match crate::parser::nearest(&name, known) {
        Some(near) => error.hint(format!("Perhaps you meant {near}.")),
        None => error,
    }
}

/// A declared column: name, type, nullability.
pub(crate) fn column(column: &ColumnDef) -> crate::Result<Field> {
    let position = column.name.span.start.column as usize;
    let field = field(&column.data_type).map_err(|error| if position > 0 { error.at(position) } else { error })?;
    let required =
        column.options.iter().any(|option| matches!(option.option, ColumnOption::NotNull | ColumnOption::PrimaryKey(_)));
    Ok(field.as_ref().clone().with_name(fold(&column.name)).with_nullable(!required))
}

/// Postgres's name of a type, for messages.
pub(crate) fn name(field: &Field) -> String {
    if let Some(tag) = field.metadata().get(TYPE_KEY) {
        return tag.clone();
    }
    of_data_type(field.data_type())
}

/// Postgres's name of an Arrow type.
pub(crate) fn of_data_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric".to_owned(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".to_owned(),
        DataType::Timestamp(_, None) => "timestamp without time zone".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::List(element) | DataType::LargeList(element) => format!("{}[]", of_data_type(element.data_type())),
        DataType::Null => "unknown".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
