//! Planning: names, types, windows, changes of tables, and continuous queries.

pub(crate) mod arithmetic;
pub(crate) mod continuous;
pub(crate) mod dml;
pub(crate) mod errors;
pub(crate) mod functions;
pub(crate) mod operators;
pub(crate) mod output;
pub(crate) mod provider;
pub(crate) mod rewrite;
pub(crate) mod source_scan;
pub(crate) mod sources;
#[cfg(test)]
mod tests;
pub(crate) mod types;
pub(crate) mod window;
pub(crate) mod window_exec;
