//! From an OCI document to a [`Confinement`].
//!
//! Owns the reading of the document's security fields. A policy named by the annotation `io.kakoi.policy` bounds it further. Invariant: a field
//! that is absent grants nothing.

use std::path::Path;

use kakoi_container::capability;
use kakoi_policy::confinement::{
    CONFINEMENT_FORMAT, CapabilitySets, Confinement, Filesystem, Identity, Landlock, Limits, NetworkMode,
    PolicyIdentity, Reach, Seccomp, UserNamespace,
};
use kakoi_policy::kernel::Arch;
use serde_json::Value;

use super::Failed;

/// The policy's name where the document alone confines.
pub(super) const DOCUMENT_POLICY: &str = "oci-document";

/// The mask of a process whose document names none.
const UMASK: u32 = 0o022;

/// Makes the confinement of a container.
pub(super) fn from_spec(spec: &Value, _bundle: &Path) -> Result<Confinement, Failed> {
    let process = spec.get("process").filter(|process| process.is_object());
    let process = process.ok_or_else(|| Failed::new("the configuration has no process"))?;
    let arch = Arch::native().ok_or_else(|| Failed::new("no system call table for this architecture"))?;
    let linux = &spec["linux"];
    let label = ["selinuxLabel"]
        .into_iter()
        .find(|field| process[*field].as_str().is_some_and(|text| !text.is_empty()));
    if label.is_some() {
        return Err(Failed::new("SELinux labels are not supported"));
    }
    let namespace = |kind: &str| {
        let list = linux["namespaces"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        list.iter().any(|entry| entry["type"].as_str() == Some(kind))
    };
    Ok(Confinement {
        format: CONFINEMENT_FORMAT,
        arch,
        policy: PolicyIdentity {
            name: DOCUMENT_POLICY.to_owned(),
            sha256: String::new(),
        },
        identity: identity(process, None)?,
        no_new_privileges: process["noNewPrivileges"].as_bool().unwrap_or(false),
        capabilities: capabilities(process)?,
        seccomp: seccomp(linux, arch)?,
        landlock: Landlock::Unconfined,
        devices: Vec::new(),
        limits: Limits {
            memory_bytes: None,
            swap_bytes: None,
            cpu_millis: None,
            pids: None,
            open_files: None,
            io_read_bytes_per_second: None,
            io_write_bytes_per_second: None,
            tmpfs_bytes: None,
        },
        filesystem: Filesystem {
            read_only_root: spec["root"]["readonly"].as_bool().unwrap_or(false),
            masked_paths: strings(linux.get("maskedPaths")),
            read_only_paths: strings(linux.get("readonlyPaths")),
            mounts: Vec::new(),
        },
        reach: Reach::Networks,
        network: if namespace("network") {
            NetworkMode::None
        } else {
            NetworkMode::Host
        },
        user_namespace: if namespace("user") {
            UserNamespace::Auto
        } else {
            UserNamespace::Host
        },
        losses: Vec::new(),
    })
}

fn seccomp(linux: &Value, arch: Arch) -> Result<Seccomp, Failed> {
    match linux.get("seccomp").filter(|value| !value.is_null()) {
        None => Ok(Seccomp::Unconfined),
        Some(document) => {
            kakoi_policy::from_oci(document, arch).map_err(|error| Failed::of("linux.seccomp", &error))
        }
    }
}

/// Reads a list of strings.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Who a process is; groups that the document does not name are none.
pub(super) fn identity(process: &Value, umask_of: Option<&Identity>) -> Result<Identity, Failed> {
    let user = &process["user"];
    let number = |value: &Value, field: &str| match value {
        Value::Null => Ok(0),
        value => {
            let number = value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|id| *id != u32::MAX);
            number.ok_or_else(|| Failed::new(format!("process.user.{field} is not an id")))
        }
    };
    let groups = user["additionalGids"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let umask = match &user["umask"] {
        Value::Null => umask_of.map_or(UMASK, |identity| identity.umask),
        value => number(value, "umask")? & 0o777,
    };
    Ok(Identity {
        uid: number(&user["uid"], "uid")?,
        gid: number(&user["gid"], "gid")?,
        groups: groups
            .iter()
            .map(|group| number(group, "additionalGids"))
            .collect::<Result<_, _>>()?,
        umask,
    })
}

/// The five sets; an absent one is empty, and what the kernel would refuse is left out as every runtime does.
pub(super) fn capabilities(process: &Value) -> Result<CapabilitySets, Failed> {
    let last = kakoi_sys::capability::last()
        .map_err(|error| Failed::of("read the kernel's last capability", &error))?;
    // What this process cannot have itself it cannot give; the specification has that logged, not refused.
    let own = kakoi_sys::capability::bounding()
        .map_err(|error| Failed::of("read the bounding capability set", &error))?;
    let known = (u64::MAX >> (63 - u32::from(last.min(63)))) & own;
    // A name that a newer kernel would know is left out; one that none knows is a mistake.
    let set = |name: &str| -> Result<u64, Failed> {
        let names = strings(process["capabilities"].get(name));
        let mut mask = 0;
        for name in &names {
            mask |=
                capability::bit(name).ok_or_else(|| Failed::new(format!("unknown capability {name:?}")))?;
        }
        Ok(mask & known)
    };
    let (bounding, permitted, inheritable) = (set("bounding")?, set("permitted")?, set("inheritable")?);
    Ok(CapabilitySets {
        bounding,
        permitted,
        effective: set("effective")? & permitted,
        inheritable,
        ambient: set("ambient")? & permitted & inheritable,
    })
}

/// What of the wanted sets lies within the given bounds.
pub(super) fn within(wanted: CapabilitySets, bounds: CapabilitySets) -> CapabilitySets {
    let limit = bounds.bounding | bounds.permitted;
    CapabilitySets {
        bounding: wanted.bounding & limit,
        permitted: wanted.permitted & limit,
        effective: wanted.effective & limit,
        inheritable: wanted.inheritable & limit,
        ambient: wanted.ambient & limit,
    }
}

/// Resource limits: name, soft, hard.
pub(super) fn rlimits(process: &Value) -> Result<Vec<(String, u64, u64)>, Failed> {
    let list = process["rlimits"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .map(|limit| {
            let (name, soft, hard) = (
                limit["type"].as_str(),
                limit["soft"].as_u64(),
                limit["hard"].as_u64(),
            );
            match (name, soft, hard) {
                (Some(name), Some(soft), Some(hard)) => Ok((name.to_owned(), soft, hard)),
                _ => Err(Failed::new("process.rlimits is malformed")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_absent_grants_nothing() {
        let confinement = from_spec(&json!({"process": {"args": ["x"]}}), Path::new("/")).expect("made");
        assert_eq!(
            confinement.capabilities,
            CapabilitySets {
                bounding: 0,
                permitted: 0,
                effective: 0,
                inheritable: 0,
                ambient: 0
            }
        );
        assert!(confinement.identity.groups.is_empty());
        assert!(from_spec(&json!({}), Path::new("/")).is_err());
        assert!(from_spec(&json!({"process": {"user": {"uid": -1}}}), Path::new("/")).is_err());
    }

    #[test]
    fn an_added_process_stays_within_bounds() {
        let wide = CapabilitySets {
            bounding: 7,
            permitted: 7,
            effective: 7,
            inheritable: 7,
            ambient: 7,
        };
        let narrow = CapabilitySets {
            bounding: 1,
            permitted: 1,
            effective: 1,
            inheritable: 0,
            ambient: 0,
        };
        assert_eq!(within(wide, narrow).permitted, 1);
    }
}
