//! Times Kakoi beside its peers.
#![forbid(unsafe_code)]
fn main() {}
