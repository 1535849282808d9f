//! The facade over a store in memory, and over one that fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
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

/// Rows of a table, as a query sees them, sorted.
async fn rows(catalog: &Catalog, table: ObjectId) -> Vec<i64> {
    let Some(provider) = catalog.version().table(table) else { return Vec::new() };
    let batches = SessionContext::new().read_table(provider).expect("a table").collect().await.expect("scans");
    let mut rows = values(&batches.into_iter().map(Changes::append).collect::<Vec<_>>());
    rows.sort_unstable();
    rows
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
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
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
    fn over(store: &Arc<dyn ObjectStore>, fail_at: u64, fault: Fault) -> (Arc<dyn ObjectStore>, Arc<Faults>) {
        let failed = tokio::sync::watch::channel(false).0;
        let faults = Arc::new(Faults { calls: AtomicU64::new(0), fail_at: AtomicU64::new(fail_at), fault, failed });
        (Arc::new(FaultyStore { store: Arc::clone(store), faults: Arc::clone(&faults) }), faults)
    }
}

impl Faults {
    /// The call that comes after `calls` more fails.
    fn fail_after(&self, calls: u64) {
        self.fail_at.store(self.calls.load(Ordering::SeqCst) + calls + 1, Ordering::SeqCst);
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Runs a call, or does not, or forgets its answer.
    async fn call<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_at = self.fail_at.load(Ordering::SeqCst);
        let kills = matches!(self.fault, Fault::KilledBefore | Fault::KilledAfter);
        if number == fail_at || (kills && number > fail_at) {
            if matches!(self.fault, Fault::AnswerLost | Fault::KilledAfter) && number == fail_at {
                let _ = call.await;
            }
            self.failed.send_replace(true);
            return Err(object_store::Error::Generic { store: "faulty", source: "as the test wants it".into() });
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
        self.faults.call(self.store.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.faults.call(self.store.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.faults.call(self.store.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let (store, faults) = (Arc::clone(&self.store), Arc::clone(&self.faults));
        let delete = move |location: object_store::Result<Path>| {
            let (store, faults) = (Arc::clone(&store), Arc::clone(&faults));
            async move {
                let location = location?;
                faults.call(store.delete(&location)).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (listed, faults) = (self.store.list(prefix), Arc::clone(&self.faults));
        let checked = async move { faults.call(async { Ok(listed) }).await };
        futures::stream::once(checked).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.faults.call(self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.faults.call(self.store.copy_opts(from, to, options)).await
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
    assert_eq!(rows(&catalog, TABLE).await, [1, 2, 3]);
    assert_eq!(rows(&catalog, VIEW).await, [10, 20, 30]);
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
    assert_eq!(rows(&catalog, TABLE).await, [1]);
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
    assert_eq!(rows(&catalog, TABLE).await, [3]);
    let first = reader.next().await.expect("reads").expect("a commit");
    assert_eq!((first.truncated, values(&first.changes)), (false, vec![1, 2]));
    let second = reader.next().await.expect("reads").expect("a commit");
    assert_eq!((second.truncated, values(&second.changes)), (true, vec![3]));
    drop(catalog);
    assert_eq!(rows(&open(&store).await.expect("opens again"), TABLE).await, [3]);
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
    assert_eq!(rows(&new, TABLE).await, [1, 3]);
    assert_eq!(rows(&old, TABLE).await, [] as [i64; 0], "the old one still shows what it knew");
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
        let (faulty, faults) = FaultyStore::over(&store, u64::MAX, Fault::AnswerLost);
        let catalog = open(&faulty).await.expect("opens");
        faults.fail_after(calls);
        let before = rows(&catalog, TABLE).await.len();
        for number in 0..8 {
            catalog.commit(insert(TABLE, [number])).await.expect("inserts");
        }
        assert_eq!(rows(&catalog, TABLE).await.len(), before + 8);
        assert!(faults.has_failed());
        drop(catalog);
        let reopened = open(&store).await.expect("opens again");
        assert_eq!(rows(&reopened, TABLE).await.len(), before + 8);
    }
}

#[tokio::test]
async fn a_vanished_store_stops_commits_and_nothing_else() {
    let store = memory();
    let (faulty, faults) = FaultyStore::over(&store, u64::MAX, Fault::KilledBefore);
    let catalog = open(&faulty).await.expect("opens");
    catalog.commit(create(&[(TABLE, "t", ObjectKind::Table)])).await.expect("creates");
    catalog.commit(insert(TABLE, [1])).await.expect("inserts");
    faults.fail_after(0);
    let waiting = tokio::spawn({
        let catalog = Arc::clone(&catalog);
        async move { catalog.commit(insert(TABLE, [2])).await }
    });
    let why = loop {
        match catalog.commit_error() {
            Some(why) => break why,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(why.contains("as the test wants it"), "{why}");
    assert_eq!(rows(&catalog, TABLE).await, [1], "queries go on");
    faults.fail_at.store(u64::MAX, Ordering::SeqCst);
    waiting.await.expect("ran").expect("commits when the store is back");
    assert_eq!((rows(&catalog, TABLE).await, catalog.commit_error()), (vec![1, 2], None));
}

#[tokio::test]
async fn a_local_directory_has_one_server() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("data").display().to_string();
    let open = || async { Catalog::open(Storage::open(&path, &BTreeMap::new())?, options(), now_us).await };
    let catalog = open().await.expect("opens");
    catalog.commit(create(&[(TABLE, "t", ObjectKind::Table)])).await.expect("creates");
    catalog.commit(insert(TABLE, [1])).await.expect("inserts");
    catalog.flush().await.expect("flushes");
    catalog.commit(insert(TABLE, [2])).await.expect("inserts");
    assert!(matches!(open().await, Err(Error::InUse { .. })));
    let storage = Storage::open(&path, &BTreeMap::new()).expect("opens");
    assert!(matches!(Catalog::check(&storage).await, Err(Error::InUse { .. })));
    drop(catalog);
    assert_eq!(Catalog::check(&storage).await.expect("lists"), []);
    assert_eq!(rows(&open().await.expect("opens again"), TABLE).await, [1, 2]);
}

/// What a step of the scenario is expected to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    table: Vec<i64>,
    view: Vec<i64>,
    epoch: u64,
    state: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Insert(i64),
    Truncate(i64),
    Epoch(StateKind),
    Flush,
    Compact,
    /// A clean stop, which writes a manifest, and a new start.
    Reopen,
}

const SCENARIO: [Step; 21] = [
    Step::Create,
    Step::Insert(1),
    Step::Epoch(StateKind::Delta),
    Step::Flush,
    Step::Epoch(StateKind::Image),
    Step::Insert(2),
    Step::Reopen,
    Step::Insert(3),
    Step::Flush,
    Step::Truncate(4),
    Step::Epoch(StateKind::Delta),
    Step::Reopen,
    Step::Insert(5),
    Step::Flush,
    Step::Insert(6),
    Step::Epoch(StateKind::Delta),
    Step::Reopen,
    Step::Flush,
    Step::Compact,
    Step::Epoch(StateKind::Image),
    Step::Reopen,
];

/// The state after the first `steps`.
fn model(steps: usize) -> State {
    let mut state = State::default();
    for step in &SCENARIO[..steps] {
        match step {
            Step::Insert(n) => state.table.extend([*n, n + 100]),
            Step::Truncate(n) => state.table = vec![*n],
            Step::Epoch(kind) => {
                state.epoch += 1;
                state.view.push(state.epoch as i64);
                if *kind == StateKind::Image {
                    state.state.clear();
                }
                state.state.push(format!("{kind:?} {}", state.epoch));
            }
            Step::Create | Step::Flush | Step::Compact | Step::Reopen => {}
        }
    }
    state.table.sort_unstable();
    state
}

async fn state_of(catalog: &Catalog) -> State {
    let restore = catalog.restore(VIEW).await.expect("state can be read");
    let parts = restore.iter().flat_map(|restore| restore.state.values().flatten());
    State {
        table: rows(catalog, TABLE).await,
        view: rows(catalog, VIEW).await,
        epoch: restore.as_ref().map_or(0, |restore| restore.position.epoch),
        state: parts.map(|part| String::from_utf8_lossy(&part.payload).into_owned()).collect(),
    }
}

/// Runs the scenario; counts the acknowledged steps.
async fn run_scenario(store: &Arc<dyn ObjectStore>, acknowledged: &AtomicU64) -> Result<()> {
    let mut catalog = open(store).await?;
    let mut epochs = 0;
    for step in SCENARIO {
        match step {
            Step::Create => {
                let kinds = [(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)];
                catalog.commit(create(&kinds)).await.map(drop)?;
            }
            Step::Insert(n) => catalog.commit(insert(TABLE, [n, n + 100])).await.map(drop)?,
            Step::Truncate(n) => {
                catalog.commit(Transaction { truncate: vec![TABLE], ..insert(TABLE, [n]) }).await.map(drop)?;
            }
            Step::Epoch(kind) => {
                epochs += 1;
                let payload = Bytes::from(format!("{kind:?} {epochs}"));
                let state = vec![StatePart { operator: 1, kind, payload }];
                let output = EpochOutput { state, ..epoch(epochs, [epochs as i64]) };
                catalog.submit(output).await.map_err(|_| Error::Closed)?.map(drop)?;
            }
            Step::Flush => catalog.flush().await?,
            Step::Compact => catalog.compact().await?,
            Step::Reopen => {
                catalog.close().await?;
                drop(catalog);
                catalog = open(store).await?;
            }
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Runs the scenario until its end or the kill; returns the store, the number of acknowledged steps and whether the fault came.
async fn run_with_fault(fail_at: u64, fault: Fault) -> (Arc<dyn ObjectStore>, usize, bool) {
    let store = memory();
    let (faulty, faults) = FaultyStore::over(&store, fail_at, fault);
    let kills = matches!(fault, Fault::KilledBefore | Fault::KilledAfter);
    let mut failed = faults.failed.subscribe();
    let acknowledged = AtomicU64::new(0);
    tokio::select! {
        result = run_scenario(&faulty, &acknowledged) => {
            // Opening may give up with an error; everything else waits for the store.
            assert!(matches!(result, Ok(()) | Err(Error::Store { .. })), "{result:?}");
            assert!(result.is_ok() || faults.has_failed());
        }
        _ = failed.wait_for(|failed| *failed && kills) => {}
    }
    (store, acknowledged.load(Ordering::SeqCst) as usize, faults.has_failed())
}

#[tokio::test]
async fn every_fault_of_the_store_leaves_whole_commits() {
    // Side by side, because what was refused is tried again only after a while.
    const RUNS: u64 = 48;
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::KilledBefore, Fault::KilledAfter] {
        let mut first = 1;
        loop {
            let runs = futures::future::join_all((first..first + RUNS).map(|at| run_with_fault(at, fault))).await;
            let mut clean = false;
            for (at, (store, acknowledged, failed)) in (first..).zip(runs) {
                let catalog = open(&store).await.expect("opens after every fault");
                let found = state_of(&catalog).await;
                let next = (acknowledged + 1).min(SCENARIO.len());
                assert!(
                    found == model(acknowledged) || found == model(next),
                    "{fault:?} at call {at}: {acknowledged} acknowledged, {found:?}"
                );
                drop(catalog);
                assert_eq!(Catalog::check(&Storage::over(store, "memory:")).await.expect("lists"), [], "{fault:?} at call {at}");
                clean |= !failed;
            }
            if clean {
                break;
            }
            first += RUNS;
        }
    }
}

#[tokio::test]
async fn what_nobody_needs_is_deleted_and_the_rest_can_be_read() {
    let store = memory();
    let large = |epoch_number: u64| {
        let payload = Bytes::from(vec![epoch_number as u8; 5 << 20]);
        let state = vec![StatePart { operator: 1, kind: StateKind::Image, payload }];
        EpochOutput { state, ..epoch(epoch_number, [epoch_number as i64]) }
    };
    let names = async |folder: &'static str| -> Vec<String> {
        let listed = store.list(Some(&Path::from(folder))).map_ok(|object| object.location.to_string());
        listed.try_collect().await.expect("lists")
    };
    let catalog = open(&store).await.expect("opens");
    catalog.commit(create(&[(TABLE, "t", ObjectKind::Table), (VIEW, "v", ObjectKind::StreamingView)])).await.expect("creates");
    let mut follower = catalog.changes(TABLE, catalog.version().seq).expect("reads");
    catalog.commit(insert(TABLE, [1])).await.expect("inserts");
    catalog.close().await.expect("closes");
    assert!(catalog.commit(insert(TABLE, [2])).await.is_err(), "closed");
    let _ = follower.next().await;
    for number in 1..=4 {
        let catalog = open(&store).await.expect("opens again");
        catalog.submit(large(number)).await.expect("answers").expect("commits");
        catalog.flush().await.expect("flushes");
        catalog.close().await.expect("closes");
        let restored = catalog.restore(VIEW).await.expect("reads").expect("stands somewhere");
        assert_eq!(restored.state[&1].first().map(|part| part.payload[0]), Some(number as u8));
    }
    assert_eq!(names("manifest").await.len(), 2);
    assert_eq!(names("state").await.len(), 2, "the images of the two manifests");
    let log = names("log").await;
    // Five fences, and what the two newest manifests need.
    assert!(log.len() < 12, "{log:?}");
    let catalog = open(&store).await.expect("opens at last");
    assert_eq!((rows(&catalog, TABLE).await, rows(&catalog, VIEW).await), (vec![1], vec![1, 2, 3, 4]));
    assert!(matches!(catalog.changes(VIEW, Seq(0)), Err(Error::TooOld { .. })));
    // Nothing happened to this table since, so a reader from long ago misses nothing.
    assert!(catalog.changes(TABLE, Seq(3)).is_ok());
    drop(catalog);
    assert_eq!(Catalog::check(&Storage::over(Arc::clone(&store), "memory:")).await.expect("lists"), []);
    // A damaged newest manifest: the one before it serves. A damaged commit is named.
    let newest = Path::from(names("manifest").await.pop().expect("two"));
    store.put(&newest, Bytes::from_static(b"FRESHMAN").into()).await.expect("writes");
    let found = Catalog::check(&Storage::over(Arc::clone(&store), "memory:")).await.expect("lists");
    assert_eq!(found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(), [newest.as_ref()]);
    let catalog = open(&store).await.expect("opens with the older manifest");
    assert_eq!((rows(&catalog, TABLE).await, rows(&catalog, VIEW).await), (vec![1], vec![1, 2, 3, 4]));
    let last = Path::from(names("log").await.pop().expect("some"));
    drop(catalog);
    store.put(&last, Bytes::from_static(b"FRESHLOG").into()).await.expect("writes");
    assert!(matches!(open(&store).await, Err(Error::Corrupt { path, .. }) if path == last.as_ref()));
}
