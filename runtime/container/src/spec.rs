//! From a plan to the OCI document that libcontainer reads.
//!
//! Pure: what the host looks like comes in as [`HostView`], so a laptop's goldens hold what a device does. Refuses to know how a mount or a
//! namespace is made. Invariant: whatever the plan or its confinement asks for is in the document or is an error; nothing is
//! left out because it is inconvenient. The document holds no system call filter and no landlock rule: those are applied by us.

mod devices;
mod mounts;
mod sysctl;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kakoi_policy::confinement::CapabilitySets;
use kakoi_policy::kernel::CgroupMode;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::capability;
use crate::plan::{IdMapping, NamespaceSource, Resources, RunPlan};

pub use devices::{DeviceError, HostDevice, find_devices, numbered};
pub use sysctl::is_namespaced;

/// Where the host's answers to a spec come from.
#[derive(Clone, Debug)]
pub struct HostView {
    /// How control groups are mounted.
    pub cgroup_mode: CgroupMode,
    /// Nodes found for the confinement's device paths; see [`find_devices`].
    pub devices: Vec<HostDevice>,
    /// Major and minor numbers of the block devices that I/O limits apply to.
    pub block_devices: Vec<(u32, u32)>,
    /// Hard limits of this process by lower-case name; a default limit is clamped to them.
    pub hard_limits: Vec<(String, u64)>,
    /// Which of `hosts`, `hostname` and `resolv.conf` exist in the container's folder.
    pub identity_files: Vec<String>,
    /// Whether the host has `/dev/mqueue` mounted.
    pub has_message_queues: bool,
    /// Where sources of bind mounts were opened, as [`Assembled`](crate::rootfs::Assembled) says.
    pub sources: Vec<(PathBuf, PathBuf)>,
    /// Where namespaces of other containers are to be found, by the specification's name of their kind.
    pub joined: BTreeMap<&'static str, String>,
    /// Where the shared memory of the container is mounted whose IPC namespace is joined.
    pub shared_memory: Option<PathBuf>,
}

/// Why a plan makes no document.
#[derive(Debug, Error)]
pub enum SpecError {
    /// A kernel setting would reach beyond the container (CVE-2022-0811).
    #[error("kernel setting {name} is not separate for this container")]
    SysctlNotNamespaced {
        /// The setting.
        name: String,
    },
    /// A limit has a name that the kernel does not know.
    #[error("unknown resource limit {name}")]
    UnknownUlimit {
        /// The name.
        name: String,
    },
    /// A policy's volume was not given a path by the daemon.
    #[error("policy rule {rule} mounts volume {volume}, which the plan does not bring")]
    VolumeMissing {
        /// The policy rule.
        rule: String,
        /// The volume's name.
        volume: String,
    },
    /// A source was not opened by who assembled the root file system.
    #[error("the source of the mount at {target} was not opened")]
    SourceNotOpen {
        /// The target.
        target: String,
    },
    /// A target is not an absolute path without `..`.
    #[error("mount target {target:?} is not an absolute path")]
    Target {
        /// The target.
        target: String,
    },
    /// A namespace of another container that was not opened before.
    #[error("the {kind} namespace of container {id} cannot be joined")]
    NotJoined {
        /// Its kind.
        kind: &'static str,
        /// Whose.
        id: String,
    },
    /// There is nothing to run.
    #[error("no program to run")]
    NoProgram,
}

/// Makes the document of the container's first process. `rootfs` is the folder that holds the assembled root file system.
pub fn document(plan: &RunPlan, host: &HostView, rootfs: &str) -> Result<Value, SpecError> {
    if plan.process.args.is_empty() {
        return Err(SpecError::NoProgram);
    }
    let mut document = json!({
        "ociVersion": "1.0.2",
        "process": process(plan, host)?,
        "root": {"path": rootfs, "readonly": plan.confinement.filesystem.read_only_root},
        "mounts": mounts::mounts(plan, host)?,
        "annotations": plan.annotations,
        "linux": linux(plan, host)?,
    });
    if plan.namespaces.uts == NamespaceSource::New {
        document["hostname"] = json!(plan.hostname);
        if let Some(domainname) = &plan.domainname {
            document["domainname"] = json!(domainname);
        }
    }
    Ok(document)
}

