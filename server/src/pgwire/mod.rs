//! The Postgres wire protocol, version 3: one task per connection, rows streamed, everything interruptible.
//!
//! ```text
//!  listener ─▶ startup ─▶ connection ─┬▶ simple    Query
//!   (accept,   (SSL? N,     (reads,   ├▶ extended  Parse Bind Describe Execute Close Sync
//!    limits)    cancel)      errors)  └▶ copy      COPY both ways
//!                                          │
//!  link: the socket, watched for a vanished client,     session: what statements mean
//!        a cancel request, a time limit, shutdown  ◀──▶  encode: Arrow rows as messages
//! ```
//!
//! Messages are decoded here and not by a library, because a client may send anything: every length is checked before it is
//! believed, nothing a client sends can panic.

mod connection;
mod copy;
pub(crate) mod encode;
mod extended;
mod link;
mod listener;
mod message;
mod output;
mod result;
mod simple;
mod startup;
pub(crate) mod types;

pub use listener::{Options, serve};
