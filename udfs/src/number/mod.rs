//! Numbers: exact where the argument is exact, Postgres's rounding, its errors instead of wrapped or infinite results.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ReturnFieldArgs;

use crate::error::Error;
use crate::function::{Args, Definition};

mod pattern;

pub(crate) const FUNCTIONS: &[Definition] = &[
    Definition::new("to_char", "int, text", "text", "Writes a number by a pattern such as `FM9,999`.", format_int),
    Definition::new("to_char", "numeric, text", "text", "Writes a number by a pattern such as `FM9,990.00`.", format_numeric),
    Definition::new(
        "to_char",
        "double precision, text",
        "text",
        "Writes a number by a pattern such as `9.99EEEE`.",
        format_float,
    ),
    Definition::new("mod", "bigint, bigint", "bigint", "The remainder, with the sign of the dividend.", mod_int),
    Definition::new("mod", "numeric, numeric", "numeric", "The exact remainder, with the sign of the dividend.", mod_numeric)
        .returning(common_scale),
    Definition::new("div", "bigint, bigint", "numeric", "The whole quotient, rounded towards zero.", div_int).returning(whole),
    Definition::new("div", "numeric, numeric", "numeric", "The whole quotient, rounded towards zero.", div_numeric)
        .returning(whole),
    Definition::new("round", "double precision", "double precision", "To the nearest whole number, halves to even.", round_float),
    Definition::new(
        "round",
        "numeric, int?",
        "numeric",
        "To so many digits behind the point, halves away from zero.",
        round_numeric,
    )
    .returning(wanted_scale),
    Definition::new("trunc", "double precision", "double precision", "Towards zero.", trunc_float),
    Definition::new("trunc", "numeric, int?", "numeric", "Towards zero, to so many digits behind the point.", trunc_numeric)
        .returning(wanted_scale),
    Definition::new("ceil|ceiling", "double precision", "double precision", "The next whole number up.", ceil_float),
    Definition::new("ceil|ceiling", "numeric", "numeric", "The next whole number up.", ceil_numeric).returning(whole),
    Definition::new("floor", "double precision", "double precision", "The next whole number down.", floor_float),
    Definition::new("floor", "numeric", "numeric", "The next whole number down.", floor_numeric).returning(whole),
    Definition::new("sign", "double precision", "double precision", "-1, 0 or 1.", sign_float),
    Definition::new("sign", "numeric", "numeric", "-1, 0 or 1.", sign_numeric).returning(whole),
    Definition::new(
        "power|pow",
        "double precision, double precision",
        "double precision",
        "The first number to the power of the second.",
        power,
    ),
    Definition::new("sqrt", "double precision", "double precision", "The square root.", sqrt),
    Definition::new("cbrt", "double precision", "double precision", "The cube root.", cbrt),
    Definition::new("exp", "double precision", "double precision", "e to this power.", exp),
    Definition::new("ln", "double precision", "double precision", "The natural logarithm.", ln),
    Definition::new("log|log10", "double precision", "double precision", "The logarithm to base 10.", log10),
    Definition::new(
        "log",
        "double precision, double precision",
        "double precision",
        "The logarithm of the second number to the first as base.",
        log_base,
    ),
    Definition::new(
        "width_bucket",
        "double precision, double precision, double precision, int",
        "int",
        "The bucket a number falls into, of so many between two bounds.",
        width_bucket,
    ),
    Definition::new("gcd", "bigint, bigint", "bigint", "The greatest common divisor.", gcd),
    Definition::new("lcm", "bigint, bigint", "bigint", "The least common multiple.", lcm),
    Definition::new(
        "haversine_m",
        "double precision, double precision, double precision, double precision",
        "double precision",
        "Metres between two places given as latitude, longitude, latitude, longitude.",
        haversine,
    ),
];

const DIGITS: u8 = 38;
/// The radius of the sphere with the earth's mean radius, in metres.
const EARTH_RADIUS: f64 = 6_371_008.8;

