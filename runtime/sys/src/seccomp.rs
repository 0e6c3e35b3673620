//! Loading of system call filters.
//!
//! seccompiler builds programs but cannot ask for logging, so they are loaded here, by seccomp(2) itself.

use std::os::fd::OwnedFd;

use crate::error::{CallError, Result, checked, checked_fd};
use nix::errno::Errno;

/// The kernel's limit on the length of one program (BPF_MAXINSNS).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Flags of `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every thread of the process (since Linux 3.17).
    pub const THREAD_SYNC: Self = Self(1);
    /// Refused calls are logged (since Linux 4.14).
    pub const LOG: Self = Self(1 << 1);
    /// No mitigation of speculative store bypass (since Linux 4.17).
    pub const SPECULATION_ALLOW: Self = Self(1 << 2);
    /// A notified call waits through signals but the fatal ones (since Linux 5.19).
    pub const WAIT_KILLABLE: Self = Self(1 << 5);

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

const SET_MODE_FILTER: libc::c_uint = 1;
const GET_ACTION_AVAILABLE: libc::c_uint = 2;
const NEW_LISTENER: u32 = 1 << 3;

/// Loads a program (code, jump if true, jump if false, operand) for the calling thread.
///
/// Needs no_new_privs, or CAP_SYS_ADMIN in the caller's user namespace.
pub fn load(program: &[(u16, u8, u8, u32)], flags: Flags) -> Result<()> {
    set_mode_filter(program, flags.0).map(drop)
}

/// Loads a program and returns the descriptor on which its notifications are answered, close-on-exec (since Linux 5.0).
pub fn load_with_listener(program: &[(u16, u8, u8, u32)], flags: Flags) -> Result<OwnedFd> {
    checked_fd("seccomp", set_mode_filter(program, flags.0 | NEW_LISTENER)?)
}

fn set_mode_filter(program: &[(u16, u8, u8, u32)], flags: u32) -> Result<libc::c_long> {
    if program.is_empty() || program.len() > INSTRUCTIONS_MAX {
        return Err(CallError {
            call: "seccomp",
            errno: Errno::EINVAL,
        });
    }
    let mut instructions: Vec<libc::sock_filter> = program
        .iter()
        .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let program = libc::sock_fprog {
        len: instructions.len() as u16,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: `program` points to `len` instructions that outlive the call; the kernel verifies and copies them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    checked("seccomp", done)
}

/// Whether the kernel knows an action (`SECCOMP_RET_*`). `Err` where it has no filters at all.
pub fn has_action(action: u32) -> Result<bool> {
    // SAFETY: reads one u32, which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAILABLE, 0, &raw const action) };
    match checked("seccomp", done) {
        Ok(_) => Ok(true),
        Err(CallError {
            errno: Errno::EOPNOTSUPP,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel knows flags. Asks by loading no program: a known flag fails on the missing program (`EFAULT`), an unknown one
/// earlier (`EINVAL`).
pub fn has_flags(flags: Flags) -> bool {
    // SAFETY: the program pointer is null, so nothing is read and nothing can be loaded.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            flags.0,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    matches!(
        checked("seccomp", done),
        Err(CallError {
            errno: Errno::EFAULT,
            ..
        })
    )
}

/// How the calling thread is filtered: 0 not at all, 2 by filters. A filter may itself refuse the question.
pub fn mode() -> Result<i32> {
    // SAFETY: takes and returns plain numbers.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    checked("prctl(PR_GET_SECCOMP)", libc::c_long::from(mode)).map(|mode| mode as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_our_flags_and_refuses_others() {
        assert!(has_flags(Flags::LOG));
        assert!(has_flags(Flags::LOG.with(Flags::SPECULATION_ALLOW)));
        assert!(!has_flags(Flags(1 << 30)));
    }

    #[test]
    fn the_kernel_knows_errno_and_refuses_a_made_up_action() {
        assert_eq!(has_action(0x0005_0000), Ok(true));
        assert_eq!(has_action(0x0042_0000), Ok(false));
    }

    #[test]
    fn an_empty_or_oversized_program_is_refused_before_the_kernel_sees_it() {
        let empty = load(&[], Flags::NONE).expect_err("nothing to load");
        assert_eq!((empty.call, empty.errno), ("seccomp", Errno::EINVAL));
        let long = vec![(0x06, 0, 0, 0x7fff_0000); INSTRUCTIONS_MAX + 1];
        assert!(load(&long, Flags::NONE).is_err());
    }
}
