//! Project quotas: how much the files of one project may occupy on a file system (ext4, XFS).
//!
//! Owns `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR` (ioctl_xfs_fsgetxattr(2)) and quotactl_fd (quotactl(2), Linux 5.14). Refuses to know whose a project is.
//! Invariant: works on open descriptors, so neither a path nor a device is looked up.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::{Named, Result, checked};

/// What is made in a folder belongs to the folder's project (linux/fs.h).
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `Q_XGETQSTATV` (linux/dqblk_xfs.h).
const Q_XGETQSTATV: i32 = 0x5808;

/// `FS_QUOTA_PDQ_ENFD`: limits of projects hold.
const PROJECT_LIMITS_HOLD: u16 = 1 << 5;

/// The kind of quota (linux/quota.h).
const PRJQUOTA: i32 = 2;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct FileAttributes {
    flags: u32,
    extent_bytes: u32,
    extents: u32,
    project: u32,
    cow_extent_bytes: u32,
    pad: [u8; 8],
}

/// The head of `struct fs_quota_statv`; the rest is room that the kernel writes to.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u64; 31],
}

/// The calls as they are; private, as they are unsafe.
mod raw {
    use super::FileAttributes;

    nix::ioctl_read!(
        /// `FS_IOC_FSGETXATTR`.
        get_attributes, b'X', 31, FileAttributes
    );
    nix::ioctl_write_ptr!(
        /// `FS_IOC_FSSETXATTR`.
        set_attributes, b'X', 32, FileAttributes
    );
}

/// What a project occupies and may occupy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub used_bytes: u64,
    /// Files and folders.
    pub inodes: u64,
    /// The most bytes; 0 where there is no limit.
    pub limit_bytes: u64,
}

fn attributes(file: BorrowedFd<'_>) -> Result<FileAttributes> {
    let mut attributes = FileAttributes::default();
    // SAFETY: attributes is a `struct fsxattr` to write to, and the descriptor is open for as long as it is borrowed.
    let done = unsafe { raw::get_attributes(file.as_raw_fd(), &raw mut attributes) };
    done.named("ioctl FS_IOC_FSGETXATTR")?;
    Ok(attributes)
}

/// The project of a file; 0 where it has none. `ENOTTY` or `EOPNOTSUPP` on file systems that know none.
pub fn project(file: BorrowedFd<'_>) -> Result<u32> {
    Ok(attributes(file)?.project)
}

/// Puts a folder into a project, and with it all that is made in it from now on. Needs to own it, in the first user namespace.
pub fn set_project(folder: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(folder)?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: attributes is a `struct fsxattr` to read from, and the descriptor is open for as long as it is borrowed.
    let done = unsafe { raw::set_attributes(folder.as_raw_fd(), &raw const attributes) };
    done.map(drop).named("ioctl FS_IOC_FSSETXATTR")
}

/// Whether limits of projects hold on a file's file system. An old kernel's `ENOSYS` is no.
pub fn is_enforced(file: BorrowedFd<'_>) -> bool {
    let mut state = State {
        version: 1,
        pad: 0,
        flags: 0,
        rest: [0; 31],
    };
    // SAFETY: state has more room than `struct fs_quota_statv`, and the descriptor is open for as long as it is borrowed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command(Q_XGETQSTATV),
            0,
            &raw mut state,
        )
    };
    done == 0 && state.flags & PROJECT_LIMITS_HOLD != 0
}

/// What a project occupies. Another's than one's own needs CAP_SYS_ADMIN.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> Result<Usage> {
    // SAFETY: all of `struct if_dqblk` is integers, for which zeros are values.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    // SAFETY: block is a `struct if_dqblk` to write to, and the descriptor is open for as long as it is borrowed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command(libc::Q_GETQUOTA),
            project,
            &raw mut block,
        )
    };
    match checked("quotactl_fd", done) {
        Ok(_) => Ok(Usage {
            used_bytes: block.dqb_curspace,
            inodes: block.dqb_curinodes,
            limit_bytes: block.dqb_bhardlimit.saturating_mul(1024),
        }),
        // XFS has no entry of a project without files.
        Err(error) if error.errno == Errno::ENOENT => Ok(Usage::default()),
        Err(error) => Err(error),
    }
}

/// Sets the most bytes that a project may occupy, in whole KiB; 0 is no limit. Needs CAP_SYS_ADMIN.
pub fn set_limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    // SAFETY: all of `struct if_dqblk` is integers, for which zeros are values.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    block.dqb_bhardlimit = bytes / 1024;
    // QIF_BLIMITS
    block.dqb_valid = 1;
    // SAFETY: block is a `struct if_dqblk` to read from, and the descriptor is open for as long as it is borrowed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command(libc::Q_SETQUOTA),
            project,
            &raw mut block,
        )
    };
    checked("quotactl_fd", done).map(drop)
}

/// `QCMD` of linux/quota.h.
fn command(command: i32) -> libc::c_long {
    libc::c_long::from((command << 8) | PRJQUOTA)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_system_without_projects_says_so() {
        let proc = File::open("/proc").expect("proc is mounted");
        assert!(!is_enforced(proc.as_fd()));
        assert!(project(proc.as_fd()).is_err());
        assert!(set_project(proc.as_fd(), 7).is_err());
        assert!(usage(proc.as_fd(), 7).is_err());
        assert!(set_limit(proc.as_fd(), 7, 1 << 20).is_err());
    }
}
