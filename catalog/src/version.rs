//! The whole database at one commit, and the one way in which commits change it.
//!
//! Live commits and recovery both go through [`Draft`], so what is read back after a crash is what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::catalog::TableProvider;

use crate::log::{DataflowSection, Head, PositionSection, Section, StateFile, StatePlace, StateRef, TableSection};
use crate::table::{EditKind, FileEdit, FileSet, Memtable, TableSchema, TableSnapshot};
use crate::{Changes, Definition, ObjectId, ObjectName, Result, Seq, StateKind, Storage, TableStatistics};

/// Everything at one commit: what a reader sees. Cheap to clone, never changes.
/// Whoever holds it keeps the files of its tables from being deleted.
#[derive(Debug, Clone)]
pub struct Version {
    /// The commit.
    pub seq: Seq,
    /// The commit that last changed definitions.
    pub definitions_version: u64,
    /// All objects.
    pub objects: Arc<BTreeMap<ObjectId, Arc<Definition>>>,
    /// Names of all objects.
    pub names: Arc<BTreeMap<ObjectName, ObjectId>>,
    pub(crate) tables: Arc<BTreeMap<ObjectId, Arc<Table>>>,
    pub(crate) dataflows: Arc<BTreeMap<ObjectId, Arc<Dataflow>>>,
    pub(crate) storage: Storage,
}

/// Where a dataflow stands.
#[derive(Debug, Clone)]
pub struct DataflowPosition {
    /// Last committed epoch; 0 before the first.
    pub epoch: u64,
    /// Offsets as the engine encoded them.
    pub offsets: Bytes,
    /// Watermark.
    pub watermark: Option<i64>,
    /// All inputs are read.
    pub finished: bool,
    /// The commit of that epoch.
    pub seq: Seq,
}

/// A table's rows: in the memtable up to the commit of the version, in files up to `flushed`.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub schema: Arc<TableSchema>,
    pub memtable: Memtable,
    pub files: Arc<FileSet>,
    /// Rows up to this commit are in files, or gone.
    pub flushed: Seq,
    /// The last commit with rows.
    pub changed: Seq,
    /// The last commit with rows or an epoch of the table's dataflow.
    pub touched: Seq,
    /// Edits whose Paimon snapshots may still have to be published, oldest first.
    pub unpublished: Vec<(Seq, Arc<FileEdit>)>,
    pub published: Arc<Published>,
}

/// How far a table's Paimon snapshots follow its edits. Shared by all versions: it is derived, not committed.
#[derive(Debug, Default)]
pub(crate) struct Published {
    up_to: AtomicU64,
    snapshot: AtomicU64,
    created: AtomicBool,
}

impl Published {
    /// The edits up to commit `seq` are published.
    pub(crate) fn set(&self, seq: Seq) {
        self.up_to.fetch_max(seq.0, Ordering::Release);
    }

    pub(crate) fn note_snapshot(&self, snapshot: u64) {
        self.snapshot.fetch_max(snapshot, Ordering::Relaxed);
    }

