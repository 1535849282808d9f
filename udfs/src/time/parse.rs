//! `to_timestamp` and `to_date`: times read by a pattern.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array};
use datafusion::common::Result;

use crate::error::Error;
use crate::function::Args;
use crate::time::calendar::{DAY, Date, HOUR, MINUTE, MONTHS, SECOND, WEEKDAYS, days_of_month, from_julian_day, iso_year_start};
use crate::time::pattern::{Field, Node, parse};
use crate::time::{instants, session_zone};

/// The fields found so far; what was not found keeps Postgres's default.
#[derive(Debug, Clone)]
struct Found {
    year: Option<i64>,
    before_christ: bool,
    century: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    week: Option<i64>,
    week_of_month: Option<i64>,
    weekday: Option<i64>,
    iso_weekday: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    twelve_hours: bool,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    second_of_day: Option<i64>,
    micros: i64,
    zone_sign: i64,
    zone_offset: Option<i64>,
}

impl Found {
    const NOTHING: Found = Found {
        year: None,
        before_christ: false,
        century: None,
        month: None,
        day: None,
        day_of_year: None,
        iso_year: None,
        iso_week: None,
        week: None,
        week_of_month: None,
        weekday: None,
        iso_weekday: None,
        julian: None,
        hour: 0,
        twelve_hours: false,
        afternoon: None,
        minute: 0,
        second: 0,
        second_of_day: None,
        micros: 0,
        zone_sign: 1,
        zone_offset: None,
    };

