//! `to_char` of timestamps and intervals.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use datafusion::common::Result;

use crate::error::Error;
use crate::function::Args;
use crate::time::calendar::{
    DAY, Date, HOUR, MINUTE, MONTHS, SECOND, WEEKDAYS, Zone, century, iso_weekday, iso_year_start, julian_day,
};
use crate::time::interval::Interval;
use crate::time::pattern::{Case, Field, Node, Ordinal, parse};
use crate::time::session_zone;

const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// A pattern ready for use, with the last text it made.
///
/// Streams come nearly in order of time, so that neighbouring rows mostly fall into the same day (or minute, after
/// what the pattern shows): then the text is copied, not made again.
struct Formatter {
    nodes: Vec<Node>,
    /// Times in the same multiple of this many microseconds have the same text.
    resolution: i64,
    last: Option<i64>,
    text: String,
}

impl Formatter {
    fn new(pattern: &str) -> Self {
        let nodes = parse(pattern);
        let resolution = nodes.iter().map(resolution).min().unwrap_or(DAY);
        Formatter { nodes, resolution, last: None, text: String::new() }
    }

    /// The text of a local time.
    #[inline]
    fn format(&mut self, local: i64, zone: Option<(i64, &str)>) -> &str {
        let key = local.div_euclid(self.resolution);
        if self.last != Some(key) {
            self.text.clear();
            write_nodes(&self.nodes, &Moment::of(local, zone), &mut self.text);
            // With a zone the offset is part of the text and may change within the span.
            self.last = zone.is_none().then_some(key);
        }
        &self.text
    }
}

fn resolution(node: &Node) -> i64 {
    match node {
        Node::Literal(_) => DAY,
        Node::Field { field, .. } => match field {
            Field::Fraction(_) => 1,
            Field::Second | Field::SecondOfDay => SECOND,
            Field::Minute => MINUTE,
            Field::Hour24 | Field::Hour12 | Field::Meridian { .. } => HOUR,
            _ => DAY,
        },
    }
}

/// What a pattern can show: a point in local time, or an interval.
struct Moment<'a> {
    date: Date,
    days: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    zone: Option<(i64, &'a str)>,
    interval: bool,
    /// Months of an interval; zero when it has none.
    month: i64,
}

impl<'a> Moment<'a> {
    fn of(local: i64, zone: Option<(i64, &'a str)>) -> Self {
        let days = local.div_euclid(DAY);
        let time = local.rem_euclid(DAY);
        let date = Date::from_days(days);
        Moment {
            date,
            days,
            hour: time / HOUR,
            minute: time / MINUTE % 60,
            second: time / SECOND % 60,
            micros: time % SECOND,
            zone,
            interval: false,
            month: date.month.into(),
        }
    }

    fn of_interval(interval: Interval) -> Self {
        let year = interval.months / 12;
        let month = interval.months % 12;
        let time = interval.micros;
        Moment {
            date: Date { year, month: 1, day: 1 },
            days: interval.days,
            hour: time / HOUR,
            minute: time / MINUTE % 60,
            second: time / SECOND % 60,
            micros: time % SECOND,
            zone: None,
            interval: true,
            month,
        }
    }

    fn day_of_year(&self) -> i64 {
        if self.interval { (self.date.year * 12 + self.month) * 30 + self.days } else { self.date.day_of_year() }
    }

    fn day_of_month(&self) -> i64 {
        if self.interval { self.days } else { self.date.day.into() }
    }

    /// The year as shown: BC years count backwards from 1.
    fn shown_year(&self, year: i64) -> i64 {
        if self.interval || year > 0 { year } else { 1 - year }
    }
}

fn write_nodes(nodes: &[Node], moment: &Moment, out: &mut String) {
    for node in nodes {
        match node {
            Node::Literal(text) => out.push_str(text),
            Node::Field { field, fill, ordinal } => write_field(*field, *fill, *ordinal, moment, out),
        }
    }
}

/// A number, zero-filled to `width` where the pattern fills, with its ordinal ending where it is wanted.
fn number(out: &mut String, value: i64, width: usize, fill: bool, ordinal: Ordinal) {
    // Two digits are nearly all there is.
    if fill && width == 2 && (0..100).contains(&value) {
        out.push((b'0' + (value / 10) as u8) as char);
        out.push((b'0' + (value % 10) as u8) as char);
    } else {
        let width = if fill { width + usize::from(value < 0) } else { 0 };
        let _ = write!(out, "{value:0width$}"); // writing to a String cannot fail
    }
    out.push_str(ordinal_ending(value, ordinal));
}

pub(crate) fn ordinal_ending(value: i64, ordinal: Ordinal) -> &'static str {
    let (upper, lower) = match (value.unsigned_abs() / 10 % 10, value.unsigned_abs() % 10) {
        (1, _) => ("TH", "th"),
        (_, 1) => ("ST", "st"),
        (_, 2) => ("ND", "nd"),
        (_, 3) => ("RD", "rd"),
        _ => ("TH", "th"),
    };
    match ordinal {
        Ordinal::None => "",
        Ordinal::Upper => upper,
        Ordinal::Lower => lower,
    }
}

