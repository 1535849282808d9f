//! The facade over a store in memory, and over one that fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult,
};

use crate::*;

const TABLE: ObjectId = ObjectId(1000);
const VIEW: ObjectId = ObjectId(1001);

fn now_us() -> i64 {
    1_700_000_000_000_000
}

fn options() -> Options {
    Options {
        checkpoint_interval: Duration::ZERO,
        flush_interval: Duration::from_secs(3600),
        manifest_interval: Duration::from_secs(3600),
        ..Options::default()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn definition(id: ObjectId, name: &str, kind: ObjectKind) -> Definition {
    Definition {
        id,
        name: ObjectName { schema: "public".to_owned(), name: name.to_owned() },
        kind,
        sql: String::new(),
        schema: schema(),
        primary_key: Vec::new(),
        options: BTreeMap::new(),
        depends_on: Vec::new(),
        created_us: 0,
        comment: None,
        paused: false,
        watermark: None,
    }
}

fn numbers(numbers: impl IntoIterator<Item = i64>) -> Changes {
    let column = Arc::new(Int64Array::from_iter_values(numbers));
    Changes::append(RecordBatch::try_new(schema(), vec![column]).expect("one column"))
}

fn values(changes: &[Changes]) -> Vec<i64> {
    changes.iter().flat_map(|changes| changes.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn create(kinds: &[(ObjectId, &str, ObjectKind)]) -> Transaction {
    let definitions = kinds.iter().map(|(id, name, kind)| DefinitionChange::Put(definition(*id, name, *kind))).collect();
    Transaction { definitions, ..Transaction::default() }
}

fn insert(table: ObjectId, rows: impl IntoIterator<Item = i64>) -> Transaction {
    Transaction { rows: vec![(table, numbers(rows))], ..Transaction::default() }
}

fn epoch(epoch: u64, rows: impl IntoIterator<Item = i64>) -> EpochOutput {
    EpochOutput {
        dataflow: VIEW,
        epoch,
        offsets: Bytes::from(format!("offset {epoch}")),
        watermark: Some(epoch as i64),
        finished: false,
        state: vec![StatePart { operator: 1, kind: StateKind::Delta, payload: Bytes::from(format!("delta {epoch}")) }],
        rows: vec![(VIEW, numbers(rows))],
        reads: Vec::new(),
    }
}

/// Rows of a table that are in the memtable; nothing is flushed in these tests.
fn rows(catalog: &Catalog, table: ObjectId) -> Vec<i64> {
    let version = catalog.version();
    let segments = version.tables.get(&table).map(|table| table.memtable.segments().to_vec()).unwrap_or_default();
    segments.iter().flat_map(|segment| values(std::slice::from_ref(&segment.changes))).collect()
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn open(store: &Arc<dyn ObjectStore>) -> Result<Arc<Catalog>> {
    Catalog::open(Storage::over(Arc::clone(store), "memory:"), options(), now_us).await
}

/// A store whose `fail_at`-th call fails.
#[derive(Debug)]
struct FaultyStore {
    store: Arc<dyn ObjectStore>,
    calls: AtomicU64,
    fail_at: AtomicU64,
    fault: Fault,
    failed: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The call does nothing and fails; later ones succeed.
    Refused,
    /// The call succeeds and its answer is lost; later ones succeed.
    AnswerLost,
    /// As `Refused`, and so are all later calls: what a kill before the call leaves behind.
    KilledBefore,
    /// As `AnswerLost`, and all later calls are refused: a kill right after the call.
    KilledAfter,
}

impl FaultyStore {
    fn new(store: &Arc<dyn ObjectStore>, fail_at: u64, fault: Fault) -> Arc<FaultyStore> {
        let failed = tokio::sync::watch::channel(false).0;
        Arc::new(FaultyStore {
            store: Arc::clone(store),
            calls: AtomicU64::new(0),
            fail_at: AtomicU64::new(fail_at),
            fault,
            failed,
        })
    }

    /// The call that comes after `calls` more fails.
    fn fail_after(&self, calls: u64) {
        self.fail_at.store(self.calls.load(Ordering::SeqCst) + calls + 1, Ordering::SeqCst);
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    fn error() -> object_store::Error {
        object_store::Error::Generic { store: "faulty", source: "as the test wants it".into() }
    }

    /// Runs a call, or does not, or forgets its answer.
    async fn call<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_at = self.fail_at.load(Ordering::SeqCst);
        let kills = matches!(self.fault, Fault::KilledBefore | Fault::KilledAfter);
        if number == fail_at || (kills && number > fail_at) {
            let lost = matches!(self.fault, Fault::AnswerLost | Fault::KilledAfter) && number == fail_at;
            if lost {
                let _ = call.await;
            }
            self.failed.send_replace(true);
            return Err(Self::error());
        }
        call.await
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.call(self.store.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.call(self.store.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.call(self.store.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.call(self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.call(self.store.copy_opts(from, to, options)).await
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill() {
    let store = memory();
    let catalog = open(&store).await.expect("opens");
    let kinds = [(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)];
    catalog.commit(create(&kinds)).await.expect("creates");
    catalog.commit(insert(TABLE, [1, 2])).await.expect("inserts");
    catalog.submit(epoch(1, [10])).await.expect("answers").expect("commits");
    // Two epochs of one dataflow may wait together.
    let (second, third) = (catalog.submit(epoch(2, [20])), catalog.submit(epoch(3, [30])));
    second.await.expect("answers").expect("commits");
    third.await.expect("answers").expect("commits");
    let id = catalog.next_id();
    catalog.commit(insert(TABLE, [3])).await.expect("inserts");
    drop(catalog);

    let catalog = open(&store).await.expect("opens again");
    assert_eq!(rows(&catalog, TABLE), [1, 2, 3]);
    assert_eq!(rows(&catalog, VIEW), [10, 20, 30]);
    assert!(catalog.next_id() > id);
    let restore = catalog.restore(VIEW).await.expect("reads").expect("has a position");
    assert_eq!((restore.position.epoch, restore.position.offsets.as_ref()), (3, b"offset 3".as_slice()));
    let deltas: Vec<_> = restore.state[&1].iter().map(|part| part.payload.clone()).collect();
    assert_eq!(deltas, ["delta 1", "delta 2", "delta 3"]);
    let name = ObjectName { schema: "freshet".to_owned(), name: "errors".to_owned() };
    assert_eq!(catalog.version().object(&name).map(|object| object.id), Some(ObjectId::ERRORS));
    assert!(catalog.restore(TABLE).await.expect("reads").is_none());
}

#[tokio::test]
async fn what_no_longer_holds_is_refused_whole() {
    let store = memory();
    let catalog = open(&store).await.expect("opens");
    let planned = catalog.version().definitions_version;
    let kinds = [(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)];
    let created = catalog.commit(create(&kinds)).await.expect("creates");
    catalog.commit(insert(TABLE, [1])).await.expect("inserts");
    let refused = [
        Transaction { definitions_version: Some(planned), ..insert(TABLE, [2]) },
        Transaction { unchanged_since: vec![(TABLE, created)], ..insert(TABLE, [3]) },
        create(&[(ObjectId(1002), "w", ObjectKind::View), (ObjectId(1003), "t", ObjectKind::Table)]),
        insert(ObjectId(77), [4]),
        Transaction { definitions: vec![DefinitionChange::Drop(TABLE)], ..insert(TABLE, [5]) },
    ];
    for transaction in refused {
        let shown = format!("{transaction:?}");
        assert!(matches!(catalog.commit(transaction).await, Err(Error::Conflict { .. })), "{shown}");
    }
    for number in [0, 2] {
        let answer = catalog.submit(epoch(number, [9])).await.expect("answers");
        assert!(matches!(answer, Err(Error::Conflict { .. })), "epoch {number}");
    }
    assert_eq!(rows(&catalog, TABLE), [1]);
    assert!(!catalog.version().objects.contains_key(&ObjectId(1002)));
    // Two of one group that exclude each other: one wins.
    let planned = catalog.version().definitions_version;
    let both = |id, name| Transaction { definitions_version: Some(planned), ..create(&[(ObjectId(id), name, ObjectKind::View)]) };
    let (first, second) = tokio::join!(catalog.commit(both(1004, "a")), catalog.commit(both(1005, "b")));
    assert!(first.is_ok() != second.is_ok());
}

#[tokio::test]
async fn truncation_takes_what_came_before_it() {
    let store = memory();
    let catalog = open(&store).await.expect("opens");
    catalog.commit(create(&[(TABLE, "t", ObjectKind::Table)])).await.expect("creates");
    let mut reader = catalog.changes(TABLE, catalog.version().seq).expect("reads");
    catalog.commit(insert(TABLE, [1, 2])).await.expect("inserts");
    catalog.commit(Transaction { truncate: vec![TABLE], ..insert(TABLE, [3]) }).await.expect("truncates");
    assert_eq!(rows(&catalog, TABLE), [3]);
    let first = reader.next().await.expect("reads").expect("a commit");
    assert_eq!((first.truncated, values(&first.changes)), (false, vec![1, 2]));
    let second = reader.next().await.expect("reads").expect("a commit");
    assert_eq!((second.truncated, values(&second.changes)), (true, vec![3]));
    drop(catalog);
    assert_eq!(rows(&*open(&store).await.expect("opens again"), TABLE), [3]);
}

#[tokio::test]
async fn a_replaced_server_stops() {
    let store = memory();
    let old = open(&store).await.expect("opens");
    old.commit(create(&[(TABLE, "t", ObjectKind::Table)])).await.expect("creates");
    let new = open(&store).await.expect("takes over");
    new.commit(insert(TABLE, [1])).await.expect("inserts");
    for _ in 0..2 {
        assert!(matches!(old.commit(insert(TABLE, [2])).await, Err(Error::Fenced { newer: 2 })));
    }
    assert!(old.commit_error().is_some());
    new.commit(insert(TABLE, [3])).await.expect("goes on");
    assert_eq!(rows(&new, TABLE), [1, 3]);
    assert_eq!(rows(&old, TABLE), [] as [i64; 0], "the old one still shows what it knew");
}

#[tokio::test]
async fn a_reader_goes_from_the_log_to_the_tail_and_waits() {
    let store = memory();
    let short = Options { tail_bytes: 1, ..options() };
    let catalog = Catalog::open(Storage::over(Arc::clone(&store), "memory:"), short, now_us).await.expect("opens");
    let kinds = [(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)];
    let created = catalog.commit(create(&kinds)).await.expect("creates");
    for number in 1..=20 {
        catalog.commit(insert(TABLE, [number])).await.expect("inserts");
        catalog.submit(epoch(number as u64, [-number])).await.expect("answers").expect("commits");
    }
    let mut table = catalog.changes(TABLE, created).expect("reads");
    let mut view = catalog.changes(VIEW, created).expect("reads");
    for number in 1..=20 {
        let item = table.next().await.expect("reads").expect("a commit");
        assert_eq!((values(&item.changes), item.watermark), (vec![number], None));
        let item = view.next().await.expect("reads").expect("a commit");
        assert_eq!((values(&item.changes), item.watermark), (vec![-number], Some(number)));
    }
    // The next one is not there yet; it comes with the last epoch.
    let next = tokio::spawn(async move { view.next().await });
    let last = EpochOutput { finished: true, ..epoch(21, []) };
    catalog.submit(last).await.expect("answers").expect("commits");
    let item = next.await.expect("ran").expect("reads").expect("a commit");
    assert!(item.finished && item.changes.is_empty() && item.watermark == Some(21));
    // Dropped: nothing follows.
    catalog
        .commit(Transaction { definitions: vec![DefinitionChange::Drop(TABLE)], ..Transaction::default() })
        .await
        .expect("drops");
    assert!(table.next().await.expect("reads").is_none());
}

#[tokio::test]
async fn a_lost_answer_is_no_second_commit() {
    let store = memory();
    let catalog = open(&store).await.expect("opens");
    catalog.commit(create(&[(TABLE, "t", ObjectKind::Table)])).await.expect("creates");
    drop(catalog);
    for calls in 0..6 {
        let faulty = FaultyStore::new(&store, u64::MAX, Fault::AnswerLost);
        let catalog = open(&(Arc::clone(&faulty) as Arc<dyn ObjectStore>)).await.expect("opens");
        faulty.fail_after(calls);
        let before = rows(&catalog, TABLE).len();
        for number in 0..8 {
            catalog.commit(insert(TABLE, [number])).await.expect("inserts");
        }
        assert_eq!(rows(&catalog, TABLE).len(), before + 8);
        assert!(faulty.has_failed());
        drop(catalog);
        let reopened = open(&store).await.expect("opens again");
        assert_eq!(rows(&reopened, TABLE).len(), before + 8);
    }
}

/// What a step of the scenario is expected to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    table: Vec<i64>,
    view: Vec<i64>,
    epoch: u64,
    deltas: usize,
}

const STEPS: usize = 12;

/// One acknowledged step, and what it does to the model.
async fn step(catalog: &Catalog, number: usize) -> Result<Seq> {
    let n = number as i64;
    match number {
        0 => catalog.commit(create(&[(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)])).await,
        5 => catalog.commit(Transaction { truncate: vec![TABLE], ..insert(TABLE, [n]) }).await,
        n_even if n_even % 2 == 0 => catalog.submit(epoch(number as u64 / 2, [n, n])).await.map_err(|_| Error::Closed)?,
        _ => catalog.commit(insert(TABLE, [n, n + 100])).await,
    }
}

fn model(steps: usize) -> State {
    let mut state = State::default();
    for number in 0..steps {
        let n = number as i64;
        match number {
            0 => {}
            5 => state.table = vec![n],
            even if even % 2 == 0 => {
                state.view.extend([n, n]);
                state.epoch += 1;
                state.deltas += 1;
            }
            _ => state.table.extend([n, n + 100]),
        }
    }
    state
}

async fn state_of(catalog: &Catalog) -> State {
    let restore = catalog.restore(VIEW).await.expect("state can be read");
    State {
        table: rows(catalog, TABLE),
        view: rows(catalog, VIEW),
        epoch: restore.as_ref().map_or(0, |restore| restore.position.epoch),
        deltas: restore.map_or(0, |restore| restore.state.values().map(Vec::len).sum()),
    }
}

/// Runs the scenario until its end or the kill; returns the number of acknowledged steps and whether the fault came.
async fn run_with_fault(fail_at: u64, fault: Fault) -> (Arc<dyn ObjectStore>, usize, bool) {
    let store = memory();
    let faulty = FaultyStore::new(&store, fail_at, fault);
    let kills = matches!(fault, Fault::KilledBefore | Fault::KilledAfter);
    let mut failed = faulty.failed.subscribe();
    let acknowledged = AtomicU64::new(0);
    let scenario = async {
        // Opened twice, so that recovery too is met by the fault.
        for half in 0..2 {
            let catalog = open(&(Arc::clone(&faulty) as Arc<dyn ObjectStore>)).await?;
            for number in half * STEPS / 2..(half + 1) * STEPS / 2 {
                step(&catalog, number).await?;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok::<(), Error>(())
    };
    tokio::select! {
        result = scenario => {
            // Opening may give up with an error; a step never does: it waits for the store.
            assert!(result.is_ok() || faulty.has_failed());
        }
        _ = failed.wait_for(|failed| *failed && kills) => {}
    }
    (store, acknowledged.load(Ordering::SeqCst) as usize, faulty.has_failed())
}

#[tokio::test]
async fn every_fault_of_the_store_leaves_whole_commits() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::KilledBefore, Fault::KilledAfter] {
        let mut fail_at = 1;
        loop {
            // Side by side, because a refused commit is tried again only after a while.
            let runs = futures::future::join_all((fail_at..fail_at + 16).map(|at| run_with_fault(at, fault))).await;
            let mut clean = false;
            for (store, acknowledged, failed) in runs {
                let catalog = open(&store).await.expect("opens after every fault");
                let found = state_of(&catalog).await;
                assert!(
                    found == model(acknowledged) || found == model(acknowledged + 1),
                    "{fault:?} at {fail_at}..: {acknowledged} acknowledged, {found:?}"
                );
                clean |= !failed;
                if !failed {
                    assert_eq!(acknowledged, STEPS);
                }
            }
            if clean {
                break;
            }
            fail_at += 16;
        }
        assert!(fail_at > 1 || STEPS < 16);
    }
}
