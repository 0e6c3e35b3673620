//! Paths in layers, as overlayfs would show them.
//!
//! Owns the way through merged folders: whiteouts, opaque folders, links. Layers are untrusted, and one of them may be a container's writable one,
//! which can change meanwhile: every step is taken through a descriptor with no link followed by the kernel; links are followed here, by
//! their text, within the layers.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kakoi_sys::CallError;
use kakoi_sys::path::{open_beneath, open_start};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{SFlag, fstat, fstatat};

/// Most links on the way to a file; the kernel's own number.
const LINKS_MAX: u32 = 40;

/// What a name is in a merged folder.
enum Seen {
    Nothing,
    /// The folders that merge here, the topmost first.
    Folder(Vec<OwnedFd>),
    Link(Vec<u8>),
    /// The folder that the file lies in.
    File(OwnedFd),
}

/// Where a path leads.
enum Way {
    /// To nothing; so far without links, and what of the path is left from there on.
    Nothing(PathBuf),
    /// To a folder.
    Folder(PathBuf),
    /// To something else, in this folder under that name; the path again, without links.
    File(OwnedFd, PathBuf),
}

/// Follows a path as overlayfs would show it, links within the root.
fn follow(layers: &[PathBuf], path: &Path) -> io::Result<Way> {
    let roots = || {
        let open = |layer: &PathBuf| open_start(layer).map_err(io_error);
        layers.iter().map(open).collect::<io::Result<Vec<_>>>()
    };
    let mut pending: Vec<Vec<u8>> = parts(path.as_os_str().as_bytes());
    // The way so far without links, and the folders at each of its steps; ".." goes a step back.
    let mut steps: Vec<Vec<OwnedFd>> = vec![roots()?];
    let mut real = PathBuf::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        let name = OsStr::from_bytes(&part);
        if part == b".." {
            if steps.len() > 1 {
                steps.pop();
                real.pop();
            }
            continue;
        }
        let here = steps.last().map_or(&[][..], Vec::as_slice);
        match look(here, name)? {
            Seen::Nothing => {
                real.push(name);
                return Ok(Way::Nothing(onward(real, pending)));
            }
            Seen::Folder(folders) => {
                real.push(name);
                steps.push(folders);
            }
            Seen::Link(target) => {
                links += 1;
                if links > LINKS_MAX || pending.len() > LINKS_MAX as usize * 64 {
                    return Err(Errno::ELOOP.into());
                }
                if target.first() == Some(&b'/') {
                    steps.truncate(1);
                    real = PathBuf::new();
                }
                pending.extend(parts(&target));
            }
            Seen::File(folder) => {
                real.push(name);
                if !pending.is_empty() {
                    return Ok(Way::Nothing(onward(real, pending)));
                }
                return Ok(Way::File(folder, real));
            }
        }
    }
    Ok(Way::Folder(real))
}

/// The parts of a path that mean something, the first one last.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// A path with the rest of the way added as it is written: there is nothing to look at.
fn onward(mut real: PathBuf, mut pending: Vec<Vec<u8>>) -> PathBuf {
    while let Some(part) = pending.pop() {
        if part == b".." {
            real.pop();
        } else {
            real.push(OsStr::from_bytes(&part));
        }
    }
    real
}

/// Opens a regular file as overlayfs would show it, links followed within the root.
pub(crate) fn open_file_in(layers: &[PathBuf], path: &Path) -> io::Result<Option<File>> {
    match follow(layers, path)? {
        Way::Nothing(_) => Ok(None),
        Way::File(folder, real) => open_file(&folder, real.file_name().unwrap_or_default()).map(Some),
        // The path ends at a folder.
        Way::Folder(_) => Err(Errno::EISDIR.into()),
    }
}

/// The path to which `path` leads in layers, **the topmost first**, by the links in them: absolute, without links and `..`. What is missing is
/// taken as it is written.
///
/// # Errors
/// Links in circles, or a layer that cannot be read.
pub fn real_path(layers: &[PathBuf], path: &Path) -> io::Result<PathBuf> {
    let (Way::Nothing(real) | Way::Folder(real) | Way::File(_, real)) = follow(layers, path)?;
    Ok(Path::new("/").join(real))
}

