//! Mounts that only the runtime can prepare, because the container's user namespace may not: idmapped trees and device nodes.
//!
//! Each becomes a detached mount whose descriptor the hook process inherits and attaches. Invariant: the descriptors lie above those that the
//! app keeps, and are closed at the latest by its `execve`.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_sys::mount::{Attributes, NewFilesystem, Reach, clone_tree, map_ids};
use kakoi_sys::process::{CloneFlags, Forked, exit_now, fork_with};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use serde_json::Value;

use super::CreateError;
use crate::stage::{IdMap, StagedMount};

pub(super) fn failed(what: String) -> impl FnOnce(kakoi_sys::CallError) -> CreateError {
    move |error| CreateError::Child {
        what,
        source: super::io(&error),
    }
}

/// Opens the sources of idmapped mounts and notes their descriptors. The answer keeps them open.
pub(super) fn idmapped(
    mounts: &mut [StagedMount],
    linux: &Value,
    lowest: i32,
) -> Result<Vec<OwnedFd>, CreateError> {
    let mut held = Vec::new();
    for mount in mounts {
        let Some(idmap) = &mount.idmap else { continue };
        let what = || format!("the mapped mount at {}", mount.destination.display());
        let namespace = namespace(idmap, linux, &what)?;
        let place = kakoi_sys::mount::open_place(Path::new(&mount.source)).map_err(failed(what()))?;
        let whole = matches!(mount.kind, crate::stage::StagedKind::Bind { recursive: true });
        let reach = |recursive: bool| if recursive { Reach::Recursive } else { Reach::One };
        let tree = clone_tree(place.as_fd(), reach(whole)).map_err(failed(what()))?;
        map_ids(tree.as_fd(), namespace.as_fd(), reach(idmap.recursive)).map_err(failed(what()))?;
        let tree = inheritable(tree, lowest).map_err(failed(what()))?;
        mount.tree = Some(tree.as_raw_fd());
        held.push(tree);
    }
    Ok(held)
}

/// Moves a descriptor above those that the app keeps, and lets children inherit it.
pub(super) fn inheritable(fd: OwnedFd, lowest: i32) -> kakoi_sys::Result<OwnedFd> {
    let moved = nix::fcntl::fcntl(fd.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD(lowest))
        .map_err(|errno| kakoi_sys::CallError { call: "fcntl", errno })?;
    let moved = kakoi_sys::descriptors::take_inherited(moved)?;
    kakoi_sys::descriptors::set_close_on_exec(moved.as_fd(), false)?;
    Ok(moved)
}

/// A user namespace with the mount's own mappings, or with the container's.
fn namespace(idmap: &IdMap, linux: &Value, what: &impl Fn() -> String) -> Result<OwnedFd, CreateError> {
    let (uids, gids) = maps(idmap, linux);
    hold_namespace(&uids, &gids, what)
}

/// A container with more than one mapping: libcontainer would call newuidmap(1), which knows nothing of root's ids. It joins ours.
pub(super) fn container_namespace(linux: &mut Value) -> Result<Option<OwnedFd>, CreateError> {
    let count = |field: &str| linux[field].as_array().map_or(0, Vec::len);
    if count("uidMappings").max(count("gidMappings")) < 2 || !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let idmap = IdMap {
        recursive: false,
        uids: vec![],
        gids: vec![],
    };
    let (uids, gids) = maps(&idmap, linux);
    let namespace = hold_namespace(&uids, &gids, &|| "the user namespace".to_owned())?;
    let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    for entry in linux["namespaces"].as_array_mut().into_iter().flatten() {
        if entry["type"] == "user" {
            entry["path"] = path.clone().into();
        }
    }
    Ok(Some(namespace))
}

/// Lines for `uid_map` and `gid_map`.
fn maps(idmap: &IdMap, linux: &Value) -> (String, String) {
    let lines = |own: &[(u32, u32, u32)], field: &str| -> String {
        let own = own.iter().copied();
        let containers = linux[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = |entry: &Value, name: &str| {
            entry[name]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0)
        };
        let containers = containers.iter().map(|entry| {
            (
                number(entry, "containerID"),
                number(entry, "hostID"),
                number(entry, "size"),
            )
        });
        let line = |(inside, outside, count): (u32, u32, u32)| format!("{inside} {outside} {count}\n");
        if own.len() > 0 {
            own.map(line).collect()
        } else {
            containers.map(line).collect()
        }
    };
    (
        lines(&idmap.uids, "uidMappings"),
        lines(&idmap.gids, "gidMappings"),
    )
}

