//! The root file system: layers become one tree in the shim's own mount namespace.
//!
//! Owns the overlay, the copy that replaces it on kernels without overlayfs, the filling of new volumes and the working directory. Refuses to
//! know what is in a layer: everything below the root is hostile and is opened relative to it with links resolved inside it. Invariant: the
//! tree is mounted only in the shim's mount namespace, so that it is gone when the shim is.

mod copy;
mod sources;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use kakoi_sys::path::{open_in_root, open_start};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use thiserror::Error;

use crate::plan::{RootfsDriver, RunPlan};
use crate::spec::has_user_namespace;

pub use copy::CopyError;
pub(crate) use sources::{Bind, binds};

/// overlayfs stacks at most this many layers (OVL_MAX_STACK).
pub const LAYERS_MAX: usize = 500;

/// Files of the container's folder that are bound to `/etc`.
pub const IDENTITY_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Why there is no root file system.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The shim could not get a mount namespace.
    #[error("make a mount namespace for the root file system")]
    Namespace(#[source] Errno),
    /// A folder could not be made.
    #[error("make folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer is not there: the image was removed or its storage is damaged.
    #[error("image layer {path} cannot be read; load the image again")]
    Layer {
        /// The layer's folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are more layers than overlayfs stacks.
    #[error("image has {count} layers, the kernel stacks {LAYERS_MAX}")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// overlayfs refused.
    #[error("mount overlay of {count} layers at {path}")]
    Overlay {
        /// How many layers.
        count: usize,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A bind mount was refused.
    #[error("bind {path}")]
    Bind {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A source of a bind mount cannot be opened.
    #[error(
        "open {path}, which is to be mounted at {target}; put it back, or create the container anew without this mount"
    )]
    Source {
        /// The source.
        path: PathBuf,
        /// Where it is mounted inside.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The way to a source leads over a symbolic link, which it did not when the container was created.
    #[error(
        "refused: {path}, which is to be mounted at {target}, has become a symbolic link or is reached by one since the container was created; put the folder back, or create the container anew"
    )]
    SourceLinked {
        /// The source.
        path: PathBuf,
        /// Where it is mounted inside.
        target: String,
    },
    /// There is no folder to mount over.
    #[error(
        "a container with a user namespace needs one empty folder among {PLACES:?} on the host to mount over; make /mnt"
    )]
    NoPlace,
    /// There is no user namespace to map mounts with.
    #[error("make a user namespace to map layers and volumes with")]
    UserNamespace(#[source] io::Error),
    /// A volume's files belong to nobody inside, and cannot be shown as if they did not.
    #[error(
        "the volume mounted at {target} belongs to ids outside of the container's user namespace, and its file system has no mapped mounts here; use a new volume, mount it read-only, or run with --userns host"
    )]
    VolumeOwner {
        /// Where it is mounted inside.
        target: String,
    },
    /// A volume could not be given to the container's root.
    #[error("give the volume mounted at {target} to the container's root")]
    Own {
        /// Where it is mounted inside.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer could not be mapped for a user namespace.
    #[error(
        "map layer {path} for the user namespace; this needs a kernel with mapped mounts under overlayfs (5.19) on a file system that has them, or userns: host"
    )]
    IdMap {
        /// The layer.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Files could not be copied.
    #[error("copy {from} to {to}")]
    Copy {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// The working directory could not be made.
    #[error("make working directory {path} in the container")]
    WorkingDirectory {
        /// The directory inside.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Gives the shim a mount namespace in which its mounts stay its own while the host's unmounts still arrive: a container must not keep a disk
/// busy that its owner removes.
pub fn enter_private_namespace() -> Result<(), RootfsError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(RootfsError::Namespace)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(RootfsError::Namespace)
}

/// A root file system that is mounted.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// Where.
    pub root: PathBuf,
    /// Where the source of each bind mount was opened: nothing mounts one by its own path.
    pub sources: Vec<(PathBuf, PathBuf)>,
    /// Sources whose owners on disk are the container's ids, which a mapped mount shows as what they are outside.
    pub mapped: Vec<PathBuf>,
}

/// Mounts the plan's root file system, and opens what will be mounted in it.
pub fn assemble(plan: &RunPlan) -> Result<Assembled, RootfsError> {
    let (root, place, namespace) = mount_tree(plan)?;
    let (sources, mapped) = sources::open_all(plan, &place, namespace.as_ref())?;
    Ok(Assembled {
        root,
        sources,
        mapped,
    })
}

/// Mounts the plan's root file system and tells where.
pub(crate) fn mount_root(plan: &RunPlan) -> Result<PathBuf, RootfsError> {
    mount_tree(plan).map(|(root, _, _)| root)
}

/// Opens the sources of the plan's binds and tells where, in the order of [`binds`]; below the plan's run-time folder, also where there is a user
/// namespace.
pub(crate) fn open_sources(plan: &RunPlan) -> Result<Vec<PathBuf>, RootfsError> {
    let namespace = crate::idmap::namespace(plan)?;
    let (sources, _) = sources::open_all(plan, &plan.run_dir, namespace.as_ref())?;
    Ok(sources.into_iter().map(|(_, staged)| staged).collect())
}

/// Where the shim whose mount namespace this is has mounted the root file system.
pub(crate) fn mounted_at(plan: &RunPlan) -> Option<PathBuf> {
    let places = PLACES.iter().map(Path::new).filter(|_| has_user_namespace(plan));
    let own = [plan.run_dir.as_path()]
        .into_iter()
        .filter(|_| !has_user_namespace(plan));
    let mut all = places.chain(own).map(|place| place.join("rootfs"));
    all.find(|path| path.exists())
}

/// Mounts the tree; tells where it is, the folder that this lies in, and the user namespace that layers are mapped by.
fn mount_tree(plan: &RunPlan) -> Result<(PathBuf, PathBuf, Option<OwnedFd>), RootfsError> {
    let place = match has_user_namespace(plan) {
        true => open_place()?,
        false => plan.run_dir.clone(),
    };
    let target = place.join("rootfs");
    make_folder(&target, 0o755)?;
    let count = plan.rootfs.layers.len();
    if count > LAYERS_MAX {
        return Err(RootfsError::TooManyLayers { count });
    }
    for layer in &plan.rootfs.layers {
        let source = match fs::symlink_metadata(layer) {
            Ok(meta) if meta.is_dir() => continue,
            Ok(_) => io::Error::from(io::ErrorKind::NotADirectory),
            Err(source) => source,
        };
        return Err(RootfsError::Layer {
            path: layer.clone(),
            source,
        });
    }
    let namespace = crate::idmap::namespace(plan)?;
    match plan.rootfs.driver {
        RootfsDriver::Overlay => overlay(plan, &target, namespace.as_ref())?,
        RootfsDriver::Copy => copied(plan, &target)?,
    }
    Ok((target, place, namespace))
}

/// Folders that hosts have and seldom use.
const PLACES: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/boot"];

/// Root of a user namespace is an ordinary user to the host's folders, and ours are closed to those. Its root file system is mounted where
/// everyone may pass: in a memory file system over an empty folder, which the shim's mount namespace alone sees.
fn open_place() -> Result<PathBuf, RootfsError> {
    let is_empty = |path: &&str| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let path = PLACES
        .into_iter()
        .find(is_empty)
        .map(Path::new)
        .ok_or(RootfsError::NoPlace)?;
    let options = Some("mode=0711,size=1m");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        options,
    )
    .map_err(|source| RootfsError::Bind {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(path.to_path_buf())
}

/// Unmounts what [`assemble`] mounted and the layers mapped for it; the rest goes with the shim's mount namespace. The descriptors that it
/// returns keep the file systems from being torn down: overlayfs then writes back the whole disk below it, which takes longer than the
/// container's life may have. Close them when nobody waits any more.
pub fn disassemble(plan: &RunPlan) -> Result<Vec<OwnedFd>, RootfsError> {
    let run_dir = &plan.run_dir;
    let mut folders = vec![run_dir.join("rootfs")];
    if has_user_namespace(plan) {
        folders = PLACES
            .iter()
            .map(|place| Path::new(place).join("rootfs"))
            .filter(|path| path.exists())
            .collect();
    }
    if let Ok(entries) = fs::read_dir(run_dir.join("mapped")) {
        folders.extend(entries.flatten().map(|entry| entry.path()));
    }
    // First: the run-time folder is removed after this, and must not lead to anybody's data.
    let mut outcome = sources::close(&sources::folder(run_dir));
    let mut held = Vec::new();
    for path in folders {
        if let Ok(folder) = open_start(&path) {
            held.push(folder);
        }
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Nothing is mounted or nothing is there.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(source) => outcome = Err(RootfsError::Bind { path, source }),
        }
    }
    outcome.map(|()| held)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), RootfsError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| RootfsError::Folder {
        path: path.to_path_buf(),
        source,
    })
}

