//! Functions that clients call about the catalog and the session. They answer from the newest version.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use catalog::{Definition, ObjectKind, ObjectName, Version};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::content::{index_definition, keyed_by, relations, schemas, view_query};
use super::oid;
use super::tables::Cell;
use crate::pgwire::types::{PgType, format_type};
use crate::session::{Backend, SERVER_VERSION, SessionInfo};

/// What functions answer from.
#[derive(Debug)]
struct Context {
    backend: Arc<dyn Backend>,
    session: Arc<SessionInfo>,
}

type Call = fn(&Context, &[ScalarValue]) -> Result<ScalarValue>;

/// Every function, for one session.
pub(crate) fn functions(backend: &Arc<dyn Backend>, session: &Arc<SessionInfo>) -> Vec<Arc<ScalarUDF>> {
    let context = Arc::new(Context { backend: Arc::clone(backend), session: Arc::clone(session) });
    let signature = Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Volatility::Stable);
    let make = |(name, returns, call): (&'static str, DataType, Call)| {
        let (context, signature) = (Arc::clone(&context), signature.clone());
        Arc::new(ScalarUDF::new_from_impl(CatalogFunction { name, returns, call, context, signature }))
    };
    table().into_iter().map(make).collect()
}

fn table() -> Vec<(&'static str, DataType, Call)> {
    use DataType::{Boolean, Int32, Int64, Utf8};
    let texts = || DataType::new_list(Utf8, true);
    let timestamptz = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        ("version", Utf8, |_, _| Ok(text(format!("PostgreSQL {SERVER_VERSION} (Freshet {})", env!("CARGO_PKG_VERSION"))))),
        ("pg_get_userbyid", Utf8, |context, _| Ok(text(context.session.user.as_str()))),
        ("pg_table_is_visible", Boolean, |context, args| Ok(boolean(number(args, 0).map(|oid| context.is_visible(oid))))),
        ("pg_type_is_visible", Boolean, always),
        ("pg_function_is_visible", Boolean, always),
        ("pg_operator_is_visible", Boolean, always),
        ("pg_opclass_is_visible", Boolean, always),
        ("pg_collation_is_visible", Boolean, always),
        ("pg_relation_is_publishable", Boolean, never),
        ("pg_is_in_recovery", Boolean, never),
        ("pg_is_other_temp_schema", Boolean, never),
        ("pg_has_role", Boolean, always),
        ("has_database_privilege", Boolean, always),
        ("has_schema_privilege", Boolean, always),
        ("has_table_privilege", Boolean, always),
        ("has_any_column_privilege", Boolean, always),
        ("has_column_privilege", Boolean, always),
        ("has_function_privilege", Boolean, always),
        ("has_sequence_privilege", Boolean, always),
        ("pg_my_temp_schema", Int64, |_, _| Ok(ScalarValue::Int64(Some(0)))),
        ("pg_get_expr", Utf8, nothing),
        ("pg_get_ruledef", Utf8, nothing),
        ("pg_get_functiondef", Utf8, nothing),
        ("pg_get_function_result", Utf8, nothing),
        ("pg_get_function_arguments", Utf8, nothing),
        ("pg_get_function_identity_arguments", Utf8, nothing),
        ("pg_get_serial_sequence", Utf8, nothing),
        ("pg_get_partkeydef", Utf8, nothing),
        ("pg_get_triggerdef", Utf8, nothing),
        ("pg_get_statisticsobjdef_columns", Utf8, nothing),
        ("pg_tablespace_location", Utf8, nothing),
        ("shobj_description", Utf8, nothing),
        ("col_description", Utf8, nothing),
        ("obj_description", Utf8, |context, args| {
            let version = context.version();
            let comment: Option<String> = number(args, 0).and_then(|oid| by_oid(&version, oid)?.comment.clone());
            Ok(text(comment))
        }),
        ("pg_get_viewdef", Utf8, |context, args| {
            let version = context.version();
            let definition = match args.first() {
                Some(ScalarValue::Utf8(Some(name))) => context.relation(&version, name),
                _ => number(args, 0).and_then(|oid| by_oid(&version, oid)),
            };
            let query = definition.filter(|definition| matches!(definition.kind, ObjectKind::View | ObjectKind::StreamingView));
            Ok(text(query.map(|definition| format!("{};", view_query(definition)))))
        }),
        ("pg_get_indexdef", Utf8, |context, args| {
            let version = context.version();
            let keyed = number(args, 0).and_then(|oid| keyed_by(&version, oid));
            Ok(text(match number(args, 1).and_then(|column| usize::try_from(column).ok()) {
                Some(column) if column > 0 => keyed.and_then(|definition| definition.primary_key.get(column - 1).cloned()),
                _ => keyed.map(|definition| index_definition(definition)),
            }))
        }),
        ("pg_get_constraintdef", Utf8, |context, args| {
            let version = context.version();
            let keyed = number(args, 0).and_then(|oid| keyed_by(&version, oid));
            Ok(text(keyed.map(|definition| format!("PRIMARY KEY ({})", definition.primary_key.join(", ")))))
        }),
        ("format_type", Utf8, |_, args| {
            let modifier = number(args, 1).and_then(|modifier| i32::try_from(modifier).ok()).unwrap_or(-1);
            let name = |oid: i64| match u32::try_from(oid).ok().and_then(PgType::from_oid) {
                Some(kind) => format_type(kind, modifier),
                None if oid == 0 => "-".to_owned(),
                None => "???".to_owned(),
            };
            Ok(text(number(args, 0).map(name)))
        }),
        ("pg_encoding_to_char", Utf8, |_, args| Ok(text(if number(args, 0) == Some(6) { "UTF8" } else { "" }))),
        ("current_schemas", texts(), |context, args| {
            let implicit = matches!(args.first(), Some(ScalarValue::Boolean(Some(true))));
            let own = implicit.then_some("pg_catalog").into_iter();
            let version = context.version();
            let known = schemas(&version);
            let path = context.session.search_path.iter().filter(|schema| known.contains_key(*schema)).map(String::as_str);
            let names: Vec<_> = own.chain(path).map(text).collect();
            Ok(ScalarValue::List(ScalarValue::new_list_nullable(&names, &DataType::Utf8)))
        }),
        ("current_setting", Utf8, |context, args| {
            let Some(name) = string(args, 0) else { return Ok(text(None::<String>)) };
            match context.session.settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                Some((_, value)) => Ok(text(value.as_str())),
                None if matches!(args.get(1), Some(ScalarValue::Boolean(Some(true)))) => Ok(text(None::<String>)),
                None => Err(refused(sql::Error::new("42704", format!("unrecognized configuration parameter \"{name}\"")))),
            }
        }),
        ("to_regclass", Int64, |context, args| {
            let version = context.version();
            Ok(ScalarValue::Int64(
                string(args, 0).and_then(|name| context.relation(&version, &name)).map(|definition| oid(definition.id)),
            ))
        }),
        ("regclass_oid", Int64, |context, args| {
            let version = context.version();
            let Some(name) = string(args, 0) else { return Ok(ScalarValue::Int64(None)) };
            if let Ok(number) = name.parse::<i64>() {
                return Ok(ScalarValue::Int64(Some(number)));
            }
            match context.relation(&version, &name).map(|definition| oid(definition.id)).or_else(|| system_oid(&name)) {
                Some(oid) => Ok(ScalarValue::Int64(Some(oid))),
                None => Err(refused(sql::Error::new("42P01", format!("relation \"{name}\" does not exist")))),
            }
        }),
        ("regclass_name", Utf8, |context, args| {
            let version = context.version();
            Ok(text(number(args, 0).map(|oid| match by_oid(&version, oid) {
                Some(definition) if context.is_visible(oid) => definition.name.name.clone(),
                Some(definition) => definition.name.to_string(),
                None if oid == 0 => "-".to_owned(),
                None => oid.to_string(),
            })))
        }),
        ("regnamespace_name", Utf8, |context, args| {
            let version = context.version();
            let name = |oid: i64| schemas(&version).into_iter().find(|(_, number)| *number == oid).map(|(name, _)| name);
            Ok(text(number(args, 0).map(|oid| name(oid).unwrap_or_else(|| oid.to_string()))))
        }),
        ("to_regtype", Int64, |_, args| {
            Ok(ScalarValue::Int64(string(args, 0).and_then(|name| PgType::from_name(&name)).map(|kind| i64::from(kind.oid()))))
        }),
        ("empty_text_array", texts(), |_, _| Ok(ScalarValue::List(ScalarValue::new_list_nullable(&[], &DataType::Utf8)))),
        ("quote_ident", Utf8, |_, args| {
            let plain = |name: &str| {
                let mut letters = name.bytes();
                letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
                    && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_')
            };
            Ok(text(string(args, 0).map(|name| if plain(&name) { name } else { format!("\"{}\"", name.replace('"', "\"\"")) })))
        }),
        ("pg_table_size", Int64, size),
        ("pg_relation_size", Int64, size),
        ("pg_total_relation_size", Int64, size),
        ("pg_indexes_size", Int64, |_, _| Ok(ScalarValue::Int64(Some(0)))),
        ("pg_database_size", Int64, |context, _| {
            let version = context.version();
            let bytes: u64 = version
                .objects
                .keys()
                .filter_map(|id| version.statistics(*id))
                .map(|numbers| numbers.file_bytes + numbers.memtable_bytes)
                .sum();
            Ok(ScalarValue::Int64(i64::try_from(bytes).ok()))
        }),
        ("pg_size_pretty", Utf8, |_, args| Ok(text(number(args, 0).map(pretty)))),
        ("pg_stat_get_numscans", Int64, |_, _| Ok(ScalarValue::Int64(Some(0)))),
        ("txid_current", Int64, |context, _| Ok(ScalarValue::Int64(i64::try_from(context.version().seq.0).ok()))),
        ("pg_postmaster_start_time", timestamptz(), |_, _| Ok(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())))),
        ("pg_advisory_unlock_all", Utf8, |_, _| Ok(text(""))),
        ("inet_server_port", Int32, |_, _| Ok(ScalarValue::Int32(None))),
        ("inet_server_addr", Utf8, nothing),
        ("inet_client_addr", Utf8, |context, _| Ok(text(context.session.client.rsplit_once(':').map(|(address, _)| address)))),
    ]
}

