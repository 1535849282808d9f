//! Functions that answer from the session, and the time a statement began.

use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::SessionSettings;

/// Every function of this module.
pub(crate) fn functions(settings: &SessionSettings) -> Vec<Arc<ScalarUDF>> {
    let text = |text: &str| ScalarValue::from(text);
    let schema = settings.search_path.iter().find(|schema| !schema.starts_with('$') && *schema != "pg_catalog");
    let constant = |name: &'static str, aliases: &[&str], value: ScalarValue| {
        Arc::new(ScalarUDF::new_from_impl(Constant {
            name,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            value,
            signature: Signature::nullary(Volatility::Stable),
        }))
    };
    vec![
        constant("current_user", &["session_user", "user", "current_role"], text(&settings.user)),
        constant("current_database", &["current_catalog"], text(&settings.database)),
        constant("current_schema", &[], schema.map_or(ScalarValue::Utf8(None), |schema| text(schema))),
        constant("pg_backend_pid", &[], ScalarValue::from(settings.backend_pid)),
        constant("version", &[], text(concat!("PostgreSQL 15.8 (Freshet ", env!("CARGO_PKG_VERSION"), ")"))),
        Arc::new(ScalarUDF::new_from_impl(Now {
            signature: Signature::nullary(Volatility::Stable),
            aliases: ["current_timestamp", "transaction_timestamp", "statement_timestamp"].map(str::to_owned).to_vec(),
        })),
    ]
}

/// A value that is the same for the whole session.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    aliases: Vec<String>,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// The time at which the statement began, in microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("now() is only known while a statement runs")
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match info.query_execution_start_time() {
            Some(start) => {
                let value = ScalarValue::TimestampMicrosecond(Some(start.timestamp_micros()), Some("UTC".into()));
                ExprSimplifyResult::Simplified(Expr::Literal(value, None))
            }
            None => ExprSimplifyResult::Original(args),
        })
    }
}
