//! What a kernel lacks, what that costs, and what to do about it.
//!
//! Owns the findings of `kakoi doctor`: pure over [`KernelFacts`], beside a few settings that are read when asked and change nothing
//! about what is applied.

use kakoi_policy::kernel::{CgroupMode, KernelFacts};
use serde::{Deserialize, Serialize};

/// How well one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// As it should be.
    Good,
    /// Works, with a cost that is named.
    Reduced,
    /// Missing: policies that require it do not start.
    Missing,
    /// Not known: the kernel does not tell.
    Unknown,
}

/// One line of `kakoi doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub state: FindingState,
    /// What was found, and what it means for containers.
    pub consequence: String,
    /// What to do; empty where there is nothing.
    pub remedy: String,
}

/// Settings of the host that decide how much a container could reach if a filter failed. `None`: the kernel has no such setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    io_uring_disabled: Option<u32>,
    unprivileged_bpf_disabled: Option<u32>,
    unprivileged_userns_clone: Option<u32>,
    user_namespaces_max: Option<u32>,
    audit: bool,
}

/// Says what this kernel can enforce, what is missing and what that costs.
pub fn doctor(facts: &KernelFacts) -> Vec<Finding> {
    findings(facts, &settings())
}

fn settings() -> Settings {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
    };
    Settings {
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
        unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        user_namespaces_max: number("/proc/sys/user/max_user_namespaces"),
        audit: kakoi_sys::audit::is_available(),
    }
}

fn findings(facts: &KernelFacts, settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![
        landlock(facts),
        seccomp(facts),
        seccomp_log(facts, settings),
        cgroups(facts),
        user_namespaces(facts),
        overlayfs(facts),
        security_modules(facts),
        capabilities(facts),
        io_uring(settings),
        unprivileged_bpf(settings),
        unprivileged_user_namespaces(settings),
    ];
    findings.extend(missing_controllers(facts));
    findings
}

fn finding(name: &str, state: FindingState, consequence: impl Into<String>, remedy: &str) -> Finding {
    Finding {
        name: name.to_owned(),
        state,
        consequence: consequence.into(),
        remedy: remedy.to_owned(),
    }
}

/// What each landlock ABI adds, so that the cost of an older one can be said.
const LANDLOCK_LADDER: [(u32, &str); 7] = [
    (1, "file rules"),
    (2, "moving files between folders"),
    (3, "truncation of files"),
    (4, "TCP ports"),
    (5, "device controls (ioctl)"),
    (6, "scopes of signals and abstract sockets"),
    (7, "records of denials"),
];

fn landlock(facts: &KernelFacts) -> Finding {
    const NAME: &str = "landlock";
    if facts.landlock_abi == 0 {
        return finding(
            NAME,
            FindingState::Missing,
            "no file, port or scope rule can be enforced; a policy that requires one (strict does) does not start",
            "use a kernel with CONFIG_SECURITY_LANDLOCK and add landlock to the lsm= boot parameter",
        );
    }
    let missing: Vec<&str> = LANDLOCK_LADDER
        .iter()
        .filter(|(abi, _)| *abi > facts.landlock_abi)
        .map(|(_, what)| *what)
        .collect();
    if missing.is_empty() {
        return finding(
            NAME,
            FindingState::Good,
            format!("ABI {}", facts.landlock_abi),
            "",
        );
    }
    finding(
        NAME,
        FindingState::Reduced,
        format!(
            "ABI {} does not control: {}",
            facts.landlock_abi,
            missing.join(", ")
        ),
        "a newer kernel; until then say best_effort for rules of these kinds",
    )
}

fn seccomp(facts: &KernelFacts) -> Finding {
    if facts.seccomp_filter {
        return finding("seccomp", FindingState::Good, "system calls can be filtered", "");
    }
    finding(
        "seccomp",
        FindingState::Missing,
        "no system call can be refused; only the privileged profile starts",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    )
}

fn seccomp_log(facts: &KernelFacts, settings: &Settings) -> Finding {
    const NAME: &str = "denial records";
    match (facts.seccomp_log, settings.audit) {
        (true, true) => finding(
            NAME,
            FindingState::Good,
            "refused system calls are on record; kakoi why shows them",
            "",
        ),
        (true, false) => finding(
            NAME,
            FindingState::Reduced,
            "refused system calls leave no record that can be read here: kakoi why and kakoi events tell of none",
            "use a kernel with CONFIG_AUDIT, and give the daemon CAP_AUDIT_READ in the first user namespace",
        ),
        (false, _) => finding(
            NAME,
            FindingState::Missing,
            "filters cannot be loaded with logging; a policy that logs denials does not start",
            "use Linux 4.14 or newer",
        ),
    }
}

