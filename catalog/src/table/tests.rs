//! What the tests of this folder share, and tables lived through whole: every answer is compared with a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, Int8Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::compaction::full_compaction;
use super::{
    CompactionSpec, FileEdit, FileSet, Memtable, Retention, TableSchema, TableSnapshot, check, compact, compaction, create,
    expire, flush, publish, snapshot,
};
use crate::{Changes, DELETE, Definition, INSERT, ObjectId, ObjectKind, ObjectName, Seq, Storage};

/// An empty store.
pub(crate) fn memory() -> Storage {
    Storage::over(Arc::new(InMemory::new()), "memory")
}

/// A table.
pub(crate) fn definition(name: &str, columns: Vec<Field>, key: &[&str]) -> Definition {
    Definition {
        id: ObjectId::FIRST_USER,
        name: ObjectName { schema: "public".into(), name: name.into() },
        kind: ObjectKind::Table,
        sql: String::new(),
        schema: Arc::new(Schema::new(columns)),
        primary_key: key.iter().map(|column| (*column).to_owned()).collect(),
        options: BTreeMap::new(),
        depends_on: Vec::new(),
        created_us: 0,
        comment: None,
        paused: false,
        watermark: None,
    }
}

/// A fixed row of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit
    }
}

/// One row of the tables under test, of every type that tables can hold and that matters here.
#[derive(Debug, Clone)]
struct Row {
    quantity: Option<i64>,
    name: String,
    id: i32,
    at: Option<i64>,
    price: Option<i128>,
    tags: Option<Vec<String>>,
    raw: Option<Vec<u8>>,
}

impl Row {
    fn random(random: &mut Random, keys: u64) -> Row {
        let id = random.below(keys);
        let some = |random: &mut Random| random.below(4) > 0;
        Row {
            quantity: some(random).then(|| random.below(100) as i64 - 50),
            name: format!("name {:03}", id / 7),
            id: id as i32 - 20,
            at: some(random).then(|| random.below(1 << 50) as i64 - (1 << 49)),
            price: some(random).then(|| i128::from(random.below(u64::MAX)) * 1_000_003 - (1 << 82)),
            tags: some(random).then(|| (0..random.below(3)).map(|tag| format!("tag {tag}")).collect()),
            raw: some(random).then(|| vec![id as u8; random.below(12) as usize]),
        }
    }

    fn key(&self) -> (String, i32) {
        (self.name.clone(), self.id)
    }
}

fn columns() -> Vec<Field> {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        Field::new("quantity", DataType::Int64, true),
        Field::new("name", DataType::Utf8, false),
        Field::new("id", DataType::Int32, false),
        Field::new("at", zoned, true),
        Field::new("price", DataType::Decimal128(38, 10), true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("raw", DataType::Binary, true),
    ]
}

fn batch(rows: &[Row]) -> RecordBatch {
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in rows {
        match &row.tags {
            Some(texts) => {
                texts.iter().for_each(|text| tags.values().append_value(text));
                tags.append(true);
            }
            None => tags.append_null(),
        }
    }
    let prices: Decimal128Array = rows.iter().map(|row| row.price).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.quantity).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.name.as_str())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.at).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(prices.with_precision_and_scale(38, 10).expect("fits")),
        Arc::new(tags.finish()),
        Arc::new(rows.iter().map(|row| row.raw.as_deref()).collect::<BinaryArray>()),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(columns())), arrays).expect("the columns above")
}

/// What the catalog does with a table, without a log.
struct Table {
    storage: Storage,
    schema: Arc<TableSchema>,
    memtable: Memtable,
    files: Arc<FileSet>,
    seq: u64,
}

impl Table {
    async fn create(storage: Storage, key: &[&str]) -> Table {
        let schema =
            TableSchema::of(&definition(if key.is_empty() { "events" } else { "orders" }, columns(), key)).expect("supported");
        create(&storage, &schema, 1).await.expect("created");
        Table { storage, schema: Arc::new(schema), memtable: Memtable::default(), files: Arc::default(), seq: 0 }
    }

    fn commit(&mut self, changes: Changes) {
        self.seq += 1;
        self.memtable.push(Seq(self.seq), changes);
    }

