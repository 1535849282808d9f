//! Postgres intervals: months, days and microseconds that are kept apart.

use std::fmt;

use arrow::datatypes::IntervalMonthDayNano;

use crate::error::Error;
use crate::time::calendar::{DAY, Date, HOUR, MINUTE, SECOND};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interval {
    pub(crate) months: i64,
    pub(crate) days: i64,
    pub(crate) micros: i64,
}

impl Interval {
    pub(crate) fn from_arrow(value: IntervalMonthDayNano) -> Self {
        Interval { months: value.months.into(), days: value.days.into(), micros: value.nanoseconds / 1000 }
    }

    /// The difference of two timestamps: whole days and the rest, as Postgres subtracts.
    pub(crate) fn from_difference(micros: i64) -> Self {
        Interval { months: 0, days: micros / DAY, micros: micros % DAY }
    }

    pub(crate) fn to_arrow(self) -> Result<IntervalMonthDayNano, Error> {
        let too_big = || Error::out_of_range("interval");
        Ok(IntervalMonthDayNano {
            months: i32::try_from(self.months).map_err(|_| too_big())?,
            days: i32::try_from(self.days).map_err(|_| too_big())?,
            nanoseconds: self.micros.checked_mul(1000).ok_or_else(too_big)?,
        })
    }

    /// Every 24 hours become a day.
    pub(crate) fn justify_hours(self) -> Self {
        let mut result = self;
        result.days += result.micros / DAY;
        result.micros %= DAY;
        if result.days > 0 && result.micros < 0 {
            result.micros += DAY;
            result.days -= 1;
        } else if result.days < 0 && result.micros > 0 {
            result.micros -= DAY;
            result.days += 1;
        }
        result
    }

    /// Every 30 days become a month.
    pub(crate) fn justify_days(self) -> Self {
        let mut result = self;
        result.months += result.days / 30;
        result.days %= 30;
        if result.months > 0 && result.days < 0 {
            result.days += 30;
            result.months -= 1;
        } else if result.months < 0 && result.days > 0 {
            result.days -= 30;
            result.months += 1;
        }
        result
    }

    /// Both, with one sign throughout.
    pub(crate) fn justify(self) -> Self {
        let mut result = self;
        result.days += result.micros / DAY;
        result.micros %= DAY;
        result.months += result.days / 30;
        result.days %= 30;
        if result.months > 0 && (result.days < 0 || (result.days == 0 && result.micros < 0)) {
            result.days += 30;
            result.months -= 1;
        } else if result.months < 0 && (result.days > 0 || (result.days == 0 && result.micros > 0)) {
            result.days -= 30;
            result.months += 1;
        }
        if result.days > 0 && result.micros < 0 {
            result.micros += DAY;
            result.days -= 1;
        } else if result.days < 0 && result.micros > 0 {
            result.micros -= DAY;
            result.days += 1;
        }
        result
    }

    /// A fixed length, months counted as 30 days; what comparisons and `date_bin` go by.
    pub(crate) fn fixed_micros(self) -> Option<i64> {
        self.months.checked_mul(30)?.checked_add(self.days)?.checked_mul(DAY)?.checked_add(self.micros)
    }

    /// `later - earlier` in calendar terms: the years, months and days between two local times.
    pub(crate) fn age(later: i64, earlier: i64) -> Self {
        let sign = if later < earlier { -1 } else { 1 };
        let (from, to) = (earlier.min(later), earlier.max(later));
        let (from_date, to_date) = (Date::from_days(from.div_euclid(DAY)), Date::from_days(to.div_euclid(DAY)));
        let mut micros = to.rem_euclid(DAY) - from.rem_euclid(DAY);
        let mut days = i64::from(to_date.day) - i64::from(from_date.day);
        let mut months = (to_date.year - from_date.year) * 12 + i64::from(to_date.month) - i64::from(from_date.month);
        if micros < 0 {
            micros += DAY;
            days -= 1;
        }
        while days < 0 {
            // Postgres borrows the length of the month that the earlier argument, in call order, lies in.
            let lender = if sign > 0 { from_date } else { to_date };
            days += crate::time::calendar::days_of_month(lender.year, lender.month);
            months -= 1;
        }
        Interval { months: sign * months, days: sign * days, micros: sign * micros }
    }
}

/// Postgres's default interval style: `1 year 2 mons -3 days 04:05:06.7`.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = false;
        let mut negative = false;
        let parts = [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")];
        for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
            let space = if before { " " } else { "" };
            let plus = if negative && value > 0 { "+" } else { "" };
            write!(f, "{space}{plus}{value} {unit}{}", if value == 1 { "" } else { "s" })?;
            before = true;
            negative = value < 0;
        }
        if before && self.micros == 0 {
            return Ok(());
        }
        let sign = match self.micros {
            micros if micros < 0 => "-",
            _ if negative => "+",
            _ => "",
        };
        let micros = self.micros.unsigned_abs() as i64;
        let space = if before { " " } else { "" };
        write!(f, "{space}{sign}{:02}:{:02}:{:02}", micros / HOUR, micros / MINUTE % 60, micros / SECOND % 60)?;
        match micros % SECOND {
            0 => Ok(()),
            fraction => write!(f, ".{}", format!("{fraction:06}").trim_end_matches('0')),
        }
    }
}