/// A name in the wanted case, padded to `width` where the pattern fills.
fn name(out: &mut String, name: &str, case: Case, width: usize, fill: bool) {
    let start = out.len();
    match case {
        Case::Upper => out.extend(name.chars().map(|c| c.to_ascii_uppercase())),
        Case::Lower => out.extend(name.chars().map(|c| c.to_ascii_lowercase())),
        Case::Capital => out.push_str(name),
    }
    while fill && out.len() - start < width {
        out.push(' ');
    }
}

fn write_field(field: Field, fill: bool, ordinal: Ordinal, moment: &Moment, out: &mut String) {
    let date = moment.date;
    match field {
        Field::Era { case, dots } => {
            let era = match (date.year > 0 || moment.interval, dots) {
                (true, true) => "A.D.",
                (true, false) => "AD",
                (false, true) => "B.C.",
                (false, false) => "BC",
            };
            name(out, era, case, 0, false);
        }
        Field::Meridian { case, dots } => {
            let meridian = match (moment.hour.rem_euclid(24) >= 12, dots) {
                (true, true) => "P.M.",
                (true, false) => "PM",
                (false, true) => "A.M.",
                (false, false) => "AM",
            };
            name(out, meridian, case, 0, false);
        }
        Field::Hour24 => number(out, moment.hour, 2, fill, ordinal),
        Field::Hour12 => {
            let hour = if moment.hour % 12 == 0 { 12 } else { moment.hour % 12 };
            number(out, hour, 2, fill, ordinal);
        }
        Field::Minute => number(out, moment.minute, 2, fill, ordinal),
        Field::Second => number(out, moment.second, 2, fill, ordinal),
        Field::Fraction(digits) => {
            // Fractions are digits, not numbers: FM does not shorten them.
            let value = moment.micros / 10_i64.pow(6 - digits);
            number(out, value, digits as usize, true, ordinal);
        }
        Field::SecondOfDay => number(out, moment.hour * 3600 + moment.minute * 60 + moment.second, 0, false, ordinal),
        Field::ZoneName(case) => {
            if let Some((_, abbreviation)) = moment.zone {
                name(out, abbreviation, case, 0, false);
            }
        }
        Field::ZoneHour | Field::ZoneMinute | Field::ZoneOffset => {
            let offset = moment.zone.map_or(0, |(offset, _)| offset);
            let (hours, minutes) = (offset.abs() / HOUR, offset.abs() / MINUTE % 60);
            if field != Field::ZoneMinute {
                out.push(if offset < 0 { '-' } else { '+' });
                number(out, hours, 2, fill || field == Field::ZoneHour, Ordinal::None);
            } else {
                number(out, minutes, 2, true, Ordinal::None);
            }
            if field == Field::ZoneOffset && minutes != 0 {
                out.push(':');
                number(out, minutes, 2, true, Ordinal::None);
            }
        }
        Field::MonthName(case) => {
            if let Some(month) = month_index(moment) {
                name(out, MONTHS[month], case, 9, fill);
            }
        }
        Field::MonthShort(case) => {
            if let Some(month) = month_index(moment) {
                name(out, &MONTHS[month][..3], case, 0, false);
            }
        }
        Field::MonthRoman(case) => {
            let shown = if moment.interval { (moment.month + 11).rem_euclid(12) } else { moment.month - 1 };
            if !moment.interval || moment.month != 0 || moment.date.year != 0 {
                name(out, ROMAN[shown as usize], case, 4, fill);
            }
        }
        Field::Month => number(out, moment.month, 2, fill, ordinal),
        Field::DayName(case) => name(out, WEEKDAYS[weekday(moment)], case, 9, fill),
        Field::DayShort(case) => name(out, &WEEKDAYS[weekday(moment)][..3], case, 0, false),
        Field::DayOfYear => number(out, moment.day_of_year(), 3, fill, ordinal),
        Field::IsoDayOfYear => {
            let (year, _) = date.iso_week();
            number(out, date.days() - iso_year_start(year) + 1, 3, fill, ordinal);
        }
        Field::DayOfMonth => number(out, moment.day_of_month(), 2, fill, ordinal),
        Field::DayOfWeek => number(out, weekday(moment) as i64 + 1, 0, false, ordinal),
        Field::IsoDayOfWeek => number(out, iso_weekday(moment.days), 0, false, ordinal),
        Field::WeekOfYear => number(out, (moment.day_of_year() - 1) / 7 + 1, 2, fill, ordinal),
        Field::IsoWeek => number(out, date.iso_week().1, 2, fill, ordinal),
        Field::Quarter => {
            if moment.month > 0 {
                number(out, (moment.month - 1) / 3 + 1, 0, false, ordinal);
            }
        }
        Field::Century => {
            let value = if moment.interval { date.year / 100 } else { century(date.year) };
            number(out, value, 2, fill, ordinal);
        }
        Field::YearWithComma => {
            let year = moment.shown_year(date.year);
            let _ = write!(out, "{},{:03}", year / 1000, year % 1000);
            out.push_str(ordinal_ending(year, ordinal));
        }
        Field::Year(digits) => write_year(out, moment.shown_year(date.year), digits, fill, ordinal),
        Field::IsoYear(digits) => {
            let year = if moment.interval { date.year } else { moment.shown_year(date.iso_week().0) };
            write_year(out, year, digits, fill, ordinal);
        }
        Field::WeekOfMonth => number(out, (moment.day_of_month() - 1) / 7 + 1, 0, false, ordinal),
        Field::Julian => {
            let days = if moment.interval { moment.days } else { julian_day(moment.days) };
            number(out, days, 0, false, ordinal);
        }
    }
}

