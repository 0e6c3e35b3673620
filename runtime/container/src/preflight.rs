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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root file system and, beside it, a folder of the host that must stay empty.
    struct Case(PathBuf);

    impl Case {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kakoi-preflight-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("rootfs")).expect("a folder");
            std::fs::create_dir_all(path.join("host")).expect("a folder");
            Self(path)
        }

        fn root(&self) -> PathBuf {
            self.0.join("rootfs")
        }

        fn check(&self, mounted: &[&str]) -> Result<OwnedFd, PreflightError> {
            let mounted: Vec<PathBuf> = mounted.iter().map(PathBuf::from).collect();
            check(&self.root(), &mounted, &[PathBuf::from("/dev/custom")])
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            let host = std::fs::read_dir(self.0.join("host")).map(Iterator::count);
            std::fs::remove_dir_all(&self.0).expect("removed");
            assert!(matches!(host, Ok(0)), "the host's folder was written to");
        }
    }

    fn refused(answer: Result<OwnedFd, PreflightError>, wanted: &str) {
        match answer {
            Err(PreflightError::Foreign { path, .. }) => assert_eq!(path, Path::new(wanted)),
            other => panic!("{wanted}: {other:?}"),
        }
    }

    #[test]
    fn an_honest_root_is_accepted() {
        let case = Case::new("honest");
        case.check(&[]).expect("an empty root");
        std::fs::create_dir_all(case.root().join("dev/pts")).expect("a folder");
        symlink("/proc/self/fd", case.root().join("dev/fd")).expect("a link");
        let root = case.check(&[]).expect("an ordinary /dev");
        make_cwd(&root, "/srv/app").expect("made");
        assert!(case.root().join("srv/app").is_dir());
    }

    #[test]
    fn cve_2026_41579_a_linked_dev_is_refused() {
        let case = Case::new("dev");
        symlink(case.0.join("host"), case.root().join("dev")).expect("a link");
        refused(case.check(&["/dev"]), "dev");
        refused(case.check(&[]), "dev");
    }

    #[test]
    fn cve_2025_52565_links_below_dev_are_refused_where_they_would_be_followed() {
        let case = Case::new("pts");
        std::fs::create_dir(case.root().join("dev")).expect("a folder");
        symlink(case.0.join("host"), case.root().join("dev/pts")).expect("a link");
        refused(case.check(&[]), "dev/pts");
        case.check(&["/dev"]).expect("hidden by the mount");
        std::fs::remove_file(case.root().join("dev/pts")).expect("removed");
        for node in ["null", "console", "custom"] {
            let path = case.root().join("dev").join(node);
            symlink(case.0.join("host/file"), &path).expect("a link");
            refused(case.check(&[]), &format!("dev/{node}"));
            std::fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn cve_2019_19921_a_false_proc_is_refused() {
        let case = Case::new("proc");
        symlink(case.0.join("host"), case.root().join("proc")).expect("a link");
        refused(case.check(&["/proc"]), "proc");
        std::fs::remove_file(case.root().join("proc")).expect("removed");
        std::fs::write(case.root().join("proc"), "").expect("a file");
        refused(case.check(&["/proc"]), "proc");
    }

    #[test]
    fn a_working_directory_is_made_inside() {
        let case = Case::new("cwd");
        symlink(case.0.join("host"), case.root().join("srv")).expect("a link");
        let root = case.check(&[]).expect("accepted");
        // As the container sees it the link leads to a path of its own root, which does not exist.
        assert!(make_cwd(&root, "/srv/app").is_err());
    }
}
