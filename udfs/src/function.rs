//! How a function is declared: its Postgres signature as text, its documentation, its body over columns.
//!
//! One [`Definition`] is one overload. All overloads of a name become one DataFusion function, which chooses
//! among them as Postgres does: exact types first, then the cheapest implicit casts.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, DurationMicrosecondArray, Float64Array, Int64Array, IntervalMonthDayNanoArray,
    ListArray, PrimitiveArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::time::interval::Interval;

/// Metadata key of a field whose Postgres type Arrow has no word for.
pub const TYPE_KEY: &str = "freshet.type";
pub const JSONB: &str = "jsonb";

/// One overload of one function.
pub(crate) struct Definition {
    /// The name; aliases follow, separated by `|`.
    pub(crate) names: &'static str,
    /// Parameter types separated by `, `: a trailing `?` makes one optional, `...` repeats the last one.
    pub(crate) parameters: &'static str,
    pub(crate) returns: &'static str,
    pub(crate) doc: &'static str,
    body: Body,
    returning: Option<Returning>,
}

type Body = fn(&Args) -> Result<ArrayRef>;
type Returning = fn(&ReturnFieldArgs) -> Result<DataType>;

impl Definition {
    pub(crate) const fn new(
        names: &'static str,
        parameters: &'static str,
        returns: &'static str,
        doc: &'static str,
        body: Body,
    ) -> Self {
        Definition { names, parameters, returns, doc, body, returning: None }
    }

    /// For results whose type depends on the arguments, such as the scale of a numeric.
    pub(crate) const fn returning(mut self, returning: Returning) -> Self {
        self.returning = Some(returning);
        self
    }
}

/// A parameter type, as Postgres names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Json,
    Bytes,
    Boolean,
    Integer,
    Float,
    Numeric,
    Timestamp,
    Timestamptz,
    Date,
    Interval,
    TextArray,
    AnyArray,
    Any,
}

/// A cast that may happen only to a literal or an untyped parameter; dearer than every real implicit cast.
const FROM_TEXT: u32 = 100;

impl Kind {
    fn named(name: &str) -> Kind {
        match name {
            "text" => Kind::Text,
            "jsonb" => Kind::Json,
            "bytea" => Kind::Bytes,
            "boolean" => Kind::Boolean,
            "int" | "bigint" => Kind::Integer,
            "double precision" => Kind::Float,
            "numeric" => Kind::Numeric,
            "timestamp" => Kind::Timestamp,
            "timestamptz" => Kind::Timestamptz,
            "date" => Kind::Date,
            "interval" => Kind::Interval,
            "text[]" => Kind::TextArray,
            "anyarray" => Kind::AnyArray,
            "any" => Kind::Any,
            other => unreachable!("a signature names the unknown type {other}; the catalogue test builds them all"),
        }
    }

