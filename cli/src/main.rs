//! kakoi.
fn main() {}
