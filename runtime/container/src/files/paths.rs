//! A client's path in the container's root.
//!
//! Owns Docker's rules for it: the way is followed through links as a process inside would, the last part is not, unless a slash or a dot
//! follows it. Runs after the root was changed: a path that the kernel tells is one from the container's root.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use kakoi_sys::path::open_in_root;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::view::Root;
use super::words::{Answer, Failure, PathStat};

/// Longest path: PATH_MAX without its NUL.
const PATH_BYTES_MAX: usize = 4095;
/// Most links that a link's end is looked for through; the kernel's own number.
const LINKS_MAX: u32 = 40;

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// The folder that it lies in.
    pub folder: OwnedFd,
    /// Its name there; `.` for the folder itself.
    pub name: OsString,
    /// What it is called in an archive.
    pub archive_name: Vec<u8>,
    /// What it is.
    pub stat: PathStat,
}

fn missing(path: &str) -> Answer {
    Answer::failed(Failure::Missing, format!("Could not find the file {path}"))
}

fn as_answer(path: &str, errno: Errno) -> Answer {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => missing(path),
        Errno::ELOOP => Answer::failed(Failure::Refused, format!("too many links on the way to {path}")),
        errno => Answer::failed(Failure::Refused, format!("{path}: {errno}")),
    }
}

fn check(path: &str) -> Result<(), Answer> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(Answer::failed(
            Failure::Refused,
            "the path is too long or holds a NUL".to_owned(),
        ));
    }
    Ok(())
}

/// Looks for what a path leads to.
pub(super) fn find(root: &Root, path: &str) -> Result<Found, Answer> {
    check(path)?;
    let ends_open = path.ends_with('/') || path.ends_with("/.") || path == ".";
    let clean = clean(path);
    let as_root = clean == Path::new("/");
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let open = |path: &Path| open_in_root(root.as_fd(), path, flags, 0).map_err(|error| error.errno);
    let (folder, name) = if as_root || ends_open {
        let opened = open(&clean).map_err(|errno| match errno {
            Errno::ENOTDIR => Answer::failed(Failure::NotFolder, format!("{path}: not a directory")),
            errno => as_answer(path, errno),
        })?;
        (opened, OsString::from("."))
    } else {
        let above = clean.parent().unwrap_or(Path::new("/"));
        let opened = open(above).map_err(|errno| as_answer(path, errno))?;
        (opened, clean.file_name().unwrap_or_default().to_owned())
    };
    let stat = fstatat(
        Some(folder.as_raw_fd()),
        name.as_os_str(),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .map_err(|errno| as_answer(path, errno))?;
    // A trailing slash is no part of the name, a trailing dot is all of it.
    let base = match clean.file_name() {
        _ if path.ends_with("/.") || path == "." => OsStr::new("."),
        Some(base) => base,
        None => OsStr::new("/"),
    };
    let archive_name = base.as_bytes().to_vec();
    let link_target = match kind_of(&stat) {
        SFlag::S_IFLNK => link_end(root, folder.as_fd(), &name),
        _ => String::new(),
    };
    let stat = PathStat {
        name: base.to_string_lossy().into_owned(),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec,
        link_target,
    };
    Ok(Found {
        folder,
        name,
        archive_name,
        stat,
    })
}

/// Looks for the folder that an archive is to be put into; answers its path without links.
pub(super) fn folder(root: &Root, path: &str) -> Result<PathBuf, Answer> {
    check(path)?;
    let clean = clean(path);
    let open = |flags| open_in_root(root.as_fd(), &clean, flags, 0).map_err(|error| error.errno);
    let opened = match open(OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Err(Errno::ENOTDIR) if open(OFlag::O_PATH).is_ok() => {
            let said = "extraction point is not a directory".to_owned();
            return Err(Answer::failed(Failure::NotFolder, said));
        }
        opened => opened.map_err(|errno| as_answer(path, errno))?,
    };
    let is_read_only = fstatvfs(&opened).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
    if is_read_only {
        let said = match root.is_read_only {
            true if !root.mounts.iter().any(|mount| clean.starts_with(mount)) => {
                "container rootfs is marked read-only"
            }
            _ => "mounted volume is marked read-only",
        };
        return Err(Answer::failed(Failure::ReadOnly, said.to_owned()));
    }
    root.path_of(opened.as_fd())
        .ok_or_else(|| Answer::failed(Failure::Refused, format!("{path}: the path is too long")))
}

/// The path by its text alone, from the root, as Docker cleans it.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Where a link leads in the end, also where nothing is there.
fn link_end(root: &Root, folder: BorrowedFd<'_>, name: &OsStr) -> String {
    let Some(mut here) = root.path_of(folder) else {
        return String::new();
    };
    here.push(name);
    for _ in 0..LINKS_MAX {
        if let Ok(opened) = open_in_root(root.as_fd(), &here, OFlag::O_PATH, 0)
            && let Some(path) = root.path_of(opened.as_fd())
        {
            return path.to_string_lossy().into_owned();
        }
        // It dangles: one step by its text, and on from there.
        let above = here.parent().unwrap_or(Path::new("/")).to_owned();
        let Ok(folder) = open_in_root(root.as_fd(), &above, OFlag::O_PATH | OFlag::O_DIRECTORY, 0) else {
            break;
        };
        let Ok(target) = readlinkat(Some(folder.as_raw_fd()), here.file_name().unwrap_or_default()) else {
            break;
        };
        let joined = above.join(PathBuf::from(OsString::from_vec(target.into_vec())));
        here = clean(&joined.to_string_lossy());
    }
    here.to_string_lossy().into_owned()
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The mode in the bits of Go's `io/fs.FileMode`.
fn go_mode(mode: u32) -> u32 {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHARACTER: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => DIRECTORY,
        SFlag::S_IFLNK => SYMLINK,
        SFlag::S_IFIFO => PIPE,
        SFlag::S_IFSOCK => SOCKET,
        SFlag::S_IFCHR => DEVICE | CHARACTER,
        SFlag::S_IFBLK => DEVICE,
        _ => 0,
    };
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(kind | mode & 0o777, |bits, (_, go)| bits | go)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trap 36 of the Docker API: clients read these as Go's.
    #[test]
    fn modes_are_gos() {
        for (mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 1 << 31 | 0o755),
            (0o120_777, 1 << 27 | 0o777),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o104_755, 1 << 23 | 0o755),
            (0o102_755, 1 << 22 | 0o755),
            (0o020_666, 1 << 26 | 1 << 21 | 0o666),
            (0o060_660, 1 << 26 | 0o660),
            (0o010_600, 1 << 25 | 0o600),
            (0o140_600, 1 << 24 | 0o600),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }

    #[test]
    fn paths_are_cleaned_by_their_text() {
        for (path, wanted) in [
            ("/a/b", "/a/b"),
            ("a/b/", "/a/b"),
            ("/a/./../b/.", "/b"),
            ("../../x", "/x"),
            ("", "/"),
            (".", "/"),
        ] {
            assert_eq!(clean(path), Path::new(wanted), "{path}");
        }
    }
}
