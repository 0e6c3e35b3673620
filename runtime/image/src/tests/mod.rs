//! Tests of the store as a whole. Archives are built here, byte by byte where they have to be hostile.

mod archives;
mod build;
mod check;
mod crash;
mod cuts;
mod disk;
mod formats;
mod fuzz;
mod hostile;
mod memory;
mod os;
mod registry;
mod store;
mod tools;

/// Whether the tests that need root can run; says so where not, and fails where CI demands them.
pub(crate) fn root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    crate::required::leave_out("root", &format!("{test}: needs root"));
    false
}
