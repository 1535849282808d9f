//! What clients send. Decodes one whole message at a time from bounded frames; nothing a client sends can panic here.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};

/// Longest message before a session is open: startup parameters, cancel requests, passwords.
const STARTUP_BYTES_MAX: usize = 10_000;
/// Longest message whose size does not depend on the user's data.
const SMALL_BYTES_MAX: usize = 10_000;
/// Longest statement, set of parameters or piece of a COPY.
const LARGE_BYTES_MAX: usize = 256 << 20;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ProtocolViolation(pub(super) String);

type Result<T> = std::result::Result<T, ProtocolViolation>;

fn violation<T>(reason: impl Into<String>) -> Result<T> {
    Err(ProtocolViolation(reason.into()))
}

/// The first message of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: i32 },
    Startup { minor: u16, parameters: Vec<(String, String)> },
}

/// What a Describe or Close names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Statement(String),
    Portal(String),
}

/// How values travel: one format for all of them, or one for each, or text when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formats(pub(super) Vec<Format>);

/// How a value travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Formats {
    /// The format of the value numbered `index`.
    pub(super) fn of(&self, index: usize) -> Format {
        match self.0.as_slice() {
            [] => Format::Text,
            [one] => *one,
            many => many.get(index).copied().unwrap_or(Format::Text),
        }
    }
}

/// A message within a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse { name: String, text: String, parameter_types: Vec<u32> },
    Bind { portal: String, statement: String, formats: Formats, parameters: Vec<Option<Bytes>>, results: Formats },
    Describe(Target),
    Execute { portal: String, rows_max: u32 },
    Close(Target),
    Sync,
    Flush,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    Terminate,
}

/// Takes the first message of a connection, if it is there whole.
pub(super) fn opening(input: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(mut body) = frame(input, 0, STARTUP_BYTES_MAX)? else { return Ok(None) };
    let code = body.try_get_u32().map_err(|_| ProtocolViolation("invalid length of startup packet".to_owned()))?;
    match code {
        SSL_REQUEST => Ok(Some(Opening::Ssl)),
        GSS_REQUEST => Ok(Some(Opening::Gss)),
        CANCEL_REQUEST => {
            let (Ok(pid), Ok(secret)) = (body.try_get_i32(), body.try_get_i32()) else {
                return violation("invalid length of query cancel packet");
            };
            Ok(Some(Opening::Cancel { pid, secret }))
        }
        _ if code >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = text(&mut body)?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, text(&mut body)?));
            }
            let minor = u16::try_from(code & 0xffff).unwrap_or(u16::MAX);
            Ok(Some(Opening::Startup { minor, parameters }))
        }
        _ => violation(format!("unsupported frontend protocol {}.{}: server supports 3.0", code >> 16, code & 0xffff)),
    }
}

/// Takes the next message of a session, if it is there whole.
pub(super) fn message(input: &mut BytesMut) -> Result<Option<Message>> {
    let Some(kind) = input.first().copied() else { return Ok(None) };
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'd' => LARGE_BYTES_MAX,
        b'D' | b'E' | b'C' | b'S' | b'H' | b'c' | b'f' | b'X' | b'p' => SMALL_BYTES_MAX,
        _ => return violation(format!("invalid frontend message type {kind}")),
    };
    let Some(mut body) = frame(input, 1, limit)? else { return Ok(None) };
    let message = match kind {
        b'Q' => Message::Query(text(&mut body)?),
        b'P' => {
            let (name, query) = (text(&mut body)?, text(&mut body)?);
            let parameter_types = list(&mut body, |body| body.try_get_u32().map_err(short))?;
            Message::Parse { name, text: query, parameter_types }
        }
        b'B' => {
            let (portal, statement) = (text(&mut body)?, text(&mut body)?);
            let formats = formats(&mut body)?;
            let parameters = list(&mut body, |body| {
                let length = body.try_get_i32().map_err(short)?;
                match usize::try_from(length) {
                    Ok(length) if length <= body.remaining() => Ok(Some(body.split_to(length))),
                    Ok(_) => violation("insufficient data left in message"),
                    Err(_) => Ok(None),
                }
            })?;
            Message::Bind { portal, statement, formats, parameters, results: self::formats(&mut body)? }
        }
        b'D' => Message::Describe(target(&mut body)?),
        b'E' => {
            let portal = text(&mut body)?;
            let rows_max = body.try_get_i32().map_err(short)?;
            Message::Execute { portal, rows_max: u32::try_from(rows_max).unwrap_or(0) }
        }
        b'C' => Message::Close(target(&mut body)?),
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'd' => return Ok(Some(Message::CopyData(body))),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(text(&mut body)?),
        b'X' => Message::Terminate,
        _ => return violation("unexpected password message"),
    };
    if body.has_remaining() {
        return violation("invalid message format");
    }
    Ok(Some(message))
}

