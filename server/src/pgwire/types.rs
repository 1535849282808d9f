//! Postgres's types by number, and which of them an Arrow column travels as.

use arrow::datatypes::{DataType, Field};

/// Key of a field's metadata that tells apart types which Arrow stores alike: `jsonb`, `uuid`, `oid`, `name`, ….
pub(crate) const TYPE_KEY: &str = "freshet.type";

/// A type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    Bool,
    Bytea,
    Char,
    Name,
    Int8,
    Int2,
    Int2Vector,
    Int4,
    Regproc,
    Text,
    Oid,
    Xid,
    OidVector,
    Json,
    Float4,
    Float8,
    Bpchar,
    Varchar,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Numeric,
    Regclass,
    Regtype,
    Record,
    Uuid,
    Jsonb,
    Unknown,
    Void,
}

/// What Postgres knows a type by.
#[derive(Debug)]
pub(crate) struct TypeRow {
    pub(crate) scalar: Scalar,
    /// `pg_type.typname`.
    pub(crate) name: &'static str,
    /// As `format_type` writes it.
    pub(crate) sql_name: &'static str,
    pub(crate) oid: u32,
    pub(crate) array_oid: u32,
    /// `pg_type.typlen`.
    pub(crate) size: i16,
    /// `pg_type.typcategory`.
    pub(crate) category: &'static str,
}

const fn row(
    scalar: Scalar,
    name: &'static str,
    sql_name: &'static str,
    oid: u32,
    array_oid: u32,
    size: i16,
    category: &'static str,
) -> TypeRow {
    TypeRow { scalar, name, sql_name, oid, array_oid, size, category }
}

/// Every type we speak, with the numbers of PostgreSQL 15.
pub(crate) const TYPES: &[TypeRow] = &[
    row(Scalar::Bool, "bool", "boolean", 16, 1000, 1, "B"),
    row(Scalar::Bytea, "bytea", "bytea", 17, 1001, -1, "U"),
    row(Scalar::Char, "char", "\"char\"", 18, 1002, 1, "Z"),
    row(Scalar::Name, "name", "name", 19, 1003, 64, "S"),
    row(Scalar::Int8, "int8", "bigint", 20, 1016, 8, "N"),
    row(Scalar::Int2, "int2", "smallint", 21, 1005, 2, "N"),
    row(Scalar::Int2Vector, "int2vector", "int2vector", 22, 1006, -1, "A"),
    row(Scalar::Int4, "int4", "integer", 23, 1007, 4, "N"),
    row(Scalar::Regproc, "regproc", "regproc", 24, 1008, 4, "N"),
    row(Scalar::Text, "text", "text", 25, 1009, -1, "S"),
    row(Scalar::Oid, "oid", "oid", 26, 1028, 4, "N"),
    row(Scalar::Xid, "xid", "xid", 28, 1011, 4, "U"),
    row(Scalar::OidVector, "oidvector", "oidvector", 30, 1013, -1, "A"),
    row(Scalar::Json, "json", "json", 114, 199, -1, "U"),
    row(Scalar::Float4, "float4", "real", 700, 1021, 4, "N"),
    row(Scalar::Float8, "float8", "double precision", 701, 1022, 8, "N"),
    row(Scalar::Unknown, "unknown", "unknown", 705, 0, -2, "X"),
    row(Scalar::Bpchar, "bpchar", "character", 1042, 1014, -1, "S"),
    row(Scalar::Varchar, "varchar", "character varying", 1043, 1015, -1, "S"),
    row(Scalar::Date, "date", "date", 1082, 1182, 4, "D"),
    row(Scalar::Time, "time", "time without time zone", 1083, 1183, 8, "D"),
    row(Scalar::Timestamp, "timestamp", "timestamp without time zone", 1114, 1115, 8, "D"),
    row(Scalar::Timestamptz, "timestamptz", "timestamp with time zone", 1184, 1185, 8, "D"),
    row(Scalar::Interval, "interval", "interval", 1186, 1187, 16, "T"),
    row(Scalar::Numeric, "numeric", "numeric", 1700, 1231, -1, "N"),
    row(Scalar::Regclass, "regclass", "regclass", 2205, 2210, 4, "N"),
    row(Scalar::Regtype, "regtype", "regtype", 2206, 2211, 4, "N"),
    row(Scalar::Record, "record", "record", 2249, 2287, -1, "P"),
    row(Scalar::Void, "void", "void", 2278, 0, 4, "P"),
    row(Scalar::Uuid, "uuid", "uuid", 2950, 2951, 16, "U"),
    row(Scalar::Jsonb, "jsonb", "jsonb", 3802, 3807, -1, "U"),
];

