//! Why a mount failed, found out after it did: libcontainer says of its mounting no more than that it failed.
//!
//! Owns the questions that have an answer for a person: what a target is in the root file system, and by which way it is reached. Refuses to run before a
//! failure: a start that goes well pays nothing for this. Invariant: it changes nothing and follows no link out of the root.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use kakoi_sys::path::{is_folder, open_beneath, open_in_root, open_start};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde_json::Value;

use crate::frames::FailureKind;
use crate::outcome::Failure;

/// The largest document that is read again.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// The first mount of a bundle's document that cannot be made over what its root has; `None` where nothing is to be seen.
pub(super) fn mounts(bundle: &Path) -> Option<Failure> {
    let path = bundle.join("config.json");
    if fs::metadata(&path).ok()?.len() > DOCUMENT_BYTES_MAX {
        return None;
    }
    let document: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let rootfs = Path::new(document["root"]["path"].as_str()?);
    let mounts = document["mounts"].as_array()?;
    let message = mounts.iter().find_map(|mount| look(rootfs, mount))?;
    Some(Failure::new(FailureKind::Runtime, "mount", message))
}

/// What stands in the way of one mount.
fn look(rootfs: &Path, mount: &Value) -> Option<String> {
    let target = mount["destination"].as_str()?;
    let below = Path::new(target).strip_prefix("/").ok()?;
    let root = open_start(rootfs).ok()?;
    let place = OFlag::O_PATH;
    if let Err(error) = open_beneath(root.as_fd(), below, place, 0)
        && error.errno == Errno::ELOOP
    {
        return Some(format!(
            "mount at {target}: {target} in the image is a symbolic link or is reached by one; mount at the place that it leads to, or use another image"
        ));
    }
    let is_bind = mount["type"] == "bind"
        || mount["options"]
            .as_array()
            .is_some_and(|options| options.iter().any(|option| option == "bind" || option == "rbind"));
    let wants_folder = match is_bind {
        true => fs::metadata(mount["source"].as_str()?).ok()?.is_dir(),
        false => true,
    };
    let found = open_in_root(root.as_fd(), below, place, 0);
    match found {
        Ok(found) if is_folder(found.as_fd()).ok()? == wants_folder => None,
        Ok(_) => {
            let (held, wanted) = match wants_folder {
                true => ("a file", "a folder"),
                false => ("a folder", "a file"),
            };
            Some(format!(
                "mount at {target}: the image has {held} at {target}, and {wanted} is to be mounted there; use another target"
            ))
        }
        Err(error) if error.errno == Errno::ENOTDIR => Some(format!(
            "mount at {target}: a part of {target} in the image is a file and no folder; use another target"
        )),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_in_the_way_is_named_and_what_does_not_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let rootfs = folder.path().join("rootfs");
        fs::create_dir_all(rootfs.join("folder")).expect("a folder");
        fs::write(rootfs.join("file"), "").expect("a file");
        std::os::unix::fs::symlink("/folder", rootfs.join("link")).expect("a link");
        let host_file = folder.path().join("host");
        fs::write(&host_file, "").expect("a file");
        let said = |mounts: Value| {
            let document = json!({ "root": { "path": rootfs }, "mounts": mounts });
            fs::write(folder.path().join("config.json"), document.to_string()).expect("a file");
            super::mounts(folder.path()).map(|failure| failure.message)
        };
        let memory = |target: &str| json!([{ "destination": target, "type": "tmpfs", "source": "tmpfs" }]);
        let bind = |target: &str| json!([{ "destination": target, "type": "bind", "source": host_file }]);
        for fine in [
            memory("/folder"),
            memory("/new/deep"),
            bind("/file"),
            bind("/new"),
            json!([]),
        ] {
            assert_eq!(said(fine.clone()), None, "{fine}");
        }
        for (mounts, words) in [
            (memory("/file"), "a file at /file, and a folder"),
            (memory("/file/below"), "is a file and no folder"),
            (bind("/folder"), "a folder at /folder, and a file"),
            (memory("/link"), "is a symbolic link"),
            (memory("/link/below"), "or is reached by one"),
        ] {
            let said = said(mounts).expect(words);
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
