//! Descriptors as such: what is inherited by `execve` and what is not.
//!
//! Owns the one way in which Kakoi shuts descriptors away from a new program.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::error::{CallError, Named, Result, checked, checked_fd};

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// Marks every descriptor from `first` on as close-on-exec, except those in `kept`.
///
/// Uses close_range(2) (the flag since Linux 5.11); an older kernel gets one fcntl(2) per possible descriptor.
pub fn close_on_exec_from(first: u32, kept: &[RawFd]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut start = first;
    for fd in kept {
        if fd > start {
            range_close_on_exec(start, fd - 1)?;
        }
        start = start.max(fd.saturating_add(1));
    }
    range_close_on_exec(start, u32::MAX)
}

fn range_close_on_exec(first: u32, last: u32) -> Result<()> {
    // SAFETY: only sets a flag on descriptors; none is closed while something owns it.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
    match checked("close_range", done) {
        Err(CallError {
            errno: Errno::ENOSYS | Errno::EINVAL,
            ..
        }) => each_close_on_exec(first, last),
        done => done.map(drop),
    }
}

fn each_close_on_exec(first: u32, last: u32) -> Result<()> {
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).named("getrlimit")?;
    let end = hard.min(u64::from(last)).min(u64::from(u32::MAX >> 1)) as u32;
    for fd in first..=end {
        match fcntl(fd as RawFd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            Ok(_) | Err(Errno::EBADF) => {}
            Err(errno) => {
                return Err(CallError {
                    call: "fcntl(F_SETFD)",
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on, except those in `kept`, which is sorted.
///
/// For the first moments of a program and for the last life of one that will not drop what it owns: owners elsewhere keep numbers that may
/// be given out again.
pub fn close_from(first: u32, kept: &[RawFd]) -> Result<()> {
    let mut start = first;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > start {
            close_range(start, fd - 1)?;
        }
        start = start.max(fd.saturating_add(1));
    }
    close_range(start, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: takes plain numbers; that no owner of a closed descriptor uses it again is what the callers above promise.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match checked("close_range", done) {
        Err(CallError {
            errno: Errno::ENOSYS, ..
        }) => {
            let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
                .named("getrlimit")?;
            let end = hard.min(u64::from(last)).min(u64::from(u32::MAX >> 1)) as u32;
            for fd in first..=end {
                match nix::unistd::close(fd as RawFd) {
                    Ok(()) | Err(Errno::EBADF) => {}
                    Err(errno) => return Err(CallError { call: "close", errno }),
                }
            }
            Ok(())
        }
        done => done.map(drop),
    }
}

/// Whether a descriptor is open, and whether `execve` closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inheritance {
    /// Not open.
    Absent,
    /// Closed by `execve`.
    CloseOnExec,
    /// The next program gets it.
    Inherited,
}

/// Tells what becomes of a descriptor number at `execve`.
pub fn inheritance(fd: RawFd) -> Result<Inheritance> {
    match fcntl(fd, FcntlArg::F_GETFD) {
        Ok(flags) if FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC) => {
            Ok(Inheritance::CloseOnExec)
        }
        Ok(_) => Ok(Inheritance::Inherited),
        Err(Errno::EBADF) => Ok(Inheritance::Absent),
        Err(errno) => Err(CallError {
            call: "fcntl(F_GETFD)",
            errno,
        }),
    }
}

/// What a standard stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardStream {
    /// Closed: the next file that the program opens would become its output.
    Absent,
    /// A directory, from which files can be opened.
    Directory,
    /// A file, pipe, socket, terminal or device.
    Stream,
}

/// Tells what a descriptor number, usually 0, 1 or 2, is.
pub fn standard_stream(fd: RawFd) -> Result<StandardStream> {
    match nix::sys::stat::fstat(fd) {
        Ok(status) if status.st_mode & libc::S_IFMT == libc::S_IFDIR => Ok(StandardStream::Directory),
        Ok(_) => Ok(StandardStream::Stream),
        Err(Errno::EBADF) => Ok(StandardStream::Absent),
        Err(errno) => Err(CallError { call: "fstat", errno }),
    }
}

/// Lets the next program inherit a descriptor, or not.
pub fn set_close_on_exec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFD(flags))
        .map(drop)
        .named("fcntl(F_SETFD)")
}

/// Makes `target` (0, 1, 2 …) a copy of `source`, inherited by the next program, closing what `target` was.
pub fn place_at(source: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if source.as_raw_fd() == target {
        // dup3 refuses equal numbers, and dup2 would leave close-on-exec as it is.
        return set_close_on_exec(source, false);
    }
    nix::unistd::dup2(source.as_raw_fd(), target)
        .map(drop)
        .named("dup2")
}

/// Takes over a descriptor that this process was started with, by its number (`--ready-fd 3`, `LISTEN_FDS`), and marks it
/// close-on-exec. Fails when it is not open, and refuses the standard streams, which the runtime library owns.
///
/// Call it once per number, early in `main`: whoever opened the descriptor must not own it any more.
pub fn take_inherited(fd: RawFd) -> Result<OwnedFd> {
    if fd < 3 {
        return Err(CallError {
            call: "fcntl(F_GETFD)",
            errno: Errno::EINVAL,
        });
    }
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).named("fcntl(F_SETFD)")?;
    checked_fd("fcntl(F_SETFD)", libc::c_long::from(fd))
}

/// Makes a pipe, close-on-exec on both ends: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).named("pipe2")
}

/// Makes reads and writes of a descriptor fail with `EAGAIN` where they would wait. The flag belongs to the open file, so every process
/// that shares it is affected: never do this to a stream that the caller was given.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL).named("fcntl(F_GETFL)")?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags))
        .map(drop)
        .named("fcntl(F_SETFL)")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn kept_descriptors_stay_inherited_and_others_do_not() {
        let (a, b) = pipe().expect("pipes are cheap");
        for fd in [&a, &b] {
            set_close_on_exec(fd.as_fd(), false).expect("it is open");
            assert_eq!(inheritance(fd.as_raw_fd()), Ok(Inheritance::Inherited));
        }
        let first = a.as_raw_fd().min(b.as_raw_fd()) as u32;
        close_on_exec_from(first, &[b.as_raw_fd()]).expect("close_range works");
        assert_eq!(inheritance(a.as_raw_fd()), Ok(Inheritance::CloseOnExec));
        assert_eq!(inheritance(b.as_raw_fd()), Ok(Inheritance::Inherited));
        assert_eq!(inheritance(i32::MAX), Ok(Inheritance::Absent));
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_not_taken() {
        assert_eq!(
            take_inherited(1).map(|_| ()).map_err(|e| e.errno),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            take_inherited(i32::MAX).map(|_| ()).map_err(|e| e.errno),
            Err(Errno::EBADF)
        );
    }
}