/// A type of a column or a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PgType {
    One(Scalar),
    Array(Scalar),
}

impl Scalar {
    pub(crate) fn row(self) -> &'static TypeRow {
        TYPES.iter().find(|row| row.scalar == self).expect("every scalar has a row in the table")
    }
}

impl PgType {
    pub(crate) const TEXT: PgType = PgType::One(Scalar::Text);

    pub(crate) fn oid(self) -> u32 {
        match self {
            PgType::One(scalar) => scalar.row().oid,
            PgType::Array(scalar) => scalar.row().array_oid,
        }
    }

    /// `typlen`: bytes of a value, −1 when they differ.
    pub(crate) fn size(self) -> i16 {
        match self {
            PgType::One(scalar) => scalar.row().size,
            PgType::Array(_) => -1,
        }
    }

    pub(crate) fn from_oid(oid: u32) -> Option<PgType> {
        TYPES.iter().find_map(|row| {
            if row.oid == oid {
                Some(PgType::One(row.scalar))
            } else if row.array_oid == oid && oid != 0 {
                Some(PgType::Array(row.scalar))
            } else {
                None
            }
        })
    }

    /// The type a name stands for: `pg_type.typname`, what `format_type` writes, or a common other spelling.
    pub(crate) fn from_name(name: &str) -> Option<PgType> {
        let name = name.trim().to_ascii_lowercase();
        let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
        if let Some(element) = name.strip_suffix("[]").or_else(|| name.strip_prefix('_')) {
            return match PgType::from_name(element)? {
                PgType::One(scalar) => Some(PgType::Array(scalar)),
                PgType::Array(_) => None,
            };
        }
        let name = name.split('(').next().unwrap_or_default().trim_end().trim_matches('"');
        let name = match name {
            "int" => "int4",
            "decimal" => "numeric",
            "string" => "text",
            "float" => "float8",
            other => other,
        };
        TYPES.iter().find(|row| row.name == name || row.sql_name == name).map(|row| PgType::One(row.scalar))
    }