    /// The edit of commit `seq` is published, and all before it.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        seq.0 <= self.up_to.load(Ordering::Acquire)
    }

    /// The table's schema file is there.
    pub(crate) fn is_created(&self) -> bool {
        self.created.load(Ordering::Acquire)
    }

    pub(crate) fn set_created(&self) {
        self.created.store(true, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> u64 {
        self.snapshot.load(Ordering::Relaxed)
    }
}

/// A dataflow's position, and where the parts of its state are.
#[derive(Debug, Clone)]
pub(crate) struct Dataflow {
    pub position: DataflowPosition,
    pub reads: Vec<(ObjectId, Seq)>,
    /// For each operator its newest image, if there is one, and all deltas since.
    pub state: BTreeMap<u32, Arc<Vec<StateRef>>>,
}

impl Version {
    /// A table at this version, for DataFusion: merged rows of memtable and files. `None` when `id` has no table.
    pub fn table(self: &Arc<Self>, id: ObjectId) -> Option<Arc<dyn TableProvider>> {
        Some(self.snapshot(id)?.provider())
    }

    /// Where a dataflow stands at this version.
    pub fn dataflow(&self, id: ObjectId) -> Option<DataflowPosition> {
        Some(self.dataflows.get(&id)?.position.clone())
    }

    /// Numbers about a table's storage.
    pub fn statistics(&self, id: ObjectId) -> Option<TableStatistics> {
        let snapshot = self.tables.get(&id)?.published.snapshot();
        Some(TableStatistics { snapshot, ..self.snapshot(id)?.statistics() })
    }

    /// An object by name.
    pub fn object(&self, name: &ObjectName) -> Option<&Arc<Definition>> {
        self.objects.get(self.names.get(name)?)
    }

    /// The last commit that changed rows of a table; for [`crate::Transaction::unchanged_since`].
    pub fn changed(&self, id: ObjectId) -> Option<Seq> {
        Some(self.tables.get(&id)?.changed)
    }

    /// The last commit that changed rows of a table or held an epoch of its dataflow: who follows the table and has seen
    /// this one has seen everything.
    pub fn touched(&self, id: ObjectId) -> Option<Seq> {
        Some(self.tables.get(&id)?.touched)
    }

    fn snapshot(&self, id: ObjectId) -> Option<TableSnapshot> {
        let table = self.tables.get(&id)?;
        Some(TableSnapshot {
            schema: Arc::clone(&table.schema),
            memtable: table.memtable.clone(),
            files: Arc::clone(&table.files),
            storage: self.storage.clone(),
        })
    }

    /// Nothing at all: the state before the first commit.
    pub(crate) fn empty(storage: Storage) -> Version {
        Version {
            seq: Seq(0),
            definitions_version: 0,
            objects: Arc::default(),
            names: Arc::default(),
            tables: Arc::default(),
            dataflows: Arc::default(),
            storage,
        }
    }

    /// The version as sections of a manifest.
    pub(crate) fn to_sections(&self) -> Vec<Section> {
        let definitions = self.objects.values().map(|definition| Section::Define(definition.as_ref().clone()));
        let tables = self.tables.iter().map(|(id, table)| {
            let unpublished = table.unpublished.iter().filter(|(seq, _)| !table.published.covers(*seq));
            Section::Table(TableSection {
                table: *id,
                flushed: table.flushed,
                unflushed: table.memtable.first_seq(),
                changed: table.changed,
                touched: table.touched,
                files: table.files.to_vec(),
                unpublished: unpublished.map(|(seq, edit)| (*seq, edit.as_ref().clone())).collect(),
                snapshot: table.published.snapshot(),
            })
        });
        let positions = self.dataflows.iter().map(|(id, dataflow)| {
            let DataflowPosition { epoch, offsets, watermark, finished, seq } = dataflow.position.clone();
            let state = dataflow.state.values().flat_map(|refs| refs.iter().cloned()).collect();
            let reads = dataflow.reads.clone();
            Section::Position(PositionSection { dataflow: *id, epoch, seq, watermark, finished, reads, offsets, state })
        });
        definitions.chain(tables).chain(positions).collect()
    }

    /// The version that a manifest holds, its memtables still empty.
    pub(crate) fn from_sections(storage: Storage, head: &Head, sections: Vec<Section>) -> Result<Version, String> {
        let mut draft = Draft::of(&Version::empty(storage), head.seq);
        for section in sections {
            match section {
                Section::Define(definition) => draft.define(definition).map_err(|error| error.to_string())?,
                Section::Table(section) => draft.load_table(section)?,
                Section::Position(section) => draft.load_position(section),
                Section::Dataflow(_) | Section::Rows(_) | Section::Drop(_) | Section::Files(_) => {
                    return Err("a section that belongs into a commit".to_owned());
                }
            }
        }
        draft.version.definitions_version = head.definitions_version;
        Ok(draft.finish())
    }
}

impl Dataflow {
    /// Files that hold parts of its state.
    pub(crate) fn state_files(&self) -> impl Iterator<Item = &StateFile> {
        self.state.values().flat_map(|refs| refs.iter()).filter_map(|part| part.file.as_ref())
    }
}

/// A version in the making: the one before it, and what the commit does, in its order.
/// Tables and dataflows that an effect names must be there; the committer has checked that, recovery checks it again.
#[derive(Debug)]
pub(crate) struct Draft {
    version: Version,
}

impl Draft {
    pub(crate) fn of(before: &Version, seq: Seq) -> Draft {
        Draft { version: Version { seq, ..before.clone() } }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    pub(crate) fn finish(self) -> Version {
        self.version
    }

    /// A new object, or a new definition of one.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] when its columns cannot be stored.
    pub(crate) fn define(&mut self, definition: Definition) -> Result<()> {
        let id = definition.id;
        if definition.kind.has_table() {
            let schema = Arc::new(TableSchema::of(&definition)?);
            let seq = self.version.seq;
            let tables = Arc::make_mut(&mut self.version.tables);
            match tables.get_mut(&id) {
                Some(table) => Arc::make_mut(table).schema = schema,
                None => {
                    tables.insert(id, Arc::new(Table::new(schema, seq)));
                }
            }
        }
        let names = Arc::make_mut(&mut self.version.names);
        if let Some(before) = self.version.objects.get(&id) {
            names.remove(&before.name);
        }
        names.insert(definition.name.clone(), id);
        Arc::make_mut(&mut self.version.objects).insert(id, Arc::new(definition));
        self.version.definitions_version = self.version.seq.0;
        Ok(())
    }

    /// An object is gone, with its table and its dataflow.
    pub(crate) fn drop_object(&mut self, id: ObjectId) {
        if let Some(definition) = Arc::make_mut(&mut self.version.objects).remove(&id) {
            Arc::make_mut(&mut self.version.names).remove(&definition.name);
        }
        Arc::make_mut(&mut self.version.tables).remove(&id);
        Arc::make_mut(&mut self.version.dataflows).remove(&id);
        self.version.definitions_version = self.version.seq.0;
    }

    /// Rows for a table.
    pub(crate) fn rows(&mut self, id: ObjectId, changes: Changes) {
        let seq = self.version.seq;
        if let Some(table) = self.table(id) {
            table.memtable.push(seq, changes);
            table.changed = seq;
            table.touched = seq;
        }
    }

    /// Files took the place of rows, of other files, or of nothing.
    pub(crate) fn files(&mut self, edit: FileEdit) {
        let seq = self.version.seq;
        let Some(table) = self.table(edit.table) else { return };
        match edit.kind {
            EditKind::Truncate => {
                // Rows of this very commit that came before the truncation go too; those after it are pushed later.
                table.memtable.trim(seq);
                table.flushed = table.flushed.max(Seq(seq.0.saturating_sub(1)));
                table.changed = seq;
                table.touched = seq;
            }
            EditKind::Append | EditKind::Compact => {
                if let Some(up_to) = edit.up_to {
                    table.memtable.trim(up_to);
                    table.flushed = table.flushed.max(up_to);
                }
            }
        }
        table.files = Arc::new(table.files.apply(&edit));
        let published = Arc::clone(&table.published);
        table.unpublished.retain(|(seq, _)| !published.covers(*seq));
        table.unpublished.push((seq, Arc::new(edit)));
    }

    /// An epoch of a dataflow.
    pub(crate) fn epoch(&mut self, section: &DataflowSection) {
        let seq = self.version.seq;
        let dataflows = Arc::make_mut(&mut self.version.dataflows);
        let before = dataflows.get(&section.dataflow);
        let mut state = before.map(|dataflow| dataflow.state.clone()).unwrap_or_default();
        for (index, part) in section.state.iter().enumerate() {
            let file = match &part.place {
                StatePlace::Inline(_) => None,
                StatePlace::File(file) => Some(file.clone()),
            };
            let index = u32::try_from(index).expect("an epoch has far fewer than 2^32 state parts");
            let part = StateRef { operator: part.operator, kind: part.kind, seq, epoch: section.epoch, index, file };
            add_state(&mut state, part);
        }
        let position = DataflowPosition {
            epoch: section.epoch,
            offsets: section.offsets.clone(),
            watermark: section.watermark,
            finished: section.finished,
            seq,
        };
        dataflows.insert(section.dataflow, Arc::new(Dataflow { position, reads: section.reads.clone(), state }));
        if let Some(table) = self.table(section.dataflow) {
            table.touched = seq;
        }
    }

    /// Rows of an earlier commit that are in no file: recovery puts them back.
    pub(crate) fn unflushed(&mut self, id: ObjectId, seq: Seq, changes: Changes) {
        if let Some(table) = self.table(id) {
            table.memtable.push(seq, changes);
        }
    }

    /// A truncation in an earlier commit, seen by recovery: rows put back so far had gone.
    pub(crate) fn forget_unflushed(&mut self, id: ObjectId, seq: Seq) {
        if let Some(table) = self.table(id) {
            table.memtable.trim(seq);
        }
    }

    fn table(&mut self, id: ObjectId) -> Option<&mut Table> {
        if !self.version.tables.contains_key(&id) {
            return None;
        }
        Arc::make_mut(&mut self.version.tables).get_mut(&id).map(Arc::make_mut)
    }

    fn load_table(&mut self, section: TableSection) -> Result<(), String> {
        let id = section.table;
        let at = self.version.seq;
        let table = self.table(id).ok_or_else(|| format!("table {} has no definition", id.0))?;
        table.flushed = section.flushed;
        table.changed = section.changed;
        table.touched = section.touched;
        table.files = Arc::new(FileSet::new(section.files));
        table.unpublished = section.unpublished.into_iter().map(|(seq, edit)| (seq, Arc::new(edit))).collect();
        // Everything before the first unpublished edit is published.
        let up_to = table.unpublished.first().map_or(at.0, |(seq, _)| seq.0.saturating_sub(1));
        table.published.set(Seq(up_to));
        table.published.note_snapshot(section.snapshot);
        Ok(())
    }

    fn load_position(&mut self, section: PositionSection) {
        let mut state = BTreeMap::new();
        section.state.into_iter().for_each(|part| add_state(&mut state, part));
        let PositionSection { dataflow, epoch, seq, watermark, finished, reads, offsets, .. } = section;
        let position = DataflowPosition { epoch, offsets, watermark, finished, seq };
        Arc::make_mut(&mut self.version.dataflows).insert(dataflow, Arc::new(Dataflow { position, reads, state }));
    }
}

/// An image replaces what came before it, a delta joins it.
fn add_state(state: &mut BTreeMap<u32, Arc<Vec<StateRef>>>, part: StateRef) {
    let refs = Arc::make_mut(state.entry(part.operator).or_default());
    if part.kind == StateKind::Image {
        refs.clear();
    }
    refs.push(part);
}

impl Table {
    fn new(schema: Arc<TableSchema>, seq: Seq) -> Table {
        Table {
            schema,
            memtable: Memtable::default(),
            files: Arc::default(),
            flushed: Seq(seq.0.saturating_sub(1)),
            changed: seq,
            touched: seq,
            unpublished: Vec::new(),
            published: Arc::default(),
        }
    }

    /// Whether an edit made on an earlier version still fits: nothing was truncated or merged away meanwhile.
    pub(crate) fn admits(&self, edit: &FileEdit) -> bool {
        self.files.admits(edit) && edit.up_to.is_none_or(|up_to| up_to > self.flushed)
    }
}

/// What of the log a version still needs, besides everything after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// All commits from this one on.
    pub from: Seq,
    /// And these: parts of state lie in them.
    pub exact: BTreeSet<Seq>,
    /// State files.
    pub files: BTreeSet<String>,
}

impl Needs {
    /// Rows that are not in files, state parts, and what followers of tables have not read.
    pub(crate) fn of(version: &Version) -> Needs {
        let after = |seq: Seq| Seq(seq.0.saturating_add(1));
        let unflushed = version.tables.values().filter_map(|table| table.memtable.first_seq());
        // A follower that has read the last change of a quiet table needs nothing, however long ago that was.
        let behind = |(table, read): &&(ObjectId, Seq)| version.tables.get(table).is_some_and(|table| table.touched > *read);
        let reads = version.dataflows.values().flat_map(|dataflow| dataflow.reads.iter());
        let followed = reads.filter(behind).map(|(_, read)| after(*read));
        let from = unflushed.chain(followed).min().unwrap_or(after(version.seq)).min(after(version.seq));
        let parts = version.dataflows.values().flat_map(|dataflow| dataflow.state.values()).flat_map(|refs| refs.iter());
        let exact = parts.filter(|part| part.file.is_none()).map(|part| part.seq).collect();
        let files =
            version.dataflows.values().flat_map(|dataflow| dataflow.state_files()).map(|file| file.path.clone()).collect();
        Needs { from, exact, files }
    }
}
