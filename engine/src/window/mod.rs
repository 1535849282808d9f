//! Window arithmetic, pure: which windows a time is in. Used by the streaming operators and by bounded queries.
//!
//! All times are microseconds since 1970 and may be negative. A window is `[start, end)`. Starts lie on a grid
//! `offset + n * slide` for every whole `n`, so arithmetic rounds down, also below zero; near the ends of the
//! range it saturates instead of wrapping, so that a nonsense time gives a nonsense window and never a panic.

pub mod session;

use arrow::buffer::NullBuffer;

use crate::plan::WindowKind;

/// One window, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// First microsecond in the window.
    pub start: i64,
    /// First microsecond after it.
    pub end: i64,
}

/// Rows with the windows they are in: three columns of one length.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the input row; ascending, repeated for each of its windows.
    pub rows: Vec<u32>,
    /// Start of the window.
    pub starts: Vec<i64>,
    /// End of the window, exclusive.
    pub ends: Vec<i64>,
}

/// The greatest point of the grid `offset + n * step` that is not after `time`.
pub fn floor(time: i64, step: i64, offset: i64) -> i64 {
    debug_assert!(step > 0, "windows have a length");
    time.saturating_sub(time.saturating_sub(offset).rem_euclid(step))
}

/// Greatest common divisor of two lengths.
pub fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Calls `window` for each window that holds `time`, in order of their ends.
pub fn for_each(kind: &WindowKind, time: i64, mut window: impl FnMut(Interval)) {
    match kind {
        WindowKind::Tumble { size_us, offset_us } => {
            let start = floor(time, *size_us, *offset_us);
            window(Interval { start, end: start.saturating_add(*size_us) });
        }
        WindowKind::Hop { slide_us, size_us, offset_us } => {
            let last = floor(time, *slide_us, *offset_us);
            // The first start is the smallest grid point above `time - size`.
            let count = size_us.saturating_sub(time.saturating_sub(last)).saturating_add(slide_us - 1) / slide_us;
            for n in (0..count).rev() {
                let start = last.saturating_sub(slide_us.saturating_mul(n));
                window(Interval { start, end: start.saturating_add(*size_us) });
            }
        }
        WindowKind::Cumulate { step_us, size_us, offset_us } => {
            let start = floor(time, *size_us, *offset_us);
            let mut end = floor(time, *step_us, start).saturating_add(*step_us);
            let limit = start.saturating_add(*size_us);
            loop {
                window(Interval { start, end: end.min(limit) });
                if end >= limit {
                    break;
                }
                end = end.saturating_add(*step_us);
            }
        }
        WindowKind::Session { gap_us, .. } => window(Interval { start: time, end: time.saturating_add(*gap_us) }),
    }
}

/// Which rows are in which windows. A row without a time is in none; one in a gap between hopping windows
/// (`size < slide`) as well. For [`WindowKind::Session`] each row gets the window it would have alone: see
/// [`session::merge`] for what makes sessions of them.
pub fn assign(kind: &WindowKind, times: &[i64], nulls: Option<&NullBuffer>) -> Assignment {
    let mut assignment = Assignment::default();
    let windows = windows_per_row(kind);
    assignment.rows.reserve(times.len() * windows);
    assignment.starts.reserve(times.len() * windows);
    assignment.ends.reserve(times.len() * windows);
    for (row, time) in times.iter().enumerate() {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            continue;
        }
        for_each(kind, *time, |window| {
            assignment.rows.push(row as u32);
            assignment.starts.push(window.start);
            assignment.ends.push(window.end);
        });
    }
    assignment
}

/// About how many windows a row is in; an upper bound but for a small part.
pub fn windows_per_row(kind: &WindowKind) -> usize {
    let count = match kind {
        WindowKind::Tumble { .. } | WindowKind::Session { .. } => 1,
        WindowKind::Hop { slide_us, size_us, .. } => (size_us + slide_us - 1) / slide_us,
        WindowKind::Cumulate { step_us, size_us, .. } => (size_us + step_us - 1) / step_us,
    };
    usize::try_from(count.clamp(1, 1024)).unwrap_or(1)
}

