//! The simple protocol: a text with any number of statements, results as text.

use sql::Parsed;

use super::connection::Connection;
use super::link::{Failure, Limits};
use super::message::Format;
use super::result::Taken;
use crate::session::Response;

impl Connection {
    /// A Query message, up to `ReadyForQuery`.
    pub(super) async fn simple(&mut self, text: String) -> Result<(), Failure> {
        let limits = self.begin(&text);
        // A portal without a name does not survive a simple query.
        self.session.portals.remove("");
        match sql::parse(&text) {
            Err(error) => self.failed(error, Some(0), None),
            Ok(statements) if statements.iter().all(|parsed| matches!(parsed.statement, sql::Statement::Empty)) => {
                self.link.out.empty_query();
            }
            Ok(statements) => self.statements(statements, &limits).await?,
        }
        self.ready();
        self.link.flush(None).await
    }

    async fn statements(&mut self, statements: Vec<Parsed>, limits: &Limits) -> Result<(), Failure> {
        let several = statements.len() > 1;
        for parsed in statements {
            if several {
                self.session.begin_implicit();
            }
            match self.statement(&parsed, limits).await {
                Ok(()) => {}
                Err(Failure::Statement(error, context)) => {
                    self.failed(error, Some(parsed.offset), context.as_deref());
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
        if let Err(error) = self.session.end_implicit().await {
            self.failed(error, None, None);
        }
        Ok(())
    }

    async fn statement(&mut self, parsed: &Parsed, limits: &Limits) -> Result<(), Failure> {
        let response = self.link.watch(limits, self.session.run(parsed, &[])).await??;
        self.report_settings();
        match response {
            Response::Empty => {}
            Response::Command(tag) => {
                self.notices();
                self.link.out.command_complete(&tag);
            }
            Response::Rows { mut rows, tag } => {
                self.notices();
                self.link.out.row_description(&rows.columns, |_| Format::Text);
                let Taken { count, .. } = self.send_rows(&mut rows, &|_| Format::Text, None, limits).await?;
                self.link.out.command_complete(&tagged(tag, count));
            }
            Response::Fetch { cursor, count } => {
                let columns = self.session.portal(&cursor)?.prepared.columns.clone().unwrap_or_default();
                self.link.out.row_description(&columns, |_| Format::Text);
                let taken = self.send_portal(&cursor, &|_| Format::Text, count, limits).await?;
                self.link.out.command_complete(&tagged("FETCH", taken.count));
            }
            Response::CopyOut { rows, options } => self.copy_out(*rows, &options, limits).await?,
            Response::CopyIn(copy) => self.copy_in(*copy, limits).await?,
        }
        Ok(())
    }
}

/// A command tag; those of statements that give rows end with their number.
pub(super) fn tagged(tag: &str, count: u64) -> String {
    match tag {
        "SELECT" | "FETCH" => format!("{tag} {count}"),
        tag => tag.to_owned(),
    }
}