impl Context {
    fn version(&self) -> Arc<Version> {
        self.backend.catalog().version()
    }

    /// The relation a text names: folded unless quoted, by the search path unless it has a schema.
    fn relation<'a>(&self, version: &'a Version, text: &str) -> Option<&'a Arc<Definition>> {
        let parts = crate::session::identifiers(&text.replace('.', ","));
        let find = |schema: &str, name: &str| version.object(&ObjectName { schema: schema.to_owned(), name: name.to_owned() });
        match parts.as_slice() {
            [name] => self.session.search_path.iter().find_map(|schema| find(schema, name)),
            [schema, name] => find(schema, name),
            _ => None,
        }
    }

    /// Whether a name without a schema finds this relation and no other.
    fn is_visible(&self, oid: i64) -> bool {
        let version = self.version();
        let definition = by_oid(&version, oid).or_else(|| keyed_by(&version, oid));
        let Some(definition) = definition else { return false };
        let named = |schema: &String| version.object(&ObjectName { schema: schema.clone(), name: definition.name.name.clone() });
        self.session.search_path.iter().find_map(named).is_some_and(|found| found.id == definition.id)
    }
}

fn by_oid(version: &Version, number: i64) -> Option<&Arc<Definition>> {
    relations(version).map(|(definition, _)| definition).find(|definition| oid(definition.id) == number)
}

