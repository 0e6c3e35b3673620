//! What must be true of a root file system before libcontainer touches it.
//!
//! Owns the refusals. libcontainer makes nodes and links below `/dev` by path: an image whose `/dev` is a link would have it write to the
//! host (CVE-2026-41579, CVE-2026-47766), and one whose `/proc` is not a folder would have it write settings to a file of the image
//! (CVE-2019-16884, CVE-2019-19921). Refuses to repair: a root like that was made to be hostile. Invariant: nothing here writes but the
//! working directory that the document names.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_sys::{CallError, Errno};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use crate::stage::mount::{MountError, make_folder};

/// Folders that the runtime mounts or makes something in; each must be a folder of the image itself, or absent.
const FOLDERS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys"];

/// Files that the runtime makes, binds over or opens; each must be what it claims, or absent.
const NODES: [&str; 9] = [
    "dev/null",
    "dev/zero",
    "dev/full",
    "dev/tty",
    "dev/random",
    "dev/urandom",
    "dev/console",
    "dev/core",
    "dev/fd",
];

/// Why a root file system is refused.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// It cannot be opened as a folder.
    #[error("open the root file system {path}")]
    Root {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something that must be a folder or a node is a link, or leads out of the root.
    #[error(
        "refused: /{path} in the root file system is {found}, and the runtime would follow it to the host"
    )]
    Foreign {
        /// Path inside.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It could not be looked at.
    #[error("look at /{path} in the root file system")]
    Look {
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The working directory could not be made.
    #[error("make the working directory {path}")]
    Cwd {
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<MountError>,
    },
}

/// Refuses a root that would lead the runtime astray. `mounted` are the targets of the document's mounts: what lies below a mounted `/dev` is
/// hidden and harmless.
pub(crate) fn check(
    rootfs: &Path,
    mounted: &[PathBuf],
    devices: &[PathBuf],
) -> Result<OwnedFd, PreflightError> {
    let root = File::open(rootfs)
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Ok(OwnedFd::from(file)),
            false => Err(std::io::Error::from_raw_os_error(Errno::ENOTDIR as i32)),
        })
        .map_err(|source| PreflightError::Root {
            path: rootfs.to_owned(),
            source,
        })?;
    let hidden = |path: &Path| {
        let absolute = Path::new("/").join(path);
        mounted
            .iter()
            .any(|target| absolute != *target && absolute.starts_with(target) && target != Path::new("/"))
    };
    for path in FOLDERS.iter().map(Path::new).filter(|path| !hidden(path)) {
        match look(&root, path)? {
            None | Some(SFlag::S_IFDIR) => {}
            Some(kind) => return Err(foreign(path, kind)),
        }
    }
    let devices = devices.iter().filter_map(|path| path.strip_prefix("/").ok());
    for path in NODES
        .iter()
        .map(Path::new)
        .chain(devices)
        .filter(|path| !hidden(path))
    {
        match look(&root, path)? {
            // The links of a usual image, `/dev/fd` to `/proc/self/fd`, are made anew by libcontainer without being followed.
            Some(SFlag::S_IFLNK) if path != Path::new("dev/fd") && path != Path::new("dev/core") => {
                return Err(foreign(path, SFlag::S_IFLNK));
            }
            _ => {}
        }
    }
    Ok(root)
}

/// Makes the working directory where it is missing and not below a mount; there it is the stage's to make.
pub(crate) fn make_cwd(root: &OwnedFd, cwd: &str) -> Result<(), PreflightError> {
    make_folder(root.as_fd(), Path::new(cwd))
        .map(drop)
        .map_err(|source| PreflightError::Cwd {
            path: cwd.into(),
            source: Box::new(source),
        })
}

/// The kind of what is at a path, the last part not followed; `None` where nothing is.
fn look(root: &OwnedFd, path: &Path) -> Result<Option<SFlag>, PreflightError> {
    // Beneath and without links: a link in the middle is the very thing that is looked for.
    let opened = kakoi_sys::path::open_beneath(root.as_fd(), path, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0);
    let fd = match opened {
        Ok(fd) => fd,
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(error) if matches!(error.errno, Errno::ELOOP | Errno::EXDEV) => {
            return Ok(Some(SFlag::S_IFLNK));
        }
        Err(source) => {
            return Err(PreflightError::Look {
                path: path.to_owned(),
                source,
            });
        }
    };
    let kind = fstat(fd.as_raw_fd()).map_err(|errno| PreflightError::Look {
        path: path.to_owned(),
        source: CallError { call: "fstat", errno },
    })?;
    Ok(Some(SFlag::from_bits_truncate(
        kind.st_mode & SFlag::S_IFMT.bits(),
    )))
}

fn foreign(path: &Path, kind: SFlag) -> PreflightError {
    let found = match kind {
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFREG => "a file",
        _ => "a special file",
    };
    PreflightError::Foreign {
        path: path.to_owned(),
        found,
    }
}
