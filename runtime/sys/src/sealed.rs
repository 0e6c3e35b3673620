//! Running our own program so that nothing inside a container can overwrite it (CVE-2019-5736).
//!
//! A process that enters a container shows its program there as `/proc/<pid>/exe`: who reopens that link for writing, once the program no
//! longer runs, changes the runtime on the host. Copying the program into memory at each start, as runtimes do, costs
//! milliseconds and megabytes. Here the program is instead executed through a detached, read-only clone of the mount it lies on: the
//! link then leads to a read-only mount that no path reaches, and the pages stay shared. `execve` closes the clone's descriptor, and with
//! it the mount leaves its namespace: from then on the kernel lets no one, whatever they hold, change its attributes or clone it again.
//! Where a clone cannot be made, without CAP_SYS_ADMIN or before Linux 5.12, a sealed copy in memory is.
//!
//! A program under a seal has no path: `std::env::current_exe` does not find it. Who needs the path must learn it otherwise.

use std::ffi::{CStr, CString};
use std::io::Seek;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::stat::Mode;

use crate::error::{CallError, Named, Result, checked_fd};
use crate::mount::{Attributes, Reach, add_attributes, clone_tree};

/// How this process's program is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It was executed from a detached read-only mount or lies on a read-only file system.
    ReadOnly,
    /// It was executed from sealed memory.
    Memory,
    /// It is not.
    None,
}

/// Tells how this process's program is protected. Needs `/proc`.
pub fn seal() -> Result<Seal> {
    let program = open_self()?;
    if let Ok(seals) = fcntl(program.as_raw_fd(), FcntlArg::F_GET_SEALS) {
        let sealed = SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE);
        return Ok(if sealed { Seal::Memory } else { Seal::None });
    }
    let statistics = nix::sys::statvfs::fstatvfs(program.as_fd()).named("fstatvfs")?;
    let is_read_only = statistics.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    Ok(if is_read_only { Seal::ReadOnly } else { Seal::None })
}

/// Executes this program again under a seal, with the same arguments and environment, and does not return; returns at once when it is
/// sealed already, which it tells from the kernel and not from anything that a caller could have said.
///
/// Call it first in `main` of a program that enters containers: the process must have one thread, and its descriptors that are not
/// close-on-exec stay open.
pub fn ensure() -> Result<Seal> {
    match seal()? {
        Seal::None => {}
        sealed => return Ok(sealed),
    }
    let program = read_only_clone().or_else(|_| memory_copy())?;
    let strings = |bytes: Vec<Vec<u8>>| {
        bytes
            .into_iter()
            .map(|bytes| terminated(&bytes))
            .collect::<Result<Vec<_>>>()
    };
    let arguments = strings(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let variables = strings(
        std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b"="[..]))
            .collect(),
    )?;
    Err(crate::process::execveat(
        program.as_fd(),
        &borrowed(&arguments),
        &borrowed(&variables),
    ))
}

fn borrowed(strings: &[CString]) -> Vec<&CStr> {
    strings.iter().map(CString::as_c_str).collect()
}

fn open_self() -> Result<OwnedFd> {
    open_program(Path::new("/proc/self/exe"))
}

fn open_program(path: &Path) -> Result<OwnedFd> {
    let fd = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).named("open")?;
    checked_fd("open", libc::c_long::from(fd))
}

/// A descriptor of this program on a detached read-only mount.
pub fn read_only_clone() -> Result<OwnedFd> {
    read_only_clone_of(Path::new("/proc/self/exe"))
}

/// A descriptor of the program at `path` on a detached read-only mount, from which it may be executed as `/proc/self/fd/N`. Needs CAP_SYS_ADMIN.
pub fn read_only_clone_of(path: &Path) -> Result<OwnedFd> {
    let program = open_program(path)?;
    let clone = clone_tree(program.as_fd(), Reach::One)?;
    add_attributes(
        clone.as_fd(),
        Attributes::READ_ONLY.with(Attributes::NO_SUID),
        Reach::One,
    )?;
    Ok(clone)
}

/// A descriptor of a copy of this program in memory that nobody can change.
pub fn memory_copy() -> Result<OwnedFd> {
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    // Since Linux 6.3 a system may demand that the need to execute is said.
    const EXECUTABLE: MemFdCreateFlag = MemFdCreateFlag::from_bits_retain(0x10);
    let memory = memfd_create(c"kakoi", flags | EXECUTABLE)
        .or_else(|_| memfd_create(c"kakoi", flags))
        .named("memfd_create")?;
    let (mut from, mut to) = (std::fs::File::from(open_self()?), std::fs::File::from(memory));
    let copied = std::io::copy(&mut from, &mut to).and_then(|_| to.rewind());
    copied.map_err(|error| CallError {
        call: "write",
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    })?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(to.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals)).named("fcntl(F_ADD_SEALS)")?;
    Ok(to.into())
}

fn terminated(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| CallError {
        call: "execveat",
        errno: Errno::EINVAL,
    })
}