    /// The type the argument is cast to before the body sees it, and what that cast costs.
    fn accepts(self, from: &DataType) -> Option<(DataType, u32)> {
        use DataType::*;
        let micros = |zone: Option<Arc<str>>| Timestamp(TimeUnit::Microsecond, zone);
        Some(match (self, from) {
            (Kind::Any, Utf8View | LargeUtf8 | Null) => (Utf8, 1),
            (Kind::Any, Timestamp(_, zone)) => (micros(zone.clone()), 50),
            (Kind::Any, Duration(_)) => (Duration(TimeUnit::Microsecond), 50),
            (Kind::Any, other) => (other.clone(), 50),
            (Kind::Text | Kind::Json, Utf8 | Null) => (Utf8, 0),
            (Kind::Text | Kind::Json, Utf8View | LargeUtf8) => (Utf8, 1),
            (Kind::Bytes, Binary | Null) => (Binary, 0),
            (Kind::Bytes, BinaryView | LargeBinary | FixedSizeBinary(_)) => (Binary, 1),
            (Kind::Boolean, Boolean | Null) => (Boolean, 0),
            (Kind::Integer, Int64 | Null) => (Int64, 0),
            (Kind::Integer, Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32) => (Int64, 0),
            (Kind::Integer, UInt64) => (Int64, 1),
            (Kind::Float, Float64) => (Float64, 0),
            (Kind::Float, Float32 | Null) => (Float64, 1),
            (Kind::Float, from) if from.is_integer() => (Float64, 2),
            (Kind::Float, Decimal128(..)) => (Float64, 4),
            (Kind::Numeric, Decimal128(precision, scale)) => (Decimal128(*precision, *scale), 0),
            (Kind::Numeric, Null) => (Decimal128(38, 0), 2),
            (Kind::Numeric, from) if from.is_integer() => (Decimal128(20, 0), 3),
            (Kind::Timestamp, Timestamp(_, None) | Null) => (micros(None), 0),
            (Kind::Timestamp, Date32 | Date64) => (micros(None), 1),
            (Kind::Timestamptz, Timestamp(_, Some(zone))) => (micros(Some(zone.clone())), 0),
            (Kind::Timestamptz, Timestamp(_, None) | Date32 | Date64) => (micros(Some("UTC".into())), 2),
            (Kind::Timestamptz, Null) => (micros(Some("UTC".into())), 1),
            (Kind::Date, Date32 | Null) => (Date32, 0),
            // Differences of timestamps are durations to DataFusion, intervals to Postgres.
            (Kind::Interval, Duration(_)) => (Duration(TimeUnit::Microsecond), 0),
            (Kind::Interval, Interval(_) | Null) => (Interval(IntervalUnit::MonthDayNano), 0),
            (Kind::Interval | Kind::Timestamp | Kind::Timestamptz | Kind::Date, Utf8 | Utf8View | LargeUtf8) => {
                let to = match self {
                    Kind::Interval => Interval(IntervalUnit::MonthDayNano),
                    Kind::Timestamp => micros(None),
                    Kind::Timestamptz => micros(Some("UTC".into())),
                    _ => Date32,
                };
                (to, FROM_TEXT)
            }
            (Kind::TextArray, List(item)) if *item.data_type() == Utf8 => (from.clone(), 0),
            (Kind::TextArray, List(_) | LargeList(_) | FixedSizeList(..) | Null) => (text_list(), 1),
            (Kind::AnyArray, List(_)) => (from.clone(), 0),
            (Kind::AnyArray, LargeList(item) | FixedSizeList(item, _)) => (List(item.clone()), 1),
            (Kind::AnyArray, Null) => (text_list(), 1),
            _ => return None,
        })
    }
}

pub(crate) fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// An overload with its signature taken apart.
struct Overload {
    parameters: Vec<Kind>,
    required: usize,
    variadic: bool,
    result: Option<DataType>,
    is_json: bool,
    definition: &'static Definition,
}

impl Overload {
    fn new(definition: &'static Definition) -> Self {
        let mut overload = Overload {
            parameters: Vec::new(),
            required: 0,
            variadic: false,
            result: result_type(definition.returns),
            is_json: definition.returns == JSONB,
            definition,
        };
        for parameter in definition.parameters.split(", ").filter(|p| !p.is_empty()) {
            let (name, optional, variadic) = match (parameter.strip_suffix('?'), parameter.strip_suffix("...")) {
                (Some(name), _) => (name, true, false),
                (_, Some(name)) => (name, true, true),
                _ => (parameter, false, false),
            };
            overload.parameters.push(Kind::named(name));
            overload.required += usize::from(!optional);
            overload.variadic |= variadic;
        }
        overload
    }

    /// The casts of a call with these argument types and what they cost together, or `None` where it does not fit.
    fn fit(&self, arguments: &[DataType]) -> Option<(Vec<DataType>, u32)> {
        if arguments.len() < self.required || (arguments.len() > self.parameters.len() && !self.variadic) {
            return None;
        }
        let mut cost = 0;
        let mut types = Vec::with_capacity(arguments.len());
        for (position, argument) in arguments.iter().enumerate() {
            let kind = self.parameters.get(position).or(self.parameters.last())?;
            let (to, step) = kind.accepts(argument)?;
            types.push(to);
            cost += step;
        }
        Some((types, cost))
    }
}

