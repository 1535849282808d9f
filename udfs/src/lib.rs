//! Functions: Postgres's text, time, number and JSON functions over Arrow columns; models later.
//!
//! Does not know: streams, SQL text.

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Every scalar function, aliases included; they replace DataFusion's of the same name.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    Vec::new()
}

/// Aggregates that differ from DataFusion's: Postgres's `sum` and `avg` types.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    Vec::new()
}
