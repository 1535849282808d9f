//! Watermarks of splits and of the dataflow, as plain values: the caller brings the clock.
//!
//! A split's watermark is the greatest event time seen less the delay and never goes back. The dataflow's is the
//! least over the splits that have an event time, are not idle and not finished. When all of them are idle it stays
//! where it is; when all inputs are finished it is `i64::MAX`.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::compute;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use crate::plan::WatermarkSpec;

/// One split's clock.
#[derive(Debug, Clone)]
pub(crate) struct SplitClock {
    /// No row below it is expected from this split.
    pub(crate) watermark: Option<i64>,
    /// Nothing follows.
    pub(crate) finished: bool,
    /// Silent for longer than its timeout; does not hold others back.
    pub(crate) idle: bool,
    /// Whether its rows carry an event time; others only count as finished or not.
    pub(crate) timed: bool,
    idle_timeout: Option<Duration>,
    active_at: Instant,
}

impl SplitClock {
    pub(crate) fn new(timed: bool, idle_timeout_us: Option<i64>, watermark: Option<i64>, now: Instant) -> Self {
        let idle_timeout = idle_timeout_us.map(|us| Duration::from_micros(us.max(0) as u64));
        SplitClock { watermark, finished: false, idle: false, timed, idle_timeout, active_at: now }
    }

    /// The split has shown a sign of life.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.active_at = now;
        self.idle = false;
    }

    /// Raises the watermark; a lower one is ignored.
    pub(crate) fn raise(&mut self, watermark: i64) {
        self.watermark = Some(self.watermark.map_or(watermark, |old| old.max(watermark)));
    }

    /// When it becomes idle unless something comes.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        let waiting = self.timed && !self.idle && !self.finished;
        self.idle_timeout.filter(|_| waiting).map(|timeout| self.active_at + timeout)
    }

    /// Takes notice that nothing has come.
    pub(crate) fn check_idle(&mut self, now: Instant) {
        if self.idle_at().is_some_and(|at| at <= now) {
            self.idle = true;
        }
    }

    /// Time during which the driver did not listen does not count as silence.
    pub(crate) fn forgive(&mut self, deaf: Duration) {
        self.active_at += deaf;
    }
}

/// The dataflow's watermark as its splits stand; `None` while unknown or held.
pub(crate) fn minimum<'a>(splits: impl Iterator<Item = &'a SplitClock>) -> Option<i64> {
    let mut least = None;
    for split in splits.filter(|split| split.timed && !split.idle && !split.finished) {
        let watermark = split.watermark?;
        least = Some(least.map_or(watermark, |least: i64| least.min(watermark)));
    }
    least
}

/// The greatest event time of a batch that may move the watermark: rows further than `max_future` ahead of the
/// wall clock may not.
pub(crate) fn newest_event(times: &dyn Array, spec: &WatermarkSpec, now_us: i64) -> Option<i64> {
    if !matches!(times.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return None;
    }
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let newest = compute::max(times)?;
    let Some(limit) = spec.max_future_us.map(|ahead| now_us.saturating_add(ahead)) else { return Some(newest) };
    if newest <= limit {
        return Some(newest);
    }
    times.iter().flatten().filter(|time| *time <= limit).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;

    fn clock(watermark: Option<i64>, now: Instant) -> SplitClock {
        SplitClock::new(true, Some(1_000_000), watermark, now)
    }

    #[test]
    fn the_slowest_split_that_lives_decides() {
        let now = Instant::now();
        let mut splits = [clock(Some(5), now), clock(Some(3), now), clock(None, now)];
        assert_eq!(minimum(splits.iter()), None, "a split that has said nothing holds the others");
        splits[2].check_idle(now + Duration::from_secs(1));
        assert_eq!(minimum(splits.iter()), Some(3));
        splits[1].finished = true;
        assert_eq!(minimum(splits.iter()), Some(5));
        splits[2].touch(now);
        splits[2].raise(4);
        splits[2].raise(2);
        assert_eq!(minimum(splits.iter()), Some(4), "a watermark never goes back");
        splits.iter_mut().for_each(|split| split.idle = true);
        assert_eq!(minimum(splits.iter()), None);
    }

    #[test]
    fn silence_while_nobody_listens_is_forgiven() {
        let now = Instant::now();
        let mut split = clock(Some(1), now);
        split.forgive(Duration::from_secs(5));
        split.check_idle(now + Duration::from_secs(5));
        assert!(!split.idle);
        split.check_idle(now + Duration::from_secs(6));
        assert!(split.idle);
    }

    #[test]
    fn a_row_from_the_future_does_not_move_the_watermark() {
        let spec = |max_future_us| WatermarkSpec { column: 0, delay_us: 0, idle_timeout_us: None, max_future_us };
        let times = TimestampMicrosecondArray::from(vec![Some(10), None, Some(900), Some(40)]);
        assert_eq!(newest_event(&times, &spec(None), 50), Some(900));
        assert_eq!(newest_event(&times, &spec(Some(100)), 50), Some(40));
        assert_eq!(newest_event(&times, &spec(Some(0)), 5), None);
    }
}
