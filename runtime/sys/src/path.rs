//! Paths in foreign trees, opened with a rule on how far they may lead (openat2(2), since Linux 5.6).
//!
//! A tree that a container writes to is hostile: every open in it goes through [`open_beneath`] or [`open_in_root`].

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{CallError, Named, Result, checked_fd};

/// Makes a file or folder its caller's alone, with `mode`. It acts on what it opened, so that no link in its place leads it elsewhere.
///
/// # Errors
/// `path` is a link, cannot be opened for reading, or is not the caller's to change.
pub fn own(path: &Path, mode: u32) -> std::io::Result<()> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    fchown(&opened, Some(user.as_raw()), Some(group.as_raw()))?;
    opened.set_permissions(PermissionsExt::from_mode(mode))
}

/// Reads a regular text file that every user of the host may read, of at most `bytes_max` bytes, by an absolute path that leads over no link.
///
/// # Errors
/// There is no such file.
pub fn read_public_file(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let below = path.strip_prefix("/").map_err(|_| none())?;
    let root = open_start(Path::new("/")).map_err(|error| error.errno)?;
    // A pipe must not hold its reader.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = open_beneath(root.as_fd(), below, flags, 0).map_err(|error| error.errno)?;
    let file = std::fs::File::from(opened);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.mode() & 0o004 == 0 || meta.len() > bytes_max {
        return Err(none());
    }
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// How a path may be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// No link of any kind may be followed, and nothing above the start may be reached.
    BeneathNoLinks,
    /// Links are followed as a process whose root is the start would: `..` and absolute targets stay inside.
    InRoot,
}

impl Resolve {
    const fn bits(self) -> u64 {
        match self {
            Self::BeneathNoLinks => {
                libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS
            }
            Self::InRoot => libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
        }
    }
}

/// Opens `path` from `start`, close-on-exec, following no link and leaving `start` by no way.
pub fn open_beneath(start: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    open(start, path, flags, mode, Resolve::BeneathNoLinks)
}

/// Opens `path` as a process whose root is `start` would, close-on-exec.
pub fn open_in_root(start: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    open(start, path, flags, mode, Resolve::InRoot)
}

/// Opens `path` from `start`, close-on-exec, by the given rule. The mode is used only where `flags` can create.
pub fn open(
    start: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: u32,
    resolve: Resolve,
) -> Result<OwnedFd> {
    let invalid = |_| CallError {
        call: "openat2",
        errno: Errno::EINVAL,
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(invalid)?;
    // SAFETY: open_how is a structure of integers, for which zero is a value; it is not constructible otherwise.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.mode = if flags.intersects(OFlag::O_CREAT | OFlag::O_TMPFILE) {
        u64::from(mode)
    } else {
        0
    };
    how.resolve = resolve.bits();
    // The kernel answers EAGAIN where a rename raced with `..`; a bounded number of tries keeps a hostile renamer from holding us.
    for _ in 0..128 {
        // SAFETY: path and how outlive the call, and the size given is how's own.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                start.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                std::mem::size_of::<libc::open_how>(),
            )
        };
        match checked_fd("openat2", fd) {
            Err(CallError {
                errno: Errno::EAGAIN, ..
            }) => {}
            done => return done,
        }
    }
    Err(CallError {
        call: "openat2",
        errno: Errno::EAGAIN,
    })
}

/// Opens a directory of the host as a start for other opens (`O_PATH`).
pub fn open_start(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).named("open")?;
    checked_fd("open", libc::c_long::from(fd))
}

/// Makes the folders of an absolute path that are missing, each within the one before it and no link followed; what is there, a file too, stays. `ELOOP`
/// where a link is on the way. The mode is subject to the caller's mask.
pub fn make_missing_folders(path: &Path, mode: u32) -> Result<()> {
    use std::path::Component;
    let invalid = CallError {
        call: "mkdirat",
        errno: Errno::EINVAL,
    };
    let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
    let mut folder = open_start(Path::new("/"))?;
    let mut parts = path.components().skip(1).peekable();
    if !path.is_absolute() {
        return Err(invalid);
    }
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(invalid);
        };
        let name = Path::new(name);
        // The last part may be a file; those before it are passed through.
        let flags = match parts.peek() {
            Some(_) => OFlag::O_PATH | OFlag::O_DIRECTORY,
            None => OFlag::O_PATH,
        };
        let opened = match open_beneath(folder.as_fd(), name, flags, 0) {
            Err(CallError {
                errno: Errno::ENOENT, ..
            }) => {
                match nix::sys::stat::mkdirat(Some(folder.as_raw_fd()), name, mode) {
                    // Somebody else may have made it meanwhile; what it is, is looked at next.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => {
                        return Err(CallError {
                            call: "mkdirat",
                            errno,
                        });
                    }
                }
                open_beneath(folder.as_fd(), name, flags, 0)
            }
            opened => opened,
        };
        folder = opened?;
    }
    Ok(())
}