/// The Arrow type of a result that does not depend on the arguments.
fn result_type(name: &str) -> Option<DataType> {
    use DataType::*;
    Some(match name {
        "text" | "jsonb" => Utf8,
        "text[]" => text_list(),
        "jsonb[]" => List(Arc::new(json_field(Field::new_list_field(Utf8, true)))),
        "bytea" => Binary,
        "boolean" => Boolean,
        "int" => Int32,
        "bigint" => Int64,
        "double precision" => Float64,
        "timestamp" => Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "date" => Date32,
        "interval" => Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// All overloads of one name.
struct Function {
    name: &'static str,
    overloads: Vec<Overload>,
    signature: Signature,
}

impl Function {
    fn choose(&self, arguments: &[DataType]) -> Option<(&Overload, Vec<DataType>)> {
        let fits = self.overloads.iter().filter_map(|o| o.fit(arguments).map(|(types, cost)| (o, types, cost)));
        fits.min_by_key(|(_, _, cost)| *cost).map(|(overload, types, _)| (overload, types))
    }

    fn overload(&self, fields: &[FieldRef]) -> Result<&Overload> {
        let types: Vec<_> = fields.iter().map(|field| field.data_type().clone()).collect();
        self.choose(&types).map(|(overload, _)| overload).ok_or_else(|| self.no_such_call(&types))
    }

    fn no_such_call(&self, types: &[DataType]) -> datafusion::error::DataFusionError {
        let wanted: Vec<String> = self.overloads.iter().map(|o| format!("{}({})", self.name, o.definition.parameters)).collect();
        let given: Vec<String> = types.iter().map(ToString::to_string).collect();
        plan_datafusion_err!("function {}({}) does not exist; there is {}", self.name, given.join(", "), wanted.join(", "))
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.choose(arguments).map(|(_, types)| types).ok_or_else(|| self.no_such_call(arguments))
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let fields: Vec<_> = arguments.iter().map(|t| Arc::new(Field::new("argument", t.clone(), true))).collect();
        let scalars = vec![None; fields.len()];
        let field = self.return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars })?;
        Ok(field.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let overload = self.overload(args.arg_fields)?;
        let data_type = match (overload.definition.returning, &overload.result) {
            (Some(returning), _) => returning(&args)?,
            (None, Some(data_type)) => data_type.clone(),
            (None, None) => return Err(exec_datafusion_err!("{} has no result type", self.name)),
        };
        let field = Field::new(self.name, data_type, true);
        Ok(Arc::new(if overload.is_json { json_field(field) } else { field }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let overload = self.overload(&args.arg_fields)?;
        let args = Args::new(args)?;
        let result = (overload.definition.body)(&args)?;
        debug_assert_eq!(result.data_type(), args.return_field.data_type(), "{}", self.name);
        Ok(if args.all_constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}

/// The field with the metadata that makes its text JSONB.
pub(crate) fn json_field(field: Field) -> Field {
    field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), JSONB.to_owned())]))
}

/// One DataFusion function per name, aliases too; definitions of the same name become its overloads.
pub(crate) fn functions(definitions: impl Iterator<Item = &'static Definition>) -> Vec<Arc<ScalarUDF>> {
    let mut by_name: BTreeMap<&'static str, Function> = BTreeMap::new();
    for definition in definitions {
        for name in definition.names.split('|') {
            let function = by_name.entry(name).or_insert_with(|| Function {
                name,
                overloads: Vec::new(),
                signature: Signature::user_defined(Volatility::Immutable),
            });
            function.overloads.push(Overload::new(definition));
        }
    }
    by_name.into_values().map(|function| Arc::new(ScalarUDF::new_from_impl(function))).collect()
}

/// The arguments of one call: columns, or constants that are kept as columns of one row.
pub(crate) struct Args {
    columns: Vec<ArrayRef>,
    constant: Vec<bool>,
    all_constant: bool,
    rows: usize,
    pub(crate) fields: Vec<FieldRef>,
    pub(crate) return_field: FieldRef,
    pub(crate) config: Arc<ConfigOptions>,
}

impl Args {
    fn new(args: ScalarFunctionArgs) -> Result<Self> {
        let mut columns = Vec::with_capacity(args.args.len());
        let mut constant = Vec::with_capacity(args.args.len());
        for arg in args.args {
            constant.push(matches!(arg, ColumnarValue::Scalar(_)));
            columns.push(match arg {
                ColumnarValue::Array(array) => array,
                ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1)?,
            });
        }
        let all_constant = constant.iter().all(|&c| c);
        Ok(Args {
            columns,
            all_constant,
            constant,
            rows: if all_constant { 1 } else { args.number_rows },
            fields: args.arg_fields,
            return_field: args.return_field,
            config: args.config_options,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    /// How many rows the body has to make.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_constant(&self, position: usize) -> bool {
        self.constant[position]
    }

    pub(crate) fn array(&self, position: usize) -> &ArrayRef {
        &self.columns[position]
    }

    /// The argument as a column of `rows()` rows.
    pub(crate) fn full_array(&self, position: usize) -> Result<ArrayRef> {
        if self.constant[position] && self.rows != 1 {
            return ScalarValue::try_from_array(&self.columns[position], 0)?.to_array_of_size(self.rows);
        }
        Ok(self.columns[position].clone())
    }

    fn column<A: Array + 'static>(&self, position: usize) -> Result<Column<'_, A>> {
        let array = &self.columns[position];
        let array = array
            .as_any()
            .downcast_ref::<A>()
            .ok_or_else(|| exec_datafusion_err!("argument {} has type {}", position + 1, array.data_type()))?;
        Ok(Column { array, mask: if self.constant[position] { 0 } else { usize::MAX } })
    }

    pub(crate) fn text(&self, position: usize) -> Result<Column<'_, StringArray>> {
        self.column(position)
    }

    pub(crate) fn bytes(&self, position: usize) -> Result<Column<'_, BinaryArray>> {
        self.column(position)
    }

    pub(crate) fn int(&self, position: usize) -> Result<Column<'_, Int64Array>> {
        self.column(position)
    }

    pub(crate) fn float(&self, position: usize) -> Result<Column<'_, Float64Array>> {
        self.column(position)
    }

    pub(crate) fn numeric(&self, position: usize) -> Result<Column<'_, Decimal128Array>> {
        self.column(position)
    }

    /// Digits behind the point of a numeric argument.
    pub(crate) fn scale(&self, position: usize) -> i8 {
        match self.columns[position].data_type() {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        }
    }

    pub(crate) fn timestamp(&self, position: usize) -> Result<Column<'_, TimestampMicrosecondArray>> {
        self.column(position)
    }

    pub(crate) fn list(&self, position: usize) -> Result<Column<'_, ListArray>> {
        self.column(position)
    }

    pub(crate) fn interval(&self, position: usize) -> Result<Intervals<'_>> {
        Ok(match self.columns[position].data_type() {
            DataType::Duration(_) => Intervals::Difference(self.column(position)?),
            _ => Intervals::Calendar(self.column(position)?),
        })
    }

    /// An optional argument's constant text; it must not vary from row to row.
    pub(crate) fn constant_text(&self, position: usize) -> Result<Option<&str>> {
        if position >= self.len() {
            return Ok(None);
        }
        let column = self.text(position)?;
        Ok(if column.array.is_empty() { None } else { column.get(0) })
    }
}

