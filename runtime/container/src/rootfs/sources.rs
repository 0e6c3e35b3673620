//! The sources of bind mounts: opened once, shown to libcontainer at a place that nobody else can reach.
//!
//! Owns the way from a source's path to a mount of it. libcontainer resolves a source's path again in its own process, and what an app may
//! write to can have become a link by then, or since the container was last up (CVE-2021-30465). So each source is opened part by part with
//! no link followed, and the very thing that was opened is cloned to a folder of the shim's own mount namespace. Invariant: what a container
//! mounts lies at the path that the owner's ceiling was asked about.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::MountSource;
use kakoi_sys::mount::{Reach, attach, clone_tree, open_place};
use kakoi_sys::path::{open_beneath, open_start};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Assembled, IDENTITY_FILES, RootfsError, make_folder, outside};
use crate::idmap::{inside, try_map};
use crate::plan::{IdMappings, MountKind, RunPlan};
use crate::spec::has_user_namespace;

/// The folder of the opened sources, below the place of the root file system.
const FOLDER: &str = "sources";

/// A bind that is wanted.
struct Wanted {
    kind: MountKind,
    target: String,
    read_only: bool,
    /// Whether its files are the container's, by their ids inside.
    is_its_own: bool,
}

/// Where each source was opened, and which of them are seen through the container's mapping.
type Opened = (Vec<(PathBuf, PathBuf)>, Vec<PathBuf>);

/// Opens what the container will bind, below `place`; what has no sources of the kind gets no folder. Volumes of a container with a user
/// namespace are mapped to it, or, where that cannot be, given to its root while they are empty.
pub(super) fn open_all(
    plan: &RunPlan,
    place: &Path,
    namespace: Option<&OwnedFd>,
) -> Result<Opened, RootfsError> {
    let wanted = wanted(plan);
    if wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let folder = place.join(FOLDER);
    if has_user_namespace(plan) {
        make_folder(&folder, 0o711)?;
    } else {
        make_folder(&folder, 0o700)?;
        // In memory, so that one call takes all of it away and nothing of it is ever found on the disk.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("tmpfs"),
            &folder,
            Some("tmpfs"),
            flags,
            Some("mode=0700,size=1m"),
        )
        .map_err(|source| RootfsError::Bind {
            path: folder.clone(),
            source,
        })?;
    }
    let (mut sources, mut mapped) = (Vec::with_capacity(wanted.len()), Vec::new());
    for (number, wanted) in wanted.into_iter().enumerate() {
        let Some(path) = wanted.kind.source() else {
            continue;
        };
        let staged = folder.join(number.to_string());
        let source = open(&wanted.kind, &wanted.target)?;
        let namespace = namespace.filter(|_| wanted.is_its_own);
        let is_mapped = show(&source, &staged, namespace).map_err(|source| RootfsError::Bind {
            path: path.clone(),
            source,
        })?;
        if is_mapped {
            mapped.push(path.clone());
        } else if namespace.is_some() {
            take_over(&source, &wanted, &plan.id_mappings)?;
        }
        sources.push((path, staged));
    }
    Ok((sources, mapped))
}

