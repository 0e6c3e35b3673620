//! Device rules: which nodes are made inside and what the control group allows.
//!
//! Owns the search for a rule's nodes on the host, globs included. Invariant: a node is made only if the control group
//! also allows it, and the control group's list starts from nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::{DeviceAccess, DeviceKind, DeviceRule};
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};
use thiserror::Error;

/// The most nodes all rules of one container may find.
const NODES_MAX: usize = 1024;

/// Nodes that every container has, with their numbers (the kernel's devices.txt); libcontainer makes them.
const STANDARD: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn standard(path: &str) -> Option<(u32, u32)> {
    let known = STANDARD.iter().find(|(name, _, _)| *name == path)?;
    Some((known.1, known.2))
}

/// A device node of the host that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Its path, the same on the host and inside.
    pub path: String,
    /// Char or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits on the host.
    pub mode: u32,
    /// Owner on the host.
    pub uid: u32,
    /// Group on the host.
    pub gid: u32,
    /// What its rule allows.
    pub access: DeviceAccess,
}

/// Why a rule's nodes were not found.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A path without wildcards does not exist or cannot be read.
    #[error("look up device {path} of policy rule {rule}")]
    Missing {
        /// The path.
        path: String,
        /// The policy rule.
        rule: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A path is something else than a device node.
    #[error("{path} of policy rule {rule} is not a device")]
    NotADevice {
        /// The path.
        path: String,
        /// The policy rule.
        rule: String,
    },
    /// A path leaves `/dev` or is not absolute.
    #[error("device path {path} of policy rule {rule} is not below /dev")]
    Outside {
        /// The path.
        path: String,
        /// The policy rule.
        rule: String,
    },
    /// Globs match more nodes than a container may have.
    #[error("device rules match more than {NODES_MAX} nodes")]
    TooMany,
}

/// Finds the nodes that the rules name. A glob that matches nothing is no error: the device may be unplugged. Standard nodes are left out.
pub fn find_devices(rules: &[DeviceRule]) -> Result<Vec<HostDevice>, DeviceError> {
    let mut found: Vec<HostDevice> = Vec::new();
    for rule in rules {
        let Some(pattern) = rule.path.as_deref() else {
            continue;
        };
        if standard(pattern).is_some() {
            continue;
        }
        if !pattern.starts_with("/dev/") || pattern.split('/').any(|part| part == "..") {
            return Err(DeviceError::Outside {
                path: pattern.into(),
                rule: rule.rule.clone(),
            });
        }
        let is_glob = has_wildcard(pattern);
        let paths = if is_glob {
            expand(pattern)
        } else {
            vec![PathBuf::from(pattern)]
        };
        for path in paths {
            let Some(device) = node(&path, rule, is_glob)? else {
                continue;
            };
            if !found.iter().any(|other| other.path == device.path) {
                found.push(device);
            }
            if found.len() > NODES_MAX {
                return Err(DeviceError::TooMany);
            }
        }
    }
    Ok(found)
}

/// The rules with numbers in the place of paths: one for each node that is found. What is left allows nothing that no rule named.
pub fn numbered(rules: &[DeviceRule]) -> Result<Vec<DeviceRule>, DeviceError> {
    let mut numbered = Vec::new();
    for rule in rules {
        let of = |kind, major, minor| DeviceRule {
            kind,
            major: Some(major),
            minor: Some(minor),
            path: None,
            ..rule.clone()
        };
        match rule.path.as_deref().map(standard) {
            None => numbered.push(rule.clone()),
            Some(Some((major, minor))) => numbered.push(of(DeviceKind::Char, major, minor)),
            Some(None) => {
                let found = find_devices(std::slice::from_ref(rule))?;
                numbered.extend(found.iter().map(|node| of(node.kind, node.major, node.minor)));
            }
        }
    }
    Ok(numbered)
}

fn node(path: &Path, rule: &DeviceRule, is_glob: bool) -> Result<Option<HostDevice>, DeviceError> {
    let text = path.to_string_lossy().into_owned();
    // Links below /dev (by-id names) are the host's own and are followed.
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(_) if is_glob => return Ok(None),
        Err(source) => {
            return Err(DeviceError::Missing {
                path: text,
                rule: rule.rule.clone(),
                source,
            });
        }
    };
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ if is_glob => return Ok(None),
        _ => {
            return Err(DeviceError::NotADevice {
                path: text,
                rule: rule.rule.clone(),
            });
        }
    };
    if rule.kind != DeviceKind::All && rule.kind != kind {
        return Ok(None);
    }
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Some(HostDevice {
        path: text,
        kind,
        major: number(major(meta.rdev())),
        minor: number(minor(meta.rdev())),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: rule.access,
    }))
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for path in paths {
            if !has_wildcard(part) {
                next.push(path.join(part));
                continue;
            }
            let Ok(entries) = fs::read_dir(&path) else {
                continue;
            };
            for entry in entries.flatten() {
                if matches(part.as_bytes(), entry.file_name().as_encoded_bytes()) {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        // A hostile pattern cannot make this grow without end: one step past the limit is enough to report it.
        next.truncate(NODES_MAX + 1);
        paths = next;
    }
    paths
}

/// Matches one path component against `*`, `?` and `[a-z]`, `[!a-z]` (glob(7)).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, n));
            p += 1;
            continue;
        }
        if let Some(width) = matches_one(&pattern[p..], name[n]) {
            p += width;
            n += 1;
            continue;
        }
        match retry {
            Some((after, at)) => {
                p = after;
                n = at + 1;
                retry = Some((after, at + 1));
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// How many pattern bytes match `byte`, if they do.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let close = pattern.iter().skip(2).position(|b| *b == b']')? + 2;
            let (negated, set) = match pattern[1] {
                b'!' => (true, &pattern[2..close]),
                _ => (false, &pattern[1..close]),
            };
            let mut hit = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == b'-' {
                    hit |= (set[i]..=set[i + 2]).contains(&byte);
                    i += 3;
                } else {
                    hit |= set[i] == byte;
                    i += 1;
                }
            }
            (hit != negated).then_some(close + 1)
        }
        literal => (literal == byte).then_some(1),
    }
}