/// The folder as root inside sees it must belong to root inside and be passable for every user.
fn make_root_folder(plan: &RunPlan, path: &Path) -> Result<(), RootfsError> {
    let is_new = !path.exists();
    make_folder(path, 0o755)?;
    if is_new {
        let (mode, uid, gid) = match plan.rootfs.layers.first().map(fs::metadata) {
            Some(Ok(meta)) => (meta.mode() & 0o7777, meta.uid(), meta.gid()),
            _ => (0o755, 0, 0),
        };
        let uid = outside(&plan.id_mappings.uids, uid);
        let gid = outside(&plan.id_mappings.gids, gid);
        let set = || -> io::Result<()> {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        };
        set().map_err(|source| RootfsError::Folder {
            path: path.to_path_buf(),
            source,
        })?;
    }
    Ok(())
}

fn outside(mappings: &[crate::plan::IdMapping], inside: u32) -> u32 {
    let hit = mappings
        .iter()
        .find(|m| inside >= m.inside && inside - m.inside < m.count);
    hit.map_or(inside, |m| m.outside + (inside - m.inside))
}

/// mount(2) takes one page of options. Short links in a folder of their own, named by their number, hold as many layers as overlayfs stacks,
/// and spare us the quoting of colons and commas in paths.
fn overlay(plan: &RunPlan, target: &Path, namespace: Option<&OwnedFd>) -> Result<(), RootfsError> {
    let links = plan.run_dir.join("l");
    make_folder(&links, 0o700)?;
    let upper = plan.state_dir.join("upper");
    let work = plan.state_dir.join("work");
    make_root_folder(plan, &upper)?;
    make_folder(&work, 0o700)?;
    let layers = match plan.rootfs.layers.is_empty() {
        true => {
            let empty = plan.run_dir.join("empty");
            make_folder(&empty, 0o755)?;
            vec![empty]
        }
        false => plan.rootfs.layers.clone(),
    };
    let layers = crate::idmap::mapped_layers(plan, layers, namespace)?;
    let link = |from: &Path, name: &str| -> Result<(), RootfsError> {
        let path = links.join(name);
        match symlink(from, &path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(RootfsError::Folder { path, source }),
        }
    };
    link(&upper, "u")?;
    link(&work, "w")?;
    let mut lower = String::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = number.to_string();
        link(layer, &name)?;
        if number > 0 {
            lower.push(':');
        }
        lower.push_str(&name);
    }
    // Without an index a container can be started again while the kernel still writes back what its last mount left.
    // Without references and copies of attributes alone, the writable layer can be compared and archived by itself.
    let options = format!("lowerdir={lower},upperdir=u,workdir=w,index=off,redirect_dir=off,metacopy=off");
    in_folder(&links, || {
        mount(
            Some("overlay"),
            target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
    })
    .map_err(|source| RootfsError::Overlay {
        count: layers.len(),
        path: target.to_path_buf(),
        source,
    })
}

