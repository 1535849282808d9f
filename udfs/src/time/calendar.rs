//! Days, months and years of the proleptic Gregorian calendar, as plain arithmetic.

use arrow::array::timezone::Tz;
use chrono::{LocalResult, Offset, TimeZone};
use datafusion::common::Result;

use crate::error::Error;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Julian day of 1970-01-01.
const JULIAN_EPOCH: i64 = 2_440_588;

/// A calendar day; year 0 is 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
}

impl Date {
    pub(crate) fn from_days(days: i64) -> Date {
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u32,
        }
    }

    pub(crate) fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * shifted + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    pub(crate) fn valid(year: i64, month: i64, day: i64) -> Option<Date> {
        let fits = (-300_000..=300_000).contains(&year) && (1..=12).contains(&month) && day >= 1;
        if !fits || day > days_of_month(year, month as u32) {
            return None;
        }
        Some(Date { year, month: month as u32, day: day as u32 })
    }

    pub(crate) fn day_of_year(self) -> i64 {
        self.days() - Date { year: self.year, month: 1, day: 1 }.days() + 1
    }

    /// The ISO year and week this day belongs to.
    pub(crate) fn iso_week(self) -> (i64, i64) {
        let days = self.days();
        // The week belongs to the year that has its Thursday.
        let thursday = days - (iso_weekday(days) - 1) + 3;
        let year = Date::from_days(thursday).year;
        (year, (thursday - Date { year, month: 1, day: 1 }.days()) / 7 + 1)
    }

    pub(crate) fn quarter(self) -> i64 {
        i64::from((self.month - 1) / 3 + 1)
    }

    /// The same day some months later, or the last day of that month.
    pub(crate) fn plus_months(self, months: i64) -> Date {
        let total = self.year * 12 + i64::from(self.month) - 1 + months;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
        Date { year, month, day: self.day.min(days_of_month(year, month) as u32) }
    }
}

pub(crate) fn days_of_month(year: i64, month: u32) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Monday 1 … Sunday 7.
pub(crate) fn iso_weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

pub(crate) fn julian_day(days: i64) -> i64 {
    days + JULIAN_EPOCH
}

pub(crate) fn from_julian_day(julian: i64) -> i64 {
    julian - JULIAN_EPOCH
}

/// The first day (a Monday) of an ISO year.
pub(crate) fn iso_year_start(year: i64) -> i64 {
    let fourth = Date { year, month: 1, day: 4 }.days();
    fourth - (iso_weekday(fourth) - 1)
}

/// The Postgres year: there is no year 0, 1 BC is -1.
pub(crate) fn display_year(year: i64) -> i64 {
    if year > 0 { year } else { year - 1 }
}

pub(crate) fn century(year: i64) -> i64 {
    if year > 0 { (year + 99) / 100 } else { -((99 - (year - 1)) / 100) }
}

pub(crate) fn millennium(year: i64) -> i64 {
    if year > 0 { (year + 999) / 1000 } else { -((999 - (year - 1)) / 1000) }
}

pub(crate) fn decade(year: i64) -> i64 {
    if year >= 0 { year / 10 } else { -((8 - (year - 1)) / 10) }
}

/// A time zone: offsets are looked up per instant, UTC costs nothing.
#[derive(Debug, Clone)]
pub(crate) enum Zone {
    Utc,
    Named(Tz),
}

impl Zone {
    pub(crate) fn parse(name: &str) -> Result<Zone> {
        let trimmed = name.trim();
        if ["utc", "gmt", "z", "etc/utc", "zulu", "+00:00", "+00"].iter().any(|utc| trimmed.eq_ignore_ascii_case(utc)) {
            return Ok(Zone::Utc);
        }
        let tz: Tz = trimmed.parse().map_err(|_| {
            Error::invalid(format!("time zone \"{trimmed}\" not recognized")).with_hint("use a name such as Europe/Berlin")
        })?;
        Ok(Zone::Named(tz))
    }

    /// Microseconds east of UTC at this instant, and the zone's abbreviation then.
    pub(crate) fn offset_at(&self, instant: i64) -> (i64, String) {
        let Zone::Named(tz) = self else { return (0, "UTC".to_owned()) };
        let Some(utc) = chrono::DateTime::from_timestamp_micros(instant) else { return (0, "UTC".to_owned()) };
        let offset = tz.offset_from_utc_datetime(&utc.naive_utc());
        (i64::from(offset.fix().local_minus_utc()) * SECOND, offset.to_string())
    }

    pub(crate) fn to_local(&self, instant: i64) -> i64 {
        match self {
            Zone::Utc => instant,
            Zone::Named(_) => instant + self.offset_at(instant).0,
        }
    }

    /// The instant of a local time; of two the earlier offset's, in a gap the one before the change, as Postgres does.
    pub(crate) fn to_instant(&self, local: i64) -> i64 {
        let Zone::Named(tz) = self else { return local };
        let Some(naive) = chrono::DateTime::from_timestamp_micros(local).map(|t| t.naive_utc()) else { return local };
        match tz.offset_from_local_datetime(&naive) {
            LocalResult::Single(offset) => local - i64::from(offset.fix().local_minus_utc()) * SECOND,
            // Postgres takes standard time for both the hour that comes twice and the one that never comes.
            LocalResult::Ambiguous(first, second) => {
                local - i64::from(first.fix().local_minus_utc().min(second.fix().local_minus_utc())) * SECOND
            }
            LocalResult::None => local - self.offset_at(local - DAY).0,
        }
    }
}

pub(crate) const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
pub(crate) const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
