//! What is thrown at the parsers of everything that comes from outside, and what must hold whatever it is.
//!
//! Owns the targets: each takes any bytes and panics where an invariant breaks. `src/bin` gives them to libFuzzer (`make fuzz`). The crates that
//! own the parsers include the same files in their tests and run a seeded share of mutations on them ([`mutate`]), so that they never rot.
#![forbid(unsafe_code)]

use std::path::PathBuf;

#[path = "../../../runtime/image/src/tests/build.rs"]
#[allow(dead_code)]
mod build;
pub mod image;
pub mod mutate;
pub mod policy;
pub mod signature;

/// Writes what a target begins with into the folder that `KAKOI_FUZZ_SEEDS` names, if it names one.
pub fn offer(seeds: &[Vec<u8>]) {
    let Some(folder) = std::env::var_os("KAKOI_FUZZ_SEEDS").map(PathBuf::from) else {
        return;
    };
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), seed).expect("a folder for the seeds");
    }
}
