//! What the running kernel can enforce.
//!
//! Each start of a container may ask, so this takes well under a millisecond: a dozen system calls, and no process or file is made.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use kakoi_policy::kernel::{Arch, CgroupMode, KernelFacts};
use kakoi_sys::path::{FilesystemKind, filesystem_kind, open_start};
use kakoi_sys::seccomp::{Flags, has_action, has_flags};
use kakoi_sys::{CallError, capability, system};

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No system call table for this processor.
    #[error("processor architecture {0} is not supported")]
    Arch(&'static str),
    /// A call failed.
    #[error("ask the kernel for {subject}")]
    Call {
        /// What was asked.
        subject: &'static str,
        /// The call and why.
        #[source]
        source: CallError,
    },
    /// A file of `/proc` or `/sys` could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing is mounted where control groups are expected.
    #[error("no control groups are mounted at {CGROUP_ROOT}")]
    NoCgroups,
}

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The longest kernel file that is read whole: `/proc/self/mountinfo` of a host with thousands of mounts stays below it.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// `SECCOMP_RET_ERRNO`, without which no filter of ours means anything.
const ACTION_ERRNO: u32 = 0x0005_0000;

/// Asks the running kernel. Needs no privilege.
pub fn probe() -> Result<KernelFacts, ProbeError> {
    let arch = Arch::native().ok_or(ProbeError::Arch(std::env::consts::ARCH))?;
    let call = |subject| move |source| ProbeError::Call { subject, source };
    let (cgroup_mode, cgroup_controllers) = cgroups()?;
    Ok(KernelFacts {
        release: system::release().map_err(call("its release"))?,
        arch,
        landlock_abi: system::landlock_abi().map_err(call("landlock"))?,
        seccomp_filter: has_action(ACTION_ERRNO).unwrap_or(false),
        seccomp_log: has_flags(Flags::LOG),
        cgroup_mode,
        cgroup_controllers,
        capability_last: capability::last().map_err(call("capabilities"))?,
        capabilities_held: capability::bounding().map_err(call("capabilities"))?,
        user_namespaces: user_namespaces(),
        overlayfs: filesystems(&read("/proc/filesystems")?).any(|name| name == "overlay"),
        security_modules: security_modules(),
    })
}

fn cgroups() -> Result<(CgroupMode, BTreeSet<String>), ProbeError> {
    use std::os::fd::AsFd;
    let call = |source| ProbeError::Call {
        subject: "its control groups",
        source,
    };
    let root = open_start(Path::new(CGROUP_ROOT)).map_err(|_| ProbeError::NoCgroups)?;
    match filesystem_kind(root.as_fd()).map_err(call)? {
        FilesystemKind::Cgroup2 => {
            let controllers = read("/sys/fs/cgroup/cgroup.controllers")?;
            let mut controllers: BTreeSet<String> =
                controllers.split_whitespace().map(str::to_owned).collect();
            // On version 2 devices are guarded by a program and freezing by the core; both are always there.
            controllers.extend(["devices".to_owned(), "freezer".to_owned()]);
            Ok((CgroupMode::V2, controllers))
        }
        _ => version_1(&read("/proc/self/mountinfo")?).ok_or(ProbeError::NoCgroups),
    }
}

/// Finds the version 1 controllers, and whether a version 2 hierarchy is beside them, in mountinfo (proc_pid_mountinfo(5)).
fn version_1(mountinfo: &str) -> Option<(CgroupMode, BTreeSet<String>)> {
    let (mut unified, mut controllers) = (false, BTreeSet::new());
    for line in mountinfo.lines() {
        // Mounts anywhere count: libcgroups finds its hierarchies in the same table.
        let Some((_, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut kind = kind.split(' ');
        match (kind.next(), kind.nth(1)) {
            (Some("cgroup2"), _) => unified = true,
            (Some("cgroup"), Some(options)) => {
                // Options of the hierarchy: `rw,cpu,cpuacct`, or `rw,name=systemd` for one without controllers.
                let names = options
                    .split(',')
                    .filter(|name| !matches!(*name, "rw" | "ro" | "xattr" | "noprefix"));
                controllers.extend(names.filter(|name| !name.contains('=')).map(str::to_owned));
            }
            _ => {}
        }
    }
    if controllers.is_empty() {
        return None;
    }
    Some((
        if unified {
            CgroupMode::Hybrid
        } else {
            CgroupMode::V1
        },
        controllers,
    ))
}

/// User namespaces exist and the limit on their number is not zero.
fn user_namespaces() -> bool {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let limit = limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok());
    Path::new("/proc/self/ns/user").exists() && limit.is_none_or(|limit| limit > 0)
}

fn filesystems(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next_back())
}

/// securityfs tells, where it is mounted; it is only information, so its absence is no error.
fn security_modules() -> Vec<String> {
    let list = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    list.trim()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read(path: &'static str) -> Result<String, ProbeError> {
    let failed = |source| ProbeError::Read { path, source };
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_probed() {
        let facts = probe().expect("Linux with proc and control groups");
        assert!(facts.seccomp_filter, "{facts:?}");
        assert!(facts.capability_last >= 37, "{facts:?}");
        assert!(!facts.cgroup_controllers.is_empty(), "{facts:?}");
        assert!(facts.release.contains('.'), "{facts:?}");
    }

    #[test]
    fn hierarchies_are_told_apart() {
        let v1 = "30 24 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                  31 24 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let (mode, controllers) = version_1(v1).expect("it has controllers");
        assert_eq!(mode, CgroupMode::V1);
        assert_eq!(controllers.into_iter().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        let hybrid = format!("{v1}32 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        assert_eq!(version_1(&hybrid).map(|found| found.0), Some(CgroupMode::Hybrid));
        assert_eq!(version_1("32 24 0:29 / /x rw - cgroup2 cgroup2 rw\n"), None);
        assert_eq!(version_1("nonsense"), None);
    }

    #[test]
    fn file_systems_are_named_in_the_last_column() {
        let names: Vec<_> = filesystems("nodev\tsysfs\n\text4\nnodev\toverlay\n").collect();
        assert_eq!(names, ["sysfs", "ext4", "overlay"]);
    }
}