/// Makes a user namespace with these maps and holds it.
fn hold_namespace(uids: &str, gids: &str, what: &impl Fn() -> String) -> Result<OwnedFd, CreateError> {
    let (waiting, release) = kakoi_sys::descriptors::pipe().map_err(failed(what()))?;
    match fork_with(CloneFlags::NEW_USER, None).map_err(failed(what()))? {
        Forked::Child => {
            drop(release);
            // Only there to hold the namespace until its parent has opened it.
            let ended = nix::unistd::read(waiting.as_raw_fd(), &mut [0]);
            exit_now(i32::from(ended.is_err()))
        }
        Forked::Parent { pid, pidfd } => {
            drop(waiting);
            let opened = open_namespace(pid.as_raw(), uids, gids);
            drop(release);
            kakoi_sys::process::wait_pidfd(pidfd.as_fd(), true).map_err(failed(what()))?;
            opened.map_err(|source| CreateError::Child { what: what(), source })
        }
    }
}

fn open_namespace(pid: i32, uids: &str, gids: &str) -> std::io::Result<OwnedFd> {
    let write = |file: &str, text: &str| {
        fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))?
            .write_all(text.as_bytes())
    };
    write("uid_map", uids)?;
    write("gid_map", gids)?;
    fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
}

/// Makes the document's nodes on a file system of their own and notes a descriptor of each in its entry. The answer keeps them open.
pub(super) fn nodes(devices: &mut [Value], linux: &Value, lowest: i32) -> Result<Vec<OwnedFd>, CreateError> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let what = || "the device nodes".to_owned();
    let fresh = NewFilesystem::open("tmpfs").map_err(failed(what()))?;
    fresh.set("mode", "755").map_err(failed(what()))?;
    let folder = fresh.mount(Attributes::NO_SUID).map_err(failed(what()))?;
    let mut held = Vec::new();
    for (number, device) in devices.iter_mut().enumerate() {
        let path = PathBuf::from(device["path"].as_str().unwrap_or_default());
        let what = || format!("device {}", path.display());
        let call = |errno: nix::errno::Errno| CreateError::Child {
            what: what(),
            source: errno.into(),
        };
        let field = |name: &str| device.get(name).and_then(Value::as_u64);
        let kind = match device["type"].as_str() {
            Some("b") => SFlag::S_IFBLK,
            Some("p") => SFlag::S_IFIFO,
            _ => SFlag::S_IFCHR,
        };
        let name = number.to_string();
        let mode = Mode::from_bits_truncate(field("fileMode").unwrap_or(0o666) as u32);
        let numbers = nix::sys::stat::makedev(field("major").unwrap_or(0), field("minor").unwrap_or(0));
        nix::sys::stat::mknodat(Some(folder.as_raw_fd()), name.as_str(), kind, mode, numbers)
            .map_err(call)?;
        let owner = |name: &str, map: &str| outside(&linux[map], field(name).unwrap_or(0));
        nix::unistd::fchownat(
            Some(folder.as_raw_fd()),
            name.as_str(),
            Some(owner("uid", "uidMappings").into()),
            Some(owner("gid", "gidMappings").into()),
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(call)?;
        // The caller's mask has cut the mode.
        nix::sys::stat::fchmodat(
            Some(folder.as_raw_fd()),
            name.as_str(),
            mode,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .map_err(call)?;
        let node = kakoi_sys::path::open_beneath(folder.as_fd(), Path::new(&name), OFlag::O_PATH, 0)
            .map_err(failed(what()))?;
        let tree = clone_tree(node.as_fd(), Reach::One)
            .and_then(|tree| inheritable(tree, lowest))
            .map_err(failed(what()))?;
        device["tree"] = tree.as_raw_fd().into();
        held.push(tree);
    }
    Ok(held)
}

/// The id outside of an id inside.
pub(super) fn outside(mappings: &Value, inside: u64) -> u32 {
    let list = mappings.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = list.iter().find_map(|entry| {
        let number = |name: &str| entry[name].as_u64();
        let (first, host, size) = (number("containerID")?, number("hostID")?, number("size")?);
        (inside >= first && inside - first < size).then(|| host + (inside - first))
    });
    found
        .and_then(|id| u32::try_from(id).ok())
        .unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::outside;
    use serde_json::json;

    #[test]
    fn ids_are_mapped_outwards() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5, "size": 1}]);
        assert_eq!((outside(&map, 3), outside(&map, 10)), (1003, 5));
        assert_eq!(outside(&map, 11), u32::MAX - 1);
    }
}