fn process(plan: &RunPlan, host: &HostView) -> Result<Value, SpecError> {
    let identity = &plan.confinement.identity;
    let mut process = json!({
        "terminal": plan.process.tty,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "umask": identity.umask,
            "additionalGids": identity.groups,
        },
        "args": plan.process.args,
        "env": plan.process.env,
        "cwd": plan.process.cwd,
        "capabilities": capabilities(&plan.confinement.capabilities),
        "noNewPrivileges": plan.confinement.no_new_privileges,
        "rlimits": rlimits(plan, host)?,
        "oomScoreAdj": plan.process.oom_score_adj,
    });
    if let Some(size) = plan.process.terminal_size.filter(|_| plan.process.tty) {
        process["consoleSize"] = json!({"height": size.height, "width": size.width});
    }
    Ok(process)
}

/// All five sets are always written: libcontainer keeps every privilege of a set that is absent.
fn capabilities(sets: &CapabilitySets) -> Value {
    json!({
        "bounding": capability::names(sets.bounding),
        "permitted": capability::names(sets.permitted),
        "effective": capability::names(sets.effective),
        "inheritable": capability::names(sets.inheritable),
        "ambient": capability::names(sets.ambient),
    })
}

/// Names of setrlimit(2) without their prefix.
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn rlimits(plan: &RunPlan, host: &HostView) -> Result<Vec<Value>, SpecError> {
    let hard_limit = |name: &str| {
        host.hard_limits
            .iter()
            .find(|(known, _)| known == name)
            .map_or(u64::MAX, |(_, limit)| *limit)
    };
    let entry = |name: &str, soft: u64, hard: u64| json!({"type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard});
    let mut rlimits = Vec::new();
    for ulimit in &plan.process.ulimits {
        if !ULIMITS.contains(&ulimit.name.as_str()) {
            return Err(SpecError::UnknownUlimit {
                name: ulimit.name.clone(),
            });
        }
        let ceiling = if ulimit.asked {
            u64::MAX
        } else {
            hard_limit(&ulimit.name)
        };
        let hard = ulimit.hard.min(ceiling);
        rlimits.push(entry(&ulimit.name, ulimit.soft.min(hard), hard));
    }
    if let Some(files) = plan.confinement.limits.open_files
        && !plan.process.ulimits.iter().any(|ulimit| ulimit.name == "nofile")
    {
        let hard = files.min(hard_limit("nofile"));
        rlimits.push(entry("nofile", hard, hard));
    }
    Ok(rlimits)
}

fn linux(plan: &RunPlan, host: &HostView) -> Result<Value, SpecError> {
    for name in plan.sysctls.keys() {
        if !is_namespaced(name, &plan.namespaces) {
            return Err(SpecError::SysctlNotNamespaced { name: name.clone() });
        }
    }
    let mut resources = resources(&plan.resources, host);
    resources["devices"] = json!(devices::cgroup_rules(&plan.confinement.devices, &host.devices));
    let mut linux = json!({
        "namespaces": namespaces(plan, host)?,
        "devices": devices::nodes(&host.devices),
        "resources": resources,
        "cgroupsPath": plan.cgroup,
        "sysctl": plan.sysctls,
        "maskedPaths": plan.confinement.filesystem.masked_paths,
        "readonlyPaths": plan.confinement.filesystem.read_only_paths,
    });
    if has_user_namespace(plan) {
        linux["uidMappings"] = mappings(&plan.id_mappings.uids);
        linux["gidMappings"] = mappings(&plan.id_mappings.gids);
    }
    Ok(linux)
}

pub(crate) fn has_user_namespace(plan: &RunPlan) -> bool {
    !plan.id_mappings.uids.is_empty() || !plan.id_mappings.gids.is_empty()
}

fn namespaces(plan: &RunPlan, host: &HostView) -> Result<Vec<Value>, SpecError> {
    let mut namespaces = vec![json!({"type": "mount"})];
    if has_user_namespace(plan) {
        namespaces.push(json!({"type": "user"}));
    }
    let others = &plan.namespaces;
    for (name, source) in [
        ("pid", &others.pid),
        ("network", &others.network),
        ("ipc", &others.ipc),
        ("uts", &others.uts),
        ("cgroup", &others.cgroup),
    ] {
        match source {
            NamespaceSource::New => namespaces.push(json!({"type": name})),
            NamespaceSource::Host => {}
            NamespaceSource::Path(path) => namespaces.push(json!({"type": name, "path": path})),
            NamespaceSource::Container { id, .. } => match host.joined.get(name) {
                Some(path) => namespaces.push(json!({"type": name, "path": path})),
                None => {
                    return Err(SpecError::NotJoined {
                        kind: name,
                        id: id.clone(),
                    });
                }
            },
        }
    }
    Ok(namespaces)
}

fn mappings(mappings: &[IdMapping]) -> Value {
    mappings
        .iter()
        .map(|m| json!({"containerID": m.inside, "hostID": m.outside, "size": m.count}))
        .collect()
}

/// The OCI form of limits; also what `update` hands to the control group.
pub(crate) fn resources(resources: &Resources, host: &HostView) -> Value {
    let bytes = |value: u64| i64::try_from(value).unwrap_or(-1);
    let mut memory = Map::new();
    let mut set =
        |name: &str, value: Option<Value>| value.and_then(|value| memory.insert(name.into(), value));
    set("limit", resources.memory_bytes.map(|value| json!(bytes(value))));
    set(
        "reservation",
        resources
            .memory_reservation_bytes
            .map(|value| json!(bytes(value))),
    );
    set(
        "swap",
        resources.memory_and_swap_bytes.map(|value| json!(bytes(value))),
    );
    set("disableOOMKiller", resources.oom_kill.map(|kill| json!(!kill)));
    let mut cpu = Map::new();
    let mut set = |name: &str, value: Option<Value>| value.and_then(|value| cpu.insert(name.into(), value));
    set("shares", resources.cpu_shares.map(|value| json!(value)));
    set("quota", resources.cpu_quota_us.map(|value| json!(value)));
    set("period", resources.cpu_period_us.map(|value| json!(value)));
    set("cpus", resources.cpuset_cpus.as_ref().map(|value| json!(value)));
    set("mems", resources.cpuset_mems.as_ref().map(|value| json!(value)));
    let mut block_io = Map::new();
    if let Some(weight) = resources.blkio_weight {
        block_io.insert("weight".into(), json!(weight));
    }
    let throttle = |rate: u64| -> Value {
        let devices = host.block_devices.iter();
        devices
            .map(|(major, minor)| json!({"major": major, "minor": minor, "rate": rate}))
            .collect()
    };
    if let Some(rate) = resources.io_read_bytes_per_second {
        block_io.insert("throttleReadBpsDevice".into(), throttle(rate));
    }
    if let Some(rate) = resources.io_write_bytes_per_second {
        block_io.insert("throttleWriteBpsDevice".into(), throttle(rate));
    }
    let mut out = json!({});
    for (name, part) in [("memory", memory), ("cpu", cpu), ("blockIO", block_io)] {
        if !part.is_empty() {
            out[name] = Value::Object(part);
        }
    }
    if let Some(pids) = resources.pids {
        out["pids"] = json!({"limit": bytes(pids)});
    }
    out
}

#[cfg(test)]
mod tests;
