//! The demo's events: stands in for the generator of the engine.

use crate::simulator::Feed;

/// Invented people.
#[derive(Debug, Default)]
pub(super) struct Bluesky {}

impl Feed for Bluesky {
    fn event(&self, number: u64, time_us: i64) -> String {
        format!("{{\"did\":\"did:plc:{:024}\",\"time_us\":{time_us},\"kind\":\"account\",\"account\":{{}}}}", number % 10)
    }
}
