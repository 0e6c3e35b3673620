//! Mount options, and which mounts are ours to make.
//!
//! Pure. Owns the words of the specification's option table (config.md, "Linux mount options") as far as libcontainer does not follow them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::words;

/// The most mappings of one idmapped mount: the kernel's own limit (user_namespaces(7)).
const MAPPINGS_MAX: usize = 340;

/// A mount of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedMount {
    pub destination: PathBuf,
    pub source: String,
    pub kind: StagedKind,
    /// Attributes set on the mount itself (`MOUNT_ATTR_*`).
    pub set: u64,
    /// Attributes taken from it.
    pub clear: u64,
    /// Attributes set on it and all mounts below.
    pub recursive_set: u64,
    /// Attributes taken from it and all mounts below.
    pub recursive_clear: u64,
    /// Options of the file system.
    pub data: Vec<String>,
    /// Propagation words, applied last.
    pub propagation: Vec<String>,
    /// Whether what the root has at the target is copied into a new tmpfs.
    pub copy_up: bool,
    /// Mappings of an idmapped mount.
    pub idmap: Option<IdMap>,
    /// Whether a link at the source is bound itself.
    pub source_no_follow: bool,
    /// The number of an inherited descriptor of the source's tree, where the runtime had to open it.
    pub tree: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StagedKind {
    Bind { recursive: bool },
    CgroupV1,
    Filesystem(String),
}

/// An idmapped mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap {
    /// Whether mounts below are mapped as well.
    pub recursive: bool,
    /// `uid_map` lines (inside, outside, count); empty takes the container's user namespace.
    pub uids: Vec<(u32, u32, u32)>,
    /// `gid_map` lines.
    pub gids: Vec<(u32, u32, u32)>,
}

/// Why options are refused.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Only a bind mount can be idmapped here.
    #[error("idmapped mounts must be bind mounts")]
    IdmapNeedsBind,
    /// One of the two lists is missing or empty.
    #[error("uidMappings and gidMappings must be given together")]
    IdmapIncomplete,
    /// A mapping is malformed.
    #[error("id mapping {0:?} is malformed")]
    Mapping(String),
    /// More mappings than the kernel takes.
    #[error("more than {MAPPINGS_MAX} id mappings")]
    TooManyMappings,
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Attribute words: (word, set, clear). With an `r` before it a word works on all mounts below as well.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", STRICTATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// Whether a mount asks to share with the host's tree, which must then not be cut off before.
pub(crate) fn shares(mount: &Map<String, Value>) -> bool {
    words(mount, "options")
        .iter()
        .any(|word| matches!(word.as_str(), "slave" | "rslave" | "shared" | "rshared"))
}

/// Whether a mount shows a part of the host's tree.
pub(crate) fn is_bind(mount: &Map<String, Value>) -> bool {
    mount.get("type").and_then(Value::as_str) == Some("bind")
        || words(mount, "options")
            .iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// Makes a [`StagedMount`] of a mount that libcontainer would not make right, or `None`. `below` says that it lies below one of ours, and
/// `propagates` that propagation words need us.
pub(crate) fn staged(
    mount: &Map<String, Value>,
    cgroup_v1: bool,
    below: bool,
    propagates: bool,
) -> Result<Option<StagedMount>, OptionError> {
    let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default();
    let options = words(mount, "options");
    let kind = text("type");
    let has = |word: &str| options.iter().any(|option| option == word);
    let recursive = has("rbind");
    let is_bind = is_bind(mount);
    let idmap = idmap(mount, &options, is_bind)?;
    let propagation: Vec<String> = options
        .iter()
        .filter(|option| PROPAGATION.contains(&option.as_str()))
        .cloned()
        .collect();
    let is_cgroup = kind == "cgroup" && cgroup_v1;
    let special = is_cgroup
        || below
        || idmap.is_some()
        || (propagates && !propagation.is_empty())
        || ["tmpcopyup", "nosymfollow", "symfollow", "src-nofollow"]
            .iter()
            .any(|word| has(word));
    if !special {
        return Ok(None);
    }
    let mut staged = StagedMount {
        destination: PathBuf::from(text("destination")),
        source: text("source").to_owned(),
        kind: if is_cgroup {
            StagedKind::CgroupV1
        } else if is_bind {
            StagedKind::Bind { recursive }
        } else {
            StagedKind::Filesystem(kind.to_owned())
        },
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        data: Vec::new(),
        propagation,
        copy_up: has("tmpcopyup"),
        idmap,
        source_no_follow: has("src-nofollow"),
        tree: None,
    };
    for option in &options {
        attribute(&mut staged, option);
    }
    Ok(Some(staged))
}

fn attribute(staged: &mut StagedMount, option: &str) {
    const OURS: [&str; 9] = [
        "bind",
        "rbind",
        "defaults",
        "idmap",
        "ridmap",
        "tmpcopyup",
        "src-nofollow",
        "dest-nofollow",
        "remount",
    ];
    let find = |word: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == word);
    if let Some((_, set, clear)) = find(option) {
        staged.set = staged.set & !clear | set;
        staged.clear = staged.clear & !set | clear;
    } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(find) {
        staged.recursive_set = staged.recursive_set & !clear | set;
        staged.recursive_clear = staged.recursive_clear & !set | clear;
    } else if !OURS.contains(&option) && !PROPAGATION.contains(&option) {
        staged.data.push(option.to_owned());
    }
}

