//! Decoders: a table of records good and bad, and random JSON against serde_json.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;

use super::*;

fn field(name: &str, data_type: DataType) -> DecodedField {
    DecodedField { name: name.into(), field: Arc::new(Field::new(name, data_type, true)) }
}

fn marked(name: &str, marker: &str) -> DecodedField {
    let metadata = HashMap::from([("freshet.type".to_owned(), marker.to_owned())]);
    DecodedField { name: name.into(), field: Arc::new(Field::new(name, DataType::Utf8, true).with_metadata(metadata)) }
}

fn json(fields: Vec<DecodedField>) -> Box<dyn Decoder> {
    Encoding::Json { epoch: EpochUnit::Millisecond }.decoder(fields, &[]).expect("supported types")
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// The one value of a record with field `v`, as text; or the SQLSTATE it is refused with.
fn value(column: DecodedField, record: &[u8]) -> Result<String, &'static str> {
    let mut decoder = json(vec![column]);
    decoder.decode(record, Utf8::Unknown).map_err(|bad| bad.sqlstate)?;
    let array = decoder.finish().expect("columns").remove(0);
    Ok(if array.is_null(0) { "NULL".into() } else { array_value_to_string(&array, 0).expect("printable") })
}

#[test]
fn values_of_each_type() {
    let cases: &[(DataType, &str, Result<&str, &str>)] = &[
        (DataType::Int64, "7", Ok("7")),
        (DataType::Int64, "-9223372036854775808", Ok("-9223372036854775808")),
        (DataType::Int64, "9223372036854775808", Err("22003")),
        (DataType::Int64, "1e3", Ok("1000")),
        (DataType::Int64, "12.0", Ok("12")),
        (DataType::Int64, "1.5", Err("22P02")),
        (DataType::Int64, "\"42\"", Ok("42")),
        (DataType::Int64, "\"x\"", Err("22P02")),
        (DataType::Int64, "true", Err("22P02")),
        (DataType::Int64, "{}", Err("22P02")),
        (DataType::Int64, "null", Ok("NULL")),
        (DataType::Int64, "01", Err("22P02")),
        (DataType::Int64, "-", Err("22P02")),
        (DataType::Int64, "1e999999999999", Err("22P02")),
        (DataType::Int64, "1e99999", Err("22003")),
        (DataType::Int32, "2147483648", Err("22003")),
        (DataType::Int16, "-32769", Err("22003")),
        (DataType::Float64, "-1.5e3", Ok("-1500.0")),
        (DataType::Float64, "1e999", Err("22003")),
        (DataType::Float32, "1e39", Err("22003")),
        (DataType::Boolean, "true", Ok("true")),
        (DataType::Boolean, "tru", Err("22P02")),
        (DataType::Boolean, "1", Err("22P02")),
        (DataType::Decimal128(10, 2), "1.005", Ok("1.01")),
        (DataType::Decimal128(10, 2), "-1.005", Ok("-1.01")),
        (DataType::Decimal128(10, 2), "1.00499999", Ok("1.00")),
        (DataType::Decimal128(10, 2), "12345678.99", Ok("12345678.99")),
        (DataType::Decimal128(10, 2), "123456789", Err("22003")),
        (DataType::Decimal128(38, 10), "\"0.1\"", Ok("0.1000000000")),
        (DataType::Utf8, "\"a\\u00e4\\n\\\"\\uD83D\\uDE00\"", Ok("aä\n\"😀")),
        (DataType::Utf8, "\"a\\u0000b\"", Ok("a\u{fffd}b")),
        (DataType::Utf8, "\"\\ud800x\"", Ok("\u{fffd}x")),
        (DataType::Utf8, "\"\\ud800\\ud800\\udc00\"", Ok("\u{fffd}\u{10000}")),
        (DataType::Utf8, "\"\\q\"", Err("22P02")),
        (DataType::Utf8, "\"\\u12g4\"", Err("22P02")),
        (DataType::Utf8, "\"a\nb\"", Err("22P02")),
        (DataType::Utf8, "\"open", Err("22P02")),
        (DataType::Utf8, "12.50", Ok("12.50")),
        (DataType::Utf8, "false", Ok("false")),
        (DataType::Utf8, "{\"a\": 1}", Ok("{\"a\": 1}")),
        (DataType::Date32, "\"2024-02-29\"", Ok("2024-02-29")),
        (DataType::Date32, "\"2023-02-29\"", Err("22008")),
        (DataType::Date32, "\"yesterday\"", Err("22007")),
        (micros(), "\"2015-07-15 00:00:00.123\"", Ok("2015-07-15T00:00:00.123")),
        (micros(), "\"2015-07-15T00:00:00.1234567Z\"", Ok("2015-07-15T00:00:00.123456")),
        (micros(), "\"2015-07-15T02:30:00+02:30\"", Ok("2015-07-15T00:00:00")),
        (micros(), "\"2015-07-15T00:00:00-0100\"", Ok("2015-07-15T01:00:00")),
        (micros(), "\"2015-07-15 00:00\"", Ok("2015-07-15T00:00:00")),
        (micros(), "\"2015-07-15\"", Ok("2015-07-15T00:00:00")),
        (micros(), "\"1969-12-31 23:59:59.5\"", Ok("1969-12-31T23:59:59.500")),
        (micros(), "1436918400123", Ok("2015-07-15T00:00:00.123")),
        (micros(), "1436918400123.5", Ok("2015-07-15T00:00:00.123500")),
        (micros(), "-1", Ok("1969-12-31T23:59:59.999")),
        (micros(), "999999999999999999", Err("22008")),
        (micros(), "\"2015-13-15 00:00:00\"", Err("22008")),
        (micros(), "\"2015-07-15 25:00:00\"", Err("22008")),
        (micros(), "\"2015-07-15 00:00:00 garbage\"", Err("22007")),
        (micros(), "\"20150-07-15 00:00:00\"", Err("22008")),
        (micros(), "\"-2015-07-15 00:00:00\"", Err("22008")),
        (micros(), "\"0000-07-15 00:00:00\"", Err("22008")),
        (micros(), "\"\"", Err("22007")),
        (micros(), "\"2015-07-15 00:00:00.\"", Err("22007")),
        (micros(), "true", Err("22P02")),
        (DataType::Binary, "\"\\\\x00ff\"", Ok("00ff")),
        (DataType::Binary, "\"AP8=\"", Ok("00ff")),
        (DataType::Binary, "\"AP8\"", Ok("00ff")),
        (DataType::Binary, "\"A\"", Err("22P02")),
        (DataType::new_list(DataType::Utf8, true), "[\"a\",null,\"b\"]", Ok("[a, , b]")),
        (DataType::new_list(DataType::Int64, true), "[]", Ok("[]")),
        (DataType::new_list(DataType::Int64, true), "[1,\"x\"]", Err("22P02")),
        (DataType::new_list(DataType::Int64, true), "[1", Err("22P02")),
        (DataType::new_list(DataType::Int64, true), "1", Err("22P02")),
    ];
    for (data_type, text, expected) in cases {
        let record = format!("{{\"v\":{text}}}");
        let found = value(field("v", data_type.clone()), record.as_bytes());
        assert_eq!(found.as_deref().map_err(|code| *code), *expected, "{data_type} from {text}");
    }
    let cases: &[(&str, &str, Result<&str, &str>)] = &[
        ("jsonb", "{ \"a\" : [1, {\"b\":null}] }", Ok("{ \"a\" : [1, {\"b\":null}] }")),
        ("jsonb", "\"text\"", Ok("\"text\"")),
        ("jsonb", "\"a\\u0000\\ud800\\\\u0000\"", Ok("\"a\\ufffd\\ufffd\\\\u0000\"")),
        ("jsonb", "{\"a\":01}", Err("22P02")),
        ("jsonb", "{\"a\" 1}", Err("22P02")),
        ("jsonb", "[1,2}", Err("22P02")),
        ("uuid", "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"", Ok("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("uuid", "\"a0eebc999c0b4ef8bb6d6bb9bd380a1\"", Err("22P02")),
    ];
    for (marker, text, expected) in cases {
        let found = value(marked("v", marker), format!("{{\"v\":{text}}}").as_bytes());
        assert_eq!(found.as_deref().map_err(|code| *code), *expected, "{marker} from {text}");
    }
}

#[test]
fn whole_records() {
    let cases: &[(&[u8], Result<&str, &str>)] = &[
        (b" { \"x\" : [1,2] , \"v\" : 5 } ", Ok("5")),
        (b"{}", Ok("NULL")),
        (b"{\"v\":1,\"v\":2}", Ok("2")),
        (b"{\"\\u0076\":3}", Ok("3")),
        (b"{\"v\":1}}", Err("22P02")),
        (b"{\"v\":1,}", Err("22P02")),
        (b"{\"v\":1", Err("22P02")),
        (b"{\"w\":nul,\"v\":1}", Err("22P02")),
        (b"{\"w\":{\"a\":},\"v\":1}", Err("22P02")),
        (b"[1]", Err("22P02")),
        (b"", Err("22P02")),
        (b"\xff\xfe", Err("22021")),
        (b"{\"w\":\"\xff\",\"v\":1}", Err("22021")),
    ];
    for (record, expected) in cases {
        let found = value(field("v", DataType::Int64), record);
        assert_eq!(found.as_deref().map_err(|code| *code), *expected, "{}", String::from_utf8_lossy(record));
    }
    let deep = format!("{{\"w\":{}1{},\"v\":1}}", "[".repeat(129), "]".repeat(129));
    assert_eq!(value(field("v", DataType::Int64), deep.as_bytes()), Err("54001"));
}

#[test]
fn a_bad_record_leaves_its_neighbours_alone() {
    let not_null = DecodedField { name: "n".into(), field: Arc::new(Field::new("n", DataType::Int64, false)) };
    let list = field("l", DataType::new_list(DataType::Utf8, true));
    let mut decoder = json(vec![field("t", DataType::Utf8), list, not_null]);
    let good = |n: i64| format!("{{\"t\":\"text {n}\",\"l\":[\"a\",\"b\"],\"n\":{n}}}");
    let bad = [
        "{\"t\":\"x\",\"l\":[\"c\"]}",
        "{\"t\":\"x\",\"l\":[\"c\",",
        "{\"t\":\"x\",\"n\":null}",
        "{\"l\":[{}, \"d\"],\"n\":\"x\"}",
    ];
    for n in 0..100 {
        decoder.decode(good(n).as_bytes(), Utf8::Checked).expect("a good record");
        decoder.decode(bad[n as usize % bad.len()].as_bytes(), Utf8::Checked).expect_err("a bad record");
    }
    let missing = decoder.decode(b"{\"t\":\"x\"}", Utf8::Checked).expect_err("n is missing");
    assert_eq!((missing.sqlstate, missing.reason.contains("\"n\"")), ("23502", true));
    let columns = decoder.finish().expect("columns");
    assert!(columns.iter().all(|column| column.len() == 100));
    for n in 0..100 {
        assert_eq!(columns[0].as_string::<i32>().value(n), format!("text {n}"));
        assert_eq!(columns[1].as_list::<i32>().value(n).len(), 2);
        assert_eq!(columns[2].as_primitive::<Int64Type>().value(n), n as i64);
    }
}

/// A small generator of random numbers; the seed is in the failure's message.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn json(&mut self, depth: u32) -> serde_json::Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => serde_json::Value::Null,
            1 => (self.below(2) == 1).into(),
            2 => (self.below(1 << 31) as i64 - (1 << 30)).into(),
            3 => (self.below(1 << 20) as f64 / 64.0).into(),
            4 => self.text().into(),
            5 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => serde_json::Value::Object((0..self.below(4)).map(|_| (self.text(), self.json(depth - 1))).collect()),
        }
    }

    fn text(&mut self) -> String {
        (0..self.below(20))
            .map(|_| ['a', 'Z', '"', '\\', '\n', '\t', 'é', '😀', '\u{1}', '/', ' '][self.below(11) as usize])
            .collect()
    }
}

