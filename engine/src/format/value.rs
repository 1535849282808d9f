//! Values from text: numbers, times, bytes. No allocation, and a reason when it fails.

use super::BadRecord;

/// What a bare number means where a timestamp is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochUnit {
    /// Seconds since 1970.
    Second,
    /// Milliseconds since 1970; the default.
    Millisecond,
    /// Microseconds since 1970.
    Microsecond,
}

impl EpochUnit {
    fn decimals(self) -> u32 {
        match self {
            EpochUnit::Second => 6,
            EpochUnit::Millisecond => 3,
            EpochUnit::Microsecond => 0,
        }
    }
}

/// How a value is shown in a reason: never long.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

pub(super) fn invalid(type_name: &str, text: &[u8]) -> BadRecord {
    BadRecord::syntax(format!("invalid input for type {type_name}: {}", shown(text)))
}

fn out_of_range(type_name: &str, text: &[u8]) -> BadRecord {
    BadRecord::new("22003", format!("value {} is out of range for type {type_name}", shown(text)))
}

/// A whole number between the bounds. `1.0` and `1e3` are whole numbers too.
pub(super) fn integer(text: &[u8], type_name: &str, least: i64, greatest: i64) -> Result<i64, BadRecord> {
    let value = match plain_integer(text) {
        Some(value) => value,
        None => {
            let Number { negative, digits, exponent, truncated } = number(text).ok_or_else(|| invalid(type_name, text))?;
            if truncated {
                return Err(out_of_range(type_name, text));
            }
            let magnitude = if exponent >= 0 {
                10i128.checked_pow(exponent as u32).and_then(|scale| digits.checked_mul(scale))
            } else {
                let scale = 10i128.checked_pow(exponent.unsigned_abs());
                match scale {
                    _ if digits == 0 => Some(0),
                    Some(scale) if digits % scale == 0 => Some(digits / scale),
                    _ => return Err(invalid(type_name, text)),
                }
            };
            let value = magnitude.map(|magnitude| if negative { -magnitude } else { magnitude });
            match value.and_then(|value| i64::try_from(value).ok()) {
                Some(value) => value,
                None => return Err(out_of_range(type_name, text)),
            }
        }
    };
    if value < least || value > greatest { Err(out_of_range(type_name, text)) } else { Ok(value) }
}

/// `-?[0-9]{1,18}`.
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A number taken apart: `digits * 10^exponent`.
struct Number {
    negative: bool,
    digits: i128,
    exponent: i32,
    /// More digits than 38 stood there.
    truncated: bool,
}

fn number(text: &[u8]) -> Option<Number> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (mut digits, mut exponent, mut count, mut seen, mut truncated) = (0i128, 0i32, 0u32, false, false);
    let mut at = 0;
    let mut fraction = false;
    while at < rest.len() {
        match rest[at] {
            digit @ b'0'..=b'9' => {
                seen = true;
                if count < 38 {
                    digits = digits * 10 + i128::from(digit - b'0');
                    count += u32::from(digits != 0);
                    exponent -= i32::from(fraction);
                } else {
                    // Digits behind the 38th only count when they stand before the point.
                    truncated |= !fraction;
                }
            }
            b'.' if !fraction => fraction = true,
            b'e' | b'E' if seen => {
                let power: i32 = std::str::from_utf8(&rest[at + 1..]).ok()?.parse().ok()?;
                exponent = exponent.checked_add(power.clamp(-100_000, 100_000))?;
                break;
            }
            _ => return None,
        }
        at += 1;
    }
    seen.then_some(Number { negative, digits, exponent, truncated })
}

/// An exact decimal of the given precision and scale; more decimals are rounded half away from zero, as Postgres does.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, BadRecord> {
    let Number { negative, digits, exponent, truncated } = number(text).ok_or_else(|| invalid("numeric", text))?;
    let too_large = || BadRecord::new("22003", format!("value {} does not fit numeric({precision},{scale})", shown(text)));
    if truncated {
        return Err(too_large());
    }
    let shift = exponent + i32::from(scale);
    let magnitude = if digits == 0 {
        0
    } else if shift >= 0 {
        10i128.checked_pow(shift as u32).and_then(|power| digits.checked_mul(power)).ok_or_else(too_large)?
    } else {
        match 10i128.checked_pow(shift.unsigned_abs()) {
            Some(power) => digits / power + i128::from(digits % power >= power / 2 && power > 1),
            None => 0,
        }
    };
    if 10i128.checked_pow(u32::from(precision)).is_some_and(|limit| magnitude >= limit) {
        return Err(too_large());
    }
    Ok(if negative { -magnitude } else { magnitude })
}

