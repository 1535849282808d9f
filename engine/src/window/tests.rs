//! Windows of a time, by table and by model.

use super::*;

const TUMBLE: WindowKind = WindowKind::Tumble { size_us: 10, offset_us: 0 };

fn hop(slide_us: i64, size_us: i64, offset_us: i64) -> WindowKind {
    WindowKind::Hop { slide_us, size_us, offset_us }
}

fn cumulate(step_us: i64, size_us: i64, offset_us: i64) -> WindowKind {
    WindowKind::Cumulate { step_us, size_us, offset_us }
}

fn windows(kind: &WindowKind, time: i64) -> Vec<(i64, i64)> {
    let mut windows = Vec::new();
    for_each(kind, time, |window| windows.push((window.start, window.end)));
    windows
}

#[test]
fn each_time_is_in_its_windows() {
    type Spans = Vec<(i64, i64)>;
    let cases: Vec<(WindowKind, i64, Spans)> = vec![
        (TUMBLE, 0, vec![(0, 10)]),
        (TUMBLE, 9, vec![(0, 10)]),
        (TUMBLE, 10, vec![(10, 20)]),
        (TUMBLE, -1, vec![(-10, 0)]),
        (TUMBLE, -10, vec![(-10, 0)]),
        (TUMBLE, -11, vec![(-20, -10)]),
        (WindowKind::Tumble { size_us: 10, offset_us: 3 }, 2, vec![(-7, 3)]),
        (WindowKind::Tumble { size_us: 10, offset_us: -3 }, 7, vec![(7, 17)]),
        (hop(2, 6, 0), 5, vec![(0, 6), (2, 8), (4, 10)]),
        (hop(2, 6, 0), 6, vec![(2, 8), (4, 10), (6, 12)]),
        (hop(2, 6, 0), -1, vec![(-6, 0), (-4, 2), (-2, 4)]),
        (hop(4, 6, 0), 1, vec![(-4, 2), (0, 6)]),
        (hop(4, 6, 0), 3, vec![(0, 6)]),
        (hop(4, 6, 1), 5, vec![(1, 7), (5, 11)]),
        (hop(10, 4, 0), 3, vec![(0, 4)]),
        (hop(10, 4, 0), 4, vec![]),
        (cumulate(3, 9, 0), 0, vec![(0, 3), (0, 6), (0, 9)]),
        (cumulate(3, 9, 0), 8, vec![(0, 9)]),
        (cumulate(3, 9, 0), -1, vec![(-9, 0)]),
        (cumulate(3, 9, 0), -9, vec![(-9, -6), (-9, -3), (-9, 0)]),
    ];
    for (kind, time, expected) in cases {
        assert_eq!(windows(&kind, time), expected, "{kind:?} at {time}");
    }
}

/// A time is in a window exactly when the definition says so, whatever the sign and the ratio of the lengths.
#[test]
fn hopping_windows_follow_the_definition() {
    for slide in 1..8 {
        for size in 1..20 {
            for offset in [-3, 0, 5] {
                let kind = hop(slide, size, offset);
                for time in -40..40 {
                    let expected: Vec<(i64, i64)> = (-100..100)
                        .map(|n| offset + n * slide)
                        .filter(|start| *start <= time && time < start + size)
                        .map(|start| (start, start + size))
                        .collect();
                    assert_eq!(windows(&kind, time), expected, "{kind:?} at {time}");
                    assert_eq!(last_end(&kind, time), expected.last().map(|w| w.1), "last of {kind:?} at {time}");
                    assert_eq!(first_end(&kind, time), expected.first().map(|w| w.1), "first of {kind:?} at {time}");
                }
            }
        }
    }
}

#[test]
fn ends_are_walked_in_order() {
    for kind in [TUMBLE, hop(4, 6, 1), cumulate(3, 9, 2)] {
        for time in -30..30 {
            let all = windows(&kind, time);
            for pair in all.windows(2) {
                assert_eq!(next_end(&kind, pair[0].1), pair[1].1, "{kind:?} at {time}");
            }
            for (start, end) in &all {
                assert_eq!(start_of(&kind, *end), *start, "{kind:?} at {time}");
            }
            assert_eq!(first_end(&kind, time), all.first().map(|w| w.1), "{kind:?} at {time}");
            assert_eq!(last_end(&kind, time), all.last().map(|w| w.1), "{kind:?} at {time}");
        }
    }
}

#[test]
fn assignment_leaves_out_rows_without_a_time() {
    let nulls = NullBuffer::from(vec![true, false, true]);
    let assignment = assign(&hop(5, 10, 0), &[7, 0, -7], Some(&nulls));
    assert_eq!(assignment.rows, [0, 0, 2, 2]);
    assert_eq!(assignment.starts, [0, 5, -15, -10]);
    assert_eq!(assignment.ends, [10, 15, -5, 0]);
}

#[test]
fn extreme_times_do_not_panic() {
    for kind in [TUMBLE, hop(3, 10, 1), cumulate(2, 10, 1), WindowKind::Session { gap_us: 5, keys: vec![] }] {
        for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            windows(&kind, time);
            let _ = (last_end(&kind, time), first_end(&kind, time));
        }
    }
}

#[test]
fn sessions_merge_at_a_gap_of_exactly_the_length() {
    let session = |start, end| Interval { start, end };
    assert_eq!(session::merge(&[], 10), vec![]);
    assert_eq!(session::merge(&[0, 10, 21], 10), vec![session(0, 20), session(0, 20), session(21, 31)]);
    assert_eq!(session::merge(&[-30, -20, -20], 10), vec![session(-30, -10); 3]);
}
