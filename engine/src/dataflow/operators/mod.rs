//! The operators. Each file is one.

pub(super) mod aggregate;
pub(super) mod session;
pub(super) mod stateless;
pub(super) mod window_aggregate;

#[cfg(test)]
mod tests;