/// Numbers of the catalog's own relations that clients name.
fn system_oid(name: &str) -> Option<i64> {
    let known = [
        ("pg_class", 1_259),
        ("pg_type", 1_247),
        ("pg_proc", 1_255),
        ("pg_attribute", 1_249),
        ("pg_namespace", 2_615),
        ("pg_database", 1_262),
        ("pg_authid", 1_260),
        ("pg_constraint", 2_606),
        ("pg_description", 2_609),
    ];
    let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
    known.into_iter().find(|(known, _)| *known == name).map(|(_, oid)| oid)
}

fn always(_: &Context, _: &[ScalarValue]) -> Result<ScalarValue> {
    Ok(ScalarValue::Boolean(Some(true)))
}

fn never(_: &Context, _: &[ScalarValue]) -> Result<ScalarValue> {
    Ok(ScalarValue::Boolean(Some(false)))
}

/// What is asked about does not exist here.
fn nothing(_: &Context, _: &[ScalarValue]) -> Result<ScalarValue> {
    Ok(ScalarValue::Utf8(None))
}

fn size(context: &Context, args: &[ScalarValue]) -> Result<ScalarValue> {
    let version = context.version();
    let definition = match args.first() {
        Some(ScalarValue::Utf8(Some(name))) => context.relation(&version, name),
        _ => number(args, 0).and_then(|oid| by_oid(&version, oid)),
    };
    let statistics = definition.map(|definition| version.statistics(definition.id).unwrap_or_default());
    Ok(ScalarValue::Int64(statistics.and_then(|numbers| i64::try_from(numbers.file_bytes + numbers.memtable_bytes).ok())))
}

