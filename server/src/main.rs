//! freshet
fn main() {}
