//! One test binary: everything that crosses packages, against the built server with real clients and real servers.

mod jetstream;
mod kill;
mod nexmark;
mod paimon;
mod psql;
mod reference;
mod s3;
mod slt;
mod system;
mod tidy;
