//! The binary's parts: configuration, sessions, the Postgres wire, HTTP, system relations, the demo.
//!
//! ```text
//!   psql ─▶ pgwire ─▶ session ─┐            ┌─▶ sql (plans)
//!   curl ─▶ http ──────────────┼─▶ Database ┼─▶ catalog (definitions, rows, commits)
//!   SIGTERM ─▶ main ───────────┘            └─▶ engine (dataflows)
//! ```
//!
//! Knows: everything below. Nothing below knows it.
//! Reading order: `database.rs`, `execute/`, `session/mod.rs`, `pgwire/mod.rs`, `system/mod.rs`.
#![expect(clippy::result_large_err, reason = "an error is made once for a statement; boxing it would only make every use longer")]

mod check;
pub mod clock;
pub mod config;
mod database;
pub mod demo;
mod error;
mod execute;
mod http;
mod metrics;
pub mod pg_catalog;
pub mod pgwire;
mod serve;
pub mod session;
mod shutdown;
pub mod simulator;
mod system;

pub use check::check;
pub use config::{Config, Settings};
pub use database::Database;
pub use error::{Error, Result, chain};
pub use serve::Server;
pub use shutdown::Signals;
pub use system::{Event, EventLog, RELATIONS};
