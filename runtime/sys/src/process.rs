//! Processes: making, naming by descriptor, signalling, waiting for and replacing them.
//!
//! Refuses to fork a process with more than one thread: the child of such a fork may hold locks that no one will release.

use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use crate::error::{CallError, Named, Result, checked, checked_fd};

/// Which side of a fork the caller is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old process, with the new one's id and a descriptor of it.
    Parent {
        /// The child's id.
        pid: Pid,
        /// A pidfd of the child, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Flags of clone3(2) that [`fork_with`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// Nothing beside a plain fork.
    pub const NONE: Self = Self(0);
    /// The child becomes a sibling: its parent is the caller's parent.
    pub const PARENT: Self = Self(libc::CLONE_PARENT as u64);
    /// The child lives in a new pid namespace, as its process 1.
    pub const NEW_PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// The child lives in a new user namespace.
    pub const NEW_USER: Self = Self(libc::CLONE_NEWUSER as u64);

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Counts the caller's threads, where `/proc` tells.
pub fn thread_count() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// Forks a single-threaded process.
///
/// Fails with `EDEADLK` when the caller has more than one thread. Where `/proc` cannot be read the count is taken on trust.
pub fn fork() -> Result<Forked> {
    fork_with(CloneFlags::NONE, None)
}

/// Forks a single-threaded process with flags, by clone3(2) (since Linux 5.3), and into a control group (v2, since Linux 5.7) when
/// `cgroup`, a descriptor of its folder, is given.
pub fn fork_with(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    if thread_count().is_some_and(|count| count != 1) {
        return Err(CallError {
            call: "fork",
            errno: Errno::EDEADLK,
        });
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags.0 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // The kernel insists on no signal of the child's own with CLONE_PARENT.
        exit_signal: if flags.0 & CloneFlags::PARENT.0 != 0 {
            0
        } else {
            libc::SIGCHLD as u64
        },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack: the child is a copy that goes on from here; there is one thread, so no lock is held by another
    // one; `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<CloneArgs>()) };
    match checked("clone3", pid)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent {
            pid: Pid::from_raw(pid as libc::pid_t),
            pidfd: checked_fd("clone3", libc::c_long::from(pidfd))?,
        }),
    }
}

/// Waits until a child has ended, which is left to be reaped, or the time is over; says which.
pub fn ends_within(child: u32, time: std::time::Duration) -> Result<bool> {
    let pidfd = pidfd_open(Pid::from_raw(child as libc::pid_t))?;
    let until = std::time::Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let left = nix::poll::PollTimeout::try_from(left.as_millis()).unwrap_or(nix::poll::PollTimeout::MAX);
        let mut watched = [nix::poll::PollFd::new(
            pidfd.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        match nix::poll::poll(&mut watched, left) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(CallError { call: "poll", errno }),
        }
    }
}

/// Opens a descriptor of a process, close-on-exec (since Linux 5.3).
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: takes and returns plain numbers.
    checked_fd("pidfd_open", unsafe {
        libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0)
    })
}

/// Sends a signal to the process behind a pidfd; the signal 0 only asks whether it lives. Never hits a process that reuses the id.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the siginfo pointer is null, which the call allows.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked("pidfd_send_signal", sent).map(drop)
}

/// Copies a descriptor out of another process, close-on-exec (since Linux 5.6). Needs ptrace access to it.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, target: i32) -> Result<OwnedFd> {
    // SAFETY: takes and returns plain numbers.
    checked_fd("pidfd_getfd", unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), target, 0)
    })
}

/// Waits for the child behind a pidfd and answers its exit code. With `blocking` false answers `None` while it runs.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, blocking: bool) -> Result<Option<i32>> {
    let flags = libc::WEXITED | if blocking { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: an all-zero siginfo is a valid one, and is what the kernel leaves where no child has ended.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_raw_fd().cast_unsigned();
        // SAFETY: `info` lives through the call, which writes one siginfo.
        let waited = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) };
        match checked("waitid", waited.into()) {
            Err(error) if error.errno == Errno::EINTR => {}
            Err(error) => return Err(error),
            Ok(_) => {
                // SAFETY: waitid fills this form of the union, or has left it all zero.
                let pid = unsafe { info.si_pid() };
                // SAFETY: as before.
                let status = unsafe { info.si_status() };
                let base = if info.si_code == libc::CLD_EXITED { 0 } else { 128 };
                return Ok((pid != 0).then_some(base + status));
            }
        }
    }
}

