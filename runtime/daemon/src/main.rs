//! kakoid.
fn main() {}
