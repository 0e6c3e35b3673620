//! What an unpacked layer measures: two numbers, and one digest over everything that can be seen without reading content.
//!
//! Owns the walk and what goes into the digest. Refuses to judge. Invariant: the same tree measures the same wherever it lies, so a measure
//! taken before a layer is published tells later whether a file went, changed its size, its owner or its mode.
//!
//! ```text
//! per entry, folders' entries in the order of their names, the digest is over:
//!     path \0 mode uid gid links size mtime.s mtime.ns rdev \0 [ target of a link | attributes ] \n
//! ```
//! Left out are a folder's size and number of links, which are the file system's own, and the time of all that is no regular file: a folder
//! that the layer's tar does not name, and a whiteout, have the time at which they were made.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use kakoi_sys::path::{open_beneath, open_start};
use kakoi_sys::xattr;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, fstat, fstatat};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashing};
use crate::tree::{At, FileError};

/// Attributes that change what a file means and that unpacking sets.
const ATTRIBUTES: [&CStr; 2] = [c"security.capability", c"trusted.overlay.opaque"];
/// Longest of them: a capability is 24 bytes.
const ATTRIBUTE_BYTES_MAX: usize = 256;

/// What a tree measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeMeasure {
    /// Entries, the tree's own folder left out.
    pub(crate) entries: u64,
    /// Bytes of regular files, each counted once.
    pub(crate) bytes: u64,
    /// Over everything that the module's header draws.
    pub(crate) digest: Digest,
}

/// Measures a tree. Its own folder's mode and owner count.
pub(crate) fn measure_tree(root: &Path) -> Result<TreeMeasure, FileError> {
    measure(root).at("look at", root)
}

fn measure(root: &Path) -> io::Result<TreeMeasure> {
    let start = open_start(root).map_err(|error| error.errno)?;
    let mut walk = Walk {
        out: Hashing::new(io::sink()),
        entries: 0,
        bytes: 0,
        seen: BTreeSet::new(),
    };
    let own = fstat(start.as_raw_fd())?;
    writeln!(walk.out, "\0{:o} {} {}", own.st_mode, own.st_uid, own.st_gid)?;
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let at = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &path
        };
        let folder = open_beneath(start.as_fd(), at, flags, 0).map_err(|error| error.errno)?;
        for name in names(&folder)? {
            if walk.entry(&folder, &path, &name)? {
                folders.push(path.join(OsString::from_vec(name.into_bytes())));
            }
        }
    }
    Ok(TreeMeasure {
        entries: walk.entries,
        bytes: walk.bytes,
        digest: walk.out.finish().0,
    })
}

/// The names in a folder, in order.
fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut dir = Dir::from_fd(folder.try_clone()?.into_raw_fd())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

struct Walk {
    out: Hashing<io::Sink>,
    entries: u64,
    bytes: u64,
    /// Files with several names that were counted.
    seen: BTreeSet<(u64, u64)>,
}

impl Walk {
    /// Takes in one entry; tells whether it is a folder.
    fn entry(&mut self, folder: &OwnedFd, path: &Path, name: &CStr) -> io::Result<bool> {
        let stat = fstatat(Some(folder.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = stat.st_mode & libc::S_IFMT;
        let is_folder = kind == libc::S_IFDIR;
        self.entries += 1;
        self.out.write_all(path.as_os_str().as_bytes())?;
        self.out.write_all(b"/")?;
        self.out.write_all(name.to_bytes())?;
        let (links, size) = if is_folder {
            (0, 0)
        } else {
            (stat.st_nlink, stat.st_size)
        };
        let (seconds, nanoseconds) = match kind {
            libc::S_IFREG => (stat.st_mtime, stat.st_mtime_nsec),
            _ => (0, 0),
        };
        write!(
            self.out,
            "\0{:o} {} {} {links} {size} {seconds} {nanoseconds} {}\0",
            stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev
        )?;
        match kind {
            libc::S_IFLNK => {
                let target = readlinkat(Some(folder.as_raw_fd()), name)?;
                self.out.write_all(target.as_bytes())?;
            }
            libc::S_IFREG if stat.st_nlink < 2 || self.seen.insert((stat.st_dev, stat.st_ino)) => {
                self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
            _ => {}
        }
        self.attributes(folder, name, &stat)?;
        self.out.write_all(b"\n")?;
        Ok(is_folder)
    }

    /// Attributes that change what a file or folder means.
    fn attributes(&mut self, folder: &OwnedFd, name: &CStr, stat: &FileStat) -> io::Result<()> {
        let flags = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            libc::S_IFDIR => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            _ => return Ok(()),
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let file = open_beneath(folder.as_fd(), path, flags, 0).map_err(|error| error.errno)?;
        for attribute in ATTRIBUTES {
            let value = match xattr::get(file.as_fd(), attribute, ATTRIBUTE_BYTES_MAX) {
                Ok(value) => value,
                // A file system without attributes has none; whoever may not read them sees none.
                Err(error)
                    if matches!(
                        error.errno,
                        nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EPERM
                    ) =>
                {
                    None
                }
                Err(error) => return Err(error.errno.into()),
            };
            if let Some(value) = value {
                self.out.write_all(attribute.to_bytes())?;
                self.out.write_all(&value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree(at: &Path) {
        fs::create_dir_all(at.join("a/b")).expect("folders");
        fs::write(at.join("a/b/file"), b"content").expect("file");
        fs::write(at.join("a.x"), b"").expect("file");
        symlink("a/b", at.join("link")).expect("link");
        fs::hard_link(at.join("a/b/file"), at.join("again")).expect("link");
    }

    /// One row per change; whether it shows. Content is not looked at: what has its size and time is found by the diff id.
    #[test]
    fn every_change_shows() {
        type Change = fn(&Path);
        let rows: [(&str, bool, Change); 8] = [
            ("nothing", false, |_| {}),
            ("a file goes", true, |at| {
                fs::remove_file(at.join("a.x")).expect("gone")
            }),
            ("a file comes", true, |at| {
                fs::write(at.join("new"), b"").expect("file")
            }),
            ("a file is cut", true, |at| {
                fs::write(at.join("a/b/file"), b"cont").expect("cut")
            }),
            ("a mode", true, |at| {
                fs::set_permissions(at.join("a"), PermissionsExt::from_mode(0o700)).expect("mode");
            }),
            ("the root's mode", true, |at| {
                fs::set_permissions(at, PermissionsExt::from_mode(0o711)).expect("mode");
            }),
            ("a link's target", true, |at| {
                fs::remove_file(at.join("link")).expect("gone");
                symlink("a/c", at.join("link")).expect("link");
            }),
            ("content of the same size and time", false, |at| {
                let path = at.join("a/b/file");
                let time = fs::metadata(&path).expect("file").modified().expect("time");
                fs::write(&path, b"CONTENT").expect("file");
                File::options()
                    .write(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(time))
                    .expect("time");
            }),
        ];
        for (name, shows, change) in rows {
            let dir = tempfile::tempdir().expect("folder");
            let at = dir.path().join("tree");
            tree(&at);
            let before = measure_tree(&at).expect("measured");
            assert_eq!((before.entries, before.bytes), (6, 7));
            change(&at);
            let after = measure_tree(&at).expect("measured");
            assert_eq!(before != after, shows, "{name}");
        }
    }
}
