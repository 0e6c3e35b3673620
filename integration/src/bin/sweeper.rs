//! Takes away what a test left that did not live to clean up: killed for hanging, or interrupted.
//!
//! `KAKOI_SWEEP=FOLDER sweeper`: reads standard input to its end. Where that ends without a word, the test is gone and its folder is swept.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use kakoi_integration::leaks;

fn main() {
    let folder = PathBuf::from(std::env::var_os("KAKOI_SWEEP").expect("the guard names a folder"));
    let mut words = Vec::new();
    std::io::stdin()
        .read_to_end(&mut words)
        .expect("standard input is a pipe");
    if !words.is_empty() {
        return;
    }
    leaks::sweep(&folder, &BTreeSet::new());
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("removing {}: {error}", folder.display());
    }
}
