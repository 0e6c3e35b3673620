//! The mounts of a container, in order.
//!
//! Owns the standard ones, which are Docker's, and how a plan's and a policy's are written in OCI's words. Invariant: a control group file
//! system is visible only on version 2, read-only and behind a control group namespace; on version 1 its read-only option is
//! ignored by libcontainer, so there is none.

use std::path::{Path, PathBuf};

use kakoi_policy::confinement::MountSource;
use kakoi_policy::kernel::CgroupMode;
use serde_json::{Value, json};

use super::{HostView, SpecError, has_user_namespace};
use crate::plan::{MountKind, MountPlan, NamespaceSource, RunPlan};

const SYS_ADMIN: u64 = 1 << 21;

/// The group `tty` of every distribution, which owns terminals.
const TTY_GROUP: u32 = 5;

pub(super) fn mounts(plan: &RunPlan, host: &HostView) -> Result<Vec<Value>, SpecError> {
    let mut asked: Vec<Value> = Vec::new();
    for mount in &plan.mounts {
        asked.push(planned(plan, mount)?);
    }
    for mount in &plan.confinement.filesystem.mounts {
        let is_planned = plan.mounts.iter().any(|other| other.target == mount.target);
        if is_planned {
            continue;
        }
        let kind = match &mount.source {
            MountSource::Bind(path) => MountKind::Bind(path.into()),
            MountSource::Tmpfs(_) => MountKind::Tmpfs,
            MountSource::Volume(volume) => {
                return Err(SpecError::VolumeMissing {
                    rule: mount.rule.clone(),
                    volume: volume.clone(),
                });
            }
        };
        let options = match mount.source {
            MountSource::Tmpfs(Some(bytes)) => vec![format!("size={bytes}")],
            _ => Vec::new(),
        };
        let read_only = mount.read_only;
        let target = mount.target.clone();
        asked.push(planned(
            plan,
            &MountPlan {
                target,
                kind,
                read_only,
                options,
                copy_up: false,
            },
        )?);
    }
    let mut all = standard(plan, host);
    for name in &host.identity_files {
        let source = plan.state_dir.join(name);
        all.push(bind(
            &source.to_string_lossy(),
            &format!("/etc/{name}"),
            &["rbind", "rprivate"],
        ));
    }
    all.retain(|mount| {
        !asked
            .iter()
            .any(|other| other["destination"] == mount["destination"])
    });
    // Mounting a parent after its child would hide the child.
    asked.sort_by_key(|mount| {
        mount["destination"]
            .as_str()
            .map_or(0, |path| path.matches('/').count())
    });
    for mount in &mut asked {
        if mount["type"] == "bind" && !opened(mount, host) {
            return Err(SpecError::SourceNotOpen {
                target: mount["destination"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    for mount in &mut all {
        opened(mount, host);
    }
    all.extend(asked);
    Ok(all)
}

/// Puts the place where a source was opened in place of the source's own path, which may lead elsewhere by now.
fn opened(mount: &mut Value, host: &HostView) -> bool {
    let source = mount["source"].as_str().map(Path::new);
    let known = host
        .sources
        .iter()
        .find(|(closed, _)| Some(closed.as_path()) == source);
    if let Some((_, open)) = known {
        mount["source"] = json!(open);
    }
    known.is_some()
}

fn bind(source: &str, target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

fn special(kind: &str, target: &str, options: &[&str]) -> Value {
    let source = if target == "/dev/shm" { "shm" } else { kind };
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

/// `/proc`, `/dev`, `/dev/pts`, `/dev/shm`, `/dev/mqueue`, `/sys` and, where it is safe, `/sys/fs/cgroup`. A user namespace may not mount anew what belongs to a namespace of the host;
/// there the host's own is bound.
fn standard(plan: &RunPlan, host: &HostView) -> Vec<Value> {
    let namespaces = &plan.namespaces;
    let in_userns = has_user_namespace(plan);
    let foreign = |source: &NamespaceSource| in_userns && *source != NamespaceSource::New;
    let mut all = Vec::with_capacity(8);
    all.push(match foreign(&namespaces.pid) {
        true => bind("/proc", "/proc", &["rbind", "nosuid", "noexec", "nodev"]),
        false => special("proc", "/proc", &["nosuid", "noexec", "nodev"]),
    });
    all.push(special(
        "tmpfs",
        "/dev",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ));
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let has_tty_group = plan
        .id_mappings
        .gids
        .iter()
        .any(|m| m.inside <= TTY_GROUP && TTY_GROUP - m.inside < m.count);
    if !in_userns || has_tty_group {
        pts.push("gid=5");
    }
    all.push(special("devpts", "/dev/pts", &pts));
    let may_write = hides_nothing(plan);
    let access = if may_write { "rw" } else { "ro" };
    all.push(match foreign(&namespaces.network) {
        true => bind("/sys", "/sys", &["rbind", "rro", "nosuid", "noexec", "nodev"]),
        false => special("sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
    });
    if host.cgroup_mode == CgroupMode::V2 && namespaces.cgroup == NamespaceSource::New {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        all.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
    }
    if !foreign(&namespaces.ipc) {
        all.push(special("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]));
    } else if host.has_message_queues {
        let options = ["rbind", "nosuid", "noexec", "nodev"];
        all.push(bind("/dev/mqueue", "/dev/mqueue", &options));
    }
    // Shared memory is whose the IPC namespace is.
    let shared = match &namespaces.ipc {
        NamespaceSource::Host => Some(PathBuf::from("/dev/shm")),
        _ => host.shared_memory.clone(),
    };
    if let Some(shared) = shared {
        all.push(bind(
            &shared.to_string_lossy(),
            "/dev/shm",
            &["rbind", "nosuid", "noexec", "nodev"],
        ));
    } else {
        let size = format!("size={}", plan.shm_bytes);
        all.push(special(
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &size],
        ));
    }
    all
}

/// A policy that grants CAP_SYS_ADMIN and hides nothing (`privileged`) gets a writable `/sys`, as under Docker.
fn hides_nothing(plan: &RunPlan) -> bool {
    let filesystem = &plan.confinement.filesystem;
    filesystem.masked_paths.is_empty()
        && filesystem.read_only_paths.is_empty()
        && plan.confinement.capabilities.bounding & SYS_ADMIN != 0
}

fn planned(plan: &RunPlan, mount: &MountPlan) -> Result<Value, SpecError> {
    let is_plain = mount.target.starts_with('/')
        && mount.target.len() > 1
        && !mount.target.contains('\0')
        && mount.target.split('/').all(|part| part != "..");
    if !is_plain {
        return Err(SpecError::Target {
            target: mount.target.clone(),
        });
    }
    let has = |words: &[&str]| {
        mount
            .options
            .iter()
            .any(|option| words.contains(&option.as_str()))
    };
    let mut options: Vec<String> = Vec::new();
    let source = mount.kind.source();
    let (kind, source) = match &mount.kind {
        MountKind::Bind(_) | MountKind::Volume { .. } | MountKind::Secret(_) => {
            if !has(&["bind", "rbind"]) {
                options.push("rbind".into());
            }
            if !has(&["private", "rprivate", "slave", "rslave", "shared", "rshared"]) {
                options.push("rprivate".into());
            }
            ("bind", source.unwrap_or_default().to_string_lossy().into_owned())
        }
        MountKind::Tmpfs => {
            options.extend(["nosuid", "nodev", "noexec"].map(String::from));
            if let Some(bytes) = plan.confinement.limits.tmpfs_bytes
                && !mount.options.iter().any(|option| option.starts_with("size="))
            {
                options.push(format!("size={bytes}"));
            }
            ("tmpfs", "tmpfs".to_string())
        }
    };
    options.extend(mount.options.iter().cloned());
    // Last, so that no option before them can take them back, and on everything mounted below.
    if kind == "bind" && !hides_nothing(plan) {
        options.push("rnodev".into());
    }
    if matches!(mount.kind, MountKind::Volume { .. }) && !has(&["suid"]) {
        options.push("rnosuid".into());
    }
    if mount.read_only {
        options.push("ro".into());
    }
    Ok(json!({"destination": mount.target, "type": kind, "source": source, "options": options}))
}