/// An argument seen row by row; a constant answers the same for each.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a, A> {
    pub(crate) array: &'a A,
    mask: usize,
}

impl<'a> Column<'a, StringArray> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        let row = row & self.mask;
        if self.array.is_null(row) { None } else { Some(self.array.value(row)) }
    }
}

impl<'a> Column<'a, BinaryArray> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&'a [u8]> {
        let row = row & self.mask;
        if self.array.is_null(row) { None } else { Some(self.array.value(row)) }
    }
}

impl Column<'_, ListArray> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<ArrayRef> {
        let row = row & self.mask;
        if self.array.is_null(row) { None } else { Some(self.array.value(row)) }
    }
}

impl<T: ArrowPrimitiveType> Column<'_, PrimitiveArray<T>> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        let row = row & self.mask;
        if self.array.is_null(row) { None } else { Some(self.array.value(row)) }
    }
}

/// Interval arguments: Postgres intervals, or differences of timestamps.
pub(crate) enum Intervals<'a> {
    Calendar(Column<'a, IntervalMonthDayNanoArray>),
    Difference(Column<'a, DurationMicrosecondArray>),
}

impl Intervals<'_> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<Interval> {
        match self {
            Intervals::Calendar(column) => column.get(row).map(Interval::from_arrow),
            Intervals::Difference(column) => column.get(row).map(Interval::from_difference),
        }
    }
}
