//! Rows on their way to the client: encoded as they come, sent when there are many or the query pauses.

use std::time::Duration;

use sql::Error;

use super::connection::Connection;
use super::encode::{RowEncoder, zone};
use super::link::{Failure, Limits};
use super::message::Format;
use crate::session::{PortalState, Rows};

/// A query that gives nothing for so long has its rows sent.
const PAUSE: Duration = Duration::from_millis(2);

/// How many rows were taken, and whether those were all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) count: u64,
    pub(super) all: bool,
}

impl Connection {
    /// Sends rows, at most `limit`.
    pub(super) async fn send_rows(
        &mut self,
        rows: &mut Rows,
        format: &(dyn Fn(usize) -> Format + Sync),
        limit: Option<u64>,
        limits: &Limits,
    ) -> Result<Taken, Failure> {
        let types: Vec<_> = rows.columns.iter().map(|column| column.data_type).collect();
        let zone = zone(self.session.settings.time_zone());
        let mut count = 0;
        loop {
            if limit.is_some_and(|limit| count >= limit) {
                return Ok(Taken { count, all: false });
            }
            let Some((batch, start)) = self.next_batch(rows, limits).await? else {
                return Ok(Taken { count, all: true });
            };
            let encoder =
                RowEncoder::new(&batch, &types, format, zone).map_err(|error| Error::new("0A000", error.to_string()))?;
            for row in start..encoder.rows() {
                if limit.is_some_and(|limit| count >= limit) {
                    rows.put_back(batch, row);
                    return Ok(Taken { count, all: false });
                }
                encoder.write_row(row, &mut self.link.out.bytes);
                count += 1;
                self.link.flush_if_full(Some(limits)).await?;
            }
            self.session.registration().rows(count);
        }
    }

    /// The next batch. What was encoded before is sent when the query pauses.
    pub(super) async fn next_batch(
        &mut self,
        rows: &mut Rows,
        limits: &Limits,
    ) -> Result<Option<(arrow::array::RecordBatch, usize)>, Failure> {
        if rows.is_waiting() && !self.link.out.bytes.is_empty() {
            let soon = tokio::time::timeout(PAUSE, rows.next());
            match self.link.watch(limits, soon).await? {
                Ok(next) => return Ok(next.transpose()?),
                Err(_) => self.link.flush(Some(limits)).await?,
            }
        }
        Ok(self.link.watch(limits, rows.next()).await?.transpose()?)
    }

    /// Sends rows of a portal or cursor, which keeps its place.
    pub(super) async fn send_portal(
        &mut self,
        name: &str,
        format: &(dyn Fn(usize) -> Format + Sync),
        limit: Option<u64>,
        limits: &Limits,
    ) -> Result<Taken, Failure> {
        let state = std::mem::replace(&mut self.session.portal(name)?.state, PortalState::Done);
        let PortalState::Running { mut rows, tag } = state else { return Ok(Taken { count: 0, all: true }) };
        let taken = self.send_rows(&mut rows, format, limit, limits).await?;
        if !taken.all {
            self.session.portal(name)?.state = PortalState::Running { rows, tag };
        }
        Ok(taken)
    }
}
