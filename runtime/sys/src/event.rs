//! Signals and counters as descriptors, so that one poll(2) waits for everything.
//!
//! Owns the blocking of signals that are read from a descriptor: a blocked mask survives `execve`, so a child must call
//! [`unblock_all`] before it replaces its program.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Named, Result, checked, checked_fd};

/// Blocks `signals` and opens a descriptor that delivers them, close-on-exec and non-blocking.
pub fn signal_descriptor(signals: &[Signal]) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in signals {
        set.add(*signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).named("sigprocmask")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).named("signalfd")
}

/// Unblocks every signal.
pub fn unblock_all() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).named("sigprocmask")
}

/// Gives every signal its default action: what is ignored stays ignored across `execve`, and Rust's runtime ignores SIGPIPE.
pub fn reset_signal_actions() -> Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP || (32..libc::SIGRTMIN()).contains(&signal) {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler of ours.
        let old = unsafe { libc::signal(signal, libc::SIG_DFL) };
        if old == libc::SIG_ERR {
            return Err(crate::CallError {
                call: "signal",
                errno: nix::errno::Errno::last(),
            });
        }
    }
    Ok(())
}

/// Makes a counter that poll(2) can wait on (eventfd(2)), close-on-exec and non-blocking.
pub fn counter() -> Result<OwnedFd> {
    // SAFETY: takes and returns plain numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    checked_fd("eventfd", libc::c_long::from(fd))
}

/// Reads and clears a counter; 0 when nothing was counted since.
pub fn counted(counter: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = [0; 8];
    match nix::unistd::read(counter.as_raw_fd(), &mut bytes) {
        Ok(_) => Ok(u64::from_ne_bytes(bytes)),
        Err(nix::errno::Errno::EAGAIN) => Ok(0),
        Err(errno) => Err(errno).named("read"),
    }
}

/// Watches a file of cgroup v1, such as `memory.oom_control`: `counter` counts its events (`cgroup.event_control`).
pub fn event_control_line(counter: BorrowedFd<'_>, watched: BorrowedFd<'_>) -> String {
    format!("{} {}", counter.as_raw_fd(), watched.as_raw_fd())
}

/// Opens an inotify descriptor, close-on-exec and non-blocking, that reports changes of `path` (`memory.events` of cgroup v2).
pub fn watch_modified(path: &std::path::Path) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: takes and returns plain numbers.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    let watch = checked_fd("inotify_init1", libc::c_long::from(fd))?;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| crate::CallError {
        call: "inotify_add_watch",
        errno: nix::errno::Errno::EINVAL,
    })?;
    // SAFETY: the path is a terminated string that outlives the call.
    let added = unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) };
    checked("inotify_add_watch", libc::c_long::from(added))?;
    Ok(watch)
}

/// Waits for one of all signals, real-time ones among them, which the caller blocked before (sigwaitinfo(2)); answers its number.
pub fn wait_for_any_signal() -> Result<i32> {
    // SAFETY: a signal set is plain data, for which zero is a value, and is filled by the next call.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call.
    let filled = unsafe { libc::sigfillset(&raw mut all) };
    Errno::result(filled).named("sigfillset")?;
    // SAFETY: the set outlives the call; a null pointer asks for no further word about the signal.
    let number = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    Errno::result(number).named("sigwaitinfo")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_counter_counts_and_clears() {
        let counter = counter().expect("eventfd works");
        assert_eq!(counted(counter.as_fd()), Ok(0));
        nix::unistd::write(&counter, &3u64.to_ne_bytes()).expect("it is writable");
        assert_eq!(counted(counter.as_fd()), Ok(3));
        assert_eq!(counted(counter.as_fd()), Ok(0));
    }
}