fn idmap(
    mount: &Map<String, Value>,
    options: &[String],
    is_bind: bool,
) -> Result<Option<IdMap>, OptionError> {
    let word = options.iter().find_map(|option| {
        let name = option.split_once('=').map_or(option.as_str(), |(name, _)| name);
        ["idmap", "ridmap"].contains(&name).then(|| option.clone())
    });
    let uids = mappings(mount.get("uidMappings"))?;
    let gids = mappings(mount.get("gidMappings"))?;
    if word.is_none() && uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    if !is_bind {
        return Err(OptionError::IdmapNeedsBind);
    }
    if uids.is_empty() != gids.is_empty() {
        return Err(OptionError::IdmapIncomplete);
    }
    let recursive = word.is_some_and(|word| word.starts_with('r'));
    Ok(Some(IdMap {
        recursive,
        uids,
        gids,
    }))
}

fn mappings(value: Option<&Value>) -> Result<Vec<(u32, u32, u32)>, OptionError> {
    let list = value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if list.len() > MAPPINGS_MAX {
        return Err(OptionError::TooManyMappings);
    }
    list.iter()
        .map(|mapping| {
            let number = |field: &str| {
                let number = mapping.get(field).and_then(Value::as_u64);
                number
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or_else(|| OptionError::Mapping(mapping.to_string()))
            };
            Ok((number("containerID")?, number("hostID")?, number("size")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(mount: Value, v1: bool) -> Option<StagedMount> {
        staged(mount.as_object().expect("an object"), v1, false, true).expect("understood")
    }

    #[test]
    fn only_what_needs_us_is_ours() {
        let plain =
            json!({"destination": "/data", "type": "bind", "source": "/d", "options": ["rbind", "ro"]});
        assert_eq!(check(plain, true), None);
        let cgroup =
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
        assert!(check(cgroup.clone(), false).is_none());
        assert_eq!(check(cgroup, true).expect("ours").kind, StagedKind::CgroupV1);
    }

    #[test]
    fn words_become_attributes() {
        let mount = json!({"destination": "/d", "source": "/s", "options":
            ["rbind", "ro", "rnosuid", "rslave", "size=1k", "nodev", "dev"]});
        let staged = check(mount, false).expect("ours");
        assert_eq!((staged.set, staged.clear & NODEV), (RDONLY, NODEV));
        assert_eq!(staged.recursive_set, NOSUID);
        assert_eq!(staged.data, ["size=1k"]);
        assert_eq!(staged.propagation, ["rslave"]);
    }

    #[test]
    fn half_an_idmap_is_refused() {
        let half = json!({"destination": "/d", "source": "/s", "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]});
        let object = half.as_object().expect("an object");
        assert!(matches!(
            staged(object, false, false, false),
            Err(OptionError::IdmapIncomplete)
        ));
        let tmpfs = json!({"destination": "/d", "type": "tmpfs", "options": ["idmap"]});
        let object = tmpfs.as_object().expect("an object");
        assert!(matches!(
            staged(object, false, false, false),
            Err(OptionError::IdmapNeedsBind)
        ));
    }
}