/// Runs `act` with `folder` as working directory. The process has one thread.
fn in_folder<T>(folder: &Path, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    nix::unistd::chdir(folder)?;
    let outcome = act();
    nix::unistd::chdir("/")?;
    outcome
}

fn copied(plan: &RunPlan, target: &Path) -> Result<(), RootfsError> {
    let upper = plan.state_dir.join("upper");
    let done = plan.state_dir.join("copied");
    if !done.exists() {
        // A copy that was cut short is started over.
        match fs::remove_dir_all(&upper) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RootfsError::Folder { path: upper, source });
            }
            _ => {}
        }
        make_root_folder(plan, &upper)?;
        for layer in plan.rootfs.layers.iter().rev() {
            copy::copy_layer(layer, &upper, plan).map_err(|source| RootfsError::Copy {
                from: layer.clone(),
                to: upper.clone(),
                source,
            })?;
        }
        fs::write(&done, b"").map_err(|source| RootfsError::Folder { path: done, source })?;
    }
    mount(Some(&upper), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|source| RootfsError::Bind { path: upper, source })
}

/// Fills each empty volume that asks for it with what the image has at its target. The volume is opened as it lies on the disk: in a mapped mount
/// of it the shim's own ids have no place.
pub fn fill_volumes(plan: &RunPlan, rootfs: &Assembled) -> Result<(), RootfsError> {
    let wanted = plan.mounts.iter().filter(|mount| mount.copy_up);
    for (mount, path) in wanted.filter_map(|mount| Some((mount, mount.kind.source()?))) {
        let volume = sources::open(&mount.kind, &mount.target)?;
        let is_mapped = rootfs.mapped.contains(&path);
        let inside = |mappings: &[crate::plan::IdMapping], id: u32| match is_mapped {
            true => crate::idmap::inside(mappings, id).unwrap_or(id),
            false => id,
        };
        let shift = |uid, gid| {
            (
                inside(&plan.id_mappings.uids, uid),
                inside(&plan.id_mappings.gids, gid),
            )
        };
        copy::fill(&rootfs.root, &mount.target, (volume.as_fd(), &path), &shift).map_err(|source| {
            RootfsError::Copy {
                from: PathBuf::from(&mount.target),
                to: path.clone(),
                source,
            }
        })?;
    }
    Ok(())
}

