//! A container without a mount namespace of its own.
//!
//! Owns keeping the host's mount table as it was: libcontainer changes the propagation of the whole tree that it mounts in and never unmounts.
//! Such a document is refused where that change would be one, and what was mounted for it is detached when it is removed. Refuses to look
//! at mounts that the app made itself elsewhere: it was given the host's tree. Invariant: only what came to lie on the container's root
//! since the creation is detached.
//!
//! ```text
//! mounts.json: {"rootfs":"/b/rootfs","before":[27]}
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::CreateError;
use crate::cgroup::unescape;
use crate::prepare::PrepareError;

/// The file in the container's state folder.
const FILE: &str = "mounts.json";

/// What lay on the container's root before it was made.
#[derive(Serialize, Deserialize)]
struct Before {
    rootfs: PathBuf,
    /// Mount ids (proc_pid_mountinfo(5), field 1).
    before: Vec<u64>,
}

/// Whether the document has the container mount where the runtime itself lives.
fn is_shared(spec: &Value) -> bool {
    let list = spec["linux"]["namespaces"].as_array();
    let Some(entry) = list.into_iter().flatten().find(|entry| entry["type"] == "mount") else {
        return true;
    };
    let Some(path) = entry["path"].as_str().filter(|path| !path.is_empty()) else {
        return false;
    };
    let place = |path: &str| fs::metadata(path).map(|known| (known.dev(), known.ino()));
    matches!((place(path), place("/proc/self/ns/mnt")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// Has a container without a mount namespace of its own leave the host's table as it is: refuses a host whose tree would be changed by more
/// than mounts on the root, and notes what lies there.
pub(super) fn note(state_dir: &Path, rootfs: &Path, spec: &mut Value) -> Result<(), CreateError> {
    if !is_shared(spec) {
        return Ok(());
    }
    let table = table().map_err(|source| failed(Path::new("/proc/self/mountinfo"), source))?;
    if let Some(point) = propagating(&table) {
        return Err(CreateError::Prepare(PrepareError::Unsupported(format!(
            "a container without a mount namespace of its own would cut the host's mounts off from each other, of which {} is shared: \
             add {{\"type\":\"mount\"}} to linux.namespaces",
            point.display()
        ))));
    }
    // As everything is already; the document's own word would be the host's.
    spec["linux"]["rootfsPropagation"] = json!("private");
    let before = Before {
        rootfs: rootfs.to_owned(),
        before: on(&table, rootfs),
    };
    super::bundle::write(state_dir, FILE, &before)
}

/// Detaches what was mounted on the root, with all that lies below. A container with a mount namespace has nothing there.
pub(super) fn clear(state_dir: &Path) -> std::io::Result<()> {
    let path = state_dir.join(FILE);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        answer => answer?,
    };
    let noted: Before = serde_json::from_slice(&text)?;
    let now = on(&table()?, &noted.rootfs);
    for _ in now.iter().filter(|id| !noted.before.contains(id)) {
        umount2(&noted.rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    fs::remove_file(path)
}

fn failed(path: &Path, source: std::io::Error) -> CreateError {
    CreateError::State {
        path: path.to_owned(),
        source,
    }
}

fn table() -> std::io::Result<String> {
    fs::read_to_string("/proc/self/mountinfo")
}

/// The ids of the mounts at a point.
fn on(table: &str, point: &Path) -> Vec<u64> {
    let fields = table.lines().map(|line| line.split(' '));
    fields
        .filter_map(|mut fields| Some((fields.next()?.parse().ok()?, unescape(fields.nth(3)?))))
        .filter(|(_, at)| at == point)
        .map(|(id, _)| id)
        .collect()
}

/// The first mount that gives events to others or takes them.
fn propagating(table: &str) -> Option<PathBuf> {
    let tagged = |line: &&str| {
        let mut optional = line.split(' ').skip(6).take_while(|field| *field != "-");
        optional.any(|field| field.starts_with("shared:") || field.starts_with("master:"))
    };
    let line = table.lines().find(tagged)?;
    line.split(' ').nth(4).map(unescape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
         94 27 254:0 /b /my\\040b rw,relatime - ext4 shared:x rw\n";

    #[test]
    fn mounts_at_the_root_are_told_from_others() {
        assert_eq!(on(TABLE, Path::new("/my b")), [94]);
        assert_eq!(on(TABLE, Path::new("/my")), [] as [u64; 0]);
    }

    #[test]
    fn only_a_tag_makes_a_mount_propagate() {
        assert_eq!(propagating(TABLE), None);
        for tag in ["shared:1", "master:2", "unbindable shared:1"] {
            let table = TABLE.replace(
                "/my\\040b rw,relatime -",
                &format!("/my\\040b rw,relatime {tag} -"),
            );
            assert_eq!(propagating(&table), Some("/my b".into()), "{tag}");
        }
    }

    #[test]
    fn a_namespace_is_shared_by_absence_and_by_path() {
        let spec = |entries: Value| json!({"linux": {"namespaces": entries}});
        assert!(is_shared(&spec(json!([{"type": "pid"}]))));
        assert!(is_shared(&json!({})));
        assert!(is_shared(&spec(
            json!([{"type": "mount", "path": "/proc/self/ns/mnt"}])
        )));
        assert!(!is_shared(&spec(
            json!([{"type": "mount", "path": "/proc/self/ns/uts"}])
        )));
        assert!(!is_shared(&spec(json!([{"type": "mount"}]))));
    }
}