    async fn apply(&mut self, edit: FileEdit) {
        assert!(self.files.admits(&edit));
        self.seq += 1;
        // Through JSON, as the log keeps it.
        let json = serde_json::to_string(&edit).expect("an edit is JSON");
        let edit: FileEdit = serde_json::from_str(&json).expect("what was written");
        self.files = Arc::new(self.files.apply(&edit));
        if let Some(up_to) = edit.up_to {
            self.memtable.trim(up_to);
        }
        let publish = || publish(&self.storage, &self.schema, "user", Seq(self.seq), &edit, self.now());
        let id = publish().await.expect("published");
        assert_eq!(publish().await.expect("published before"), id, "publishing is idempotent");
    }

    fn now(&self) -> i64 {
        1_800_000_000_000_000 + self.seq as i64 * 1_000_000
    }

    async fn flush(&mut self) {
        let edit =
            flush(&self.storage, &self.schema, &self.memtable, self.files.next_sequence(), self.now()).await.expect("flushed");
        self.apply(edit).await;
    }

    async fn compact(&mut self, spec: Option<CompactionSpec>) {
        if let Some(spec) = spec {
            let edit = compact(&self.storage, &self.schema, &spec, self.now()).await.expect("compacted");
            self.apply(edit).await;
        }
    }

    fn snapshot(&self) -> TableSnapshot {
        let (schema, memtable, files) = (self.schema.clone(), self.memtable.clone(), self.files.clone());
        TableSnapshot { schema, memtable, files, storage: self.storage.clone() }
    }

    /// Every kind of scan gives what the rows give when they are an ordinary table in memory.
    async fn assert_holds(&self, rows: &[Row]) {
        let expected = SessionContext::new();
        expected.register_batch("t", batch(rows)).expect("registered");
        let small = self.snapshot();
        let large = TableSnapshot { files: Arc::new(self.files.always_from_files()), ..small.clone() };
        let contexts = [context(&small, false), context(&large, false), context(&large, true)];
        for sql in [
            "select * from t order by name, id, quantity, at, price",
            "select count(*), sum(id) from t",
            "select count(*) from t",
            "select quantity, raw from t where quantity > 10 order by quantity, id, at, price",
            "select tags from t where name = 'name 003' and id < 8 and price is not null order by id, at, price",
            "select name, count(*) from t where at is null group by name order by name",
            "select count(*) from (select * from t limit 3)",
        ] {
            let expected = answer(&expected, sql).await;
            for (number, context) in contexts.iter().enumerate() {
                assert_eq!(answer(context, sql).await, expected, "{sql} in context {number}");
            }
        }
        let findings = check(&self.storage, &self.schema, &self.files).await;
        assert_eq!(findings, []);
    }
}

fn context(snapshot: &TableSnapshot, filters_in_scan: bool) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(3).with_batch_size(64);
    config.options_mut().execution.parquet.pushdown_filters = filters_in_scan;
    config.options_mut().optimizer.repartition_file_min_size = 1;
    let context = SessionContext::new_with_config(config);
    context.register_table("t", snapshot.provider()).expect("registered");
    context
}

async fn answer(context: &SessionContext, sql: &str) -> String {
    let batches = context.sql(sql).await.expect("valid").collect().await.expect("answered");
    pretty_format_batches(&batches).expect("printable").to_string()
}

#[tokio::test]
async fn a_keyed_table_equals_a_map_through_flushes_and_compactions() {
    for seed in 0..2 {
        let mut random = Random(seed);
        let mut table = Table::create(memory(), &["name", "id"]).await;
        let mut model: BTreeMap<(String, i32), Row> = BTreeMap::new();
        table.assert_holds(&[]).await;
        for step in 0..30 {
            let (mut rows, mut kinds) = (Vec::new(), Vec::new());
            for _ in 0..random.below(150) {
                let row = Row::random(&mut random, 300);
                let old = model.get(&row.key()).cloned();
                if let Some(old) = old {
                    rows.push(old);
                    kinds.push(DELETE);
                }
                if random.below(3) == 0 {
                    model.remove(&row.key());
                } else {
                    model.insert(row.key(), row.clone());
                    rows.push(row);
                    kinds.push(INSERT);
                }
            }
            table.commit(Changes::new(batch(&rows), Int8Array::from(kinds)));
            match random.below(6) {
                0..3 => table.flush().await,
                3 => table.compact(compaction(&table.files, &table.schema)).await,
                4 if step % 3 == 0 => table.compact(full_compaction(&table.files, &table.schema)).await,
                _ => {}
            }
            if step % 6 == 5 {
                table.assert_holds(&model.values().cloned().collect::<Vec<_>>()).await;
            }
        }
        table.flush().await;
        table.compact(full_compaction(&table.files, &table.schema)).await;
        let rows: Vec<_> = model.into_values().collect();
        table.assert_holds(&rows).await;
        assert_eq!(table.files.rows(), rows.len() as u64, "a full compaction leaves live rows only");
        assert!(full_compaction(&table.files, &table.schema).is_none());
    }
}