/// Makes the working directory where the image lacks it, owned by root inside. One below a mount is left to whoever fills the mount.
pub fn make_working_directory(plan: &RunPlan, rootfs: &Path) -> Result<(), RootfsError> {
    let cwd = plan.process.cwd.as_str();
    let is_mounted = |mount: &crate::plan::MountPlan| Path::new(cwd).starts_with(&mount.target);
    if plan.mounts.iter().any(is_mounted) {
        return Ok(());
    }
    let fail = |source: io::Error| RootfsError::WorkingDirectory {
        path: cwd.into(),
        source,
    };
    let root = open_start(rootfs).map_err(|error| fail(error.errno.into()))?;
    let parts: Vec<_> = Path::new(cwd)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut path = PathBuf::from("/");
    let mut parent: OwnedFd = reopen(root.as_fd()).map_err(fail)?;
    for part in parts {
        path.push(part);
        parent = match open_in_root(root.as_fd(), &path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0) {
            Ok(folder) => folder,
            Err(error) if error.errno == Errno::ENOENT => {
                make_in(parent.as_fd(), Path::new(part), plan).map_err(fail)?
            }
            Err(error) => return Err(fail(error.errno.into())),
        };
    }
    Ok(())
}

fn make_in(parent: BorrowedFd<'_>, name: &Path, plan: &RunPlan) -> io::Result<OwnedFd> {
    mkdirat(Some(parent.as_raw_fd()), name, Mode::from_bits_truncate(0o755))?;
    let made = open_in_root(
        parent,
        name,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
        0,
    )
    .map_err(|error| io::Error::from(error.errno))?;
    if has_user_namespace(plan) {
        let path = format!("/proc/self/fd/{}", made.as_raw_fd());
        let uid = outside(&plan.id_mappings.uids, 0);
        std::os::unix::fs::chown(path, Some(uid), Some(outside(&plan.id_mappings.gids, 0)))?;
    }
    Ok(made)
}

fn reopen(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    folder.try_clone_to_owned()
}
