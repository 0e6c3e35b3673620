//! Copying trees whose content is hostile.
//!
//! Owns the copy of layers (with OCI and overlayfs whiteouts) and the filling of volumes. Invariant: no link of either tree is followed; each entry is
//! reached through its folder's descriptor.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use kakoi_sys::path::{open_beneath, open_in_root, open_start};
use kakoi_sys::xattr;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use thiserror::Error;

use crate::plan::RunPlan;

/// Deeper trees are refused: each level holds two descriptors.
const DEPTH_MAX: usize = 256;

/// Why a tree was not copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// One entry failed.
    #[error("copy entry {name:?}")]
    Entry {
        /// Its name in its folder.
        name: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree is nested too deeply.
    #[error("tree is nested deeper than {DEPTH_MAX} folders")]
    TooDeep,
    /// A start folder cannot be opened.
    #[error("open folder {path}")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How ids change on the way.
type Shift<'a> = &'a dyn Fn(u32, u32) -> (u32, u32);

/// Copies one layer over what lower layers left in `upper`.
pub(super) fn copy_layer(layer: &Path, upper: &Path, plan: &RunPlan) -> Result<(), CopyError> {
    let from = start(layer)?;
    let to = start(upper)?;
    let shift = |uid, gid| {
        (
            super::outside(&plan.id_mappings.uids, uid),
            super::outside(&plan.id_mappings.gids, gid),
        )
    };
    copy_folder(from.as_fd(), to.as_fd(), &shift, 0)
}

/// Copies what the image has at `target` into the opened `volume`, with the folder's own owner and mode, where the volume is an empty folder.
pub(super) fn fill(
    rootfs: &Path,
    target: &str,
    (volume, path): (BorrowedFd<'_>, &Path),
    shift: Shift<'_>,
) -> Result<(), CopyError> {
    let root = start(rootfs)?;
    let from = match open_in_root(
        root.as_fd(),
        Path::new(target),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        0,
    ) {
        Ok(from) => from,
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(error) => {
            return Err(CopyError::Open {
                path: target.into(),
                source: error.errno.into(),
            });
        }
    };
    let fail = |source| CopyError::Open {
        path: path.to_path_buf(),
        source,
    };
    if !kakoi_sys::path::is_folder(volume).map_err(|error| fail(error.errno.into()))? {
        return Ok(());
    }
    let place = at(volume, "");
    if fs::read_dir(&place).map_err(fail)?.next().is_some() {
        return Ok(());
    }
    copy_folder(from.as_fd(), volume, shift, 0)?;
    let meta = fs::metadata(at(from.as_fd(), "")).map_err(fail)?;
    finish(&place, &meta, shift).map_err(fail)
}

fn start(path: &Path) -> Result<OwnedFd, CopyError> {
    open_start(path).map_err(|error| CopyError::Open {
        path: path.to_path_buf(),
        source: error.errno.into(),
    })
}

/// A path that reaches `name` through its folder's descriptor.
fn at(folder: BorrowedFd<'_>, name: impl AsRef<Path>) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    path.push(name);
    path
}

fn copy_folder(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    shift: Shift<'_>,
    depth: usize,
) -> Result<(), CopyError> {
    if depth > DEPTH_MAX {
        return Err(CopyError::TooDeep);
    }
    let fail = |name: &OsStr, source: io::Error| CopyError::Entry {
        name: name.into(),
        source,
    };
    let entries = fs::read_dir(at(from, "")).map_err(|source| fail(OsStr::new("."), source))?;
    for entry in entries {
        let name = entry.map_err(|source| fail(OsStr::new("."), source))?.file_name();
        let target = at(to, &name);
        let meta = fs::symlink_metadata(at(from, &name)).map_err(|source| fail(&name, source))?;
        if is_whiteout(&meta) {
            remove(&target).map_err(|source| fail(&name, source))?;
        } else if meta.is_dir() {
            copy_subfolder(from, to, &name, &meta, shift, depth)?;
        } else {
            remove(&target).map_err(|source| fail(&name, source))?;
            copy_leaf(from, &name, &target, &meta, shift).map_err(|source| fail(&name, source))?;
        }
    }
    Ok(())
}

fn copy_subfolder(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    meta: &fs::Metadata,
    shift: Shift<'_>,
    depth: usize,
) -> Result<(), CopyError> {
    let fail = |source: io::Error| CopyError::Entry {
        name: name.into(),
        source,
    };
    let target = at(to, name);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let open =
        |folder| open_beneath(folder, Path::new(name), flags, 0).map_err(|error| fail(error.errno.into()));
    let source = open(from)?;
    let is_there = matches!(fs::symlink_metadata(&target), Ok(existing) if existing.is_dir());
    // What an image removed together with its folder must not come back.
    if !is_there || is_opaque(source.as_fd()).map_err(fail)? {
        remove(&target).map_err(fail)?;
        fs::create_dir(&target).map_err(fail)?;
    }
    copy_folder(source.as_fd(), open(to)?.as_fd(), shift, depth + 1)?;
    finish(&target, meta, shift).map_err(fail)
}

/// overlayfs marks a removed entry by a character device 0:0.
fn is_whiteout(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// overlayfs marks a folder that hides those of lower layers by an attribute.
fn is_opaque(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let value =
        xattr::get(folder, c"trusted.overlay.opaque", 8).map_err(|error| io::Error::from(error.errno))?;
    Ok(value.as_deref() == Some(b"y"))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn copy_leaf(
    from: BorrowedFd<'_>,
    name: &OsStr,
    target: &Path,
    meta: &fs::Metadata,
    shift: Shift<'_>,
) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(at(from, name))?, target)?;
        let (uid, gid) = shift(meta.uid(), meta.gid());
        return lchown(target, Some(uid), Some(gid));
    }
    if kind.is_file() {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        let source =
            open_beneath(from, Path::new(name), flags, 0).map_err(|error| io::Error::from(error.errno))?;
        let mut options = fs::OpenOptions::new();
        let mut copy = options.write(true).create_new(true).open(target)?;
        let mut source = fs::File::from(source);
        io::copy(&mut source, &mut copy)?;
        finish(target, meta, shift)?;
        // After the owner, whose change clears them.
        let capability = xattr::get(source.as_fd(), c"security.capability", 64);
        if let Some(capability) = capability.map_err(|error| io::Error::from(error.errno))? {
            xattr::set(copy.as_fd(), c"security.capability", &capability)
                .map_err(|error| io::Error::from(error.errno))?;
        }
        return Ok(());
    } else {
        let special = match () {
            () if kind.is_fifo() => SFlag::S_IFIFO,
            () if kind.is_char_device() => SFlag::S_IFCHR,
            () if kind.is_block_device() => SFlag::S_IFBLK,
            // A socket without its listener is of no use.
            () => return Ok(()),
        };
        mknod(target, special, Mode::from_bits_truncate(0o600), meta.rdev())?;
    }
    finish(target, meta, shift)
}

/// Owner before mode: chown clears the set-user-ID bit.
fn finish(target: &Path, meta: &fs::Metadata, shift: Shift<'_>) -> io::Result<()> {
    let (uid, gid) = shift(meta.uid(), meta.gid());
    std::os::unix::fs::chown(target, Some(uid), Some(gid))?;
    fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    let time = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    utimensat(None, target, &time, &time, UtimensatFlags::FollowSymlink)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_takes_over_the_image_once_and_links_stay_inside() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (rootfs, volume, outside) = (
            dir.path().join("root"),
            dir.path().join("vol"),
            dir.path().join("host"),
        );
        for folder in [&rootfs.join("data/sub"), &volume, &outside] {
            fs::create_dir_all(folder).expect("folder");
        }
        fs::write(outside.join("secret"), "host").expect("file");
        fs::write(rootfs.join("data/sub/file"), "image").expect("file");
        symlink(&outside, rootfs.join("data/link")).expect("link");
        symlink(&outside, rootfs.join("escape")).expect("link");

        let fill = |target: &str, volume: &Path| {
            let opened = start(volume).expect("it is there");
            super::fill(&rootfs, target, (opened.as_fd(), volume), &|uid, gid| (uid, gid))
        };
        fill("/data", &volume).expect("fill");
        assert_eq!(
            fs::read_to_string(volume.join("sub/file")).expect("copied"),
            "image"
        );
        assert!(
            fs::symlink_metadata(volume.join("link"))
                .expect("copied")
                .is_symlink()
        );

        fs::write(volume.join("sub/file"), "kept").expect("write");
        fill("/data", &volume).expect("fill again");
        assert_eq!(fs::read_to_string(volume.join("sub/file")).expect("kept"), "kept");

        let empty = dir.path().join("empty");
        fs::create_dir(&empty).expect("folder");
        fill("/escape", &empty).expect("a link out of the root leads nowhere");
        assert_eq!(fs::read_dir(&empty).expect("readable").count(), 0);
    }

    #[test]
    fn what_layers_hide_stays_hidden_in_a_copy() {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out("root", "what_layers_hide_stays_hidden_in_a_copy: needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("temporary folder");
        let (base, top, merged) = (
            dir.path().join("base"),
            dir.path().join("top"),
            dir.path().join("merged"),
        );
        for folder in [
            base.join("opaque"),
            base.join("plain"),
            top.join("opaque"),
            top.join("plain"),
            merged.clone(),
        ] {
            fs::create_dir_all(folder).expect("folder");
        }
        for file in ["opaque/old", "plain/old", "gone"] {
            fs::write(base.join(file), "old").expect("file");
        }
        fs::write(top.join("opaque/new"), "new").expect("file");
        mknod(&top.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).expect("whiteout");
        let opaque = fs::File::open(top.join("opaque")).expect("folder");
        xattr::set(opaque.as_fd(), c"trusted.overlay.opaque", b"y").expect("opaque");
        let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let program = fs::File::open(top.join("opaque/new")).expect("file");
        xattr::set(program.as_fd(), c"security.capability", capability).expect("capability");
        for layer in [&base, &top] {
            let (from, to) = (start(layer).expect("start"), start(&merged).expect("start"));
            copy_folder(from.as_fd(), to.as_fd(), &|uid, gid| (uid, gid), 0).expect("copied");
        }
        assert!(merged.join("plain/old").exists() && !merged.join("opaque/old").exists());
        assert!(!merged.join("gone").exists());
        let copy = fs::File::open(merged.join("opaque/new")).expect("copied");
        let kept = xattr::get(copy.as_fd(), c"security.capability", 64).expect("attribute");
        assert_eq!(kept.as_deref(), Some(capability));
    }
}
