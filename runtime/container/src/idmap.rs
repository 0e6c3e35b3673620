//! Layers and volumes seen through a user namespace's mapping.
//!
//! Owns the mapped mounts of layers below `<run>/mapped/`, and the mapping itself. Refuses to fall back to changing owners on disk: layers are shared between containers. Invariant: the
//! mapping is the container's own, from the plan.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_sys::CallError;
use kakoi_sys::mount::{Reach, attach, clone_tree, map_ids, open_place};
use kakoi_sys::process::{CloneFlags, Forked, exit_now, fork_with, wait_pidfd};
use nix::errno::Errno;

use crate::plan::{IdMapping, IdMappings, RunPlan};
use crate::rootfs::RootfsError;
use crate::spec::has_user_namespace;

/// A user namespace with the plan's mapping, to map mounts with; `None` where the container shares the host's.
pub(crate) fn namespace(plan: &RunPlan) -> Result<Option<OwnedFd>, RootfsError> {
    if !has_user_namespace(plan) {
        return Ok(None);
    }
    user_namespace(&plan.id_mappings)
        .map(Some)
        .map_err(RootfsError::UserNamespace)
}

/// Returns the folders to stack: the layers themselves, or, with a user namespace, mounts of them that show every owner as its mapping has it.
pub(crate) fn mapped_layers(
    plan: &RunPlan,
    layers: Vec<PathBuf>,
    namespace: Option<&OwnedFd>,
) -> Result<Vec<PathBuf>, RootfsError> {
    let Some(namespace) = namespace else {
        return Ok(layers);
    };
    let folder = plan.run_dir.join("mapped");
    let mut mapped = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let target = folder.join(number.to_string());
        map_layer(layer, &target, namespace).map_err(|source| RootfsError::IdMap {
            path: layer.clone(),
            source,
        })?;
        mapped.push(target);
    }
    Ok(mapped)
}

/// Maps a detached mount; `false` where its file system cannot be mapped on this kernel, or is already.
pub(crate) fn try_map(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<bool, Errno> {
    match map_ids(mount, namespace, Reach::One) {
        Ok(()) => Ok(true),
        Err(CallError {
            errno: Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM,
            ..
        }) => Ok(false),
        Err(error) => Err(error.errno),
    }
}

/// The id inside that an id outside stands for.
pub(crate) fn inside(mappings: &[IdMapping], outside: u32) -> Option<u32> {
    let hit = mappings
        .iter()
        .find(|m| outside >= m.outside && outside - m.outside < m.count)?;
    Some(hit.inside + (outside - hit.outside))
}

fn map_layer(layer: &Path, target: &Path, namespace: &OwnedFd) -> io::Result<()> {
    let call = |error: kakoi_sys::CallError| io::Error::from(error.errno);
    fs::create_dir_all(target)?;
    let tree = clone_tree(open_place(layer).map_err(call)?.as_fd(), Reach::One).map_err(call)?;
    map_ids(tree.as_fd(), namespace.as_fd(), Reach::One).map_err(call)?;
    attach(tree.as_fd(), open_place(target).map_err(call)?.as_fd()).map_err(call)
}

/// Makes a user namespace with a mapping. A process has to live in it while it is mapped; the descriptor then keeps it.
fn user_namespace(mappings: &IdMappings) -> io::Result<OwnedFd> {
    let call = |error: kakoi_sys::CallError| io::Error::from(error.errno);
    let (go, go_writer) = kakoi_sys::descriptors::pipe().map_err(call)?;
    match fork_with(CloneFlags::NEW_USER, None).map_err(call)? {
        Forked::Child => {
            drop(go_writer);
            // Ends when the other side does, whatever it could do until then.
            let read = io::Read::read(&mut fs::File::from(go), &mut [0]);
            exit_now(i32::from(read.is_err()))
        }
        Forked::Parent { pid, pidfd } => {
            drop(go);
            let map = || -> io::Result<OwnedFd> {
                fs::write(format!("/proc/{pid}/uid_map"), lines(&mappings.uids))?;
                fs::write(format!("/proc/{pid}/gid_map"), lines(&mappings.gids))?;
                Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
            };
            let mapped = map();
            drop(go_writer);
            wait_pidfd(pidfd.as_fd(), true).map_err(call)?;
            mapped
        }
    }
}

fn lines(mappings: &[IdMapping]) -> String {
    let line = |m: &IdMapping| format!("{} {} {}\n", m.inside, m.outside, m.count);
    mappings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use kakoi_sys::mount::{Attributes, NewFilesystem};

    use super::*;

    #[test]
    fn a_file_system_without_mapped_mounts_is_told_from_a_failure() {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out(
                "root",
                "a_file_system_without_mapped_mounts_is_told_from_a_failure: needs root",
            );
            return;
        }
        // A process of one's own must have one thread to fork, which a test has not.
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is there");
        let mut input = holder.stdin.take().expect("it is a pipe");
        input.write_all(b"x").expect("it reads");
        let mut byte = [0];
        let mut output = holder.stdout.take().expect("it is a pipe");
        output.read_exact(&mut byte).expect("it is in its namespace");
        let namespace = fs::File::open(format!("/proc/{}/ns/user", holder.id())).expect("it runs");
        let mount = |kind: &str| {
            let filesystem = NewFilesystem::open(kind).expect("it is built in");
            filesystem.mount(Attributes::NONE).expect("root may mount")
        };
        // ramfs has no mapped mounts on any kernel; one that maps tmpfs (6.3) shows that the call is the right one.
        let tmpfs = try_map(mount("tmpfs").as_fd(), namespace.as_fd());
        assert!(tmpfs.is_ok(), "{tmpfs:?}");
        assert_eq!(try_map(mount("ramfs").as_fd(), namespace.as_fd()), Ok(false));
        let none = fs::File::open("/dev/null").expect("it is there");
        assert_eq!(
            try_map(none.as_fd(), namespace.as_fd()),
            Ok(false),
            "not a mount's root"
        );
        drop(input);
        holder.wait().expect("a child of ours");
    }

    #[test]
    fn ids_outside_are_found_inside_or_not_at_all() {
        let map = [IdMapping {
            inside: 0,
            outside: 100_000,
            count: 65_536,
        }];
        assert_eq!(inside(&map, 100_007), Some(7));
        assert_eq!(inside(&map, 165_536), None);
        assert_eq!(inside(&map, 0), None);
    }
}
