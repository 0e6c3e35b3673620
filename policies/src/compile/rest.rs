//! Capabilities, devices, limits and the view of the file system.
//!
//! Owns the standard lists, which are Docker's in effect.

use crate::compose::Composed;
use crate::confinement::{
    CapabilitySets, DeviceAccess, DeviceKind, DeviceRule, Filesystem, Identity, Limits, Loss, PolicyMount,
};
use crate::kernel::KernelFacts;
use crate::model::{DeviceSubject, Limit, LimitSet, PathList};

/// What `masked_paths: [standard]` hides, and what is hidden where nothing is said.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What `read_only_paths: [standard]` makes read-only.
pub(crate) const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What `devices: [standard]` allows: major and minor number of character devices.
pub(crate) const STANDARD_DEVICES: [(u32, Option<u32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pseudo-terminals
];

/// All five sets. Root holds what it is bounded by; another user holds only what is ambient, as with Docker. Nothing is inheritable that is
/// not ambient (CVE-2022-24769). What the supervisor cannot hand on is lost, on record: a container with less is no danger.
pub(crate) fn capability_sets(
    policy: &Composed,
    identity: &Identity,
    facts: &KernelFacts,
    losses: &mut Vec<Loss>,
) -> CapabilitySets {
    let known = u64::MAX >> (63 - u32::from(facts.capability_last.min(63)));
    for (capability, origin) in &policy.capabilities {
        if capability.bit() & known & !facts.capabilities_held != 0 {
            losses.push(Loss {
                rule: format!("{origin} capabilities"),
                fact: format!("the supervisor itself does not hold {}", capability.name()),
            });
        }
    }
    let bounding =
        policy.capabilities.keys().fold(0, |set, c| set | c.bit()) & known & facts.capabilities_held;
    let ambient = policy
        .rules
        .capabilities
        .ambient
        .iter()
        .fold(0, |set, ambient| set | ambient.value.bit())
        & bounding;
    let held = if identity.uid == 0 { bounding } else { ambient };
    CapabilitySets {
        bounding,
        permitted: held,
        effective: held,
        inheritable: ambient,
        ambient,
    }
}

pub(super) fn devices(policy: &Composed) -> Vec<DeviceRule> {
    let mut rules = Vec::new();
    for entry in &policy.rules.devices {
        let rule = format!("{} devices", entry.origin);
        let one = |kind, major, minor, access: DeviceAccess, path: Option<String>| DeviceRule {
            kind,
            major,
            minor,
            access,
            path,
            rule: rule.clone(),
        };
        let access = entry.access;
        match &entry.subject {
            DeviceSubject::Standard => rules.extend(STANDARD_DEVICES.iter().map(|(major, minor)| {
                // Making a node of a device that may be used anyway gives nothing new.
                one(
                    DeviceKind::Char,
                    Some(*major),
                    *minor,
                    DeviceAccess {
                        mknod: true,
                        ..access
                    },
                    None,
                )
            })),
            DeviceSubject::All => rules.push(one(DeviceKind::All, None, None, access, None)),
            DeviceSubject::Path(path) => {
                rules.push(one(DeviceKind::All, None, None, access, Some(path.clone())));
            }
            DeviceSubject::Numbers { kind, major, minor } => {
                rules.push(one(*kind, *major, *minor, access, None));
            }
        }
    }
    rules
}

pub(crate) fn limits(limits: &LimitSet) -> Limits {
    let of = |limit| limits.value(limit);
    Limits {
        memory_bytes: of(Limit::Memory),
        swap_bytes: of(Limit::Swap),
        cpu_millis: of(Limit::Cpu),
        pids: of(Limit::Pids),
        open_files: of(Limit::Files),
        io_read_bytes_per_second: of(Limit::IoRead),
        io_write_bytes_per_second: of(Limit::IoWrite),
        tmpfs_bytes: of(Limit::Tmpfs),
    }
}

pub(super) fn filesystem(policy: &Composed) -> Filesystem {
    let process = &policy.rules.process;
    Filesystem {
        read_only_root: process.read_only_root.as_ref().is_some_and(|set| set.value),
        masked_paths: paths(process.masked_paths.as_ref(), &MASKED_PATHS),
        read_only_paths: paths(process.read_only_paths.as_ref(), &READ_ONLY_PATHS),
        mounts: policy
            .rules
            .mounts
            .iter()
            .map(|mount| PolicyMount {
                source: mount.source.clone(),
                target: mount.target.clone(),
                read_only: mount.read_only,
                rule: format!("{} mounts", mount.origin),
            })
            .collect(),
    }
}

/// A list that no document mentions is the standard one: what nothing opens stays hidden.
pub(crate) fn paths(list: Option<&PathList>, standard: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    match list {
        Some(PathList::None(_)) => {}
        None => paths.extend(standard.iter().map(|path| (*path).to_owned())),
        Some(PathList::These(list)) => {
            for path in list {
                if path.value == "standard" {
                    paths.extend(standard.iter().map(|path| (*path).to_owned()));
                } else {
                    paths.push(path.value.clone());
                }
            }
        }
    }
    paths.sort();
    paths.dedup();
    paths
}
