//! Streams: unbounded input becomes table commits.
//!
//! ```text
//!  split reader ─▶ decode ─▶ Message(Batch | Watermark) ─▶ operators ─▶ sink ─┐
//!  (own thread)   (columns    the dataflow's driver pushes them through;      ├─▶ EpochOutput ─▶ catalog's committer
//!                  used)      at a barrier it collects state, rows, offsets ──┘
//! ```
//!
//! Knows: sources, formats, operators, event time, state, epochs.
//! Does not know: SQL text, the wire, the model runtime.

mod aggregate;
mod dataflow;
mod engine;
mod error;
pub mod format;
pub mod plan;
pub mod source;
mod state;
pub mod status;
pub mod window;

pub use engine::{Engine, Options};
pub use error::{Error, Result};
