//! Making one mount by descriptors: the target is opened in the container's root, the mount is finished before it is attached.
//!
//! Owns the calls. Needs CAP_SYS_ADMIN over the mount namespace. Invariant: no path of the container is resolved by the kernel's ordinary rules.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use kakoi_sys::{CallError, Errno};
use libcontainer::syscall::linux::{
    AT_EMPTY_PATH, AT_RECURSIVE, MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, MountAttr,
};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::syscall::{Syscall, SyscallError};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;

use super::options::{StagedKind, StagedMount};

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A path of the container could not be opened or made.
    #[error("open {path} in the container's root")]
    Target {
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: CallError,
    },
    /// A path of the host could not be read.
    #[error("read {path}")]
    Source {
        /// Path on the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("{step} for {path}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: SyscallError,
    },
}

/// Opens a path of the container without leaving its root; links inside are followed as the container would.
pub(crate) fn open_inside(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, MountError> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    kakoi_sys::path::open_in_root(root, relative, flags, 0).map_err(|source| MountError::Target {
        path: path.to_owned(),
        source,
    })
}

/// Opens a folder of the container and makes what is missing of it.
pub(crate) fn make_folder(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, MountError> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open_inside(root, path, folder) {
        Err(MountError::Target { source, .. }) if source.errno == Errno::ENOENT => {}
        answer => return answer,
    }
    let mut reached = PathBuf::from("/");
    let mut parent = open_inside(root, &reached, folder)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        reached.push(name);
        parent = match open_inside(root, &reached, folder) {
            Err(MountError::Target { source, .. }) if source.errno == Errno::ENOENT => {
                match nix::sys::stat::mkdirat(Some(parent.as_raw_fd()), name, Mode::from_bits_truncate(0o755))
                {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => {
                        let source = CallError {
                            call: "mkdirat",
                            errno,
                        };
                        return Err(MountError::Target {
                            path: reached,
                            source,
                        });
                    }
                }
                open_inside(root, &reached, folder)?
            }
            answer => answer?,
        };
    }
    Ok(parent)
}

/// Opens a file of the container and makes an empty one where it is missing.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, MountError> {
    match open_inside(root, path, OFlag::O_PATH) {
        Err(MountError::Target { source, .. }) if source.errno == Errno::ENOENT => {}
        answer => return answer,
    }
    let parent = make_folder(root, path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or_default();
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match nix::fcntl::openat(
        Some(parent.as_raw_fd()),
        name,
        flags,
        Mode::from_bits_truncate(0o644),
    ) {
        Ok(fd) => nix::unistd::close(fd).map_err(|errno| MountError::Target {
            path: path.to_owned(),
            source: CallError { call: "close", errno },
        })?,
        Err(Errno::EEXIST) => {}
        Err(errno) => {
            return Err(MountError::Target {
                path: path.to_owned(),
                source: CallError {
                    call: "openat",
                    errno,
                },
            });
        }
    }
    open_inside(root, path, OFlag::O_PATH)
}

/// Makes a mount of ours.
pub(crate) fn make(
    root: BorrowedFd<'_>,
    mount: &StagedMount,
    tree: Option<OwnedFd>,
) -> Result<(), MountError> {
    let calls = create_syscall();
    let path = &mount.destination;
    let failed = |step: &'static str| {
        move |source| MountError::Call {
            step,
            path: path.clone(),
            source,
        }
    };
    let (tree, target) = match &mount.kind {
        StagedKind::Bind { recursive } => {
            let tree = match tree {
                Some(tree) => tree,
                None => clone_tree(Path::new(&mount.source), *recursive, mount.source_no_follow)?,
            };
            let is_folder = fs::metadata(descriptor_path(tree.as_fd()))
                .map_err(|source| MountError::Source {
                    path: PathBuf::from(&mount.source),
                    source,
                })?
                .is_dir();
            let target = if is_folder {
                make_folder(root, path)?
            } else {
                make_file(root, path)?
            };
            (tree, target)
        }
        StagedKind::Filesystem(kind) => {
            let target = make_folder(root, path)?;
            (
                new_filesystem(calls.as_ref(), kind, &mount.source, &mount.data, path)?,
                target,
            )
        }
        StagedKind::CgroupV1 => return Ok(()),
    };
    set_attributes(calls.as_ref(), tree.as_fd(), mount)?;
    if mount.copy_up {
        let held = OwnedFd::from(File::open(descriptor_path(target.as_fd())).map_err(|source| {
            MountError::Source {
                path: path.clone(),
                source,
            }
        })?);
        attach(calls.as_ref(), tree.as_fd(), target.as_fd()).map_err(failed("attach"))?;
        let fresh = open_inside(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        return super::run::copy_tree(held.as_fd(), fresh.as_fd()).map_err(|source| MountError::Source {
            path: path.clone(),
            source,
        });
    }
    attach(calls.as_ref(), tree.as_fd(), target.as_fd()).map_err(failed("attach"))
}

