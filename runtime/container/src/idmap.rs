//! Layers seen through a user namespace's mapping.
//!
//! Owns the mapped mounts of layers below `<run>/mapped/`. Refuses to fall back to changing owners on disk: layers are shared between containers. Invariant: the
//! mapping is the container's own, from the plan.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_sys::mount::{Reach, attach, clone_tree, map_ids, open_place};
use kakoi_sys::process::{CloneFlags, Forked, exit_now, fork_with, wait_pidfd};

use crate::plan::{IdMapping, RunPlan};
use crate::rootfs::RootfsError;
use crate::spec::has_user_namespace;

/// Returns the folders to stack: the layers themselves, or mounts of them that show every owner as the container's mapping has it.
pub(crate) fn mapped_layers(plan: &RunPlan, layers: Vec<PathBuf>) -> Result<Vec<PathBuf>, RootfsError> {
    if !has_user_namespace(plan) {
        return Ok(layers);
    }
    let first = layers.first().cloned().unwrap_or_default();
    let fail = |path: &Path, error: io::Error| RootfsError::IdMap {
        path: path.to_path_buf(),
        source: error,
    };
    let namespace = user_namespace(plan).map_err(|error| fail(&first, error))?;
    let folder = plan.run_dir.join("mapped");
    let mut mapped = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let target = folder.join(number.to_string());
        map_layer(layer, &target, &namespace).map_err(|error| fail(layer, error))?;
        mapped.push(target);
    }
    Ok(mapped)
}

fn map_layer(layer: &Path, target: &Path, namespace: &OwnedFd) -> io::Result<()> {
    let call = |error: kakoi_sys::CallError| io::Error::from(error.errno);
    fs::create_dir_all(target)?;
    let tree = clone_tree(open_place(layer).map_err(call)?.as_fd(), Reach::One).map_err(call)?;
    map_ids(tree.as_fd(), namespace.as_fd(), Reach::One).map_err(call)?;
    attach(tree.as_fd(), open_place(target).map_err(call)?.as_fd()).map_err(call)
}

/// Makes a user namespace with the plan's mapping. A process has to live in it while it is mapped; the descriptor then keeps it.
fn user_namespace(plan: &RunPlan) -> io::Result<OwnedFd> {
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
                fs::write(format!("/proc/{pid}/uid_map"), lines(&plan.id_mappings.uids))?;
                fs::write(format!("/proc/{pid}/gid_map"), lines(&plan.id_mappings.gids))?;
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
