//! Transaction blocks. A block reads one version of the database from its first statement on; what it writes is
//! collected and becomes durable whole at COMMIT.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{ObjectId, Transaction, Version};
use sql::{Error, Result};

use super::{Dml, Session, Settings, catalog_error};

/// Where a session stands between BEGIN and COMMIT.
#[derive(Debug)]
pub(crate) enum Block {
    /// Each statement is its own transaction.
    None,
    /// A block, explicit or implied by several statements in one text.
    Open(Box<Open>),
    /// A statement failed: all is refused until the end of the block or a savepoint.
    Failed(Box<Open>),
}

/// An open block.
#[derive(Debug)]
pub(crate) struct Open {
    /// Implied by several statements in one text: ends with the text.
    pub(crate) implicit: bool,
    version: Option<Arc<Version>>,
    pending: Transaction,
    /// Tables written in this block: reading them would not show what was written.
    written: BTreeSet<ObjectId>,
    savepoints: Vec<Savepoint>,
    /// What ROLLBACK restores.
    settings: Settings,
    /// SET LOCAL: what is restored at COMMIT too.
    local: Vec<(String, Option<String>)>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    rows: usize,
    truncated: usize,
    written: BTreeSet<ObjectId>,
}

impl Open {
    fn new(implicit: bool, settings: Settings) -> Box<Open> {
        Box::new(Open {
            implicit,
            version: None,
            pending: Transaction::default(),
            written: BTreeSet::new(),
            savepoints: Vec::new(),
            settings,
            local: Vec::new(),
        })
    }

    fn has_writes(&self) -> bool {
        !self.pending.rows.is_empty() || !self.pending.truncate.is_empty()
    }
}

impl Session {
    /// BEGIN.
    pub(super) fn begin(&mut self) {
        match &mut self.block {
            Block::None => self.block = Block::Open(Open::new(false, self.settings.clone())),
            Block::Open(open) if open.implicit => open.implicit = false,
            Block::Open(_) | Block::Failed(_) => self.warning("there is already a transaction in progress"),
        }
    }

    /// Several statements in one text are one transaction unless they say otherwise.
    pub(crate) fn begin_implicit(&mut self) {
        if let Block::None = self.block {
            self.block = Block::Open(Open::new(true, self.settings.clone()));
        }
    }

    /// The end of a text of several statements.
    pub(crate) async fn end_implicit(&mut self) -> Result<()> {
        match &self.block {
            Block::Open(open) if open.implicit => self.commit().await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// COMMIT: the tag to answer.
    pub(crate) async fn commit(&mut self) -> Result<&'static str> {
        match std::mem::replace(&mut self.block, Block::None) {
            Block::None => {
                self.warning("there is no transaction in progress");
                Ok("COMMIT")
            }
            Block::Failed(open) => {
                self.end_block(Some(open.settings));
                Ok("ROLLBACK")
            }
            Block::Open(open) => {
                let has_writes = open.has_writes();
                for (name, value) in open.local {
                    let restored = match value {
                        Some(value) => self.settings.set(&name, &value).map(|_| ()),
                        None => self.settings.reset(&name).map(|_| ()),
                    };
                    restored?;
                }
                self.end_block(None);
                if has_writes {
                    self.backend.catalog().commit(open.pending).await.map_err(catalog_error)?;
                }
                Ok("COMMIT")
            }
        }
    }

    /// ROLLBACK.
    pub(crate) fn rollback(&mut self) {
        match std::mem::replace(&mut self.block, Block::None) {
            Block::None => self.warning("there is no transaction in progress"),
            Block::Open(open) | Block::Failed(open) => self.end_block(Some(open.settings)),
        }
    }

    fn end_block(&mut self, settings: Option<Settings>) {
        self.portals.retain(|_, portal| portal.hold);
        if let Some(settings) = settings {
            self.settings = settings;
        }
        self.settings_changed();
    }

    /// A statement failed.
    pub(crate) fn failed(&mut self) {
        match std::mem::replace(&mut self.block, Block::None) {
            Block::Open(open) if open.implicit => self.end_block(Some(open.settings)),
            Block::Open(open) => {
                self.portals.retain(|_, portal| portal.hold);
                self.block = Block::Failed(open);
            }
            other => self.block = other,
        }
    }

    /// SAVEPOINT, RELEASE and ROLLBACK TO, by their text.
    pub(super) fn savepoint(&mut self, tag: &'static str, text: &str) -> Result<()> {
        let name = text.split_whitespace().last().unwrap_or_default().trim_matches('"').to_ascii_lowercase();
        if let (Block::Failed(_), "ROLLBACK") = (&self.block, tag)
            && let Block::Failed(open) = std::mem::replace(&mut self.block, Block::None)
        {
            if !open.savepoints.iter().any(|savepoint| savepoint.name == name) {
                self.block = Block::Failed(open);
                return Err(missing_savepoint(&name));
            }
            self.block = Block::Open(open);
        }
        let Block::Open(open) = &mut self.block else {
            return Err(Error::new("25P01", format!("{tag} can only be used in transaction blocks")));
        };
        let found = open.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        match (tag, found) {
            ("SAVEPOINT", _) => open.savepoints.push(Savepoint {
                name,
                rows: open.pending.rows.len(),
                truncated: open.pending.truncate.len(),
                written: open.written.clone(),
            }),
            (_, None) => return Err(missing_savepoint(&name)),
            ("RELEASE", Some(index)) => open.savepoints.truncate(index),
            (_, Some(index)) => {
                open.savepoints.truncate(index + 1);
                let savepoint = &open.savepoints[index];
                open.pending.rows.truncate(savepoint.rows);
                open.pending.truncate.truncate(savepoint.truncated);
                open.written = savepoint.written.clone();
            }
        }
        Ok(())
    }

    /// SET LOCAL: the value before it comes back at the end of the block.
    pub(super) fn set_local(&mut self, name: &str) {
        let before = self.settings.get(name).map(str::to_owned);
        match &mut self.block {
            Block::Open(open) => {
                if !open.local.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    open.local.push((name.to_owned(), before));
                }
            }
            Block::None | Block::Failed(_) => self.warning("SET LOCAL can only be used in transaction blocks"),
        }
    }

