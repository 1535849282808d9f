//! COPY … TO STDOUT and FROM STDIN on the wire.

use bytes::{BufMut, BytesMut};
use sql::Error;

use super::connection::Connection;
use super::encode::{ColumnEncoder, RowEncoder, zone};
use super::link::{Failure, Limits};
use super::message::{Format, Message};
use crate::session::{CopyFormat, CopyIn, CopyOptions, Rows};

impl Connection {
    /// Sends rows, each a line.
    pub(super) async fn copy_out(&mut self, mut rows: Rows, options: &CopyOptions, limits: &Limits) -> Result<(), Failure> {
        let types: Vec<_> = rows.columns.iter().map(|column| column.data_type).collect();
        let names: Vec<_> = rows.columns.iter().map(|column| column.name.clone()).collect();
        let format = if options.format == CopyFormat::Binary { Format::Binary } else { Format::Text };
        let zone = zone(self.session.settings.time_zone());
        self.notices();
        self.link.out.copy_response(b'H', types.len(), format);
        let forced: Vec<bool> =
            names.iter().map(|name| options.force_quote.iter().any(|forced| forced == "*" || forced == name)).collect();
        let mut value = BytesMut::new();
        if options.format == CopyFormat::Binary {
            self.link.out.message(b'd', |body| {
                body.put_slice(b"PGCOPY\n\xff\r\n\0");
                body.put_u64(0);
            });
        } else if options.header {
            self.link.out.message(b'd', |body| {
                for (index, name) in names.iter().enumerate() {
                    if index > 0 {
                        body.put_u8(options.delimiter);
                    }
                    match options.format {
                        CopyFormat::Csv => put_csv(name.as_bytes(), false, options, body),
                        _ => put_escaped(name.as_bytes(), options, body),
                    }
                }
                body.put_u8(b'\n');
            });
        }
        let mut count = 0u64;
        while let Some((batch, start)) = self.next_batch(&mut rows, limits).await? {
            let encoder =
                RowEncoder::new(&batch, &types, |_| format, zone).map_err(|error| Error::new("0A000", error.to_string()))?;
            for row in start..encoder.rows() {
                self.link.out.message(b'd', |body| match options.format {
                    CopyFormat::Binary => {
                        body.put_i16(i16::try_from(types.len()).unwrap_or(i16::MAX));
                        encoder.columns().for_each(|column| column.write(row, Format::Binary, body));
                    }
                    _ => put_line(encoder.columns(), row, &forced, options, &mut value, body),
                });
                count += 1;
                self.link.flush_if_full(Some(limits)).await?;
            }
            self.session.registration().rows(count);
        }
        if options.format == CopyFormat::Binary {
            self.link.out.message(b'd', |body| body.put_i16(-1));
        }
        self.link.out.copy_done();
        self.link.out.command_complete(&format!("COPY {count}"));
        Ok(())
    }

    /// Takes rows until the client says that there are no more.
    pub(super) async fn copy_in(&mut self, mut copy: CopyIn, limits: &Limits) -> Result<(), Failure> {
        self.notices();
        self.link.out.copy_response(b'G', copy.columns(), Format::Text);
        self.link.flush(Some(limits)).await?;
        let failure = |failed: crate::session::CopyError| Failure::Statement(failed.error, failed.context);
        loop {
            match self.link.receive(Some(limits), None).await? {
                Message::CopyData(data) => copy.push(&data).map_err(failure)?,
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    return Err(Error::new("57014", format!("COPY from stdin failed: {reason}")).into());
                }
                // Clients that send ahead have sent these before they knew of the COPY.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Failure::Gone),
                _ => return Err(Failure::Fatal(Error::new("08P01", "unexpected message type during COPY from stdin"))),
            }
        }
        copy.end().map_err(failure)?;
        let count = self.link.watch(limits, self.session.copied(copy)).await??;
        self.notices();
        self.link.out.command_complete(&format!("COPY {count}"));
        Ok(())
    }
}

fn put_line<'a>(
    columns: impl Iterator<Item = &'a ColumnEncoder>,
    row: usize,
    forced: &[bool],
    options: &CopyOptions,
    value: &mut BytesMut,
    body: &mut BytesMut,
) {
    for ((index, column), forced) in columns.enumerate().zip(forced) {
        if index > 0 {
            body.put_u8(options.delimiter);
        }
        if column.is_null(row) {
            body.put_slice(options.null.as_bytes());
            continue;
        }
        value.clear();
        column.write_text(row, value);
        match options.format {
            CopyFormat::Csv => put_csv(value, *forced, options, body),
            _ => put_escaped(value, options, body),
        }
    }
    body.put_u8(b'\n');
}

/// A value of the text format, with backslashes before what has a meaning.
fn put_escaped(value: &[u8], options: &CopyOptions, body: &mut BytesMut) {
    for byte in value {
        let letter = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            byte if *byte == options.delimiter => *byte,
            byte => {
                body.put_u8(*byte);
                continue;
            }
        };
        body.put_u8(b'\\');
        body.put_u8(letter);
    }
}

/// A value of CSV, in quotes when it must be: the text that stands for NULL is a value only within quotes.
fn put_csv(value: &[u8], forced: bool, options: &CopyOptions, body: &mut BytesMut) {
    let special = |byte: &u8| matches!(byte, b'\n' | b'\r') || *byte == options.delimiter || *byte == options.quote;
    if !forced && value != options.null.as_bytes() && value != b"\\." && !value.iter().any(special) {
        return body.put_slice(value);
    }
    body.put_u8(options.quote);
    for byte in value {
        if *byte == options.quote || *byte == options.escape {
            body.put_u8(options.escape);
        }
        body.put_u8(*byte);
    }
    body.put_u8(options.quote);
}
