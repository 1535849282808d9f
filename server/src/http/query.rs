//! `POST /api/v1/query`: one statement as the body; rows come back as a JSON array of objects, or as an Arrow IPC stream
//! when asked for by `Accept: application/vnd.apache.arrow.stream`. Rows leave as they are found.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, NullableEncoder, make_encoder};
use arrow::json::{self, EncoderFactory, EncoderOptions, WriterBuilder};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use sql::{Error, Parsed, Result, Statement};
use tokio::sync::mpsc;

use crate::execute::own_session;
use crate::session::{Backend, Outcome, SessionInfo};
use crate::{Database, error::from_catalog};

const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Batches on their way to the client.
const BATCHES_WAITING_MAX: usize = 2;

pub(super) async fn query(State(database): State<Arc<Database>>, headers: HeaderMap, text: String) -> Response {
    if super::is_foreign(&headers) {
        return refused(StatusCode::FORBIDDEN, &Error::new("28000", "statements from pages of other origins are refused"));
    }
    let arrow = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains(ARROW));
    match run(&database, &text).await {
        Ok(Answer::Rows(rows)) if arrow => body(ARROW, rows, ArrowEncoder::new),
        Ok(Answer::Rows(rows)) => body("application/json", rows, JsonEncoder::new),
        Ok(Answer::Done(outcome)) => {
            axum::Json(serde_json::json!({ "tag": outcome.tag, "notices": outcome.notices })).into_response()
        }
        Err(error) => refused(status(error.sqlstate), &error),
    }
}

enum Answer {
    Rows(SendableRecordBatchStream),
    Done(Outcome),
}

async fn run(database: &Arc<Database>, text: &str) -> Result<Answer> {
    let mut statements = sql::parse(text)?;
    let parsed = match (statements.pop(), statements.is_empty()) {
        (Some(parsed), true) => parsed,
        (Some(_), false) => return Err(Error::new("42601", "cannot run more than one statement in a request")),
        (None, _) => return Err(no_statement()),
    };
    let session = SessionInfo { application: "http".to_owned(), ..own_session() };
    let planner = database.planner(&session);
    let version = database.catalog().version();
    match &parsed.statement {
        Statement::Query(_) => {
            let plan = planner.query(&version, &parsed.statement)?;
            let now = chrono::DateTime::from_timestamp_micros(crate::clock::now_us()).unwrap_or_default();
            let state = planner.state_at(now);
            let physical = database.query_handle().spawn(async move {
                let physical = state.create_physical_plan(&plan).await?;
                execute_stream(physical, state.task_ctx())
            });
            let stream = physical.await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error))).flatten();
            Ok(Answer::Rows(on_query_threads(database, stream.map_err(sql::translate)?)))
        }
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Truncate(_) => {
            let dml =
                database.execute_dml(&planner, (&version, &catalog::Transaction::default()), &parsed.statement, &[]).await?;
            database.catalog().commit(dml.transaction).await.map_err(from_catalog)?;
            Ok(Answer::Done(Outcome { tag: dml_tag(&parsed, dml.rows), notices: Vec::new() }))
        }
        Statement::Empty => Err(no_statement()),
        statement if is_definition(statement) => Ok(Answer::Done(database.execute_ddl(&session, &planner, &parsed).await?)),
        _ => Err(Error::new("0A000", "this statement needs a session").hint("Run it with psql.")),
    }
}

fn no_statement() -> Error {
    Error::new("42601", "the request has no statement")
}

fn is_definition(statement: &Statement) -> bool {
    use Statement::*;
    matches!(
        statement,
        CreateStreamingTable(_)
            | CreateStreamingView(_)
            | CreateView(_)
            | CreateTable(_)
            | CreateSink(_)
            | CreateSchema { .. }
            | Drop(_)
            | Alter(_)
            | Comment { .. }
            | AlterSystem { .. }
            | Flush
    )
}

fn dml_tag(parsed: &Parsed, rows: u64) -> String {
    match parsed.statement {
        Statement::Insert(_) => format!("INSERT 0 {rows}"),
        Statement::Update(_) => format!("UPDATE {rows}"),
        Statement::Delete(_) => format!("DELETE {rows}"),
        _ => "TRUNCATE TABLE".to_owned(),
    }
}

/// A stream that is driven on the threads of queries and read here; it ends when it is dropped.
fn on_query_threads(database: &Database, mut stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = stream.schema();
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    database.query_handle().spawn(async move {
        loop {
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = sender.closed() => return,
            };
            let Some(batch) = batch else { return };
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    let batches = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, batches))
}

/// Writes batches in one form.
trait Encoder: Sized + Send + 'static {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, arrow::error::ArrowError>;
    fn finish(self) -> Result<Bytes, arrow::error::ArrowError>;
}

