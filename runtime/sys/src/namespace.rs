//! Namespaces: leaving, joining and naming them.
//!
//! Owns the order in which all namespaces of a process are joined ([`JOIN_ORDER`]).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use crate::error::{Named, Result};

/// The kinds of namespaces, as in `/proc/<pid>/ns/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// User and group ids, capabilities.
    User,
    /// The root of the visible control groups.
    Cgroup,
    /// System V and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Network.
    Net,
    /// Process ids, of children made afterwards.
    Pid,
    /// Clock offsets, of children made afterwards.
    Time,
    /// Mounts.
    Mount,
}

/// The order in which `exec` joins: user first, because it brings the privilege to join what it owns; mount last, because the paths
/// that the earlier ones were opened by are gone afterwards. The caller must fork after it, for pid and time to take effect.
pub const JOIN_ORDER: [Kind; 8] = [
    Kind::User,
    Kind::Cgroup,
    Kind::Ipc,
    Kind::Uts,
    Kind::Net,
    Kind::Pid,
    Kind::Time,
    Kind::Mount,
];

impl Kind {
    /// The file's name in `/proc/<pid>/ns/`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::Mount => "mnt",
        }
    }

    /// The `CLONE_NEW*` flag.
    pub const fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Time => CloneFlags::from_bits_retain(0x80),
            Self::Mount => CloneFlags::CLONE_NEWNS,
        }
    }
}

/// Opens `name` (`ns/net`, `root`, `status` …) below an open `/proc/<pid>`, so that a reused id cannot swap processes in between.
pub fn open_in_process(process: BorrowedFd<'_>, name: &str, flags: nix::fcntl::OFlag) -> Result<OwnedFd> {
    let fd = nix::fcntl::openat(
        Some(process.as_raw_fd()),
        name,
        flags | nix::fcntl::OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .named("openat")?;
    crate::error::checked_fd("openat", libc::c_long::from(fd))
}

/// Joins the namespace behind a descriptor of `/proc/<pid>/ns/<kind>`; the kernel refuses one of another kind.
pub fn join(namespace: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    nix::sched::setns(namespace, kind.flag()).named("setns")
}

/// Joins several namespaces of the process behind a pidfd at once (since Linux 5.8): all of them or none.
pub fn join_process(pidfd: BorrowedFd<'_>, kinds: &[Kind]) -> Result<()> {
    let flags = kinds
        .iter()
        .fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    nix::sched::setns(pidfd, flags).named("setns")
}

/// Moves the caller into new namespaces.
pub fn unshare(kinds: &[Kind]) -> Result<()> {
    let flags = kinds
        .iter()
        .fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    nix::sched::unshare(flags).named("unshare")
}
