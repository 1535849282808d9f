//! What the server sends: messages written straight into one buffer.

use bytes::{BufMut, Bytes, BytesMut};

use super::message::Format;
use super::types::PgType;
use crate::session::Column;

/// `ReadyForQuery`'s letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionStatus {
    Idle,
    InBlock,
    Failed,
}

/// Bytes on their way to the client.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: BytesMut,
}

impl Output {
    /// Writes one message: the kind, the length, what `body` adds.
    pub(super) fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.bytes.put_u8(kind);
        let start = self.bytes.len();
        self.bytes.put_i32(0);
        body(&mut self.bytes);
        set_length(&mut self.bytes, start);
    }

    pub(super) fn authentication_ok(&mut self) {
        self.message(b'R', |body| body.put_i32(0));
    }

    pub(super) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            put_text(body, name);
            put_text(body, value);
        });
    }

    pub(super) fn backend_key(&mut self, pid: i32, secret: i32) {
        self.message(b'K', |body| {
            body.put_i32(pid);
            body.put_i32(secret);
        });
    }

    /// Tells a client that asked for a newer minor version which one it gets, and which `_pq_.` options it does not.
    pub(super) fn negotiate_version(&mut self, refused: &[&str]) {
        self.message(b'v', |body| {
            body.put_i32(3 << 16);
            body.put_i32(i32::try_from(refused.len()).unwrap_or(i32::MAX));
            refused.iter().for_each(|option| put_text(body, option));
        });
    }

    pub(super) fn ready(&mut self, status: TransactionStatus) {
        self.message(b'Z', |body| {
            body.put_u8(match status {
                TransactionStatus::Idle => b'I',
                TransactionStatus::InBlock => b'T',
                TransactionStatus::Failed => b'E',
            });
        });
    }

    pub(super) fn row_description(&mut self, columns: &[Column], format: impl Fn(usize) -> Format) {
        self.message(b'T', |body| {
            body.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            for (index, column) in columns.iter().enumerate() {
                put_text(body, &column.name);
                body.put_i32(0);
                body.put_i16(0);
                body.put_u32(column.data_type.oid());
                body.put_i16(column.data_type.size());
                body.put_i32(column.type_modifier);
                body.put_i16(match format(index) {
                    Format::Text => 0,
                    Format::Binary => 1,
                });
            }
        });
    }

    pub(super) fn parameter_description(&mut self, types: &[PgType]) {
        self.message(b't', |body| {
            body.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
            types.iter().for_each(|kind| body.put_u32(kind.oid()));
        });
    }

    pub(super) fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |body| put_text(body, tag));
    }

    pub(super) fn empty_query(&mut self) {
        self.message(b'I', |_| {});
    }

    pub(super) fn no_data(&mut self) {
        self.message(b'n', |_| {});
    }

    pub(super) fn parse_complete(&mut self) {
        self.message(b'1', |_| {});
    }

    pub(super) fn bind_complete(&mut self) {
        self.message(b'2', |_| {});
    }

    pub(super) fn close_complete(&mut self) {
        self.message(b'3', |_| {});
    }

    pub(super) fn portal_suspended(&mut self) {
        self.message(b's', |_| {});
    }

    /// `CopyInResponse` (`G`) or `CopyOutResponse` (`H`).
    pub(super) fn copy_response(&mut self, kind: u8, columns: usize, format: Format) {
        let format = i16::from(format == Format::Binary);
        self.message(kind, |body| {
            body.put_u8(u8::from(format == 1));
            body.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
            (0..columns).for_each(|_| body.put_i16(format));
        });
    }

    pub(super) fn copy_done(&mut self) {
        self.message(b'c', |_| {});
    }

    pub(super) fn notice(&mut self, severity: &str, message: &str) {
        self.message(b'N', |body| {
            fields(body, severity, if severity == "WARNING" { "01000" } else { "00000" }, message);
            body.put_u8(0);
        });
    }

    /// `position` counts characters from 1 in the whole text the client sent.
    pub(super) fn error(&mut self, severity: &str, error: &sql::Error, position: Option<usize>, context: Option<&str>) {
        self.message(b'E', |body| {
            fields(body, severity, error.sqlstate, &error.message);
            let position = position.map(|position| position.to_string());
            let more =
                [(b'D', error.detail.as_deref()), (b'H', error.hint.as_deref()), (b'P', position.as_deref()), (b'W', context)];
            for (kind, value) in more {
                if let Some(value) = value {
                    body.put_u8(kind);
                    put_text(body, value);
                }
            }
            body.put_u8(0);
        });
    }
}

fn fields(body: &mut BytesMut, severity: &str, sqlstate: &str, message: &str) {
    for (kind, value) in [(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)] {
        body.put_u8(kind);
        put_text(body, value);
    }
}

/// Text up to its first NUL, which no Postgres string can hold, and a NUL.
fn put_text(body: &mut BytesMut, text: &str) {
    let end = memchr::memchr(0, text.as_bytes()).unwrap_or(text.len());
    body.put_slice(&text.as_bytes()[..end]);
    body.put_u8(0);
}

/// Writes the number of bytes since `start`, itself included, at `start`.
pub(super) fn set_length(bytes: &mut BytesMut, start: usize) {
    let length = i32::try_from(bytes.len() - start).unwrap_or(i32::MAX);
    bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
