//! A relation whose rows are made each time it is scanned: a prepared statement sees what is, not what was.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;

/// Makes the rows.
pub(super) type Rows = Box<dyn Fn() -> BoxFuture<'static, Result<RecordBatch>> + Send + Sync>;

/// A relation over a function.
pub(super) struct SystemTable {
    name: &'static str,
    schema: SchemaRef,
    rows: Rows,
}

impl SystemTable {
    pub(super) fn provider(name: &'static str, schema: SchemaRef, rows: Rows) -> Arc<dyn TableProvider> {
        Arc::new(SystemTable { name, schema, rows })
    }

    /// Rows that need no waiting.
    pub(super) fn ready(
        name: &'static str,
        schema: SchemaRef,
        rows: impl Fn() -> RecordBatch + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        SystemTable::provider(name, schema, Box::new(move || Box::pin(std::future::ready(Ok(rows())))))
    }
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemTable({})", self.name)
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = (self.rows)().await?;
        MemTable::try_new(Arc::clone(&self.schema), vec![vec![batch]])?.scan(state, projection, filters, limit).await
    }
}