/// Looks a name up in folders that merge.
fn look(folders: &[OwnedFd], name: &OsStr) -> io::Result<Seen> {
    let mut merged = Vec::new();
    for folder in folders {
        let found = match fstatat(Some(folder.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let below = open_beneath(folder.as_fd(), Path::new(name), flags, 0).map_err(io_error)?;
            let opaque =
                kakoi_sys::xattr::get(below.as_fd(), c"trusted.overlay.opaque", 8).map_err(io_error)?;
            merged.push(below);
            if opaque.as_deref() == Some(b"y") {
                break;
            }
            continue;
        }
        // A whiteout hides what is below, and so does any other thing that is no folder.
        if !merged.is_empty() || (kind == SFlag::S_IFCHR && found.st_rdev == 0) {
            break;
        }
        if kind == SFlag::S_IFLNK {
            let target = readlinkat(Some(folder.as_raw_fd()), name)?;
            return Ok(Seen::Link(target.as_bytes().to_vec()));
        }
        return Ok(Seen::File(folder.try_clone()?));
    }
    Ok(if merged.is_empty() {
        Seen::Nothing
    } else {
        Seen::Folder(merged)
    })
}

/// Opens a regular file and nothing else: a pipe would hold us up, a device could do anything.
fn open_file(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    // Looked at through a handle first, since opening some devices has effects.
    let handle = open_beneath(
        folder.as_fd(),
        Path::new(name),
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        0,
    )
    .map_err(io_error)?;
    let is_file = |fd: &OwnedFd| -> io::Result<bool> {
        let kind = SFlag::from_bits_truncate(fstat(fd.as_raw_fd())?.st_mode & SFlag::S_IFMT.bits());
        Ok(kind == SFlag::S_IFREG)
    };
    if !is_file(&handle)? {
        return Err(Errno::EINVAL.into());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = open_beneath(folder.as_fd(), Path::new(name), flags, 0).map_err(io_error)?;
    // Whoever writes the layer may have put something else there in between.
    if !is_file(&file)? {
        return Err(Errno::EINVAL.into());
    }
    Ok(File::from(file))
}

fn io_error(error: CallError) -> io::Error {
    error.errno.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_they_lead_in_the_image() {
        let dir = tempfile::tempdir().expect("a folder");
        let (base, top) = (dir.path().join("base"), dir.path().join("top"));
        for folder in ["run", "usr/lib/deep", "var/lib", "etc"] {
            fs::create_dir_all(base.join(folder)).expect("folder");
        }
        fs::create_dir_all(top.join("srv/real")).expect("folder");
        fs::write(base.join("etc/file"), "x").expect("file");
        symlink("/run", base.join("var/run")).expect("link");
        symlink("usr/lib", base.join("lib")).expect("link");
        symlink("../../../../etc/shadow", base.join("var/up")).expect("link");
        symlink("loop", base.join("loop")).expect("link");
        symlink("var/run", top.join("again")).expect("link");
        symlink("../../srv/real", base.join("var/lib/data")).expect("link");
        let layers = [top, base];
        let real = |path: &str| real_path(&layers, Path::new(path)).map(|real| real.display().to_string());
        for (path, wanted) in [
            ("/", "/"),
            ("/var/run", "/run"),
            ("/var/run/app/x", "/run/app/x"),
            ("/again/x", "/run/x"),
            ("/lib/deep", "/usr/lib/deep"),
            ("/var/lib/data/sub", "/srv/real/sub"),
            ("/var/up", "/etc/shadow"),
            ("/etc/file", "/etc/file"),
            ("/no/such/../thing", "/no/thing"),
        ] {
            assert_eq!(real(path).expect("resolved"), wanted, "{path}");
        }
        assert!(real("/loop").is_err());
    }
}
