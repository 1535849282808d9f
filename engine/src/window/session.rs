//! Sessions of a sorted list of times.

use super::Interval;

/// The session of each time, for times in ascending order: rows at most `gap` apart, a distance of exactly `gap`
/// included, are one session; it ends `gap` after its last row.
pub fn merge(times: &[i64], gap: i64) -> Vec<Interval> {
    let mut sessions = Vec::with_capacity(times.len());
    let mut first = 0;
    while first < times.len() {
        let mut last = first;
        while last + 1 < times.len() && reaches(times[last], times[last + 1], gap) {
            last += 1;
        }
        let session = Interval { start: times[first], end: times[last].saturating_add(gap) };
        sessions.resize(last + 1, session);
        first = last + 1;
    }
    sessions
}

/// Whether a session whose last row is at `last` takes in a row at `time`, not before it.
pub fn reaches(last: i64, time: i64, gap: i64) -> bool {
    time.saturating_sub(last) <= gap
}
