//! How SQL's own spellings of calls (`EXTRACT(… FROM …)`, `SUBSTRING(… FROM …)`) reach this package's functions.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, GetFieldAccess, ScalarUDF, lit};

/// Plans special call syntax with Postgres's functions; it has to stand before DataFusion's planners.
#[derive(Debug)]
pub(crate) struct SpecialCalls {
    functions: HashMap<String, Arc<ScalarUDF>>,
}

impl SpecialCalls {
    pub(crate) fn new(functions: &[Arc<ScalarUDF>]) -> Self {
        let wanted = ["extract", "strpos", "substring", "overlay", "regexp_match_group"];
        let functions = functions.iter().filter(|function| wanted.contains(&function.name()));
        SpecialCalls { functions: functions.map(|function| (function.name().to_owned(), function.clone())).collect() }
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> PlannerResult<Vec<Expr>> {
        match self.functions.get(name) {
            Some(function) => PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), args))),
            None => PlannerResult::Original(args),
        }
    }
}

impl ExprPlanner for SpecialCalls {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(self.call("extract", args))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        // The text comes first here, as in strpos.
        Ok(self.call("strpos", args))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(self.call("substring", args))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(self.call("overlay", args))
    }

    /// `(regexp_match(text, pattern))[n]` makes no array.
    fn plan_field_access(&self, expr: RawFieldAccessExpr, _schema: &DFSchema) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let (Expr::ScalarFunction(call), GetFieldAccess::ListIndex { key }) = (&expr.expr, &expr.field_access) else {
            return Ok(PlannerResult::Original(expr));
        };
        let (true, Expr::Literal(ScalarValue::Int64(Some(group)), _)) = (call.func.name() == "regexp_match", key.as_ref()) else {
            return Ok(PlannerResult::Original(expr));
        };
        let mut args = call.args.clone();
        args.insert(args.len().min(2), lit(*group));
        Ok(match self.call("regexp_match_group", args) {
            PlannerResult::Planned(planned) => PlannerResult::Planned(planned),
            PlannerResult::Original(_) => PlannerResult::Original(expr),
        })
    }
}