/// As `pg_size_pretty` writes it.
fn pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10 * 1_024 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1_024;
    }
    format!("{size} PB")
}

fn text(value: impl Into<Cell>) -> ScalarValue {
    match value.into() {
        Cell::Text(text) => ScalarValue::Utf8(Some(text)),
        _ => ScalarValue::Utf8(None),
    }
}

fn boolean(value: Option<bool>) -> ScalarValue {
    ScalarValue::Boolean(value)
}

fn number(args: &[ScalarValue], index: usize) -> Option<i64> {
    match args.get(index)?.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(value)) => value,
        _ => None,
    }
}

fn string(args: &[ScalarValue], index: usize) -> Option<String> {
    match args.get(index)?.cast_to(&DataType::Utf8) {
        Ok(ScalarValue::Utf8(value)) => value,
        _ => None,
    }
}

fn refused(error: sql::Error) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}

/// A function of the catalog, computed value by value: catalogs are small.
#[derive(Debug)]
struct CatalogFunction {
    name: &'static str,
    returns: DataType,
    call: Call,
    context: Arc<Context>,
    signature: Signature,
}

impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars: Option<Vec<_>> = args
            .args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Scalar(value) => Some(value.clone()),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        if let Some(scalars) = scalars {
            return Ok(ColumnarValue::Scalar((self.call)(&self.context, &scalars)?));
        }
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns)));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = (0..args.number_rows).map(|row| {
            let values = arrays.iter().map(|array| ScalarValue::try_from_array(array, row)).collect::<Result<Vec<_>>>()?;
            (self.call)(&self.context, &values)
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

/// Types of parameters that are numbers of objects.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgwire::types::Scalar;

    #[test]
    fn sizes_as_postgres_writes_them() {
        let cases = [(0, "0 bytes"), (10_239, "10239 bytes"), (10_240, "10 kB"), (1 << 20, "1024 kB"), (123_456_789, "118 MB")];
        for (bytes, written) in cases {
            assert_eq!(pretty(bytes), written);
        }
    }

    #[test]
    fn types_by_number_and_modifier() {
        let cases = [
            (1_700, 786_439, "numeric(12,3)"),
            (23, -1, "integer"),
            (1_007, -1, "integer[]"),
            (1_184, -1, "timestamp with time zone"),
        ];
        for (number, modifier, name) in cases {
            assert_eq!(PgType::from_oid(number).map(|kind| format_type(kind, modifier)).as_deref(), Some(name));
        }
        assert_eq!(PgType::from_name("timestamptz"), Some(PgType::One(Scalar::Timestamptz)));
    }
}
