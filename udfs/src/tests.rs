//! Every line of the case files answered as PostgreSQL 15 answered it.
//!
//! A new case is a new line without an answer; `cases/answer.sh` asks a real server for all of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::text::show::Shown;

fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("UTC".to_owned());
    let scalars = crate::scalar_functions();
    let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![crate::expr_planner(&scalars)];
    planners.extend(state.expr_planners().iter().cloned());
    let context =
        SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_expr_planners(planners).build());
    scalars.iter().for_each(|function| context.register_udf(function.as_ref().clone()));
    crate::aggregate_functions().iter().for_each(|function| context.register_udaf(function.as_ref().clone()));
    context
}

/// The SQLSTATE of an error, however deep it lies.
fn sqlstate(error: &DataFusionError) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(ours) = current.downcast_ref::<crate::Error>() {
            return format!("ERROR:  {}", ours.sqlstate());
        }
        cause = match current.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            _ => current.source(),
        };
    }
    format!("ERROR without SQLSTATE: {error}")
}

async fn answer(context: &SessionContext, expression: &str) -> Result<String, DataFusionError> {
    let batches = context.sql(&format!("SELECT {expression}")).await?.collect().await?;
    let mut fields = Vec::new();
    for column in batches[0].columns() {
        // Literals that no function of ours touched are in nanoseconds.
        let column: ArrayRef = match column.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
            }
            DataType::Utf8View => cast(column, &DataType::Utf8)?,
            _ => column.clone(),
        };
        let mut text = if column.is_null(0) { "NULL".to_owned() } else { String::new() };
        Shown::new(&column)?.write(0, &mut text)?;
        fields.push(text);
    }
    Ok(fields.join(" | ").replace('\n', "\\n"))
}

async fn check(name: &str, cases: &str) {
    let context = session();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in cases.lines() {
        let (expression, expected) = line.split_once(" => ").expect("a case has an answer");
        let ours = expression.split(" ;; ").next().expect("split gives at least one part");
        let given = answer(&context, ours).await.unwrap_or_else(|error| sqlstate(&error));
        count += 1;
        if given != expected {
            wrong.push(format!("{ours}\n    postgres: {expected}\n    ours:     {given}"));
        }
    }
    assert!(count > 0, "{name} has no cases");
    assert!(wrong.is_empty(), "{} of {count} {name} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn time() {
    check("time", include_str!("cases/time.txt")).await;
}

#[tokio::test]
async fn text() {
    check("text", include_str!("cases/text.txt")).await;
}

#[tokio::test]
async fn number() {
    check("number", include_str!("cases/number.txt")).await;
}

#[tokio::test]
async fn json() {
    check("json", include_str!("cases/json.txt")).await;
}

#[tokio::test]
async fn aggregate() {
    check("aggregate", include_str!("cases/aggregate.txt")).await;
}

#[test]
fn every_function_is_documented_and_built() {
    let functions = crate::scalar_functions();
    for entry in crate::catalog() {
        assert!(!entry.doc.is_empty() && entry.doc.ends_with('.'), "{} has no sentence", entry.name);
        let known = functions.iter().any(|function| function.name() == entry.name);
        assert!(known || matches!(entry.name, "sum" | "avg"), "{} is not registered", entry.name);
    }
}
