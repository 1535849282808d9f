//! Answers are what PostgreSQL 15 prints and sends for the same values.

use arrow::array::{Int64Builder, ListBuilder, StringBuilder, UInt64Array};
use arrow::datatypes::IntervalMonthDayNano;

use super::*;

fn text(column: ArrayRef, kind: PgType, time_zone: &str) -> Vec<String> {
    let encoder = ColumnEncoder::new(&column, kind, zone(time_zone)).expect("a column of that type");
    let one = |row| {
        let mut out = BytesMut::new();
        encoder.write_text(row, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    };
    (0..column.len()).map(one).collect()
}

fn binary(column: ArrayRef, kind: PgType) -> Vec<u8> {
    let encoder = ColumnEncoder::new(&column, kind, zone("UTC")).expect("a column of that type");
    let mut out = BytesMut::new();
    encoder.write_binary(0, &mut out);
    out.to_vec()
}

fn one(scalar: Scalar) -> PgType {
    PgType::One(scalar)
}

#[test]
fn floats_are_shortest() {
    let doubles = [
        0.0,
        -0.0,
        1.0,
        2.5,
        1e14,
        123_456_789_012_345.0,
        1e15,
        1.25e-4,
        1.25e-5,
        1e100,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1 + 0.2,
    ];
    let written = text(Arc::new(Float64Array::from(doubles.to_vec())), one(Scalar::Float8), "UTC");
    let expected = [
        "0",
        "-0",
        "1",
        "2.5",
        "100000000000000",
        "123456789012345",
        "1e+15",
        "0.000125",
        "1.25e-05",
        "1e+100",
        "NaN",
        "Infinity",
        "-Infinity",
        "0.30000000000000004",
    ];
    assert_eq!(written, expected);
    let singles = Float32Array::from(vec![123_456.0, 1_234_567.0, 0.1, 1e6]);
    assert_eq!(text(Arc::new(singles), one(Scalar::Float4), "UTC"), ["123456", "1.234567e+06", "0.1", "1e+06"]);
}

#[test]
fn numerics_are_exact() {
    let values = Decimal128Array::from(vec![0, 5, -5, 1234, -100_000, i128::from(i64::MAX)]);
    let column: ArrayRef = Arc::new(values.with_precision_and_scale(38, 2).expect("a scale"));
    assert_eq!(
        text(Arc::clone(&column), one(Scalar::Numeric), "UTC"),
        ["0.00", "0.05", "-0.05", "12.34", "-1000.00", "92233720368547758.07"]
    );
    let sent = |value: i128, scale: i8| {
        let column = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).expect("a scale");
        binary(Arc::new(column), one(Scalar::Numeric))
            .chunks(2)
            .map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
            .collect::<Vec<_>>()
    };
    // Number of groups, weight, sign, scale, groups.
    assert_eq!(sent(0, 2), [0, 0, 0, 2]);
    assert_eq!(sent(1234, 2), [2, 0, 0, 2, 12, 3400]);
    assert_eq!(sent(-5, 2), [1, -1, 0x4000, 2, 500]);
    assert_eq!(sent(100_000_000, 0), [1, 2, 0, 0, 1]);
    assert_eq!(sent(123_456_789, 4), [3, 1, 0, 4, 1, 2345, 6789]);
    assert_eq!(text(Arc::new(UInt64Array::from(vec![u64::MAX])), one(Scalar::Numeric), "UTC"), ["18446744073709551615"]);
}

#[test]
fn times_in_the_zone_of_the_session() {
    let instants = vec![1_704_164_645_000_000, 1_704_164_645_678_900, -1, i64::MAX, i64::MIN, -62_135_596_800_000_001];
    let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC"));
    let expected = [
        "2024-01-02 03:04:05+00",
        "2024-01-02 03:04:05.6789+00",
        "1969-12-31 23:59:59.999999+00",
        "infinity",
        "-infinity",
        "0001-12-31 23:59:59.999999+00 BC",
    ];
    assert_eq!(text(Arc::clone(&column), one(Scalar::Timestamptz), "UTC"), expected);
    assert_eq!(text(Arc::clone(&column), one(Scalar::Timestamptz), "Asia/Kolkata")[0], "2024-01-02 08:34:05+05:30");
    assert_eq!(text(column, one(Scalar::Timestamptz), "America/New_York")[0], "2024-01-01 22:04:05-05");
    let days = Date32Array::from(vec![0, 19_723, -719_529, 2_932_897, i32::MAX]);
    let expected = ["1970-01-01", "2024-01-01", "0002-12-31 BC", "10000-01-01", "infinity"];
    let written = text(Arc::new(days), one(Scalar::Date), "UTC");
    assert_eq!([&written[0], &written[1], &written[3], &written[4]], [expected[0], expected[1], expected[3], expected[4]]);
    assert!(written[2].ends_with(" BC"), "{}", written[2]);
}

#[test]
fn intervals() {
    let hour = 3_600_000_000_000;
    let cases = [
        ((14, 3, 0), "1 year 2 mons 3 days"),
        ((0, 0, 0), "00:00:00"),
        ((0, 1, hour), "1 day 01:00:00"),
        ((0, -1, 2 * hour), "-1 days +02:00:00"),
        ((-1, 2, -hour - 500_000_000), "-1 mons +2 days -01:00:00.5"),
        ((0, 0, 100 * hour), "100:00:00"),
    ];
    for ((months, days, nanoseconds), expected) in cases {
        let column = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano { months, days, nanoseconds }]);
        assert_eq!(text(Arc::new(column), one(Scalar::Interval), "UTC"), [expected]);
    }
}

#[test]
fn arrays() {
    let mut builder = ListBuilder::new(StringBuilder::new());
    builder.append_value([Some("a"), None, Some("b c"), Some(""), Some("null"), Some("q\"\\"), Some("x,y"), Some("{}")]);
    let column: ArrayRef = Arc::new(builder.finish());
    let expected = r#"{a,NULL,"b c","","null","q\"\\","x,y","{}"}"#;
    assert_eq!(text(column, PgType::Array(Scalar::Text), "UTC"), [expected]);
    let mut builder = ListBuilder::new(Int64Builder::new());
    builder.append_value([Some(1), None]);
    let column: ArrayRef = Arc::new(builder.finish());
    let expected = b"\0\0\0\x01\0\0\0\x01\0\0\0\x14\0\0\0\x02\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
    assert_eq!(binary(column, PgType::Array(Scalar::Int8)), expected);
}

#[test]
fn bytes_json_and_uuid() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\x00\xffa"[..], b""]));
    assert_eq!(text(bytes, one(Scalar::Bytea), "UTC"), ["\\x00ff61", "\\x"]);
    let json: ArrayRef = Arc::new(StringArray::from(vec!["{}"]));
    assert_eq!(binary(json, one(Scalar::Jsonb)), b"\x01{}");
    let uuid: ArrayRef = Arc::new(StringArray::from(vec!["00112233-4455-6677-8899-aabbccddeeff"]));
    assert_eq!(binary(uuid, one(Scalar::Uuid))[..4], [0, 0x11, 0x22, 0x33]);
}
