//! What happened lately, for `freshet.events`: a bounded list in memory.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::clock;

const EVENTS_MAX: usize = 1000;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, microseconds since 1970.
    pub time_us: i64,
    /// `created`, `dropped`, `paused`, `resumed`, `failed`, …
    pub kind: &'static str,
    /// To what.
    pub object: String,
    /// In words.
    pub message: String,
}

/// The newest events, at most a thousand.
#[derive(Debug, Default)]
pub struct EventLog {
    events: Mutex<VecDeque<Event>>,
}

impl EventLog {
    /// Adds an event that happens now; the oldest one leaves when there is no room.
    pub fn add(&self, kind: &'static str, object: &str, message: &str) {
        let mut events = self.events.lock();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(Event { time_us: clock::now_us(), kind, object: object.to_owned(), message: message.to_owned() });
    }

    /// All events kept, oldest first.
    pub fn list(&self) -> Vec<Event> {
        self.events.lock().iter().cloned().collect()
    }
}
