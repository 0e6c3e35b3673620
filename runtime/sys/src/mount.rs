//! Mounts as descriptors: the interface of Linux 5.2, which names a mount by what was opened instead of by a path that may have changed.
//!
//! Nothing here resolves a path of a container: sources and targets are descriptors that the caller opened safely (see `path`).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;

use crate::error::{CallError, Named, Result, checked, checked_fd};
use crate::namespace::{Kind, join};
use crate::path::{open_beneath, open_start};

/// Attributes of a mount (`MOUNT_ATTR_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Read-only.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-user-ID and file capabilities mean nothing.
    pub const NO_SUID: Self = Self(0x2);
    /// Device nodes do not open.
    pub const NO_DEVICES: Self = Self(0x4);
    /// Nothing can be executed.
    pub const NO_EXECUTE: Self = Self(0x8);
    /// Symbolic links are not followed (since Linux 5.10).
    pub const NO_SYMLINKS: Self = Self(0x0020_0000);

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a call concerns one mount or everything mounted beneath it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The one mount.
    One,
    /// The whole tree of mounts.
    Recursive,
}

impl Reach {
    const fn flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::Recursive => libc::AT_RECURSIVE as libc::c_uint,
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH as libc::c_uint;

/// Makes a detached copy of the mount that `place`, an open file or directory, lies on, with `place` as its root, close-on-exec. It is
/// attached nowhere and goes away with its descriptor. Needs CAP_SYS_ADMIN over the mount namespace.
pub fn clone_tree(place: BorrowedFd<'_>, reach: Reach) -> Result<OwnedFd> {
    const CLONE: libc::c_uint = 1;
    const CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
    let flags = CLONE | CLOEXEC | EMPTY_PATH | reach.flag();
    // SAFETY: the path is an empty terminated string; the rest are plain numbers.
    checked_fd("open_tree", unsafe {
        libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags)
    })
}

/// Makes a detached copy of one mount of another mount namespace, the one at `path` as a process there sees it, close-on-exec; no link is followed on
/// the way. A short-lived thread enters the namespace, so the caller never leaves its own. Needs CAP_SYS_ADMIN and CAP_SYS_CHROOT over both.
pub fn clone_from(namespace: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let clone = || {
        // Of its own: who shares root and working directory with other threads enters no mount namespace.
        nix::sched::unshare(CloneFlags::CLONE_FS).named("unshare")?;
        join(namespace, Kind::Mount)?;
        let root = open_start(Path::new("/"))?;
        let below = path.strip_prefix("/").unwrap_or(path);
        let place = open_beneath(root.as_fd(), below, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
        clone_tree(place.as_fd(), Reach::One)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("mntns".to_owned())
            .spawn_scoped(scope, clone)
            .map_err(|_| CallError {
                call: "clone",
                errno: Errno::EAGAIN,
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Attaches a detached mount on top of `target`, an open file or directory of the same kind.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 0x4;
    const TO_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are empty terminated strings; the rest are plain numbers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY_PATH | TO_EMPTY_PATH,
        )
    };
    checked("move_mount", done).map(drop)
}

/// Adds attributes to a mount (mount_setattr(2), since Linux 5.12).
pub fn add_attributes(mount: BorrowedFd<'_>, attributes: Attributes, reach: Reach) -> Result<()> {
    set_attributes(
        mount,
        MountAttributes {
            set: attributes.0,
            ..MountAttributes::default()
        },
        reach,
    )
}

/// Makes a tree of mounts private: nothing mounted elsewhere appears in it, and nothing mounted in it elsewhere.
pub fn make_private(mount: BorrowedFd<'_>, reach: Reach) -> Result<()> {
    set_attributes(
        mount,
        MountAttributes {
            propagation: libc::MS_PRIVATE,
            ..MountAttributes::default()
        },
        reach,
    )
}

/// Maps the ids of a detached mount as `user_namespace` does. Which file systems allow it depends on the kernel (ext4, xfs since 5.12,
/// overlayfs layers since 5.19, tmpfs since 6.3).
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, reach: Reach) -> Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    let attributes = MountAttributes {
        set: IDMAP,
        userns_fd: user_namespace.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    set_attributes(mount, attributes, reach)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: MountAttributes, reach: Reach) -> Result<()> {
    // SAFETY: the path is an empty terminated string; the structure outlives the call, and the size given is its own.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            EMPTY_PATH | reach.flag(),
            &raw const attributes,
            std::mem::size_of::<MountAttributes>(),
        )
    };
    checked("mount_setattr", done).map(drop)
}

