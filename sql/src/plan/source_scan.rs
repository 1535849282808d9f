//! A bounded source in a SELECT: read once, from its start to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::Definition;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use engine::plan::SourceNode;
use engine::source::SourceEvent;

use super::sources;
use crate::Error;

/// Batches that may wait for the query.
const QUEUE: usize = 4;
/// How often a reader looks whether anyone still wants its rows.
const PATIENCE: Duration = Duration::from_millis(100);

/// A streaming table that has an end.
#[derive(Debug)]
pub(crate) struct SourceTable {
    source: SourceNode,
}

impl SourceTable {
    pub(crate) fn new(definition: &Definition) -> crate::Result<Self> {
        let source = sources::of_definition(definition)?;
        if !engine::source::is_bounded(&source.connector) {
            return Err(Error::new(
                "0A000",
                format!("\"{}\" is a stream without an end, of which nothing is stored", definition.name.name),
            )
            .hint("Read it through a streaming view, or store it: CREATE STREAMING TABLE … WITH (retention = '7 days', …)."));
        }
        Ok(SourceTable { source })
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.source.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize>;
        let projection = match projection {
            Some(projection) => projection,
            None => {
                all = (0..self.source.columns.len()).collect();
                &all
            }
        };
        let source =
            sources::projected(self.source.clone(), projection).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let schema = Arc::clone(&source.schema);
        let partition = Arc::new(Scan { source });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![partition], None, [], false, limit)?))
    }
}

/// All splits of a source, read by one thread.
#[derive(Debug)]
struct Scan {
    source: SourceNode,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.source.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.source.schema), QUEUE);
        let (rows, source) = (stream.tx(), self.source.clone());
        stream.spawn_blocking(move || {
            let outside = |error: engine::Error| DataFusionError::External(Box::new(error));
            let mut reader = engine::source::open(&source, &BTreeMap::new()).map_err(outside)?;
            let mut open: BTreeSet<_> = reader.splits().into_iter().collect();
            // Records that do not parse are left out; a streaming view puts them into freshet.errors.
            while !open.is_empty() && !rows.is_closed() {
                match reader.next(PATIENCE).map_err(outside)? {
                    Some(SourceEvent::Rows { rows: batch, .. }) if batch.num_rows() > 0 => {
                        if rows.blocking_send(Ok(batch)).is_err() {
                            break;
                        }
                    }
                    Some(SourceEvent::NewSplit { split }) => {
                        open.insert(split);
                    }
                    Some(SourceEvent::Finished { split }) => {
                        open.remove(&split);
                    }
                    Some(SourceEvent::Rows { .. } | SourceEvent::CaughtUp { .. } | SourceEvent::Progress { .. }) | None => {}
                }
            }
            Ok(())
        });
        stream.build()
    }
}
