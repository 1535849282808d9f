//! Bytes as text and back, and digests.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use crate::error::Error;
use crate::function::Args;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(args: &Args) -> Result<ArrayRef> {
    let (column, formats) = (args.bytes(0)?, args.text(1)?);
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..args.rows() {
        let (Some(bytes), Some(format)) = (column.get(row), formats.get(row)) else {
            builder.append_null();
            continue;
        };
        buffer.clear();
        match format.to_ascii_lowercase().as_str() {
            // Writing to a String cannot fail.
            "hex" => bytes.iter().for_each(|byte| write!(buffer, "{byte:02x}").unwrap_or_default()),
            "base64" => to_base64(bytes, &mut buffer),
            "escape" => bytes.iter().for_each(|&byte| match byte {
                b'\\' => buffer.push_str("\\\\"),
                0 | 0x80.. => write!(buffer, "\\{byte:03o}").unwrap_or_default(),
                _ => buffer.push(byte as char),
            }),
            other => {
                return Err(Error::invalid(format!("unrecognized encoding: \"{other}\""))
                    .with_hint("use base64, hex or escape")
                    .into());
            }
        }
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

/// With a line break after 76 characters, as Postgres and MIME have it.
fn to_base64(bytes: &[u8], out: &mut String) {
    for (index, chunk) in bytes.chunks(3).enumerate() {
        if index > 0 && index % 19 == 0 {
            out.push('\n');
        }
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            out.push(if position <= chunk.len() { BASE64[(bits >> (18 - 6 * position) & 63) as usize] as char } else { '=' });
        }
    }
}

pub(crate) fn decode(args: &Args) -> Result<ArrayRef> {
    let (column, formats) = (args.text(0)?, args.text(1)?);
    let mut builder = BinaryBuilder::new();
    for row in 0..args.rows() {
        let (Some(text), Some(format)) = (column.get(row), formats.get(row)) else {
            builder.append_null();
            continue;
        };
        builder.append_value(match format.to_ascii_lowercase().as_str() {
            "hex" => from_hex(text)?,
            "base64" => from_base64(text)?,
            "escape" => from_escape(text)?,
            other => {
                return Err(Error::invalid(format!("unrecognized encoding: \"{other}\""))
                    .with_hint("use base64, hex or escape")
                    .into());
            }
        });
    }
    Ok(Arc::new(builder.finish()))
}

fn from_hex(text: &str) -> Result<Vec<u8>, Error> {
    let mut nibbles = Vec::with_capacity(text.len());
    for char in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let nibble = char.to_digit(16).ok_or_else(|| Error::invalid(format!("invalid hexadecimal digit: \"{char}\"")))?;
        nibbles.push(nibble as u8);
    }
    if nibbles.len() % 2 == 1 {
        return Err(Error::invalid("invalid hexadecimal data: odd number of digits"));
    }
    Ok(nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_base64(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count, mut padding) = (0_u32, 0, 0);
    for char in text.bytes().filter(|c| !c.is_ascii_whitespace()) {
        let value = match BASE64.iter().position(|&known| known == char) {
            Some(value) if padding == 0 => value as u32,
            None if char == b'=' && count >= 2 => {
                padding += 1;
                0
            }
            _ => return Err(Error::invalid(format!("invalid symbol \"{}\" found while decoding base64 sequence", char as char))),
        };
        bits = bits << 6 | value;
        count += 1;
        if count == 4 {
            bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
            (bits, count) = (0, 0);
        }
    }
    if count != 0 {
        return Err(Error::invalid("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(bytes)
}

fn from_escape(text: &str) -> Result<Vec<u8>, Error> {
    let bad = || Error::invalid_text("bytea", text);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        (rest, _) = match (first, tail) {
            (b'\\', [b'\\', after @ ..]) => (after, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                (after, bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')))
            }
            (b'\\', _) => return Err(bad()),
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    Ok(bytes)
}

/// DataFusion computes digests well; only its result types differ from Postgres's.
fn digest(args: &Args, function: Arc<ScalarUDF>) -> Result<ArrayRef> {
    let input = args.full_array(0)?;
    let rows = args.rows();
    let field = args.fields[0].clone();
    let return_type = function.return_type(&[input.data_type().clone()])?;
    let result = function.invoke_with_args(ScalarFunctionArgs {
        args: vec![ColumnarValue::Array(input)],
        arg_fields: vec![field],
        number_rows: rows,
        return_field: Arc::new(arrow::datatypes::Field::new("digest", return_type, true)),
        config_options: args.config.clone(),
    })?;
    Ok(cast(&result.to_array(rows)?, args.return_field.data_type())?)
}

pub(crate) fn md5(args: &Args) -> Result<ArrayRef> {
    digest(args, datafusion::functions::crypto::md5())
}

pub(crate) fn sha224(args: &Args) -> Result<ArrayRef> {
    digest(args, datafusion::functions::crypto::sha224())
}

pub(crate) fn sha256(args: &Args) -> Result<ArrayRef> {
    digest(args, datafusion::functions::crypto::sha256())
}

pub(crate) fn sha384(args: &Args) -> Result<ArrayRef> {
    digest(args, datafusion::functions::crypto::sha384())
}

pub(crate) fn sha512(args: &Args) -> Result<ArrayRef> {
    digest(args, datafusion::functions::crypto::sha512())
}

/// `convert_to(text, 'UTF8')`, and bytes of texts where bytes are wanted.
pub(crate) fn convert_to(args: &Args) -> Result<ArrayRef> {
    utf8_only(args)?;
    Ok(cast(&args.full_array(0)?, &DataType::Binary)?)
}

pub(crate) fn convert_from(args: &Args) -> Result<ArrayRef> {
    utf8_only(args)?;
    let column = args.bytes(0)?;
    let mut builder = StringBuilder::new();
    for row in 0..args.rows() {
        let text = column.get(row).map(std::str::from_utf8).transpose();
        builder.append_option(text.map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?);
    }
    Ok(Arc::new(builder.finish()))
}

fn utf8_only(args: &Args) -> Result<(), Error> {
    match args.constant_text(1) {
        Ok(Some(name)) if name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("utf-8") => Ok(()),
        _ => Err(Error::invalid("invalid encoding name").with_hint("texts are always UTF8 here")),
    }
}
