//! One file of a tree as a tar's entry, and the names in a folder.
//!
//! Owns looking. Follows no link; a name that changes its kind between two looks is an error of that name, not of anything else.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use kakoi_sys::path::open_beneath;
use kakoi_sys::xattr;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use crate::tarball::{EXTENSION_BYTES_MAX, Entry, Kind, XATTRS_MAX};

/// How much of a file is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// As Docker does: whole seconds, and of the attributes capabilities alone.
    Docker,
    /// All that putting it back can set: parts of seconds, attributes of users, of folders too, and holes as holes.
    Backup,
}

/// How ids of the disk become ids of the archive, or the other way round.
pub type Ids<'a> = &'a dyn Fn(u32, u32) -> (u32, u32);

/// Most bytes of the names of one folder: a million of them, far beyond what any image has.
const FOLDER_NAMES_BYTES_MAX: usize = 32 << 20;
/// Most folders within each other: each is an open descriptor while its own are looked at.
pub(crate) const DEPTH_MAX: usize = 500;
/// Largest value of an extended attribute (XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the names of a file's attributes (XATTR_LIST_MAX).
const XATTR_NAMES_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a file's attributes in an archive, names and values: what a reader of ours takes, less what else one extension record says.
const XATTRS_BYTES_MAX: usize = (EXTENSION_BYTES_MAX as usize) - (64 << 10);
/// The attributes that mean the same elsewhere.
const XATTRS: [&std::ffi::CStr; 1] = [c"security.capability"];

/// A tree that cannot be read, or not be written to.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Something about one file.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Its path from the start of the tree, shortened.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree is nested too deeply.
    #[error("{path} is nested deeper than {DEPTH_MAX} folders")]
    TooDeep {
        /// Where.
        path: String,
    },
    /// Too many names, of a folder or of files with several names.
    #[error("{path} has too many files")]
    TooMany {
        /// Where.
        path: String,
    },
    /// A folder that the kernel renamed by reference; nothing of ours mounts so that it does.
    #[error("{path} was renamed by reference, which an archive cannot say")]
    Redirected {
        /// Where.
        path: String,
    },
    /// Whoever takes the archive does not.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

pub(crate) fn failed(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> TreeError {
    TreeError::File {
        action,
        path: shown(path),
        source: source.into(),
    }
}

pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).collect()
}

pub(crate) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Looks at a name, following nothing; `None` where there is none.
pub(crate) fn look(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(Some(folder.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a folder by its name in another, following nothing.
pub(crate) fn open_folder(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    open_beneath(folder, Path::new(name), flags, 0).map_err(|error| error.errno.into())
}

/// The names in an open folder, sorted.
pub(crate) fn names(folder: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
    let list = |errno: Errno| failed("list", path, errno);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut opened = Dir::openat(Some(folder.as_raw_fd()), ".", flags, Mode::empty()).map_err(list)?;
    let (mut names, mut bytes) = (Vec::new(), 0);
    for entry in opened.iter() {
        let entry = entry.map_err(list)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        bytes += name.len() + size_of::<Vec<u8>>();
        if bytes > FOLDER_NAMES_BYTES_MAX {
            return Err(TreeError::TooMany { path: shown(path) });
        }
        names.push(name.to_vec());
    }
    names.sort_unstable();
    Ok(names)
}

/// A file as an entry of that name, and, where it is one with a body, the open file; `None` for a socket, which no archive holds.
pub(crate) fn entry(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    path: &[u8],
    stat: &FileStat,
    ids: Ids<'_>,
    detail: Detail,
) -> io::Result<Option<(Entry, Option<File>)>> {
    let mut stat = *stat;
    let mut opened = None;
    let mut link = Vec::new();
    let kind = match kind_of(&stat) {
        SFlag::S_IFREG => {
            // What was a file may be a pipe by now, and must not hold the reader.
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let file = open_beneath(folder, Path::new(name), flags, 0).map_err(|error| error.errno)?;
            stat = fstat(file.as_raw_fd())?;
            if kind_of(&stat) != SFlag::S_IFREG {
                return Err(io::Error::other("it has become something else meanwhile"));
            }
            opened = Some(File::from(file));
            Kind::File
        }
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => {
            link = readlinkat(Some(folder.as_raw_fd()), name)?.into_vec();
            Kind::Symlink
        }
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFCHR | SFlag::S_IFBLK => Kind::Device {
            block: kind_of(&stat) == SFlag::S_IFBLK,
            major: u32::try_from(major(stat.st_rdev)).unwrap_or(u32::MAX),
            minor: u32::try_from(minor(stat.st_rdev)).unwrap_or(u32::MAX),
        },
        _ => return Ok(None),
    };
    let (uid, gid) = ids(stat.st_uid, stat.st_gid);
    let xattrs = match (detail, kind, &opened) {
        (Detail::Docker, _, Some(file)) => xattrs(file.as_fd())?,
        (Detail::Backup, _, Some(file)) => all_xattrs(file.as_fd())?,
        (Detail::Backup, Kind::Directory, None) => all_xattrs(open_folder(folder, name)?.as_fd())?,
        _ => Vec::new(),
    };
    let nanoseconds = match detail {
        Detail::Docker => 0,
        Detail::Backup => u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    let mut path = path.to_vec();
    if kind == Kind::Directory && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    let entry = Entry {
        kind,
        path,
        link,
        mode: stat.st_mode & 0o7777,
        uid,
        gid,
        mtime: (stat.st_mtime, nanoseconds),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        xattrs,
        sparse: None,
    };
    Ok(Some((entry, opened)))
}

fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in XATTRS {
        let value = xattr::get(file, name, XATTR_BYTES_MAX).map_err(|error| error.errno)?;
        found.extend(value.map(|value| (name.to_bytes().to_vec(), value)));
    }
    Ok(found)
}

/// Every attribute that can be put back.
fn all_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for name in xattr::list(file, XATTR_NAMES_BYTES_MAX).map_err(|error| error.errno)? {
        let Some(name) = kept_xattr(name.to_bytes()) else {
            continue;
        };
        // One that is removed meanwhile is not there.
        if let Some(value) = xattr::get(file, &name, XATTR_BYTES_MAX).map_err(|error| error.errno)? {
            bytes += name.as_bytes().len() + value.len();
            found.push((name.into_bytes(), value));
        }
    }
    if found.len() > XATTRS_MAX || bytes > XATTRS_BYTES_MAX {
        return Err(io::Error::other(
            "it has more extended attributes than an archive takes",
        ));
    }
    Ok(found)
}

/// An attribute's name as the kernel takes it, if it is one that is kept.
pub(crate) fn kept_xattr(name: &[u8]) -> Option<CString> {
    let is_kept =
        name == b"security.capability" || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    is_kept.then(|| CString::new(name).ok()).flatten()
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
