//! kakoi-shim.
fn main() {}
