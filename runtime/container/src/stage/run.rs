//! The hook process.
//!
//! Owns the order: nodes and mounts, then hooks. Runs in a process of its own that libcontainer starts and waits for.

use std::fs;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use serde_json::Value;

use super::mount::{self, MountError, make, make_file, make_folder, open_inside};
use super::options::{StagedKind, StagedMount};
use super::{STAGE_FILE, Stage};
use crate::executor::chain;
use crate::frames::FailureKind;
use crate::hook::{self, HookError, HookState};
use crate::outcome::Failure;

/// The most bytes of a state document on standard input.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Why the stage failed, and with it the container's creation.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The list could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list is not ours.
    #[error("parse the stage")]
    Parse(#[source] serde_json::Error),
    /// A mount.
    #[error("mount {destination}")]
    Mount {
        /// Where.
        destination: PathBuf,
        /// Why.
        #[source]
        source: Box<MountError>,
    },
    /// A control group mount.
    #[error("mount control groups")]
    Cgroup(#[source] crate::cgroup::CgroupError),
    /// A device node.
    #[error("make device {path}")]
    Device {
        /// Path inside.
        path: PathBuf,
        /// Why.
        #[source]
        source: nix::errno::Errno,
    },
    /// A hook.
    #[error("{point} hook")]
    Hook {
        /// Which kind.
        point: &'static str,
        /// Why.
        #[source]
        source: HookError,
    },
}

/// Does one point: `runtime` or `container`. The list is on the inherited descriptor `list`, the state document on standard input. Why it failed is written
/// in the list's place, where the runtime reads it: libcontainer says of a hook no more than that it failed.
pub fn run(list: i32, point: &str) -> Result<(), StageError> {
    let unreadable = |source| StageError::Read {
        path: STAGE_FILE.into(),
        source,
    };
    let list = kakoi_sys::descriptors::take_inherited(list);
    let mut list = fs::File::from(list.map_err(|error| unreadable(crate::create::io(&error)))?);
    let mut text = Vec::new();
    // The other point has read it through the same open file.
    list.rewind().map_err(unreadable)?;
    list.read_to_end(&mut text).map_err(unreadable)?;
    let done = perform(&text, point);
    if let Err(error) = &done {
        let failure = Failure::new(FailureKind::Runtime, "stage", chain(error));
        let told = list
            .set_len(0)
            .and_then(|()| list.rewind())
            .map_err(crate::outcome::OutcomeError::Pipe)
            .and_then(|()| crate::outcome::tell_failed(list.as_fd(), &failure));
        if let Err(error) = told {
            tracing::warn!(error = %chain(&error), "ignoring that the reason cannot be told");
        }
    }
    done
}

fn perform(text: &[u8], point: &str) -> Result<(), StageError> {
    let stage: Stage = serde_json::from_slice(text).map_err(StageError::Parse)?;
    let mut told = String::new();
    std::io::stdin()
        .take(STATE_BYTES_MAX)
        .read_to_string(&mut told)
        .map_err(|source| StageError::Read {
            path: "standard input".into(),
            source,
        })?;
    // libcontainer knows the process id; the rest of its state describes the folder that we gave it as a bundle.
    let told: Option<HookState> = serde_json::from_str(&told).ok();
    let mut state = stage.state.clone();
    state.pid = told
        .and_then(|told| told.pid)
        .filter(|pid| *pid > 0)
        .or(state.pid);
    if point == "runtime" {
        return runtime_hooks(&stage, &state);
    }
    place(&stage)?;
    hook::run_all(&stage.container_hooks, &state, None).map_err(|source| StageError::Hook {
        point: "createContainer",
        source,
    })
}

/// Deprecated hooks still read what they read when they were new: at their time the container counted as created.
fn runtime_hooks(stage: &Stage, state: &HookState) -> Result<(), StageError> {
    let created = HookState {
        status: "created".to_owned(),
        ..state.clone()
    };
    hook::run_all(&stage.prestart_hooks, &created, None).map_err(|source| StageError::Hook {
        point: "prestart",
        source,
    })?;
    hook::run_all(&stage.runtime_hooks, state, None).map_err(|source| StageError::Hook {
        point: "createRuntime",
        source,
    })
}

fn place(stage: &Stage) -> Result<(), StageError> {
    if stage.mounts.is_empty() && stage.devices.is_empty() && stage.cwd.is_none() {
        return Ok(());
    }
    let root = fs::File::open(&stage.rootfs)
        .map(OwnedFd::from)
        .map_err(|source| StageError::Read {
            path: stage.rootfs.clone(),
            source,
        })?;
    for staged in &stage.mounts {
        let failed = |source: MountError| StageError::Mount {
            destination: staged.destination.clone(),
            source: Box::new(source),
        };
        if staged.kind == StagedKind::CgroupV1 {
            cgroup_v1(root.as_fd(), stage, staged)?;
            continue;
        }
        let tree = staged
            .tree
            .map(kakoi_sys::descriptors::take_inherited)
            .transpose()
            .map_err(|source| {
                failed(MountError::Target {
                    path: staged.destination.clone(),
                    source,
                })
            })?;
        make(root.as_fd(), staged, tree).map_err(failed)?;
    }
    for device in &stage.devices {
        node(root.as_fd(), device)?;
    }
    if let Some(cwd) = &stage.cwd {
        make_folder(root.as_fd(), Path::new(cwd)).map_err(|source| StageError::Mount {
            destination: cwd.into(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

/// A tmpfs with one read-only view per hierarchy. Never writable: a writable version 1 group lets a process without any capability change
/// its own limits.
fn cgroup_v1(root: BorrowedFd<'_>, stage: &Stage, staged: &StagedMount) -> Result<(), StageError> {
    const RDONLY_NOSUID_NODEV_NOEXEC: u64 = 0xf;
    let failed = |source: MountError| StageError::Mount {
        destination: staged.destination.clone(),
        source: Box::new(source),
    };
    let plain = |destination: PathBuf, kind: StagedKind, source: String, data: Vec<String>| StagedMount {
        destination,
        source,
        kind,
        set: 0xe,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        data,
        propagation: vec![],
        copy_up: false,
        idmap: None,
        source_no_follow: false,
        tree: None,
    };
    let base = plain(
        staged.destination.clone(),
        StagedKind::Filesystem("tmpfs".into()),
        "tmpfs".into(),
        vec!["mode=755".into(), "size=64k".into()],
    );
    make(root, &base, None).map_err(failed)?;
    let cgroup = crate::cgroup::Cgroup::at(&stage.cgroup).map_err(StageError::Cgroup)?;
    for (name, source) in cgroup.views() {
        if !source.is_dir() {
            continue;
        }
        let mut view = plain(
            staged.destination.join(name),
            StagedKind::Bind { recursive: false },
            source.to_string_lossy().into_owned(),
            vec![],
        );
        view.set = RDONLY_NOSUID_NODEV_NOEXEC;
        make(root, &view, None).map_err(failed)?;
    }
    // The tmpfs itself becomes read-only last: its folders had to be made.
    let target = open_inside(root, &staged.destination, OFlag::O_PATH).map_err(failed)?;
    mount::set_read_only(target.as_fd(), &staged.destination).map_err(failed)
}

fn node(root: BorrowedFd<'_>, device: &Value) -> Result<(), StageError> {
    let path = PathBuf::from(device.get("path").and_then(Value::as_str).unwrap_or_default());
    let failed = |source: MountError| StageError::Mount {
        destination: path.clone(),
        source: Box::new(source),
    };
    let number = |field: &str| device.get(field).and_then(Value::as_u64);
    let tree = device
        .get("tree")
        .and_then(Value::as_i64)
        .and_then(|fd| i32::try_from(fd).ok());
    if let Some(fd) = tree {
        let tree = kakoi_sys::descriptors::take_inherited(fd).map_err(|source| {
            failed(MountError::Target {
                path: path.clone(),
                source,
            })
        })?;
        let target = make_file(root, &path).map_err(failed)?;
        let calls = libcontainer::syscall::syscall::create_syscall();
        return mount::attach(calls.as_ref(), tree.as_fd(), target.as_fd()).map_err(|source| {
            failed(MountError::Call {
                step: "attach",
                path: path.clone(),
                source,
            })
        });
    }
    let kind = match device.get("type").and_then(Value::as_str) {
        Some("b") => SFlag::S_IFBLK,
        Some("p") => SFlag::S_IFIFO,
        _ => SFlag::S_IFCHR,
    };
    let parent = make_folder(root, path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    let name = path.file_name().unwrap_or_default();
    let mode = Mode::from_bits_truncate(number("fileMode").unwrap_or(0o666) as u32);
    let device_number = nix::sys::stat::makedev(number("major").unwrap_or(0), number("minor").unwrap_or(0));
    let call = |source| StageError::Device {
        path: path.clone(),
        source,
    };
    let mask = nix::sys::stat::umask(Mode::empty());
    let made = nix::sys::stat::mknodat(Some(parent.as_raw_fd()), name, kind, mode, device_number);
    nix::sys::stat::umask(mask);
    match made {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(errno) => return Err(call(errno)),
    }
    let id = |field: &str| number(field).and_then(|id| u32::try_from(id).ok());
    nix::unistd::fchownat(
        Some(parent.as_raw_fd()),
        name,
        id("uid").map(nix::unistd::Uid::from_raw),
        id("gid").map(nix::unistd::Gid::from_raw),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .map_err(call)
}

/// Copies what a folder holds into a new one: folders, files and links, with modes and owners.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let path = |fd: BorrowedFd<'_>| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    copy_into(&path(from), &path(to), 0)
}

fn copy_into(from: &Path, to: &Path, depth: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
    /// As deep as a path of the longest length can be.
    const DEPTH_MAX: u32 = 2048;
    if depth > DEPTH_MAX {
        return Err(std::io::Error::other("the folder is nested too deeply"));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let known = entry.metadata()?;
        if known.is_dir() {
            fs::create_dir(&target)?;
            copy_into(&source, &target, depth + 1)?;
        } else if known.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if known.is_file() {
            fs::copy(&source, &target)?;
        } else {
            continue;
        }
        lchown(&target, Some(known.uid()), Some(known.gid()))?;
        if !known.is_symlink() {
            fs::set_permissions(&target, fs::Permissions::from_mode(known.mode()))?;
        }
    }
    Ok(())
}