/// A file system that is being set up.
#[derive(Debug)]
pub struct NewFilesystem {
    context: OwnedFd,
}

impl NewFilesystem {
    /// Begins one of a type (`tmpfs`, `overlay`, `proc` …).
    pub fn open(kind: &str) -> Result<Self> {
        const CLOEXEC: libc::c_uint = 1;
        let kind = terminated(kind.as_bytes(), "fsopen")?;
        // SAFETY: the type is a terminated string that outlives the call.
        let context = checked_fd("fsopen", unsafe {
            libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC)
        })?;
        Ok(Self { context })
    }

    /// Sets an option with a value. The kernel bounds the value to 255 bytes.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        const SET_STRING: libc::c_uint = 1;
        let (key, value) = (
            terminated(key.as_bytes(), "fsconfig")?,
            terminated(value.as_bytes(), "fsconfig")?,
        );
        self.configure(SET_STRING, Some(&key), Some(&value), 0)
    }

    /// Sets an option without a value.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        const SET_FLAG: libc::c_uint = 0;
        let key = terminated(key.as_bytes(), "fsconfig")?;
        self.configure(SET_FLAG, Some(&key), None, 0)
    }

    /// Sets an option to an open file or directory (overlayfs layers since Linux 6.13).
    pub fn set_descriptor(&self, key: &str, value: BorrowedFd<'_>) -> Result<()> {
        const SET_FD: libc::c_uint = 5;
        let key = terminated(key.as_bytes(), "fsconfig")?;
        self.configure(SET_FD, Some(&key), None, value.as_raw_fd())
    }

    /// Creates the file system and makes a detached mount of it, close-on-exec.
    pub fn mount(self, attributes: Attributes) -> Result<OwnedFd> {
        const CREATE: libc::c_uint = 6;
        const CLOEXEC: libc::c_uint = 1;
        self.configure(CREATE, None, None, 0)?;
        // SAFETY: takes and returns plain numbers.
        checked_fd("fsmount", unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.context.as_raw_fd(),
                CLOEXEC,
                attributes.0 as libc::c_uint,
            )
        })
    }

    fn configure(
        &self,
        command: libc::c_uint,
        key: Option<&CStr>,
        value: Option<&CStr>,
        auxiliary: libc::c_int,
    ) -> Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are null, where the command takes none, or terminated strings that outlive the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.context.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                auxiliary,
            )
        };
        checked("fsconfig", done).map(drop)
    }
}

fn terminated(bytes: &[u8], call: &'static str) -> Result<CString> {
    CString::new(bytes).map_err(|_| CallError {
        call,
        errno: Errno::EINVAL,
    })
}

/// Opens a path of the host as a place to clone from or to attach to, following no link in its last part.
pub fn open_place(path: &Path) -> Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).named("open")?;
    checked_fd("open", libc::c_long::from(fd))
}

/// Takes what is mounted at a path away from it; it lives on for whoever has files of it open.
pub fn detach(path: &Path) -> Result<()> {
    let path = terminated(path.as_os_str().as_bytes(), "umount2")?;
    nix::mount::umount2(
        path.as_c_str(),
        nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW,
    )
    .named("umount2")
}

/// Takes what is mounted at a path away from it; while somebody has files of it open, that is refused (EBUSY).
pub fn unmount(path: &Path) -> Result<()> {
    nix::mount::umount2(path, nix::mount::MntFlags::UMOUNT_NOFOLLOW).named("umount2")
}

