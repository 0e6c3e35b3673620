//! From an OCI document to the one that libcontainer is given.
//!
//! Pure. Owns everything that libcontainer 0.7 would do wrongly, silently or not at all, and that can be put right by changing what it reads:
//! all five capability sets, a device list that starts from nothing, propagation words it does not know, sources it insists on. What it
//! cannot do at all is taken out and returned as [`Leftover`], for us to do. Refuses to know the host. Invariant: the result gives the
//! first process no more than the confinement says.

use std::path::{Component, Path, PathBuf};

use kakoi_policy::confinement::Confinement;
use serde_json::{Map, Value, json};

use crate::capability;
use crate::hook::Hooks;
use crate::stage::{self, StagedMount};

/// What stays for us to do.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    /// Mounts that need our own code, in order.
    pub mounts: Vec<StagedMount>,
    /// Device nodes that libcontainer refuses, as the document gives them.
    pub devices: Vec<Value>,
    /// Device rules in order, the last one that matches deciding; the first denies everything.
    pub device_rules: Vec<Value>,
    /// Every hook.
    pub hooks: Hooks,
    /// `oom_score_adj` of the first process: libcontainer would set it on the caller.
    pub oom_score_adj: Option<i32>,
    /// Resource limits as the document gives them.
    pub rlimits: Vec<Value>,
    /// How it is scheduled, as the document gives it: libcontainer's call fails on every policy.
    pub scheduler: Option<Value>,
    /// Whether the container has a network namespace of its own making.
    pub new_network: bool,
    /// Whether the kernel may not kill at the memory limit: libcontainer leaves it out.
    pub no_oom_kill: bool,
    /// Propagation of the root that libcontainer cannot set itself.
    pub root_propagation: Option<String>,
    /// The working directory.
    pub cwd: String,
    /// Arguments of the first process.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A field is missing or of the wrong kind.
    #[error("the configuration's {field} is missing or malformed")]
    Field {
        /// Its name.
        field: &'static str,
    },
    /// A newer or unknown version of the specification.
    #[error("the configuration's version {version} is not supported")]
    Version {
        /// The version.
        version: String,
    },
    /// A mount cannot be understood.
    #[error("mount at {destination}")]
    Mount {
        /// Where.
        destination: String,
        /// Why.
        #[source]
        source: stage::OptionError,
    },
    /// Something that this runtime does not do, and does not pretend to.
    #[error("{0}")]
    Unsupported(String),
}

/// What the preparation must know beside the document.
#[derive(Clone, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The container's name, for the default control group.
    pub id: &'a str,
    /// Whether the host's control groups are of version 1, whose mounts libcontainer leaves writable.
    pub cgroup_v1: bool,
    /// What the first process may have.
    pub confinement: &'a Confinement,
    /// Capabilities that libcontainer must leave to it.
    pub capabilities: kakoi_policy::confinement::CapabilitySets,
    /// The last capability the kernel knows.
    pub capability_last: u8,
}

/// Changes `spec` in place and returns what it no longer says.
pub(crate) fn prepare(spec: &mut Value, given: &Circumstances<'_>) -> Result<Leftover, PrepareError> {
    let version = spec
        .get("ociVersion")
        .and_then(Value::as_str)
        .ok_or(PrepareError::Field { field: "ociVersion" })?;
    if !version.starts_with("1.") {
        return Err(PrepareError::Version {
            version: version.to_owned(),
        });
    }
    let mut left = Leftover {
        hooks: take_hooks(spec)?,
        ..Leftover::default()
    };
    let setting = spec["linux"]["sysctl"].get("kernel.domainname");
    if setting.is_some() && spec.get("domainname").is_some_and(|name| Some(name) != setting) {
        return Err(PrepareError::Unsupported(
            "domainname and the sysctl kernel.domainname contradict each other".to_owned(),
        ));
    }
    process(spec, given, &mut left)?;
    linux(spec, given, &mut left)?;
    mounts(spec, given, &mut left)?;
    Ok(left)
}

fn take_hooks(spec: &mut Value) -> Result<Hooks, PrepareError> {
    let Some(object) = spec.as_object_mut() else {
        return Err(PrepareError::Field { field: "root" });
    };
    match object.remove("hooks") {
        None | Some(Value::Null) => Ok(Hooks::default()),
        Some(mut hooks) => {
            if let Some(object) = hooks.as_object_mut() {
                object.retain(|_, list| !list.is_null());
            }
            serde_json::from_value(hooks).map_err(|_| PrepareError::Field { field: "hooks" })
        }
    }
}

