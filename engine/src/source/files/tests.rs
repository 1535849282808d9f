//! Files: exact resumption, side by side, watched, and paths that are wrong.

use std::io::Write;

use arrow::datatypes::DataType;

use super::*;
use crate::source::testing::{Taken, column, connector, metadata, node, timestamp};

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("freshet-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    fn write(&self, name: &str, text: &[u8]) {
        std::fs::write(self.path(name), text).expect("a writable directory");
    }

    fn append(&self, name: &str, text: &[u8]) {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.path(name)).expect("the file");
        file.write_all(text).expect("a writable file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn events(folder: &Folder, pattern: &str, mode: &str) -> SourceNode {
    let columns = vec![column("n", DataType::Int64), column("at", timestamp()), metadata("path", "path", DataType::Utf8)];
    node(connector("files", &[("path", &folder.path(pattern)), ("mode", mode)]), columns, Some("at"))
}

fn line(n: i64) -> String {
    format!("{{\"n\":{n},\"at\":{}}}\n", n * 1000)
}

#[test]
fn resumed_at_every_offset_the_rows_are_the_same() {
    let folder = Folder::new("resume");
    // More than a block of 1 MiB in each file, a bad line here and there, no line feed at the end.
    for part in 0..2 {
        let lines: String =
            (0..30_000).map(|n| if n % 5000 == 7 { "{\"n\":x}\n".to_owned() } else { line(n * 2 + part) }).collect();
        folder.write(&format!("part-{part}.jsonl"), lines.trim_end().as_bytes());
    }
    let node = events(&folder, "*.jsonl", "bounded");
    let mut whole = Taken::default();
    let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("files are there");
    whole.until(&mut reader, |taken| taken.finished.len() == 2);
    assert_eq!((whole.rows(), whole.errors.len()), (2 * 29_994, 12));
    assert!(whole.errors.iter().all(|error| error.sqlstate == "22P02" && error.payload == b"{\"n\":x}"));
    for cut in 0..whole.batches.len() {
        let mut taken = Taken::default();
        let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("files are there");
        taken.until(&mut reader, |taken| taken.batches.len() == cut);
        let mut reader = FilesReader::open(&node, &taken.offsets).expect("files are there");
        taken.until(&mut reader, |taken| taken.finished.len() == 2);
        assert_eq!(taken.sorted(), whole.sorted(), "cut after {cut}");
        assert_eq!(taken.errors.len(), 12, "cut after {cut}");
    }
}

#[test]
fn the_split_that_lags_in_event_time_goes_first() {
    let folder = Folder::new("lag");
    let lines = |step: i64| (0..40_000).map(|n| line(n * step)).collect::<String>();
    folder.write("fast.jsonl", lines(10).as_bytes());
    folder.write("slow.jsonl", lines(1).as_bytes());
    let mut taken = Taken::default();
    let node = events(&folder, "*.jsonl", "bounded");
    let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("files are there");
    taken.until(&mut reader, |taken| taken.finished.len() == 1);
    let fast = taken.batches.iter().filter(|(split, _)| split.ends_with("fast.jsonl")).count();
    assert_eq!((fast, taken.finished[0].ends_with("slow.jsonl")), (1, true));
}

#[test]
fn watched_files_grow_and_new_ones_join() {
    let folder = Folder::new("watch");
    folder.write("a.jsonl", format!("{}{{\"n\":2,", line(1)).as_bytes());
    let mut taken = Taken::default();
    let node = events(&folder, "*.jsonl", "watch");
    let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("files are there");
    reader.mark_end();
    taken.until(&mut reader, |taken| taken.caught_up.len() == 1);
    assert_eq!(taken.rows(), 1);
    folder.append("a.jsonl", b"\"at\":5}\n");
    folder.write("b.jsonl", line(3).as_bytes());
    // A mark covers what has come since the last look.
    reader.mark_end();
    taken.until(&mut reader, |taken| taken.caught_up.len() == 3);
    assert_eq!(taken.rows(), 3);
    assert_eq!(taken.new_splits, [folder.path("b.jsonl")]);
    let mut reader = FilesReader::open(&node, &taken.offsets).expect("files are there");
    folder.append("b.jsonl", line(4).as_bytes());
    taken.until(&mut reader, |taken| taken.rows() == 4);
    assert!(taken.errors.is_empty());

    folder.write("b.jsonl", b"");
    let error = FilesReader::open(&node, &taken.offsets).map(|_| ()).expect_err("the file shrank");
    assert!(matches!(error, Error::OffsetLost { .. }), "{error}");
}

