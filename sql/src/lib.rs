//! The language: text and a catalog version become a bounded query or a dataflow. No I/O, no clock.
//!
//! Postgres dialect; `REFERENCE.md` has every statement, function and option.

mod dialect;
mod error;
mod interval;
mod parser;
mod plan;
mod planner;
mod statement;

pub use error::{Error, Result};
pub use parser::parse;
pub use plan::errors::translate;
pub use planner::{Continuous, Planner, SessionSettings, SystemRelations};
pub use statement::*;