/// A bind, without its source.
pub(crate) struct Bind {
    /// Where it is inside.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Every bind of a plan, in the order in which [`open_all`] opens the sources.
pub(crate) fn binds(plan: &RunPlan) -> Vec<Bind> {
    let bind = |wanted: Wanted| Bind {
        target: wanted.target,
        read_only: wanted.read_only,
    };
    wanted(plan).into_iter().map(bind).collect()
}

/// Every bind with its target. Files of the container's own folder are among them only where the way to them is closed to its root.
fn wanted(plan: &RunPlan) -> Vec<Wanted> {
    let planned = plan.mounts.iter().map(|mount| Wanted {
        kind: mount.kind.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        is_its_own: matches!(mount.kind, MountKind::Volume { .. }),
    });
    let policy = plan
        .confinement
        .filesystem
        .mounts
        .iter()
        .filter(|mount| !plan.mounts.iter().any(|other| other.target == mount.target))
        .filter_map(|mount| match &mount.source {
            MountSource::Bind(path) => Some(Wanted {
                kind: MountKind::Bind(path.into()),
                target: mount.target.clone(),
                read_only: mount.read_only,
                is_its_own: false,
            }),
            MountSource::Volume(_) | MountSource::Tmpfs(_) => None,
        });
    let own = IDENTITY_FILES
        .iter()
        .filter(|_| has_user_namespace(plan))
        .filter(|name| plan.state_dir.join(name).exists())
        .map(|name| Wanted {
            kind: MountKind::Volume {
                data: plan.state_dir.clone(),
                subpath: name.into(),
            },
            target: format!("/etc/{name}"),
            read_only: false,
            is_its_own: false,
        });
    planned
        .chain(policy)
        .chain(own)
        .filter(|wanted| wanted.kind != MountKind::Tmpfs)
        .collect()
}

/// Opens a source with no link followed.
pub(super) fn open(kind: &MountKind, target: &str) -> Result<OwnedFd, RootfsError> {
    let path = kind.source().unwrap_or_default();
    let failed = |error: kakoi_sys::CallError| match error.errno {
        Errno::ELOOP | Errno::EXDEV => RootfsError::SourceLinked {
            path: path.clone(),
            target: target.to_owned(),
        },
        errno => RootfsError::Source {
            path: path.clone(),
            target: target.to_owned(),
            source: errno.into(),
        },
    };
    let (start, below) = match kind {
        // The way to a volume is the owner's, and may hold links of the owner's making.
        MountKind::Volume { data, subpath } => (open_start(data).map_err(failed)?, subpath.as_path()),
        MountKind::Secret(file) => {
            let folder = file.parent().unwrap_or(Path::new("/"));
            let name = file.file_name().map(Path::new).unwrap_or(Path::new(""));
            (open_start(folder).map_err(failed)?, name)
        }
        _ => (
            open_start(Path::new("/")).map_err(failed)?,
            path.strip_prefix("/").unwrap_or(&path),
        ),
    };
    if below.as_os_str().is_empty() {
        return Ok(start);
    }
    // As a folder first: only so does the kernel mount what is mounted on demand.
    match open_beneath(start.as_fd(), below, OFlag::O_PATH | OFlag::O_DIRECTORY, 0) {
        Err(error) if error.errno == Errno::ENOTDIR => {
            open_beneath(start.as_fd(), below, OFlag::O_PATH, 0).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

/// Mounts a clone of what was opened at `staged`; tells whether it is mapped by the namespace.
fn show(source: &OwnedFd, staged: &Path, namespace: Option<&OwnedFd>) -> Result<bool, Errno> {
    let call = |error: kakoi_sys::CallError| error.errno;
    let made = if kakoi_sys::path::is_folder(source.as_fd()).map_err(call)? {
        fs::create_dir(staged)
    } else {
        fs::File::create_new(staged).map(drop)
    };
    made.map_err(|error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let tree = clone_tree(source.as_fd(), Reach::Recursive).map_err(call)?;
    let is_mapped = match namespace {
        Some(namespace) => try_map(tree.as_fd(), namespace.as_fd())?,
        None => false,
    };
    attach(tree.as_fd(), open_place(staged).map_err(call)?.as_fd()).map_err(call)?;
    Ok(is_mapped)
}

/// Gives an empty volume to the container's root. One with files in it is left as it is: whoever wrote them may be another container, with ids
/// of its own.
fn take_over(source: &OwnedFd, wanted: &Wanted, mappings: &IdMappings) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Own {
        target: wanted.target.clone(),
        source,
    };
    let place = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let meta = fs::metadata(&place).map_err(failed)?;
    let is_its_own = inside(&mappings.uids, meta.uid()).is_some();
    if is_its_own || wanted.read_only {
        return Ok(());
    }
    let is_empty = meta.is_dir() && fs::read_dir(&place).map_err(failed)?.next().is_none();
    if !is_empty {
        return Err(RootfsError::VolumeOwner {
            target: wanted.target.clone(),
        });
    }
    let (uid, gid) = (outside(&mappings.uids, 0), outside(&mappings.gids, 0));
    std::os::unix::fs::chown(&place, Some(uid), Some(gid)).map_err(failed)
}

impl Assembled {
    /// Takes the opened sources away again, once the container is made and has its own mounts of them.
    pub fn close_sources(&self) -> Result<(), RootfsError> {
        let Some(folder) = self.sources.first().and_then(|(_, staged)| staged.parent()) else {
            return Ok(());
        };
        close(folder)
    }
}

/// Unmounts the folder of sources with everything in it; where it is a part of a larger file system, what is in it.
pub(super) fn close(folder: &Path) -> Result<(), RootfsError> {
    let detach = |path: &Path| match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Nothing is mounted or nothing is there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(source) => Err(RootfsError::Bind {
            path: path.to_path_buf(),
            source,
        }),
    };
    let mut outcome = Ok(());
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            outcome = outcome.and(detach(&entry.path()));
        }
    }
    outcome.and(detach(folder))
}

/// The folder of sources below a place.
pub(super) fn folder(place: &Path) -> PathBuf {
    place.join(FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IdMapping;

    #[test]
    fn an_empty_volume_is_given_away_and_a_full_one_is_not() {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out(
                "root",
                "an_empty_volume_is_given_away_and_a_full_one_is_not: needs root",
            );
            return;
        }
        let map = |outside| {
            vec![IdMapping {
                inside: 0,
                outside,
                count: 65_536,
            }]
        };
        let mappings = |outside| IdMappings {
            uids: map(outside),
            gids: map(outside),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let opened = open_start(folder.path()).expect("it is there");
        let wanted = |read_only| Wanted {
            kind: MountKind::Bind(folder.path().to_owned()),
            target: "/data".to_owned(),
            read_only,
            is_its_own: true,
        };
        take_over(&opened, &wanted(false), &mappings(100_000)).expect("it is empty");
        let owner = || fs::metadata(folder.path()).map(|meta| (meta.uid(), meta.gid()));
        assert_eq!(owner().expect("it is there"), (100_000, 100_000));
        fs::write(folder.path().join("file"), "x").expect("writable");
        take_over(&opened, &wanted(false), &mappings(100_000)).expect("it is its own");
        // The next container has other ids.
        let refused = take_over(&opened, &wanted(false), &mappings(200_000)).expect_err("it is another's");
        assert!(matches!(refused, RootfsError::VolumeOwner { .. }), "{refused}");
        take_over(&opened, &wanted(true), &mappings(200_000)).expect("it may be read");
        assert_eq!(
            owner().expect("it is there"),
            (100_000, 100_000),
            "nothing was changed"
        );
    }
}
