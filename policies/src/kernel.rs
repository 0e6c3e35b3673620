//! What one kernel can enforce, as data.
//!
//! Owns [`KernelFacts`]. Knows nothing of how they are found out: `kakoi-confine` probes them once, tests write them by hand.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A processor architecture that Kakoi compiles system call filters for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86, without its i386 and x32 entry points.
    X86_64,
    /// 64-bit Arm, without its 32-bit entry points.
    Aarch64,
}

impl Arch {
    /// The architecture this program was built for, or `None` where Kakoi has no system call table for it.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// How the host mounts its control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// Version 1 controllers only.
    V1,
    /// Version 1 controllers with an empty version 2 hierarchy beside them.
    Hybrid,
    /// The unified hierarchy.
    V2,
}

/// What the running kernel can enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// The native architecture.
    pub arch: Arch,
    /// Landlock's ABI version; 0 where it is missing or off. Source: landlock_create_ruleset(2).
    pub landlock_abi: u32,
    /// Whether seccomp filters can be loaded (since Linux 3.17).
    pub seccomp_filter: bool,
    /// Whether a denied call can be logged (`SECCOMP_FILTER_FLAG_LOG`, since Linux 4.14).
    pub seccomp_log: bool,
    /// How control groups are mounted.
    pub cgroup_mode: CgroupMode,
    /// The controllers that can be used, by their kernel names (`memory`, `pids`, `cpu`, `devices` …).
    pub cgroup_controllers: BTreeSet<String>,
    /// The number of the last capability the kernel knows.
    pub capability_last: u8,
    /// The capabilities that the supervisor itself can hand on, bit n being number n: its bounding set. Inside a container or under a
    /// restricted service they are fewer than the kernel has.
    pub capabilities_held: u64,
    /// Whether user namespaces can be created by root.
    pub user_namespaces: bool,
    /// Whether overlayfs can be mounted.
    pub overlayfs: bool,
    /// The active security modules, in the kernel's order; empty where securityfs does not tell.
    pub security_modules: Vec<String>,
}
