//! The one error of this crate: which call failed, and how.
//!
//! Owns [`CallError`] and the conversion from return values.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// A system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed")]
pub struct CallError {
    /// The call's name, as in section 2 of the manual.
    pub call: &'static str,
    /// Why.
    #[source]
    pub errno: Errno,
}

/// What every wrapper returns.
pub type Result<T> = std::result::Result<T, CallError>;

/// Attaches a call's name to an errno.
pub(crate) trait Named<T> {
    /// Names the call.
    fn named(self, call: &'static str) -> Result<T>;
}

impl<T> Named<T> for nix::Result<T> {
    fn named(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| CallError { call, errno })
    }
}

/// Turns a raw return value, -1 meaning failure, into a result.
pub(crate) fn checked(call: &'static str, value: libc::c_long) -> Result<libc::c_long> {
    Errno::result(value).named(call)
}

/// Takes a descriptor out of a raw return value.
pub(crate) fn checked_fd(call: &'static str, value: libc::c_long) -> Result<OwnedFd> {
    let fd = checked(call, value)? as RawFd;
    // SAFETY: the kernel just returned this descriptor as new, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