fn object<'a>(value: &'a mut Value, field: &'static str) -> Result<&'a mut Map<String, Value>, PrepareError> {
    value
        .get_mut(field)
        .and_then(Value::as_object_mut)
        .ok_or(PrepareError::Field { field })
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn process(spec: &mut Value, given: &Circumstances<'_>, left: &mut Leftover) -> Result<(), PrepareError> {
    let process = object(spec, "process")?;
    left.args = strings(process.get("args"));
    left.env = strings(process.get("env"));
    left.cwd = process
        .get("cwd")
        .and_then(Value::as_str)
        .filter(|cwd| !cwd.is_empty())
        .unwrap_or("/")
        .to_owned();
    if !left.cwd.starts_with('/') {
        return Err(PrepareError::Field { field: "process.cwd" });
    }
    process.insert("cwd".into(), json!(left.cwd));
    // An absent set would keep every privilege, so all five are always written; numbers that the kernel does not have would fail.
    let known = u64::MAX >> (63 - u32::from(given.capability_last.min(63)));
    let sets = given.capabilities;
    process.insert(
        "capabilities".into(),
        json!({
            "bounding": capability::names(sets.bounding & known),
            "permitted": capability::names(sets.permitted & known),
            "effective": capability::names(sets.effective & known),
            "inheritable": capability::names(sets.inheritable & known),
            "ambient": capability::names(sets.ambient & known),
        }),
    );
    process.insert(
        "noNewPrivileges".into(),
        json!(given.confinement.no_new_privileges),
    );
    let identity = &given.confinement.identity;
    process.insert(
        "user".into(),
        json!({"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups, "umask": identity.umask}),
    );
    // Both would be set on the caller or from inside a user namespace that may not raise them; the parent sets them on the child.
    left.oom_score_adj = process
        .remove("oomScoreAdj")
        .and_then(|value| value.as_i64())
        .and_then(|n| i32::try_from(n).ok());
    left.rlimits = process
        .remove("rlimits")
        .and_then(|value| value.as_array().cloned())
        .unwrap_or_default();
    left.scheduler = process.remove("scheduler").filter(Value::is_object);
    process.retain(|_, value| !value.is_null());
    Ok(())
}

fn linux(spec: &mut Value, given: &Circumstances<'_>, left: &mut Leftover) -> Result<(), PrepareError> {
    let root = spec
        .as_object_mut()
        .ok_or(PrepareError::Field { field: "root" })?;
    let linux = root.entry("linux").or_insert_with(|| json!({}));
    let linux = linux
        .as_object_mut()
        .ok_or(PrepareError::Field { field: "linux" })?;
    linux.retain(|_, value| !value.is_null());
    // Ours: compiled into the confinement, loaded by our own call.
    linux.remove("seccomp");
    linux.entry("namespaces").or_insert_with(|| json!([]));
    linux.insert(
        "cgroupsPath".into(),
        json!(cgroup_path(
            linux.get("cgroupsPath").and_then(Value::as_str),
            given.id
        )),
    );
    if let Some(propagation) = linux.get("rootfsPropagation").and_then(Value::as_str) {
        let plain = propagation.strip_prefix('r').unwrap_or(propagation);
        if !["private", "slave", "shared", "unbindable"].contains(&plain) {
            return Err(PrepareError::Field {
                field: "linux.rootfsPropagation",
            });
        }
        left.root_propagation = Some(propagation.to_owned());
        let plain = plain.to_owned();
        linux.insert("rootfsPropagation".into(), json!(plain));
    }
    if linux
        .get("timeOffsets")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        linux.remove("timeOffsets");
    }
    left.device_rules = device_rules(linux);
    left.new_network = linux["namespaces"].as_array().is_some_and(|list| {
        let is_new =
            |entry: &Value| entry["type"] == "network" && entry["path"].as_str().is_none_or(str::is_empty);
        list.iter().any(is_new)
    });
    left.no_oom_kill = linux["resources"]["memory"]["disableOOMKiller"] == true;
    // Nodes cannot be made from inside a user namespace, and libcontainer would bind whatever the host has at the same path.
    let in_user_namespace = linux["namespaces"].as_array().is_some_and(|list| {
        list.iter()
            .any(|entry| entry.get("type").and_then(Value::as_str) == Some("user"))
    });
    if let Some(devices) = linux.get_mut("devices").and_then(Value::as_array_mut) {
        let (ours, theirs) = devices
            .drain(..)
            .partition(|device: &Value| in_user_namespace || !is_libcontainers(device));
        *devices = theirs;
        left.devices = ours;
    }
    Ok(())
}

/// libcontainer refuses nodes outside /dev.
fn is_libcontainers(device: &Value) -> bool {
    device.get("path").and_then(Value::as_str).is_some_and(|path| {
        let path = Path::new(path);
        path.starts_with("/dev")
            && path
                .components()
                .all(|part| !matches!(part, Component::ParentDir))
    })
}

/// Puts "deny everything" first: on version 1 a group starts with everything allowed, and libcontainer takes the list as it is.
fn device_rules(linux: &mut Map<String, Value>) -> Vec<Value> {
    let resources = linux.entry("resources").or_insert_with(|| json!({}));
    let deny = json!({"allow": false, "access": "rwm"});
    let Some(resources) = resources.as_object_mut() else {
        return vec![deny];
    };
    resources.retain(|_, value| !value.is_null());
    let devices = resources.entry("devices").or_insert_with(|| json!([]));
    if let Some(list) = devices.as_array_mut() {
        list.insert(0, deny.clone());
    }
    devices.as_array().cloned().unwrap_or_else(|| vec![deny])
}

/// An absolute path without `..`; one that is not given is the container's own.
pub(crate) fn cgroup_path(given: Option<&str>, id: &str) -> PathBuf {
    let given = given
        .filter(|path| !path.is_empty())
        .map_or_else(|| format!("/kakoi-oci/{id}"), str::to_owned);
    let mut path = PathBuf::from("/");
    for part in Path::new(&given).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    if path == Path::new("/") {
        path.join(id)
    } else {
        path
    }
}

fn mounts(spec: &mut Value, given: &Circumstances<'_>, left: &mut Leftover) -> Result<(), PrepareError> {
    let root = spec
        .as_object_mut()
        .ok_or(PrepareError::Field { field: "root" })?;
    let list = root.entry("mounts").or_insert_with(|| json!([]));
    let list = list
        .as_array_mut()
        .ok_or(PrepareError::Field { field: "mounts" })?;
    // Cut off from the host by default; only where a mount, or the document, wants to stay connected do single mounts need our hand.
    let explicit = left
        .root_propagation
        .as_deref()
        .is_some_and(|word| word.ends_with("slave") || word.ends_with("shared"));
    let propagates = explicit || list.iter().filter_map(Value::as_object).any(stage::shares);
    let mut kept = Vec::with_capacity(list.len());
    for mut mount in list.drain(..) {
        let object = mount
            .as_object_mut()
            .ok_or(PrepareError::Field { field: "mounts" })?;
        object.retain(|_, value| !value.is_null());
        let destination = object
            .get("destination")
            .and_then(Value::as_str)
            .filter(|destination| !destination.is_empty())
            .ok_or(PrepareError::Field {
                field: "mounts.destination",
            })?
            .to_owned();
        // Older documents give it relative to the root.
        let absolute = if destination.starts_with('/') {
            destination.clone()
        } else {
            format!("/{destination}")
        };
        object.insert("destination".into(), json!(absolute));
        if object.get("source").is_none() {
            let kind = object
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("none")
                .to_owned();
            object.insert("source".into(), json!(kind));
        }
        // A folder of the host at /dev must not be filled by libcontainer: it comes on top of what was made.
        let binds_dev = absolute == "/dev" && stage::is_bind(object);
        if binds_dev && !kept.iter().any(|mount: &Value| mount["destination"] == "/dev") {
            kept.push(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}));
        }
        let below = binds_dev
            || left
                .mounts
                .iter()
                .any(|staged| Path::new(&absolute).starts_with(&staged.destination));
        let staged = stage::staged(object, given.cgroup_v1, below, propagates).map_err(|source| {
            PrepareError::Mount {
                destination: absolute.clone(),
                source,
            }
        })?;
        match staged {
            Some(staged) => left.mounts.push(staged),
            None => kept.push(mount),
        }
    }
    *list = kept;
    if !propagates && left.root_propagation.is_none() {
        root["linux"]["rootfsPropagation"] = json!("private");
    }
    Ok(())
}