/// A floating point number; `NaN` and `Infinity` as Postgres spells them.
pub(super) fn float(text: &[u8], type_name: &str) -> Result<f64, BadRecord> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<f64>().ok());
    match parsed {
        Some(value) if value.is_infinite() && text.iter().any(u8::is_ascii_digit) => Err(out_of_range(type_name, text)),
        Some(value) => Ok(value),
        None => Err(invalid(type_name, text)),
    }
}

/// `float4`: what does not fit is out of range, not infinity.
pub(super) fn float4(text: &[u8]) -> Result<f32, BadRecord> {
    let wide = float(text, "real")?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() { Err(out_of_range("real", text)) } else { Ok(narrow) }
}

/// A truth value.
pub(super) fn boolean(text: &[u8]) -> Result<bool, BadRecord> {
    match text {
        b"true" | b"t" | b"TRUE" | b"True" | b"1" => Ok(true),
        b"false" | b"f" | b"FALSE" | b"False" | b"0" => Ok(false),
        _ => Err(invalid("boolean", text)),
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years start in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// What can be wrong with a time: its form, or a part beyond its bounds.
enum TimeFault {
    Form,
    Range,
}

fn civil_date(text: &[u8]) -> Result<i64, TimeFault> {
    let part = |at| two(text, at).ok_or(TimeFault::Form);
    if text.len() < 10 || text[4] != b'-' || text[7] != b'-' {
        // A year of five digits or more, or one before the common era, has the form of a date and no place in it.
        let digits = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let long_year = digits > 4 && text.get(digits) == Some(&b'-') || matches!(text, [b'+' | b'-', b'0'..=b'9', ..]);
        return Err(if long_year { TimeFault::Range } else { TimeFault::Form });
    }
    let (year, month, day) = (part(0)? * 100 + part(2)?, part(5)?, part(8)?);
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return Err(TimeFault::Range);
    }
    Ok(days_from_civil(year, month, day))
}

/// `HH:MM[:SS[.f…]]` from the start of `text`: microseconds and what follows. Digits behind the sixth are cut off.
fn clock_time(text: &[u8]) -> Result<(i64, &[u8]), TimeFault> {
    let part = |at| two(text, at).ok_or(TimeFault::Form);
    if text.get(2) != Some(&b':') {
        return Err(TimeFault::Form);
    }
    let (hour, minute) = (part(0)?, part(3)?);
    let (mut second, mut micros, mut rest) = (0, 0, &text[5..]);
    if rest.first() == Some(&b':') {
        second = part(6)?;
        rest = &text[8..];
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
            if digits == 0 {
                return Err(TimeFault::Form);
            }
            for place in 0..6 {
                micros = micros * 10 + fraction[..digits].get(place).map_or(0, |digit| i64::from(digit - b'0'));
            }
            rest = &fraction[digits..];
        }
    }
    // 24:00:00 and the leap second 60 are the start of what follows, as in Postgres.
    let whole_day = hour == 24 && minute == 0 && second == 0 && micros == 0;
    if hour > 23 && !whole_day || minute > 59 || second > 60 {
        return Err(TimeFault::Range);
    }
    Ok((((hour * 60 + minute) * 60 + second) * 1_000_000 + micros, rest))
}

/// `Z`, `UTC`, `±HH`, `±HHMM`, `±HH:MM`: seconds east of Greenwich.
fn zone(text: &[u8]) -> Result<i64, TimeFault> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, rest) = match text {
        b"" | b"Z" | b"z" | b"UTC" | b"utc" => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(TimeFault::Form),
    };
    let hours = two(rest, 0).ok_or(TimeFault::Form)?;
    let minutes = match &rest[2..] {
        b"" => 0,
        [b':', minutes @ ..] | minutes if minutes.len() == 2 => two(minutes, 0).ok_or(TimeFault::Form)?,
        _ => return Err(TimeFault::Form),
    };
    if hours > 15 || minutes > 59 { Err(TimeFault::Range) } else { Ok(sign * (hours * 60 + minutes) * 60) }
}