#[test]
fn csv_files_with_a_heading_resume_in_the_middle() {
    let folder = Folder::new("csv");
    let body: String = (0..100_000).map(|n| format!("\"text\n{n}\",{n}\r\n")).collect();
    folder.write("a.csv", format!("t,n\r\n{body}").as_bytes());
    let mut spec = connector("files", &[("path", &folder.path("a.csv"))]);
    spec.encode = "CSV".into();
    let node = node(spec, vec![column("n", DataType::Int64), column("t", DataType::Utf8)], None);
    let mut taken = Taken::default();
    let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("the file is there");
    taken.until(&mut reader, |taken| taken.batches.len() == 3);
    let mut reader = FilesReader::open(&node, &taken.offsets).expect("the file is there");
    taken.until(&mut reader, |taken| taken.finished.len() == 1);
    let mut expected: Vec<String> = (0..100_000).map(|n| format!("{n}|text\n{n}")).collect();
    expected.sort();
    assert_eq!((taken.sorted() == expected, taken.errors.len()), (true, 0));
}

#[test]
fn a_record_beyond_the_limit_is_set_aside_and_the_next_is_read() {
    let folder = Folder::new("huge");
    let mut text = line(1).into_bytes();
    text.extend(std::iter::repeat_n(b'x', crate::format::RECORD_BYTES_MAX + 5));
    text.push(b'\n');
    text.extend(line(2).bytes());
    folder.write("a.jsonl", &text);
    let mut taken = Taken::default();
    let node = events(&folder, "a.jsonl", "bounded");
    let mut reader = FilesReader::open(&node, &BTreeMap::new()).expect("the file is there");
    taken.until(&mut reader, |taken| taken.finished.len() == 1);
    assert_eq!((taken.rows(), taken.errors.len()), (2, 1));
    assert_eq!((taken.errors[0].sqlstate, taken.errors[0].payload.len()), ("54000", crate::format::BAD_PAYLOAD_BYTES_MAX));
}

#[test]
fn parquet_resumes_at_a_row_and_casts() {
    use ::parquet::arrow::ArrowWriter;
    use ::parquet::file::properties::WriterProperties;
    use arrow::array::{Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};

    let folder = Folder::new("parquet");
    let numbers: Vec<i32> = (0..30_000).collect();
    let batch = RecordBatch::try_from_iter([
        (
            "text",
            std::sync::Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| format!("t{n}")))) as arrow::array::ArrayRef,
        ),
        ("n", std::sync::Arc::new(Int32Array::from(numbers.clone()))),
        ("at", std::sync::Arc::new(TimestampMillisecondArray::from_iter_values(numbers.iter().map(|n| i64::from(*n))))),
    ])
    .expect("equal lengths");
    let file = std::fs::File::create(folder.path("a.parquet")).expect("a writable directory");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10_000)).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");

    let mut spec = connector("files", &[("path", &folder.path("*.parquet"))]);
    spec.encode = "PARQUET".into();
    let own = own_columns(&spec).expect("a readable file").expect("Parquet has columns");
    assert_eq!(
        own.iter().map(|column| column.field.data_type().clone()).collect::<Vec<_>>(),
        [DataType::Utf8, DataType::Int32, timestamp()]
    );
    let node =
        node(spec, vec![column("n", DataType::Int64), column("at", timestamp()), column("none", DataType::Utf8)], Some("at"));
    let mut whole = Taken::default();
    whole.until(&mut FilesReader::open(&node, &BTreeMap::new()).expect("the file is there"), |taken| taken.finished.len() == 1);
    assert_eq!((whole.rows(), whole.errors.len()), (30_000, 0));
    for cut in 0..whole.batches.len() {
        let mut taken = Taken::default();
        taken.until(&mut FilesReader::open(&node, &BTreeMap::new()).expect("the file is there"), |taken| {
            taken.batches.len() == cut
        });
        taken.until(&mut FilesReader::open(&node, &taken.offsets).expect("the file is there"), |taken| taken.finished.len() == 1);
        assert_eq!(taken.sorted(), whole.sorted(), "cut after {cut}");
    }
}

#[test]
fn wrong_paths_and_options_are_told() {
    let folder = Folder::new("wrong");
    let error = probe(&events(&folder, "nothing/*.jsonl", "bounded")).expect_err("no such directory");
    assert!(error.hint().is_some_and(|hint| hint.contains("does not exist")), "{error}");
    assert!(probe(&events(&folder, "*.jsonl", "watch")).is_ok());
    let error = check_options(&connector("files", &[("pth", "x")])).expect_err("a misspelt option");
    assert_eq!((error.sqlstate(), error.hint()), ("22023", Some("Did you mean \"path\"?")));
    let error = check_options(&connector("files", &[("path", "x"), ("mode", "wach")])).expect_err("a misspelt mode");
    assert!(error.hint().is_some_and(|hint| hint.contains("'watch'")), "{error}");
}
