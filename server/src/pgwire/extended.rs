//! The extended protocol: statements with parameters, prepared once, run often, their rows taken in portions.

use std::sync::Arc;

use bytes::Bytes;
use sql::{Error, Parsed, Statement};

use super::connection::Connection;
use super::link::{Failure, Limits};
use super::message::{Format, Formats, Message, Target};
use super::simple::tagged;
use crate::session::{ParameterFormat, Portal, PortalState, Response, parameter};

impl Connection {
    /// Parse, Bind, Describe, Execute or Close.
    pub(super) async fn extended(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Parse { name, text, parameter_types } => self.parse(&name, &text, &parameter_types).await,
            Message::Bind { portal, statement, formats, parameters, results } => {
                self.bind(&portal, &statement, &formats, &parameters, results)
            }
            Message::Describe(target) => self.describe(&target),
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.session.statements.remove(&name)),
                    Target::Portal(name) => drop(self.session.portals.remove(&name)),
                }
                self.link.out.close_complete();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn parse(&mut self, name: &str, text: &str, parameter_types: &[u32]) -> Result<(), Failure> {
        let limits = self.begin(text);
        if name.is_empty() {
            self.session.statements.remove("");
        }
        let mut statements = sql::parse(text)?;
        statements.retain(|parsed| !matches!(parsed.statement, Statement::Empty));
        let parsed = match (statements.pop(), statements.is_empty()) {
            (Some(parsed), true) => parsed,
            (None, _) => Parsed { statement: Statement::Empty, text: String::new(), offset: 0 },
            (Some(_), false) => {
                return Err(Error::new("42601", "cannot insert multiple commands into a prepared statement").into());
            }
        };
        let offset = parsed.offset;
        let prepared = self.link.watch(&limits, self.session.describe(parsed, parameter_types)).await?;
        let prepared = prepared.map_err(|error| Error { position: error.position.map(|position| position + offset), ..error })?;
        self.session.keep_statement(name, prepared)?;
        self.link.out.parse_complete();
        Ok(())
    }

    fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        formats: &Formats,
        parameters: &[Option<Bytes>],
        results: Formats,
    ) -> Result<(), Failure> {
        let prepared = self.session.statement(statement)?;
        if parameters.len() != prepared.parameters.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                parameters.len(),
                prepared.parameters.len()
            );
            return Err(Error::new("08P01", message).into());
        }
        if formats.0.len() > 1 && formats.0.len() != parameters.len() {
            let message = format!("bind message has {} parameter formats but {} parameters", formats.0.len(), parameters.len());
            return Err(Error::new("08P01", message).into());
        }
        let columns = prepared.columns.as_ref().map_or(0, Vec::len);
        if results.0.len() > 1 && results.0.len() != columns {
            let message = format!("bind message has {} result formats but query has {columns} columns", results.0.len());
            return Err(Error::new("08P01", message).into());
        }
        let time_zone = self.session.settings.time_zone().to_owned();
        let values = parameters.iter().zip(&prepared.parameters).enumerate().map(|(index, (value, kind))| {
            let format = match formats.of(index) {
                Format::Text => ParameterFormat::Text,
                Format::Binary => ParameterFormat::Binary,
            };
            parameter(*kind, format, value.as_ref(), &time_zone)
        });
        let values = values.collect::<sql::Result<Vec<_>>>()?;
        if portal.is_empty() {
            self.session.portals.remove("");
        }
        let new = Portal {
            prepared,
            values,
            results: results.0.into_iter().map(|format| format == Format::Binary).collect(),
            state: PortalState::New,
            hold: false,
        };
        self.session.keep_portal(portal, new)?;
        self.link.out.bind_complete();
        Ok(())
    }

    fn describe(&mut self, target: &Target) -> Result<(), Failure> {
        let (prepared, results) = match target {
            Target::Statement(name) => {
                let prepared = self.session.statement(name)?;
                self.link.out.parameter_description(&prepared.parameters);
                (prepared, Formats::default())
            }
            Target::Portal(name) => {
                let portal = self.session.portal(name)?;
                (Arc::clone(&portal.prepared), result_formats(portal))
            }
        };
        match &prepared.columns {
            Some(columns) => self.link.out.row_description(columns, |index| results.of(index)),
            None => self.link.out.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), Failure> {
        let portal = self.session.portal(name)?;
        let (prepared, results) = (Arc::clone(&portal.prepared), result_formats(portal));
        let limits = self.begin(&prepared.parsed.text);
        let limit = (rows_max > 0).then_some(u64::from(rows_max));
        let portal = self.session.portal(name)?;
        if let PortalState::New = portal.state {
            let values = std::mem::take(&mut portal.values);
            portal.state = PortalState::Done;
            // Statements up to the next Sync are one transaction. Most often Sync is what comes next.
            let writes = matches!(
                prepared.parsed.statement,
                Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Truncate(_)
            );
            if writes && self.link.next_kind() != Some(b'S') {
                self.session.begin_implicit();
            }
            let response = self.link.watch(&limits, self.session.run(&prepared.parsed, &values)).await??;
            self.report_settings();
            self.notices();
            match response {
                Response::Empty => {
                    self.link.out.empty_query();
                    return Ok(());
                }
                Response::Command(tag) => {
                    self.link.out.command_complete(&tag);
                    return Ok(());
                }
                Response::Rows { rows, tag } => {
                    let told = prepared.columns.as_deref().unwrap_or_default();
                    if rows.columns.iter().map(|column| column.data_type).ne(told.iter().map(|column| column.data_type)) {
                        return Err(Error::new("0A000", "cached plan must not change result type").into());
                    }
                    if let Ok(portal) = self.session.portal(name) {
                        portal.state = PortalState::Running { rows, tag };
                    }
                }
                Response::Fetch { cursor, count } => {
                    let taken = self.send_portal(&cursor, &|index| results.of(index), count, &limits).await?;
                    self.link.out.command_complete(&tagged("FETCH", taken.count));
                    return Ok(());
                }
                Response::CopyOut { rows, options } => return self.copy_out(*rows, &options, &limits).await,
                Response::CopyIn(copy) => return self.copy_in(*copy, &limits).await,
            }
        }
        self.send_more(name, &results, limit, &limits).await
    }

    async fn send_more(&mut self, name: &str, results: &Formats, limit: Option<u64>, limits: &Limits) -> Result<(), Failure> {
        let tag = match &self.session.portal(name)?.state {
            PortalState::Running { tag, .. } => tag,
            PortalState::New | PortalState::Done => "SELECT",
        };
        let taken = self.send_portal(name, &|index| results.of(index), limit, limits).await?;
        if taken.all {
            self.link.out.command_complete(&tagged(tag, taken.count));
        } else {
            self.link.out.portal_suspended();
        }
        Ok(())
    }
}

fn result_formats(portal: &Portal) -> Formats {
    Formats(portal.results.iter().map(|binary| if *binary { Format::Binary } else { Format::Text }).collect())
}
