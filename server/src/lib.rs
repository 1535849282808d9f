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

pub mod clock;
pub mod config;
mod database;
mod error;
mod execute;
pub mod pg_catalog;
pub mod pgwire;
pub mod session;
mod system;

pub use config::{Config, Settings};
pub use database::Database;
pub use error::{Error, Result, chain};
pub use system::{Event, EventLog, RELATIONS};
