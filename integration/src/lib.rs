//! The harness: a private daemon on a private root, images made on the spot, the real command line, and a check that nothing stays behind.
//!
//! Knows Kakoi from outside only: the three binaries, the wire types and the policy language. Invariant: everything a [`host::Host`] starts
//! is gone when it is dropped, on a panic too, and what is not gone fails the test that left it.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod command;
pub mod device;
pub mod guard;
pub mod host;
pub mod http;
pub mod image;
pub mod leaks;
pub mod machine;
pub mod network;
pub mod registry;
pub mod required;
pub mod wait;

/// Tells whether the test must be left out because it lacks root; prints why. With `KAKOI_TEST_REQUIRE=root` leaving out is a failure.
pub fn lacks_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    required::leave_out("root", &format!("{test}: needs root"));
    true
}

/// Returns from a test that needs root and has none; one that has it gets a network of its own, so that no test changes the machine's.
#[macro_export]
macro_rules! needs_root {
    () => {
        if $crate::lacks_root(module_path!()) {
            return;
        }
        $crate::network::own();
    };
}

/// The same for a test that must see the machine's own network namespace: the kernel's audit records come to no other.
#[macro_export]
macro_rules! needs_root_outside {
    () => {
        if $crate::lacks_root(module_path!()) {
            return;
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::required::has_word;

    #[test]
    fn the_list_is_one_of_words() {
        for (list, is_there) in [
            ("root", true),
            ("cosign,root", true),
            ("cosign, root ,x", true),
            ("", false),
            ("cosign", false),
            ("rooted", false),
            ("root cosign", false),
        ] {
            assert_eq!(has_word(list, "root"), is_there, "{list:?}");
        }
        assert!(!has_word("root", "cosign"));
    }
}
