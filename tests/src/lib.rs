//! The harness: real servers and the built binary, started, killed and asked by the tests.
//!
//! A test names the servers it needs with [`need`]; where one is missing the test fails when `FRESHET_IT=require` is set (CI),
//! and says aloud that it is skipped otherwise.

mod bids;
mod freshet;
mod kafka;
mod process;
mod s3;
mod tools;

pub use bids::write_bids;
pub use freshet::{Freshet, Rows};
pub use kafka::Kafka;
pub use s3::S3;
pub use tools::{Nexmark, need, nexmark, python, read_paimon, run_directory, shared};