fn cgroups(facts: &KernelFacts) -> Finding {
    const NAME: &str = "control groups";
    match facts.cgroup_mode {
        CgroupMode::V2 => finding(NAME, FindingState::Good, "version 2", ""),
        mode => finding(
            NAME,
            FindingState::Reduced,
            format!(
                "version 1{}: read-only mounts of it are not enforced by the kernel, so containers get none; killing a group is not atomic",
                if mode == CgroupMode::Hybrid {
                    " beside an empty version 2"
                } else {
                    ""
                }
            ),
            "boot with systemd.unified_cgroup_hierarchy=1, or mount only cgroup2",
        ),
    }
}

/// Controllers that limits rest on, and what is lost without each.
const CONTROLLERS: [(&str, &str); 5] = [
    ("memory", "memory limits and out-of-memory reports"),
    (
        "pids",
        "limits on processes, and with them the defence against fork bombs",
    ),
    ("cpu", "processor limits"),
    ("devices", "the device allow-list"),
    ("freezer", "pause"),
];

fn missing_controllers(facts: &KernelFacts) -> Vec<Finding> {
    let missing = CONTROLLERS
        .iter()
        .filter(|(name, _)| !facts.cgroup_controllers.contains(*name));
    let found = missing.map(|(name, lost)| {
        finding(
            &format!("controller {name}"),
            FindingState::Missing,
            format!("without it there are no {lost}"),
            "enable it in the kernel (boot parameter cgroup_enable=) and mount it",
        )
    });
    found.collect()
}

fn user_namespaces(facts: &KernelFacts) -> Finding {
    if facts.user_namespaces {
        return finding(
            "user namespaces",
            FindingState::Good,
            "root of a container can be no one outside",
            "",
        );
    }
    finding(
        "user namespaces",
        FindingState::Missing,
        "--userns auto and keep-id do not start; root of a container is root outside, less what the policy takes",
        "use a kernel with CONFIG_USER_NS and set user.max_user_namespaces above 0",
    )
}

fn overlayfs(facts: &KernelFacts) -> Finding {
    if facts.overlayfs {
        return finding(
            "overlayfs",
            FindingState::Good,
            "layers are shared between containers",
            "",
        );
    }
    finding(
        "overlayfs",
        FindingState::Reduced,
        "each container gets a full copy of its image: slow to make and large on disk",
        "use a kernel with CONFIG_OVERLAY_FS, or load the module overlay",
    )
}

fn security_modules(facts: &KernelFacts) -> Finding {
    const NAME: &str = "security modules";
    if facts.security_modules.is_empty() {
        return finding(
            NAME,
            FindingState::Unknown,
            "the kernel does not tell which are active",
            "mount securityfs at /sys/kernel/security",
        );
    }
    finding(NAME, FindingState::Good, facts.security_modules.join(", "), "")
}

fn capabilities(facts: &KernelFacts) -> Finding {
    const NAME: &str = "capabilities";
    let known = u64::MAX >> (63 - u32::from(facts.capability_last.min(63)));
    let missing = known & !facts.capabilities_held;
    if missing == 0 {
        return finding(
            NAME,
            FindingState::Good,
            "the supervisor can hand on all of them",
            "",
        );
    }
    finding(
        NAME,
        FindingState::Reduced,
        format!(
            "the supervisor cannot hand on {}: containers that ask for it run without",
            crate::capability::list(missing)
        ),
        "start the supervisor with a full bounding set (CapabilityBoundingSet= of its unit)",
    )
}

fn io_uring(settings: &Settings) -> Finding {
    const NAME: &str = "io_uring";
    match settings.io_uring_disabled {
        Some(2) => finding(NAME, FindingState::Good, "disabled", ""),
        Some(1) => finding(NAME, FindingState::Good, "only for a privileged group", ""),
        Some(_) => finding(
            NAME,
            FindingState::Reduced,
            "open to every process of the host that no filter stops; it goes around argument filters, so Kakoi's own profiles refuse it",
            "sysctl kernel.io_uring_disabled=2",
        ),
        None => finding(
            NAME,
            FindingState::Unknown,
            "the kernel has no switch for it (since Linux 6.6), or no io_uring",
            "",
        ),
    }
}

