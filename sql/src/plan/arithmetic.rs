//! Arithmetic with Postgres's limits: whole numbers that do not fit are errors, and a quotient of numerics has enough digits.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, FieldRef, i256};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum;
use sqlparser::ast::BinaryOperator;

use super::types;

/// Digits behind the point that a quotient has at least, as in Postgres.
const QUOTIENT_SCALE: i8 = 16;
/// Digits that it has when its whole part surely leaves room for them: what Postgres gives a quotient below one.
const QUOTIENT_SCALE_SMALL: i8 = 20;
/// Whole digits up to which a dividend counts as small.
const SMALL_DIGITS: i8 = 20;

// ---- whole numbers ----

/// Lets `+`, `-` and `*` of whole numbers fail where DataFusion's wrap around. Runs after types are settled.
#[derive(Debug)]
pub(crate) struct CheckOverflow;

impl AnalyzerRule for CheckOverflow {
    fn name(&self) -> &str {
        "check_overflow"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let plan = plan.map_expressions(|expr| expr.transform_up(|expr| Ok(checked(expr, &schema))))?;
            if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
        });
        Ok(checked?.data)
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Transformed::no(expr) };
    let operation = match op {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        _ => return Transformed::no(expr),
    };
    match (left.get_type(schema), right.get_type(schema)) {
        (Ok(left_type @ (DataType::Int16 | DataType::Int32 | DataType::Int64)), Ok(right_type)) if left_type == right_type => {
            let args = vec![left.as_ref().clone(), right.as_ref().clone()];
            Transformed::yes(operation.call(args))
        }
        _ => Transformed::no(expr),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    /// Of numerics.
    Divide,
}

impl Operation {
    fn operator(self) -> Operator {
        match self {
            Operation::Add => Operator::Plus,
            Operation::Subtract => Operator::Minus,
            Operation::Multiply => Operator::Multiply,
            Operation::Divide => Operator::Divide,
        }
    }

    fn call(self, args: Vec<Expr>) -> Expr {
        let signature = match self {
            Operation::Divide => Signature::user_defined(Volatility::Immutable),
            _ => Signature::any(2, Volatility::Immutable),
        };
        let function = ScalarUDF::new_from_impl(Arithmetic { operation: self, signature });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args))
    }
}

/// An operator as a function. Columns that come from it are called as if it were the operator.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operation: Operation,
    signature: Signature,
}

impl Arithmetic {
    fn binary(&self, args: &[Expr]) -> Result<Expr> {
        let [left, right] = args else { return plan_err!("{} needs two arguments", self.name()) };
        Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), self.operation.operator(), Box::new(right.clone()))))
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Divide => "numeric_div",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.binary(args)?.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        types.iter().map(|data_type| as_numeric(data_type).map_or_else(|| plan_err!("{data_type} is no numeric"), Ok)).collect()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.operation, types) {
            (Operation::Divide, [left, right]) => quotient(left, right),
            (_, [left, _]) => Ok(left.clone()),
            _ => plan_err!("{} needs two arguments", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("{} needs two arguments", self.name()) };
        let kernel = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
            Operation::Divide => return divide(left, right, args.number_rows),
        };
        datum::apply(left, right, kernel).map_err(|error| match error.find_root() {
            datafusion::error::DataFusionError::ArrowError(cause, _)
                if matches!(cause.as_ref(), ArrowError::ArithmeticOverflow(_)) =>
            {
                exec_datafusion_err!("{} out of range", types::of_data_type(&left.data_type()))
            }
            _ => error,
        })
    }
}

// ---- quotients ----

/// Plans `/` with a numeric on one side and a numeric or whole number on the other.
pub(crate) struct NumericDivision;

impl fmt::Debug for NumericDivision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NumericDivision")
    }
}

impl ExprPlanner for NumericDivision {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let numeric = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
        let planned = match (&expr.op, expr.left.get_type(schema), expr.right.get_type(schema)) {
            (BinaryOperator::Divide, Ok(left), Ok(right)) => {
                (numeric(&left) || numeric(&right)) && as_numeric(&left).is_some() && as_numeric(&right).is_some()
            }
            _ => false,
        };
        Ok(match planned {
            true => PlannerResult::Planned(Operation::Divide.call(vec![expr.left, expr.right])),
            false => PlannerResult::Original(expr),
        })
    }
}

