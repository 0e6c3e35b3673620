//! Small settings of the kernel and of a process that belong to no other subject.
//!
//! Owns the kernel's release, host name, domain name, personality, scheduling, I/O priority, landlock's version, the
//! allocator's hoard and the page cache.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{CallError, Named, Result, checked};
use nix::errno::Errno;

/// `uname -r`.
pub fn release() -> Result<String> {
    // SAFETY: utsname is a structure of byte arrays, for which zero is a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: writes one utsname, which outlives the call.
    let done = unsafe { libc::uname(&raw mut name) };
    checked("uname", libc::c_long::from(done))?;
    let bytes = name
        .release
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned()))
}

/// Gives memory that was freed back to the kernel, which the allocator otherwise keeps for the next time: some megabytes after an image was
/// unpacked. Takes less than a millisecond; does nothing where the C library is not glibc. Source: malloc_trim(3).
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, locks the allocator itself, and touches only what nobody has allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Drops what the page cache holds of a file or block device, so that the next read asks the medium. What is not written back yet stays: sync first.
/// Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
pub fn forget_pages(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a descriptor that is open for as long as it is borrowed, and numbers.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    match error {
        0 => Ok(()),
        number => Err(CallError {
            call: "posix_fadvise",
            errno: Errno::from_raw(number),
        }),
    }
}

/// Whether the file system of a path is mounted read-only, as one is whose disk failed. Source: statvfs(3), ST_RDONLY.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let found = nix::sys::statvfs::statvfs(path).named("statvfs")?;
    Ok(found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// Opens a block device to write, refused with EBUSY where it is mounted or another holds it so; of an ordinary file it is a plain open.
/// Source: open(2), O_EXCL without O_CREAT.
pub fn open_exclusive(path: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(path)
}

/// Landlock's ABI version; 0 where the kernel lacks it or it was not enabled at boot. Source: landlock_create_ruleset(2).
pub fn landlock_abi() -> Result<u32> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes a null pointer and a size of zero, and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    match checked("landlock_create_ruleset", version) {
        Ok(version) => Ok(version as u32),
        Err(CallError {
            errno: Errno::ENOSYS | Errno::EOPNOTSUPP,
            ..
        }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Sets the host name of the caller's UTS namespace.
pub fn set_hostname(name: &str) -> Result<()> {
    let done = {
        // SAFETY: the name and its length describe the same bytes, which outlive the call.
        unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }
    };
    checked("sethostname", libc::c_long::from(done)).map(drop)
}

/// Sets the NIS domain name of the caller's UTS namespace.
pub fn set_domainname(name: &str) -> Result<()> {
    let done = {
        // SAFETY: the name and its length describe the same bytes, which outlive the call.
        unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }
    };
    checked("setdomainname", libc::c_long::from(done)).map(drop)
}

/// Sets the execution domain (personality(2)), 0 or `PER_LINUX32` for OCI's `LINUX` and `LINUX32`.
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: takes and returns plain numbers.
    let done = unsafe { libc::personality(persona as libc::c_ulong) };
    checked("personality", libc::c_long::from(done)).map(drop)
}

/// Sets the I/O priority of the caller: class (1 realtime, 2 best effort, 3 idle) and level (0 to 7). Source: ioprio_set(2).
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let priority = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: takes and returns plain numbers.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    checked("ioprio_set", done).map(drop)
}

/// How a process is scheduled. Source: sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for the ordinary policies.
    pub nice: i32,
    /// 1 to 99, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds, for the deadline policy.
    pub runtime: u64,
    /// Nanoseconds, for the deadline policy.
    pub deadline: u64,
    /// Nanoseconds, for the deadline policy.
    pub period: u64,
}

#[repr(C)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets how the caller is scheduled.
pub fn set_scheduling(scheduling: Scheduling) -> Result<()> {
    set_scheduling_of(0, scheduling)
}

/// Sets how a process is scheduled, 0 being the caller. Needs CAP_SYS_NICE for more than its owner may ask for.
pub fn set_scheduling_of(pid: i32, scheduling: Scheduling) -> Result<()> {
    let attributes = SchedulingAttributes {
        size: std::mem::size_of::<SchedulingAttributes>() as u32,
        policy: scheduling.policy,
        flags: scheduling.flags,
        nice: scheduling.nice,
        priority: scheduling.priority,
        runtime: scheduling.runtime,
        deadline: scheduling.deadline,
        period: scheduling.period,
    };
    // SAFETY: reads one structure whose size is in its first field and which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) };
    checked("sched_setattr", done).map(drop)
}

/// Joins no one's keyring: gives the caller a new, anonymous or named session keyring, so that a container does not hold the keys of
/// whoever started the runtime. `ENOSYS` where the kernel has no keyrings.
pub fn new_session_keyring(name: &str) -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = CString::new(name).map_err(|_| Errno::EINVAL).named("keyctl")?;
    // SAFETY: the name is a terminated string that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    checked("keyctl", done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_kernels_own() {
        let release_file = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
        assert_eq!(release().expect("uname works"), release_file.trim());
    }

    #[test]
    fn an_impossible_io_priority_is_refused() {
        assert_eq!(set_io_priority(7, 7).map_err(|e| e.errno), Err(Errno::EINVAL));
    }
}
