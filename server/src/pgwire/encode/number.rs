//! Numbers in Postgres's text and NUMERIC's binary form.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

/// Room for the digits of any number, on the stack.
pub(super) struct Digits {
    bytes: [u8; 96],
    length: usize,
}

impl Digits {
    pub(super) fn of(value: impl std::fmt::Display) -> Digits {
        let mut digits = Digits { bytes: [0; 96], length: 0 };
        write!(digits, "{value}").expect("numbers are shorter than 96 digits");
        digits
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// A whole number.
pub(super) fn write_integer(value: i64, out: &mut BytesMut) {
    out.put_slice(Digits::of(value).as_bytes());
}

/// A number of at least `width` digits.
pub(super) fn write_padded(value: i64, width: usize, out: &mut BytesMut) {
    let digits = Digits::of(value);
    for _ in digits.length..width {
        out.put_u8(b'0');
    }
    out.put_slice(digits.as_bytes());
}

/// How many digits a float type holds for sure: from there on Postgres writes an exponent.
#[derive(Debug, Clone, Copy)]
pub(super) enum FloatDigits {
    Single = 6,
    Double = 15,
}

/// A float, given its shortest form with an exponent (`1.25e-7`), as Postgres writes it.
pub(super) fn write_float(
    scientific: impl std::fmt::LowerExp,
    class: std::num::FpCategory,
    negative: bool,
    limit: FloatDigits,
    out: &mut BytesMut,
) {
    match class {
        std::num::FpCategory::Nan => return out.put_slice(b"NaN"),
        std::num::FpCategory::Infinite => return out.put_slice(if negative { b"-Infinity" } else { b"Infinity" }),
        std::num::FpCategory::Zero => return out.put_slice(if negative { b"-0" } else { b"0" }),
        std::num::FpCategory::Normal | std::num::FpCategory::Subnormal => {}
    }
    let written = Digits::of(format_args!("{scientific:e}"));
    let text = std::str::from_utf8(written.as_bytes()).expect("digits are ASCII");
    let (mantissa, exponent) = text.split_once('e').expect("the form with an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent of a float is a small number");
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if negative {
        out.put_u8(b'-');
    }
    if exponent < -4 || exponent >= limit as i32 {
        out.put_slice(mantissa.as_bytes());
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        return write_padded(i64::from(exponent.abs()), 2, out);
    }
    if exponent < 0 {
        out.put_slice(b"0.");
        (1..-exponent).for_each(|_| out.put_u8(b'0'));
        out.put_slice(first.as_bytes());
        return out.put_slice(rest.as_bytes());
    }
    let whole = usize::try_from(exponent).unwrap_or(0);
    out.put_slice(first.as_bytes());
    if rest.len() <= whole {
        out.put_slice(rest.as_bytes());
        (rest.len()..whole).for_each(|_| out.put_u8(b'0'));
    } else {
        out.put_slice(&rest.as_bytes()[..whole]);
        out.put_u8(b'.');
        out.put_slice(&rest.as_bytes()[whole..]);
    }
}

/// Digits of an unscaled decimal with the point where `scale` puts it.
pub(super) fn write_decimal(digits: &[u8], scale: i8, out: &mut BytesMut) {
    let (sign, digits) = match digits {
        [b'-', digits @ ..] => (&b"-"[..], digits),
        digits => (&b""[..], digits),
    };
    out.put_slice(sign);
    if scale <= 0 {
        out.put_slice(digits);
        if digits != b"0" {
            (0..scale.unsigned_abs()).for_each(|_| out.put_u8(b'0'));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.put_u8(b'0');
    }
    out.put_slice(&digits[..whole]);
    out.put_u8(b'.');
    (digits.len()..scale).for_each(|_| out.put_u8(b'0'));
    out.put_slice(&digits[whole..]);
}

/// NUMERIC's binary form: groups of four decimal digits around the point, weight of the first, sign, digits after the point.
pub(super) fn write_decimal_binary(digits: &[u8], scale: i8, out: &mut BytesMut) {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let point = isize::try_from(digits.len()).unwrap_or(0) - isize::from(scale);
    let digit = |place: isize| -> i16 {
        // `place` counts from the point: 0 is the first digit after it, -1 the one before.
        let index = point + place;
        usize::try_from(index).ok().and_then(|index| digits.get(index)).map_or(0, |digit| i16::from(digit - b'0'))
    };
    let group = |group: isize| (0..4).fold(0i16, |sum, i| sum * 10 + digit(-4 * (group + 1) + i));
    // Groups are numbered by weight: 0 holds the four digits before the point, -1 the four after it.
    let highest = (point - 1).div_euclid(4);
    let lowest = -(isize::from(scale).max(0) + 3) / 4;
    let first = (lowest..=highest).rev().find(|weight| group(*weight) != 0);
    let last = (lowest..=highest).find(|weight| group(*weight) != 0);
    let (Some(first), Some(last)) = (first, last) else {
        for part in [0i16, 0, 0, i16::from(scale.max(0))] {
            out.put_i16(part);
        }
        return;
    };
    out.put_i16(i16::try_from(first - last + 1).unwrap_or(0));
    out.put_i16(i16::try_from(first).unwrap_or(0));
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_i16(i16::from(scale.max(0)));
    (last..=first).rev().for_each(|weight| out.put_i16(group(weight)));
}