fn letters(access: DeviceAccess) -> String {
    [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')]
        .into_iter()
        .filter_map(|(on, letter)| on.then_some(letter))
        .collect()
}

/// The control group's list: nothing, then what rules and found nodes allow.
pub(super) fn cgroup_rules(rules: &[DeviceRule], found: &[HostDevice]) -> Vec<Value> {
    let mut list = vec![json!({"allow": false, "access": "rwm"})];
    let mut allow = |kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: DeviceAccess| {
        let kinds: &[&str] = match kind {
            DeviceKind::All => &["c", "b"],
            DeviceKind::Char => &["c"],
            DeviceKind::Block => &["b"],
        };
        for kind in kinds {
            let mut rule = json!({"allow": true, "type": kind, "access": letters(access)});
            if let Some(major) = major {
                rule["major"] = json!(major);
            }
            if let Some(minor) = minor {
                rule["minor"] = json!(minor);
            }
            list.push(rule);
        }
    };
    for rule in rules {
        // A rule that names nodes allows those that were found, not every number.
        match rule.path.as_deref().map(standard) {
            None => allow(rule.kind, rule.major, rule.minor, rule.access),
            Some(Some((major, minor))) => allow(DeviceKind::Char, Some(major), Some(minor), rule.access),
            Some(None) => {}
        }
    }
    for device in found {
        allow(device.kind, Some(device.major), Some(device.minor), device.access);
    }
    list
}

/// The nodes to make.
pub(super) fn nodes(found: &[HostDevice]) -> Vec<Value> {
    let node = |device: &HostDevice| {
        json!({
            "path": device.path,
            "type": if device.kind == DeviceKind::Block { "b" } else { "c" },
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        })
    };
    found.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_glob_7_says() {
        let rows: [(&str, &str, bool); 12] = [
            ("ttyUSB*", "ttyUSB0", true),
            ("ttyUSB*", "ttyS0", false),
            ("tty?", "ttyS", true),
            ("tty?", "ttyS0", false),
            ("i2c-[0-3]", "i2c-2", true),
            ("i2c-[0-3]", "i2c-7", false),
            ("i2c-[!0-3]", "i2c-7", true),
            ("i2c-[!0-3]", "i2c-2", false),
            ("*a*b", "xxaxxb", true),
            ("*a*b", "xxbxxa", false),
            ("[", "[", false),
            ("", "x", false),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} against {name}"
            );
        }
    }

    #[test]
    fn a_rule_finds_its_node_and_a_missing_or_foreign_one_stops_the_start() {
        let rule = |path: &str| DeviceRule {
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess {
                read: true,
                write: false,
                mknod: false,
            },
            path: Some(path.into()),
            rule: "test".into(),
        };
        let found = find_devices(&[rule("/dev/ptmx"), rule("/dev/nothing*")]).expect("ptmx exists");
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].major, found[0].minor, found[0].kind),
            (5, 2, DeviceKind::Char)
        );
        let list = cgroup_rules(&[rule("/dev/ptmx")], &found);
        assert_eq!(list[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(
            list[1..],
            [json!({"allow": true, "type": "c", "access": "r", "major": 5, "minor": 2})]
        );
        // A node that every container has is not made again, and its rule allows it alone.
        assert!(find_devices(&[rule("/dev/null")]).expect("known").is_empty());
        assert_eq!(
            cgroup_rules(&[rule("/dev/null")], &[])[1..],
            [json!({"allow": true, "type": "c", "access": "r", "major": 1, "minor": 3})]
        );
        let numbers = |path: &str| -> Vec<_> {
            let rules = numbered(&[rule(path)]).expect("resolved");
            let plain = rules.iter().all(|rule| rule.path.is_none());
            assert!(plain, "{rules:?}");
            rules
                .iter()
                .map(|rule| (rule.kind, rule.major, rule.minor))
                .collect()
        };
        assert_eq!(numbers("/dev/ptmx"), [(DeviceKind::Char, Some(5), Some(2))]);
        assert_eq!(numbers("/dev/zero"), [(DeviceKind::Char, Some(1), Some(5))]);
        assert_eq!(numbers("/dev/nothing*"), []);
        assert!(numbered(&[rule("/dev/nothing")]).is_err());
        assert!(matches!(
            find_devices(&[rule("/dev/nothing")]),
            Err(DeviceError::Missing { .. })
        ));
        assert!(matches!(
            find_devices(&[rule("/dev/../etc/passwd")]),
            Err(DeviceError::Outside { .. })
        ));
        assert!(matches!(
            find_devices(&[rule("/etc/passwd")]),
            Err(DeviceError::Outside { .. })
        ));
    }
}