/// Reaps a child, `None` any, and answers its id and exit code; `None` where none has ended and `flags` have WNOHANG. Unlike nix's waitpid
/// it does not lose a child that a real-time signal killed.
pub fn reap(child: Option<Pid>, flags: WaitPidFlag) -> Result<Option<(Pid, i32)>> {
    let target = child.map_or(-1, Pid::as_raw);
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call, which writes one number.
        let waited = unsafe { libc::waitpid(target, &raw mut status, flags.bits()) };
        match checked("waitpid", waited.into()) {
            Err(error) if error.errno == Errno::EINTR => {}
            Err(error) => return Err(error),
            Ok(_) if waited == 0 => return Ok(None),
            Ok(_) if libc::WIFEXITED(status) => {
                return Ok(Some((Pid::from_raw(waited), libc::WEXITSTATUS(status))));
            }
            Ok(_) if libc::WIFSIGNALED(status) => {
                return Ok(Some((Pid::from_raw(waited), 128 + libc::WTERMSIG(status))));
            }
            // A traced child stopped; it has not ended.
            Ok(_) => {}
        }
    }
}

/// Replaces the program. Returns only to report a failure.
pub fn execve(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> CallError {
    into_error(nix::unistd::execve(path, argv, envp), "execve")
}

/// Replaces the program by the one behind a descriptor. Returns only to report a failure.
///
/// A script behind a close-on-exec descriptor fails with `ENOENT`: its interpreter cannot open it.
pub fn execveat(program: BorrowedFd<'_>, argv: &[&CStr], envp: &[&CStr]) -> CallError {
    let done = nix::unistd::execveat(Some(program.as_raw_fd()), c"", argv, envp, AtFlags::AT_EMPTY_PATH);
    into_error(done, "execveat")
}

fn into_error(done: nix::Result<Infallible>, call: &'static str) -> CallError {
    match done {
        Ok(never) => match never {},
        Err(errno) => CallError { call, errno },
    }
}

/// Ends the process at once: no destructors, no exit handlers, no flushing of a parent's copied buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Makes the caller the one that inherits orphans among its descendants.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(on).named("prctl(PR_SET_CHILD_SUBREAPER)")
}

/// Lets the caller die with `signal` when its parent dies.
///
/// The parent may be gone already; compare `getppid` afterwards. execve of a set-user-ID program clears it.
pub fn set_parent_death_signal(signal: nix::sys::signal::Signal) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(signal).named("prctl(PR_SET_PDEATHSIG)")
}

/// Sends a signal by its number, real-time ones among them, to a child of the caller that has not been reaped.
pub fn signal_child(child: Pid, signal: i32) -> Result<()> {
    // SAFETY: takes and returns plain numbers.
    let done = unsafe { libc::kill(child.as_raw(), signal) };
    Errno::result(done).named("kill").map(drop)
}

/// Sets no_new_privs, for good.
pub fn set_no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().named("prctl(PR_SET_NO_NEW_PRIVS)")
}

/// Reads no_new_privs.
pub fn no_new_privileges() -> Result<bool> {
    nix::sys::prctl::get_no_new_privs().named("prctl(PR_GET_NO_NEW_PRIVS)")
}

/// Decides whether other processes of the same user may trace the caller and whether it may dump core.
pub fn set_dumpable(on: bool) -> Result<()> {
    nix::sys::prctl::set_dumpable(on).named("prctl(PR_SET_DUMPABLE)")
}