/// A path that names an open descriptor of ours, not something of the container.
fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Clones a tree of the host, detached.
pub(crate) fn clone_tree(source: &Path, recursive: bool, no_follow: bool) -> Result<OwnedFd, MountError> {
    const OPEN_TREE_CLONE: u32 = 1;
    let mut flags = OPEN_TREE_CLONE | OFlag::O_CLOEXEC.bits() as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if no_follow {
        flags |= AtFlags::AT_SYMLINK_NOFOLLOW.bits() as u32;
    }
    let failed = |source| MountError::Call {
        step: "clone the tree",
        path: PathBuf::new(),
        source,
    };
    let text = source
        .to_str()
        .ok_or(SyscallError::Nix(Errno::EINVAL))
        .map_err(failed)?;
    create_syscall()
        .open_tree(nix::libc::AT_FDCWD, Some(text), flags)
        .map_err(|error| MountError::Call {
            step: "clone the tree",
            path: source.to_owned(),
            source: error,
        })
}

fn new_filesystem(
    calls: &dyn Syscall,
    kind: &str,
    source: &str,
    data: &[String],
    path: &Path,
) -> Result<OwnedFd, MountError> {
    use libcontainer::syscall::linux::{FSCONFIG_CMD_CREATE, FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING};
    let failed = |step: &'static str| {
        move |source| MountError::Call {
            step,
            path: path.to_owned(),
            source,
        }
    };
    let context = calls
        .fsopen(Some(kind), 0)
        .map_err(failed("open the file system"))?;
    let set = |command: u64, key: Option<&str>, value: Option<&str>| {
        calls
            .fsconfig(context.as_fd(), command as u32, key, value, 0)
            .map_err(failed("configure the file system"))
    };
    set(FSCONFIG_SET_STRING, Some("source"), Some(source))?;
    for option in data.iter().filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => set(FSCONFIG_SET_STRING, Some(key), Some(value))?,
            None => set(FSCONFIG_SET_FLAG, Some(option), None)?,
        }
    }
    set(FSCONFIG_CMD_CREATE, None, None)?;
    calls
        .fsmount(context.as_fd(), 0, None)
        .map_err(failed("mount the file system"))
}

/// Sets attributes on the mount, then on the tree, then its propagation.
fn set_attributes(calls: &dyn Syscall, tree: BorrowedFd<'_>, mount: &StagedMount) -> Result<(), MountError> {
    let failed = |step: &'static str| {
        move |source| MountError::Call {
            step,
            path: mount.destination.clone(),
            source,
        }
    };
    let change = |set: u64, clear: u64, propagation: u64, recursive: bool| {
        let attributes = MountAttr {
            attr_set: set,
            attr_clr: clear,
            propagation,
            userns_fd: 0,
        };
        let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
        calls.mount_setattr(tree, Path::new(""), flags, &attributes, size_of::<MountAttr>())
    };
    if mount.set | mount.clear != 0 {
        change(mount.set, mount.clear, 0, false).map_err(failed("set attributes"))?;
    }
    if mount.recursive_set | mount.recursive_clear != 0 {
        change(mount.recursive_set, mount.recursive_clear, 0, true)
            .map_err(failed("set recursive attributes"))?;
    }
    for word in &mount.propagation {
        let (recursive, plain) = match word.strip_prefix('r') {
            Some(plain) => (true, plain),
            None => (false, word.as_str()),
        };
        let flag = propagation_flag(plain);
        change(0, 0, flag, recursive).map_err(failed("set propagation"))?;
    }
    Ok(())
}

/// The kernel's flag of a propagation word.
pub(crate) fn propagation_flag(word: &str) -> u64 {
    use nix::mount::MsFlags;
    let flag = match word {
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => MsFlags::MS_PRIVATE,
    };
    flag.bits()
}

/// Attaches a detached tree.
pub(crate) fn attach(
    calls: &dyn Syscall,
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
) -> Result<(), SyscallError> {
    calls.move_mount(
        tree,
        None,
        target,
        None,
        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Makes an attached mount read-only.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, path: &Path) -> Result<(), MountError> {
    const RDONLY: u64 = 1;
    let attributes = MountAttr {
        attr_set: RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    create_syscall()
        .mount_setattr(
            mount,
            Path::new(""),
            AT_EMPTY_PATH,
            &attributes,
            size_of::<MountAttr>(),
        )
        .map_err(|source| MountError::Call {
            step: "make read-only",
            path: path.to_owned(),
            source,
        })
}
