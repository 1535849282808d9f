//! Nexmark bids as JSON lines, from the built-in generator: input of the benchmark.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use engine::plan::{ColumnOrigin, ConnectorSpec, SourceColumn, SourceNode};
use engine::source::SourceEvent;

/// Writes the bids among the first `events` events, one after the other into `parts` files (`part-<n>.jsonl`) side by side.
pub fn write_bids(folder: &Path, events: u64, parts: usize) {
    let text = ["channel", "url", "extra"];
    let fields: Vec<Field> = ["auction", "bidder", "price", "channel", "url", "date_time", "extra"]
        .into_iter()
        .map(|name| match name {
            "date_time" => Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true),
            name if text.contains(&name) => Field::new(name, DataType::Utf8, true),
            name => Field::new(name, DataType::Int64, true),
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = schema
        .fields()
        .iter()
        .map(|field| SourceColumn { field: Arc::clone(field), origin: ColumnOrigin::Field(field.name().clone()) });
    let options = [("table", "bid".to_owned()), ("rows", events.to_string())];
    let node = SourceNode {
        table: catalog::ObjectId::FIRST_USER,
        name: "bid".into(),
        connector: ConnectorSpec {
            connector: "nexmark".into(),
            options: options.map(|(key, value)| (key.to_owned(), value)).into(),
            format: "PLAIN".into(),
            encode: "JSON".into(),
            encode_options: BTreeMap::new(),
        },
        columns: columns.collect(),
        projection: (0..schema.fields().len()).collect(),
        schema,
        watermark: None,
    };
    let mut reader = engine::source::open(&node, &BTreeMap::new()).expect("the generator opens");
    let mut files: Vec<_> = (0..parts)
        .map(|part| BufWriter::new(std::fs::File::create(folder.join(format!("part-{part}.jsonl"))).expect("a file")))
        .collect();
    let mut row = 0;
    loop {
        match reader.next(Duration::from_millis(100)).expect("the generator goes on") {
            Some(SourceEvent::Rows { rows, .. }) => {
                for index in 0..rows.num_rows() {
                    write_bid(&mut files[row % parts], &rows, index);
                    row += 1;
                }
            }
            Some(SourceEvent::Finished { .. }) => break,
            _ => {}
        }
    }
    files.iter_mut().for_each(|file| file.flush().expect("the disk takes it"));
}

fn write_bid(out: &mut impl Write, rows: &RecordBatch, index: usize) {
    let int = |column: usize| rows.column(column).as_primitive::<Int64Type>().value(index);
    let text = |column: usize| rows.column(column).as_string::<i32>().value(index);
    let micros = rows.column(5).as_primitive::<TimestampMicrosecondType>().value(index);
    let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range").format("%Y-%m-%d %H:%M:%S%.3f");
    writeln!(
        out,
        r#"{{"auction":{},"bidder":{},"price":{},"channel":"{}","url":"{}","date_time":"{time}","extra":"{}"}}"#,
        int(0),
        int(1),
        int(2),
        text(3),
        text(4),
        text(6)
    )
    .expect("the disk takes it");
}