    /// The version that statements read: the newest, or the one the block began with.
    pub(super) fn version(&mut self) -> Arc<Version> {
        let newest = self.backend.catalog().version();
        match &mut self.block {
            // A text of several statements may make a table and use it.
            Block::Open(open) if !open.implicit => Arc::clone(open.version.get_or_insert(newest)),
            _ => newest,
        }
    }

    /// Definitions have changed within a block: later statements of it see them.
    pub(super) fn forget_version(&mut self) {
        if let Block::Open(open) = &mut self.block {
            open.version = None;
        }
    }

    /// Whether the block has writes, which a definition change cannot be made part of.
    pub(super) fn has_writes(&self) -> bool {
        matches!(&self.block, Block::Open(open) if open.has_writes())
    }

    /// What the block has written so far.
    pub(super) fn pending(&self) -> Transaction {
        match &self.block {
            Block::Open(open) => open.pending.clone(),
            Block::None | Block::Failed(_) => Transaction::default(),
        }
    }

    /// A statement is about to read `tables`. Writes of a block are not visible before its end: a text of several
    /// statements commits what it has written so far, an explicit block refuses.
    pub(super) async fn before_reading(&mut self, tables: &[ObjectId]) -> Result<()> {
        let Block::Open(open) = &mut self.block else { return Ok(()) };
        if !tables.iter().any(|table| open.written.contains(table)) {
            return Ok(());
        }
        if !open.implicit {
            return Err(Error::new("0A000", "cannot read a table after writing to it in the same transaction block")
                .hint("COMMIT first: what a block writes becomes visible with its end."));
        }
        open.written.clear();
        let pending = std::mem::take(&mut open.pending);
        self.backend.catalog().commit(pending).await.map_err(catalog_error)?;
        Ok(())
    }

    /// Commits what a statement writes, or adds it to the block.
    pub(crate) async fn write(&mut self, dml: Dml) -> Result<u64> {
        let Dml { rows, transaction } = dml;
        match &mut self.block {
            Block::Open(open) => {
                open.written.extend(transaction.rows.iter().map(|(table, _)| *table));
                open.written.extend(transaction.truncate.iter().copied());
                if !transaction.truncate.is_empty() && !open.pending.rows.is_empty() {
                    // Within one transaction tables are emptied before rows are added.
                    let emptied = |table: &ObjectId| transaction.truncate.contains(table);
                    open.pending.rows.retain(|(table, _)| !emptied(table));
                    open.savepoints.clear();
                }
                open.pending.rows.extend(transaction.rows);
                open.pending.truncate.extend(transaction.truncate);
                open.pending.unchanged_since.extend(transaction.unchanged_since);
                open.pending.definitions_version = open.pending.definitions_version.or(transaction.definitions_version);
            }
            Block::None | Block::Failed(_) => {
                let empty = transaction.rows.is_empty() && transaction.truncate.is_empty() && transaction.definitions.is_empty();
                if !empty {
                    self.backend.catalog().commit(transaction).await.map_err(catalog_error)?;
                }
            }
        }
        Ok(rows)
    }
}

fn missing_savepoint(name: &str) -> Error {
    Error::new("3B001", format!("savepoint \"{name}\" does not exist"))
}