/// Takes `[kind] length body` from the input: the body, if all of it has arrived.
fn frame(input: &mut BytesMut, kind_bytes: usize, limit: usize) -> Result<Option<Bytes>> {
    let Some(length) = input.get(kind_bytes..kind_bytes.saturating_add(4)) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
    let body = match usize::try_from(length).ok().and_then(|length| length.checked_sub(4)) {
        Some(body) if body <= limit => body,
        _ => return violation(format!("invalid message length {length}")),
    };
    let head = kind_bytes.saturating_add(4);
    let whole = head.saturating_add(body);
    if input.len() < whole {
        // Grows as bytes arrive, not at once by what a client announces.
        return Ok(None);
    }
    let mut frame = input.split_to(whole).freeze();
    frame.advance(head);
    Ok(Some(frame))
}

fn short(_: bytes::TryGetError) -> ProtocolViolation {
    ProtocolViolation("insufficient data left in message".to_owned())
}

fn text(body: &mut Bytes) -> Result<String> {
    let Some(end) = memchr::memchr(0, body) else { return violation("invalid string in message") };
    let bytes = body.split_to(end);
    body.advance(1);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => violation("invalid byte sequence for encoding \"UTF8\""),
    }
}

fn list<T>(body: &mut Bytes, item: impl Fn(&mut Bytes) -> Result<T>) -> Result<Vec<T>> {
    let count = body.try_get_u16().map_err(short)?;
    (0..count).map(|_| item(body)).collect()
}

fn formats(body: &mut Bytes) -> Result<Formats> {
    let formats = list(body, |body| match body.try_get_u16().map_err(short)? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => violation(format!("unsupported format code: {other}")),
    })?;
    Ok(Formats(formats))
}

fn target(body: &mut Bytes) -> Result<Target> {
    let kind = body.try_get_u8().map_err(short)?;
    let name = text(body)?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        other => violation(format!("invalid message subtype {other}")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u32(u32::try_from(body.len()).expect("a short body").saturating_add(4));
        bytes.put_slice(body);
        bytes
    }

    #[test]
    fn whole_messages() {
        let cases: Vec<(u8, &[u8], Message)> = vec![
            (b'Q', b"select 1\0", Message::Query("select 1".into())),
            (
                b'P',
                b"s\0select $1\0\0\x01\0\0\0\x17",
                Message::Parse { name: "s".into(), text: "select $1".into(), parameter_types: vec![23] },
            ),
            (
                b'B',
                b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\0",
                Message::Bind {
                    portal: String::new(),
                    statement: "s".into(),
                    formats: Formats(vec![Format::Binary]),
                    parameters: vec![Some(Bytes::from_static(b"a")), None],
                    results: Formats::default(),
                },
            ),
            (b'D', b"Pc\0", Message::Describe(Target::Portal("c".into()))),
            (b'E', b"\0\0\0\0\x05", Message::Execute { portal: String::new(), rows_max: 5 }),
            (b'E', b"\0\xff\xff\xff\xff", Message::Execute { portal: String::new(), rows_max: 0 }),
            (b'd', b"1\t2\n", Message::CopyData(Bytes::from_static(b"1\t2\n"))),
            (b'X', b"", Message::Terminate),
        ];
        for (kind, body, expected) in cases {
            let mut bytes = framed(kind, body);
            bytes.put_u8(b'S');
            assert_eq!(message(&mut bytes), Ok(Some(expected)));
            assert_eq!(&bytes[..], b"S", "what follows is left alone");
        }
    }

    #[test]
    fn every_prefix_waits_and_every_cut_body_is_refused() {
        let body: &[u8] = b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x01a\0\x01\0\x01";
        let whole = framed(b'B', body);
        for end in 0..whole.len() {
            assert_eq!(message(&mut BytesMut::from(whole.split_at(end).0)), Ok(None));
        }
        for end in 0..body.len() {
            assert!(message(&mut framed(b'B', body.split_at(end).0)).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn outsiders_are_refused() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"Q\xff\xff\xff\xff", b"Q\0\0\0\x03", b"D\0\xff\xff\xff", b"\x16\x03\x01\0"]
        {
            assert!(message(&mut BytesMut::from(bytes)).is_err() || bytes.len() < 5, "{bytes:?}");
            assert!(!matches!(opening(&mut BytesMut::from(bytes)), Ok(Some(_))), "{bytes:?}");
        }
    }

    #[test]
    fn openings() {
        let mut startup = BytesMut::new();
        let body = b"\0\x03\0\0user\0ann\0database\0d\0\0";
        startup.put_u32(u32::try_from(body.len()).expect("short").saturating_add(4));
        startup.put_slice(body);
        let parameters = vec![("user".to_owned(), "ann".to_owned()), ("database".to_owned(), "d".to_owned())];
        assert_eq!(opening(&mut startup), Ok(Some(Opening::Startup { minor: 0, parameters })));
        let mut cancel = BytesMut::from(&b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x09"[..]);
        assert_eq!(opening(&mut cancel), Ok(Some(Opening::Cancel { pid: 7, secret: 9 })));
        let mut ssl = BytesMut::from(&b"\0\0\0\x08\x04\xd2\x16\x2f"[..]);
        assert_eq!(opening(&mut ssl), Ok(Some(Opening::Ssl)));
    }
}
