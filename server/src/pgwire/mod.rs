//! The Postgres wire protocol.