/// Reads the start time of a process, in clock ticks since boot: with the id it names a process for good.
pub fn start_time(pid: Pid) -> std::io::Result<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    parse_start_time(&stat).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// Field 22 of proc_pid_stat(5), counted behind the last parenthesis because the name may contain anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// Changes the command line that this process shows to others (proc_pid_cmdline(5)): writes over the words that it was started with, which
/// must be at least as long. The first word that no longer fits, and all after it, is an error and changes nothing.
///
/// What `std::env::args` gives afterwards is of no use.
pub fn set_command_line(words: &[&OsStr]) -> std::io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, end) = argument_area(&stat).ok_or(std::io::ErrorKind::InvalidData)?;
    let mut line = Vec::new();
    for word in words {
        line.extend_from_slice(word.as_bytes());
        line.push(0);
    }
    let room = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    if line.len() > room {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    line.resize(room, 0);
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&line, start)
}

/// Fields 48 and 49 of proc_pid_stat(5): where the arguments begin and end.
fn argument_area(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_start_time() {
        let fields: Vec<String> = (3..=52)
            .map(|n| if n == 3 { "S".into() } else { n.to_string() })
            .collect();
        let stat = format!("7 (a) S 1 2 (b) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("7 (a"), None);
        assert_eq!(argument_area(&stat), Some((48, 49)));
        assert_eq!(argument_area("7 (a"), None);
    }

    #[test]
    fn the_command_line_others_see_can_be_changed_within_its_length() {
        let before = std::fs::read("/proc/self/cmdline").expect("/proc is mounted");
        let long = "x".repeat(before.len());
        let refused = set_command_line(&[OsStr::new("a"), OsStr::new(&long)]).expect_err("there is no room");
        assert_eq!(refused.kind(), std::io::ErrorKind::FileTooLarge);
        let line = || std::fs::read("/proc/self/cmdline").expect("/proc is mounted");
        assert_eq!(line(), before);
        set_command_line(&[OsStr::new("a"), OsStr::new("b")]).expect("there is room");
        assert!(line().starts_with(b"a\0b\0\0"), "{:?}", line());
        let words: Vec<&OsStr> = before[..before.len() - 1]
            .split(|byte| *byte == 0)
            .map(OsStr::from_bytes)
            .collect();
        set_command_line(&words).expect("it was there");
        assert_eq!(line(), before);
    }

    #[test]
    fn a_threaded_process_is_not_forked() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert_eq!(
            fork().map(|_| ()).map_err(|error| error.errno),
            Err(Errno::EDEADLK)
        );
        release.send(()).expect("the thread waits");
        thread.join().expect("the thread ends").expect("it was released");
    }

    #[test]
    fn exit_codes_of_ended_children_are_told_after_real_time_signals_too() {
        let rows = [("exit 7", 7), ("kill -9 $$", 137), ("kill -40 $$", 168)];
        for (script, code) in rows {
            let spawn = || {
                let child = std::process::Command::new("sh").args(["-c", script]).spawn();
                Pid::from_raw(child.expect("sh starts").id() as i32)
            };
            let child = spawn();
            assert_eq!(
                reap(Some(child), WaitPidFlag::empty()),
                Ok(Some((child, code))),
                "{script}"
            );
            let pidfd = pidfd_open(spawn()).expect("a child has a pidfd");
            assert_eq!(wait_pidfd(pidfd.as_fd(), true), Ok(Some(code)), "{script}");
        }
        let own = Pid::from_raw(std::process::id() as i32);
        let stranger = reap(Some(own), WaitPidFlag::WNOHANG).expect_err("no child of ours");
        assert_eq!((stranger.call, stranger.errno), ("waitpid", Errno::ECHILD));
    }

    #[test]
    fn a_pidfd_reaches_its_process_and_then_no_one() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep starts");
        let pidfd = pidfd_open(Pid::from_raw(child.id() as i32)).expect("a child has a pidfd");
        assert_eq!(pidfd_send_signal(pidfd.as_fd(), 0), Ok(()));
        assert_eq!(wait_pidfd(pidfd.as_fd(), false), Ok(None));
        pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).expect("our own child");
        child.wait().expect("it was started");
        let gone = pidfd_send_signal(pidfd.as_fd(), 0).expect_err("it was reaped");
        assert_eq!((gone.call, gone.errno), ("pidfd_send_signal", Errno::ESRCH));
    }
}
