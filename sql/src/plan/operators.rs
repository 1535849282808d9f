//! JSON operators as calls of functions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use sqlparser::ast::BinaryOperator;

/// Plans `-> ->> #> #>> @> <@ ?` on JSON.
#[derive(Debug)]
pub(crate) struct JsonOperators {
    functions: Vec<Arc<ScalarUDF>>,
}

impl JsonOperators {
    /// Operators over those of `functions` that they need.
    pub(crate) fn new(functions: &[Arc<ScalarUDF>]) -> Self {
        JsonOperators { functions: functions.iter().filter(|f| f.name().starts_with("json")).cloned().collect() }
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> Option<Expr> {
        let function = self.functions.iter().find(|function| function.name() == name)?;
        Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args)))
    }

    /// `a -> 'b' -> 'c'` is one walk along a path when the keys are constant and cannot be positions in an array.
    fn path(&self, left: &Expr, right: &Expr, name: &str) -> Option<Expr> {
        let last = key(right)?;
        let Expr::ScalarFunction(inner) = left else { return None };
        let (base, mut keys) = match (inner.func.name(), inner.args.as_slice()) {
            ("json_get", [base, first]) => (base, vec![key(first)?]),
            ("json_get_path", [base, Expr::Literal(ScalarValue::List(list), _)]) => {
                let keys =
                    list.values().as_any().downcast_ref::<arrow::array::StringArray>()?.iter().map(|key| key.map(str::to_owned));
                (base, keys.collect::<Option<Vec<_>>>()?)
            }
            _ => return None,
        };
        keys.push(last);
        let keys: Vec<ScalarValue> = keys.into_iter().map(ScalarValue::from).collect();
        let list = Expr::Literal(ScalarValue::List(ScalarValue::new_list_nullable(&keys, &DataType::Utf8)), None);
        self.call(name, vec![base.clone(), list])
    }
}

/// A constant key that names a field and nothing else.
fn key(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) if text.parse::<i64>().is_err() => {
            Some(text.clone())
        }
        _ => None,
    }
}

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = &expr;
        let both = || vec![left.clone(), right.clone()];
        let planned = match op {
            BinaryOperator::Arrow => self.path(left, right, "json_get_path").or_else(|| self.call("json_get", both())),
            BinaryOperator::LongArrow => {
                self.path(left, right, "json_get_path_text").or_else(|| self.call("json_get_text", both()))
            }
            BinaryOperator::HashArrow => self.call("json_get_path", both()),
            BinaryOperator::HashLongArrow => self.call("json_get_path_text", both()),
            BinaryOperator::AtArrow | BinaryOperator::ArrowAt => {
                // On arrays it stays what DataFusion makes of it.
                let array =
                    matches!(left.get_type(schema), Ok(DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)));
                let (container, part) = if *op == BinaryOperator::AtArrow { (left, right) } else { (right, left) };
                if array { None } else { self.call("jsonb_contains", vec![container.clone(), part.clone()]) }
            }
            BinaryOperator::Question => self.call("jsonb_exists", both()),
            BinaryOperator::QuestionPipe => self.call("jsonb_exists_any", both()),
            BinaryOperator::QuestionAnd => self.call("jsonb_exists_all", both()),
            _ => None,
        };
        Ok(match planned {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }
}
