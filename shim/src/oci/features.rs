//! `features`: what this runtime can do (features.md).

use kakoi_container::capability;
use serde_json::json;

use super::{Failed, list};

/// Options of mounts that are understood, as the document of features.md wants them.
const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec idmap lazytime loud mand noatime nodev nodiratime \
    noexec nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec rnoatime \
    rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ridmap ro rprivate rrelatime rro rrw rshared rslave \
    rstrictatime rsuid rsymfollow runbindable rw shared silent slave src-nofollow strictatime suid symfollow sync tmpcopyup unbindable";

pub(super) fn features() -> Result<(), Failed> {
    let last = kakoi_sys::capability::last()
        .map_err(|error| Failed::of("read the kernel's last capability", &error))?;
    let options: Vec<&str> = MOUNT_OPTIONS.split_whitespace().collect();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capability::names(u64::MAX >> (63 - u32::from(last.min(40)))),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG"],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": true},
            "memoryPolicy": {"modes": ["MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY", "MPOL_LOCAL"], "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "io.kakoi.runtime.version": env!("CARGO_PKG_VERSION"),
            "run.oci.crun.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": [],
    });
    list::print(&list::pretty(&document)?)
}