fn whole(_: &ReturnFieldArgs) -> Result<DataType> {
    Ok(DataType::Decimal128(DIGITS, 0))
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

fn common_scale(args: &ReturnFieldArgs) -> Result<DataType> {
    let scale = args.arg_fields.iter().map(|field| scale_of(field.data_type())).max().unwrap_or(0);
    Ok(DataType::Decimal128(DIGITS, scale))
}

/// The scale asked for where it is a constant, else the argument's.
fn wanted_scale(args: &ReturnFieldArgs) -> Result<DataType> {
    let given = scale_of(args.arg_fields[0].data_type());
    let scale = match args.scalar_arguments.get(1) {
        None => 0,
        Some(Some(ScalarValue::Int64(Some(digits)))) => (*digits).clamp(0, i64::from(DIGITS)) as i8,
        Some(_) => given,
    };
    Ok(DataType::Decimal128(DIGITS, scale))
}

fn overflow() -> Error {
    Error::out_of_range("numeric")
}

fn power_of_ten(exponent: u32) -> Result<i128, Error> {
    10_i128.checked_pow(exponent).ok_or_else(overflow)
}

/// The same number with another count of digits behind the point, which must not lose any.
fn widen(value: i128, from: i8, to: i8) -> Result<i128, Error> {
    value.checked_mul(power_of_ten((to - from).max(0) as u32)?).ok_or_else(overflow)
}

fn numerics(args: &Args, make: impl FnMut(usize) -> Result<Option<i128>>) -> Result<ArrayRef> {
    let values = (0..args.rows()).map(make).collect::<Result<Vec<_>>>()?;
    let limit = 10_i128.pow(DIGITS.into());
    if values.iter().flatten().any(|&value| value >= limit || value <= -limit) {
        return Err(overflow().into());
    }
    Ok(Arc::new(Decimal128Array::from(values).with_data_type(args.return_field.data_type().clone())))
}

fn floats(args: &Args, make: impl Fn(f64) -> Result<f64, Error>) -> Result<ArrayRef> {
    let column = args.float(0)?;
    let values = (0..args.rows()).map(|row| column.get(row).map(&make).transpose()).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Float64Array::from(values)))
}

fn float_pairs(args: &Args, make: impl Fn(f64, f64) -> Result<f64, Error>) -> Result<ArrayRef> {
    let (left, right) = (args.float(0)?, args.float(1)?);
    let of_row = |row| left.get(row).zip(right.get(row)).map(|(left, right)| make(left, right)).transpose();
    Ok(Arc::new(Float64Array::from((0..args.rows()).map(of_row).collect::<Result<Vec<_>, _>>()?)))
}

fn int_pairs(args: &Args, make: impl Fn(i64, i64) -> Result<i64, Error>) -> Result<ArrayRef> {
    let (left, right) = (args.int(0)?, args.int(1)?);
    let of_row = |row| left.get(row).zip(right.get(row)).map(|(left, right)| make(left, right)).transpose();
    Ok(Arc::new(Int64Array::from((0..args.rows()).map(of_row).collect::<Result<Vec<_>, _>>()?)))
}

fn mod_int(args: &Args) -> Result<ArrayRef> {
    // The smallest number modulo -1 is 0; its quotient would overflow.
    int_pairs(args, |left, right| if right == 0 { Err(Error::division_by_zero()) } else { Ok(left.wrapping_rem(right)) })
}

fn numeric_pairs(args: &Args, make: impl Fn(i128, i128) -> Result<i128, Error>) -> Result<ArrayRef> {
    let (left, right) = (args.numeric(0)?, args.numeric(1)?);
    let (left_scale, right_scale) = (args.scale(0), args.scale(1));
    let scale = left_scale.max(right_scale);
    numerics(args, |row| {
        let (Some(left), Some(right)) = (left.get(row), right.get(row)) else { return Ok(None) };
        if right == 0 {
            return Err(Error::division_by_zero().into());
        }
        Ok(Some(make(widen(left, left_scale, scale)?, widen(right, right_scale, scale)?)?))
    })
}

fn mod_numeric(args: &Args) -> Result<ArrayRef> {
    numeric_pairs(args, |left, right| Ok(left % right))
}

fn div_numeric(args: &Args) -> Result<ArrayRef> {
    numeric_pairs(args, |left, right| Ok(left / right))
}

fn div_int(args: &Args) -> Result<ArrayRef> {
    let (left, right) = (args.int(0)?, args.int(1)?);
    numerics(args, |row| match (left.get(row), right.get(row)) {
        (Some(_), Some(0)) => Err(Error::division_by_zero().into()),
        (Some(left), Some(right)) => Ok(Some(i128::from(left) / i128::from(right))),
        _ => Ok(None),
    })
}

fn round_float(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| Ok(value.round_ties_even()))
}