fn body<E: Encoder>(
    kind: &'static str,
    rows: SendableRecordBatchStream,
    encoder: fn(SchemaRef) -> Result<E, arrow::error::ArrowError>,
) -> Response {
    let encoder = match encoder(rows.schema()) {
        Ok(encoder) => encoder,
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, &sql::translate(error.into())),
    };
    // What fails after the first bytes can only cut the answer off: the client sees an incomplete one.
    let chunks = futures::stream::unfold(Some((rows, encoder)), |state| async move {
        let (mut rows, mut encoder) = state?;
        match rows.next().await {
            Some(Ok(batch)) => match encoder.write(&batch) {
                Ok(bytes) => Some((Ok(bytes), Some((rows, encoder)))),
                Err(error) => Some((Err(DataFusionError::from(error)), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((encoder.finish().map_err(DataFusionError::from), None)),
        }
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks)).into_response()
}

/// A JSON array of objects, one for each row. Every batch is written as an array of its own and loses its brackets:
/// the writer keeps its buffer to itself until it is finished.
struct JsonEncoder {
    any: bool,
}

impl JsonEncoder {
    #[expect(clippy::unnecessary_wraps, reason = "the same form as the other encoder")]
    fn new(_: SchemaRef) -> Result<Self, arrow::error::ArrowError> {
        Ok(JsonEncoder { any: false })
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, arrow::error::ArrowError> {
        let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(JsonValues));
        let mut writer = builder.build::<_, JsonArray>(Vec::new());
        writer.write(batch)?;
        writer.finish()?;
        let mut text = writer.into_inner();
        if batch.num_rows() == 0 {
            return Ok(Bytes::new());
        }
        text.pop();
        if self.any {
            text[0] = b',';
        }
        self.any = true;
        Ok(text.into())
    }

    fn finish(self) -> Result<Bytes, arrow::error::ArrowError> {
        Ok(Bytes::from_static(if self.any { b"]\n" } else { b"[]\n" }))
    }
}

/// What Arrow's JSON cannot say: a time at the end of time is `"infinity"`, bytes are `"\\x…"`, both as Postgres writes them.
#[derive(Debug)]
struct JsonValues;

/// Arrow's own encoders, for what lies within calendars.
static PLAIN: LazyLock<EncoderOptions> = LazyLock::new(EncoderOptions::default);

impl EncoderFactory for JsonValues {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, arrow::error::ArrowError> {
        let encoder: Box<dyn json::Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Box::new(Times { times: array.as_primitive(), within: make_encoder(field, array, &PLAIN)? })
            }
            DataType::Binary => Box::new(Hexadecimal(array.as_binary())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Times<'a> {
    times: &'a TimestampMicrosecondArray,
    within: NullableEncoder<'a>,
}

impl json::Encoder for Times<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let micros = self.times.value(row);
        match chrono::DateTime::from_timestamp_micros(micros) {
            Some(_) => self.within.encode(row, out),
            None if micros > 0 => out.extend_from_slice(b"\"infinity\""),
            None => out.extend_from_slice(b"\"-infinity\""),
        }
    }
}

struct Hexadecimal<'a>(&'a BinaryArray);

impl json::Encoder for Hexadecimal<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"\\\\x");
        for byte in self.0.value(row) {
            // Writing to memory cannot fail.
            let _ = write!(out, "{byte:02x}");
        }
        out.push(b'"');
    }
}

struct ArrowEncoder(StreamWriter<Vec<u8>>);

impl ArrowEncoder {
    fn new(schema: SchemaRef) -> Result<Self, arrow::error::ArrowError> {
        Ok(ArrowEncoder(StreamWriter::try_new(Vec::new(), &schema)?))
    }
}

impl Encoder for ArrowEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, arrow::error::ArrowError> {
        self.0.write(batch)?;
        Ok(std::mem::take(self.0.get_mut()).into())
    }

    fn finish(mut self) -> Result<Bytes, arrow::error::ArrowError> {
        self.0.finish()?;
        Ok(std::mem::take(self.0.get_mut()).into())
    }
}

fn refused(status: StatusCode, error: &Error) -> Response {
    let text = serde_json::json!({
        "sqlstate": error.sqlstate,
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
        "position": error.position,
    });
    (status, axum::Json(text)).into_response()
}

fn status(sqlstate: &str) -> StatusCode {
    match &sqlstate[..2] {
        "53" | "57" => StatusCode::SERVICE_UNAVAILABLE,
        "40" => StatusCode::CONFLICT,
        "58" | "XX" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn every_time_and_every_byte_has_a_json_form() {
        let times = TimestampMicrosecondArray::from(vec![Some(0), Some(i64::MAX), Some(i64::MIN), None]).with_timezone("UTC");
        let bytes = BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(&b""[..]), None, None]);
        let schema =
            Schema::new(vec![Field::new("t", times.data_type().clone(), true), Field::new("b", bytes.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times), Arc::new(bytes)]).expect("two columns");
        let mut encoder = JsonEncoder { any: false };
        let mut text = encoder.write(&batch).expect("it can be written").to_vec();
        text.extend_from_slice(&encoder.finish().expect("it ends"));
        let expected = serde_json::json!([
            { "t": "1970-01-01T00:00:00Z", "b": "\\x00ff" },
            { "t": "infinity", "b": "\\x" },
            { "t": "-infinity", "b": null },
            { "t": null, "b": null },
        ]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).expect("JSON"), expected);
    }
}
