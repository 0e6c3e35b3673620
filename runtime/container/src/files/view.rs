//! The container's files, mounted for one process that is not in the container.
//!
//! Owns the mounts: of a container that is up, a clone of the root file system that its shim has mounted, for the same writable layer must not be mounted
//! twice; of one that is down, a mount of our own. On it come the container's binds and volumes, as far as a request can reach them; what the kernel
//! provides (`/proc`, `/dev`) and memory file systems are not the container's files, as in Docker. Invariant: the process sees them in a mount
//! namespace of its own, from which nothing travels to any other.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kakoi_sys::mount::{Attributes, Reach, add_attributes, attach, clone_tree, open_place};
use kakoi_sys::namespace::{Kind, join, open_in_process};
use kakoi_sys::path::{is_folder, open_in_root, open_start};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::words::Request;
use super::{FilesError, paths, step};
use crate::client::{Lines, encode};
use crate::frames::{Reply, Request as ShimRequest, State};
use crate::plan::{MountKind, RunPlan};
use crate::rootfs::{self, Bind, IDENTITY_FILES};
use crate::spec::has_user_namespace;

/// What is mounted in every container: the places for it, where the image has none, are no change of the container's.
pub(super) const STANDARD: [&str; 9] = [
    "/proc",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/console",
    "/sys",
    "/sys/fs/cgroup",
    "/run/.containerenv",
    "/.dockerenv",
];

/// How long a shim may take to say how it stands.
const SHIM_WAIT: Duration = Duration::from_secs(10);

/// A container's root, seen from outside.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    /// This process's descriptors, for the paths that they lead to.
    descriptors: OwnedFd,
    /// Whether the container may not write to its root file system.
    pub is_read_only: bool,
    /// Where something of the container's is mounted.
    pub mounts: Vec<PathBuf>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl AsRawFd for Root {
    fn as_raw_fd(&self) -> i32 {
        self.folder.as_raw_fd()
    }
}

impl Root {
    /// The path of an open file from the root, with no link in it. Only once the root is this process's own.
    pub fn path_of(&self, file: BorrowedFd<'_>) -> Option<PathBuf> {
        let number = file.as_raw_fd().to_string();
        let path = readlinkat(Some(self.descriptors.as_raw_fd()), number.as_str()).ok()?;
        let path = PathBuf::from(path);
        path.is_absolute().then_some(path)
    }
}

/// Mounts a container's root, and, where a path is given, what else it leads to.
pub(super) fn show(plan: &RunPlan, request: &Request, path: Option<&str>) -> Result<Root, FilesError> {
    let mut plan = plan.clone();
    // Whoever copies files gets no secrets, which are nowhere any more.
    plan.mounts
        .retain(|mount| !matches!(mount.kind, MountKind::Secret(_)));
    let root = match request.up {
        true => join_shim(&plan)?,
        false => None,
    };
    rootfs::enter_private_namespace()?;
    // All that is mounted from here on is this process's; what lies below the place it does not need any more.
    let size = Some("mode=0700,size=4m");
    mount(
        Some("tmpfs"),
        &request.place,
        Some("tmpfs"),
        MsFlags::empty(),
        size,
    )
    .map_err(|errno| step("mount a folder of its own")(errno.into()))?;
    plan.run_dir = request.place.join("files");
    fs::create_dir(&plan.run_dir).map_err(step("make a folder of its own"))?;
    let target = match root {
        None => rootfs::mount_root(&plan)?,
        Some(tree) => {
            let target = plan.run_dir.join("rootfs");
            fs::create_dir(&target).map_err(step("make a folder of its own"))?;
            put(&tree, &target)?;
            target
        }
    };
    let is_read_only = plan.confinement.filesystem.read_only_root;
    let folder = open_start(&target).map_err(|error| step("open the root")(error.errno.into()))?;
    let mut mounts = Vec::new();
    if let Some(path) = path {
        let wanted = paths::clean(path);
        let sources = rootfs::open_sources(&plan)?;
        for (bind, staged) in rootfs::binds(&plan)
            .into_iter()
            .zip(sources)
            .chain(identity_files(&plan))
        {
            if bind_into(&folder, &bind, &staged, &wanted)? {
                mounts.push(paths::clean(&bind.target));
            }
        }
        if is_read_only {
            let attributes = Attributes::READ_ONLY;
            let mounted = open_place(&target).map_err(|error| step("open the root")(error.errno.into()))?;
            add_attributes(mounted.as_fd(), attributes, Reach::One)
                .map_err(|error| step("make the root read-only")(error.errno.into()))?;
        }
    }
    let descriptors = open_start(Path::new("/proc/self/fd"))
        .map_err(|error| step("open /proc/self/fd")(error.errno.into()))?;
    // Opened anew: what is mounted on the root itself counts.
    let folder = open_start(&target).map_err(|error| step("open the root")(error.errno.into()))?;
    Ok(Root {
        folder,
        descriptors,
        is_read_only,
        mounts,
    })
}

/// The files of names and addresses; where there is a user namespace they are among the binds.
fn identity_files(plan: &RunPlan) -> Vec<(Bind, PathBuf)> {
    let name = |name: &str| {
        let target = format!("/etc/{name}");
        let is_bound = plan.mounts.iter().any(|mount| mount.target == target);
        let source = plan.state_dir.join(name);
        let bind = Bind {
            target,
            read_only: false,
        };
        (!is_bound && !has_user_namespace(plan) && source.exists()).then_some((bind, source))
    };
    IDENTITY_FILES.into_iter().filter_map(name).collect()
}