#[test]
fn random_objects_decode_as_serde_json_reads_them() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut decoder = json(vec![marked("a", "jsonb"), field("b", DataType::Utf8), field("c", DataType::Int64)]);
        let mut expected = Vec::new();
        for _ in 0..20 {
            let mut object = serde_json::Map::new();
            let mut names = vec!["a", "b", "c", "other", "more"];
            while !names.is_empty() {
                let name = names.swap_remove(random.below(names.len() as u64) as usize);
                let value = match name {
                    "b" => random.text().into(),
                    "c" => (random.below(1 << 31) as i64).into(),
                    _ => random.json(4),
                };
                if random.below(5) > 0 {
                    object.insert(name.into(), value);
                }
            }
            let value = serde_json::Value::Object(object);
            let text = if random.below(2) == 0 { value.to_string() } else { format!("{value:#}") };
            decoder.decode(text.as_bytes(), Utf8::Unknown).unwrap_or_else(|bad| panic!("seed {seed}: {bad:?} in {text}"));
            // Any cut and any flipped byte must be answered the way serde_json does.
            let mut broken = text.clone().into_bytes();
            let at = random.below(broken.len() as u64) as usize;
            match random.below(2) {
                0 => broken.truncate(at),
                _ => broken[at] = b"{}[]\",:x0 "[random.below(10) as usize],
            }
            let valid = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&broken).is_ok();
            let mut nothing = json(vec![]);
            assert_eq!(
                nothing.decode(&broken, Utf8::Unknown).is_ok(),
                valid,
                "seed {seed}: {}",
                String::from_utf8_lossy(&broken)
            );
            expected.push(value);
        }
        let columns: Vec<ArrayRef> = decoder.finish().expect("columns");
        for (row, value) in expected.iter().enumerate() {
            let a = (!columns[0].is_null(row)).then(|| columns[0].as_string::<i32>().value(row));
            let a: serde_json::Value = a.map_or(serde_json::Value::Null, |text| serde_json::from_str(text).expect("valid JSON"));
            assert_eq!(Some(&a).filter(|a| !a.is_null()), value.get("a").filter(|a| !a.is_null()), "seed {seed}");
            let b = (!columns[1].is_null(row)).then(|| columns[1].as_string::<i32>().value(row));
            assert_eq!(b, value.get("b").and_then(|b| b.as_str()), "seed {seed}");
            let c = (!columns[2].is_null(row)).then(|| columns[2].as_primitive::<Int64Type>().value(row));
            assert_eq!(c, value.get("c").and_then(|c| c.as_i64()), "seed {seed}");
        }
    }
}