/// The numeric type that holds every value of a type.
fn as_numeric(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Decimal128(..) => Some(data_type.clone()),
        DataType::Int8 | DataType::Int16 => Some(DataType::Decimal128(5, 0)),
        DataType::Int32 => Some(DataType::Decimal128(10, 0)),
        DataType::Int64 => Some(DataType::Decimal128(19, 0)),
        _ => None,
    }
}

/// Postgres chooses the digits of each quotient by its size; a column has one scale, so it is chosen by the types.
fn quotient(left: &DataType, right: &DataType) -> Result<DataType> {
    let (DataType::Decimal128(precision, left_scale), DataType::Decimal128(_, right_scale)) = (left, right) else {
        return plan_err!("{left} / {right} is no quotient of numerics");
    };
    let whole_digits = *precision as i8 - left_scale + right_scale;
    let least = if whole_digits <= SMALL_DIGITS { QUOTIENT_SCALE_SMALL } else { QUOTIENT_SCALE };
    Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, least.max(*left_scale).max(*right_scale)))
}

fn divide(left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ColumnarValue> {
    let result = quotient(&left.data_type(), &right.data_type())?;
    let (DataType::Decimal128(_, left_scale), DataType::Decimal128(_, right_scale), DataType::Decimal128(precision, scale)) =
        (left.data_type(), right.data_type(), &result)
    else {
        return exec_err!("numeric_div of other types than numeric");
    };
    let constant = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { rows };
    let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let shift = 10_i128.checked_pow(u32::from((scale - left_scale + right_scale).unsigned_abs()));
    let Some(shift) = shift.map(i256::from_i128) else { return exec_err!("numeric out of range") };
    let values: Decimal128Array = left
        .iter()
        .zip(right)
        .map(|pair| match pair {
            (Some(left), Some(right)) => divided(left, right, shift, *precision).map(Some),
            _ => Ok(None),
        })
        .collect::<Result<_>>()?;
    let values: Arc<dyn Array> = Arc::new(values.with_data_type(result));
    if constant {
        return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&values, 0)?));
    }
    Ok(ColumnarValue::Array(values))
}

/// `left * shift / right`, rounded half away from zero.
fn divided(left: i128, right: i128, shift: i256, precision: u8) -> Result<i128> {
    if right == 0 {
        return Err(ArrowError::DivideByZero.into());
    }
    let outside = || exec_datafusion_err!("numeric out of range");
    let dividend = i256::from_i128(left).checked_mul(shift).ok_or_else(outside)?;
    let divisor = i256::from_i128(right);
    let (whole, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    let round_up = rest.wrapping_abs() >= divisor.wrapping_abs().wrapping_sub(rest.wrapping_abs());
    let away = if (left < 0) == (right < 0) { i256::ONE } else { i256::MINUS_ONE };
    let value = if round_up { whole.wrapping_add(away) } else { whole };
    let value = value.to_i128().ok_or_else(outside)?;
    if Decimal128Type::is_valid_decimal_precision(value, precision) { Ok(value) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        for (left, right, shift, expected) in [
            (110, 400, 10_i128.pow(20), Some(27_500_000_000_000_000_000)),
            (1, 3, 1000, Some(333)),
            (2, 3, 1000, Some(667)),
            (-2, 3, 1000, Some(-667)),
            (2, -3, 1000, Some(-667)),
            (1, 2, 1, Some(1)),
            (-1, 2, 1, Some(-1)),
            (1, 4, 1, Some(0)),
            (0, 7, 10, Some(0)),
            (10_i128.pow(37), 1, 100, None),
            (1, 0, 1, None),
        ] {
            let found = divided(left, right, i256::from_i128(shift), DECIMAL128_MAX_PRECISION).ok();
            assert_eq!(found, expected, "{left} * {shift} / {right}");
        }
    }

    #[test]
    fn the_scale_of_a_quotient_leaves_room_for_its_whole_part() {
        for ((left, left_scale), (right, right_scale), expected) in [
            ((10, 2), (19, 0), 20),
            ((19, 0), (2, 1), 20),
            ((38, 10), (10, 0), 16),
            ((38, 30), (38, 2), 30),
            ((38, 2), (38, 24), 24),
        ] {
            let found = quotient(&DataType::Decimal128(left, left_scale), &DataType::Decimal128(right, right_scale));
            let found = found.expect("a quotient");
            assert_eq!(found, DataType::Decimal128(38, expected), "({left}, {left_scale}) / ({right}, {right_scale})");
        }
    }
}