    /// What a column travels as.
    pub(crate) fn of(field: &Field) -> PgType {
        let named = field.metadata().get(TYPE_KEY).and_then(|name| PgType::from_name(name));
        match (field.data_type(), named) {
            (DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _), named) => {
                match named {
                    Some(PgType::One(vector @ (Scalar::Int2Vector | Scalar::OidVector))) => PgType::One(vector),
                    Some(PgType::One(scalar) | PgType::Array(scalar)) => PgType::Array(scalar),
                    None => match PgType::of(element) {
                        PgType::One(scalar) => PgType::Array(scalar),
                        // A list of lists has no fixed shape, which Postgres's arrays need: it travels as text.
                        PgType::Array(_) => PgType::TEXT,
                    },
                }
            }
            (_, Some(named)) => named,
            (data_type, None) => PgType::One(scalar_of(data_type)),
        }
    }

    /// How values of the type are held in memory.
    pub(crate) fn arrow(self) -> DataType {
        match self {
            PgType::Array(scalar) => DataType::new_list(PgType::One(scalar).arrow(), true),
            PgType::One(scalar) => match scalar {
                Scalar::Bool => DataType::Boolean,
                Scalar::Bytea => DataType::Binary,
                Scalar::Int2 => DataType::Int16,
                Scalar::Int4 => DataType::Int32,
                Scalar::Int8 | Scalar::Oid | Scalar::Xid | Scalar::Regproc | Scalar::Regclass | Scalar::Regtype => {
                    DataType::Int64
                }
                Scalar::Float4 => DataType::Float32,
                Scalar::Float8 => DataType::Float64,
                Scalar::Date => DataType::Date32,
                Scalar::Time => DataType::Time64(arrow::datatypes::TimeUnit::Microsecond),
                Scalar::Timestamp => DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                Scalar::Timestamptz => DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())),
                Scalar::Interval => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
                Scalar::Numeric => DataType::Decimal128(38, 10),
                Scalar::Int2Vector => DataType::new_list(DataType::Int16, true),
                Scalar::OidVector => DataType::new_list(DataType::Int64, true),
                Scalar::Void => DataType::Null,
                Scalar::Char
                | Scalar::Name
                | Scalar::Text
                | Scalar::Json
                | Scalar::Bpchar
                | Scalar::Varchar
                | Scalar::Record
                | Scalar::Uuid
                | Scalar::Jsonb
                | Scalar::Unknown => DataType::Utf8,
            },
        }
    }

    /// As `format_type` writes it.
    pub(crate) fn sql_name(self) -> String {
        match self {
            PgType::One(scalar) => scalar.row().sql_name.to_owned(),
            PgType::Array(scalar) => format!("{}[]", scalar.row().sql_name),
        }
    }

    /// As `pg_type.typname` has it.
    pub(crate) fn name(self) -> String {
        match self {
            PgType::One(scalar) => scalar.row().name.to_owned(),
            PgType::Array(scalar) => format!("_{}", scalar.row().name),
        }
    }
}

/// `pg_attribute.atttypmod`: precision and scale of a NUMERIC, −1 for everything else.
pub(crate) fn type_modifier(field: &Field) -> i32 {
    match field.data_type() {
        // What NUMERIC without precision is stored as.
        DataType::Decimal128(38, 10) => -1,
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        _ => -1,
    }
}

/// As `format_type(type, modifier)` writes it.
pub(crate) fn format_type(data_type: PgType, modifier: i32) -> String {
    match (data_type, modifier) {
        (PgType::One(Scalar::Numeric), modifier) if modifier >= 4 => {
            format!("numeric({},{})", (modifier - 4) >> 16, (modifier - 4) & 0x7ff)
        }
        (PgType::One(scalar @ (Scalar::Varchar | Scalar::Bpchar)), modifier) if modifier >= 4 => {
            format!("{}({})", scalar.row().sql_name, modifier - 4)
        }
        (data_type, _) => data_type.sql_name(),
    }
}

fn scalar_of(data_type: &DataType) -> Scalar {
    match data_type {
        DataType::Boolean => Scalar::Bool,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Scalar::Int2,
        DataType::UInt16 | DataType::Int32 => Scalar::Int4,
        DataType::UInt32 | DataType::Int64 => Scalar::Int8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Scalar::Numeric,
        DataType::Float16 | DataType::Float32 => Scalar::Float4,
        DataType::Float64 => Scalar::Float8,
        DataType::Date32 | DataType::Date64 => Scalar::Date,
        DataType::Time32(_) | DataType::Time64(_) => Scalar::Time,
        DataType::Timestamp(_, None) => Scalar::Timestamp,
        DataType::Timestamp(_, Some(_)) => Scalar::Timestamptz,
        DataType::Interval(_) | DataType::Duration(_) => Scalar::Interval,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Scalar::Bytea,
        DataType::Struct(_) => Scalar::Record,
        DataType::Dictionary(_, value) => scalar_of(value),
        DataType::RunEndEncoded(_, value) => scalar_of(value.data_type()),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Map(..)
        | DataType::Union(..) => Scalar::Text,
    }
}