#[test]
fn csv_with_heading_and_by_place() {
    let fields = || vec![field("name", DataType::Utf8), field("n", DataType::Int64), field("at", micros())];
    let encoding = Encoding::Csv { delimiter: b',', heading: true };
    let mut decoder = encoding.decoder(fields(), &[]).expect("supported");
    decoder.heading("\u{feff}n,other,name".as_bytes()).expect("known names");
    decoder.decode(b"1,x,\"a \"\"b\"\", c\"", Utf8::Unknown).expect("a good line");
    decoder.decode(b",,", Utf8::Unknown).expect("nulls");
    decoder.decode(b"2,x,\"\"", Utf8::Unknown).expect("an empty text");
    for (line, code) in
        [(&b"x,y,z"[..], "22P02"), (b"1,2", "22P02"), (b"1,2,3,4", "22P02"), (b"1,2,\"open", "22P02"), (b"\xff,2,3", "22021")]
    {
        assert_eq!(decoder.decode(line, Utf8::Unknown).map_err(|bad| bad.sqlstate), Err(code));
    }
    let columns = decoder.finish().expect("columns");
    assert_eq!(columns[0].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a \"b\", c"), None, Some("")]);
    assert_eq!(columns[1].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None, Some(2)]);
    assert_eq!(columns[2].null_count(), 3);
    assert!(encoding.decoder(fields(), &[]).expect("supported").heading(b"1,2").is_err());

    let names: Vec<String> = ["at", "n", "name"].map(String::from).into();
    let mut decoder = Encoding::Csv { delimiter: b';', heading: false }.decoder(fields(), &names).expect("supported");
    decoder.decode(b"2020-01-01;5;x", Utf8::Checked).expect("a good line");
    let columns = decoder.finish().expect("columns");
    assert_eq!(columns[2].as_primitive::<TimestampMicrosecondType>().value(0), 1_577_836_800_000_000);
}

#[test]
fn text_keeps_lines_as_they_are() {
    let mut decoder = Encoding::Text.decoder(vec![field("line", DataType::Utf8)], &[]).expect("supported");
    decoder.decode(b"a\0b", Utf8::Checked).expect("text");
    assert_eq!(decoder.decode(b"\xff", Utf8::Unknown).map_err(|bad| bad.sqlstate), Err("22021"));
    assert_eq!(decoder.finish().expect("columns")[0].as_string::<i32>().value(0), "a\u{fffd}b");
}

#[test]
fn records_end_at_line_feeds_outside_of_quotes() {
    assert_eq!(record_end(Framing::Lines, b"a\"\nb\n", 0), Some(3));
    assert_eq!(record_end(Framing::QuotedLines, b"a,\"x\ny\"\nb", 0), Some(8));
    assert_eq!(record_end(Framing::QuotedLines, b"a,\"x\ny", 0), None);
}