#[tokio::test]
async fn an_append_table_keeps_every_row_in_few_files() {
    let mut random = Random(7);
    let mut table = Table::create(memory(), &[]).await;
    let mut model = Vec::new();
    for step in 0..50 {
        let rows: Vec<_> = (0..random.below(50)).map(|_| Row::random(&mut random, 300)).collect();
        model.extend(rows.clone());
        table.commit(Changes::append(batch(&rows)));
        if random.below(3) > 0 {
            table.flush().await;
        }
        table.compact(compaction(&table.files, &table.schema)).await;
        assert!(table.files.iter().len() < 5);
        if step % 10 == 0 {
            table.assert_holds(&model).await;
        }
    }
    table.flush().await;
    table.assert_holds(&model).await;
}

#[tokio::test]
async fn snapshots_say_what_is_live_however_many_there_are() {
    let mut table = Table::create(memory(), &[]).await;
    let mut random = Random(1);
    for _ in 0..40 {
        table.commit(Changes::append(batch(&[Row::random(&mut random, 10)])));
        table.flush().await;
    }
    table.compact(compaction(&table.files, &table.schema)).await;
    let newest = snapshot::latest(&table.storage, &table.schema).await.expect("readable").expect("published");
    assert_eq!(newest.id, 41);
    let published = snapshot::live_files(&table.storage, &table.schema, &newest).await.expect("readable");
    let mut published: Vec<_> = published.into_iter().map(|entry| entry.file).collect();
    let mut live = table.files.to_vec();
    for files in [&mut published, &mut live] {
        files.sort_by(|left, right| left.name.cmp(&right.name));
        files.iter_mut().for_each(|file| file.creation_us = 0);
    }
    // Paimon's manifests have no place for checksums.
    assert!(live.iter().all(|file| file.checksum.is_some()));
    live.iter_mut().for_each(|file| file.checksum = None);
    assert_eq!(published, live);
    let manifests = snapshot::all_manifests(&table.storage, &table.schema, &newest).await.expect("readable");
    assert!(manifests.len() < 30, "{} manifests", manifests.len());
}

#[tokio::test]
async fn a_snapshot_of_another_writer_is_built_upon() {
    let mut table = Table::create(memory(), &[]).await;
    let mut random = Random(1);
    table.commit(Changes::append(batch(&[Row::random(&mut random, 10)])));
    table.flush().await;
    let ours =
        table.storage.store.get(&snapshot::snapshot_path(&table.schema, 1)).await.expect("there").bytes().await.expect("read");
    let theirs =
        String::from_utf8(ours.to_vec()).expect("JSON").replace("\"user\"", "\"another\"").replace("\"id\": 1,", "\"id\": 2,");
    table.storage.store.put(&snapshot::snapshot_path(&table.schema, 2), theirs.into()).await.expect("put");
    table.commit(Changes::append(batch(&[Row::random(&mut random, 10)])));
    table.flush().await;
    let newest = snapshot::latest(&table.storage, &table.schema).await.expect("readable").expect("published");
    assert_eq!(newest.id, 3, "the stale hint and the foreign snapshot are seen");
}

/// The groups of a view may have NULL in their key.
#[tokio::test]
async fn null_is_a_key_like_others() {
    let mut table = Table::create(memory(), &["quantity"]).await;
    let mut random = Random(2);
    let mut rows = |keys: [Option<i64>; 2]| keys.map(|quantity| Row { quantity, ..Row::random(&mut random, 100) });
    let (old, new) = (rows([Some(1), None]), rows([None, Some(2)]));
    for rows in [&old, &new] {
        table.commit(Changes::append(batch(rows)));
        table.flush().await;
    }
    let [left, _] = old;
    let [replaced, added] = new;
    let expected = [left, replaced, added];
    table.assert_holds(&expected).await;
    table.compact(full_compaction(&table.files, &table.schema)).await;
    table.assert_holds(&expected).await;
}

