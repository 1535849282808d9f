//! What goes wrong on a connection: a script, so that a test can say it and see it again.

use std::time::Duration;

/// Faults for each connection in the order they are taken; connections beyond the list have none.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    /// The faults of connection 0, 1, 2, …
    pub connections: Vec<Vec<Fault>>,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// It happens when the connection has sent so many events.
    pub after: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Debug, Clone)]
pub enum FaultKind {
    /// The connection ends without a word (1006).
    Drop,
    /// The connection is closed with a code: 1001 for a host that shuts down.
    Close(u16),
    /// The last event is sent so many times again.
    Duplicate(u32),
    /// The next so many events come in reverse order.
    Reorder(usize),
    /// Nothing is sent for so long, not even pings.
    Stall(Duration),
    /// A frame that is no event.
    Garbage,
    /// A binary frame that ends in the middle of its zstd data.
    TruncatedZstd,
    /// The stream goes on so many events earlier, unannounced.
    Rewind(u64),
    /// The error frame of the second protocol for a client that is too slow, then the end.
    TooSlow,
}

impl FaultPlan {
    /// The faults of one connection, in order.
    pub(super) fn of(&self, connection: usize) -> Vec<Fault> {
        let mut faults = self.connections.get(connection).cloned().unwrap_or_default();
        faults.sort_by_key(|fault| fault.after);
        faults
    }
}
