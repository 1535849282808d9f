//! Functions: Postgres's text, time, number and JSON functions over Arrow columns; models later.
//!
//! Does not know: streams, SQL text.

use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

use function::Definition;

pub use error::Error;
pub use function::{JSONB, TYPE_KEY};

mod aggregate;
mod error;
mod function;
mod json;
mod number;
mod planner;
mod text;
mod time;

/// One overload of one function, as documents and `freshet.functions` show it.
#[derive(Debug, Clone, Copy)]
pub struct FunctionDoc {
    pub name: &'static str,
    /// The parameter types: `?` behind one makes it optional, `...` repeats it.
    pub signature: &'static str,
    pub returns: &'static str,
    pub doc: &'static str,
}

fn definitions() -> impl Iterator<Item = &'static Definition> {
    [text::FUNCTIONS, time::FUNCTIONS, number::FUNCTIONS, json::FUNCTIONS].into_iter().flatten()
}

/// Every scalar function, aliases included; they replace DataFusion's of the same name.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    function::functions(definitions())
}

/// Aggregates that differ from DataFusion's: Postgres's `sum` and `avg` types.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    aggregate::functions()
}

/// Plans `EXTRACT`, `POSITION`, `SUBSTRING`, `OVERLAY` and `(regexp_match(…))[n]` with these functions. To stand before DataFusion's
/// own planners, which otherwise answer with theirs.
pub fn expr_planner(functions: &[Arc<ScalarUDF>]) -> Arc<dyn ExprPlanner> {
    Arc::new(planner::SpecialCalls::new(functions))
}

/// Every function of this package, one entry per overload and alias, by name.
pub fn catalog() -> &'static [FunctionDoc] {
    static CATALOG: LazyLock<Vec<FunctionDoc>> = LazyLock::new(|| {
        let entries = |definition: &'static Definition| {
            let Definition { names, parameters, returns, doc, .. } = *definition;
            names.split('|').map(move |name| FunctionDoc { name, signature: parameters, returns, doc })
        };
        let mut catalog: Vec<FunctionDoc> = definitions().flat_map(entries).chain(aggregate::DOCS.iter().copied()).collect();
        catalog.sort_by_key(|entry| entry.name);
        catalog
    });
    &CATALOG
}

#[cfg(test)]
mod tests;