/// The length of the disjoint pieces that windows share: every window is a whole number of panes.
pub fn pane_us(kind: &WindowKind) -> i64 {
    match kind {
        WindowKind::Tumble { size_us, .. } => *size_us,
        WindowKind::Hop { slide_us, size_us, .. } => gcd(*size_us, *slide_us),
        WindowKind::Cumulate { step_us, size_us, .. } => gcd(*size_us, *step_us),
        WindowKind::Session { gap_us, .. } => *gap_us,
    }
}

/// The shift of all starts.
pub fn offset_us(kind: &WindowKind) -> i64 {
    match kind {
        WindowKind::Tumble { offset_us, .. } | WindowKind::Hop { offset_us, .. } | WindowKind::Cumulate { offset_us, .. } => {
            *offset_us
        }
        WindowKind::Session { .. } => 0,
    }
}

/// The end of the last window that holds `time`; `None` when it lies in a gap between windows.
/// From this watermark on a row of that time comes too late.
pub fn last_end(kind: &WindowKind, time: i64) -> Option<i64> {
    match kind {
        WindowKind::Tumble { size_us, offset_us } | WindowKind::Cumulate { size_us, offset_us, .. } => {
            Some(floor(time, *size_us, *offset_us).saturating_add(*size_us))
        }
        WindowKind::Hop { slide_us, size_us, offset_us } => {
            let end = floor(time, *slide_us, *offset_us).saturating_add(*size_us);
            (end > time).then_some(end)
        }
        WindowKind::Session { gap_us, .. } => Some(time.saturating_add(*gap_us)),
    }
}

/// The end of the first window that holds `time`, the first one it can be reported in.
pub fn first_end(kind: &WindowKind, time: i64) -> Option<i64> {
    let mut first = None;
    match kind {
        WindowKind::Hop { slide_us, size_us, offset_us } => {
            // The smallest point of the grid of ends that is after `time`.
            let end = floor(time, *slide_us, offset_us.saturating_add(*size_us)).saturating_add(*slide_us);
            (end.saturating_sub(*size_us) <= time).then_some(end)
        }
        WindowKind::Cumulate { step_us, size_us, offset_us } => {
            let start = floor(time, *size_us, *offset_us);
            let end = floor(time, *step_us, start).saturating_add(*step_us);
            Some(end.min(start.saturating_add(*size_us)))
        }
        WindowKind::Tumble { .. } | WindowKind::Session { .. } => {
            for_each(kind, time, |window| first = first.or(Some(window.end)));
            first
        }
    }
}

/// The first window end after `time`, whether or not that window holds it. Not for sessions.
pub fn end_after(kind: &WindowKind, time: i64) -> i64 {
    match kind {
        WindowKind::Hop { slide_us, size_us, offset_us } => {
            floor(time, *slide_us, offset_us.saturating_add(*size_us)).saturating_add(*slide_us)
        }
        _ => first_end(kind, time).unwrap_or(i64::MAX),
    }
}

/// The first window end after `end`, which is one itself. Not for sessions.
pub fn next_end(kind: &WindowKind, end: i64) -> i64 {
    let step = match kind {
        WindowKind::Tumble { size_us, .. } => size_us,
        WindowKind::Hop { slide_us, .. } => slide_us,
        WindowKind::Cumulate { step_us, size_us, offset_us } => {
            let start = floor(end, *size_us, *offset_us);
            return end.saturating_add(*step_us).min(start.saturating_add(*size_us));
        }
        WindowKind::Session { gap_us, .. } => gap_us,
    };
    end.saturating_add(*step)
}

/// The start of the window that ends at `end`. Not for sessions, whose start is not decided by their end.
pub fn start_of(kind: &WindowKind, end: i64) -> i64 {
    match kind {
        WindowKind::Tumble { size_us, .. } | WindowKind::Hop { size_us, .. } => end.saturating_sub(*size_us),
        WindowKind::Cumulate { size_us, offset_us, .. } => floor(end.saturating_sub(1), *size_us, *offset_us),
        WindowKind::Session { gap_us, .. } => end.saturating_sub(*gap_us),
    }
}

#[cfg(test)]
mod tests;
