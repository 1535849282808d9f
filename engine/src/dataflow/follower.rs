//! Input threads: a source's reader, and a table's rows followed by its changes.
//!
//! A view over a table reads the table's rows at one commit, then the log after it. The rows come in no particular
//! order and the commit is not kept beyond the process, so a backfill cannot be resumed in its middle; instead the
//! driver commits nothing until it is complete ([`TableEvent::Complete`]). A restart before that begins anew at a
//! newer commit and nothing has been counted twice; after it, the offset is the last commit taken in.
//! Operators bound what a backfill holds in memory as they always do; only rows that reach the sink wait for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use catalog::{Catalog, Changes, Seq, Step, TableChanges};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use crate::plan::{SourceNode, TableChangesNode};
use crate::source::{self, Offset, SourceEvent, SplitId};
use crate::{Error, Result};

/// A reader returns from a call at least so often, to be asked to stop.
const READER_WAIT: Duration = Duration::from_millis(100);

/// What inputs send to the driver.
#[derive(Debug)]
pub(crate) enum Item {
    /// A source is open; its splits.
    Opened { input: usize, splits: Vec<SplitId> },
    /// A source has something. `asked`: how often it had been asked by then for the end of what it holds.
    Source { input: usize, event: SourceEvent, asked: u64 },
    /// A table has something.
    Table { input: usize, event: TableEvent },
    /// The input cannot go on.
    Failed(Error),
    /// Everything before has been taken in by sources before a `FLUSH`.
    Flush(tokio::sync::oneshot::Sender<()>),
}

/// What a follower sends.
#[derive(Debug)]
pub(crate) enum TableEvent {
    /// Rows of the table as it was when the backfill began.
    Rows(Changes),
    /// All rows of the table as of a commit are read.
    Complete { seq: Seq, watermark: Option<i64>, finished: bool },
    /// A commit that touched it.
    Changes(TableChanges),
    /// Nothing new up to this commit.
    CaughtUp(Seq),
    /// The table is gone, or the catalog is closing: nothing will follow.
    Ended,
}

/// The queue of a driver.
pub(crate) type Inbox = Queue<Item, super::driver::Control>;

/// Tells input threads to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// Reads a source until it ends, fails or is cancelled. Runs on its own thread.
/// `asks` counts how often somebody wanted to know when everything is taken in that the source holds at that moment.
pub(crate) fn read_source(
    node: &SourceNode,
    input: usize,
    offsets: &std::collections::BTreeMap<SplitId, Offset>,
    asks: &AtomicU64,
    inbox: &Inbox,
    cancel: &Cancel,
) {
    let mut asked = 0;
    let mut reader = match source::open(node, offsets) {
        Ok(reader) => reader,
        Err(error) => {
            inbox.push_marker(Item::Failed(error));
            return;
        }
    };
    if !inbox.push_marker(Item::Opened { input, splits: reader.splits() }) {
        return;
    }
    while !cancel.is_cancelled() {
        let asks = asks.load(Ordering::Acquire);
        if asked < asks {
            reader.mark_end();
            asked = asks;
        }
        let event = match reader.next(READER_WAIT) {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(error) => {
                inbox.push_marker(Item::Failed(error));
                return;
            }
        };
        let bytes = match &event {
            SourceEvent::Rows { rows, errors, .. } => {
                let errors: usize = errors.iter().map(|error| error.payload.len() + error.reason.len()).sum();
                rows.get_array_memory_size() + errors + 256
            }
            _ => 64,
        };
        if !inbox.push(Item::Source { input, event, asked }, bytes) {
            return;
        }
    }
}

/// Reads a table's rows and follows it, or follows it after `after`. Runs on its own thread.
pub(crate) fn follow_table(
    catalog: &Arc<Catalog>,
    runtime: &tokio::runtime::Handle,
    node: &TableChangesNode,
    input: usize,
    after: Option<Seq>,
    inbox: &Inbox,
    cancel: &Cancel,
) {
    let following = async {
        tokio::select! {
            () = cancel.token.cancelled() => Ok(()),
            result = follow(catalog, node, input, after, inbox) => result,
        }
    };
    if let Err(error) = runtime.block_on(following) {
        inbox.push_marker(Item::Failed(error));
    }
}

async fn follow(catalog: &Arc<Catalog>, node: &TableChangesNode, input: usize, after: Option<Seq>, inbox: &Inbox) -> Result<()> {
    let send = |event: TableEvent, bytes: usize| inbox.push(Item::Table { input, event }, bytes);
    let mut reader = match after {
        Some(seq) => catalog.changes(node.table, seq)?,
        None => {
            let version = catalog.version();
            // The reader first: from here on the log after this version is kept.
            let reader = catalog.changes(node.table, version.seq)?;
            let provider = version
                .table(node.table)
                .ok_or_else(|| Error::Unsupported { message: format!("\"{}\" has no rows to read", node.name), hint: None })?;
            let rows = SessionContext::new().read_table(provider)?;
            let mut rows = rows.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let changes = Changes::append(batch?.project(&node.projection)?);
                let bytes = changes.bytes();
                if !changes.is_empty() && !send(TableEvent::Rows(changes), bytes) {
                    return Ok(());
                }
            }
            let upstream = version.dataflow(node.table);
            let event = TableEvent::Complete {
                seq: version.seq,
                watermark: upstream.as_ref().and_then(|position| position.watermark),
                finished: upstream.is_some_and(|position| position.finished),
            };
            if !send(event, 0) {
                return Ok(());
            }
            reader
        }
    };
    loop {
        let mut changes = match reader.step().await? {
            Step::Changes(changes) => changes,
            Step::UpTo(seq) => {
                if !send(TableEvent::CaughtUp(seq), 0) {
                    return Ok(());
                }
                continue;
            }
            Step::Ended => {
                send(TableEvent::Ended, 0);
                return Ok(());
            }
        };
        for part in &mut changes.changes {
            part.rows = part.rows.project(&node.projection)?;
        }
        let bytes = changes.changes.iter().map(Changes::bytes).sum();
        if !send(TableEvent::Changes(changes), bytes) {
            return Ok(());
        }
    }
}
