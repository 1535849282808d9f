//! The language: text and a catalog version become a bounded query or a dataflow. No I/O, no clock.
//!
//! Postgres dialect; `REFERENCE.md` has every statement, function and option.

mod error;
mod planner;
mod statement;

pub use error::{Error, Result};
pub use planner::{Continuous, Planner, SessionSettings, SystemRelations, parse, translate};
pub use statement::*;
