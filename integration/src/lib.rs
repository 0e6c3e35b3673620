//! The harness: a private daemon on a private root, images made on the spot, the real command line, and a check that nothing stays behind.
//!
//! Knows Kakoi from outside only: the three binaries, the wire types and the policy language. Invariant: everything a [`host::Host`] starts
//! is gone when it is dropped, on a panic too, and what is not gone fails the test that left it.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod command;
pub mod guard;
pub mod host;
pub mod image;
pub mod leaks;
pub mod registry;
pub mod wait;

/// Whether `KAKOI_TEST_REQUIRE`, a list with commas, has a word: then what it names may not be missing.
pub fn is_required(word: &str) -> bool {
    let list = std::env::var("KAKOI_TEST_REQUIRE").unwrap_or_default();
    list.split(',').any(|required| required.trim() == word)
}

/// Tells whether the test must be left out because it lacks root; prints why. With `KAKOI_TEST_REQUIRE=root` leaving out is a failure.
pub fn lacks_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    assert!(
        !is_required("root"),
        "{test} needs root, and KAKOI_TEST_REQUIRE=root forbids leaving it out"
    );
    println!("SKIP {test}: needs root");
    true
}

/// Returns from a test that needs root and has none.
#[macro_export]
macro_rules! needs_root {
    () => {
        if $crate::lacks_root(module_path!()) {
            return;
        }
    };
}
