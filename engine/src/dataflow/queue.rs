//! The way into a driver: a data lane bounded by bytes, and a control lane that overtakes it.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A queue for many producers and one consumer.
#[derive(Debug)]
pub(crate) struct Queue<D, C> {
    lanes: Mutex<Lanes<D, C>>,
    filled: Condvar,
    drained: Condvar,
    limit_bytes: usize,
}

#[derive(Debug)]
struct Lanes<D, C> {
    data: VecDeque<(D, usize)>,
    bytes: usize,
    control: VecDeque<C>,
    closed: bool,
}

/// What the consumer gets.
#[derive(Debug)]
pub(crate) enum Popped<D, C> {
    Data(D),
    Control(C),
    /// The deadline has passed.
    Nothing,
}

impl<D, C> Queue<D, C> {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let lanes = Lanes { data: VecDeque::new(), bytes: 0, control: VecDeque::new(), closed: false };
        Queue { lanes: Mutex::new(lanes), filled: Condvar::new(), drained: Condvar::new(), limit_bytes }
    }

    /// Waits until there is room; an item larger than the whole queue goes in when it is empty.
    /// `false` when the consumer is gone.
    pub(crate) fn push(&self, item: D, bytes: usize) -> bool {
        let mut lanes = self.lanes.lock();
        while !lanes.closed && lanes.bytes > 0 && lanes.bytes + bytes > self.limit_bytes {
            self.drained.wait(&mut lanes);
        }
        if lanes.closed {
            return false;
        }
        lanes.bytes += bytes;
        lanes.data.push_back((item, bytes));
        self.filled.notify_one();
        true
    }

    /// Puts a small message behind all data, without waiting. `false` when the consumer is gone.
    pub(crate) fn push_marker(&self, item: D) -> bool {
        let mut lanes = self.lanes.lock();
        if lanes.closed {
            return false;
        }
        lanes.data.push_back((item, 0));
        self.filled.notify_one();
        true
    }

    /// Puts a message before all data, without waiting. Senders are few and each sends a bounded number.
    pub(crate) fn push_control(&self, message: C) -> bool {
        let mut lanes = self.lanes.lock();
        if lanes.closed {
            return false;
        }
        lanes.control.push_back(message);
        self.filled.notify_one();
        true
    }

    /// The next message, control first; waits until the deadline.
    pub(crate) fn pop(&self, deadline: Instant) -> Popped<D, C> {
        self.pop_lanes(deadline, true)
    }

    /// The next control message; data stays where it is, which stops the sources when the queue is full.
    pub(crate) fn pop_control(&self, deadline: Instant) -> Option<C> {
        match self.pop_lanes(deadline, false) {
            Popped::Control(message) => Some(message),
            Popped::Data(_) | Popped::Nothing => None,
        }
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.lock().bytes
    }

    /// Whether producers wait, or soon will.
    pub(crate) fn is_crowded(&self) -> bool {
        self.bytes() * 2 > self.limit_bytes
    }

    /// Refuses everything from now on and wakes those who wait.
    pub(crate) fn close(&self) {
        let mut lanes = self.lanes.lock();
        lanes.closed = true;
        lanes.data.clear();
        lanes.control.clear();
        lanes.bytes = 0;
        self.drained.notify_all();
    }

    fn pop_lanes(&self, deadline: Instant, data: bool) -> Popped<D, C> {
        let mut lanes = self.lanes.lock();
        loop {
            if let Some(message) = lanes.control.pop_front() {
                return Popped::Control(message);
            }
            if data && let Some((item, bytes)) = lanes.data.pop_front() {
                lanes.bytes -= bytes;
                self.drained.notify_all();
                return Popped::Data(item);
            }
            if self.filled.wait_until(&mut lanes, deadline).timed_out() {
                return Popped::Nothing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_overtakes_data_and_markers_do_not() {
        let queue: Queue<u8, char> = Queue::new(10);
        assert!(queue.push(1, 10) && queue.push_marker(2) && queue.push_control('c'));
        let now = Instant::now();
        assert!(matches!(queue.pop(now), Popped::Control('c')));
        assert!(matches!(queue.pop(now), Popped::Data(1)));
        assert_eq!(queue.bytes(), 0);
        assert!(matches!(queue.pop(now), Popped::Data(2)));
        assert!(matches!(queue.pop(now), Popped::Nothing));
    }

    #[test]
    fn a_full_queue_holds_its_producer_until_there_is_room() {
        let queue: Queue<usize, ()> = Queue::new(100);
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|item| assert!(queue.push(item, 60))));
            for expected in 0..1000 {
                assert!(queue.bytes() <= 100);
                assert!(matches!(queue.pop(deadline), Popped::Data(item) if item == expected));
            }
        });
        queue.close();
        assert!(!queue.push(0, 1) && !queue.push_control(()));
    }
}