fn put(tree: &OwnedFd, target: &Path) -> Result<(), FilesError> {
    let attached = open_place(target).and_then(|place| attach(tree.as_fd(), place.as_fd()));
    attached.map_err(|error| step("mount the root")(error.errno.into()))
}

/// Mounts one source where the container has it. A place that the container's start would make is made only where the request leads there.
fn bind_into(root: &OwnedFd, bind: &Bind, staged: &Path, wanted: &Path) -> Result<bool, FilesError> {
    let call = |error: kakoi_sys::CallError| step("mount a volume")(error.errno.into());
    let source = open_place(staged).map_err(call)?;
    let target = paths::clean(&bind.target);
    let place = match open_in_root(root.as_fd(), &target, OFlag::O_PATH, 0) {
        Ok(place) => place,
        Err(error) if error.errno != Errno::ENOENT => return Ok(false),
        Err(_) if !wanted.starts_with(&target) => return Ok(false),
        Err(_) => make_place(root, &target, is_folder(source.as_fd()).map_err(call)?)
            .map_err(step("make a place for a volume"))?,
    };
    // A folder over a file, or the other way round, is for the start to refuse.
    if is_folder(place.as_fd()).map_err(call)? != is_folder(source.as_fd()).map_err(call)? {
        return Ok(false);
    }
    let tree = clone_tree(source.as_fd(), Reach::Recursive).map_err(call)?;
    if bind.read_only {
        add_attributes(tree.as_fd(), Attributes::READ_ONLY, Reach::Recursive).map_err(call)?;
    }
    attach(tree.as_fd(), place.as_fd()).map_err(call)?;
    Ok(true)
}

fn make_place(root: &OwnedFd, target: &Path, as_folder: bool) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut path = PathBuf::from("/");
    let mut folder = root.try_clone()?;
    let parts: Vec<_> = target.iter().skip(1).collect();
    for (number, part) in parts.iter().enumerate() {
        path.push(part);
        let is_last = number + 1 == parts.len();
        let found = match open_in_root(
            root.as_fd(),
            &path,
            if is_last { OFlag::O_PATH } else { flags },
            0,
        ) {
            Err(error) if error.errno == Errno::ENOENT => None,
            found => Some(found.map_err(|error| error.errno)?),
        };
        folder = match found {
            Some(found) => found,
            None if is_last && !as_folder => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
                kakoi_sys::path::open_beneath(folder.as_fd(), Path::new(part), flags, 0o644)
                    .map_err(|error| error.errno)?;
                open_in_root(root.as_fd(), &path, OFlag::O_PATH, 0).map_err(|error| error.errno)?
            }
            None => {
                mkdirat(Some(folder.as_raw_fd()), *part, Mode::from_bits_truncate(0o755))?;
                open_in_root(root.as_fd(), &path, flags, 0).map_err(|error| error.errno)?
            }
        };
    }
    Ok(folder)
}

/// Joins the mount namespace of the container's shim, and clones the root file system that it has there. `None` where an earlier shim runs, which does not tell
/// who it is.
fn join_shim(plan: &RunPlan) -> Result<Option<OwnedFd>, FilesError> {
    let call = |error: kakoi_sys::CallError| step("join the shim's mount namespace")(error.errno.into());
    let shim = state(plan)?.supervisor;
    if shim <= 0 {
        return Err(step("find the shim")(io::Error::other(
            "the container was started by an earlier version; start it anew",
        )));
    }
    let process = open_start(Path::new(&format!("/proc/{shim}"))).map_err(|_| FilesError::Gone)?;
    // It still answers, so what was opened is it, and no other process with its number.
    if state(plan)?.supervisor != shim {
        return Err(FilesError::Gone);
    }
    let namespace =
        open_in_process(process.as_fd(), "ns/mnt", OFlag::O_RDONLY).map_err(|_| FilesError::Gone)?;
    join(namespace.as_fd(), Kind::Mount).map_err(call)?;
    let target = rootfs::mounted_at(plan).ok_or(FilesError::Gone)?;
    let place = open_place(&target).map_err(|_| FilesError::Gone)?;
    clone_tree(place.as_fd(), Reach::One).map(Some).map_err(call)
}

/// Asks the shim how it stands.
fn state(plan: &RunPlan) -> Result<State, FilesError> {
    let ask = || -> io::Result<State> {
        let folder = fs::File::open(&plan.run_dir)?;
        // A run-time folder and a name together are easily longer than a socket's address.
        let path = format!("/proc/self/fd/{}/shim.sock", folder.as_raw_fd());
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(SHIM_WAIT))?;
        let line = encode(&ShimRequest::State).map_err(io::Error::other)?;
        stream.write_all(&line)?;
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = lines.next_word::<Reply>().map_err(io::Error::other)? {
                return match reply {
                    Reply::State(state) => Ok(state),
                    other => Err(io::Error::other(format!("the shim answered {other:?}"))),
                };
            }
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => lines.push(&buffer[..count]),
            }
        }
    };
    ask().map_err(|_| FilesError::Gone)
}