/// Sets attributes of the mount at a path: those that are not given are taken away, times of access stay as they are. Works on every kernel, other
/// than [`add_attributes`]. Needs CAP_SYS_ADMIN over the mount namespace. Source: mount(2), MS_REMOUNT with MS_BIND.
pub fn remount(path: &Path, attributes: Attributes) -> Result<()> {
    use nix::mount::MsFlags;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    for (attribute, flag) in [
        (Attributes::READ_ONLY, MsFlags::MS_RDONLY),
        (Attributes::NO_SUID, MsFlags::MS_NOSUID),
        (Attributes::NO_DEVICES, MsFlags::MS_NODEV),
        (Attributes::NO_EXECUTE, MsFlags::MS_NOEXEC),
    ] {
        flags.set(flag, attributes.0 & attribute.0 != 0);
    }
    nix::mount::mount(None::<&Path>, path, None::<&Path>, flags, None::<&Path>).named("mount")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::fcntl::OFlag;

    use super::*;
    use crate::path::open_beneath;

    /// Whether detached mounts can be made; says so where they cannot.
    fn is_privileged() -> bool {
        let privileged = nix::unistd::geteuid().is_root();
        if !privileged {
            crate::required::leave_out("root", "mounts need root");
        }
        privileged
    }

    fn write_errno(mount: &OwnedFd, path: &str) -> Option<Errno> {
        open_beneath(mount.as_fd(), Path::new(path), OFlag::O_WRONLY, 0)
            .err()
            .map(|error| error.errno)
    }

    #[test]
    fn a_read_only_clone_refuses_writes_that_its_origin_takes() {
        if !is_privileged() {
            return;
        }
        let folder = tempfile::tempdir().expect("tmp is writable");
        std::fs::write(folder.path().join("file"), "x").expect("the folder is ours");
        let origin = open_place(folder.path()).expect("it exists");
        let clone = clone_tree(origin.as_fd(), Reach::One).expect("root may clone");
        assert_eq!(write_errno(&clone, "file"), None);
        add_attributes(
            clone.as_fd(),
            Attributes::READ_ONLY.with(Attributes::NO_DEVICES),
            Reach::Recursive,
        )
        .expect("it is ours");
        assert_eq!(write_errno(&clone, "file"), Some(Errno::EROFS));
        assert_eq!(write_errno(&origin, "file"), None);
    }

    #[test]
    fn a_new_file_system_is_detached_and_bounded() {
        if !is_privileged() {
            return;
        }
        let tmpfs = NewFilesystem::open("tmpfs").expect("it is built in");
        tmpfs.set("size", "64k").expect("tmpfs has a size");
        let unknown = tmpfs
            .set("no-such-option", "1")
            .expect_err("tmpfs has no such option");
        assert_eq!((unknown.call, unknown.errno), ("fsconfig", Errno::EINVAL));
        let mount = tmpfs.mount(Attributes::NO_EXECUTE).expect("root may mount");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        let file = open_beneath(mount.as_fd(), Path::new("f"), flags, 0o600).expect("it is writable");
        let mut file = std::fs::File::from(file);
        let full = std::io::Write::write_all(&mut file, &[0; 128 << 10]).expect_err("it is full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert!(NewFilesystem::open("no-such-fs").is_err());
    }

    #[test]
    fn options_come_and_go_and_what_is_busy_stays() {
        if !is_privileged() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().to_owned();
        let done = std::thread::spawn(move || {
            crate::namespace::unshare(&[Kind::Mount]).expect("root makes namespaces");
            let root = open_start(Path::new("/")).expect("it is there");
            make_private(root.as_fd(), Reach::Recursive).expect("it is ours now");
            let tmpfs = NewFilesystem::open("tmpfs").expect("it is built in");
            let mount = tmpfs.mount(Attributes::NONE).expect("root may mount");
            let target = open_place(&at).expect("it is there");
            attach(mount.as_fd(), target.as_fd()).expect("root may mount");
            drop((mount, target));
            let options = || {
                let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
                let line = table
                    .lines()
                    .find(|line| line.contains(at.to_str().expect("text")));
                let line = line.map(|line| line.split(' ').nth(5).map(str::to_owned));
                line.flatten().unwrap_or_default()
            };
            let before = options();
            let closed = Attributes::NO_SUID.with(Attributes::NO_EXECUTE);
            remount(&at, closed).expect("root may");
            assert!(
                options().contains("nosuid") && options().contains("noexec") && !options().contains("nodev")
            );
            remount(&at, Attributes::NONE).expect("root may");
            assert_eq!(options(), before);
            let open = std::fs::File::create(at.join("f")).expect("it is writable");
            assert_eq!(unmount(&at).expect_err("a file is open").errno, Errno::EBUSY);
            drop(open);
            unmount(&at).expect("nothing is open");
            assert_eq!(options(), "");
        });
        done.join().expect("no panic");
    }
}