fn trunc_float(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| Ok(value.trunc()))
}

fn ceil_float(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| Ok(value.ceil()))
}

fn floor_float(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| Ok(value.floor()))
}

fn sign_float(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| {
        Ok(if value > 0.0 {
            1.0
        } else if value < 0.0 {
            -1.0
        } else {
            value
        })
    })
}

/// Cuts or rounds to so many digits, and brings the result to the result's scale.
fn at_digits(args: &Args, cut: fn(i128, i128) -> i128) -> Result<ArrayRef> {
    let column = args.numeric(0)?;
    let digits = if args.len() > 1 { Some(args.int(1)?) } else { None };
    let scale = args.scale(0);
    let result_scale = scale_of(args.return_field.data_type());
    numerics(args, |row| {
        let Some(value) = column.get(row) else { return Ok(None) };
        let Some(digits) = digits.as_ref().map_or(Some(0), |digits| digits.get(row)) else { return Ok(None) };
        let dropped = i64::from(scale).saturating_sub(digits);
        let kept = match u32::try_from(dropped) {
            // More digits than any number has are dropped: nothing remains.
            Ok(dropped) => 10_i128.checked_pow(dropped).map_or(0, |unit| cut(value, unit) * unit),
            Err(_) => value,
        };
        Ok(Some(if result_scale >= scale {
            widen(kept, scale, result_scale)?
        } else {
            kept / power_of_ten((scale - result_scale) as u32)?
        }))
    })
}

fn half_away(value: i128, unit: i128) -> i128 {
    let rest = value % unit;
    value / unit + if rest.abs() >= unit - rest.abs() { rest.signum() } else { 0 }
}

fn round_numeric(args: &Args) -> Result<ArrayRef> {
    at_digits(args, half_away)
}

fn trunc_numeric(args: &Args) -> Result<ArrayRef> {
    at_digits(args, |value, unit| value / unit)
}

fn ceil_numeric(args: &Args) -> Result<ArrayRef> {
    at_digits(args, |value, unit| -(-value).div_euclid(unit))
}

fn floor_numeric(args: &Args) -> Result<ArrayRef> {
    at_digits(args, i128::div_euclid)
}

fn sign_numeric(args: &Args) -> Result<ArrayRef> {
    let column = args.numeric(0)?;
    numerics(args, |row| Ok(column.get(row).map(i128::signum)))
}

/// A finite result of finite arguments, or an error.
fn finite(result: f64, finite_arguments: bool) -> Result<f64, Error> {
    if result.is_infinite() && finite_arguments {
        return Err(Error::new("22003", "value out of range: overflow"));
    }
    Ok(result)
}

fn power(args: &Args) -> Result<ArrayRef> {
    float_pairs(args, |base, exponent| {
        if base == 0.0 && exponent < 0.0 {
            return Err(Error::new("2201F", "zero raised to a negative power is undefined"));
        }
        if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
            return Err(Error::new("2201F", "a negative number raised to a non-integer power yields a complex result"));
        }
        let result = base.powf(exponent);
        if result == 0.0 && base != 0.0 && base.is_finite() && exponent.is_finite() {
            return Err(Error::new("22003", "value out of range: underflow"));
        }
        finite(result, base.is_finite() && exponent.is_finite())
    })
}

fn sqrt(args: &Args) -> Result<ArrayRef> {
    let negative = || Error::new("2201F", "cannot take square root of a negative number");
    floats(args, |value| if value < 0.0 { Err(negative()) } else { Ok(value.sqrt()) })
}

fn cbrt(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| Ok(value.cbrt()))
}

fn exp(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| finite(value.exp(), value.is_finite()))
}

fn positive(value: f64) -> Result<f64, Error> {
    if value == 0.0 {
        return Err(Error::new("2201E", "cannot take logarithm of zero"));
    }
    if value < 0.0 {
        return Err(Error::new("2201E", "cannot take logarithm of a negative number"));
    }
    Ok(value)
}

fn ln(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| positive(value).map(f64::ln))
}

fn log10(args: &Args) -> Result<ArrayRef> {
    floats(args, |value| positive(value).map(f64::log10))
}

fn log_base(args: &Args) -> Result<ArrayRef> {
    float_pairs(args, |base, value| {
        let divisor = positive(base)?.ln();
        let dividend = positive(value)?.ln();
        if divisor == 0.0 { Err(Error::division_by_zero()) } else { Ok(dividend / divisor) }
    })
}