fn write_year(out: &mut String, year: i64, digits: u32, fill: bool, ordinal: Ordinal) {
    let value = if digits == 4 { year } else { year % 10_i64.pow(digits) };
    number(out, value, digits as usize, fill, ordinal);
}

fn month_index(moment: &Moment) -> Option<usize> {
    if moment.interval { None } else { Some(date_index(moment.date.month)) }
}

fn date_index(month: u32) -> usize {
    month as usize - 1
}

/// Sunday 0 … Saturday 6.
fn weekday(moment: &Moment) -> usize {
    (iso_weekday(moment.days) % 7) as usize
}

/// Calls `make` for every row with the formatter of its pattern; rows that share a pattern share the formatter.
fn for_each(args: &Args, mut make: impl FnMut(&mut Formatter, usize, &mut StringBuilder) -> Result<()>) -> Result<ArrayRef> {
    let patterns = args.text(1)?;
    let mut formatter: Option<(&str, Formatter)> = None;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    for row in 0..args.rows() {
        // Postgres answers NULL to an empty pattern.
        let Some(pattern) = patterns.get(row).filter(|pattern| !pattern.is_empty()) else {
            builder.append_null();
            continue;
        };
        let formatter = match &mut formatter {
            Some((known, formatter)) if *known == pattern => formatter,
            slot => &mut slot.insert((pattern, Formatter::new(pattern))).1,
        };
        make(formatter, row, &mut builder)?;
    }
    Ok(Arc::new(builder.finish()))
}

pub(crate) fn timestamp(args: &Args) -> Result<ArrayRef> {
    let times = args.timestamp(0)?;
    for_each(args, |formatter, row, builder| {
        match times.get(row) {
            Some(time) => builder.append_value(formatter.format(time, None)),
            None => builder.append_null(),
        }
        Ok(())
    })
}

pub(crate) fn timestamptz(args: &Args) -> Result<ArrayRef> {
    let times = args.timestamp(0)?;
    let zone = session_zone(args)?;
    for_each(args, |formatter, row, builder| {
        match (times.get(row), &zone) {
            (Some(time), Zone::Utc) if !formatter.shows_zone() => builder.append_value(formatter.format(time, None)),
            (Some(time), zone) => {
                let (offset, abbreviation) = zone.offset_at(time);
                builder.append_value(formatter.format(time + offset, Some((offset, &abbreviation))));
            }
            (None, _) => builder.append_null(),
        }
        Ok(())
    })
}

impl Formatter {
    fn shows_zone(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node, Node::Field { field: Field::ZoneName(_), .. }))
    }
}

pub(crate) fn interval(args: &Args) -> Result<ArrayRef> {
    let intervals = args.interval(0)?;
    for_each(args, |formatter, row, builder| {
        let Some(interval) = intervals.get(row) else {
            builder.append_null();
            return Ok(());
        };
        let of_day = |field: &Field| {
            matches!(
                field,
                Field::Era { .. }
                    | Field::DayName(_)
                    | Field::DayShort(_)
                    | Field::DayOfWeek
                    | Field::IsoDayOfWeek
                    | Field::ZoneName(_)
                    | Field::ZoneHour
                    | Field::ZoneMinute
                    | Field::ZoneOffset
                    | Field::IsoDayOfYear
            )
        };
        if formatter.nodes.iter().any(|node| matches!(node, Node::Field { field, .. } if of_day(field))) {
            return Err(Error::invalid_datetime("invalid format specification for an interval value")
                .with_hint("Intervals are not tied to specific calendar dates.")
                .into());
        }
        formatter.text.clear();
        write_nodes(&formatter.nodes, &Moment::of_interval(interval), &mut formatter.text);
        builder.append_value(&formatter.text);
        Ok(())
    })
}