/// Whether an open file is a directory.
pub fn is_folder(file: BorrowedFd<'_>) -> Result<bool> {
    let status = nix::sys::stat::fstat(file.as_raw_fd()).named("fstat")?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// A file opened as a place (`O_PATH`), with what landlock needs to know about it.
#[derive(Debug)]
pub enum PathFile {
    /// A directory.
    Directory(OwnedFd),
    /// Anything else.
    Other(OwnedFd),
}

/// Opens a file by its absolute path as a place, close-on-exec, following no link: `ELOOP` where one is on the way.
pub fn open_path_file(path: &Path) -> Result<PathFile> {
    let root = open_start(Path::new("/"))?;
    let fd = match path.strip_prefix("/") {
        Ok(below) if below.as_os_str().is_empty() => root,
        Ok(below) => open_beneath(root.as_fd(), below, OFlag::O_PATH, 0)?,
        Err(_) => {
            return Err(CallError {
                call: "openat2",
                errno: Errno::EINVAL,
            });
        }
    };
    Ok(if is_folder(fd.as_fd())? {
        PathFile::Directory(fd)
    } else {
        PathFile::Other(fd)
    })
}

/// The file systems whose identity security rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemKind {
    /// procfs.
    Proc,
    /// Version 1 control groups.
    Cgroup1,
    /// Version 2 control groups.
    Cgroup2,
    /// tmpfs, where version 1 hierarchies are usually mounted.
    Tmpfs,
    /// overlayfs.
    Overlay,
    /// Any other, by its magic number.
    Other(i64),
}

/// Tells what file system an open file is on, so that a false `/proc` is noticed before something is written to it.
pub fn filesystem_kind(file: BorrowedFd<'_>) -> Result<FilesystemKind> {
    let statistics = nix::sys::statfs::fstatfs(file).named("fstatfs")?;
    Ok(match statistics.filesystem_type().0 as i64 {
        0x9fa0 => FilesystemKind::Proc,
        0x0027_e0eb => FilesystemKind::Cgroup1,
        0x6367_7270 => FilesystemKind::Cgroup2,
        0x0102_1994 => FilesystemKind::Tmpfs,
        0x794c_7630 => FilesystemKind::Overlay,
        other => FilesystemKind::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().expect("tmp is writable");
        std::fs::create_dir(tree.path().join("etc")).expect("the folder is new");
        std::fs::write(tree.path().join("etc/passwd"), "inside").expect("the folder is ours");
        for (link, target) in [
            ("abs", "/etc/passwd"),
            ("up", "../../../../etc/passwd"),
            ("magic", "/proc/self/exe"),
        ] {
            std::os::unix::fs::symlink(target, tree.path().join(link)).expect("the name is new");
        }
        tree
    }

    fn content(fd: OwnedFd) -> String {
        std::io::read_to_string(std::fs::File::from(fd)).expect("it is a text file")
    }

    #[test]
    fn links_stay_inside_the_root() {
        let tree = tree();
        let start = open_start(tree.path()).expect("it exists");
        for path in ["/etc/passwd", "abs", "up", "../../etc/passwd"] {
            let fd = open_in_root(start.as_fd(), Path::new(path), OFlag::O_RDONLY, 0).expect(path);
            assert_eq!(content(fd), "inside", "{path}");
        }
        assert!(open_in_root(start.as_fd(), Path::new("magic"), OFlag::O_RDONLY, 0).is_err());
    }

    #[test]
    fn beneath_follows_no_link_and_never_leaves() {
        let tree = tree();
        let start = open_start(tree.path()).expect("it exists");
        let open = |path| open_beneath(start.as_fd(), Path::new(path), OFlag::O_RDONLY, 0);
        assert_eq!(content(open("etc/passwd").expect("no link on the way")), "inside");
        for (path, errno) in [
            ("abs", Errno::ELOOP),
            ("up", Errno::ELOOP),
            ("../etc/passwd", Errno::EXDEV),
            ("/etc/passwd", Errno::EXDEV),
        ] {
            assert_eq!(open(path).map(|_| ()).map_err(|e| e.errno), Err(errno), "{path}");
        }
    }

    #[test]
    fn missing_folders_are_made_behind_no_link() {
        let tree = tree();
        let outside = tempfile::tempdir().expect("tmp is writable");
        std::os::unix::fs::symlink(outside.path(), tree.path().join("out")).expect("the name is new");
        let real = std::fs::canonicalize(tree.path()).expect("it exists");
        let make = |path: &str| make_missing_folders(&real.join(path), 0o755).map_err(|error| error.errno);
        assert_eq!(make("a/b/c"), Ok(()));
        assert_eq!(make("a/b/c"), Ok(()), "what is there stays");
        assert_eq!(make("a/b/d"), Ok(()));
        assert!(real.join("a/b/d").is_dir());
        assert_eq!(make("etc/passwd"), Ok(()), "a file too");
        assert_eq!(make("etc/passwd/x"), Err(Errno::ENOTDIR));
        assert_eq!(make("out/x"), Err(Errno::ELOOP));
        assert_eq!(make("out"), Err(Errno::ELOOP));
        assert_eq!(make("a/../x"), Err(Errno::EINVAL));
        let relative = make_missing_folders(Path::new("a"), 0o755).map_err(|error| error.errno);
        assert_eq!(relative, Err(Errno::EINVAL));
        assert_eq!(std::fs::read_dir(outside.path()).expect("it is there").count(), 0);
        assert!(!real.join("x").exists());
    }

    #[test]
    fn a_real_proc_is_told_from_a_false_one() {
        let real = open_start(Path::new("/proc")).expect("proc is mounted");
        assert_eq!(filesystem_kind(real.as_fd()), Ok(FilesystemKind::Proc));
        let tree = tree();
        let tree = open_start(tree.path()).expect("it exists");
        assert_ne!(filesystem_kind(tree.as_fd()), Ok(FilesystemKind::Proc));
    }
}