    /// Local microseconds since 1970.
    fn local(&self, text: &str) -> Result<i64, Error> {
        let outside = || Error::bad_time(format!("date/time field value out of range: \"{text}\""));
        let (mut hour, mut minute, mut second) = (self.hour, self.minute, self.second);
        if let Some(past) = self.second_of_day {
            (hour, minute, second) = (past / 3600, past / 60 % 60, past % 60);
        }
        if self.twelve_hours {
            if !(1..=12).contains(&hour) {
                return Err(Error::invalid_datetime(format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            match self.afternoon {
                Some(true) if hour < 12 => hour += 12,
                Some(false) if hour == 12 => hour = 0,
                _ => {}
            }
        }
        if !((0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second)) {
            return Err(outside());
        }
        let time = hour * HOUR + minute * MINUTE + second * SECOND + self.micros;
        Ok(self.days().ok_or_else(outside)? * DAY + time)
    }

    fn days(&self) -> Option<i64> {
        if let Some(julian) = self.julian {
            return (0..=110_000_000).contains(&julian).then(|| from_julian_day(julian));
        }
        if self.iso_year.is_some() || self.iso_week.is_some() {
            let start = iso_year_start(self.iso_year.or(self.year).unwrap_or(1));
            return match (self.iso_week, self.day_of_year) {
                (Some(week @ 1..=53), _) => Some(start + (week - 1) * 7 + self.iso_weekday.unwrap_or(1) - 1),
                (None, Some(day @ 1..=371)) => Some(start + day - 1),
                (None, None) => Some(start),
                _ => None,
            };
        }
        let mut year = match (self.year, self.century) {
            (Some(year), Some(century)) if self.year.is_some_and(|y| y < 100) => (century - 1) * 100 + year,
            (Some(year), _) => year,
            // A century alone means its first year.
            (None, Some(century)) => (century - 1) * 100 + 1,
            (None, None) => 0,
        };
        if self.before_christ && year > 0 {
            year = 1 - year;
        } else if year < 0 {
            year += 1;
        }
        if !(-4713..=294_276).contains(&year) {
            return None;
        }
        if let Some(week @ 1..=53) = self.week {
            return Some(Date { year, month: 1, day: 1 }.days() + (week - 1) * 7);
        }
        if let Some(day) = self.day_of_year {
            let start = Date { year, month: 1, day: 1 }.days();
            let length = 337 + days_of_month(year, 2);
            return (1..=length).contains(&day).then(|| start + day - 1);
        }
        let day = self.day.unwrap_or_else(|| self.week_of_month.map_or(1, |week| (week - 1) * 7 + 1));
        Date::valid(year, self.month.unwrap_or(1), day).map(Date::days)
    }
}

/// The text still to be read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// An integer of at most `width` digits; of any length where the next pattern word is not a number.
    fn number(&mut self, width: usize, open_ended: bool, what: &str) -> Result<i64, Error> {
        self.skip_spaces();
        let signed = usize::from(open_ended && self.rest.starts_with(['-', '+']));
        let limit = if open_ended { usize::MAX } else { width };
        let digits = self.rest[signed..].bytes().take_while(u8::is_ascii_digit).take(limit).count();
        if digits == 0 {
            let found: String = self.rest.chars().take(width).collect();
            return Err(Error::invalid_datetime(format!("invalid value \"{found}\" for \"{what}\""))
                .with_hint("Value must be an integer."));
        }
        let text = self.take(signed + digits);
        text.parse().map_err(|_| Error::bad_time(format!("value for \"{what}\" in source string is out of range")))
    }

    /// One of `names` or its first `length` letters, whatever the case; its place in the list.
    fn one_of(&mut self, names: &[&str], length: Option<usize>, what: &str) -> Result<usize, Error> {
        self.skip_spaces();
        for (index, name) in names.iter().enumerate() {
            let name = &name[..length.unwrap_or(name.len()).min(name.len())];
            if self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
                self.take(name.len());
                return Ok(index);
            }
        }
        let found: String = self.rest.chars().take(9).collect();
        Err(Error::invalid_datetime(format!("invalid value \"{found}\" for \"{what}\""))
            .with_hint("The given value did not match any of the allowed values for this field."))
    }
}

fn is_separator(char: char) -> bool {
    char.is_ascii_punctuation() || char.is_ascii_whitespace()
}

/// Whether the node reads digits only, so that the one before it must not take too many.
fn reads_digits(node: Option<&Node>) -> bool {
    match node {
        Some(Node::Field { field, .. }) => !matches!(
            field,
            Field::Era { .. }
                | Field::Meridian { .. }
                | Field::DayName(_)
                | Field::DayShort(_)
                | Field::MonthName(_)
                | Field::MonthShort(_)
                | Field::MonthRoman(_)
                | Field::ZoneName(_)
                | Field::ZoneHour
                | Field::ZoneOffset
        ),
        _ => false,
    }
}

fn read(nodes: &[Node], text: &str) -> Result<Found, Error> {
    let mut reader = Reader { rest: text };
    let mut found = Found::NOTHING;
    for (at, node) in nodes.iter().enumerate() {
        if reader.rest.is_empty() {
            break;
        }
        match node {
            Node::Literal(literal) => skip_literal(&mut reader, literal),
            Node::Field { field, fill, ordinal } => {
                let open = !fill || !reads_digits(nodes.get(at + 1));
                read_field(&mut reader, *field, open, &mut found)?;
                if *ordinal != crate::time::pattern::Ordinal::None {
                    let letters = reader.rest.bytes().take_while(u8::is_ascii_alphabetic).take(2).count();
                    reader.take(letters);
                }
            }
        }
    }
    Ok(found)
}

/// Separators of a pattern stand for any separators; other characters for any one character.
fn skip_literal(reader: &mut Reader, literal: &str) {
    for char in literal.chars() {
        if is_separator(char) {
            // A sign belongs to the number behind it, unless the pattern has the very same character.
            let next = reader.rest.chars().next();
            match next {
                Some(next) if next == char => reader.rest = &reader.rest[next.len_utf8()..],
                Some(next) if is_separator(next) && !matches!(next, '+' | '-') => reader.rest = &reader.rest[next.len_utf8()..],
                Some('-') if char != '+' && !char.is_whitespace() => reader.rest = &reader.rest[1..],
                _ => {}
            }
        } else if let Some(next) = reader.rest.chars().next() {
            reader.rest = &reader.rest[next.len_utf8()..];
        }
    }
    while reader.rest.starts_with(|c: char| is_separator(c) && !matches!(c, '+' | '-')) {
        reader.rest = &reader.rest[1..];
    }
}

fn read_field(reader: &mut Reader, field: Field, open: bool, found: &mut Found) -> Result<(), Error> {
    match field {
        Field::Era { dots, .. } => {
            let names: &[&str] = if dots { &["a.d.", "b.c."] } else { &["ad", "bc"] };
            found.before_christ = reader.one_of(names, None, "AD")? == 1;
        }
        Field::Meridian { dots, .. } => {
            let names: &[&str] = if dots { &["a.m.", "p.m."] } else { &["am", "pm"] };
            found.afternoon = Some(reader.one_of(names, None, "AM")? == 1);
            found.twelve_hours = true;
        }
        Field::Century => found.century = Some(reader.number(2, open, "CC")?),
        Field::DayName(_) => found.weekday = Some(reader.one_of(&WEEKDAYS, None, "DAY")? as i64),
        Field::DayShort(_) => found.weekday = Some(reader.one_of(&WEEKDAYS, Some(3), "DY")? as i64),
        Field::DayOfYear | Field::IsoDayOfYear => found.day_of_year = Some(reader.number(3, open, "DDD")?),
        Field::DayOfMonth => found.day = Some(reader.number(2, open, "DD")?),
        Field::DayOfWeek => found.weekday = Some(reader.number(1, open, "D")?),
        Field::IsoDayOfWeek => found.iso_weekday = Some(reader.number(1, open, "ID")?),
        Field::Fraction(digits) => {
            let before = reader.rest.trim_start().len();
            let value = reader.number(digits as usize, open, "US")?;
            // A fraction's digits count from the point: .5 are 500 milliseconds.
            let given = (before - reader.rest.len()).min(digits as usize) as u32;
            found.micros = value
                .checked_mul(10_i64.pow(6 - given))
                .filter(|micros| (0..SECOND).contains(micros))
                .ok_or_else(|| Error::bad_time("fraction of a second out of range"))?;
        }
        Field::Hour24 => found.hour = reader.number(2, open, "HH24")?,
        Field::Hour12 => {
            found.hour = reader.number(2, open, "HH12")?;
            found.twelve_hours = true;
        }
        Field::Minute => found.minute = reader.number(2, open, "MI")?,
        Field::Second => found.second = reader.number(2, open, "SS")?,
        Field::SecondOfDay => found.second_of_day = Some(reader.number(5, open, "SSSSS")?),
        Field::Julian => found.julian = Some(reader.number(9, true, "J")?),
        Field::Month => found.month = Some(reader.number(2, open, "MM")?),
        Field::MonthName(_) => found.month = Some(reader.one_of(&MONTHS, None, "MONTH")? as i64 + 1),
        Field::MonthShort(_) => found.month = Some(reader.one_of(&MONTHS, Some(3), "MON")? as i64 + 1),
        Field::MonthRoman(_) => {
            const LONGEST_FIRST: [&str; 12] = ["VIII", "III", "VII", "XII", "II", "IV", "VI", "IX", "XI", "I", "V", "X"];
            const VALUES: [i64; 12] = [8, 3, 7, 12, 2, 4, 6, 9, 11, 1, 5, 10];
            found.month = Some(VALUES[reader.one_of(&LONGEST_FIRST, None, "RM")?]);
        }
        // Postgres reads the quarter and ignores it.
        Field::Quarter => drop(reader.number(1, open, "Q")?),
        Field::WeekOfYear => found.week = Some(reader.number(2, open, "WW")?),
        Field::WeekOfMonth => found.week_of_month = Some(reader.number(1, open, "W")?),
        Field::IsoWeek => found.iso_week = Some(reader.number(2, open, "IW")?),
        Field::YearWithComma => {
            let thousands = reader.number(3, true, "Y,YYY")?;
            reader.rest = reader.rest.strip_prefix(',').unwrap_or(reader.rest);
            found.year = Some(thousands * 1000 + reader.number(3, open, "Y,YYY")?);
        }
        Field::Year(digits) => found.year = Some(read_year(reader, digits, open, "YYYY", found.century.is_some())?),
        Field::IsoYear(digits) => found.iso_year = Some(read_year(reader, digits, open, "IYYY", false)?),
        Field::ZoneHour | Field::ZoneOffset => {
            reader.skip_spaces();
            found.zone_sign = if reader.rest.starts_with('-') { -1 } else { 1 };
            reader.rest = reader.rest.strip_prefix(['-', '+']).unwrap_or(reader.rest);
            let mut offset = reader.number(2, false, "TZH")? * HOUR;
            if field == Field::ZoneOffset && reader.rest.starts_with(':') {
                reader.take(1);
                offset += reader.number(2, false, "OF")? * MINUTE;
            }
            found.zone_offset = Some(found.zone_sign * offset);
        }
        Field::ZoneMinute => {
            let minutes = reader.number(2, false, "TZM")? * MINUTE;
            found.zone_offset = Some(found.zone_offset.unwrap_or(0) + found.zone_sign * minutes);
        }
        Field::ZoneName(_) => {
            return Err(Error::new("0A000", "formatting field \"TZ\" is only supported in to_char").with_hint("use TZH and TZM"));
        }
    }
    Ok(())
}

/// Years of fewer than four digits are taken to be near 2020.
fn read_year(reader: &mut Reader, digits: u32, open: bool, what: &str, with_century: bool) -> Result<i64, Error> {
    reader.skip_spaces();
    let before = reader.rest.len();
    let year = reader.number(digits as usize, open, what)?;
    let given = before - reader.rest.len();
    Ok(match given {
        _ if digits == 4 || given >= 4 || with_century => year,
        1 | 2 if year < 70 => year + 2000,
        1 | 2 => year + 1900,
        _ if year < 520 => year + 2000,
        _ => year + 1000,
    })
}

fn read_rows<T>(args: &Args, convert: impl Fn(&Found, &str) -> Result<T, Error>) -> Result<Vec<Option<T>>> {
    let (texts, patterns) = (args.text(0)?, args.text(1)?);
    let mut cache: Option<(&str, Vec<Node>)> = None;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)) else {
            result.push(None);
            continue;
        };
        let nodes = match &mut cache {
            Some((known, nodes)) if *known == pattern => nodes,
            slot => &mut slot.insert((pattern, parse(pattern))).1,
        };
        result.push(Some(convert(&read(nodes, text)?, text)?));
    }
    Ok(result)
}

pub(crate) fn to_timestamp(args: &Args) -> Result<ArrayRef> {
    let zone = session_zone(args)?;
    let result = read_rows(args, |found, text| {
        let local = found.local(text)?;
        Ok(match found.zone_offset {
            Some(offset) => local - offset,
            None => zone.to_instant(local),
        })
    })?;
    Ok(instants(result))
}

pub(crate) fn to_date(args: &Args) -> Result<ArrayRef> {
    let result = read_rows(args, |found, text| Ok(found.local(text)?.div_euclid(DAY) as i32))?;
    Ok(Arc::new(Date32Array::from(result)))
}