#[tokio::test]
async fn truncation_empties_a_table() {
    let mut table = Table::create(memory(), &["name", "id"]).await;
    let mut random = Random(1);
    for _ in 0..3 {
        table.commit(Changes::append(batch(&[Row::random(&mut random, 1000)])));
        table.flush().await;
    }
    let edit = FileEdit::truncate(table.schema.id, &table.files, Seq(table.seq));
    table.apply(edit).await;
    table.assert_holds(&[]).await;
    let newest = snapshot::latest(&table.storage, &table.schema).await.expect("readable").expect("published");
    assert_eq!(snapshot::live_files(&table.storage, &table.schema, &newest).await.expect("readable"), []);
}

#[tokio::test]
async fn expiry_leaves_what_somebody_needs() {
    let mut table = Table::create(memory(), &["name", "id"]).await;
    let mut random = Random(3);
    let mut model = BTreeMap::new();
    let mut held = None;
    let retention = Retention { snapshots_min: 3, age_us: 0 };
    for step in 0..40 {
        let row = Row::random(&mut random, 30);
        model.insert(row.key(), row.clone());
        table.commit(Changes::append(batch(&[row])));
        table.flush().await;
        table.compact(compaction(&table.files, &table.schema)).await;
        if step == 20 {
            table.files = Arc::new(table.files.always_from_files());
            held =
                Some((table.snapshot(), answer(&context(&table.snapshot(), false), "select * from t order by name, id").await));
        }
        expire(&table.storage, &table.schema, retention, &table.files, table.now() + 1).await.expect("expired");
        if step % 10 == 9 {
            table.assert_holds(&model.values().cloned().collect::<Vec<_>>()).await;
        }
    }
    let (snapshot, before) = held.take().expect("was taken");
    assert_eq!(answer(&context(&snapshot, false), "select * from t order by name, id").await, before, "a reader keeps its files");
    drop(snapshot);
    expire(&table.storage, &table.schema, retention, &table.files, table.now() + 1).await.expect("expired");

    assert_eq!(snapshot::snapshot_ids(&table.storage, &table.schema).await.expect("listed").len(), 3);
    let mut needed = std::collections::HashSet::new();
    for id in snapshot::snapshot_ids(&table.storage, &table.schema).await.expect("listed") {
        let snapshot = snapshot::read_snapshot(&table.storage, &table.schema, id).await.expect("readable").expect("there");
        needed.extend([snapshot.base_manifest_list.clone(), snapshot.delta_manifest_list.clone()]);
        needed.extend(
            snapshot::all_manifests(&table.storage, &table.schema, &snapshot)
                .await
                .expect("readable")
                .into_iter()
                .map(|m| m.name),
        );
        needed.extend(
            snapshot::live_files(&table.storage, &table.schema, &snapshot)
                .await
                .expect("readable")
                .into_iter()
                .map(|e| e.file.name),
        );
    }
    let listed: Vec<_> = table.storage.store.list(None).try_collect().await.expect("listed");
    let names = listed.iter().filter_map(|object| object.location.filename());
    let unneeded: Vec<_> =
        names.filter(|name| (name.starts_with("data-") || name.starts_with("manifest")) && !needed.contains(*name)).collect();
    assert_eq!(unneeded, [""; 0], "no orphan is left");
}

#[tokio::test]
async fn damage_is_found() {
    let mut table = Table::create(memory(), &["name", "id"]).await;
    let mut random = Random(3);
    for _ in 0..2 {
        table.commit(Changes::append(batch(&[Row::random(&mut random, 30), Row::random(&mut random, 30)])));
        table.flush().await;
    }
    let paths: Vec<_> = table.files.iter().map(|file| table.schema.data_file(&file.name)).collect();
    table.storage.store.delete(&paths[0]).await.expect("deleted");
    table.storage.store.put(&paths[1], "short".into()).await.expect("put");
    let findings = check(&table.storage, &table.schema, &table.files).await;
    let damaged: Vec<_> = findings.iter().map(|finding| finding.path.clone()).collect();
    assert_eq!(damaged, paths.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(findings[1].problem.contains("5 bytes"), "{findings:?}");
}