fn width_bucket(args: &Args) -> Result<ArrayRef> {
    let (values, lows, highs, counts) = (args.float(0)?, args.float(1)?, args.float(2)?, args.int(3)?);
    let bad = |message: &str| Error::new("2201G", message);
    let of_row = |row| {
        let (Some(value), Some(low), Some(high), Some(count)) = (values.get(row), lows.get(row), highs.get(row), counts.get(row))
        else {
            return Ok(None);
        };
        let count = i32::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| bad("count must be greater than zero"))?;
        if value.is_nan() || low.is_nan() || high.is_nan() {
            return Err(bad("operand, lower bound, and upper bound cannot be NaN"));
        }
        if !low.is_finite() || !high.is_finite() {
            return Err(bad("lower and upper bounds must be finite"));
        }
        if low == high {
            return Err(bad("lower bound cannot equal upper bound"));
        }
        // Buckets may also count downwards, from a high first bound to a low second.
        let part = (value - low) / (high - low);
        Ok(Some(if part < 0.0 {
            0
        } else if part >= 1.0 {
            count.checked_add(1).ok_or_else(|| Error::out_of_range("integer"))?
        } else {
            (part * f64::from(count)) as i32 + 1
        }))
    };
    Ok(Arc::new((0..args.rows()).map(of_row).collect::<Result<Int32Array, Error>>()?))
}

fn greatest_divisor(left: i64, right: i64) -> u64 {
    let (mut left, mut right) = (left.unsigned_abs(), right.unsigned_abs());
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

fn gcd(args: &Args) -> Result<ArrayRef> {
    int_pairs(args, |left, right| i64::try_from(greatest_divisor(left, right)).map_err(|_| Error::out_of_range("bigint")))
}

fn lcm(args: &Args) -> Result<ArrayRef> {
    int_pairs(args, |left, right| match greatest_divisor(left, right) {
        0 => Ok(0),
        divisor => (left.unsigned_abs() / divisor)
            .checked_mul(right.unsigned_abs())
            .and_then(|multiple| i64::try_from(multiple).ok())
            .ok_or_else(|| Error::out_of_range("bigint")),
    })
}

fn haversine(args: &Args) -> Result<ArrayRef> {
    let columns = [args.float(0)?, args.float(1)?, args.float(2)?, args.float(3)?];
    let of_row = |row| {
        let [from_latitude, from_longitude] = [columns[0].get(row)?.to_radians(), columns[1].get(row)?.to_radians()];
        let [to_latitude, to_longitude] = [columns[2].get(row)?.to_radians(), columns[3].get(row)?.to_radians()];
        let half = |a: f64, b: f64| ((b - a) / 2.0).sin().powi(2);
        let chord =
            half(from_latitude, to_latitude) + from_latitude.cos() * to_latitude.cos() * half(from_longitude, to_longitude);
        Some(2.0 * EARTH_RADIUS * chord.min(1.0).sqrt().asin())
    };
    Ok(Arc::new((0..args.rows()).map(of_row).collect::<Float64Array>()))
}

/// Writes the number of each row by its pattern.
fn format(args: &Args, number: impl Fn(usize) -> Option<pattern::Number>) -> Result<ArrayRef> {
    let patterns = args.text(1)?;
    let mut cache: Option<(&str, pattern::Pattern)> = None;
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..args.rows() {
        let (Some(number), Some(text)) = (number(row), patterns.get(row).filter(|text| !text.is_empty())) else {
            builder.append_null();
            continue;
        };
        let pattern = match &mut cache {
            Some((known, pattern)) if *known == text => &*pattern,
            slot => &slot.insert((text, pattern::Pattern::parse(text)?)).1,
        };
        buffer.clear();
        pattern.write(&number, &mut buffer);
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

fn format_int(args: &Args) -> Result<ArrayRef> {
    let column = args.int(0)?;
    format(args, |row| column.get(row).map(|value| pattern::Number::exact(value.into(), 0)))
}

fn format_numeric(args: &Args) -> Result<ArrayRef> {
    let (column, scale) = (args.numeric(0)?, args.scale(0));
    format(args, |row| column.get(row).map(|value| pattern::Number::exact(value, scale)))
}

fn format_float(args: &Args) -> Result<ArrayRef> {
    let column = args.float(0)?;
    format(args, |row| column.get(row).map(pattern::Number::float))
}