fn time_fault(fault: TimeFault, type_name: &str, text: &[u8]) -> BadRecord {
    match fault {
        TimeFault::Form => BadRecord::new("22007", format!("invalid input for type {type_name}: {}", shown(text))),
        TimeFault::Range => BadRecord::new("22008", format!("{type_name} out of range: {}", shown(text))),
    }
}

/// Microseconds since 1970 UTC of `YYYY-MM-DD[( |T)HH:MM[:SS[.ffffff]]][zone]`; without a zone it is UTC.
pub(super) fn timestamp(text: &[u8]) -> Result<i64, BadRecord> {
    let parse = || {
        let days = civil_date(text)?;
        let mut micros = days * 86_400_000_000;
        match &text[10..] {
            b"" => {}
            [b'T' | b't' | b' ', clock @ ..] => {
                let (time, rest) = clock_time(clock)?;
                micros += time - zone(rest)? * 1_000_000;
            }
            _ => return Err(TimeFault::Form),
        }
        Ok(micros)
    };
    parse().map_err(|fault| time_fault(fault, "timestamp", text))
}

/// Microseconds since 1970 of a bare number in the unit given; years 1 to 9999 only.
pub(super) fn epoch_timestamp(text: &[u8], unit: EpochUnit) -> Result<i64, BadRecord> {
    const YEAR_1: i128 = -62_135_596_800_000_000;
    const YEAR_10000: i128 = 253_402_300_800_000_000;
    let decimals = unit.decimals();
    let micros = decimal(text, 38, decimals as i8).map_err(|_| time_fault(TimeFault::Form, "timestamp", text))?;
    if !(YEAR_1..YEAR_10000).contains(&micros) {
        return Err(time_fault(TimeFault::Range, "timestamp", text));
    }
    Ok(micros as i64)
}

/// Days since 1970 of `YYYY-MM-DD`; a time behind it is checked and left out.
pub(super) fn date(text: &[u8]) -> Result<i32, BadRecord> {
    if text.len() > 10 {
        return timestamp(text).map(|micros| micros.div_euclid(86_400_000_000) as i32);
    }
    civil_date(text).map(|days| days as i32).map_err(|fault| time_fault(fault, "date", text))
}

/// Microseconds since midnight.
pub(super) fn time(text: &[u8]) -> Result<i64, BadRecord> {
    match clock_time(text) {
        Ok((micros, b"")) => Ok(micros),
        Ok(_) => Err(time_fault(TimeFault::Form, "time", text)),
        Err(fault) => Err(time_fault(fault, "time", text)),
    }
}

/// Bytes of `\x` hex digits, or of base64 with or without padding.
pub(super) fn bytes(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadRecord> {
    let fail = || invalid("bytea", text);
    if let [b'\\', b'x', hex @ ..] = text {
        if hex.len() % 2 != 0 {
            return Err(fail());
        }
        for pair in hex.chunks_exact(2) {
            let digit = |byte: u8| (byte as char).to_digit(16).ok_or_else(fail);
            out.push((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
        }
        return Ok(());
    }
    let body = match text {
        [body @ .., b'=', b'='] | [body @ .., b'='] => body,
        _ => text,
    };
    if body.len() % 4 == 1 {
        return Err(fail());
    }
    for chunk in body.chunks(4) {
        let mut word = 0u32;
        for byte in chunk {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return Err(fail()),
            };
            word = word << 6 | u32::from(six);
        }
        word <<= 6 * (4 - chunk.len() as u32);
        out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Ok(())
}

/// A UUID in its usual form, in lower case.
pub(super) fn uuid(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadRecord> {
    let start = out.len();
    let body = match text {
        [b'{', body @ .., b'}'] => body,
        _ => text,
    };
    for byte in body.iter().filter(|byte| **byte != b'-') {
        if !byte.is_ascii_hexdigit() {
            return Err(invalid("uuid", text));
        }
        let digits = out.len() - start;
        if matches!(digits, 8 | 13 | 18 | 23) {
            out.push(b'-');
        }
        out.push(byte.to_ascii_lowercase());
    }
    if out.len() - start == 36 { Ok(()) } else { Err(invalid("uuid", text)) }
}