fn unprivileged_bpf(settings: &Settings) -> Finding {
    const NAME: &str = "unprivileged bpf";
    match settings.unprivileged_bpf_disabled {
        Some(0) => finding(
            NAME,
            FindingState::Reduced,
            "open to every process of the host that no filter stops; Kakoi's own profiles refuse it",
            "sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        Some(_) => finding(NAME, FindingState::Good, "disabled", ""),
        None => finding(
            NAME,
            FindingState::Unknown,
            "the kernel has no bpf, or does not tell",
            "",
        ),
    }
}

fn unprivileged_user_namespaces(settings: &Settings) -> Finding {
    const NAME: &str = "unprivileged user namespaces";
    let open = match (settings.unprivileged_userns_clone, settings.user_namespaces_max) {
        (Some(clone), _) => clone != 0,
        (None, Some(max)) => max != 0,
        (None, None) => return finding(NAME, FindingState::Good, "the kernel has none", ""),
    };
    if !open {
        return finding(NAME, FindingState::Good, "disabled", "");
    }
    finding(
        NAME,
        FindingState::Reduced,
        "any process of the host that no filter stops becomes root of a namespace and reaches kernel code meant for root; \
         Kakoi's own profiles refuse it inside containers",
        "sysctl kernel.unprivileged_userns_clone=0 where the kernel has it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kakoi_policy::kernel::Arch;

    fn facts() -> KernelFacts {
        KernelFacts {
            release: "6.12.1".into(),
            arch: Arch::X86_64,
            landlock_abi: 7,
            seccomp_filter: true,
            seccomp_log: true,
            cgroup_mode: CgroupMode::V2,
            cgroup_controllers: CONTROLLERS.iter().map(|(name, _)| (*name).to_owned()).collect(),
            capability_last: 40,
            capabilities_held: u64::MAX >> 23,
            user_namespaces: true,
            overlayfs: true,
            security_modules: vec!["landlock".into()],
        }
    }

    fn hard() -> Settings {
        Settings {
            io_uring_disabled: Some(2),
            unprivileged_bpf_disabled: Some(2),
            unprivileged_userns_clone: Some(0),
            user_namespaces_max: Some(100),
            audit: true,
        }
    }

    fn state(facts: &KernelFacts, settings: &Settings, name: &str) -> Option<FindingState> {
        findings(facts, settings)
            .into_iter()
            .find(|finding| finding.name == name)
            .map(|finding| finding.state)
    }

    #[test]
    fn a_hardened_host_has_only_good_findings() {
        let found = findings(&facts(), &hard());
        assert!(
            found.iter().all(|finding| finding.state == FindingState::Good),
            "{found:?}"
        );
    }

    #[test]
    fn each_lack_is_told_with_a_remedy() {
        let old = KernelFacts {
            landlock_abi: 0,
            ..facts()
        };
        assert_eq!(state(&old, &hard(), "landlock"), Some(FindingState::Missing));
        let old = KernelFacts {
            landlock_abi: 3,
            ..facts()
        };
        let found = findings(&old, &hard()).remove(0);
        assert_eq!(found.state, FindingState::Reduced);
        assert!(
            found.consequence.contains("TCP ports") && !found.consequence.contains("truncation"),
            "{found:?}"
        );
        let bounded = KernelFacts {
            capabilities_held: 1,
            ..facts()
        };
        assert_eq!(
            state(&bounded, &hard(), "capabilities"),
            Some(FindingState::Reduced)
        );
        let v1 = KernelFacts {
            cgroup_mode: CgroupMode::Hybrid,
            ..facts()
        };
        assert_eq!(state(&v1, &hard(), "control groups"), Some(FindingState::Reduced));
        let bare = KernelFacts {
            cgroup_controllers: Default::default(),
            ..facts()
        };
        assert_eq!(
            state(&bare, &hard(), "controller memory"),
            Some(FindingState::Missing)
        );
        let open = Settings {
            io_uring_disabled: Some(0),
            unprivileged_bpf_disabled: Some(0),
            unprivileged_userns_clone: Some(1),
            ..hard()
        };
        for name in ["io_uring", "unprivileged bpf", "unprivileged user namespaces"] {
            assert_eq!(
                state(&facts(), &open, name),
                Some(FindingState::Reduced),
                "{name}"
            );
        }
        for found in findings(
            &KernelFacts {
                landlock_abi: 0,
                seccomp_log: false,
                overlayfs: false,
                ..v1
            },
            &open,
        ) {
            let lacks = matches!(found.state, FindingState::Missing | FindingState::Reduced);
            assert_eq!(lacks, !found.remedy.is_empty(), "{found:?}");
        }
    }
}
